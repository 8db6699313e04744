"""The commands that need no deployment: `dev`, `demo`, `listen`, `verify`."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from typing import Annotated

import typer

from dispatcher.cli.commands import CommandGroup
from dispatcher.cli.completion import complete_event_types, complete_profiles

STATUS_MIN, STATUS_MAX = 200, 599
RATE_MAX = 500.0


def add_to(program: CommandGroup) -> None:
    """Add these commands to the program."""
    program.command()(dev)
    program.command()(demo)
    program.command()(listen)
    program.command()(verify)


def dev(
    context: typer.Context,
    seconds: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Stop after this time. Default: at Ctrl-C."),
    ] = None,
    samples: Annotated[
        bool, typer.Option("--samples/--no-samples", help="Create sample endpoints and events.")
    ] = True,
) -> None:
    """Run database, daemon, receivers and samples on this machine.

    Nothing has to be installed. The state is stored in DISPATCHER_HOME, or else in .dispatcher; other commands use
    it while it is running. Ctrl-C drains and exits with 0.

    Examples:
      dispatcher dev
      dispatcher dev --seconds 20 --no-samples
    """
    from dispatcher.cli import dev_command

    dev_command.dev(context.obj, seconds=seconds, samples=samples)


def demo(
    context: typer.Context,
    rate: Annotated[
        float, typer.Option(metavar="N", min=0.1, max=RATE_MAX, help="Events per second.")
    ] = 5.0,
    seconds: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Stop after this time. Default: at Ctrl-C."),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", help="The same seed gives the same orders.")
    ] = 1,
) -> None:
    """Run `dispatcher dev` with a simulated warehouse.

    The warehouse inserts orders, shipments and stock changes with SQL, in the transactions of its own tables. Three
    receivers get them: one requires a token, one is slow, and one fails occasionally.

    Examples:
      dispatcher demo
      dispatcher demo --rate 50 --seconds 60 --seed 7
    """
    from dispatcher.cli import dev_command

    options = dev_command.Demo(rate_per_second=rate, seed=seed)
    dev_command.dev(context.obj, seconds=seconds, demo=options)


def listen(
    context: typer.Context,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Create an endpoint of this name that sends to this receiver."
        ),
    ] = None,
    event_types: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPE",
            help="A type that the endpoint subscribes to. May be repeated. Default: *.",
            autocompletion=complete_event_types,
        ),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(metavar="TENANT", help="The tenant of that endpoint.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="The receiver's address for the dispatcher, if it is another one."
        ),
    ] = None,
    port: Annotated[
        int,
        typer.Option(min=0, max=65_535, metavar="PORT", help="The port. 0: any free port."),
    ] = 9000,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address to listen on.")
    ] = "127.0.0.1",
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="PROFILE",
            help="wms, humansoft, standard, github or stripe. Default: detected from the headers.",
            autocompletion=complete_profiles,
        ),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SECRET",
            help="Verify with this secret or whpk_ public key: -, @FILE or env:NAME. May be repeated.",
        ),
    ] = None,
    tls: Annotated[
        bool, typer.Option("--tls", help="Serve https with a development certificate authority.")
    ] = False,
    status: Annotated[
        int, typer.Option(metavar="CODE", help="Respond with this status, such as 410 or 429.")
    ] = 200,
    fail_first: Annotated[int, typer.Option(help="Respond to the first N requests with 503.")] = 0,
    fail_rate: Annotated[
        float, typer.Option(help="Respond to this share of requests, 0 to 1, with 503.")
    ] = 0.0,
    delay: Annotated[
        float, typer.Option(metavar="SECONDS", help="Wait before each response.")
    ] = 0.0,
    stall: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Close each connection after this time without a response."
        ),
    ] = 0.0,
    drip: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Send each response body byte by byte over this time."
        ),
    ] = 0.0,
    retry_after: Annotated[
        str | None,
        typer.Option(metavar="VALUE", help="A Retry-After header on every response except 2xx."),
    ] = None,
    forward_to: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Forward requests to this server and return its responses."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each request.")
    ] = False,
) -> None:
    """Run a receiver on this machine that prints each request.

    It verifies signatures and marks repeats, and can fail on purpose. With --endpoint, it creates an endpoint, prints
    its secret, and deletes it at the end. If a crash left the endpoint, it is reused.

    Examples:
      dispatcher listen --endpoint my-laptop --event-types 'order.*'
      dispatcher listen --secret env:SECRET
      dispatcher listen --port 9001 --tls --fail-first 3 --retry-after 2
    """
    from dispatcher.cli import listen_command
    from dispatcher.cli.listen_endpoint import Registration
    from dispatcher.cli.values import secret_text, web_address
    from dispatcher.dev.receiver import Behaviour

    if not STATUS_MIN <= status <= STATUS_MAX:
        raise typer.BadParameter(f"{status} is not 200 to 599.", param_hint="--status")
    if not 0 <= fail_rate <= 1:
        raise typer.BadParameter(f"{fail_rate:g} is not 0 to 1.", param_hint="--fail-rate")
    if min(delay, stall, drip, fail_first) < 0:
        raise typer.BadParameter(
            "a negative number is not possible.",
            param_hint="--fail-first, --delay, --stall, --drip",
        )
    registration = None
    if endpoint is not None:
        if secret:
            raise typer.BadParameter(
                "conflicts with --endpoint, which generates one.", param_hint="--secret"
            )
        registration = Registration(
            name=endpoint,
            event_types=event_types or ["*"],
            tenant=tenant,
            profile=profile,
            url=url,
        )
    elif event_types or tenant or url:
        raise typer.BadParameter("needs --endpoint.", param_hint="--event-types, --tenant or --url")
    behaviour = Behaviour(
        status=status,
        fail_first=fail_first,
        fail_rate=fail_rate,
        delay_seconds=delay,
        stall_seconds=stall,
        drip_seconds=drip,
        retry_after=retry_after,
        forward_to=None if forward_to is None else web_address(forward_to, "--forward-to"),
    )
    listen_command.listen(
        config=context.obj,
        host=host,
        port=port,
        profile=profile,
        secrets=[secret_text(one, "--secret") for one in secret or []],
        tls=tls,
        behaviour=behaviour,
        registration=registration,
        as_json=as_json,
    )


def verify(
    context: typer.Context,
    profile: Annotated[
        str,
        typer.Option(
            metavar="PROFILE",
            help="The endpoint's profile, such as wms, humansoft or standard.",
            autocompletion=complete_profiles,
        ),
    ],
    secret: Annotated[
        list[str],
        typer.Option(
            metavar="SECRET",
            help="A secret or whpk_ public key: -, @FILE or env:NAME. May be repeated.",
        ),
    ],
    header: Annotated[
        list[str],
        typer.Option(
            metavar="HEADER", help="A header as received, 'Name: value'. May be repeated."
        ),
    ],
    body: Annotated[str, typer.Option(metavar="FILE", help="The body's bytes as received, or -.")],
    computed: Annotated[
        str | None,
        typer.Option(metavar="SIGNATURE", help="The signature that the receiver's code computed."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="Reject a signed timestamp that is further away than this."
        ),
    ] = None,
) -> None:
    r"""Verify a captured request offline, and name the mistake.

    The command exits with 0 if the signature is valid and with 1 if it is not. The age of the request is checked
    only with --tolerance. With --computed, the mistake in the receiver's own calculation is named too.

    Examples:
      dispatcher verify --profile wms --secret env:SECRET --body body.json \
        --header "X-WMS-Signature: $SIGNATURE"
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
