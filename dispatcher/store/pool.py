"""The connection pool: bounded connections to Postgres, which are closed when their state is uncertain.

`transaction()` is for statements that must commit together. `fetch()`, `fetch_row()`, `fetch_value()` and
`execute()` run a single statement. Both translate errors. `StoreUnavailableError` means "retry later" and
covers every refusal that is not about the contents of rows: outages, revoked privileges, renamed tables. An
error about rows is an `asyncpg.PostgresError` inside a transaction, and a `DataFaultError` from a single
statement.

Every statement runs with `search_path = pg_catalog, pg_temp`, so that objects which another role created
elsewhere are never called. The first statement of each connection sets it for the session, and detects a
pooler. Behind a pooler no session is exclusive: single statements become transactions, and each
transaction sets its own path and limits with SET LOCAL. Only a name (and `options`, if the URL has them) is
sent as a startup parameter, because poolers refuse others. The limits end a statement on the server, so
that no server process goes on waiting for a lock after its connection was closed.

Planner options are set the same way. `enable_seqscan = off`: the hot tables vary between no rows and
millions, and a plan cached while one was empty would read the whole table. `enable_bitmapscan = off`: a
claim on a backlog sorted all of it (65 ms at 50,000 events, 3 ms in index order). These options inflate
the planner's costs, so `jit` is off too: it spent 470 ms compiling a claim that runs in 5 ms.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    nullcontext,
)
from types import TracebackType
from typing import TYPE_CHECKING, Any

import asyncpg

from dispatcher.config.database_url import UrlSource
from dispatcher.core.errors import DataFaultError, NotConnectedError, StoreUnavailableError
from dispatcher.store.connections import ConnectionPool
from dispatcher.store.connector import Connector
from dispatcher.store.read_limit import ReadLimit
from dispatcher.store.session import pin_session
from dispatcher.store.statements import statement
from dispatcher.store.typed_connection import TypedConnection

if TYPE_CHECKING:
    from asyncpg import Connection, Record

    Reach = Connection[Record]

_BEGIN = statement("transaction_begin")
_FOR_VALUES = ";\n" + statement("connection_plan")

IS_DISTRIBUTED = statement("history_is_distributed")

_BEGIN_PINNED = statement("transaction_begin_pinned")
_WITHOUT_FLUSH = ";\n" + statement("transaction_unflushed")
"""For transactions that are repeated with the same outcome if a crash of the server loses them."""

STATEMENT_SECONDS_MAX = 5.5
"""A little over the server's own limit, so that a healthy server is the one that ends a statement."""
CONNECT_SECONDS_MAX = 5.0
ACQUIRE_SECONDS_MAX = 5.0
ROLLBACK_SECONDS_MAX = 1.0
IDLE_SECONDS = 60.0
STATEMENT_KEPT_SECONDS = 24 * 60 * 60
"""So that a connection does not collect the plans of past days (store/kept_plans.py)."""

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
"""The connection is not usable any more."""
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
"""The statement may succeed the next time, on the same connection."""
_NOT_NOW = (*_PASSING, *_PASSING_BUT_CONNECTED)
_BEHIND_A_POOLER = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
"""A prepared statement is missing or belongs to another client, so a pooler shares the server connection."""


class _PoolerFoundError(Exception):
    """A pooler runs statements in another server process than the one that opened the session."""


class Database:
    """A lazy pool, created without a server, connected at first use, and reconnected after a failover."""

    def __init__(
        self,
        url: str | UrlSource,
        *,
        connections_max: int = 8,
        statement_cache_size: int = 100,
        reads: ReadLimit | None = None,
    ) -> None:
        """Validate the URL; a `UrlSource` allows the rotation of credentials. `reads` bounds `reading()`.

        Raises:
            ConfigurationError: the URL is malformed or cannot be honoured.
        """
        self._connector = Connector(url)
        self._acquire_seconds_max = max(
            ACQUIRE_SECONDS_MAX, self._connector.seconds_in_all(CONNECT_SECONDS_MAX) + 0.5
        )
        self._connections_max = connections_max
        self._statement_cache_size = statement_cache_size
        self._reads = reads
        self._connections: ConnectionPool | None = None
        self._connection_class: type[Reach] | None = None
        """None: not known before the first connection."""
        self.is_distributed = False
        """Whether history is distributed over workers (store/distributed.py); known from the first connection on."""

    async def open(self) -> None:
        """Begin without a connection; the first statement makes one."""
        self._connections = ConnectionPool(
            self._connect, connections_max=self._connections_max, idle_seconds=IDLE_SECONDS
        )

    async def _connect(self) -> "Reach":
        known = self._connection_class
        connection = await self._connect_as(known or TypedConnection)
        if known is None:  # several connections may be the first
            try:
                # Preparing and running it are two round trips, and a pooler may stand between.
                async with connection.transaction():
                    self.is_distributed = bool(await connection.fetchval(IS_DISTRIBUTED))
            except BaseException:
                connection.terminate()
                raise
            if not self.is_distributed:
                self._connection_class = TypedConnection
                return connection
            connection.terminate()
            from dispatcher.store.distributed import DistributedConnection  # noqa: PLC0415 -- few databases need it

            self._connection_class = DistributedConnection
            return await self._connect_as(DistributedConnection)
        return connection

    async def _connect_as(self, connection_class: "type[Reach]") -> "Reach":
        connection = await self._connector.connect(
            seconds=CONNECT_SECONDS_MAX,
            command_timeout=STATEMENT_SECONDS_MAX,
            statement_cache_size=self._statement_cache_size,
            max_cached_statement_lifetime=STATEMENT_KEPT_SECONDS,
            connection_class=connection_class,
        )
        try:
            await self._prepare_session(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _prepare_session(self, connection: "Reach") -> None:
        """Prepare a new connection for single statements.

        Raises:
            _PoolerFoundError: the connection is shared through a pooler.
        """
        if self._statement_cache_size and not await pin_session(connection):
            raise _PoolerFoundError

    async def _acquire(self) -> "Reach":
        assert self._connections is not None, "open() comes first"  # noqa: S101 -- a programmer's slip
        try:
            return await self._connections.acquire(self._acquire_seconds_max)
        except (_PoolerFoundError, *_BEHIND_A_POOLER):
            self._keep_no_statements()
        return await self._connections.acquire(self._acquire_seconds_max)

    def _keep_no_statements(self) -> None:
        """Switch to the mode of `database.pooler = true`, because a pooler was detected."""
        assert self._connections is not None  # noqa: S101 -- a connection of it has just failed
        self._statement_cache_size = 0
        self._connections.expire()

    async def close(self) -> None:
        """Close all connections without waiting for their users."""
        if self._connections is not None:
            self._connections.terminate()

    def connection(self) -> "AbstractAsyncContextManager[Reach]":
        """Return a context with a connection; it closes it after an outage or a cancellation of its user."""
        return _Lent(self)

    async def lend(self) -> "Reach":
        """Return a connection, which `take_back` has to get.

        Raises:
            NotConnectedError: there is none.
        """
        try:
            return await self._acquire()
        except (*_NOT_NOW, asyncpg.PostgresError) as error:
            # A person fixes the cause of a refused connection (no such database, a role that may not
            # log in, too many connections) while the process waits, so it does not end.
            raise NotConnectedError(f"no connection to Postgres: {_words(error)}") from error

    def take_back(self, connection: "Reach", error: BaseException | None) -> None:
        """Release a connection, or close it if its user failed in a way that makes its state uncertain.

        Raises:
            StoreUnavailableError: instead of an error that is not about the contents of rows.
        """
        assert self._connections is not None  # noqa: S101 -- it has lent the connection
        try:
            if error is not None:
                self._examine(connection, error)
        finally:
            self._connections.release(connection)

    def _examine(self, connection: "Reach", error: BaseException) -> None:
        assert self._connections is not None  # noqa: S101 -- it has lent the connection
        if isinstance(error, _BEHIND_A_POOLER):
            _throw_away(connection)
            self._keep_no_statements()
            raise StoreUnavailableError(
                "a transaction pooler stands before Postgres, it seems: set database.pooler = true"
                f" ({type(error).__name__})"
            ) from error
        if isinstance(error, _PASSING_BUT_CONNECTED):
            raise StoreUnavailableError(f"Postgres refused for now: {_words(error)}") from error
        if isinstance(error, AttributeError) and connection.is_closed():
            # `close` came between two steps of a statement, and asyncpg has no connection any more.
            raise StoreUnavailableError("Postgres is away: the connection is closed") from error
        if isinstance(error, _PASSING):
            _throw_away(connection)
            if isinstance(error, asyncpg.ReadOnlySQLTransactionError | asyncpg.AdminShutdownError):
                self._connections.expire()  # a failover: the others lead to the same old server
            raise StoreUnavailableError(f"Postgres is away: {_words(error)}") from error
        if isinstance(error, asyncpg.PostgresError) and not is_about_rows(error):
            # A person fixes a privilege revoked for a moment, a table renamed during a swap, or a column
            # or function that a migration is about to create, while the process waits; it does not end.
            raise StoreUnavailableError(f"Postgres refuses: {_words(error)}") from error
        if isinstance(error, asyncio.CancelledError):
            _throw_away(connection)

    @asynccontextmanager
    async def transaction(
        self, *, waits_for_disk: bool = True, is_planned_for_values: bool = False
    ) -> AsyncIterator["Reach"]:
        """Yield a connection inside a transaction that commits if the block does not raise.

        Without `waits_for_disk` the commit returns before it is durable (`synchronous_commit = off`).
        If the server crashes within the next moments, the whole transaction is lost. With
        `is_planned_for_values` no statement of it has a generic plan.

        Raises:
            StoreUnavailableError: the transaction was not committed, or (if COMMIT itself was cut off) its
            outcome is unknown.
        """
        async with self.connection() as connection:
            begin = _BEGIN_PINNED if self._statement_cache_size else _BEGIN
            # Workers commit after the coordinator, whose commit must not be lost after theirs.
            is_durable = waits_for_disk or self.is_distributed
            begin += "" if is_durable else _WITHOUT_FLUSH
            begin += _FOR_VALUES if is_planned_for_values else ""
            await connection.execute(begin)
            try:
                yield connection
            except asyncpg.PostgresError:
                await connection.execute("ROLLBACK", timeout=ROLLBACK_SECONDS_MAX)
                raise
            except asyncio.CancelledError:
                raise  # connection() closes the connection, which rolls back
            except Exception as error:
                if not isinstance(error, _PASSING):
                    await connection.execute("ROLLBACK", timeout=ROLLBACK_SECONDS_MAX)
                raise
            else:
                await connection.execute("COMMIT")

    @asynccontextmanager
    async def reading(self) -> AsyncIterator["Reach"]:
        """Yield a connection whose queries are planned for their values, because a generic plan fits no filter.

        Raises:
            OverloadedError: too many others wait for the limit of reads.
        """
        async with (
            nullcontext() if self._reads is None else self._reads.place(),
            self.transaction(is_planned_for_values=True) as connection,
        ):
            yield connection

    def alone(self) -> "AbstractAsyncContextManager[Reach]":
        """Return a context with a connection for a single statement; an error about a row becomes a `DataFaultError`.

        Preparing and running a statement are two round trips. Unless they are one transaction, a pooler
        may send the second to another server process.
        """
        return _Alone(self.connection() if self._statement_cache_size else self.transaction())

    async def fetch(self, sql: str, *parameters: object) -> "list[Record]":
        """Run one statement on its own and return its rows."""
        async with self.alone() as connection:
            return await connection.fetch(sql, *parameters)

    async def fetch_row(self, sql: str, *parameters: object) -> "Record | None":
        """Run one statement on its own and return its first row."""
        async with self.alone() as connection:
            return await connection.fetchrow(sql, *parameters)

    async def fetch_value(self, sql: str, *parameters: object) -> Any:  # noqa: ANN401 -- as the column is
        """Run one statement on its own and return the first column of its first row."""
        async with self.alone() as connection:
            return await connection.fetchval(sql, *parameters)

    async def execute(self, sql: str, *parameters: object) -> str:
        """Run one statement on its own and return its command tag."""
        async with self.alone() as connection:
            return await connection.execute(sql, *parameters)


def columns(rows: Sequence[Sequence[object]], count: int) -> list[list[object]]:
    """Return rows as `count` columns for unnest(); no rows become empty columns."""
    return (
        [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(count)]
    )


class _DataFaults:
    """Translates errors about rows; it has no state, so one object serves all."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, asyncpg.PostgresError) and is_about_rows(error):
            raise DataFaultError(f"Postgres refuses a row's contents: {_words(error)}") from error
        if isinstance(error, OverflowError | ValueError):
            raise DataFaultError(f"a row cannot be decoded: {_words(error)}") from error


_DATA_FAULTS = _DataFaults()


def data_faults() -> AbstractContextManager[None]:
    """Return a context that raises `DataFaultError` for rows that Postgres refuses or that its driver cannot decode."""
    return _DATA_FAULTS


class _Lent:
    """A connection for the time of a block. A generator as a context costs twice as many calls, at each statement."""

    __slots__ = ("_connection", "_database")

    def __init__(self, database: Database) -> None:
        self._database = database

    async def __aenter__(self) -> "Reach":
        self._connection = await self._database.lend()
        return self._connection

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._database.take_back(self._connection, error)


class _Alone:
    """A connection for one statement; it translates errors about rows."""

    __slots__ = ("_reach",)

    def __init__(self, reach: "AbstractAsyncContextManager[Reach]") -> None:
        self._reach = reach

    async def __aenter__(self) -> "Reach":
        return await self._reach.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with _DATA_FAULTS:
            await self._reach.__aexit__(kind, error, trace)
        _DATA_FAULTS.__exit__(kind, error, trace)


def is_unsettled(error: StoreUnavailableError) -> bool:
    """Return whether Postgres may have committed what failed with this error.

    It has not if nothing was sent, or if the error is a response of the server.
    """
    if isinstance(error, NotConnectedError):
        return False
    cause = error.__cause__
    return not isinstance(cause, asyncpg.PostgresError) or isinstance(
        cause, asyncpg.PostgresConnectionError
    )


def is_locked(error: StoreUnavailableError) -> bool:
    """Return whether a lock was not granted in time."""
    return isinstance(error.__cause__, asyncpg.LockNotAvailableError)


def is_about_rows(error: asyncpg.PostgresError) -> bool:
    """Return whether the contents of rows caused the error: invalid data, or a violated named constraint.

    Any other refusal (a missing partition, privilege or column) is not caused by rows, and a person fixes
    it.
    """
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return error.constraint_name is not None  # a missing partition violates no named constraint
    return isinstance(error, asyncpg.DataError | asyncpg.ProgramLimitExceededError)


def _throw_away(connection: "Reach") -> None:
    """Close a connection at once; ignore one that has already ended."""
    with contextlib.suppress(asyncpg.InterfaceError):
        connection.terminate()


def _words(error: BaseException) -> str:
    return str(error).strip() or type(error).__name__
