"""The schema as the daemon sees it: is it there, can it be written to, are its partitions ahead of time."""

from datetime import date
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from dispatcher.core.errors import SchemaError, StoreUnavailableError
from dispatcher.store import migrate
from dispatcher.store.pool import Database, data_faults
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_MISSING_PARTITIONS = statement("partition_list_missing")
_MAKE_PARTITIONS = statement("partition_create")
_SWEEP = statement("replica_sweep")
_WRITABLE = statement("server_writable")
_MISSING_PRIVILEGES = statement("schema_missing_privileges")
_STRANGERS = statement("schema_strangers")
_SCHEMA_MARK = statement("schema_mark")
_SCHEMA_MARK_DEV = statement("schema_mark_dev")

DISTRIBUTED_SECONDS_MAX = 120
"""Partitions of a distributed history are made shard by shard on the workers: some 0.1 s of CPU each."""
DEV_MARK = "made by dispatcher dev"


class MissingPartition(NamedTuple):
    """A day that a table of history has no partition for."""

    table: str
    day: date
    days_from_today: int
    """-1 is yesterday, by UTC and the database's clock."""


async def missing_partitions(
    connection: "Reach", days_ahead: int, *, with_waiting: bool
) -> list[MissingPartition]:
    """Return the day partitions that should exist and do not, for a caller with a connection of its own."""
    rows = await connection.fetch(_MISSING_PARTITIONS, days_ahead, with_waiting)
    return [MissingPartition(*row) for row in rows]


class Schema:
    """The schema's state and upkeep."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def require(self) -> None:
        """Check that the schema is what this version needs.

        Raises:
            SchemaError: it is absent, too old, too new, or the database is not UTF-8.
            StoreUnavailableError: not known, the database is away.
        """
        async with self._database.transaction() as connection:
            encoding = await connection.fetchval("SHOW server_encoding")
            if encoding != "UTF8":
                raise SchemaError(
                    f"the database's encoding is {encoding}; make one with ENCODING 'UTF8'"
                )
            await migrate.require(connection)

    async def is_writable(self) -> bool:
        """Return whether the server accepts writes: a demoted primary responds, but does not."""
        try:
            return bool(await self._database.fetch_value(_WRITABLE))
        except StoreUnavailableError:
            return False

    async def make_partitions(self, days_ahead: int) -> int:
        """Create the missing day partitions; return the count.

        Raises:
            SchemaError: they cannot be made, by this role or at all; the text has the reason.
            StoreUnavailableError: not now.
        """
        seconds = None
        try:
            with data_faults():
                async with self._database.transaction() as connection:
                    if self._database.is_distributed:
                        seconds = DISTRIBUTED_SECONDS_MAX
                        await connection.execute(f"SET LOCAL statement_timeout = '{seconds}s'")
                    return int(
                        await connection.fetchval(_MAKE_PARTITIONS, days_ahead, timeout=seconds)
                    )
        except StoreUnavailableError as error:
            if isinstance(error.__cause__, asyncpg.SyntaxOrAccessError | asyncpg.DataError):
                raise SchemaError(f"partitions cannot be made: {error.__cause__}") from error
            raise

    async def missing_partitions(
        self, days_ahead: int, *, with_waiting: bool = False
    ) -> list[MissingPartition]:
        """Return the day partitions that should exist and do not, oldest first.

        `with_waiting` includes the days of waiting deliveries, whose attempts are recorded there; that
        reads every waiting delivery.
        """
        async with self._database.connection() as connection:
            return await missing_partitions(connection, days_ahead, with_waiting=with_waiting)

    async def sweep_replicas(self) -> None:
        """Delete replicas whose lease ended long ago."""
        await self._database.execute(_SWEEP)


async def missing_privileges(connection: "Reach") -> list[str]:
    """Return the privileges that the connected user lacks, human-readable; the schema must exist."""
    return [row["missing"] for row in await connection.fetch(_MISSING_PRIVILEGES)]


async def strangers(connection: "Reach") -> list[str]:
    """Return the roles that may place objects where our names resolve, and the objects that they placed."""
    return [row["stranger"] for row in await connection.fetch(_STRANGERS)]


async def schema_mark(connection: "Reach") -> str | None:
    """Return the schema's record of its creator, None where there is no schema."""
    mark: str | None = await connection.fetchval(_SCHEMA_MARK)
    return mark


async def mark_schema(connection: "Reach") -> None:
    """Mark the schema as one that `dispatcher dev` made."""
    await connection.execute(_SCHEMA_MARK_DEV)
