"""The program: its commands, their groups, and the options that all of them have."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from pathlib import Path
from typing import Annotated

import typer

from dispatcher import __version__
from dispatcher.admin.resources.access import NewSignInLink
from dispatcher.cli import (
    audit,
    configuration,
    console_session,
    delivery,
    endpoint,
    event,
    job,
    local,
    notification,
    schedule,
    secrets,
    token,
)
from dispatcher.cli.commands import CommandGroup
from dispatcher.cli.completion import complete_words
from dispatcher.cli.output import Output
from dispatcher.cli.resource_options import Fields, takes

program = CommandGroup(
    name="dispatcher",
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
configuration.add_to(endpoint.group)
program.add_typer(endpoint.group, name="endpoint")
program.add_typer(event.group, name="event")
program.add_typer(delivery.group, name="delivery")
program.add_typer(schedule.group, name="schedule")
program.add_typer(notification.group, name="notification")
program.add_typer(job.group, name="job")
program.add_typer(token.group, name="token")
program.add_typer(console_session.group, name="session")
program.add_typer(audit.group, name="audit")
program.add_typer(secrets.group, name="secrets")
local.add_to(program)


def _version(wanted: bool) -> None:
    if wanted:
        from dispatcher.cli.version import version_text

        typer.echo(version_text(__version__))
        raise typer.Exit


@program.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="The settings file (TOML). Default: DISPATCHER_CONFIG, or else ./config/dispatcher.toml, "
            "or else /etc/dispatcher/dispatcher.toml.",
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Deliver events from a PostgreSQL database to webhooks.

    Data goes to standard output, everything else to standard error. The exit code is 0 after success, 1 after a
    failure, and 2 after wrong usage or configuration.

    Examples:
      dispatcher dev                                            # on your machine
      dispatcher migrate && dispatcher check && dispatcher run  # in production
    """
    del version
    context.obj = config


@program.command()
def run(
    context: typer.Context,
    role: Annotated[
        str,
        typer.Option(
            metavar="ROLE",
            help="delivery: no API and no console, only probes and metrics; api: no deliveries; all: both.",
            autocompletion=complete_words("all", "delivery", "api"),
        ),
    ] = "all",
    processes: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            max=64,
            help="Run N processes as one service, to use N cores. Needs http.probe_port.",
        ),
    ] = 1,
    probe_path: Annotated[str | None, typer.Option(hidden=True)] = None,
    lifeline: Annotated[int | None, typer.Option(hidden=True)] = None,
    listener: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C.

    It then drains and exits with 0. It needs DISPATCHER_DATABASE_URL, DISPATCHER_SECRET_KEYS and the schema of
    `dispatcher migrate`. If the database is unreachable, the daemon waits for it.

    Examples:
      dispatcher --config /etc/dispatcher/dispatcher.toml run
      dispatcher run --role delivery
      dispatcher run --processes 4  # needs http.probe_port
    """
    if role not in {"all", "delivery", "api"}:
        raise typer.BadParameter(
            f"{role!r} is not a role. Use all, delivery or api.", param_hint="--role"
        )
    from dispatcher.cli import daemon

    if processes > 1:
        daemon.supervise(context.obj, role, processes)
    else:
        child = daemon.Child(probe_path=probe_path, lifeline=lifeline, listener=listener)
        daemon.run(context.obj, role, child)


@program.command()
def migrate(
    context: typer.Context,
    check: Annotated[
        bool,
        typer.Option("--check", help="Only list pending migrations; exit with 1 if there are any."),
    ] = False,
    phase: Annotated[
        str,
        typer.Option(
            metavar="PHASE",
            help="pre: before the new version starts; post: after the last replica of the previous one has stopped;"
            " all: both.",
            autocompletion=complete_words("pre", "post", "all"),
        ),
    ] = "all",
) -> None:
    """Create or upgrade the schema of the database.

    It also sets up the role of producers and the wake-up trigger.

    Examples:
      dispatcher migrate
      dispatcher migrate --check
      dispatcher migrate --phase pre
    """
    if phase not in {"pre", "post", "all"}:
        raise typer.BadParameter(
            f"{phase!r} is not a phase. Use pre, post or all.", param_hint="--phase"
        )
    from dispatcher.cli import migration

    migration.migrate(context.obj, check=check, phase=phase)


@program.command()
def check(context: typer.Context, output: Output) -> None:
    """Check configuration, profiles, database and privileges.

    Problems come first, then warnings, then the effective settings and their sources. The command exits with 2 if
    the configuration is invalid, and with 1 for any other problem.

    Examples:
      dispatcher check
    """
    from dispatcher.cli import checking

    checking.check(context.obj, output)


@program.command("open")
@takes(NewSignInLink)
def open_console(context: typer.Context, fields: Fields, output: Output) -> None:
    """Print a link that signs in to the console once.

    It is valid for five minutes.

    Examples:
      dispatcher open
      dispatcher open --role viewer --tenant acme
    """
    from dispatcher.cli import open_command

    open_command.open_console(context, fields, output)


@program.command()
def poll(
    endpoint: Annotated[
        str,
        typer.Argument(
            metavar="ENDPOINT",
            help="The endpoint's id, or its name if the token may list endpoints.",
        ),
    ],
    forward: Annotated[
        str,
        typer.Option(
            metavar="URL", help="Where each delivery is sent, as http://localhost:3000/hook."
        ),
    ],
    url: Annotated[
        str,
        typer.Option(
            metavar="URL", help="The address of the dispatcher's API.", envvar="DISPATCHER_URL"
        ),
    ],
    token: Annotated[
        str,
        typer.Option(metavar="TOKEN", help="-, @FILE or env:NAME; see token create --endpoint."),
    ] = "env:DISPATCHER_TOKEN",  # noqa: S107 -- where the token is
    limit: Annotated[
        int, typer.Option(metavar="N", help="Deliveries of one poll.", min=1, max=100)
    ] = 10,
    lease: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="How long a delivery may take.", min=1, max=3600),
    ] = 60.0,
    once: Annotated[bool, typer.Option("--once", help="End when no delivery is due.")] = False,
) -> None:
    r"""Fetch the deliveries of an endpoint and forward them.

    For receivers that no request from outside can reach. The endpoint has --delivery pull. Each delivery is forwarded
    with its headers and its signature, and the response decides on its retries, as that of a pushed one does.

    Examples:
      dispatcher poll ep_01kat9zma1e4gbryhh3m9dq2yw \
        --url https://dispatcher.example --forward http://localhost:3000/hook
    """
    from dispatcher.cli import poll_command
    from dispatcher.cli.values import secret_text

    poll_command.poll(
        url=url,
        token=secret_text(token, "--token"),
        endpoint=endpoint,
        forward=forward,
        limit=limit,
        lease_seconds=lease,
        once=once,
    )


@program.command()
def retention(
    context: typer.Context,
    output: Output,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the days past their retention.")
    ] = False,
) -> None:
    """Drop the days of history past their retention.

    A running daemon does this automatically. A day with waiting deliveries is kept in every table.

    Examples:
      dispatcher retention --dry-run
      dispatcher retention
    """
    from dispatcher.cli import retention as command

    command.retention(context, dry_run=dry_run, output=output)
