"""History by the day: which partitions there are, how large, what still waits in them; and their end."""

from datetime import date
from typing import NamedTuple

from dispatcher.store.pool import Database
from dispatcher.store.statements import statement

_PARTITIONS = statement("partition_list")
_UNFINISHED = statement("partition_count_unfinished")
_DROP = statement("partition_drop")
_EMPTY_ATTEMPTS = statement("attempt_empty")
_AUDIT_FORGET = statement("audit_forget")
_AUDIT_OLD = statement("audit_old")


class Partition(NamedTuple):
    """One day of one table."""

    table: str
    day: date
    bytes: int
    rows: int
    """As the planner estimates."""
    is_emptied: bool
    """Its attempts were let go before their deliveries."""


class History:
    """The partitioned tables and the audit log, as retention sees them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def partitions(self) -> tuple[date | None, list[Partition]]:
        """Returns the database's UTC day (None: it has no partitions) and every partition, oldest first."""
        rows = await self._database.fetch(_PARTITIONS)
        return (rows[0]["today"] if rows else None), [Partition(*row[:5]) for row in rows]

    async def unfinished(self, before: date) -> dict[date, int]:
        """Returns how many deliveries of earlier days still wait, by day."""
        rows = await self._database.fetch(_UNFINISHED, before)
        return {row["day"]: row["unfinished"] for row in rows}

    async def drop(self, table: str, day: date) -> str:
        """Drops a day, and returns `dropped`, `emptied`, `unfinished`, `needed`, `gone` or `busy`.

        Raises:
            StoreUnavailableError: a lock was not to be had in 200 ms, or the database is away.
        """
        async with self._database.transaction() as connection:
            return str(await connection.fetchval(_DROP, table, day))

    async def empty_attempts(self, day: date) -> str:
        """Empties a day of attempts, and returns `emptied`, `unfinished`, `gone` or `busy`.

        Raises:
            StoreUnavailableError: a lock was not to be had in 200 ms, or the database is away.
        """
        async with self._database.transaction() as connection:
            return str(await connection.fetchval(_EMPTY_ATTEMPTS, day))

    async def forget_audit(self, days: int, rows_max: int) -> int:
        """Forgets a slice of old lines of the audit log; returns how many."""
        return int(await self._database.fetch_value(_AUDIT_FORGET, days, rows_max))

    async def old_audit_lines(self, days: int) -> int:
        """Returns how many lines of the audit log are too old."""
        return int(await self._database.fetch_value(_AUDIT_OLD, days))
