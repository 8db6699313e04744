"""The program: its commands, their groups, and the options that all of them have."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from dispatcher import __version__
from dispatcher.cli import local
from dispatcher.cli.commands import CommandGroup, Group, LazyCommand, LazyGroup
from dispatcher.cli.completion import complete_words
from dispatcher.cli.output import Output

GROUPS: Final = {
    "endpoint": "Create, list, change, pause and test endpoints.",
    "event": "Publish, list, show and erase events; explain their deliveries.",
    "delivery": "List, show, export, diagnose, resend and cancel deliveries.",
    "schedule": "List, retry, postpone and cancel waiting deliveries.",
    "notification": "Send messages to people about problems of endpoints.",
    "job": "List, show, pause, resume and cancel bulk resends and replays.",
    "token": "Create, list and revoke tokens for the API and the console.",
    "portal": "Create, list and revoke links to the portal of one tenant.",
    "session": "List and end sessions of the console.",
    "audit": "List the actions of people and programs.",
    "secrets": "Encrypt stored secrets with a new key.",
}
"""The help of each group, whose commands are in the module of its name."""
_MODULES: Final = {"session": "console_session"}
"""Modules that are named otherwise: `session` is the work of a command on the database."""


class Program(Group):
    """The commands below, and those that are imported with their first use."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 -- typer's own
        super().__init__(**settings)
        lazy = [
            LazyCommand(
                "open",
                "dispatcher.cli.open_command",
                "Print a link that signs in to the console once.",
            ),
            *(
                LazyGroup(name, f"dispatcher.cli.{_MODULES.get(name, name)}", text)
                for name, text in GROUPS.items()
            ),
        ]
        self.commands.update({str(one.name): one for one in lazy})


program = CommandGroup(
    name="dispatcher",
    cls=Program,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
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
    distribute: Annotated[
        bool,
        typer.Option(
            "--distribute",
            help="Then distribute the history over the workers of a Citus coordinator. Stop all replicas first."
            " There is no way back.",
        ),
    ] = False,
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
    if distribute and (check or phase != "all"):
        raise typer.BadParameter(
            "it needs the whole schema. Leave --check and --phase out.", param_hint="--distribute"
        )
    from dispatcher.cli import migration

    migration.migrate(context.obj, check=check, phase=phase, distributes=distribute)


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
            metavar="URL",
            help="The address of the dispatcher's API, unless DISPATCHER_URL is set.",
            envvar="DISPATCHER_URL",
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

    Use it for receivers that requests from outside cannot reach. The endpoint needs --delivery pull. Each delivery is
    forwarded with its headers and its signature. The response decides whether it is retried, as for a pushed delivery.

    Examples:
      dispatcher poll ep_01kat9zma1e4gbryhh3m9dq2yw \
        --url https://dispatcher.example --forward http://localhost:3000/hook
    """
    from dispatcher.cli import poll_command
    from dispatcher.cli.values import secret_text, web_address

    poll_command.poll(
        url=web_address(url, "--url"),
        token=secret_text(token, "--token"),
        endpoint=endpoint,
        forward=web_address(forward, "--forward"),
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
