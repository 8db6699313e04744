"""The circuit breaker of one endpoint: which attempts to defer for a while, and when to probe.

::

    closed ──10 deliveries failed in 60 s, and 90 % of all results──▶ open
      ▲  │                                                             │ cool-down is over:
      │  └─ the same, but other event types succeed ─▶ partial         ▼ one permit
      └────────────────────the probe succeeded──────────────────── half-open
                        (it failed: open again, cool-down doubled: 5 s to 60 s)

Open, it *defers*: no attempt is made and none is spent. The deliveries that failed must be
different ones, so that a single bad payload, retried or resent, opens no breaker.

An endpoint may fail for one event type alone. While others succeed, only the types that fail are
deferred (*partial*), each with a cool-down and probes of its own; the lane goes on with the rest.
When an open breaker closes, the types that have failed and not succeeded since are probed at once
and deferred until they succeed. An open breaker probes in turns: first the types that are not known
to fail, which wait for at most the shortest cool-down, then the type whose latest probe is the
oldest; within a type first attempts and retries take turns.

Results of attempts that began before it opened still arrive. A failure among them changes nothing:
only the probe's own reopens, because the probe is known by its delivery. A success brings the probe
forward, and closes while a probe is in flight. An attempt that a person asked for counts too: a
successful resend closes for its event type, a successful test event closes altogether.

Bounded: fourteen pairs of counters, `limits.BREAKER_DELIVERIES_MAX` delivery ids and
`limits.BREAKER_TYPES_MAX` event types. Which deliveries failed is known to the moment; the share is
counted in slots of 5 s, so in it a result is forgotten when it is between 60 and 65 s old. A crash
forgets the breaker; the endpoint then costs ten failures more.
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
_COOL_DOWN_SECONDS_MAX: Final = 60.0
_NEVER: Final = float("-inf")


class BreakerState(StrEnum):
    """Which attempts are made: all, none, or some (a probe, or the event types that succeed)."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class _EventType:
    """What is known of one event type at this endpoint."""

    __slots__ = (
        "cool_down_seconds",
        "failed_at",
        "failed_count",
        "is_deferred",
        "probe_at",
        "probe_delivery_id",
        "probed_at",
        "probed_retry",
        "succeeded_at",
    )

    def __init__(self) -> None:
        self.failed_at = self.succeeded_at = self.probed_at = _NEVER
        self.failed_count = 0
        """Failures since the counts began."""
        self.is_deferred = False
        """Deferred while the breaker is closed for other types."""
        self.cool_down_seconds = _COOL_DOWN_SECONDS_MIN
        self.probe_at = _NEVER
        self.probe_delivery_id: str | None = None
        self.probed_retry = True
        """The latest probe was a retry; a first attempt is next."""

    def fails(self) -> bool:
        return self.failed_at > self.succeeded_at


class Breaker:
    """Decides for one endpoint by its results; only the endpoint's lane calls it, `now` is monotonic."""

    __slots__ = (
        "_cool_down_seconds",
        "_deferred_count",
        "_failed_at_by_delivery",
        "_failed_count",
        "_past_failed_count",
        "_past_slots",
        "_past_succeeded_count",
        "_probe_at",
        "_probe_began_at",
        "_probe_delivery_id",
        "_slot_ends_at",
        "_state",
        "_succeeded_count",
        "_types",
        "changes_count",
    )

    def __init__(self) -> None:
        self._state = BreakerState.CLOSED
        self._cool_down_seconds = _COOL_DOWN_SECONDS_MIN
        self._probe_at = 0.0
        self._probe_began_at = 0.0
        self._probe_delivery_id: str | None = None
        self._types: dict[str, _EventType] = {}
        self._deferred_count = 0
        self.changes_count = 0
        """Grows whenever other event types are deferred than before; the lane sorts its work again."""
        self._reset_counts()

    def _reset_counts(self) -> None:
        # The slot that is being counted, and the parts and sums of those before it.
        self._slot_ends_at = 0.0
        self._succeeded_count = 0
        self._failed_count = 0
        self._past_slots: deque[tuple[float, int, int]] = deque()
        self._past_succeeded_count = 0
        self._past_failed_count = 0
        # In the order of the latest failure; the earliest makes room for a new one.
        self._failed_at_by_delivery: dict[str, float] = {}
        for event_type in self._types.values():
            event_type.failed_count = 0

    @property
    def state(self) -> BreakerState:
        """The present state; half-open includes a closed breaker that defers some event types."""
        if self._state is BreakerState.CLOSED and self._deferred_count:
            return BreakerState.HALF_OPEN
        return self._state

    @property
    def is_deferring(self) -> bool:
        """Some or all attempts are deferred."""
        return self._deferred_count > 0 or self._state is not BreakerState.CLOSED

    @property
    def defers_everything(self) -> bool:
        """No event type is attempted, but for probes."""
        return self._state is not BreakerState.CLOSED

    @property
    def probe_at(self) -> float | None:
        """The moment from which the next probe is permitted; None: closed, or a probe is in flight."""
        if self._state is BreakerState.OPEN:
            return self._probe_at
        if self._state is BreakerState.HALF_OPEN or not self._deferred_count:
            return None
        return min(
            (t.probe_at for t in self._types.values() if t.is_deferred and not t.probe_delivery_id),
            default=None,
        )

    def defers(self, event_type: str) -> bool:
        """Return whether attempts of this event type are deferred, but for probes."""
        if self._state is not BreakerState.CLOSED:
            return True
        if not self._deferred_count:
            return False
        known = self._types.get(event_type)
        return known is not None and known.is_deferred

    # --- probes ---

    def permitted_at(self, event_type: str) -> float | None:
        """Return from when on a deferred event type may be probed; None: a probe is in flight."""
        known = self._types.get(event_type)
        if self._state is BreakerState.OPEN:
            if known is not None and known.fails():
                return self._probe_at
            return min(self._probe_at, self._probe_began_at + _COOL_DOWN_SECONDS_MIN)
        if self._state is BreakerState.HALF_OPEN:
            return None
        if known is None or not known.is_deferred:
            return _NEVER
        return None if known.probe_delivery_id is not None else known.probe_at

    def turn(self, event_type: str) -> tuple[bool, float]:
        """Return what decides which event type is probed next: the least."""
        known = self._types.get(event_type)
        return (False, _NEVER) if known is None else (known.fails(), known.probed_at)

    def probes_retry_next(self, event_type: str) -> bool:
        """Return whether the next probe of this type is to be a retry, if there is one."""
        known = self._types.get(event_type)
        return known is not None and not known.probed_retry

    def begin_probe(self, now: float, event_type: str, delivery_id: str, *, is_retry: bool) -> None:
        """Note that a delivery is attempted as the probe; its result, or `probe_abandoned`, must follow."""
        known = self._know(event_type)
        known.probed_at = now
        known.probed_retry = is_retry
        if self._state is BreakerState.OPEN:
            self._state = BreakerState.HALF_OPEN
            self._probe_began_at = now
            self._probe_delivery_id = delivery_id
        else:
            known.probe_delivery_id = delivery_id

    def probe_abandoned(self, now: float, event_type: str, delivery_id: str) -> None:
        """Take back a probe whose attempt never completed: another is permitted from `now` on."""
        if self._state is BreakerState.HALF_OPEN and self._probe_delivery_id == delivery_id:
            self._state = BreakerState.OPEN
            self._probe_at = now
            self._probe_delivery_id = None
        known = self._types.get(event_type)
        if known is not None and known.probe_delivery_id == delivery_id:
            known.probe_delivery_id = None
            known.probe_at = now

    # --- results ---

    def record(self, now: float, event_type: str, delivery_id: str, *, succeeded: bool) -> None:
        """Count the result of one complete attempt; it may open, close or reopen the breaker."""
        known = self._types.get(event_type) or self._know(event_type)
        if succeeded:
            known.succeeded_at = now
        else:
            known.failed_at = now
        if self._state is BreakerState.CLOSED:
            if known.is_deferred:
                self._record_deferred(now, known, delivery_id, succeeded=succeeded)
                return
            if now >= self._slot_ends_at:
                self._begin_slot(now)
            if succeeded:
                self._succeeded_count += 1
            else:
                self._failed_count += 1
                known.failed_count += 1
                self._record_failure(now, delivery_id)
        elif self._state is BreakerState.HALF_OPEN:
            if succeeded:
                self._close(now)
            elif self._probe_delivery_id == delivery_id:
                self._open(now, min(2 * self._cool_down_seconds, _COOL_DOWN_SECONDS_MAX))
        elif succeeded:
            self._probe_at = min(self._probe_at, now)

    def _record_deferred(
        self, now: float, known: _EventType, delivery_id: str, *, succeeded: bool
    ) -> None:
        if succeeded:
            known.is_deferred = False
            known.probe_delivery_id = None
            self._deferred_count -= 1
            self.changes_count += 1
        elif known.probe_delivery_id == delivery_id:
            known.probe_delivery_id = None
            known.cool_down_seconds = min(2 * known.cool_down_seconds, _COOL_DOWN_SECONDS_MAX)
            known.probe_at = now + known.cool_down_seconds

    def resend_succeeded(self, now: float, event_type: str, delivery_id: str) -> None:
        """Close for the event type of a resend that succeeded; types that fail are probed at once."""
        if self._state is not BreakerState.CLOSED:
            self._know(event_type).succeeded_at = now
            self._close(now)
        else:
            self.record(now, event_type, delivery_id, succeeded=True)

    def test_succeeded(self) -> None:
        """Close altogether: the endpoint has answered a test event."""
        changes_count = self.changes_count
        Breaker.__init__(self)
        self.changes_count = changes_count + 1

    # --- opening and closing ---

    def _open(self, now: float, cool_down_seconds: float) -> None:
        """Defer everything until the cool-down is over."""
        if self._state is BreakerState.CLOSED:
            self.changes_count += 1
            self._probe_began_at = now
        self._state = BreakerState.OPEN
        self._cool_down_seconds = cool_down_seconds
        self._probe_at = now + cool_down_seconds
        self._probe_delivery_id = None

    def _close(self, now: float) -> None:
        """Attempt all event types again, but for those that fail: these are probed at once."""
        self._state = BreakerState.CLOSED
        self._probe_delivery_id = None
        self._reset_counts()
        self._defer([known for known in self._types.values() if known.fails()], now)

    def _defer(self, failing: list[_EventType], probe_at: float) -> None:
        """Defer these event types and no others."""
        for known in self._types.values():
            known.is_deferred = False
            known.probe_delivery_id = None
        for known in failing:
            known.is_deferred = True
            known.cool_down_seconds = _COOL_DOWN_SECONDS_MIN
            known.probe_at = probe_at
        self._deferred_count = len(failing)
        self.changes_count += 1

    def _trip(self, now: float) -> None:
        """Defer the event types that fail, if they explain the failures and others succeed; else everything."""
        since = now - _WINDOW_SECONDS
        failing: list[_EventType] = []
        is_working, explained_count, failed_count = False, 0, 0
        for known in self._types.values():
            failed_count += known.failed_count
            if known.succeeded_at > since:
                is_working = True
            elif known.failed_at > since:
                failing.append(known)
                explained_count += known.failed_count
        if is_working and explained_count >= _FAILURE_SHARE_MIN * failed_count:
            before = [known for known in self._types.values() if known.is_deferred]
            schedule = [(known, known.cool_down_seconds, known.probe_at, known.probe_delivery_id)
                        for known in before]  # fmt: skip
            self._defer(list({id(k): k for k in (*before, *failing)}.values()),
                        now + _COOL_DOWN_SECONDS_MIN)  # fmt: skip
            for known, cool_down_seconds, probe_at, probe_delivery_id in schedule:
                known.cool_down_seconds = cool_down_seconds
                known.probe_at = probe_at
                known.probe_delivery_id = probe_delivery_id
            self._reset_counts()
        else:
            self._open(now, _COOL_DOWN_SECONDS_MIN)

    def _know(self, event_type: str) -> _EventType:
        """Return the record of an event type; beyond the bound the least recently added makes room."""
        types = self._types
        known = types.get(event_type)
        if known is None:
            known = _EventType()
            if len(types) >= limits.BREAKER_TYPES_MAX:
                for name, other in types.items():
                    if not (other.is_deferred or other.probe_delivery_id):
                        del types[name]
                        break
                else:
                    return known  # all are deferred: this one is not remembered
            types[event_type] = known
        return known

    # --- the window ---

    def _begin_slot(self, now: float) -> None:
        """Add the current slot to the past ones."""
        if self._succeeded_count or self._failed_count:
            self._past_slots.append((self._slot_ends_at, self._succeeded_count, self._failed_count))
            self._past_succeeded_count += self._succeeded_count
            self._past_failed_count += self._failed_count
        self._forget_slots(now)
        self._succeeded_count = 0
        self._failed_count = 0
        self._slot_ends_at = now + _SLOT_SECONDS

    def _forget_slots(self, now: float) -> None:
        """Drop past slots that ended before the window."""
        while self._past_slots and self._past_slots[0][0] <= now - _WINDOW_SECONDS:
            _, succeeded_count, failed_count = self._past_slots.popleft()
            self._past_succeeded_count -= succeeded_count
            self._past_failed_count -= failed_count

    def _record_failure(self, now: float, delivery_id: str) -> None:
        """Remember which delivery failed, and open if enough of them did."""
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
            self._trip(now)
