"""`dispatcher token`: tokens for the API and for signing in to the console."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.admin.resources.token import CreatedToken, NewToken, TokensQuery
from dispatcher.cli.commands import CommandGroup
from dispatcher.cli.common import Tenant, Yes, confirm, run_step
from dispatcher.cli.completion import complete_names
from dispatcher.cli.output import (
    Column,
    Output,
    age_column,
    say_fields,
    say_object,
    say_page,
    tell,
)
from dispatcher.cli.resource_options import Fields, takes

if TYPE_CHECKING:
    from dispatcher.cli.session import Session

group = CommandGroup()


EXPIRES_DAYS = 90
"""When a token expires that no expiry was given for."""


def _columns() -> tuple[Column, ...]:
    return (
        Column("NAME", "name", can_be_cut=True),
        Column("ID", "id", is_wide=True),
        Column("PREFIX", "prefix"),
        Column("ROLE", "role"),
        Column("TENANT", "tenant", if_different=True),
        age_column("expires_at", "EXPIRES"),
        age_column("last_used_at", "USED"),
        age_column("revoked_at", "REVOKED"),
        age_column(),
    )


@group.command()
@takes(NewToken)
def create(context: typer.Context, fields: Fields, output: Output) -> None:
    r"""Create a token and show it once.

    It expires after 90 days unless --expires is given.

    Examples:
      dispatcher token create --name grafana --role viewer
      dispatcher token create --name erp --role operator --tenant acme \
        --expires 365d
    """

    def human(token: CreatedToken) -> None:
        say_fields(token)
        tell("store the token now: the database keeps only its SHA-256")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.tokens import Tokens

        now = session.deployment.clock.now()
        found = await session.resolved(fields)
        expires_at = fields.get("expires_at", now + timedelta(days=EXPIRES_DAYS))
        new = NewToken.of(now, **{**found, "expires_at": expires_at})
        answer = await Tokens(session.deployment).create(session.actor, new)
        say_object(answer, output=output, human=human)

    run_step(context, step)


@group.command("list")
@takes(TokensQuery)
def page(context: typer.Context, fields: Fields, output: Output) -> None:
    """List tokens, newest first, revoked and expired ones included.

    Examples:
      dispatcher token list
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.tokens import Tokens

        answer = await Tokens(session.deployment).page(session.actor, TokensQuery.of(**fields))
        say_page(answer, _columns(), output=output, empty="no tokens")

    run_step(context, step)


@group.command()
def revoke(
    context: typer.Context,
    name_or_id: Annotated[
        str,
        typer.Argument(
            metavar="TOKEN", help="Its name or id.", autocompletion=complete_names("token")
        ),
    ],
    output: Output,
    tenant: Tenant = None,
    yes: Yes = False,
) -> None:
    """Revoke a token and its console sessions, permanently and at once.

    Examples:
      dispatcher token revoke grafana --yes
    """
    confirm(f"Revoke {name_or_id}?", yes=yes)

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.tokens import Tokens

        token_id = await session.id_of("token", name_or_id, tenant)
        answer = await Tokens(session.deployment).revoke(session.actor, token_id)
        say_object(answer, output=output)

    run_step(context, step)
