"""History by the day: which partitions there are, how large, what still waits in them; and their end."""

from datetime import date, datetime
from typing import TYPE_CHECKING, NamedTuple

from dispatcher.store.pool import Database, data_faults
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_PARTITIONS = statement("partition_list")
_UNFINISHED = statement("partition_count_unfinished")
_DROP = statement("partition_drop")
_EMPTY_ATTEMPTS = statement("attempt_empty")
_AUDIT_FORGET = statement("audit_forget")
_AUDIT_OLD = statement("audit_old")
_SYSTEM_TABLES = statement("partition_sizes")
_TAIL_DAYS = statement("partition_tail")


class Partition(NamedTuple):
    """One day of one table."""

    table: str
    day: date
    bytes: int
    rows: int
    """As the planner estimates."""
    is_emptied: bool
    """Its attempts were let go before their deliveries."""


class TableRow(NamedTuple):
    """A table or partition; rows are the planner's estimate."""

    name: str
    parent: str | None
    bytes: int
    rows_estimate: int
    dead_rows: int
    vacuumed_at: datetime | None
    analyzed_at: datetime | None


class TailDay(NamedTuple):
    """A partition that receives attempts."""

    table: str
    """`attempt`, or `delivery_done` with its first attempts."""
    day: date
    pages: int
    inserted_count: int


class Partitions:
    """The partitioned tables and the audit log, as retention sees them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def partitions(self) -> tuple[date | None, list[Partition]]:
        """Return the database's UTC day (None: it has no partitions) and every partition, oldest first."""
        rows = await self._database.fetch(_PARTITIONS)
        return (rows[0]["today"] if rows else None), [Partition(*row[:5]) for row in rows]

    async def unfinished(self, before: date) -> dict[date, int]:
        """Return how many deliveries of earlier days still wait, by day."""
        rows = await self._database.fetch(_UNFINISHED, before)
        return {row["day"]: row["unfinished"] for row in rows}

    async def drop(self, table: str, day: date) -> str:
        """Drop a day, and return `dropped`, `emptied`, `unfinished`, `needed`, `gone` or `busy`.

        Raises:
            StoreUnavailableError: a lock was not to be had in 200 ms, or the database is away.
        """
        async with self._database.transaction() as connection:
            return str(await connection.fetchval(_DROP, table, day))

    async def empty_attempts(self, day: date) -> str:
        """Empty a day of attempts, and return `emptied`, `unfinished`, `gone` or `busy`.

        Raises:
            StoreUnavailableError: a lock was not to be had in 200 ms, or the database is away.
        """
        async with self._database.transaction() as connection:
            return str(await connection.fetchval(_EMPTY_ATTEMPTS, day))

    async def forget_audit(self, days: int, rows_max: int) -> int:
        """Delete a slice of old entries of the audit log; return the count."""
        return int(await self._database.fetch_value(_AUDIT_FORGET, days, rows_max))

    async def old_audit_lines(self, days: int) -> int:
        """Return how many lines of the audit log are too old."""
        return int(await self._database.fetch_value(_AUDIT_OLD, days))


async def read_tables(connection: "Reach") -> list[TableRow]:
    """Return our tables and their partitions."""
    return [TableRow(*row) for row in await connection.fetch(_SYSTEM_TABLES)]


async def read_tail_days(connection: "Reach") -> list[TailDay]:
    """Return the partitions that receive attempts, newest first.

    Raises:
        DataFaultError: a row cannot be decoded.
    """
    with data_faults():
        return [TailDay(*row) for row in await connection.fetch(_TAIL_DAYS)]
