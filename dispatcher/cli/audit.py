"""`dispatcher audit`: the log of changes, reveals, resends and sign-ins."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from typing import TYPE_CHECKING

import typer

from dispatcher.admin.resources.audit import AuditQuery
from dispatcher.cli.common import Json, run_step
from dispatcher.cli.output import say_page
from dispatcher.cli.resource_options import Fields, takes

if TYPE_CHECKING:
    from dispatcher.cli.session import Session

group = typer.Typer(no_args_is_help=True, help="The audit log: actions of people and programs.")

_COLUMNS = ("at", "actor", "tenant", "action", "object", "detail")


@group.command("list")
@takes(AuditQuery)
def page(
    context: typer.Context,
    fields: Fields,
    as_json: Json = False,
) -> None:
    """List the audit log, newest first.

    Examples:
      dispatcher audit list --since 1d

      dispatcher audit list --action endpoint.reveal_secret --json
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.audit import Audit

        answer = await Audit(session.deployment).page(session.actor, AuditQuery.of(**fields))
        say_page(answer, _COLUMNS, as_json=as_json, empty="no entries")

    run_step(context, step)
