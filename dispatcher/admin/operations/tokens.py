"""Bearer tokens: made, listed, revoked.

A token is 256 random bits, so its SHA-256 is all that is stored and its text is in the response of
create alone. It has a role and one tenant or all; a token for one tenant makes and sees tokens of
that tenant only. Revoked, it ends at once, and with it every session that was opened with it.
"""

import base64
import hashlib
import secrets
from typing import Any, Final

from dispatcher.admin.operations.context import ALL_TENANTS, Actor, Deployment, Role, allowed_tenant
from dispatcher.admin.resources.serialization import (
    Place,
    cursor_scope,
    page_of,
    read_cursor,
    time_text,
)
from dispatcher.admin.resources.token import (
    CreatedToken,
    NewToken,
    Token,
    TokenPage,
    TokensQuery,
    expiry_problems,
)
from dispatcher.core import ids
from dispatcher.core.errors import InvalidRequestError, NotFoundError
from dispatcher.core.problems import problem
from dispatcher.store import tokens as token_store
from dispatcher.store.audit import write_audit
from dispatcher.store.endpoints import load_endpoint
from dispatcher.store.tokens import TokenDetail

TEXT_PREFIX: Final = "dsp_"
TEXT_BYTES: Final = 32
SHOWN_CHARACTERS: Final = 12
"""48 of 256 bits: enough to know a token again, far too few to guess the rest."""


def digest_of(text: str) -> bytes:
    """Return what is stored in place of a token or a session's cookie."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def actor_name(name: str, tenant: str | None) -> str:
    """Return the name under which a token stands in the audit log."""
    return f"token:{tenant or '*'}/{name}"


class Tokens:
    """The tokens of a deployment; all of it needs an admin."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._database = deployment.database

    async def create(
        self,
        actor: Actor,
        new: NewToken,
    ) -> CreatedToken:
        """Create a token and return it with its whole text.

        Without a tenant it is for the actor's own, or for all of them if the actor has none.

        Raises:
            ForbiddenError: no admin. InvalidRequestError: it would expire at once. NotFoundError: the tenant is
            not the actor's. ConflictError: a living token of that tenant has the name.
        """
        actor.require(Role.ADMIN)
        if new.expires_at is not None:
            problems = expiry_problems(new.expires_at, self._deployment.clock.now())
            if problems:
                raise InvalidRequestError(problems)
        tenant = allowed_tenant(actor, new.tenant)
        if new.endpoint_id is not None:
            if Role(new.role) is not Role.OPERATOR:
                allowed = str(Role.OPERATOR)
                raise InvalidRequestError(
                    [problem("role", "not_one_of", value=str(new.role), allowed=allowed)]
                )
            async with self._database.transaction() as connection:
                endpoint = await load_endpoint(connection, new.endpoint_id, tenant)
            tenant = endpoint.tenant
        text = TEXT_PREFIX + base64.urlsafe_b64encode(
            secrets.token_bytes(TEXT_BYTES)
        ).decode().rstrip("=")
        unix_ms = int(self._deployment.clock.now().timestamp() * 1000)
        token_id = ids.new_id(ids.TOKEN_PREFIX, unix_ms, secrets.token_bytes(ids.RANDOMNESS_BYTES))
        prefix = text[:SHOWN_CHARACTERS]
        async with self._database.transaction() as connection:
            created_at = await token_store.insert_token(
                connection,
                [
                    token_id, new.name, prefix, digest_of(text), new.role, tenant, actor.name,
                    new.expires_at, new.endpoint_id,
                ],
                new.name,
            )  # fmt: skip
            detail = {
                "name": new.name, "role": new.role, "expires_at": time_text(new.expires_at),
                **({} if new.endpoint_id is None else {"endpoint_id": new.endpoint_id}),
            }  # fmt: skip
            await write_audit(
                connection, actor.name, tenant or ALL_TENANTS, "token.create", token_id, detail
            )
        row = TokenDetail(
            token_id, new.name, prefix, new.role, tenant, created_at, actor.name, new.expires_at,
            None, None, new.endpoint_id,
        )  # fmt: skip
        return CreatedToken(**_values(row), token=text)

    async def page(
        self,
        actor: Actor,
        query: TokensQuery = TokensQuery(),  # noqa: B008 -- frozen
    ) -> TokenPage:
        """Return a page of tokens, newest first, revoked and expired ones included.

        Raises:
            ForbiddenError: no admin. InvalidRequestError: the cursor is another list's.
            NotFoundError: the tenant is not the actor's.
        """
        actor.require(Role.ADMIN)
        whose = allowed_tenant(actor, query.tenant)
        scope = cursor_scope("tokens", whose, {})
        place = read_cursor(query.cursor, scope) or (None, None)
        filters = [whose, *place, query.limit + 1]
        async with self._database.reading() as connection:
            rows = await token_store.page_of_tokens(connection, filters)
        items, next_cursor = page_of(
            rows, query.limit, lambda row: Place(row.created_at, row.id), _token, scope=scope
        )
        return TokenPage(items=items, next_cursor=next_cursor)

    async def show(self, actor: Actor, token_id: str) -> Token:
        """Return a token.

        Raises:
            ForbiddenError: no admin. NotFoundError: there is none of that id in the actor's sight.
        """
        actor.require(Role.ADMIN)
        async with self._database.transaction() as connection:
            row = await token_store.load_token(connection, token_id, actor.tenant)
        if row is None:
            raise _not_found(token_id)
        return _token(row)

    async def revoke(self, actor: Actor, token_id: str) -> Token:
        """Revoke a token permanently and return it; a revoked token is not changed.

        Raises:
            ForbiddenError: no admin. NotFoundError: there is none of that id.
        """
        actor.require(Role.ADMIN)
        async with self._database.transaction() as connection:
            row = await token_store.load_token(connection, token_id, actor.tenant)
            if row is None:
                raise _not_found(token_id)
            revoked_at = await token_store.revoke_token(connection, token_id)
            if revoked_at is not None:
                row = row._replace(revoked_at=revoked_at)
                await write_audit(
                    connection,
                    actor.name,
                    row.tenant or ALL_TENANTS,
                    "token.revoke",
                    token_id,
                    {"name": row.name},
                )
        return _token(row)


def _token(row: TokenDetail) -> Token:
    return Token(**_values(row))


def _values(row: TokenDetail) -> dict[str, Any]:
    values = row._asdict()
    for name in ("created_at", "expires_at", "last_used_at", "revoked_at"):
        values[name] = time_text(values[name])
    return values


def _not_found(token_id: str) -> NotFoundError:
    return NotFoundError(problem("id", "token_not_found", value=token_id))
