"""`dispatcher token`: tokens for the API and for signing in to the console."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.admin.resources.token import CreatedToken, NewToken, TokensQuery
from dispatcher.cli.common import Json, Yes, run_step
from dispatcher.cli.output import say_fields, say_object, say_page, tell
from dispatcher.cli.resource_options import Fields, takes

if TYPE_CHECKING:
    from dispatcher.cli.session import Session

group = typer.Typer(
    no_args_is_help=True, help="Tokens for the API and the console: create, list, revoke."
)


_COLUMNS = ("id", "name", "prefix", "role", "tenant", "expires_at", "last_used_at", "revoked_at")


@group.command()
@takes(NewToken)
def create(context: typer.Context, fields: Fields, as_json: Json = False) -> None:
    """Create a token and show it once.

    Examples:
      dispatcher token create --name grafana --role viewer

      dispatcher token create --name erp --role operator --tenant acme --expires-at 90d --json
    """

    def human(token: CreatedToken) -> None:
        say_fields(token)
        tell("store the token now: the database keeps only its SHA-256")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.tokens import Tokens

        new = NewToken.of(session.deployment.clock.now(), **fields)
        answer = await Tokens(session.deployment).create(session.actor, new)
        say_object(answer, as_json=as_json, human=human)

    run_step(context, step)


@group.command("list")
@takes(TokensQuery)
def page(context: typer.Context, fields: Fields, as_json: Json = False) -> None:
    """List tokens, newest first, including revoked and expired ones.

    Example:  dispatcher token list
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.tokens import Tokens

        answer = await Tokens(session.deployment).page(session.actor, TokensQuery.of(**fields))
        say_page(answer, _COLUMNS, as_json=as_json, empty="no tokens")

    run_step(context, step)


@group.command()
def revoke(
    context: typer.Context,
    token_id: Annotated[str, typer.Argument(metavar="ID", help="The token's id, tok_…")],
    yes: Yes = False,
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

    run_step(context, step)
