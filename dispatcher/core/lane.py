"""One endpoint's lane: what is ready, how much may be in flight, and how long it must wait.

    offer ──▶ ready ──take──▶ in flight ──finish──▶ (permit back)
    ask   ──▶ urgent ─take─┘

What is always true: `in_flight` never exceeds `limit`; a lane holds at most `window` ready
deliveries in memory and knows with `more_at` from when on Postgres may have others; a request of a
person (`urgent`) needs a permit but passes breaker, rate and pause. No function here waits or looks
at a clock, so nothing is half done.

The window follows the receiver: one that takes hundreds a second has work in memory for the next
moments, one that takes two a second (or none) holds a few, and the rest stays where the truth is.
"""

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from dispatcher.core.breaker import Breaker
from dispatcher.core.rate import TokenBucket

Work = TypeVar("Work")

WINDOW_MAX = 2000
WINDOW_MIN = 64
CROWDED = 1500
"""From so much ready work on a quick lane wants fan-out to wait a moment, rather than leave more to Postgres."""
RELIEVED = 1000


class Lane(Generic[Work]):
    """Writer of every field: the event loop's thread, through `delivery.lanes` alone."""

    __slots__ = (
        "breaker",
        "bucket",
        "crowded",
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
        """The endpoint is active: scheduled attempts may be made."""
        self.ready: deque[Work] = deque()
        self.urgent: deque[Work] = deque()
        self.in_flight = 0
        self.window = WINDOW_MAX
        self.slow = False
        """It takes less in a second than its window could hold; nobody waits for it."""
        self.crowded = False
        self.more_at: float | None = None
        """From when on Postgres may have due deliveries that are not in memory; None: before the horizon, none."""
        self.overflows = 0
        """Counts what was turned away, so that a refill can tell whether its answer is already old."""
        self.wakes_at: float | None = None
        """When it is asked again by itself: its breaker or its rate makes it wait."""
        self.queued = False
        """Stands in the queue of lanes that want a permit."""
        self.finished_count = 0
        self.starved = False
        """Was without ready work at some time since the window was last set."""

    def has_room(self) -> bool:
        """Tells whether one more ready delivery may be held."""
        return self.is_open and len(self.ready) < self.window

    def wants_permit(self) -> bool:
        """Tells whether it has something to send and concurrency left; breaker and rate are asked by `take`."""
        return self.in_flight < self.limit and bool(self.urgent or (self.ready and self.is_open))

    def take(self, now: float) -> Work | None:
        """Returns the next piece of work, its permit counted, or None: nothing to do, or `waits_until` says when."""
        if self.in_flight >= self.limit:
            return None
        if self.urgent:
            self.in_flight += 1
            return self.urgent.popleft()
        if not self.ready or not self.is_open or not self.breaker.permits(now):
            return None
        if self.bucket is not None and not self.bucket.take(now):
            self.breaker.probe_abandoned(now)
            return None
        self.in_flight += 1
        return self.ready.popleft()

    def waits_until(self, now: float) -> float | None:
        """Returns when a lane that gave nothing should be asked again; None: when something happens to it."""
        if self.in_flight >= self.limit or not self.ready or not self.is_open:
            return None
        probe_at = self.breaker.probe_at
        if probe_at is not None and probe_at > now:
            return probe_at
        if self.bucket is not None:
            return self.bucket.ready_at(now)
        return None

    def turn_away(self, due_at: float) -> None:
        """Notes that a delivery due at that time is left to Postgres."""
        self.overflows += 1
        self.more_at = due_at if self.more_at is None else min(self.more_at, due_at)

    def runs_low(self, now: float) -> bool:
        """Tells whether Postgres has work that there is room for."""
        return (
            self.more_at is not None
            and self.more_at <= now
            and self.is_open
            and not self.has_plenty()
        )

    def has_plenty(self) -> bool:
        """Tells whether what is ready will last for a while."""
        return len(self.ready) > self.window // 4

    def finish(self) -> None:
        """Gives a permit back."""
        self.in_flight -= 1
        self.finished_count += 1

    def fit_window(self, elapsed_seconds: float) -> Iterator[Work]:
        """Sets the window by what was finished since the last time; yields the ready work that no longer fits."""
        finished, self.finished_count = self.finished_count, 0
        if self.starved or not self.ready:
            self.window, self.slow = WINDOW_MAX, False
        else:
            self.window = min(WINDOW_MAX, max(WINDOW_MIN, int(2 * finished / elapsed_seconds)))
            self.slow = self.window < WINDOW_MAX
        self.starved = not self.ready
        while len(self.ready) > self.window:
            self.turn_away(0.0)
            yield self.ready.pop()
