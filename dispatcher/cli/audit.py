"""`dispatcher audit`: the log of changes, reveals, resends and sign-ins."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dispatcher.cli.output import say_page
from dispatcher.cli.values import moment

if TYPE_CHECKING:
    from dispatcher.cli.session import Session

group = typer.Typer(no_args_is_help=True, help="The audit log: actions of people and programs.")

_COLUMNS = ("at", "actor", "tenant", "action", "object", "detail")


@group.command("list")
def page(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option(help="Only entries of this tenant.")] = None,
    actor: Annotated[
        str | None,
        typer.Option(help="Only entries of this actor, such as cli:root or admin-token."),
    ] = None,
    action: Annotated[
        str | None, typer.Option(help="Only entries of this action, such as endpoint.create.")
    ] = None,
    object_id: Annotated[
        str | None, typer.Option("--object", metavar="ID", help="Only entries about this object.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="RFC 3339, or a time ago: 15m, 2h, 7d.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="As --since, exclusive.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Items per page, 1 to 500.")] = 50,
    cursor: Annotated[
        str | None, typer.Option(help="The next_cursor of the previous page.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the API's object as JSON.")
    ] = False,
) -> None:
    """List the audit log, newest first.

    Examples:
      dispatcher audit list --since 1d

      dispatcher audit list --action endpoint.reveal_secret --json
    """
    first, last = moment(since, "--since"), moment(until, "--until")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.audit import Audit

        answer = await Audit(session.deployment).page(
            session.actor,
            tenant=tenant,
            actor_name=actor,
            action=action,
            object_id=object_id,
            since=first,
            until=last,
            limit=limit,
            cursor=cursor,
        )
        say_page(answer, _COLUMNS, as_json=as_json, empty="no entries")

    _work(context, step)


def _work(context: typer.Context, step: Any) -> None:  # noqa: ANN401 -- its type would load the whole program
    from dispatcher.cli.session import work

    work(context, step)
