"""`dispatcher audit`: the log of changes, reveals, resends and sign-ins."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from typing import TYPE_CHECKING

import typer

from dispatcher.admin.resources.audit import AuditQuery
from dispatcher.cli.commands import CommandGroup
from dispatcher.cli.common import run_step
from dispatcher.cli.output import Column, Output, age_column, say_page
from dispatcher.cli.resource_options import Fields, takes

if TYPE_CHECKING:
    from dispatcher.cli.session import Session

group = CommandGroup()


def _columns() -> tuple[Column, ...]:
    return (
        age_column("at"),
        Column("AT", "at", is_wide=True),
        Column("ACTOR", "actor", can_be_cut=True),
        Column("TENANT", "tenant", if_different=True),
        Column("ACTION", "action"),
        Column("OBJECT", "object"),
        Column("DETAIL", "detail", can_be_cut=True, can_be_left_out=True),
    )


@group.command("list")
@takes(AuditQuery)
def page(context: typer.Context, fields: Fields, output: Output) -> None:
    """List the audit log, newest first.

    Examples:
      dispatcher audit list --since 1d
      dispatcher audit list --action endpoint.reveal_secret -o wide
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.audit import Audit

        answer = await Audit(session.deployment).page(session.actor, AuditQuery.of(**fields))
        say_page(answer, _columns(), output=output, empty="no entries")

    run_step(context, step)
