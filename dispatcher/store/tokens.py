"""Bearer tokens, of which only the SHA-256 is kept."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from dispatcher.core.errors import ConflictError
from dispatcher.core.problems import problem
from dispatcher.store.pool import Database
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_INSERT = statement("token_insert")
_PAGE = statement("token_page")
_LOAD = statement("token_load")
_REVOKE = statement("token_revoke")
_FIND = statement("token_find")
_LIVING = statement("token_list_living")
_USED = statement("token_touch")


class TokenDetail(NamedTuple):
    """A token as people see it; without a tenant it is for all of them."""

    id: str
    name: str
    prefix: str
    role: str
    tenant: str | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    endpoint_id: str | None


class LivingToken(NamedTuple):
    """A token that may be used."""

    id: str
    name: str
    role: str
    tenant: str | None
    endpoint_id: str | None


async def insert_token(connection: "Reach", values: Sequence[object], name: str) -> datetime:
    """Insert a token, from values in the order of the statement; return its time.

    Raises:
        ConflictError: a living token of that tenant has the name.
    """
    made: datetime | None = await connection.fetchval(_INSERT, *values)
    if made is None:
        raise ConflictError(problem("name", "token_name_in_use", value=name))
    return made


async def page_of_tokens(connection: "Reach", filters: Sequence[object]) -> list[TokenDetail]:
    """Return a page; `filters` in the order of the statement."""
    return [TokenDetail(*row) for row in await connection.fetch(_PAGE, *filters)]


async def load_token(connection: "Reach", token_id: str, tenant: str | None) -> TokenDetail | None:
    """Return a token, locked for a change; None: there is none with that id."""
    row = await connection.fetchrow(_LOAD, token_id, tenant)
    return None if row is None else TokenDetail(*row)


async def revoke_token(connection: "Reach", token_id: str) -> datetime | None:
    """Revoke a token; return when, None where it was revoked already."""
    revoked: datetime | None = await connection.fetchval(_REVOKE, token_id)
    return revoked


class Credentials:
    """Finds the token of a request."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_token(self, digest: bytes) -> LivingToken | None:
        """Return the token of a SHA-256 if it may be used."""
        row = await self._database.fetch_row(_FIND, digest)
        return None if row is None else LivingToken(*row)

    async def living_digests(self, count_max: int) -> frozenset[bytes]:
        """Return the SHA-256 of every token that may be used, those used last first if there are more."""
        rows = await self._database.fetch(_LIVING, count_max)
        return frozenset(row["hash"] for row in rows)

    async def tokens_used(self, used: Mapping[bytes, datetime]) -> None:
        """Record when tokens were last used, to the minute."""
        await self._database.execute(_USED, list(used), list(used.values()))
