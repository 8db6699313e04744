"""The delivery stages on a clock that is moved by hand; attempts are noted in place of being sent."""

from typing import Any

from dispatcher.core.model import DeliveryId, EndpointId, Outcome
from dispatcher.delivery.crowding import Crowding
from dispatcher.delivery.deferrals import Deferrals
from dispatcher.delivery.inventory import Inventory
from dispatcher.delivery.lane_follower import LaneFollower
from dispatcher.delivery.lanes import Lanes
from dispatcher.delivery.load_queue import LoadQueue
from dispatcher.delivery.permits import Permits
from dispatcher.delivery.recorder import Recorder
from dispatcher.delivery.retry_timer import RetryTimer
from dispatcher.delivery.types import DUE, Delivery, EndpointLane, Entry
from dispatcher.runtime.clock import Clock
from dispatcher.store.results import Recorded
from tests.support.clock import ManualClock
from tests.support.deliveries import make_delivery, make_result


class Running:
    """An attempt that the test ends."""

    def __init__(self, entry: Entry, delivery: Delivery, ended: Any) -> None:
        self.entry = entry
        self.delivery = delivery
        self.endpoint = entry.lane.endpoint
        self.ended = ended


class Stages:
    """Inventory, timer, lanes and a recorder that is told what was committed."""

    def __init__(
        self,
        *,
        total: int = 100,
        per_host: int = 100,
        bodies_bytes_max: int = 1_000_000,
        unrecorded_max: int = 1_000_000,
        horizon_seconds: float = 600.0,
        timers_max: int = 1_000,
        may_send: bool = True,
        clock: Clock | None = None,
    ) -> None:
        """`clock` is the retry timer's alone, where it is to differ from that of the others."""
        self.clock = ManualClock()
        self.may_send = may_send
        self.running: list[Running] = []
        self.started: list[Delivery] = []
        self.inventory = Inventory(clock or self.clock)
        self.queue = LoadQueue()
        self.timer = RetryTimer(
            self.inventory,
            self.queue,
            clock=clock or self.clock,
            horizon_seconds=horizon_seconds,
            timers_max=timers_max,
        )
        nothing: Any = None
        self.recorder = Recorder(
            nothing,
            nothing,
            self.inventory,
            self.timer,
            self.queue,
            nothing,
            clock=self.clock,
            batch_rows_max=100,
            unrecorded_max=unrecorded_max,
            flush_seconds=1.0,
        )
        self.endpoints: dict[EndpointId, Any] = {}
        self.tokens: dict[int, int] = {1: 1}
        sender: Any = self  # stands for the sender, the routing table, the lease and the shards
        self.crowding = Crowding()
        deferrals = Deferrals(
            self.inventory, self.queue, self.timer, self.crowding, clock=self.clock
        )
        self.permits = Permits(
            self.inventory,
            self.queue,
            sender,
            sender,
            deferrals,
            self.crowding,
            total=total,
            per_host=per_host,
            clock=self.clock,
        )
        self.follower = LaneFollower(
            self.inventory, self.queue, sender, sender, self.permits, self.crowding
        )
        self.lanes = Lanes(
            self.inventory,
            self.queue,
            deferrals,
            self.permits,
            self.crowding,
            sender,
            bodies_bytes_max=bodies_bytes_max,
            clock=self.clock,
        )

    # --- the sender, the routing table, the lease and the shards ---

    def start(self, entry: Entry, delivery: Delivery, ended: Any) -> None:
        self.running.append(Running(entry, delivery, ended))
        self.started.append(delivery)

    def has_company(self) -> bool:
        """Return false: no other replica fans out."""
        return False

    def follow_joins(self, count: int) -> None:
        """Ignore that no other replica joins."""

    def is_trusted(self) -> bool:
        return self.may_send

    def held(self) -> dict[int, int]:
        return self.tokens

    # --- what tests do ---

    def follow(self, *endpoints: Any, tokens: dict[int, int] | None = None) -> set[EndpointId]:
        """Follows endpoints and shards; returns the endpoints that are to be loaded."""
        before = set(self.queue.windows)
        self.endpoints = {e.id: e for e in endpoints}
        self.tokens = {1: 1} if tokens is None else tokens
        self.follower.follow()
        return self.queue.windows - before

    def lane(self, endpoint_id: str = "ep") -> EndpointLane:
        return self.inventory.lanes[EndpointId(endpoint_id)]

    def in_memory(self) -> set[str]:
        lanes = self.inventory.lanes.values()
        return {*self.inventory.sent, *(entry for lane in lanes for entry in lane.entries)}

    def offer(self, endpoint_id: str, name: str, **how: Any) -> bool:
        """Brings a delivery that is due, as the loader does, and starts what may start."""
        lane = self.inventory.lanes.get(EndpointId(endpoint_id))
        if lane is None or not lane.is_open:
            return False
        if self.inventory.find(lane, DeliveryId(name)) is not None:
            return True
        entry = self.inventory.add(lane, DeliveryId(name), DUE, None)
        taken = self.lanes.offer(entry, make_delivery(name, **how))
        self.permits.pump()
        return taken

    def end(self, index: int = 0, *, succeeded: bool | None = True) -> Running:
        """Ends an attempt; its delivery is over once that is committed, which it is at once."""
        running = self.running.pop(index)
        if succeeded is not None:
            self.inventory.finish(running.entry)
        running.ended(running.entry, running.endpoint, succeeded)
        if succeeded is not None:
            self.inventory.forget(running.entry)
            self.permits.pump()
        return running

    def commit(
        self, running: Running, *, fenced: bool = False, late: bool = False, **result: Any
    ) -> None:
        """Ends an attempt and commits this result of it; late: its delivery was not open."""
        self.running.remove(running)
        result.setdefault("finished_at_monotonic", self.clock.monotonic())
        made = make_result(
            running.delivery, entry=running.entry, endpoint=running.endpoint, **result
        )
        self.inventory.finish(running.entry)
        running.ended(running.entry, running.endpoint, made.response.outcome is Outcome.OK)
        one, none = frozenset([running.entry.id]), frozenset[DeliveryId]()
        recorded = Recorded(one if fenced else none, one if late else none)
        self.recorder._settle([made], recorded)
