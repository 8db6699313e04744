"""Bounds how many reads of the API and the console run in Postgres at a time.

A list costs Postgres milliseconds of CPU. Without a bound a busy API occupies as many processors of the server as it
has connections, and the server processes that claim and record deliveries wait for a processor behind them. Further
reads wait in their order until the deadline of their request. Writes are not bounded.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from dispatcher.core.errors import OverloadedError

WAITING_MAX: Final = 256


class ReadLimit:
    """A bound on concurrent reads, and on those that wait; used on one event loop."""

    def __init__(
        self,
        running_max: int,
        *,
        waiting: Callable[[int], None] = lambda _: None,
        rejected: Callable[[], None] = lambda: None,
    ) -> None:
        """`waiting` is called with the count of waiting reads, `rejected` for each one that never ran."""
        self._running = asyncio.Semaphore(running_max)
        self._waiting = waiting
        self._rejected = rejected
        self._waiting_count = 0
        self._waiting(0)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for the earlier reads.

        Raises:
            OverloadedError: too many are already waiting.
        """
        if self._running.locked():
            await self._wait()
        else:
            await self._running.acquire()
        try:
            yield
        finally:
            self._running.release()

    async def _wait(self) -> None:
        if self._waiting_count >= WAITING_MAX:
            self._rejected()
            raise OverloadedError("Too many reads are waiting for the database. Try again.")
        self._count(1)
        try:
            await self._running.acquire()
        except asyncio.CancelledError:
            self._rejected()
            raise
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self._waiting_count += change
        self._waiting(self._waiting_count)
