"""Lanes: deliveries in memory for each endpoint, ready for a permit or in their line.

    fan-out, loader ── offer ──▶ ready, per endpoint ── permits.enqueue ──▶ sent by `Permits`

Invariants: a delivery that was offered is ready, blocked in its line, or left to Postgres, and then the lane knows that
there is more (`more_at`). Memory is bounded by the window of each lane, and for all lanes by `bodies_bytes_max`. A
delivery is reserved before its commit, so that the loader does not take it as well. All that comes before a delivery in
its line is in memory too, or has ended. If Postgres is slow, lanes run empty. If a receiver is slow, the window of its
lane shrinks. A crash loses only memory.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from dispatcher.core.lane import CROWDED, RELIEVED
from dispatcher.core.model import DeliveryId, EndpointId, made
from dispatcher.core.order import Place
from dispatcher.delivery.crowding import Crowding
from dispatcher.delivery.deferrals import Deferrals
from dispatcher.delivery.inventory import Inventory
from dispatcher.delivery.load_queue import LoadQueue
from dispatcher.delivery.permits import Permits
from dispatcher.delivery.types import (
    BLOCKED,
    DUE,
    READY,
    RESERVED,
    WAITING,
    Delivery,
    EndpointLane,
    Entry,
    OrderedEntry,
)
from dispatcher.runtime.clock import Clock
from dispatcher.store.deliveries import PlacedRow

LINES_CROWDED_MIN: Final = 32
"""A lane with fewer lines is limited by them and not by this process: fan-out does not wait for it."""
_NOT_IN_LINE: Final = (RESERVED, WAITING, DUE, BLOCKED)


class Company(Protocol):
    """The other replicas, as lanes see them."""

    def has_company(self) -> bool:
        """Return whether other replicas fan out, or did recently."""
        ...

    def follow_joins(self, count: int) -> None:
        """Note how often replicas have joined."""
        ...


class Reserved(NamedTuple):
    """A delivery that is about to be committed; `entry` is None where it will not be sent from here."""

    endpoint_id: EndpointId
    delivery: Delivery
    entry: Entry | None


class Lanes:
    """Takes deliveries into lanes and lines; used on the event loop's thread only."""

    def __init__(
        self,
        inventory: Inventory,
        load_queue: LoadQueue,
        deferrals: Deferrals,
        permits: Permits,
        crowding: Crowding,
        shards: Company,
        *,
        bodies_bytes_max: int,
        clock: Clock,
    ) -> None:
        self._inventory = inventory
        self._load_queue = load_queue
        self._deferrals = deferrals
        self._permits = permits
        self._crowding = crowding
        self._shards = shards
        self._bodies_bytes_max = bodies_bytes_max
        self._clock = clock
        self.lanes = inventory.lanes
        self._fitted_at = self._clock.monotonic()
        self._silent: set[EndpointId] = set()
        """Lanes in which no attempt finished since the last tick although some were in flight."""
        inventory.moved_up = self._moved_up
        inventory.has_runs = self.has_runs

    # --- fan-out: reserved before the commit, offered after it ---

    def reserve(self, deliveries: Sequence[tuple[EndpointId, Delivery]]) -> list[Reserved]:
        """Take deliveries into memory before they are committed, so that the loader leaves them alone.

        Their COMMIT may take effect long before its response arrives. Without this the loader could
        find one in Postgres, send it and record it, and fan-out's own copy would be sent once more.
        """
        inventory, lanes = self._inventory, self.lanes
        reserved: list[Reserved] = []
        for endpoint_id, delivery in deliveries:
            lane = lanes.get(endpoint_id)
            entry = None
            if (
                lane is not None
                and lane.is_open
                and inventory.find(lane, delivery.id) is None
                and (delivery.place is None or lane.lines is not None)
            ):
                entry = inventory.add(lane, delivery.id, RESERVED, delivery)
            if delivery.place is not None and lane is not None and lane.lines is not None:
                lane.lines.announce(delivery.place)
            reserved.append(made(Reserved, (endpoint_id, delivery, entry)))
        return reserved

    def are_all_ours(self, reserved: Sequence[Reserved]) -> bool:
        """Return whether all are for lanes of this replica, rather than of another one's."""
        return all(one.endpoint_id in self.lanes for one in reserved)

    def offer_reserved(self, reserved: Sequence[Reserved]) -> None:
        """Take deliveries that are committed now, or leave them to Postgres."""
        for endpoint_id, delivery, entry in reserved:
            if entry is not None and entry.phase == RESERVED:
                if not entry.lane.is_forgotten:
                    self.offer(entry, delivery)
                    continue
                self._inventory.forget(entry)
            lane = self.lanes.get(endpoint_id)
            if lane is not None:  # it was opened or made again meanwhile: this copy may be old
                lane.turn_away(0.0)

    def place_reserved(
        self, reserved: Sequence[Reserved], placed: Mapping[DeliveryId, PlacedRow]
    ) -> None:
        """Put committed deliveries in their lines, or leave them to Postgres; `placed` is where they stand there."""
        self.follow_replicas(placed.values())
        for endpoint_id, delivery, entry in sorted(reserved, key=_position):
            lane = self.lanes.get(endpoint_id)
            row = placed.get(delivery.id)
            if delivery.place is not None and lane is not None and lane.lines is not None:
                lane.lines.settle(delivery.place)
            if isinstance(entry, OrderedEntry) and entry.phase == RESERVED:
                if row is not None and row.place is not None and entry.lane is lane:
                    self._place_reserved(entry, delivery, row, row.place)
                    continue
                self._inventory.forget(entry)
            if lane is not None:
                lane.turn_away(0.0)
                if lane.is_open and lane.lines is not None and delivery.place is not None:
                    self.leave_place(lane, delivery.place)

    def _place_reserved(
        self, entry: OrderedEntry, delivery: Delivery, row: PlacedRow, place: Place
    ) -> None:
        lane, lines = entry.lane, entry.lane.lines
        if lines is None:
            self._inventory.forget(entry)
            lane.turn_away(0.0)
        elif row.is_held:
            self._inventory.forget(entry)
            self.hold(lane, place)
        elif row.previous_id is not None and not (
            self.has_runs() and lines.has_before(place, row.previous_id)
        ):
            self._inventory.forget(entry)
            self.leave_place(lane, place)
        else:
            self.offer_placed(entry, delivery, place, row.next_id)

    def unreserve(self, reserved: Sequence[Reserved]) -> None:
        """Forget deliveries whose commit failed or is not known of; those that exist are found in Postgres."""
        for one in reserved:
            if one.entry is not None and one.entry.phase == RESERVED:
                self._inventory.forget(one.entry)
            lane, place = self.lanes.get(one.endpoint_id), one.delivery.place
            if place is not None and lane is not None and lane.lines is not None:
                lane.lines.settle(place)
                if lane.is_open:
                    self.leave_place(lane, place)

    # --- deliveries that are committed and due ---

    def offer(self, entry: Entry, delivery: Delivery) -> bool:
        """Put a committed delivery that is due in its lane's line, or leave it to Postgres; return which."""
        lane = entry.lane
        ready = lane.ready
        if not lane.is_open:
            self._inventory.forget(entry)
            return False
        if not lane.has_room(delivery.event_type):
            self._deferrals.leave(entry, delivery.event_type)
            return False
        if self._inventory.ready_bytes > self._bodies_bytes_max and ready:
            self._inventory.forget(entry)
            lane.turn_away(0.0)
            return False
        self._inventory.make_ready(entry, delivery)
        lane.line_up(entry)
        lane.activate()
        if len(ready) >= CROWDED and not lane.slow and not lane.crowded:
            self._crowding.crowd(lane)
        if not lane.queued:
            self._permits.enqueue(lane)
        return True

    def offer_placed(
        self, entry: OrderedEntry, delivery: Delivery, place: Place, next_id: DeliveryId | None
    ) -> bool:
        """Put a committed delivery that is due in its line, and in its lane's queue if it is the first.

        All that comes before it in its line is in memory, or has ended.
        """
        lane, lines = entry.lane, entry.lane.lines
        if lines is None or not lane.is_open:
            self._inventory.forget(entry)
            return False
        is_taken = False
        if lines.is_busy(place.key) and not entry.is_in_line and not self._has_room_behind(lane):
            self._inventory.forget(entry)
        elif lines.join(entry, place):
            is_taken = self.offer(entry, delivery)
        else:
            self._inventory.block(entry, delivery)
            self._crowd(lane)
            is_taken = True
        if not is_taken and not entry.is_in_line:
            # If its line is in memory, the line's end brings it back, otherwise the window.
            if lines.is_busy(place.key):
                self.leave_place(lane, place)
        elif entry.has_more or (
            next_id is not None and self._inventory.find(lane, next_id) is None
        ):
            lines.expect_more(place.key)
        return is_taken

    def _has_room_behind(self, lane: EndpointLane) -> bool:
        """Return whether one more delivery may stand behind others in memory."""
        return (
            lane.load < lane.window
            and self._inventory.ready_bytes <= self._bodies_bytes_max
            and self.has_runs()
        )

    def _crowd(self, lane: EndpointLane) -> None:
        """Note that a quick lane has much in memory, so that fan-out waits a moment."""
        if (
            lane.load >= CROWDED
            and not lane.slow
            and not lane.crowded
            and lane.lines is not None
            and lane.lines.count >= LINES_CROWDED_MIN
        ):
            self._crowding.crowd(lane)

    # --- lines ---

    def hold(self, lane: EndpointLane, place: Place) -> None:
        """Have a line read again soon: an earlier event of it is still in the outbox."""
        if lane.lines is not None:
            if lane.lines.is_busy(place.key):
                self.leave_place(lane, place)
            lane.lines.hold(place.key)
            self._load_queue.held[lane] = None

    def leave_place(self, lane: EndpointLane, place: Place) -> None:
        """Leave a delivery of a line to Postgres, and those behind it; they are read when the line is used up."""
        if lane.lines is not None:
            for entry in lane.lines.cut(place):
                self._inventory.forget(entry)
            self._moved_up(lane)

    def release_held(self) -> None:
        """Have the lines read again that waited for an earlier event; called when events have left the outbox."""
        if self._load_queue.held:
            self._load_queue.release_held()

    def _moved_up(self, lane: EndpointLane) -> None:
        """Follow the end of a delivery in a line: the next one may be sent, or the line is to be read."""
        self._permits.enqueue(lane)
        if lane.lines is not None and (lane.lines.woken or lane.lines.sweep_after is not None):
            self._load_queue.add_lines(lane)

    def has_runs(self) -> bool:
        """Return whether deliveries may stand behind others in memory: no other replica writes between them."""
        return not self._shards.has_company()

    def follow_replicas(self, placed: Iterable[PlacedRow]) -> None:
        """Note that another replica has joined, before deliveries with these places are put in their lines.

        Its lease is seen with the next renewal, and until then it may have written between those in memory.
        """
        for row in placed:
            self._shards.follow_joins(row.joins_count)

    # --- what people asked for ---

    def demand(self, endpoint_id: EndpointId, delivery: Delivery) -> bool:
        """Take an attempt that a person asked for; it passes breaker, rate and pause, but needs a permit.

        A delivery with a place is the first of its line.
        """
        lane = self.lanes.get(endpoint_id)
        if lane is None:
            return False
        inventory = self._inventory
        entry = inventory.find(lane, delivery.id)
        if entry is None:
            entry = inventory.add(lane, delivery.id, READY, delivery)
            if not self._joins(entry, delivery):
                inventory.forget(entry)
                return False
        elif entry.phase in (WAITING, DUE):
            if not self._joins(entry, delivery):
                inventory.forget(entry)
                lane.turn_away(0.0)
                return False
            # The scheduled attempt is read again once this one is recorded.
            inventory.make_ready(entry, delivery)
        elif entry.phase == READY and lane.withdraw(entry):
            inventory.replace(entry, delivery)
        else:
            return False
        lane.urgent.append(entry)
        lane.activate()
        self._permits.enqueue(lane)
        return True

    @staticmethod
    def _joins(entry: Entry, delivery: Delivery) -> bool:
        """Put a requested delivery that is open in its line; return whether it is in none, or the first."""
        lines = entry.lane.lines
        if delivery.place is None or lines is None or not isinstance(entry, OrderedEntry):
            return True
        is_first = lines.join(entry, delivery.place)
        lines.expect_more(delivery.place.key)
        return is_first

    def cancel(self, endpoint_id: EndpointId, delivery_id: str) -> None:
        """Forget a delivery that a person cancelled, unless its attempt is under way."""
        lane = self.lanes.get(endpoint_id)
        entry = None if lane is None else lane.entries.get(delivery_id)  # type: ignore[call-overload]  # NewType
        if lane is None or entry is None:
            return
        if (entry.phase == READY and lane.withdraw(entry)) or entry.phase in _NOT_IN_LINE:
            self._inventory.forget(entry, ended=True)

    def reload(self, endpoint_id: EndpointId) -> None:
        """Read the schedule of an endpoint again: what is in memory and not sent is forgotten first."""
        lane = self.lanes.get(endpoint_id)
        if lane is None or not lane.is_open:
            return  # nothing of it is in memory; it is read when the lane is made or opens
        self._inventory.forget_waiting(lane)
        self._crowding.relieve(lane)
        lane.turn_away(0.0)
        self._load_queue.add_windows((endpoint_id,))

    def test_succeeded(self, endpoint_id: EndpointId) -> None:
        """Close the breaker of an endpoint that has answered a test event."""
        lane = self.lanes.get(endpoint_id)
        if lane is not None and lane.breaker.is_deferring:
            lane.breaker.test_succeeded()
            self._deferrals.follow(lane)
            self._permits.enqueue(lane)
            self._permits.pump()

    # --- now and then ---

    def tick(self) -> None:
        """Fit the window of each lane with work to its pace, evict what no longer fits, refill what runs low."""
        now = self._clock.monotonic()
        elapsed, self._fitted_at = max(0.001, now - self._fitted_at), now
        silent: set[EndpointId] = set()
        idle: list[EndpointLane] = []
        stalled = 0
        most_finished = max((lane.finished_count for lane in self._inventory.active), default=0)
        for lane in self._inventory.active:
            if lane.in_flight and not lane.finished_count:
                silent.add(lane.endpoint.id)
                if lane.endpoint.id in self._silent:
                    stalled += lane.in_flight
            has_more = lane.is_open and lane.more_at is not None
            if not (lane.finished_count or lane.ready or has_more):
                lane.starved = True
                if not (lane.in_flight or lane.deferred or lane.urgent):
                    idle.append(lane)
                continue
            for entry in lane.fit_window(elapsed, most_finished):
                self._inventory.forget(entry)
            if lane.slow or lane.load <= RELIEVED:
                self._crowding.relieve(lane)
            if lane.runs_low(now):
                self._load_queue.add_windows((lane.endpoint.id,))
        for lane in idle:
            del self._inventory.active[lane]
        self._silent, self._inventory.stalled = silent, stalled
        if stalled:
            self._permits.pump()


def _position(reserved: Reserved) -> int:
    place = reserved.delivery.place
    return 0 if place is None else place.position
