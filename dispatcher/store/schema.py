"""The schema as the daemon sees it: is it there, can it be written to, are its partitions ahead of time."""

import asyncpg

from dispatcher.core.errors import SchemaError, StoreUnavailableError
from dispatcher.store import migrate
from dispatcher.store.pool import Database
from dispatcher.store.statements import statement

_MAKE_PARTITIONS = statement("partitions_make")
_SWEEP = statement("replicas_sweep")
_WRITABLE = statement("writable")


class Schema:
    """The schema's state and upkeep."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def require(self) -> None:
        """Checks that the schema is what this version needs.

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
        """Tells whether the server takes writes: a demoted primary answers, and does not."""
        try:
            return bool(await self._database.fetch_value(_WRITABLE))
        except StoreUnavailableError:
            return False

    async def make_partitions(self, days_ahead: int) -> int:
        """Makes the day partitions that are missing; returns how many.

        Raises:
            SchemaError: they cannot be made, by this role or at all; the text says why.
            StoreUnavailableError: not now.
        """
        try:
            return int(await self._database.fetch_value(_MAKE_PARTITIONS, days_ahead))
        except asyncpg.PostgresError as error:
            raise SchemaError(f"partitions cannot be made: {error}") from error

    async def sweep_replicas(self) -> None:
        """Forgets replicas whose lease ended long ago."""
        await self._database.execute(_SWEEP)
