"""Bearer tokens: made, listed, revoked.

A token is 256 random bits, so its SHA-256 is all that is stored and its text is in the answer of
create alone. It has a role and one tenant or all; a token for one tenant makes and sees tokens of
that tenant only. Revoked, it ends at once, and with it every session that was opened with it.
"""

import base64
import hashlib
import secrets
from datetime import datetime
from typing import Final

from dispatcher.admin.operations.deployment import ALL_TENANTS, Actor, Deployment, Role
from dispatcher.admin.operations.endpoints import allowed_tenant
from dispatcher.admin.resources.fields import name_problems, tenant_problems
from dispatcher.admin.resources.serialization import (
    LIMIT_DEFAULT,
    Object,
    Place,
    cursor_scope,
    limit_problems,
    page_object,
    read_cursor,
    time_text,
)
from dispatcher.admin.resources.token import expiry_problems
from dispatcher.core import ids
from dispatcher.core.errors import InvalidRequestError, NotFoundError
from dispatcher.core.problems import Problem, problem
from dispatcher.store import admin as store
from dispatcher.store import tokens as token_store
from dispatcher.store.tokens import TokenDetail

TEXT_PREFIX: Final = "dsp_"
TEXT_BYTES: Final = 32
SHOWN_CHARACTERS: Final = 12
"""48 of 256 bits: enough to know a token again, far too few to guess the rest."""


def digest_of(text: str) -> bytes:
    """Returns what is stored in place of a token or a session's cookie."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def actor_name(name: str, tenant: str | None) -> str:
    """Returns the name under which a token stands in the audit log."""
    return f"token:{tenant or '*'}/{name}"


class Tokens:
    """The tokens of a deployment; all of it needs an admin."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._database = deployment.database

    async def create(
        self,
        actor: Actor,
        *,
        name: str,
        role: str,
        tenant: str | None = None,
        expires_at: datetime | None = None,
    ) -> Object:
        """Makes a token and returns it with its whole text as `token`.

        Without a tenant it is for the actor's own, or for all of them where the actor has none.

        Raises:
            ForbiddenError: no admin. InvalidRequestError: every fault. NotFoundError: the tenant is
            not the actor's. ConflictError: a living token of that tenant has the name.
        """
        actor.require(Role.ADMIN)
        problems = _problems(name, role, tenant)
        if expires_at is not None:
            problems += expiry_problems(expires_at, self._deployment.clock.now())
        if problems:
            raise InvalidRequestError(problems)
        tenant = allowed_tenant(actor, tenant)
        text = TEXT_PREFIX + base64.urlsafe_b64encode(
            secrets.token_bytes(TEXT_BYTES)
        ).decode().rstrip("=")
        unix_ms = int(self._deployment.clock.now().timestamp() * 1000)
        token_id = ids.new_id(ids.TOKEN_PREFIX, unix_ms, secrets.token_bytes(ids.RANDOMNESS_BYTES))
        prefix = text[:SHOWN_CHARACTERS]
        async with self._database.transaction() as connection:
            created_at = await token_store.insert_token(
                connection,
                [token_id, name, prefix, digest_of(text), role, tenant, actor.name, expires_at],
                name,
            )
            detail = {"name": name, "role": role, "expires_at": time_text(expires_at)}
            await store.write_audit(
                connection, actor.name, tenant or ALL_TENANTS, "token.create", token_id, detail
            )
        made = TokenDetail(
            token_id, name, prefix, role, tenant, created_at, actor.name, expires_at, None, None
        )
        return {**token_object(made), "token": text}

    async def page(
        self,
        actor: Actor,
        *,
        tenant: str | None = None,
        limit: int = LIMIT_DEFAULT,
        cursor: str | None = None,
    ) -> Object:
        """Returns a page of tokens, newest first, revoked and expired ones included.

        Raises:
            ForbiddenError: no admin. InvalidRequestError: the limit or the cursor is wrong.
            NotFoundError: the tenant is not the actor's.
        """
        actor.require(Role.ADMIN)
        problems = limit_problems(limit)
        if problems:
            raise InvalidRequestError(problems)
        whose = allowed_tenant(actor, tenant)
        scope = cursor_scope("tokens", whose, {})
        place = read_cursor(cursor, scope) or (None, None)
        filters = [whose, *place, limit + 1]
        async with store.reading(self._database) as connection:
            rows = await token_store.page_of_tokens(connection, filters)
        return page_object(
            rows, limit, lambda row: Place(row.created_at, row.id), token_object, scope=scope
        )

    async def show(self, actor: Actor, token_id: str) -> Object:
        """Returns a token.

        Raises:
            ForbiddenError: no admin. NotFoundError: there is none of that id in the actor's sight.
        """
        actor.require(Role.ADMIN)
        async with self._database.transaction() as connection:
            row = await token_store.load_token(connection, token_id, actor.tenant)
        if row is None:
            raise _not_found(token_id)
        return token_object(row)

    async def revoke(self, actor: Actor, token_id: str) -> Object:
        """Ends a token for good and returns it; one that was revoked stays as it is.

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
                await store.write_audit(
                    connection,
                    actor.name,
                    row.tenant or ALL_TENANTS,
                    "token.revoke",
                    token_id,
                    {"name": row.name},
                )
        return token_object(row)


def token_object(token: TokenDetail) -> Object:
    """Returns a token without its text, which nobody has any more."""
    return {
        "id": token.id,
        "name": token.name,
        "prefix": token.prefix,
        "role": token.role,
        "tenant": token.tenant,
        "created_at": time_text(token.created_at),
        "created_by": token.created_by,
        "expires_at": time_text(token.expires_at),
        "last_used_at": time_text(token.last_used_at),
        "revoked_at": time_text(token.revoked_at),
    }


def _not_found(token_id: str) -> NotFoundError:
    return NotFoundError(problem("id", "token_not_found", value=token_id))


def _problems(name: object, role: object, tenant: object) -> list[Problem]:
    problems = name_problems(name)
    if role not in tuple(Role):
        allowed = ", ".join(Role)
        problems.append(problem("role", "not_one_of", value=role, allowed=allowed))
    if tenant is not None:
        problems += tenant_problems(tenant)
    return problems
