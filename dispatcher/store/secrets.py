"""Sealed secrets in bulk: which are sealed with another key, and their replacement."""

from collections.abc import Sequence
from typing import NamedTuple

from dispatcher.store.pool import Database, columns
from dispatcher.store.statements import statement

_UNDER_OTHER_KEYS = statement("endpoint_secret_page_of_other_keys")
_COUNT = statement("endpoint_secret_count_of_other_keys")
_RESEAL = statement("endpoint_secret_reseal")
_WITHOUT_KEY = statement("replica_list_without_key")


class SealedRow(NamedTuple):
    """A secret as it lies in the database, with its owner."""

    id: int
    endpoint_id: str
    key_id: str
    sealed: bytes


class Secrets:
    """The table of sealed secrets."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def replicas_without(self, key_id: str) -> list[str]:
        """Returns the names of living replicas that cannot open with this key, as far as they tell."""
        return [row["name"] for row in await self._database.fetch(_WITHOUT_KEY, key_id)]

    async def count(self, key_id: str) -> tuple[int, int]:
        """Returns how many secrets there are, and how many are sealed with another key."""
        row = await self._database.fetch_row(_COUNT, key_id)
        assert row is not None  # noqa: S101 -- counts have one row
        return row["total"], row["others"]

    async def under_other_keys(self, key_id: str, after: int, rows_max: int) -> list[SealedRow]:
        """Returns a slice of those sealed with another key, by id."""
        rows = await self._database.fetch(_UNDER_OTHER_KEYS, key_id, after, rows_max)
        return [SealedRow(*row) for row in rows]

    async def replace(self, key_id: str, changes: Sequence[tuple[int, bytes, bytes]]) -> int:
        """Replaces secrets (id, bytes as read, bytes sealed anew) that are as they were read; returns how many."""
        async with self._database.transaction() as connection:
            return int(await connection.fetchval(_RESEAL, key_id, *columns(changes, 3)))
