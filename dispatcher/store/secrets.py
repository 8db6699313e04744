"""The table `endpoint_secret`: the encrypted secrets of endpoints, and their replacement under another key."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from dispatcher.store.pool import Database, columns
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_UNDER_OTHER_KEYS = statement("endpoint_secret_page_of_other_keys")
_COUNT = statement("endpoint_secret_count_of_other_keys")
_RESEAL = statement("endpoint_secret_reseal")
_LOAD = statement("endpoint_secret_load")
_INSERT = statement("endpoint_secret_insert")
_RETIRE = statement("endpoint_secret_retire")
_FORGET = statement("endpoint_secret_forget")
_ACTIVATE = statement("endpoint_secret_activate")
_OTHERS = statement("endpoint_secret_list_others")


class SealedRow(NamedTuple):
    """An encrypted secret with its owner."""

    id: int
    endpoint_id: str
    key_id: str
    sealed: bytes


class SealedSecret(NamedTuple):
    """An encrypted secret, as the database has it."""

    id: int
    role: str
    key_id: str
    sealed: bytes
    expires_at: datetime | None


class OtherSecret(NamedTuple):
    """The encrypted current secret of another endpoint, and the endpoint's name."""

    endpoint_id: str
    endpoint_name: str
    key_id: str
    sealed: bytes


class Secrets:
    """The encrypted secrets of all endpoints."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, key_id: str) -> tuple[int, int]:
        """Return the number of secrets, and of those that are encrypted with another key."""
        row = await self._database.fetch_row(_COUNT, key_id)
        assert row is not None  # noqa: S101 -- counts have one row
        return row["total"], row["others"]

    async def under_other_keys(self, key_id: str, after: int, rows_max: int) -> list[SealedRow]:
        """Return a slice of the secrets that are encrypted with another key, by id."""
        rows = await self._database.fetch(_UNDER_OTHER_KEYS, key_id, after, rows_max)
        return [SealedRow(*row) for row in rows]

    async def replace(self, key_id: str, changes: Sequence[tuple[int, bytes, bytes]]) -> int:
        """Replace secrets (id, bytes as read, new bytes) that did not change since; return their number."""
        async with self._database.transaction() as connection:
            return int(await connection.fetchval(_RESEAL, key_id, *columns(changes, 3)))


async def load_secrets(
    connection: "Reach", endpoint_ids: Sequence[str]
) -> dict[str, list[SealedSecret]]:
    """Return the encrypted secrets of each endpoint, oldest first."""
    secrets: dict[str, list[SealedSecret]] = {endpoint_id: [] for endpoint_id in endpoint_ids}
    for row in await connection.fetch(_LOAD, list(endpoint_ids)):
        secrets[row[0]].append(SealedSecret(*row[1:6]))
    return secrets


async def load_other_secrets(
    connection: "Reach", tenant: str, endpoint_id: str, rows_max: int
) -> list[OtherSecret]:
    """Return the current secrets of a tenant's endpoints but this one, those of the newest first."""
    rows = await connection.fetch(_OTHERS, tenant, endpoint_id, rows_max)
    return [OtherSecret(*row) for row in rows]


async def insert_secret(
    connection: "Reach", endpoint_id: str, role: str, key_id: str, sealed: bytes
) -> None:
    """Insert an encrypted secret in a role that is free."""
    await connection.execute(_INSERT, endpoint_id, role, key_id, sealed)


async def retire_secret(connection: "Reach", endpoint_id: str, seconds: float) -> None:
    """Make the current secret a previous one, which signs for so long."""
    await connection.execute(_RETIRE, endpoint_id, seconds)


async def forget_secret(connection: "Reach", endpoint_id: str, role: str) -> None:
    """Delete the secret in this role; `previous` deletes all of the old ones."""
    await connection.execute(_FORGET, endpoint_id, role)


async def activate_secret(connection: "Reach", endpoint_id: str) -> None:
    """Make the staged secret the current one."""
    await connection.execute(_ACTIVATE, endpoint_id)
