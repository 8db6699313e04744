"""One endpoint's lane: its ready deliveries, its limit of requests in flight, and its waiting times.

    offer ──▶ ready ────take──▶ in flight ──finish──▶ (permit back)
       └────▶ deferred ─probe─┤
    ask   ──▶ urgent ────take─┘

Invariants: `in_flight` never exceeds `limit`. A lane has at most `window` ready deliveries in memory, and
`more_at` is the time from which Postgres may have others. A request of a person (`urgent`) needs a permit
but bypasses breaker, rate limit and pause. No function here waits or reads a clock, so every call is
atomic on the event loop.

The window follows the receiver's throughput, compared with that of the other lanes. A lane that is served
about as fast as any other has work in memory for the next moments, however slow the machine is. A lane
whose receiver accepts two per second, or none, has a few, and the rest stays in Postgres.

Work of event types that the breaker defers is in separate queues, with at most `PROBES_READY_MAX` of each
type. That is enough for probes, and it never displaces work that may be sent.
"""

from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from dispatcher.core.breaker import Breaker
from dispatcher.core.rate import TokenBucket


class Deferrable(Protocol):
    """A delivery, as far as the breaker distinguishes deliveries."""

    @property
    def id(self) -> str:
        """Return the delivery's id."""
        ...

    @property
    def event_type(self) -> str:
        """Return the type of its event."""
        ...

    @property
    def is_retry(self) -> bool:
        """Return whether an attempt has been made before."""
        ...


Work = TypeVar("Work", bound=Deferrable)

WINDOW_MAX = 2000
WINDOW_MIN = 64
CROWDED = 1500
"""With this much ready work, a fast lane makes fan-out wait a moment, rather than leave more to Postgres."""
RELIEVED = 1400
"""From here on a crowded lane has room for another batch of fan-out (500). Little is sent between the two values,
so that many lanes, each of which sends a small part of the process's deliveries, are relieved soon as well."""
KEEPS_UP_SHARE = 2
"""A lane keeps up if it finishes at least this part (half) of what the fastest lane finishes."""
KEEPS_UP_PER_SECOND_MIN = 20
PROBES_READY_MAX = 8
"""Deferred work that is kept ready per event type, so that the next probes are different deliveries."""
DEFERRED_TYPES_MAX = 64


class Lane(Generic[Work]):
    """The state of a lane; only `delivery.lanes` writes its fields, on the event loop's thread."""

    __slots__ = (
        "breaker",
        "bucket",
        "crowded",
        "deferred",
        "finished_count",
        "in_flight",
        "is_open",
        "limit",
        "more_at",
        "overflows",
        "queued",
        "ready",
        "slow",
        "starved",
        "urgent",
        "wakes_at",
        "window",
    )

    def __init__(
        self, *, limit: int, breaker: Breaker, bucket: TokenBucket | None, is_open: bool
    ) -> None:
        self.limit = limit
        self.breaker = breaker
        self.bucket = bucket
        self.is_open = is_open
        """Whether the endpoint is active and scheduled attempts may be made."""
        self.ready: deque[Work] = deque()
        self.deferred: dict[str, deque[Work]] = {}
        """Ready work that the breaker defers, by event type; the probes come from it."""
        self.urgent: deque[Work] = deque()
        self.in_flight = 0
        self.window = WINDOW_MAX
        self.slow = False
        """The receiver accepts less than the largest window per second, and the lane does not keep up with others;
        fan-out does not wait for it."""
        self.crowded = False
        self.more_at: float | None = None
        """When Postgres may have due deliveries that are not in memory; None: not before the horizon."""
        self.overflows = 0
        """Count the deliveries left to Postgres, so that a refill can detect that its result is outdated."""
        self.wakes_at: float | None = None
        """When the lane is tried again without another cause, because its breaker or its rate defers it."""
        self.queued = False
        """Whether the lane is in the queue of lanes that need a permit."""
        self.finished_count = 0
        self.starved = False
        """Whether the lane had no ready work when the window was last set, or at some time since."""

    def has_room(self, event_type: str) -> bool:
        """Return whether one more ready delivery of this event type fits."""
        if not self.is_open:
            return False
        if self.breaker.is_deferring and self.breaker.defers(event_type):
            line = self.deferred.get(event_type)
            if line is None:
                return len(self.deferred) < DEFERRED_TYPES_MAX
            return len(line) < PROBES_READY_MAX
        return len(self.ready) < self.window

    def line_up(self, work: Work) -> None:
        """Append ready work to its queue."""
        if self.breaker.is_deferring and self.breaker.defers(work.event_type):
            self.deferred.setdefault(work.event_type, deque()).append(work)
        else:
            self.ready.append(work)

    def withdraw(self, work: Work) -> bool:
        """Remove ready work from its queue; return whether it was in one."""
        for line in (self.ready, self.deferred.get(work.event_type)):
            if line and work in line:
                line.remove(work)
                if line is not self.ready and not line:
                    del self.deferred[work.event_type]
                return True
        return False

    def sort_again(self) -> list[Work]:
        """Sort all ready work again by what the breaker defers now; return the work that no longer fits."""
        works = [work for line in self.deferred.values() for work in line]
        works += self.ready
        self.ready.clear()
        self.deferred.clear()
        excess: list[Work] = []
        for work in works:
            if self.breaker.defers(work.event_type) and not self.has_room(work.event_type):
                excess.append(work)
            else:
                self.line_up(work)
        return excess

    def wants_permit(self) -> bool:
        """Return whether there is work and concurrency left; `take` checks breaker and rate."""
        return self.in_flight < self.limit and bool(
            self.urgent or (self.is_open and (self.ready or self.deferred))
        )

    def take(self, now: float) -> Work | None:
        """Return the next work and count its permit; None if there is none or it must wait (`waits_until`)."""
        if self.in_flight >= self.limit:
            return None
        if self.urgent:
            self.in_flight += 1
            return self.urgent.popleft()
        if not self.is_open:
            return None
        event_type = self._next_probe(now) if self.deferred else None
        if event_type is None and (not self.ready or self.breaker.defers_everything):
            return None
        if self.bucket is not None and not self.bucket.take(now):
            return None
        self.in_flight += 1
        return self.ready.popleft() if event_type is None else self._take_probe(now, event_type)

    def _next_probe(self, now: float) -> str | None:
        """Return the event type to probe next, None if no probe is permitted now."""
        breaker = self.breaker
        permitted = [
            event_type
            for event_type in self.deferred
            if (at := breaker.permitted_at(event_type)) is not None and at <= now
        ]
        return min(permitted, key=breaker.turn, default=None)

    def _take_probe(self, now: float, event_type: str) -> Work:
        """Remove a probe from its queue and return it; first attempts and retries alternate."""
        line = self.deferred[event_type]
        wants_retry = self.breaker.probes_retry_next(event_type)
        work = next((w for w in line if w.is_retry is wants_retry), line[0])
        line.remove(work)
        if not line:
            del self.deferred[event_type]
        self.breaker.begin_probe(now, event_type, work.id, is_retry=work.is_retry)
        return work

    def waits_until(self, now: float) -> float | None:
        """Return when to call `take` again after it returned None; None: after the lane's next change."""
        if self.in_flight >= self.limit or not self.is_open:
            return None
        times = [
            at
            for event_type in self.deferred
            if (at := self.breaker.permitted_at(event_type)) is not None
        ]
        if self.ready and not self.breaker.defers_everything:
            times.append(now)
        if not times:
            return None
        at = min(times)
        if at <= now and self.bucket is not None:
            return self.bucket.ready_at(now)
        return at if at > now else None

    def turn_away(self, due_at: float) -> None:
        """Record that a delivery due at `due_at` is left to Postgres."""
        self.overflows += 1
        self.more_at = due_at if self.more_at is None else min(self.more_at, due_at)

    def runs_low(self, now: float) -> bool:
        """Return whether Postgres may have due work and the lane has room for it."""
        return (
            self.more_at is not None
            and self.more_at <= now
            and self.is_open
            and not self.has_plenty()
        )

    def has_plenty(self) -> bool:
        """Return whether the ready work will last for a while."""
        if self.breaker.defers_everything:
            return bool(self.deferred)  # enough for probes
        return len(self.ready) > self.window // 4

    def finish(self) -> None:
        """Release a permit."""
        self.in_flight -= 1
        self.finished_count += 1

    def fit_window(self, elapsed_seconds: float, most_finished: int) -> Iterator[Work]:
        """Set the window by the work finished since the last call; yield the ready work that no longer fits.

        `most_finished` is the work that the fastest lane has finished meanwhile. A lane that keeps up with it
        is limited by this process, and not by its receiver: if its work were left to Postgres, loading it
        again would slow the process further.
        """
        finished, self.finished_count = self.finished_count, 0
        keeps_up = finished >= max(
            most_finished / KEEPS_UP_SHARE, KEEPS_UP_PER_SECOND_MIN * elapsed_seconds
        )
        if self.starved or not self.ready or keeps_up:
            self.window, self.slow = WINDOW_MAX, False
        else:
            self.window = min(WINDOW_MAX, max(WINDOW_MIN, int(2 * finished / elapsed_seconds)))
            self.slow = self.window < WINDOW_MAX
        self.starved = not self.ready
        while len(self.ready) > self.window:
            self.turn_away(0.0)
            yield self.ready.pop()
