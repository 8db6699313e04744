"""A bounded batch: what is added is flushed by size or by age, one flush at a time.

```
add() ──▶ pending ──▶ [rows_max, or age_seconds after the first] ──▶ flush(items)
             │ full: wait_for_room() holds the senders
```

What is always true: items are flushed in the order they were added, each by exactly one successful
flush; `pending` plus the batch under way never exceed `pending_max` unless somebody adds without
waiting for room. A flush that raises one of `passing_errors` is tried again with the same items in
the same order, after a growing, jittered pause; any other error leaves `run()`, which ends the
stage. Closing flushes what is left, shielded from cancellation: results that exist are recorded.
A slow flush makes the next batch bigger, up to `rows_max`, and in the end holds the senders.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from dispatcher.runtime.clock import Clock, SystemClock
from dispatcher.runtime.tasks import finish

Item = TypeVar("Item")

PAUSE_SECONDS_MIN = 0.05
PAUSE_SECONDS_MAX = 2.0


class Batcher(Generic[Item]):
    """Collects items for `flush`.

    `_pending` is written by `add` and by `run`, both on the event loop.
    """

    def __init__(
        self,
        flush: Callable[[list[Item]], Awaitable[None]],
        *,
        rows_max: int,
        age_seconds: float,
        pending_max: int,
        passing_errors: tuple[type[Exception], ...] = (),
        clock: Clock | None = None,
    ) -> None:
        self._flush = flush
        self._rows_max = rows_max
        self._age_seconds = age_seconds
        self._pending_max = pending_max
        self._passing_errors = passing_errors
        self._clock = clock or SystemClock()
        self._pending: deque[tuple[float, Item]] = deque()
        self._under_way = 0
        self._closing = False
        self._woken = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def __len__(self) -> int:
        return len(self._pending) + self._under_way

    def add(self, item: Item) -> None:
        """Takes an item at once; callers that can wait ask `wait_for_room` first.

        Raises:
            RuntimeError: the batcher is closed, so the item would never be flushed.
        """
        if self._closing:
            raise RuntimeError("the batcher is closed")
        self._pending.append((self._clock.monotonic(), item))
        count = len(self._pending)
        if count in (1, self._rows_max):
            self._woken.set()
        if count + self._under_way >= self._pending_max:
            self._room.clear()

    async def wait_for_room(self) -> None:
        """Waits while the batcher is full."""
        while not self._room.is_set():
            await self._room.wait()

    def close(self) -> None:
        """Takes no more items; `run` flushes what is left and returns."""
        self._closing = True
        self._woken.set()

    async def run(self) -> None:
        """Flushes until closed and empty; cancelled, it flushes what is left first."""
        try:
            while True:
                await self._wait_until_due()
                if self._pending:
                    await self._flush_once()
                elif self._closing:
                    return
        except asyncio.CancelledError:
            self._closing = True
            while self._pending:
                await self._flush_once()
            raise

    async def _wait_until_due(self) -> None:
        while not self._closing and len(self._pending) < self._rows_max:
            left = None
            if self._pending:
                left = self._pending[0][0] + self._age_seconds - self._clock.monotonic()
                if left <= 0:
                    return
            self._woken.clear()
            try:
                async with asyncio.timeout(left):
                    await self._woken.wait()
            except TimeoutError:
                return

    async def _flush_once(self) -> None:
        count = min(self._rows_max, len(self._pending))
        items = [self._pending.popleft()[1] for _ in range(count)]
        self._under_way = count
        try:
            await finish("batcher.flush", self._flush_until_done(items))
        finally:
            self._under_way = 0
            if len(self._pending) < self._pending_max:
                self._room.set()

    async def _flush_until_done(self, items: list[Item]) -> None:
        pause = PAUSE_SECONDS_MIN
        while True:
            try:
                await self._flush(items)
            except self._passing_errors:
                # The jitter keeps replicas from knocking at a returning database in step.
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 -- no secret
                pause = min(pause * 2, PAUSE_SECONDS_MAX)
            else:
                return
