"""Permits: which lane may send next.

    lanes ── enqueue ──▶ queue ── pump ──▶ sender.start
                           ▲                   │
                           └──── finished ◀────┘

Invariants: at most `total` attempts are in flight, at most `per_host` to a host and port, and at most the endpoint's
own limit to an endpoint. While several lanes want the same host, none of them holds more than a fifth of it. Free
permits go round between lanes, one delivery a turn. Nothing waits while it holds a permit but the receiver, so a slow
receiver uses up no more than its own limit. If Postgres is slow, `Recorder.has_room` stops new attempts. A crash loses
only memory.
"""

import asyncio
from collections import deque
from typing import Protocol

from dispatcher.core.lane import RELIEVED
from dispatcher.core.model import Trigger
from dispatcher.delivery.crowding import Crowding
from dispatcher.delivery.deferrals import Deferrals
from dispatcher.delivery.endpoint import Endpoint
from dispatcher.delivery.inventory import Inventory
from dispatcher.delivery.load_queue import LoadQueue
from dispatcher.delivery.sender import Sender
from dispatcher.delivery.types import EndpointLane, Entry
from dispatcher.runtime.clock import Clock


class Lease(Protocol):
    """The lease of the shards, as permits use it."""

    def is_trusted(self) -> bool:
        """Return whether requests may be started."""
        ...


class _Host:
    """One host and port, shared by the endpoints that lead to it."""

    __slots__ = ("in_flight", "limit", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self.waiting: deque[EndpointLane] = deque()


class Permits:
    """The queue of lanes that want a permit; used on the event loop's thread only."""

    def __init__(
        self,
        inventory: Inventory,
        load_queue: LoadQueue,
        sender: Sender,
        lease: Lease,
        deferrals: Deferrals,
        crowding: Crowding,
        *,
        total: int,
        per_host: int,
        clock: Clock,
    ) -> None:
        self._inventory = inventory
        self._load_queue = load_queue
        self._sender = sender
        self._lease = lease
        self._deferrals = deferrals
        self._crowding = crowding
        self._total = total
        self._per_host = per_host
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._queue: deque[EndpointLane] = deque()
        self._hosts: dict[tuple[str, int] | None, _Host] = {}
        self._pumping = False
        self._stopped = False
        self.in_flight = 0
        sender.recorder.after_commit(self.pump)  # there is room for results again

    def stop(self) -> None:
        """Start nothing more."""
        self._stopped = True

    def enqueue(self, lane: EndpointLane) -> None:
        """Put a lane in the queue if it wants a permit and is not in it; `pump` grants them."""
        if not lane.queued and lane.wants_permit():
            lane.queued = True
            self._queue.append(lane)

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
                    self.enqueue(lane)
        finally:
            self._pumping = False

    def _may_send(self) -> bool:
        return not self._stopped and self._lease.is_trusted() and self._sender.recorder.has_room()

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
                self._crowding.relieve(lane)
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
            self.enqueue(lane)
            if lane.queued:
                return

    def _ask_again(self, lane: EndpointLane) -> None:
        lane.wakes_at = None
        self.enqueue(lane)
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
            self._inventory.lanes.get(lane.endpoint.id, lane).turn_away(0.0)
        elif delivery.trigger is not Trigger.MANUAL:
            lane.breaker.record(now, delivery.event_type, entry.id, succeeded=succeeded)
        elif succeeded:
            lane.breaker.resend_succeeded(now, delivery.event_type, entry.id)
        if lane.breaker.changes_count != lane.changes_seen_count:
            self._deferrals.follow(lane)
        lane.finish()
        self.in_flight -= 1
        key = endpoint.host_key
        host = self._hosts[key]
        host.in_flight -= 1
        if host.waiting:
            self._ask_next(host)
        if host.in_flight == 0 and not host.waiting:
            del self._hosts[key]
        self.enqueue(lane)
        self.pump()
