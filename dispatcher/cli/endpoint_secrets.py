"""`dispatcher endpoint rotate-secret` and `secret`."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dispatcher.cli.commands import CommandGroup
from dispatcher.cli.common import Endpoint, Tenant, run_step
from dispatcher.cli.output import Output, say, say_data, say_object, tell
from dispatcher.cli.values import NONE, secret_text

if TYPE_CHECKING:
    from dispatcher.cli.session import Session


def add_to(group: CommandGroup) -> None:
    """Add these commands to `dispatcher endpoint`."""
    group.command("rotate-secret")(rotate_secret)
    group.command("secret")(reveal)


def rotate_secret(
    context: typer.Context,
    endpoint: Endpoint,
    output: Output,
    tenant: Tenant = None,
    secret: Annotated[
        str | None,
        typer.Option(metavar="SECRET", help="-, @FILE or env:NAME. Default: generated."),
    ] = None,
    key_type: Annotated[
        Literal["hmac", "ed25519"] | None,
        typer.Option(
            "--key-type",
            metavar="hmac|ed25519",
            help="The kind of the generated secret. Default: that of the present one.",
        ),
    ] = None,
    overlap_seconds: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="How long the old secret also signs, 0 to 604800 (standard; default 86400).",
        ),
    ] = None,
    activate: Annotated[
        bool | None,
        typer.Option(
            "--activate/--stage", help="Switch at once, or stage the new secret (wms, humansoft)."
        ),
    ] = None,
    activate_staged: Annotated[
        bool, typer.Option("--activate-staged", help="Switch to the staged secret.")
    ] = False,
) -> None:
    """Rotate an endpoint's secret; the new one is shown once.

    Under standard and stripe, requests are signed with both secrets until the overlap ends. Under wms and
    humansoft there is room for one signature: stage the new secret, give it to the receiver, then activate it.

    Examples:
      dispatcher endpoint rotate-secret ERP
      dispatcher endpoint rotate-secret ERP --activate-staged
    """
    if activate_staged and (
        secret is not None
        or key_type is not None
        or overlap_seconds is not None
        or activate is not None
    ):
        raise typer.BadParameter(
            "conflicts with the other options. Give it alone.", param_hint="--activate-staged"
        )
    if secret == NONE:
        raise typer.BadParameter(
            "a rotation needs a secret. Omit the option to generate one.", param_hint="--secret"
        )
    new_secret = None if secret is None else secret_text(secret, "--secret")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.rotation import Rotation

        rotation = Rotation(session.deployment)
        endpoint_id = await session.id_of("endpoint", endpoint, tenant)
        if activate_staged:
            say_object(await rotation.activate_staged(session.actor, endpoint_id), output=output)
            return
        answer = await rotation.rotate(
            session.actor,
            endpoint_id,
            new_secret=new_secret,
            key_type=key_type,
            overlap_seconds=overlap_seconds,
            activate=activate,
        )
        say_object(answer, output=output)
        if answer.state == "staged":
            tell(
                f"staged; once the receiver has it: dispatcher endpoint rotate-secret {endpoint_id} --activate-staged"
            )

    run_step(context, step)


def reveal(
    context: typer.Context, endpoint: Endpoint, output: Output, tenant: Tenant = None
) -> None:
    """Show an endpoint's secret in full; the audit log records it.

    Examples:
      dispatcher endpoint secret ERP
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.rotation import Rotation

        endpoint_id = await session.id_of("endpoint", endpoint, tenant)
        answer = await Rotation(session.deployment).reveal(session.actor, endpoint_id)
        if output.is_data:
            say_data(answer, output)
        elif answer.public_key is not None and answer.secret is None:
            say(answer.public_key)
            tell("receivers verify with this public key; the private key is never shown")
        elif answer.secret is None:
            tell("this endpoint is unsigned: it has no secret")
        else:
            say(answer.secret)
            if answer.staged_secret is not None:
                tell(f"staged: {answer.staged_secret}")

    run_step(context, step)
