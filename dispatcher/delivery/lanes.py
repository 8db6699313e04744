"""Lanes: who may send next; each call leaves the state whole and starts what may start.

    fan-out, loader ── offer ──▶ ready, per endpoint ── pump ──▶ sender.start
                                        ▲                            │
                                        └───────── finished ◀────────┘

What is always true: in flight are at most `total` attempts, at most `per_host` to a host and port,
at most the endpoint's own limit to an endpoint; while several lanes want the same host, none of
them holds more than a fifth of it; free permits go round between lanes, one delivery a turn.
Nothing waits while it holds a permit but the receiver. What does not fit stays in Postgres, and the
lane knows (`more_at`). A crash loses only memory.
"""

import asyncio
import gc
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from dispatcher.core.breaker import Breaker
from dispatcher.core.lane import CROWDED, RELIEVED
from dispatcher.core.limits import RATE_PER_SECOND_MAX, RATE_PER_SECOND_MIN
from dispatcher.core.model import DeliveryId, EndpointId, EndpointState, Trigger, made
from dispatcher.core.order import Lines, Ordering, Place
from dispatcher.core.rate import TokenBucket
from dispatcher.delivery.endpoint import Endpoint
from dispatcher.delivery.inventory import Inventory
from dispatcher.delivery.load_queue import LoadQueue
from dispatcher.delivery.retry_timer import RetryTimer
from dispatcher.delivery.sender import Sender
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


class Ownership(Protocol):
    """The lease and the shards, as lanes use them."""

    def is_trusted(self) -> bool:
        """Return whether requests may be started."""
        ...

    def held(self) -> Mapping[int, int]:
        """Return shard to token of the shards to send for."""
        ...

    def has_company(self) -> bool:
        """Return whether other replicas fan out, or did recently."""
        ...

    def follow_joins(self, count: int) -> None:
        """Note how often replicas have joined."""
        ...


class Endpoints(Protocol):
    """The routing table, as lanes use it."""

    @property
    def endpoints(self) -> Mapping[EndpointId, Endpoint]:
        """Every endpoint, compiled."""
        ...


class Reserved(NamedTuple):
    """A delivery that is about to be committed; `entry` is None where it will not be sent from here."""

    endpoint_id: EndpointId
    delivery: Delivery
    entry: Entry | None


_NOT_IN_LINE = (RESERVED, WAITING, DUE, BLOCKED)

FOLLOWED_PER_STEP = 500
"""Endpoints whose lanes are made or updated before other work may run: about 4 ms."""
RECLAIMED_PER_STEP = 5_000
"""Entries of forgotten lanes that are dropped before other work may run: about 4 ms."""

LINES_CROWDED_MIN = 32
"""A lane with fewer lines is limited by them and not by this process: fan-out does not wait for it."""
PARKED_MAX = 10_000
"""Deferred deliveries of one lane whose ids stay in memory, so that the loader reads past them."""
PARKED_SECONDS = 60.0
"""When a parked delivery is read again, unless its event type succeeds before."""
DEFERRED_LOAD_SECONDS = 5.0
"""How soon Postgres is read again for what was deferred beyond `PARKED_MAX`."""


class _Host:
    """One host and port, shared by the endpoints that lead to it."""

    __slots__ = ("in_flight", "limit", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self.waiting: deque[EndpointLane] = deque()


class Lanes:
    """Permits and lines of all lanes; used on the event loop's thread only."""

    def __init__(
        self,
        inventory: Inventory,
        load_queue: LoadQueue,
        retry_timer: RetryTimer,
        sender: Sender,
        routing: Endpoints,
        shards: Ownership,
        *,
        total: int,
        per_host: int,
        bodies_bytes_max: int,
        clock: Clock,
    ) -> None:
        self._inventory = inventory
        self._load_queue = load_queue
        self._retry_timer = retry_timer
        self._sender = sender
        self._routing = routing
        self._shards = shards
        self._total = total
        self._per_host = per_host
        self._bodies_bytes_max = bodies_bytes_max
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._queue: deque[EndpointLane] = deque()
        self._hosts: dict[tuple[str, int] | None, _Host] = {}
        self._pumping = False
        self._stopped = False
        self._to_follow: deque[EndpointId] = deque()
        """Endpoints of which the lane may differ from the routing table."""
        self._is_stepping = False
        self.lanes = inventory.lanes
        self.in_flight = 0
        self._crowded_count = 0
        self._fitted_at = self._clock.monotonic()
        self._silent: set[EndpointId] = set()
        """Lanes in which no attempt finished since the last tick although some were in flight."""
        self.room = asyncio.Event()
        """Clear while a quick lane is crowded: fan-out may wait a moment."""
        self.room.set()
        inventory.moved_up = self._moved_up
        inventory.has_runs = self.has_runs
        sender.recorder.after_commit(self.pump)  # there is room for results again

    def stop(self) -> None:
        """Start nothing more."""
        self._stopped = True

    # --- following endpoints and shards ---

    def follow(self, changed: Collection[EndpointId] | None = None) -> None:
        """Drop the lanes that are not ours any more; make and update the others, in steps.

        `changed` are the endpoints that may differ; None: any may, because the shards changed. When
        this returns, no lane that is not ours sends. Deliveries of an endpoint whose lane is still to
        be made stay in Postgres, and are loaded with the lane.
        """
        endpoints, tokens, lanes = self._routing.endpoints, self._shards.held(), self.lanes
        for endpoint_id in [*lanes] if changed is None else changed:
            lane = lanes.get(endpoint_id)
            if lane is not None and not _is_ours(lane, endpoints.get(endpoint_id), tokens):
                del lanes[endpoint_id]
                self._relieve(lane)
                self._inventory.forget_lane(lane)
        if changed is None:
            changed = [
                endpoint.id
                for endpoint in endpoints.values()
                if endpoint.shard in tokens
                and ((lane := lanes.get(endpoint.id)) is None or lane.endpoint is not endpoint)
            ]
        self._to_follow.extend(changed)
        if not self._is_stepping:
            self._step()

    def _step(self) -> None:
        """Follow some endpoints and drop some entries of forgotten lanes; go on later if there are more."""
        endpoints, tokens = self._routing.endpoints, self._shards.held()
        load: list[EndpointId] = []
        for _ in range(min(len(self._to_follow), FOLLOWED_PER_STEP)):
            endpoint = endpoints.get(self._to_follow.popleft())
            if endpoint is None or endpoint.shard not in tokens:
                continue
            if self._follow_one(endpoint, tokens[endpoint.shard]):
                load.append(endpoint.id)
        if len(load) == FOLLOWED_PER_STEP:
            gc.freeze()  # as in `RoutingTable.refresh`
        self._is_stepping = self._inventory.reclaim(RECLAIMED_PER_STEP) or bool(self._to_follow)
        if self._is_stepping:
            self._loop.call_soon(self._step)
        self.pump()
        self._load_queue.add_windows(load)

    def _follow_one(self, endpoint: Endpoint, token: int) -> bool:
        """Make or update the lane of an endpoint; return whether its waiting deliveries are to be loaded."""
        is_open = (
            endpoint.state is EndpointState.ACTIVE
            and endpoint.problem is None
            and not endpoint.is_pulled
        )
        lane = self.lanes.get(endpoint.id)
        if lane is None:
            self.lanes[endpoint.id] = lane = EndpointLane(
                endpoint,
                token,
                breaker=Breaker(),
                bucket=_bucket(endpoint),
                is_open=is_open,
                active=self._inventory.active,
            )
            if endpoint.ordering is not Ordering.NONE:
                lane.lines = Lines()
                self._load_queue.add_lines(lane)
            return True
        opens = is_open and not lane.is_open
        if (lane.lines is None) is not (endpoint.ordering is Ordering.NONE):
            self._reorder(lane, endpoint.ordering)
            opens = is_open
        if lane.is_open and not is_open:
            self._inventory.forget_waiting(lane)
            self._relieve(lane)
        if lane.endpoint.rate_limit != endpoint.rate_limit:
            lane.bucket = _bucket(endpoint)
        lane.limit = endpoint.max_concurrency
        lane.endpoint = endpoint
        lane.is_open = is_open
        lane.activate()
        self._enqueue(lane)
        if opens and lane.lines is not None:
            lane.lines.sweep()
            self._load_queue.add_lines(lane)
        return opens

    def _reorder(self, lane: EndpointLane, ordering: Ordering) -> None:
        """Begin or end the order of a lane; what is not sent is read again."""
        self._inventory.forget_waiting(lane)
        self._relieve(lane)
        if lane.lines is not None:
            lane.lines.clear()
        lane.lines = None if ordering is Ordering.NONE else Lines()

    # --- waiting deliveries ---

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

    def follow_replicas(self, placed: Iterable[PlacedRow]) -> None:
        """Note that another replica has joined, before deliveries with these places are put in their lines.

        Its lease is seen with the next renewal, and until then it may have written between those in memory.
        """
        for row in placed:
            self._shards.follow_joins(row.joins_count)

    def has_runs(self) -> bool:
        """Return whether deliveries may stand behind others in memory: no other replica writes between them."""
        return not self._shards.has_company()

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
            lane.crowded = True
            self._crowded_count += 1
            self.room.clear()

    def _moved_up(self, lane: EndpointLane) -> None:
        """Follow the end of a delivery in a line: the next one may be sent, or the line is to be read."""
        self._enqueue(lane)
        if lane.lines is not None and (lane.lines.woken or lane.lines.sweep_after is not None):
            self._load_queue.add_lines(lane)

    def release_held(self) -> None:
        """Have the lines read again that waited for an earlier event; called when events have left the outbox."""
        if self._load_queue.held:
            self._load_queue.release_held()

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

    def offer(self, entry: Entry, delivery: Delivery) -> bool:
        """Put a committed delivery that is due in its lane's line, or leave it to Postgres; return which."""
        lane = entry.lane
        ready = lane.ready
        if not lane.is_open:
            self._inventory.forget(entry)
            return False
        if not lane.has_room(delivery.event_type):
            self._leave(entry, delivery.event_type)
            return False
        if self._inventory.ready_bytes > self._bodies_bytes_max and ready:
            self._inventory.forget(entry)
            lane.turn_away(0.0)
            return False
        self._inventory.make_ready(entry, delivery)
        lane.line_up(entry)
        lane.activate()
        if len(ready) >= CROWDED and not lane.slow and not lane.crowded:
            lane.crowded = True
            self._crowded_count += 1
            self.room.clear()
        if not lane.queued:
            self._enqueue(lane)
        return True

    def _leave(self, entry: Entry, event_type: str) -> None:
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

    def _follow_breaker(self, lane: EndpointLane) -> None:
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
            self._relieve(lane)
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

    def test_succeeded(self, endpoint_id: EndpointId) -> None:
        """Close the breaker of an endpoint that has answered a test event."""
        lane = self.lanes.get(endpoint_id)
        if lane is not None and lane.breaker.is_deferring:
            lane.breaker.test_succeeded()
            self._follow_breaker(lane)
            self._enqueue(lane)
            self.pump()

    def reload(self, endpoint_id: EndpointId) -> None:
        """Read the schedule of an endpoint again: what is in memory and not sent is forgotten first."""
        lane = self.lanes.get(endpoint_id)
        if lane is None or not lane.is_open:
            return  # nothing of it is in memory; it is read when the lane is made or opens
        self._inventory.forget_waiting(lane)
        self._relieve(lane)
        lane.turn_away(0.0)
        self._load_queue.add_windows((endpoint_id,))

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
        self._enqueue(lane)
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

    def _relieve(self, lane: EndpointLane) -> None:
        """Note that a lane is crowded no longer."""
        if lane.crowded:
            lane.crowded = False
            self._crowded_count -= 1
            if not self._crowded_count:
                self.room.set()

    # --- who is next ---

    def _enqueue(self, lane: EndpointLane) -> None:
        if not lane.queued and lane.wants_permit():
            lane.queued = True
            self._queue.append(lane)

    def _may_send(self) -> bool:
        return not self._stopped and self._shards.is_trusted() and self._sender.recorder.has_room()

    def pump(self) -> None:
        """Hand out permits, in turns, until there is nothing to send or nothing to send it with."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._queue and self.in_flight < self._total and self._may_send():
                lane = self._queue.popleft()
                lane.queued = False
                if self._start_one(lane):
                    self._enqueue(lane)
        finally:
            self._pumping = False

    def _start_one(self, lane: EndpointLane) -> bool:
        """Start the lane's next attempt; False when it has to wait, and is asked again when it may."""
        host = self._hosts.get(lane.endpoint.host_key) or self._make_host(lane)
        if host.in_flight >= host.limit or (
            host.waiting and lane.in_flight >= max(1, host.limit // 5) and lane.wants_permit()
        ):
            lane.queued = True
            host.waiting.append(lane)
            return False
        now = self._clock.monotonic()
        entry = lane.take(now)
        if entry is None:
            self._ask_next(host)
            wake_at = lane.waits_until(now)
            if wake_at is not None and (lane.wakes_at is None or wake_at < lane.wakes_at):
                lane.wakes_at = max(wake_at, now + 0.001)
                self._loop.call_later(lane.wakes_at - now, self._ask_again, lane)
            return False
        delivery = self._inventory.start(entry)
        if delivery.trigger is not Trigger.MANUAL:
            if not lane.ready:
                lane.starved = True
            if lane.crowded and lane.load <= RELIEVED:
                self._relieve(lane)
            if lane.more_at is not None and lane.runs_low(now):
                self._load_queue.add_windows((lane.endpoint.id,))
        host.in_flight += 1
        self.in_flight += 1
        self._sender.start(entry, delivery, self.finished)
        return True

    def _ask_next(self, host: _Host) -> None:
        """Grant a host's free permit to the first waiting lane that may have it.

        One that wants nothing any more leaves the line: were it given the place, the others would wait for ever.
        """
        share = max(1, host.limit // 5)
        for _ in range(len(host.waiting) if host.in_flight < host.limit else 0):
            lane = host.waiting.popleft()
            if lane.in_flight >= share and host.waiting and lane.wants_permit():
                host.waiting.append(lane)
                continue
            lane.queued = False
            self._enqueue(lane)
            if lane.queued:
                return

    def _ask_again(self, lane: EndpointLane) -> None:
        lane.wakes_at = None
        self._enqueue(lane)
        self.pump()

    def _make_host(self, lane: EndpointLane) -> _Host:
        host = self._hosts[lane.endpoint.host_key] = _Host(self._per_host)
        return host

    def finished(self, entry: Entry, endpoint: Endpoint, succeeded: bool | None) -> None:
        """Take the permit of an attempt on `endpoint` back and hand it on; None: no attempt was made."""
        now = self._clock.monotonic()
        lane = entry.lane
        delivery = entry.delivery
        assert delivery is not None, entry  # noqa: S101 -- it stays until the result is committed
        if succeeded is None:
            lane.breaker.probe_abandoned(now, delivery.event_type, entry.id)
            self._inventory.forget(entry)
            # Another lane may have been made meanwhile, if its shard was lost and taken again.
            self.lanes.get(lane.endpoint.id, lane).turn_away(0.0)
        elif delivery.trigger is not Trigger.MANUAL:
            lane.breaker.record(now, delivery.event_type, entry.id, succeeded=succeeded)
        elif succeeded:
            lane.breaker.resend_succeeded(now, delivery.event_type, entry.id)
        if lane.breaker.changes_count != lane.changes_seen_count:
            self._follow_breaker(lane)
        lane.finish()
        self.in_flight -= 1
        key = endpoint.host_key
        host = self._hosts[key]
        host.in_flight -= 1
        if host.waiting:
            self._ask_next(host)
        if host.in_flight == 0 and not host.waiting:
            del self._hosts[key]
        self._enqueue(lane)
        self.pump()

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
                self._relieve(lane)
            if lane.runs_low(now):
                self._load_queue.add_windows((lane.endpoint.id,))
        for lane in idle:
            del self._inventory.active[lane]
        self._silent, self._inventory.stalled = silent, stalled
        if stalled:
            self.pump()


def _position(reserved: Reserved) -> int:
    place = reserved.delivery.place
    return 0 if place is None else place.position


def _is_ours(lane: EndpointLane, endpoint: Endpoint | None, tokens: Mapping[int, int]) -> bool:
    return endpoint is not None and tokens.get(endpoint.shard) == lane.token


def _bucket(endpoint: Endpoint) -> TokenBucket | None:
    if endpoint.rate_limit is None:
        return None
    # Operations keep these bounds. A row that was written by hand must cost its own lane only: it
    # gets the nearest rate, NaN the slowest.
    rate = min(RATE_PER_SECOND_MAX, max(RATE_PER_SECOND_MIN, endpoint.rate_limit))
    return TokenBucket(rate, max(1, int(rate)))
