"""`dispatcher session`: who is signed in to the console."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.admin.resources.access import AccessQuery
from dispatcher.cli.commands import CommandGroup
from dispatcher.cli.common import Yes, confirm, run_step
from dispatcher.cli.output import Column, Output, age_column, say_page, tell
from dispatcher.cli.resource_options import Fields, takes

if TYPE_CHECKING:
    from dispatcher.cli.session import Session

group = CommandGroup()


def _columns() -> tuple[Column, ...]:
    return (
        Column("WHO", lambda row: row.label or row.actor, can_be_cut=True),
        Column("ID", "id"),
        Column("SOURCE", "source"),
        Column("ROLE", "role"),
        Column("TENANT", "tenant", if_different=True),
        Column("ADDRESS", "address", is_wide=True),
        age_column("used_at", "USED"),
        age_column("ends_at", "ENDS"),
    )


@group.command("list")
@takes(AccessQuery)
def page(context: typer.Context, fields: Fields, output: Output) -> None:
    """List the sessions of the console, newest first.

    Examples:
      dispatcher session list
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.access import Access

        access = Access(session.deployment)
        answer = await access.sessions(session.actor, AccessQuery.of(**fields))
        say_page(answer, _columns(), output=output, empty="no sessions")

    run_step(context, step)


@group.command()
def end(
    context: typer.Context,
    session_id: Annotated[str, typer.Argument(metavar="ID", help="The session's id, ses_…")],
    yes: Yes = False,
) -> None:
    """End a session; every replica rejects its next request.

    Examples:
      dispatcher session end ses_01kat9zma1gk18t0mvx8z4q6re --yes
    """
    confirm(f"End the session {session_id}?", yes=yes)

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.access import Access

        await Access(session.deployment).end_session(session.actor, session_id)
        tell("ended")

    run_step(context, step)
