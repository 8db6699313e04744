"""Lanes: who may send next; each call leaves the state whole and starts what may start.

    fan-out, scheduler ── offer ──▶ ready, per endpoint ── pump ──▶ start(lane, delivery)
                                         ▲                               │
                                         └───────────── finished ◀───────┘

What is always true: in flight are at most `total` attempts, at most `per_host` to a host and port,
at most the endpoint's own limit to an endpoint; while several lanes want the same host, none of
them holds more than a fifth of it; free permits go round between lanes, one delivery a turn; a
delivery is in memory at most once. Nothing waits while it holds a permit but the receiver.

Who holds what: `held` has every delivery in memory (ready, in flight, being recorded, in the
wheel), `busy` those in flight or being recorded. What does not fit stays in Postgres, and the lane
knows (`more_at`). A crash loses only memory.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from dispatcher.core.breaker import Breaker, BreakerState
from dispatcher.core.lane import CROWDED, RELIEVED
from dispatcher.core.limits import RATE_PER_SECOND_MAX, RATE_PER_SECOND_MIN
from dispatcher.core.model import DeliveryId, EndpointId, EndpointState, Trigger
from dispatcher.core.rate import TokenBucket
from dispatcher.delivery.endpoint import Endpoint
from dispatcher.delivery.types import Delivery, EndpointLane, StartAttempt
from dispatcher.runtime.clock import Clock


class _Host:
    """One host and port, shared by the endpoints that lead to it."""

    __slots__ = ("in_flight", "limit", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self.waiting: deque[EndpointLane] = deque()


class Lanes:
    """All lanes of this replica; written on the event loop's thread only."""

    def __init__(
        self,
        *,
        start: StartAttempt,
        may_send: Callable[[], bool],
        make_breaker: Callable[[], Breaker],
        total: int,
        per_host: int,
        bodies_bytes_max: int,
        clock: Clock,
    ) -> None:
        self._start = start
        self._may_send = may_send
        self._make_breaker = make_breaker
        self._total = total
        self._per_host = per_host
        self._bodies_bytes_max = bodies_bytes_max
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._queue: deque[EndpointLane] = deque()
        self._hosts: dict[tuple[str, int] | None, _Host] = {}
        self._pumping = False
        self.lanes: dict[EndpointId, EndpointLane] = {}
        self.held: dict[DeliveryId, EndpointLane] = {}
        self.busy: set[DeliveryId] = set()
        self.in_flight = 0
        self.ready_bytes = 0
        self._ready_ids: set[DeliveryId] = set()
        self._reserved: set[DeliveryId] = set()
        """Held for fan-out's own copy since before its commit."""
        self._crowded_count = 0
        self._fitted_at = self._clock.monotonic()
        self.room = asyncio.Event()
        """Clear while a quick lane is crowded: fan-out may wait a moment."""
        self.room.set()
        self.wants_refill: set[EndpointId] = set()
        self.refill_wanted: Callable[[], None] = lambda: None
        """Called when a lane runs low and Postgres has more of it."""

    # --- following endpoints and shards ---

    def follow(
        self, endpoints: Mapping[EndpointId, Endpoint], tokens: Mapping[int, int]
    ) -> list[EndpointId]:
        """Makes a lane for every endpoint in our shards, updates those that are, forgets the rest.

        Returns the endpoints whose waiting deliveries are to be loaded: new here, or open again.
        """
        load: list[EndpointId] = []
        for endpoint_id in [
            i for i, lane in self.lanes.items() if not self._is_ours(endpoints.get(i), lane, tokens)
        ]:
            self._forget_lane(self.lanes.pop(endpoint_id))
        for endpoint in endpoints.values():
            if endpoint.shard not in tokens:
                continue
            is_open = endpoint.state is EndpointState.ACTIVE and endpoint.problem is None
            lane = self.lanes.get(endpoint.id)
            if lane is None:
                lane = self.lanes[endpoint.id] = self._make_lane(endpoint, tokens[endpoint.shard])
                load.append(endpoint.id)
            else:
                if is_open and not lane.is_open:
                    load.append(endpoint.id)
                elif lane.is_open and not is_open:
                    self._forget_waiting(lane)
                if lane.endpoint is not endpoint:
                    lane.limit = endpoint.max_concurrency
                    if lane.endpoint.rate_limit != endpoint.rate_limit:
                        lane.bucket = _bucket(endpoint)
                    lane.endpoint = endpoint
            lane.is_open = is_open
            self._enqueue(lane)
        self.pump()
        return load

    @staticmethod
    def _is_ours(endpoint: Endpoint | None, lane: EndpointLane, tokens: Mapping[int, int]) -> bool:
        return endpoint is not None and tokens.get(endpoint.shard) == lane.token

    def _make_lane(self, endpoint: Endpoint, token: int) -> EndpointLane:
        lane = EndpointLane(
            limit=endpoint.max_concurrency,
            breaker=self._make_breaker(),
            bucket=_bucket(endpoint),
            is_open=endpoint.state is EndpointState.ACTIVE and endpoint.problem is None,
        )
        lane.endpoint = endpoint
        lane.token = token
        return lane

    def _forget_lane(self, lane: EndpointLane) -> None:
        """Forgets all of a lane but what is in flight: its results come in under its old token."""
        # First what a person asked for and was not started: as long as it is busy, it stays held.
        self.busy.difference_update(delivery.id for delivery in lane.urgent)
        lane.urgent.clear()
        self._forget_waiting(lane)
        lane.is_open = False

    def _forget_waiting(self, lane: EndpointLane) -> None:
        for delivery_id in [
            i for i, holder in self.held.items() if holder is lane and i not in self.busy
        ]:
            self.release(delivery_id)
        while lane.ready:
            self._no_longer_ready(lane.ready.pop())
        self._relieve(lane)

    # --- what waits ---

    def offer(self, endpoint_id: EndpointId, delivery: Delivery) -> bool:
        """Takes a committed delivery that is due, or leaves it in Postgres; tells which.

        Fan-out and the scheduler may both come with one, each having seen its commit: it is taken once.
        """
        lane = self.lanes.get(endpoint_id)
        if lane is None or not lane.is_open:
            return False
        delivery_id = delivery.id
        if delivery_id in self._ready_ids:
            return True
        ready = lane.ready
        if not lane.has_room() or (self.ready_bytes > self._bodies_bytes_max and ready):
            lane.turn_away(0.0)
            return False
        if delivery_id not in self.held:
            self.hold(delivery_id, lane)
        ready.append(delivery)
        self._ready_ids.add(delivery_id)
        self.ready_bytes += len(delivery.body)
        if len(ready) >= CROWDED and not lane.slow and not lane.crowded:
            lane.crowded = True
            self._crowded_count += 1
            self.room.clear()
        if not lane.queued:
            self._enqueue(lane)
        return True

    def reserve(self, deliveries: Sequence[tuple[EndpointId, Delivery]]) -> bool:
        """Counts deliveries as in memory before they are committed, so that nobody else brings them meanwhile.

        Returns whether all are for lanes of ours, rather than of another replica's.

        Their COMMIT may take effect long before its answer comes back. Without this the scheduler could
        find one in Postgres, send it and record it, and fan-out's own copy would be sent once more.
        """
        all_ours = True
        for endpoint_id, delivery in deliveries:
            lane = self.lanes.get(endpoint_id)
            if lane is None:
                all_ours = False
            elif lane.is_open:
                self.hold(delivery.id, lane)
                self._reserved.add(delivery.id)
        return all_ours

    def offer_reserved(self, endpoint_id: EndpointId, delivery: Delivery) -> bool:
        """Takes a delivery that is committed now and was reserved before, or leaves it to Postgres; tells which."""
        lane = self.lanes.get(endpoint_id)
        if delivery.id not in self._reserved:
            if lane is not None:
                lane.turn_away(
                    0.0
                )  # it opened, or was made anew, since: this copy may be old by now
            return False
        self._reserved.discard(delivery.id)
        if self.offer(endpoint_id, delivery):
            return True
        self.release(delivery.id)
        return False

    def unreserve(self, deliveries: Sequence[tuple[EndpointId, Delivery]]) -> None:
        """Forgets deliveries whose commit failed or is not known of; those that exist are found in Postgres."""
        for _, delivery in deliveries:
            if delivery.id in self._reserved:
                self.release(delivery.id)

    def demand(self, endpoint_id: EndpointId, delivery: Delivery) -> bool:
        """Takes an attempt that a person asked for; it passes breaker, rate and pause, but needs a permit."""
        lane = self.lanes.get(endpoint_id)
        if lane is None or delivery.id in self.busy:
            return False
        self.busy.add(delivery.id)
        for queued in lane.ready:
            if (
                queued.id == delivery.id
            ):  # the scheduled attempt is read again once this one is recorded
                lane.ready.remove(queued)
                self._no_longer_ready(queued)
                break
        lane.urgent.append(delivery)
        self._enqueue(lane)
        return True

    def hold(self, delivery_id: DeliveryId, lane: EndpointLane) -> None:
        """Counts a delivery as in memory."""
        self.held[delivery_id] = lane
        lane.held_count += 1

    def release(self, delivery_id: DeliveryId) -> EndpointLane | None:
        """Counts a delivery as no longer in memory; its place in a ready queue becomes void."""
        lane = self.held.pop(delivery_id, None)
        self._reserved.discard(delivery_id)
        if lane is not None:
            lane.held_count -= 1
        return lane

    def _no_longer_ready(self, delivery: Delivery) -> None:
        """Counts what has just left a lane's ready queue."""
        self._ready_ids.discard(delivery.id)
        self.ready_bytes -= len(delivery.body)

    def _relieve(self, lane: EndpointLane) -> None:
        """Notes that a lane is crowded no longer."""
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

    def pump(self) -> None:
        """Hands out permits, in turns, until there is nothing to send or nothing to send it with."""
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
        """Starts the lane's next attempt; False when it has to wait, and is asked again when it may."""
        host = self._hosts.get(lane.endpoint.host_key) or self._make_host(lane)
        if host.in_flight >= host.limit or (
            host.waiting and lane.in_flight >= max(1, host.limit // 5) and lane.wants_permit()
        ):
            lane.queued = True
            host.waiting.append(lane)
            return False
        now = self._clock.monotonic()
        delivery = lane.take(now)
        if delivery is None:
            self._ask_next(host)
            wake_at = lane.waits_until(now)
            if wake_at is not None and (lane.wakes_at is None or wake_at < lane.wakes_at):
                lane.wakes_at = max(wake_at, now + 0.001)
                self._loop.call_later(lane.wakes_at - now, self._ask_again, lane)
            return False
        if delivery.trigger is Trigger.SCHEDULED:
            self._no_longer_ready(delivery)
            if not lane.ready:
                lane.starved = True
            if lane.crowded and len(lane.ready) <= RELIEVED:
                self._relieve(lane)
            if lane.more_at is not None and lane.runs_low(now):
                self._want_refill(lane)
            delivery_id = delivery.id
            if self.held.get(delivery_id) is not lane or delivery_id in self.busy:
                lane.in_flight -= 1  # cancelled, or taken up by a resend, since it was queued
                lane.breaker.probe_abandoned(now)
                return True
            self.busy.add(delivery_id)
        host.in_flight += 1
        self.in_flight += 1
        self._start(lane, delivery)
        return True

    def _ask_next(self, host: _Host) -> None:
        """Gives a host's free place to the first lane that waits for it and may have it.

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

    def finished(
        self, lane: EndpointLane, endpoint: Endpoint, delivery: Delivery, succeeded: bool | None
    ) -> None:
        """Takes the permit of an attempt on `endpoint` back and hands it on; None: no attempt was made."""
        now = self._clock.monotonic()
        if succeeded is None:
            lane.breaker.probe_abandoned(now)
            self.busy.discard(delivery.id)
            self.release(delivery.id)
            # The lane may have been made anew meanwhile, its shard having gone and come back.
            self.lanes.get(lane.endpoint.id, lane).turn_away(0.0)
        elif succeeded or delivery.trigger is Trigger.SCHEDULED:
            lane.breaker.record(now, delivery.id, succeeded)
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
        """Fits every lane's window to its pace, gives back what no longer fits, looks for lanes that run low."""
        now = self._clock.monotonic()
        elapsed, self._fitted_at = max(0.001, now - self._fitted_at), now
        for lane in self.lanes.values():
            if not (lane.finished_count or lane.ready or lane.more_at is not None):
                lane.starved = True
                continue
            for delivery in lane.fit_window(elapsed):
                self._no_longer_ready(delivery)
                self.release(delivery.id)
            if lane.slow or len(lane.ready) <= RELIEVED:
                self._relieve(lane)
            if lane.runs_low(now):
                self._want_refill(lane)

    def _want_refill(self, lane: EndpointLane) -> None:
        self.wants_refill.add(lane.endpoint.id)
        self.refill_wanted()

    def open_breakers(self) -> dict[EndpointId, tuple[BreakerState, float | None]]:
        """Returns the breakers that are not closed: state, and the monotonic moment of the next probe."""
        return {
            i: (lane.breaker.state, lane.breaker.probe_at)
            for i, lane in self.lanes.items()
            if lane.breaker.state is not BreakerState.CLOSED
        }

    def endpoints_with_open_breaker(self) -> set[EndpointId]:
        """Returns the endpoints whose breaker is not closed."""
        return {
            i for i, lane in self.lanes.items() if lane.breaker.state is not BreakerState.CLOSED
        }

    def breakers_open(self) -> int:
        """Counts lanes whose breaker is not closed."""
        return len(self.endpoints_with_open_breaker())


def _bucket(endpoint: Endpoint) -> TokenBucket | None:
    if endpoint.rate_limit is None:
        return None
    # Operations keep these bounds. A row that somebody wrote by hand must cost its own lane only: it
    # gets the nearest rate, NaN the slowest.
    rate = min(RATE_PER_SECOND_MAX, max(RATE_PER_SECOND_MIN, endpoint.rate_limit))
    return TokenBucket(rate, max(1, int(rate)))
