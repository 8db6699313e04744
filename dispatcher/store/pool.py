"""Connections to Postgres: bounded, thrown away when in doubt, and reached through two doors.

`transaction()` is for what must be all or nothing, `fetch()` and its sisters for single statements.
Both translate errors. `StoreUnavailableError` means "retry later" and covers whatever Postgres refuses
that is not about the contents of rows: outages, revoked rights, renamed tables. An error about rows is
an `asyncpg.PostgresError` inside a transaction, and a `DataFaultError` from a single statement.

Every statement runs with `search_path = pg_catalog, pg_temp`, so that no role that may create objects
elsewhere has them called by ours. A transaction sets it for itself. A single statement relies on its
session: the first statement of each connection sets it, and finds out whether a pooler stands
between. Then no session is ours alone, and single statements become transactions. Nothing but a name
(and `options`, if the URL has them) is sent as a startup parameter: poolers refuse others. Limits are
SET LOCAL within each transaction, and set for the session, so that no server process goes on waiting
for a lock after its connection was thrown away. In a transaction `enable_seqscan = off` is set as well:
the hot tables swing between nothing and millions of rows,
and a plan cached when one was empty would read it whole. `enable_bitmapscan = off` for the same
reason: a claim on a backlog sorted all of it (65 ms at 50,000 events, 3 in index order). That makes
the planner's costs look enormous, so `jit` is off too: it spent 470 ms compiling a claim that runs in 5.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import asyncpg

from dispatcher.config.database_url import UrlSource
from dispatcher.core.errors import DataFaultError, StoreUnavailableError
from dispatcher.store.connector import Connector
from dispatcher.store.session import pin_session
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Connection, Pool, Record
    from asyncpg.pool import PoolConnectionProxy

    Reach = Connection[Record] | PoolConnectionProxy[Record]

_BEGIN = statement("transaction_begin")
_PLAN_FOR_VALUES = statement("connection_plan")
_BEGIN_WITHOUT_FLUSH = ";\n".join((_BEGIN, statement("transaction_unflushed")))
"""For what is repeated with the same outcome if a crash of the server loses it."""

STATEMENT_SECONDS_MAX = 5.5
"""A little over the server's own limit, so that a healthy server is the one that ends a statement."""
CONNECT_SECONDS_MAX = 5.0
ACQUIRE_SECONDS_MAX = 5.0
ROLLBACK_SECONDS_MAX = 1.0

_PASSING = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    OSError,
    TimeoutError,
)
"""The connection is of no more use."""
_PASSING_BUT_CONNECTED = (
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ObjectInUseError,
    asyncpg.PostgresSystemError,
    asyncpg.InvalidCachedStatementError,
)
"""The statement may go through next time, on the same connection."""
_NOT_NOW = (*_PASSING, *_PASSING_BUT_CONNECTED)
_BEHIND_A_POOLER = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
"""A statement that was prepared is not there, or is another's: our server connection is not our own."""


class _PoolerFoundError(Exception):
    """Another process than the one that greeted us runs our statements."""


async def _keep_session(_: "Connection[Record]") -> None:
    """Take the place of the pool's reset query: no state is left behind, so a round trip is saved."""


class Database:
    """A lazy pool: made without a server, connected when first used, re-made after a failover."""

    def __init__(
        self, url: str | UrlSource, *, connections_max: int = 8, statement_cache_size: int = 100
    ) -> None:
        """Validate the URL; a source of its own lets credentials be rotated.

        Raises:
            ConfigurationError: the URL is malformed or cannot be honoured.
        """
        self._connector = Connector(url)
        self._acquire_seconds_max = max(
            ACQUIRE_SECONDS_MAX, self._connector.seconds_in_all(CONNECT_SECONDS_MAX) + 0.5
        )
        self._connections_max = connections_max
        self._statement_cache_size = statement_cache_size
        self._pool: Pool[Record] | None = None

    async def open(self) -> None:
        """Make the pool; connects to nothing yet."""
        self._pool = asyncpg.create_pool(
            connect=cast("Any", self._connector.connect_for_pool),
            min_size=0,
            max_size=self._connections_max,
            max_inactive_connection_lifetime=60.0,
            init=self._pin_session,
            reset=_keep_session,
            **self._connect_options(),
        )
        await self._pool

    def _connect_options(self) -> dict[str, Any]:
        return {
            "timeout": CONNECT_SECONDS_MAX,
            "command_timeout": STATEMENT_SECONDS_MAX,
            "statement_cache_size": self._statement_cache_size,
            "max_cached_statement_lifetime": 0,
        }

    async def _pin_session(self, connection: "Reach") -> None:
        """Prepare a new connection for single statements.

        Raises:
            _PoolerFoundError: it is not ours alone.
        """
        if self._statement_cache_size and not await pin_session(connection):
            raise _PoolerFoundError

    async def _acquire(self) -> "PoolConnectionProxy[Record]":
        assert self._pool is not None, "open() comes first"  # noqa: S101 -- a programmer's slip
        try:
            return await self._pool.acquire(timeout=self._acquire_seconds_max)
        except (_PoolerFoundError, *_BEHIND_A_POOLER):
            await self._keep_no_statements()
        return await self._pool.acquire(timeout=self._acquire_seconds_max)

    async def _keep_no_statements(self) -> None:
        """Goes on as `database.pooler` asks for, having found out that one stands between."""
        assert self._pool is not None  # noqa: S101 -- a connection of it has just failed
        self._statement_cache_size = 0
        self._pool.set_connect_args(**self._connect_options())
        await self._pool.expire_connections()

    async def close(self) -> None:
        """Throw all connections away; wait for nobody."""
        if self._pool is not None:
            self._pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["Reach"]:
        """Yield a connection; one that met an outage, or whose user was cancelled, is thrown away."""
        assert self._pool is not None, "open() comes first"  # noqa: S101 -- a programmer's slip
        try:
            connection = await self._acquire()
        except (*_NOT_NOW, asyncpg.PostgresError) as error:
            # Whatever refuses a connection (no such database, a role that may not log in, a full
            # house) is mended by a person while we wait: it ends no process.
            raise StoreUnavailableError(f"no connection to Postgres: {_words(error)}") from error
        try:
            yield connection
        except _BEHIND_A_POOLER as error:
            _throw_away(connection)
            await self._keep_no_statements()
            raise StoreUnavailableError(
                "a transaction pooler stands before Postgres, it seems: set database.pooler = true"
                f" ({type(error).__name__})"
            ) from error
        except _PASSING_BUT_CONNECTED as error:
            raise StoreUnavailableError(f"Postgres refused for now: {_words(error)}") from error
        except _PASSING as error:
            _throw_away(connection)
            if isinstance(error, asyncpg.ReadOnlySQLTransactionError | asyncpg.AdminShutdownError):
                await (
                    self._pool.expire_connections()
                )  # a failover: the others lead to the same old server
            raise StoreUnavailableError(f"Postgres is away: {_words(error)}") from error
        except asyncpg.PostgresError as error:
            if is_about_rows(error):
                raise
            # A right revoked for a moment, a table renamed during a swap, a column or a function that
            # a migration is about to bring: a person fixes it while we wait. It ends no process.
            raise StoreUnavailableError(f"Postgres refuses: {_words(error)}") from error
        except asyncio.CancelledError:
            _throw_away(connection)
            raise
        finally:
            await self._pool.release(connection, timeout=ROLLBACK_SECONDS_MAX)

    @asynccontextmanager
    async def transaction(self, *, waits_for_disk: bool = True) -> AsyncIterator["Reach"]:
        """Yield a connection inside a transaction that commits when the block ends well.

        Without `waits_for_disk` the commit returns before it is durable (`synchronous_commit = off`):
        if the server crashes within the next moments, the whole transaction is lost.

        Raises:
            StoreUnavailableError: nothing was committed, or (if COMMIT itself was cut off) that is
            not known.
        """
        async with self.connection() as connection:
            await connection.execute(_BEGIN if waits_for_disk else _BEGIN_WITHOUT_FLUSH)
            try:
                yield connection
            except asyncpg.PostgresError:
                await connection.execute("ROLLBACK", timeout=ROLLBACK_SECONDS_MAX)
                raise
            except asyncio.CancelledError:
                raise  # connection() throws the connection away, which rolls back
            except Exception as error:
                if not isinstance(error, _PASSING):
                    await connection.execute("ROLLBACK", timeout=ROLLBACK_SECONDS_MAX)
                raise
            else:
                await connection.execute("COMMIT")

    @asynccontextmanager
    async def reading(self) -> AsyncIterator["Reach"]:
        """Yield a connection whose queries are planned for their values: a plan for all filters fits none."""
        async with self.transaction() as connection:
            await connection.execute(_PLAN_FOR_VALUES)
            yield connection

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator["Reach"]:
        """Yield a connection for a single statement; a row's fault becomes a `DataFaultError`.

        Preparing and running it are two round trips. A pooler may send the second to another server
        unless they are one transaction.
        """
        reach = self.connection() if self._statement_cache_size else self.transaction()
        with data_faults():
            async with reach as connection:
                yield connection

    async def fetch(self, sql: str, *parameters: object) -> "list[Record]":
        """Run one statement on its own and return its rows."""
        async with self._alone() as connection:
            return await connection.fetch(sql, *parameters)

    async def fetch_row(self, sql: str, *parameters: object) -> "Record | None":
        """Run one statement on its own and return its first row."""
        async with self._alone() as connection:
            return await connection.fetchrow(sql, *parameters)

    async def fetch_value(self, sql: str, *parameters: object) -> Any:  # noqa: ANN401 -- as the column is
        """Run one statement on its own and return the first column of its first row."""
        async with self._alone() as connection:
            return await connection.fetchval(sql, *parameters)

    async def execute(self, sql: str, *parameters: object) -> str:
        """Run one statement on its own and return its command tag."""
        async with self._alone() as connection:
            return await connection.execute(sql, *parameters)


def columns(rows: Sequence[Sequence[object]], count: int) -> list[list[object]]:
    """Turn rows into `count` columns for unnest(), which a batch of none has as well."""
    return (
        [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(count)]
    )


@contextlib.contextmanager
def data_faults() -> Iterator[None]:
    """Raise `DataFaultError` for rows that Postgres refuses or that its driver cannot decode."""
    try:
        yield
    except asyncpg.PostgresError as error:
        if not is_about_rows(error):
            raise
        raise DataFaultError(f"Postgres refuses a row's contents: {_words(error)}") from error
    except (OverflowError, ValueError) as error:
        raise DataFaultError(f"a row cannot be decoded: {_words(error)}") from error


def is_about_rows(error: asyncpg.PostgresError) -> bool:
    """Return whether the contents of rows are at fault: bad data, or a named rule that they break.

    What else Postgres refuses (a missing partition, privilege or column) is no row's fault, and is
    mended by a person.
    """
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return error.constraint_name is not None  # a row without a partition breaks no named rule
    return isinstance(error, asyncpg.DataError | asyncpg.ProgramLimitExceededError)


def _throw_away(connection: "Reach") -> None:
    """End a connection at once; one that has ended by itself is left alone."""
    with contextlib.suppress(asyncpg.InterfaceError):
        connection.terminate()


def _words(error: BaseException) -> str:
    return str(error).strip() or type(error).__name__
