"""Searches for a text: its phases, its time budget, and the bound of searches at a time.

A search has phases, each newest first: exact matches (ids and labels, by index), deliveries of endpoints
with that name, then the events' contents. The contents of the current day have no index, so a page whose
first phases found something ends before them, and its cursor leads to them. They are read from the newest event on, in
slices of about 0.05 s, until the page is full or the budget is spent. The cursor then continues where
the search stopped. A day whose text has an index (store/text_indexes.py) is read in one statement, unless that takes
longer than `INDEX_SECONDS_MAX`, as for a text that most events have.

What is always true: a search uses one connection and one server process at a time, and keeps no lock and
no snapshot between slices. After each slice it rests: briefly in an idle database, and up to 19 times as
long as it worked while other sessions of the dispatcher are in transactions, so that deliveries keep
the processor. An idle daemon has its heartbeats, so a single such sighting does not count as load. At most
`RUNNING_MAX` run in this process and `WAITING_MAX` wait; further ones are rejected. With a slow Postgres a
statement is cancelled once the budget is spent, and the page ends after the last slice that was read.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Self, TypeVar

from dispatcher.admin.resources.serialization import Place
from dispatcher.core.errors import StoreUnavailableError, TooManyError
from dispatcher.core.problems import problem
from dispatcher.runtime.clock import SystemClock
from dispatcher.store import search
from dispatcher.store.day_walk import days_of_events
from dispatcher.store.events import EventDetail
from dispatcher.store.pool import Database
from dispatcher.store.search import TextQuery
from dispatcher.store.text_indexes import indexed_days

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

Row = TypeVar("Row")

RUNNING_MAX: Final = 1
"""Searches of this process at a time: each reads as fast as the database lets one process."""
WAITING_MAX: Final = 8
WAITING_SECONDS_MAX: Final = 8.0
SLICE_SECONDS: Final = 0.05
"""How long one slice is to take: the server's other work waits for a slice at most so long."""
SLICE_ROWS_FIRST: Final = 200
"""Rows of the first slice: events of 1 MiB take 10 ms each."""
SLICE_ROWS_MAX: Final = 50_000
SLICE_GROWTH_MAX: Final = 8
REST_SHARE_IDLE: Final = 0.25
"""Rest after a slice, in slices."""
REST_SHARE_BUSY: Final = 19.0
"""The same next to deliveries: a search uses at most a twentieth of one processor."""
SIGHTINGS: Final = 4
BUSY_SIGHTINGS: Final = 2
"""The database is busy if so many of the last `SIGHTINGS` looks found another session in a transaction.

Next to an idle daemon 1 look of 42 did, and next to a drain 8 of 10."""
NAP_SECONDS: Final = 0.1
"""How long a rest goes on before another look, which ends it once the database is idle."""
INDEX_SECONDS_MAX: Final = 1.0
"""How long the index of one day is read, before the day is read in slices."""
STATEMENT_MILLISECONDS_MIN: Final = 100
STATEMENT_MILLISECONDS_MAX: Final = 5_000
BUDGET_SECONDS_UNUSED: Final = 0.05
"""With less left of the budget, a statement that failed is one that reached its time limit."""
CONTENT: Final = "content"
"""The phase that reads without an index."""
NAMED: Final = frozenset({"exact", "named"})
"""The phases of what the text names, after which a page does not go on to contents."""
_PHASE_END: Final = "~"
_NO_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""The time of a cursor that leads to the beginning of a phase."""


class SearchQueue:
    """The searches of this process: a few run, a few wait, further ones are rejected."""

    def __init__(self) -> None:
        self._running = asyncio.Semaphore(RUNNING_MAX)
        self._waiting = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for the earlier searches.

        Raises:
            TooManyError: too many wait, or the wait took too long.
        """
        if self._waiting >= WAITING_MAX:
            raise TooManyError(problem("q", "too_many_searches"), WAITING_SECONDS_MAX / 2)
        self._waiting += 1
        try:
            async with asyncio.timeout(WAITING_SECONDS_MAX):
                await self._running.acquire()
        except TimeoutError:
            raise TooManyError(problem("q", "too_many_searches"), WAITING_SECONDS_MAX / 2) from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._running.release()


class Step(NamedTuple):
    """A slice that was read: its matches, and the place to continue from."""

    events: list[EventDetail]
    end: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Part(Generic[Row]):
    """The result of one phase."""

    rows: Sequence[tuple[Row, Place]]
    """Each with its place in this phase."""
    stopped_at: Place | None = None
    """Where the budget ended; None: the phase is complete, or returned all the rows it was to find."""
    searched_back_to: datetime | None = None

    @classmethod
    def of(cls, rows: Sequence[Row], place: Callable[[Row], Place]) -> Self:
        """Return all that a phase finds."""
        return cls(rows=[(row, place(row)) for row in rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Generic[Row]):
    """A page of a search."""

    rows: list[Row]
    next_place: Place | None
    searched_back_to: datetime | None
    """All contents that were accepted since then have been searched; None: contents were not searched."""


Phase = Callable[[Place | None, int], Awaitable[Part[Row]]]
"""Returns at most so many rows after a place."""


async def run_phases(
    phases: Sequence[tuple[str, Phase[Row]]], place: Place | None, limit: int
) -> Found[Row]:
    """Return a page from the phases in turn, beginning at the place of a cursor.

    An order number that a label names is found in milliseconds, and reading contents takes the whole budget.
    """
    rows: list[Row] = []
    back_to: datetime | None = None
    started, before = _read_place(place)
    is_named = False
    names = [name for name, _ in phases]
    first = names.index(started) if started in names else 0
    for name, phase in phases[first:]:
        if len(rows) == limit or (is_named and name == CONTENT):
            return Found(rows=rows, next_place=Place(_NO_TIME, name), searched_back_to=back_to)
        missing = limit - len(rows)
        part = await phase(before, missing)
        before = None
        rows += [row for row, _ in part.rows]
        is_named |= bool(part.rows) and name in NAMED
        back_to = part.searched_back_to
        if len(part.rows) == missing:
            return Found(
                rows=rows, next_place=_in_phase(name, part.rows[-1][1]), searched_back_to=back_to
            )
        if part.stopped_at is not None:
            return Found(
                rows=rows, next_place=_in_phase(name, part.stopped_at), searched_back_to=back_to
            )
    return Found(rows=rows, next_place=None, searched_back_to=back_to)


def _in_phase(name: str, place: Place) -> Place:
    return Place(place.at, f"{name}{_PHASE_END}{place.id}")


def _read_place(place: Place | None) -> tuple[str | None, Place | None]:
    """Return the phase of a cursor, and the place in it; None: its beginning."""
    if place is None:
        return None, None
    name, separator, own_id = place.id.partition(_PHASE_END)
    return name, Place(place.at, own_id) if separator else None


class TextSearch:
    """Reads the contents of events within a budget."""

    def __init__(self, database: Database, seconds: float) -> None:
        self._database = database
        self._sightings: deque[bool] = deque(maxlen=SIGHTINGS)
        self._deadline = asyncio.get_running_loop().time() + seconds
        self.searched_back_to: datetime | None = None
        """All events that were accepted since then have been read."""
        self.is_complete = False

    async def steps(
        self, query: TextQuery, before: Place | None, rows_max: int
    ) -> AsyncIterator[Step]:
        """Yield slice after slice, at most `rows_max` matches of each, until the budget is spent."""
        now = asyncio.get_running_loop().time
        if before is None and query.until is not None:
            before = Place(query.until, "")
        days, oldest = await self._days(query, before)
        indexed = await self._indexed_days(query)
        rows_count, is_first = SLICE_ROWS_FIRST, True
        while days:
            started = now()
            if started >= self._deadline and not is_first:
                return
            if days[0] in indexed and not is_first:
                found = await self._indexed(query, days[0], before, rows_max)
                if found is None or not found.end.id:
                    indexed.discard(days[0])
                if found is not None:
                    before, self.searched_back_to = found.end, found.end.at
                    yield found
                    if not before.id:
                        days.pop(0)
                    await self._rest(now() - started)
                continue
            try:
                step, read_count = await self._slice(
                    query, days[0], before, rows_count, rows_max, is_first=is_first
                )
            except StoreUnavailableError:
                if is_first or now() < self._deadline - BUDGET_SECONDS_UNUSED:
                    raise
                return  # the budget is also the statement's time limit
            if step is None:
                start = datetime.combine(days.pop(0), time(), UTC)
                before, self.searched_back_to, is_first = Place(start, ""), start, False
                yield Step([], before)
                continue
            seconds = now() - started
            is_first = False
            before, self.searched_back_to = step.end, step.end.at
            yield step
            if query.since is not None and before.at <= query.since:
                break
            if read_count < rows_count and not before.id:
                days.pop(0)
            growth = min(SLICE_SECONDS / max(seconds, 0.001), SLICE_GROWTH_MAX)
            rows_count = max(1, min(int(rows_count * growth), SLICE_ROWS_MAX))
            await self._rest(seconds)
        self.is_complete, self.searched_back_to = True, oldest

    async def _rest(self, seconds: float) -> None:
        """Leave the processor to deliveries after a statement that took so long."""
        now = asyncio.get_running_loop().time
        began = now()
        while True:
            share = REST_SHARE_BUSY if self._is_busy() else REST_SHARE_IDLE
            rest = min(began + seconds * share, self._deadline) - now()
            if rest <= 0:
                return
            await asyncio.sleep(min(rest, NAP_SECONDS))
            if rest > NAP_SECONDS:
                async with self._database.transaction() as connection:
                    await self._limit(connection, STATEMENT_MILLISECONDS_MAX)

    def _is_busy(self) -> bool:
        return sum(self._sightings) >= BUSY_SIGHTINGS

    async def _indexed_days(self, query: TextQuery) -> set[date]:
        """Return the days that can be read by the index of their text."""
        if not query.pattern.has_trigrams:
            return set()
        async with self._database.transaction() as connection:
            return set(await indexed_days(connection))

    async def _indexed(
        self, query: TextQuery, day: date, before: Place | None, rows_max: int
    ) -> Step | None:
        """Return the next matches of a day by its index; None: that took too long."""
        left = self._deadline - asyncio.get_running_loop().time()
        milliseconds = int(min(left, INDEX_SECONDS_MAX) * 1000)
        floor = datetime.combine(day, time(), UTC)
        if query.since is not None:
            floor = max(floor, query.since)
        try:
            async with self._database.transaction() as connection:
                await self._limit(connection, milliseconds)
                await search.allow_text_index(
                    connection, max(STATEMENT_MILLISECONDS_MIN, milliseconds)
                )
                events = await search.search_slice(
                    connection, query, day, floor, before, rows_max, is_indexed=True
                )
        except StoreUnavailableError:
            return None  # the slices that follow raise it again if the database is away
        last = events[-1] if len(events) == rows_max else None
        if last is None or last.accepted_at is None:
            return Step(events, Place(floor, ""))
        return Step(events, Place(last.accepted_at, last.id))

    async def _limit(self, connection: "Reach", milliseconds: int) -> None:
        """Bound the statements of a transaction, and note whether deliveries go on next to it."""
        milliseconds = max(STATEMENT_MILLISECONDS_MIN, milliseconds)
        self._sightings.append(await search.limit_statements(connection, milliseconds))

    async def _days(
        self, query: TextQuery, before: Place | None
    ) -> tuple[list[date], datetime | None]:
        """Return the days to read, the newest first, and the start of the period that they cover."""
        days = (await days_of_events(self._database))[::-1]
        first = _day(query.since) or date.min
        # Partitions are made days ahead. The database's clock may be a little ahead of ours.
        last = (SystemClock.now() + timedelta(hours=1)).date()
        if before is not None:
            # A slice that ended at midnight has left nothing of that day.
            before_at = max(before.at, _NO_TIME)
            if not before.id:
                before_at -= timedelta(microseconds=1)
            last = min(last, before_at.astimezone(UTC).date())
        chosen = [day for day in days if first <= day <= last]
        oldest = datetime.combine(days[-1], time(), UTC) if days else None
        return chosen, query.since or oldest

    async def _slice(
        self,
        query: TextQuery,
        day: date,
        before: Place | None,
        rows_count: int,
        rows_max: int,
        *,
        is_first: bool,
    ) -> tuple[Step | None, int]:
        """Return the next slice of a day and how many events it has; None: the day has no more."""
        left = int((self._deadline - asyncio.get_running_loop().time()) * 1000)
        milliseconds = STATEMENT_MILLISECONDS_MAX if is_first else left
        async with self._database.transaction() as connection:
            await self._limit(connection, milliseconds)
            count, floor = await search.slice_bound(connection, day, before, rows_count)
            if floor is None:
                return None, 0
            if query.since is not None and floor < query.since:
                floor = query.since
            events = await search.search_slice(connection, query, day, floor, before, rows_max)
        if len(events) == rows_max:
            last = events[-1]
            assert last.accepted_at is not None  # noqa: S101 -- only accepted events have slices
            return Step(events, Place(last.accepted_at, last.id)), count
        return Step(events, Place(floor, "")), count


def _day(at: datetime | None) -> date | None:
    return None if at is None else at.astimezone(UTC).date()
