"""What a breaker defers: deliveries that wait until it lets their event type through.

Invariants: the lines of a lane are sorted by what its breaker deferred at its last change (`changes_seen_count`). A
deferred delivery without room in its lane keeps its id in memory (`parked`), so that the loader reads past it, up to
`PARKED_MAX` of a lane; the others are read again after `DEFERRED_LOAD_SECONDS`. When the breaker lets a type through,
what is parked is due at once. A crash loses only memory: everything deferred is in Postgres.
"""

from typing import Final

from dispatcher.core.lane import RELIEVED
from dispatcher.delivery.crowding import Crowding
from dispatcher.delivery.inventory import Inventory
from dispatcher.delivery.load_queue import LoadQueue
from dispatcher.delivery.retry_timer import RetryTimer
from dispatcher.delivery.types import DUE, WAITING, EndpointLane, Entry
from dispatcher.runtime.clock import Clock

PARKED_MAX: Final = 10_000
"""Deferred deliveries of one lane whose ids stay in memory, so that the loader reads past them."""
PARKED_SECONDS: Final = 60.0
"""When a parked delivery is read again, unless its event type succeeds before."""
DEFERRED_LOAD_SECONDS: Final = 5.0
"""How soon Postgres is read again for what was deferred beyond `PARKED_MAX`."""


class Deferrals:
    """Follows the breakers of lanes; used on the event loop's thread only."""

    def __init__(
        self,
        inventory: Inventory,
        load_queue: LoadQueue,
        retry_timer: RetryTimer,
        crowding: Crowding,
        *,
        clock: Clock,
    ) -> None:
        self._inventory = inventory
        self._load_queue = load_queue
        self._retry_timer = retry_timer
        self._crowding = crowding
        self._clock = clock

    def leave(self, entry: Entry, event_type: str) -> None:
        """Leave a delivery without room to Postgres; a deferred one among others keeps its id in memory."""
        lane, inventory = entry.lane, self._inventory
        breaker = lane.breaker
        if breaker.defers_everything or not breaker.defers(event_type):
            inventory.forget(entry)
            lane.turn_away(0.0)
            return
        now = self._clock.monotonic()
        if len(lane.parked) >= PARKED_MAX:
            lane.parked = {i: one for i, one in lane.parked.items() if one.phase == WAITING}
        if len(lane.parked) >= PARKED_MAX or entry.phase != DUE or not self._retry_timer.room:
            inventory.forget(entry)
            lane.turn_away(now + DEFERRED_LOAD_SECONDS)
            return
        lane.parked[entry.id] = entry
        inventory.wait(entry, int((now + PARKED_SECONDS) * 1000))

    def follow(self, lane: EndpointLane) -> None:
        """Sort a lane's lines by what its breaker defers now; have read again what it defers no longer."""
        lane.changes_seen_count = lane.breaker.changes_count
        if lane.is_forgotten:
            return
        if lane.breaker.is_deferring:
            self._inventory.deferring[lane] = None
        else:
            self._inventory.deferring.pop(lane, None)
        now = self._clock.monotonic()
        for entry in lane.sort_again():
            self._inventory.forget(entry)
            lane.turn_away(0.0)
        if lane.load <= RELIEVED:
            self._crowding.relieve(lane)
        if lane.breaker.defers_everything:
            return
        due = [entry for entry in lane.parked.values() if entry.phase == WAITING]
        lane.parked.clear()
        for entry in due:
            self._inventory.make_due(entry)
        self._load_queue.add_due(due)
        if lane.more_at is not None:
            lane.more_at = min(lane.more_at, now)
            self._load_queue.add_windows((lane.endpoint.id,))
