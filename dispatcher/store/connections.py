"""Keeps connections to Postgres open between statements, up to a bound.

Invariants: at most `connections_max` connections exist or are being made. An idle connection is handed out
at once, without a turn of the event loop: on a busy loop a turn takes milliseconds, which every statement of
the dispatch path would wait for. The connection that was used last is handed out first, so that the server
processes that are not needed end after `idle_seconds`. Waiting callers are served in their order. A
connection that was closed, left in a transaction, made before `expire()`, or open for an hour is not used again.

asyncpg's pool has the same purpose. It makes a task, two futures and a proxy object per use, which was an
eighth of the daemon's time at 200 events per second.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

if TYPE_CHECKING:
    from asyncpg import Connection, Record

    Connect = Callable[[], Awaitable[Connection[Record]]]

CLOSE_SECONDS_MAX = 1.0
LIFETIME_SECONDS = 3_600.0
"""A server process remembers every partition that it has seen; a new one begins with none."""


class _Kept(NamedTuple):
    """An idle connection."""

    connection: "Connection[Record]"
    ends_at: float
    """When it has been open for long enough."""
    returned_at: float


class ConnectionPool:
    """Idle and lent connections; used on one event loop."""

    def __init__(self, connect: "Connect", *, connections_max: int, idle_seconds: float) -> None:
        self._connect = connect
        self._connections_max = connections_max
        self._idle_seconds = idle_seconds
        self._loop = asyncio.get_running_loop()
        self._idle: deque[_Kept] = deque()
        """In the order in which they were returned; the last one is used first."""
        self._lent: dict[Connection[Record], float] = {}
        """Each with the time at which it ends; after `expire`, that time has come."""
        self._places_count = 0
        """Connections that are being made, or that a waiting caller may make."""
        self._waiters: deque[asyncio.Future[Connection[Record] | None]] = deque()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._expired_count = 0
        self._terminated = False

    async def acquire(self, seconds_max: float) -> "Connection[Record]":
        """Return a connection, which the caller gives back to `release`.

        Raises:
            TimeoutError: no connection was free or could be made in time.
            asyncpg.InterfaceError: `terminate` has been called.
            OSError, asyncpg.PostgresError: the connection could not be made.
        """
        while self._idle:
            connection, ends_at, _ = self._idle.pop()
            if not connection.is_closed():
                self._lent[connection] = ends_at
                return connection
        async with asyncio.timeout(seconds_max):
            return await self._wait_or_connect()

    async def _wait_or_connect(self) -> "Connection[Record]":
        self._check_open()
        if len(self._lent) + self._places_count < self._connections_max:
            self._places_count += 1
        elif (connection := await self._wait()) is not None:
            return connection
        expired_count = self._expired_count
        try:
            connection = await self._connect()
        except BaseException:
            self._places_count -= 1
            self._offer_place()
            raise
        self._places_count -= 1
        if self._terminated:
            connection.terminate()
            self._check_open()
        is_current = expired_count == self._expired_count
        self._lent[connection] = self._loop.time() + LIFETIME_SECONDS if is_current else 0.0
        return connection

    def _check_open(self) -> None:
        if self._terminated:
            raise _closed()

    async def _wait(self) -> "Connection[Record] | None":
        """Wait for a returned connection; None: the caller has a place for a new one."""
        waiter: asyncio.Future[Connection[Record] | None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            # Its caller may have given up in the moment in which it was served.
            if not waiter.cancelled() and waiter.exception() is None:
                connection = waiter.result()
                if connection is not None:
                    self.release(connection)
                else:
                    self._places_count -= 1
                    self._offer_place()
            raise

    def release(self, connection: "Connection[Record]") -> None:
        """Take a connection back: lend it to the next caller, keep it, or close it."""
        ends_at = self._lent.pop(connection, None)
        if ends_at is None:
            return  # `terminate` has closed it
        now = self._loop.time()
        if connection.is_closed() or connection.is_in_transaction():
            connection.terminate()
            self._offer_place()
        elif now >= ends_at:
            self._close(connection)
            self._offer_place()
        elif self._serve(connection):
            self._lent[connection] = ends_at
        else:
            self._idle.append(_Kept(connection, ends_at, now))
            if self._idle_timer is None:
                self._idle_timer = self._loop.call_later(self._idle_seconds, self._close_idle)

    def _serve(self, connection: "Connection[Record] | None") -> bool:
        """Give a connection, or a place for a new one, to the first caller that still waits."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return True
        return False

    def _offer_place(self) -> None:
        """Let the first waiting caller make the connection that may be made now."""
        if self._serve(None):
            self._places_count += 1

    def _close_idle(self) -> None:
        """Close what has not been used for `idle_seconds`."""
        self._idle_timer = None
        now = self._loop.time()
        while self._idle and now - self._idle[0].returned_at >= self._idle_seconds:
            self._close(self._idle.popleft().connection)
        if self._idle:
            due = self._idle[0].returned_at + self._idle_seconds
            self._idle_timer = self._loop.call_at(due, self._close_idle)

    def _close(self, connection: "Connection[Record]") -> None:
        """Close an idle connection; its farewell to the server may take a moment."""
        task = self._loop.create_task(_close(connection))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def expire(self) -> None:
        """Close the idle connections now, and each lent one when it is returned."""
        self._expired_count += 1
        self._lent = dict.fromkeys(self._lent, 0.0)
        while self._idle:
            self._close(self._idle.pop().connection)

    def terminate(self) -> None:
        """Close all connections without waiting for their users; `acquire` fails from now on."""
        self._terminated = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        for connection in [*self._lent, *(kept.connection for kept in self._idle)]:
            connection.terminate()
        self._lent.clear()
        self._idle.clear()
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(_closed())


async def _close(connection: "Connection[Record]") -> None:
    try:
        await connection.close(timeout=CLOSE_SECONDS_MAX)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


def _closed() -> asyncpg.InterfaceError:
    return asyncpg.InterfaceError("the connections to Postgres are closed")
