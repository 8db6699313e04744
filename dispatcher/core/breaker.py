"""The circuit breaker of one endpoint: when to stop attempting for a while, and when to ask again.

::

    closed ──10 deliveries failed in 60 s, and 90 % of all results──▶ open
      ▲                                                                │ cool-down is over:
      │                                                                ▼ one permit
      └────────────────────the probe succeeded──────────────────── half-open
                        (it failed: open again, cool-down doubled)

Open, it *defers*: no attempt is made and none is spent. The deliveries that failed must be
different ones, so that a single bad payload, retried or resent, closes no lane.

Results of attempts that began before it opened still arrive. While it is open a failure among them
says nothing new, and a success brings the probe forward to that moment. While a probe runs, a
success of any delivery closes; a failure counts only if it is the probe's own.

Bounded: fourteen pairs of counters and `limits.BREAKER_DELIVERIES_MAX` delivery ids. Which
deliveries failed is known to the moment; the share is counted in slots of 5 s, so in it a result is
forgotten when it is between 60 and 65 s old. A crash forgets the breaker; the endpoint then costs
ten failures more.
"""

from collections import deque
from enum import StrEnum
from typing import Final

from dispatcher.core import limits

_WINDOW_SECONDS: Final = 60.0
_SLOT_SECONDS: Final = 5.0
_FAILED_DELIVERIES_MIN: Final = 10
_FAILURE_SHARE_MIN: Final = 0.9
_COOL_DOWN_SECONDS_MIN: Final = 5.0
_COOL_DOWN_SECONDS_MAX: Final = 300.0


class BreakerState(StrEnum):
    """Whether attempts are made, deferred, or probed with one."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Judges one endpoint by its results; only the endpoint's lane calls it, `now` is monotonic."""

    __slots__ = (
        "_cool_down_seconds",
        "_failed_at_by_delivery",
        "_failed_count",
        "_past_failed_count",
        "_past_slots",
        "_past_succeeded_count",
        "_probe_at",
        "_probe_delivery_id",
        "_slot_ends_at",
        "_state",
        "_succeeded_count",
    )

    def __init__(self) -> None:
        self._state = BreakerState.CLOSED
        self._cool_down_seconds = _COOL_DOWN_SECONDS_MIN
        self._probe_at = 0.0
        self._probe_delivery_id: str | None = None
        # The slot that is being counted, and the parts and sums of those before it.
        self._slot_ends_at = 0.0
        self._succeeded_count = 0
        self._failed_count = 0
        self._past_slots: deque[tuple[float, int, int]] = deque()
        self._past_succeeded_count = 0
        self._past_failed_count = 0
        # In the order of the latest failure; the earliest makes room for a new one.
        self._failed_at_by_delivery: dict[str, float] = {}

    @property
    def state(self) -> BreakerState:
        """The present state; an open breaker becomes half-open only by handing out the probe."""
        return self._state

    @property
    def probe_at(self) -> float | None:
        """The moment from which an open breaker permits its probe; None in the other states."""
        return self._probe_at if self._state is BreakerState.OPEN else None

    def permits(self, now: float, delivery_id: str | None = None) -> bool:
        """Answers whether an attempt may be made now; when open, a yes hands out the one probe.

        Whoever got the probe owes a `record` or a `probe_abandoned`. Naming the delivery lets late
        failures of other attempts be told from the probe's; without it the first failure counts.
        """
        if self._state is BreakerState.CLOSED:
            return True
        if self._state is BreakerState.HALF_OPEN or now < self._probe_at:
            return False
        self._state = BreakerState.HALF_OPEN
        self._probe_delivery_id = delivery_id
        return True

    def record(self, now: float, delivery_id: str, succeeded: bool) -> None:
        """Counts the result of one complete attempt; it may open, close or reopen the breaker."""
        if self._state is BreakerState.CLOSED:
            if now >= self._slot_ends_at:
                self._begin_slot(now)
            if succeeded:
                self._succeeded_count += 1
            else:
                self._failed_count += 1
                self._record_failure(now, delivery_id)
        elif self._state is BreakerState.HALF_OPEN:
            if succeeded:
                # Closed, nothing is remembered: not even how long it had been open.
                Breaker.__init__(self)
            elif self._probe_delivery_id is None or self._probe_delivery_id == delivery_id:
                doubled_seconds = 2 * self._cool_down_seconds
                self._open(now, min(doubled_seconds, _COOL_DOWN_SECONDS_MAX))
        elif succeeded:
            self._probe_at = min(self._probe_at, now)

    def probe_abandoned(self, now: float) -> None:
        """Takes back a probe whose attempt never completed: another is permitted from `now` on."""
        if self._state is BreakerState.HALF_OPEN:
            self._open(now - self._cool_down_seconds, self._cool_down_seconds)

    def _open(self, now: float, cool_down_seconds: float) -> None:
        """Defers everything until the cool-down is over."""
        self._state = BreakerState.OPEN
        self._cool_down_seconds = cool_down_seconds
        self._probe_at = now + cool_down_seconds
        self._probe_delivery_id = None

    def _begin_slot(self, now: float) -> None:
        """Puts the current slot to the past ones."""
        if self._succeeded_count or self._failed_count:
            self._past_slots.append((self._slot_ends_at, self._succeeded_count, self._failed_count))
            self._past_succeeded_count += self._succeeded_count
            self._past_failed_count += self._failed_count
        self._forget_slots(now)
        self._succeeded_count = 0
        self._failed_count = 0
        self._slot_ends_at = now + _SLOT_SECONDS

    def _forget_slots(self, now: float) -> None:
        """Drops past slots that ended before the window."""
        while self._past_slots and self._past_slots[0][0] <= now - _WINDOW_SECONDS:
            _, succeeded_count, failed_count = self._past_slots.popleft()
            self._past_succeeded_count -= succeeded_count
            self._past_failed_count -= failed_count

    def _record_failure(self, now: float, delivery_id: str) -> None:
        """Remembers which delivery failed, and opens if enough of them did."""
        failed_at_by_delivery = self._failed_at_by_delivery
        failed_at_by_delivery.pop(delivery_id, None)
        failed_at_by_delivery[delivery_id] = now
        while True:
            earliest = next(iter(failed_at_by_delivery))
            if (
                failed_at_by_delivery[earliest] > now - _WINDOW_SECONDS
                and len(failed_at_by_delivery) <= limits.BREAKER_DELIVERIES_MAX
            ):
                break
            del failed_at_by_delivery[earliest]
        if len(failed_at_by_delivery) < _FAILED_DELIVERIES_MIN:
            return
        self._forget_slots(now)
        failed_count = self._past_failed_count + self._failed_count
        succeeded_count = self._past_succeeded_count + self._succeeded_count
        if failed_count >= _FAILURE_SHARE_MIN * (failed_count + succeeded_count):
            self._open(now, _COOL_DOWN_SECONDS_MIN)
