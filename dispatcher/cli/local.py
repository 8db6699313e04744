"""The commands that need no deployment: `dev`, `listen`, `verify`."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from typing import Annotated

import typer

STATUS_MIN, STATUS_MAX = 200, 599


def add_to(program: typer.Typer) -> None:
    """Add these commands to the program."""
    program.command()(dev)
    program.command()(listen)
    program.command()(verify)


def dev(
    context: typer.Context,
    seconds: Annotated[
        float | None, typer.Option(help="Stop after this time. Default: at Ctrl-C.")
    ] = None,
    samples: Annotated[
        bool, typer.Option("--samples/--no-samples", help="Create sample endpoints and events.")
    ] = True,
) -> None:
    """Run database, daemon, receivers and samples on this machine, without any installation.

    The state is stored in DISPATCHER_HOME, or else in .dispatcher; other commands use it while it is running. Ctrl-C
    drains and exits with 0.

    For example:

      dispatcher dev

      dispatcher dev --seconds 20 --no-samples
    """
    from dispatcher.cli import dev_command

    dev_command.dev(context.obj, seconds=seconds, samples=samples)


def listen(
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="The port; 0: any free port.")
    ] = 9000,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    profile: Annotated[
        str | None,
        typer.Option(
            help="wms, humansoft, standard, github or stripe. Default: detected from the headers."
        ),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="-|@FILE|env:NAME",
            help="Verify with this secret, or whpk_ public key. May be repeated.",
        ),
    ] = None,
    tls: Annotated[
        bool, typer.Option("--tls", help="Serve https with a development certificate authority.")
    ] = False,
    status: Annotated[
        int, typer.Option(help="Respond with this status, such as 410 or 429.")
    ] = 200,
    fail_first: Annotated[int, typer.Option(help="Respond to the first N requests with 503.")] = 0,
    fail_rate: Annotated[
        float, typer.Option(help="Respond to this share (0 to 1) of requests with 503.")
    ] = 0.0,
    delay: Annotated[float, typer.Option(help="Seconds before each response.")] = 0.0,
    stall: Annotated[
        float,
        typer.Option(help="Seconds without a response, after which the connection is closed."),
    ] = 0.0,
    drip: Annotated[
        float, typer.Option(help="Seconds over which the response body is sent byte by byte.")
    ] = 0.0,
    retry_after: Annotated[
        str | None, typer.Option(help="A Retry-After header on every response except 2xx.")
    ] = None,
    forward_to: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Forward requests to this server, and return its response."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each request.")
    ] = False,
) -> None:
    """Run a receiver on this machine that prints each request, its signature check, and repeats.

    For example:

      dispatcher listen --secret env:SECRET

      dispatcher listen --port 9001 --tls --fail-first 3 --retry-after 2
    """
    from dispatcher.cli import listen_command
    from dispatcher.cli.values import secret_text
    from dispatcher.dev.receiver import Behaviour

    is_status = STATUS_MIN <= status <= STATUS_MAX
    if not is_status or not 0 <= fail_rate <= 1 or min(delay, stall, drip, fail_first) < 0:
        raise typer.BadParameter(
            "--status must be 200 to 599, --fail-rate 0 to 1, and no value may be negative"
        )
    behaviour = Behaviour(
        status=status,
        fail_first=fail_first,
        fail_rate=fail_rate,
        delay_seconds=delay,
        stall_seconds=stall,
        drip_seconds=drip,
        retry_after=retry_after,
        forward_to=forward_to,
    )
    listen_command.listen(
        host=host,
        port=port,
        profile=profile,
        secrets=[secret_text(one, "--secret") for one in secret or []],
        tls=tls,
        behaviour=behaviour,
        as_json=as_json,
    )


def verify(
    context: typer.Context,
    profile: Annotated[
        str, typer.Option(help="The endpoint's profile, such as wms, humansoft or standard.")
    ],
    secret: Annotated[
        list[str],
        typer.Option(
            metavar="-|@FILE|env:NAME", help="A secret or whpk_ public key. May be repeated."
        ),
    ],
    header: Annotated[
        list[str],
        typer.Option(metavar="'NAME: VALUE'", help="A header as received. May be repeated."),
    ],
    body: Annotated[str, typer.Option(metavar="FILE|-", help="The body's bytes as received.")],
    computed: Annotated[
        str | None,
        typer.Option(metavar="SIGNATURE", help="The signature that the receiver's code computed."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Reject a signed timestamp further away than this."),
    ] = None,
) -> None:
    """Verify a captured request offline and name the mistake if the signature is not valid.

    Exits with 0 if the signature is valid and with 1 if it is not. The age of the request is checked only with
    --tolerance. With --computed, the mistake in the receiver's own calculation is named too.

    For example:

      export SECRET=whsec_an_example

      printf '{"id":"evt_1"}' | dispatcher verify --profile wms --secret env:SECRET --body -
      --header 'X-WMS-Signature: sha256=ef1a51ff8bc54e8fdcb7a9e314ffeeb15a493b8372092dcb34babad34ecd7376'
    """
    from dispatcher.cli import verify_command
    from dispatcher.cli.values import secret_text

    if body == "-" and "-" in secret:
        raise typer.BadParameter(
            "standard input is already used for the body. Use @FILE or env:NAME.",
            param_hint="--secret",
        )
    verify_command.verify(
        config=context.obj,
        profile=profile,
        secrets=[secret_text(one, "--secret") for one in secret],
        headers=header,
        body=body,
        tolerance=tolerance,
        computed=computed,
    )
