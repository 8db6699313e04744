"""Lines: the deliveries of one endpoint and one ordering key, sent one at a time in the order of their events.

    place ──▶ first of its line: may be sent        leave(ended) ──▶ the next one is first
         └──▶ behind another one: blocked           leave(open)  ──▶ the line leaves memory with it

Memory holds a part of a line: a run of deliveries without a gap, which begins with the first of all that are
open in Postgres. `has_more` is set where Postgres has others that are not in the run; nothing joins its end then.
When such a run is used up, the line is `woken`: its first delivery is read from Postgres. While other replicas fan
out as well, one of them may write between two deliveries of a run, and a run is not used: memory holds the first
delivery of a line alone.

Invariants: only the first of a line is in a queue of its lane, in flight, or waiting for a retry. A line without
a delivery in memory has no entry here. Nothing here waits or reads a clock. A crash loses nothing that a sweep
of Postgres does not find.
"""

from collections import deque
from collections.abc import Collection
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

SHELVED: Final = datetime(9999, 1, 1, tzinfo=UTC)
"""The due time of deliveries that stand behind others in Postgres, which no window reaches."""
STRICT_KEY: Final = 0
"""The one line of an endpoint whose ordering is strict."""
KEYS_MAX: Final = 10_000
"""Lines of one endpoint that are remembered to be read again; with more, a sweep of Postgres finds them."""


class Ordering(StrEnum):
    """In which order an endpoint's deliveries are sent."""

    NONE = "none"
    KEY = "key"
    STRICT = "strict"


class Place(NamedTuple):
    """Where a delivery stands: its line, and its position there."""

    key: int
    position: int


def order_key(ordering_key: str) -> int:
    """Return the line of an ordering key: 64 bits, as the SQL function `dispatcher.order_key` computes them."""
    return int.from_bytes(sha256(ordering_key.encode()).digest()[:8], signed=True)


def place_of(ordering: Ordering, ordering_key: str | None, position: int | None) -> Place | None:
    """Return the place of an event's delivery; None: it is sent in no order."""
    if position is None or ordering is Ordering.NONE:
        return None
    if ordering is Ordering.STRICT:
        return Place(STRICT_KEY, position)
    return None if ordering_key is None else Place(order_key(ordering_key), position)


class Ordered(Protocol):
    """A delivery in a line."""

    id: str
    place: Place | None
    is_in_line: bool


Work = TypeVar("Work", bound=Ordered)


def _place(work: Ordered) -> Place:
    assert work.place is not None, work  # noqa: S101 -- `join` has set it
    return work.place


class Line(Generic[Work]):
    """The run of one line that is in memory."""

    __slots__ = ("has_more", "works")

    def __init__(self, first: Work) -> None:
        self.works: deque[Work] = deque((first,))
        self.has_more = False


class Lines(Generic[Work]):
    """The lines of one endpoint."""

    __slots__ = ("_lines", "_unplaced", "blocked_count", "held", "sweep_after", "woken")

    def __init__(self) -> None:
        self._lines: dict[int, Line[Work]] = {}
        self._unplaced: dict[int, set[int]] = {}
        """Positions, by line, of deliveries that are written, or are being written, and not placed yet."""
        self.blocked_count = 0
        """Deliveries in memory that are not first."""
        self.woken: dict[int, None] = {}
        """Lines whose first delivery is to be read from Postgres."""
        self.held: dict[int, None] = {}
        """Lines of which an earlier event was still in the outbox; they are woken a moment later."""
        self.sweep_after: int | None = None
        """The key after which the sweep of Postgres goes on; None: none is due."""
        self.sweep()

    @property
    def count(self) -> int:
        """Lines with a delivery in memory."""
        return len(self._lines)

    def sweep(self) -> None:
        """Have Postgres swept for lines whose first delivery was shelved."""
        self.sweep_after = -(2**63)

    def wake(self, key: int) -> None:
        """Have the first delivery of a line read from Postgres."""
        if len(self.woken) < KEYS_MAX:
            self.woken[key] = None
        else:
            self.sweep()

    def hold(self, key: int) -> None:
        """Note that an earlier event of the line is in the outbox."""
        if len(self.held) < KEYS_MAX:
            self.held[key] = None
        else:
            self.sweep()

    def release_held(self) -> None:
        """Wake the lines that were held."""
        held, self.held = self.held, {}
        for key in held:
            self.wake(key)

    def expect_more(self, key: int) -> None:
        """Note that Postgres has deliveries of a line that are not in memory."""
        line = self._lines.get(key)
        if line is None:
            self.wake(key)
        else:
            line.has_more = True

    def announce(self, place: Place) -> None:
        """Note that a delivery with this place is being written; until it is settled, none passes it."""
        self._unplaced.setdefault(place.key, set()).add(place.position)

    def settle(self, place: Place) -> None:
        """Note that an announced delivery is placed, or left to Postgres."""
        positions = self._unplaced.get(place.key)
        if positions is not None:
            positions.discard(place.position)
            if not positions:
                del self._unplaced[place.key]

    def has_before(self, place: Place, previous_id: str) -> bool:
        """Return whether all that comes before a place is in memory: the one immediately before it, and no gap."""
        line = self._lines.get(place.key)
        # A delivery that was left to Postgres may have a lower position than the first: it was committed after the
        # first was sent. Then all that comes later is left to Postgres as well.
        if line is None or line.has_more:
            return False
        # One that is not placed yet may stand before those in memory: it was committed after they were placed.
        if any(position < place.position for position in self._unplaced.get(place.key, ())):
            return False
        # The first may have a higher position than those behind it: it was sent before they were committed.
        before = [work for work in line.works if work.place is not None and work.place < place]
        return bool(before) and max(before, key=_place).id == previous_id

    def cut(self, place: Place) -> list[Work]:
        """Drop the deliveries behind a place that is left to Postgres, because a run has no gap; return them."""
        line = self._lines.get(place.key)
        if line is None:
            self.wake(place.key)
            return []
        line.has_more = True
        works, left = line.works, []
        while len(works) > 1 and _place(works[-1]) > place:
            work = works.pop()
            work.is_in_line = False
            left.append(work)
        self.blocked_count -= len(left)
        return left

    def is_busy(self, key: int) -> bool:
        """Return whether a delivery of the line is in memory."""
        return key in self._lines

    def join(self, work: Work, place: Place) -> bool:
        """Put a delivery in its line, behind the first and in the order of positions; return whether it is first."""
        line = self._lines.get(place.key)
        if work.is_in_line and line is not None:
            return line.works[0] is work
        work.place, work.is_in_line = place, True
        if line is None:
            self._lines[place.key] = Line(work)
            return True
        works = line.works
        at = len(works)
        while at > 1 and _place(works[at - 1]) > place:
            at -= 1
        works.insert(at, work)
        self.blocked_count += 1
        return False

    def leave(
        self, work: Work, *, ended: bool, is_gapless: bool = True
    ) -> tuple[Work | None, list[Work]]:
        """Take a delivery out of its line; return the one that is first now, and those that leave memory with it.

        If the first of a line leaves although it is open, those behind it leave as well: Postgres has them all. If
        another replica may have written between those in memory (not `is_gapless`), the next one is read from Postgres.
        """
        key = _place(work).key
        line = self._lines[key]
        works = line.works
        work.is_in_line = False
        if works[0] is not work:
            works.remove(work)
            self.blocked_count -= 1
            line.has_more = line.has_more or not ended
            return None, []
        works.popleft()
        if ended and works and is_gapless:
            self.blocked_count -= 1
            return works[0], []
        del self._lines[key]
        if ended and (line.has_more or works):
            self.wake(key)
        self.blocked_count -= len(works)
        for left in works:
            left.is_in_line = False
        return None, list(works)

    def keep(self, ids: Collection[str]) -> None:
        """Drop all from their lines except the first ones whose ids are given; Postgres has what follows them."""
        lines, self._lines = self._lines, {}
        self.blocked_count = 0
        for key, line in lines.items():
            for work in line.works:
                work.is_in_line = False
            first = line.works[0]
            if first.id in ids:
                first.is_in_line = True
                self._lines[key] = kept = Line(first)
                kept.has_more = True

    def clear(self) -> None:
        """Drop everything: the endpoint is another replica's, or has no order any more."""
        self.keep(())
        self.woken, self.held, self.sweep_after = {}, {}, None
