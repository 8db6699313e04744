"""Inserts published events: requests that wait together share one statement and one commit.

While a commit is under way, the events that arrive form the next group, so a group is as large as the
load requires, and an event that arrives alone does not wait. Invariants:

* An event's result is its own. If Postgres rejects a group because of one event, the group is inserted
  again in smaller ones, next to the queue.
* At most `WAITING_EVENTS_MAX` events and `WAITING_BYTES_MAX` bytes wait. Beyond, a publish fails at once.
* An event whose client has disconnected before its statement was sent is not inserted.

If Postgres is unavailable, events wait until their own deadline. An event whose commit was cut off is
inserted again only if its producer chose its id, because a second row would then have a known id. Any
other one fails with `OutcomeUnknownError`. After a crash of the process, an event whose client has no
response may be committed or not, as with every commit.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from dispatcher.core.errors import (
    DataFaultError,
    OutcomeUnknownError,
    OverloadedError,
    StoreUnavailableError,
)
from dispatcher.runtime.backoff import Backoff, Outage
from dispatcher.store.outbox_inserts import (
    STATEMENT_BYTES_MAX,
    Batch,
    InsertedRow,
    NewRow,
    Verify,
    insert_batch,
    insert_events,
)
from dispatcher.store.pool import Database, is_locked, is_unsettled

_log = structlog.get_logger("dispatcher.admin.publishing")

GROUP_EVENTS_MAX: Final = 256
WAITING_EVENTS_MAX: Final = 5_000
WAITING_BYTES_MAX: Final = 64 * 1024 * 1024
BATCHES_AT_ONCE: Final = 2
CONNECTIONS_MAX: Final = 2 + BATCHES_AT_ONCE
"""One for groups, one for groups that were rejected, and one for each batch."""
_PAUSE_SECONDS: Final = (0.02, 0.5)


class _Waiting:
    """One event, and the future of its result."""

    __slots__ = ("bytes_count", "is_sent", "is_wanted", "result", "row")

    def __init__(self, row: NewRow, is_wanted: Callable[[], bool]) -> None:
        self.row = row
        self.bytes_count = len(row.data)
        self.is_wanted = is_wanted
        self.is_sent = False
        self.result: asyncio.Future[InsertedRow | None] = asyncio.get_running_loop().create_future()

    def fail(self, error: Exception) -> None:
        if not self.result.done():
            self.result.set_exception(error)

    def expire(self, seconds: float) -> None:
        self.fail(_overdue(seconds, is_sent=self.is_sent))

    def succeed(self, row: InsertedRow | None) -> None:
        if not self.result.done():
            self.result.set_result(row)


class Publisher:
    """Publishes for all requests of a process, on the event loop.

    `run` and `run_rejected` are tasks of the daemon. Without them each event is inserted by a statement
    of its own.
    """

    def __init__(
        self,
        database: Database,
        *,
        waiting_events_max: int = WAITING_EVENTS_MAX,
        waiting_bytes_max: int = WAITING_BYTES_MAX,
        committed: Callable[[int, float], None] = lambda _count, _seconds: None,
    ) -> None:
        """`committed` is called with the number of new events, and the seconds from the publish to the commit."""
        self._database = database
        self._committed = committed
        self._waiting: deque[_Waiting] = deque()
        self._rejected: deque[_Waiting] = deque()
        self._events_max = waiting_events_max
        self._bytes_max = waiting_bytes_max
        self._events_count = self._bytes_count = 0
        self._arrived = asyncio.Event()
        self._rejected_arrived = asyncio.Event()
        self._batches = asyncio.Semaphore(BATCHES_AT_ONCE)
        self._is_running = False
        self._backoff = Backoff(*_PAUSE_SECONDS)
        self._outage = Outage(_log, "publishing.stalled", "publishing.resumed")

    async def publish(
        self, row: NewRow, seconds: float, is_wanted: Callable[[], bool] = lambda: True
    ) -> InsertedRow | None:
        """Commit one event; return its row, or None if its id is known.

        `is_wanted` is called before the event is sent; an event that is no longer wanted is dropped.

        Raises:
            OverloadedError: too many events are waiting. OutcomeUnknownError: the event may be committed.
            DataFaultError: Postgres rejects its contents. StoreUnavailableError: it is not committed, and
            `seconds` are over or its id is locked.
        """
        if not self._is_running:
            return (await insert_events(self._database.fetch, [row]))[0]
        waiting = _Waiting(row, is_wanted)
        self._reserve(1, waiting.bytes_count)
        self._waiting.append(waiting)
        self._arrived.set()
        began = time.monotonic()
        # A third of the time of `asyncio.timeout`, which prepares to cancel this task.
        timer = asyncio.get_running_loop().call_later(seconds, waiting.expire, seconds)
        try:
            inserted = await waiting.result
            self._committed(0 if inserted is None else 1, time.monotonic() - began)
            return inserted
        finally:
            timer.cancel()
            waiting.result.cancel()
            self._release(1, waiting.bytes_count)

    async def publish_batch(
        self,
        rows: Sequence[NewRow],
        seconds: float,
        *,
        is_wanted: Callable[[], bool] = lambda: True,
        verify: Verify | None = None,
    ) -> Batch:
        """Commit events in one transaction; those that Postgres rejects are left out.

        `verify`, if given, is called before the commit. If it raises, nothing is committed.

        Raises:
            OverloadedError, OutcomeUnknownError, StoreUnavailableError: as `publish`, for the whole batch.
        """
        bytes_count = sum(len(row.data) for row in rows)
        self._reserve(len(rows), bytes_count)
        backoff = Backoff(*_PAUSE_SECONDS)
        can_repeat = all(row.id is not None for row in rows)
        began = time.monotonic()
        is_sent = False
        try:
            async with asyncio.timeout(seconds), self._batches:
                while is_wanted():
                    is_sent = True
                    try:
                        batch = await insert_batch(self._database, rows, verify=verify)
                    except StoreUnavailableError as error:
                        is_sent = is_unsettled(error)
                        if is_sent and not can_repeat:
                            raise OutcomeUnknownError(str(error)) from error
                    else:
                        new_count = len(rows) - batch.ids.count(None)
                        self._committed(new_count, time.monotonic() - began)
                        return batch
                    await backoff.pause()
                raise StoreUnavailableError("the client has disconnected")
        except TimeoutError:
            raise _overdue(seconds, is_sent=is_sent) from None
        finally:
            self._release(len(rows), bytes_count)

    async def run(self) -> None:
        """Insert the groups until cancelled."""
        self._is_running = True
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while group := self._take():
                    await self._insert(group)
        finally:
            self._is_running = False
            for waiting in (*self._waiting, *self._rejected):
                waiting.fail(StoreUnavailableError("the dispatcher is stopping"))

    async def run_rejected(self) -> None:
        """Insert the events of rejected groups again, until cancelled."""
        while True:
            await self._rejected_arrived.wait()
            self._rejected_arrived.clear()
            group = [one for one in self._rejected if not one.result.done()]
            self._rejected.clear()
            await self._insert_apart(group)

    # --- the queue ---

    def _reserve(self, events_count: int, bytes_count: int) -> None:
        events, size = self._events_count + events_count, self._bytes_count + bytes_count
        if self._events_count and (events > self._events_max or size > self._bytes_max):
            raise OverloadedError(
                f"{self._events_count:,} events are already waiting for Postgres. Try again later."
            )
        self._events_count, self._bytes_count = events, size

    def _release(self, events_count: int, bytes_count: int) -> None:
        self._events_count -= events_count
        self._bytes_count -= bytes_count

    def _take(self) -> list[_Waiting]:
        """Return the next group: events that are still wanted, in the order of their arrival."""
        group: list[_Waiting] = []
        bytes_count = 0
        while self._waiting and len(group) < GROUP_EVENTS_MAX:
            waiting = self._waiting[0]
            bytes_count += waiting.bytes_count
            if group and bytes_count > STATEMENT_BYTES_MAX:
                break
            self._waiting.popleft()
            if waiting.is_wanted():
                if not waiting.result.done():
                    group.append(waiting)
            else:
                waiting.fail(StoreUnavailableError("the client has disconnected"))
        return group

    # --- one group ---

    async def _insert(self, group: list[_Waiting]) -> None:
        """Insert a group; during an outage, return its events to the queue and pause."""
        try:
            await self._send(group)
        except StoreUnavailableError as error:
            if _is_about_events(error, group):
                self._rejected += group
                self._rejected_arrived.set()
            else:
                self._outage.began(error)
                self._return(group, error)
                await self._backoff.pause()
        else:
            self._outage.ended()
            self._backoff.reset()

    async def _insert_apart(self, group: list[_Waiting]) -> None:
        """Insert a rejected group in smaller ones, until each event has its own result."""
        if not group:
            return
        try:
            await self._send(group)
        except StoreUnavailableError as error:
            if not _is_about_events(error, group):
                self._return(group, error)
            elif len(group) == 1:
                group[0].fail(error)
            else:
                for part in _divided(group, is_lock=is_locked(error)):
                    await self._insert_apart(part)

    async def _send(self, group: list[_Waiting]) -> None:
        """Insert a group; events whose time is over before there is a connection leave it."""
        try:
            async with self._database.alone() as connection:
                group[:] = [waiting for waiting in group if not waiting.result.done()]
                if not group:
                    return
                for waiting in group:
                    waiting.is_sent = True
                rows = await insert_events(connection.fetch, [waiting.row for waiting in group])
        except StoreUnavailableError as error:
            for waiting in group:
                waiting.is_sent = is_unsettled(error)
            raise
        for waiting, row in zip(group, rows, strict=True):
            waiting.succeed(row)

    def _return(self, group: list[_Waiting], error: StoreUnavailableError) -> None:
        """Return events to the front of the queue, except those that may be committed and have no id."""
        for waiting in reversed(group):
            if waiting.is_sent and waiting.row.id is None:
                waiting.fail(OutcomeUnknownError(str(error)))
            else:
                self._waiting.appendleft(waiting)
        self._arrived.set()


def _is_about_events(error: StoreUnavailableError, group: list[_Waiting]) -> bool:
    """Return whether some event of the group caused the error; an event without an id waits for no row."""
    if isinstance(error, DataFaultError):
        return True
    return is_locked(error) and any(waiting.row.id is not None for waiting in group)


def _divided(group: list[_Waiting], *, is_lock: bool) -> list[list[_Waiting]]:
    """Return smaller groups. Each event that may wait for a lock is alone, and after those that do not."""
    if not is_lock:
        middle = len(group) // 2
        return [group[:middle], group[middle:]]
    without_id = [waiting for waiting in group if waiting.row.id is None]
    return [without_id, *([waiting] for waiting in group if waiting.row.id is not None)]


def _overdue(seconds: float, *, is_sent: bool) -> StoreUnavailableError:
    if is_sent:
        return OutcomeUnknownError(f"Postgres did not confirm the commit within {seconds:g} s")
    return StoreUnavailableError(f"the event was not committed within {seconds:g} s")
