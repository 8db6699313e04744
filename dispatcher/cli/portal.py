"""`dispatcher portal`: links that open the portal of one tenant."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.admin.resources.portal_link import (
    CreatedPortalLink,
    NewPortalLink,
    PortalLinksQuery,
)
from dispatcher.cli.commands import CommandGroup
from dispatcher.cli.common import Yes, confirm, run_step
from dispatcher.cli.output import Column, Output, age_column, say, say_object, say_page, tell
from dispatcher.cli.resource_options import Fields, takes

if TYPE_CHECKING:
    from dispatcher.cli.session import Session

group = CommandGroup()


def _columns() -> tuple[Column, ...]:
    return (
        Column("ID", "id"),
        Column("TENANT", "tenant"),
        Column("ROLE", "role"),
        Column("STATE", "state"),
        Column("NAME", "name", can_be_cut=True, is_wide=True),
        age_column("used_at", "USED"),
        age_column("expires_at", "EXPIRES"),
        age_column(),
    )


@group.command("link")
@takes(NewPortalLink)
def link(context: typer.Context, fields: Fields, output: Output) -> None:
    r"""Print a link that opens the portal of a tenant once.

    It expires after five minutes unless --expires-in is given.

    Examples:
      dispatcher portal link --tenant acme
      dispatcher portal link --tenant acme --role viewer --name "Acme" \
        --color "#0f7b6c" --expires-in 86400
    """

    def human(created: CreatedPortalLink) -> None:
        say(created.url)
        tell(f"the link opens the portal in one browser, once, until {created.expires_at}")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.portal_links import PortalLinkOperations

        operations = PortalLinkOperations(session.deployment)
        answer = await operations.create(session.actor, NewPortalLink.of(**fields))
        say_object(answer, output=output, human=human)

    run_step(context, step)


@group.command("list")
@takes(PortalLinksQuery)
def page(context: typer.Context, fields: Fields, output: Output) -> None:
    """List portal links, newest first.

    A link is deleted two days after its expiry.

    Examples:
      dispatcher portal list --tenant acme
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.portal_links import PortalLinkOperations

        operations = PortalLinkOperations(session.deployment)
        answer = await operations.page(session.actor, PortalLinksQuery.of(**fields))
        say_page(answer, _columns(), output=output, empty="no portal links")

    run_step(context, step)


@group.command()
def revoke(
    context: typer.Context,
    link_id: Annotated[str, typer.Argument(metavar="ID", help="The link's id, pl_…")],
    yes: Yes = False,
) -> None:
    """Revoke a portal link and end its session at once.

    Examples:
      dispatcher portal revoke pl_01kat9zma1gk18t0mvx8z4q6re --yes
    """
    confirm(f"Revoke the portal link {link_id}?", yes=yes)

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.portal_links import PortalLinkOperations

        await PortalLinkOperations(session.deployment).revoke(session.actor, link_id)
        tell("revoked")

    run_step(context, step)
