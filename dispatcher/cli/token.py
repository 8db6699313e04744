"""`dispatcher token`: tokens for the API and for signing in to the console."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dispatcher.cli.output import say_fields, say_object, say_page, tell
from dispatcher.cli.values import coming_moment

if TYPE_CHECKING:
    from dispatcher.cli.session import Session

group = typer.Typer(
    no_args_is_help=True, help="Tokens for the API and the console: create, list, revoke."
)

Json = Annotated[bool, typer.Option("--json", help="Print the API's object as JSON.")]

_COLUMNS = ("id", "name", "prefix", "role", "tenant", "expires_at", "last_used_at", "revoked_at")


@group.command()
def create(
    context: typer.Context,
    name: Annotated[
        str, typer.Option(help="The user or program that uses it; unique in its tenant.")
    ],
    role: Annotated[
        str,
        typer.Option(
            metavar="viewer|operator|admin",
            help="viewer: read. operator: also publish, test, resend, cancel, pause. admin: everything.",
        ),
    ],
    tenant: Annotated[
        str | None, typer.Option(help="The tenant that it can access. Default: all tenants.")
    ] = None,
    expires_at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="RFC 3339, or a time from now: 12h, 90d. Default: never."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Create a token and show it once.

    Examples:
      dispatcher token create --name grafana --role viewer

      dispatcher token create --name erp --role operator --tenant acme --expires-at 90d --json
    """
    ends_at = coming_moment(expires_at, "--expires-at")

    def human(answer: Mapping[str, Any]) -> None:
        say_fields(answer)
        tell("store the token now: the database keeps only its SHA-256")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.tokens import Tokens

        answer = await Tokens(session.deployment).create(
            session.actor, name=name, role=role, tenant=tenant, expires_at=ends_at
        )
        say_object(answer, as_json=as_json, human=human)

    _work(context, step)


@group.command("list")
def page(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option(help="Only tokens of this tenant.")] = None,
    limit: Annotated[int, typer.Option(help="Items per page, 1 to 500.")] = 50,
    cursor: Annotated[
        str | None, typer.Option(help="The next_cursor of the previous page.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List tokens, newest first, including revoked and expired ones.

    Example:  dispatcher token list
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.tokens import Tokens

        answer = await Tokens(session.deployment).page(
            session.actor, tenant=tenant, limit=limit, cursor=cursor
        )
        say_page(answer, _COLUMNS, as_json=as_json, empty="no tokens")

    _work(context, step)


@group.command()
def revoke(
    context: typer.Context,
    token_id: Annotated[str, typer.Argument(metavar="ID", help="The token's id, tok_…")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: Json = False,
) -> None:
    """Revoke a token and its console sessions, permanently and at once.

    Example:  dispatcher token revoke tok_abgvk5rwyd7yxoflpnizx7eoxe --yes
    """
    if not yes:
        typer.confirm(f"Revoke {token_id}?", abort=True, err=True)

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.tokens import Tokens

        answer = await Tokens(session.deployment).revoke(session.actor, token_id)
        say_object(answer, as_json=as_json)

    _work(context, step)


def _work(context: typer.Context, step: Any) -> None:  # noqa: ANN401 -- its type would load the whole program
    from dispatcher.cli.session import work

    work(context, step)
