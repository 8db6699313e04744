"""Indexes of the texts of ended days, for searches; made one at a time on a connection of their own.

CREATE INDEX CONCURRENTLY takes minutes for a day of a million events. It stops neither readers nor writers of
the day, and is no transaction: after a crash an invalid index is left, which the next round drops.
"""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import asyncpg

from dispatcher.config.database_url import UrlSource
from dispatcher.core.errors import StoreUnavailableError
from dispatcher.store.connector import Connector
from dispatcher.store.session import pin_session
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Connection, Record

    from dispatcher.store.pool import Reach

_LIST = statement("event_text_list")
_DAYS = statement("event_text_days")
_SESSION = statement("connection_text_index")
_EXTENSION = statement("server_trigrams")

CONNECT_SECONDS_MAX: Final = 5.0
STATEMENT_SECONDS_MAX: Final = 10.0
BUILD_SECONDS_MAX: Final = 3_600.0
"""A day whose index takes longer stays without one."""
ENDED_SECONDS: Final = 3_600.0
"""So long after its end a day gets no more events: the clock of a claim and the commit are seconds apart."""


class TextIndexDay(NamedTuple):
    """An ended day of events, and the index of its text."""

    day: date
    is_valid: bool | None
    """None: it has none."""
    is_being_made: bool
    bytes: int
    make: str | None
    """The statement; None: the extension is missing."""
    drop: str
    analyze: str


class TextIndexSession:
    """A connection that makes indexes; open it with `async with`."""

    def __init__(self, url: str | UrlSource) -> None:
        self._connector = Connector(url)
        self._connection: Connection[Record] | None = None

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            StoreUnavailableError: the database is away, or a pooler stands between.
        """
        try:
            self._connection = await self._connector.connect(
                seconds=CONNECT_SECONDS_MAX,
                purpose="text index",
                command_timeout=STATEMENT_SECONDS_MAX,
                statement_cache_size=0,
            )
            is_ours = await pin_session(self._connection)
            if is_ours:
                await self._connection.fetchrow(_SESSION, f"{BUILD_SECONDS_MAX:.0f}s")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            self._drop()
            raise StoreUnavailableError(str(error) or type(error).__name__) from error
        except BaseException:
            self._drop()
            raise
        if not is_ours:
            self._drop()
            raise StoreUnavailableError(
                "a pooler stands before Postgres: an index is made on a direct connection, set"
                " DISPATCHER_LISTEN_DATABASE_URL"
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._drop()

    def _drop(self) -> None:
        """Close the connection; the server ends a statement that still runs when it sees that."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def days(
        self, incarnation: str, ended_seconds: float = ENDED_SECONDS
    ) -> list[TextIndexDay]:
        """Return the ended days, newest first; none if the indexes are made by another replica.

        Raises:
            StoreUnavailableError: not just now.
        """
        assert self._connection is not None  # noqa: S101 -- inside `async with`
        try:
            rows = await self._connection.fetch(_LIST, ended_seconds, incarnation)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            raise StoreUnavailableError(str(error) or type(error).__name__) from error
        return [TextIndexDay(*row) for row in rows]

    async def run(self, sql: str) -> None:
        """Run a statement of a day.

        Raises:
            StoreUnavailableError: it failed.
        """
        assert self._connection is not None  # noqa: S101 -- inside `async with`
        try:
            await self._connection.execute(sql, timeout=BUILD_SECONDS_MAX)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
            raise StoreUnavailableError(str(error) or type(error).__name__) from error


async def indexed_days(connection: "Reach") -> Sequence[date]:
    """Return the days whose text has an index that can be used."""
    return [row["day"] for row in await connection.fetch(_DAYS)]


async def has_extension(connection: "Reach") -> bool:
    """Return whether the extension of trigrams is installed."""
    return bool(await connection.fetchval(_EXTENSION))
