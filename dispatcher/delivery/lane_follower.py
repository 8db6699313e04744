"""Which lanes there are: those of the endpoints whose shards are ours, as the routing table has them.

Invariants: when `follow` returns, no lane that is not ours sends. Lanes are made, updated and emptied in steps of a few
milliseconds, so that neither 20,000 endpoints nor a lost lease holds up the event loop. Deliveries of an endpoint whose
lane is still to be made stay in Postgres, and are loaded with the lane. A crash loses only memory.
"""

import asyncio
import gc
from collections import deque
from collections.abc import Collection, Mapping
from typing import Final, Protocol

from dispatcher.core.breaker import Breaker
from dispatcher.core.limits import RATE_PER_SECOND_MAX, RATE_PER_SECOND_MIN
from dispatcher.core.model import EndpointId, EndpointState
from dispatcher.core.order import Lines, Ordering
from dispatcher.core.rate import TokenBucket
from dispatcher.delivery.crowding import Crowding
from dispatcher.delivery.endpoint import Endpoint
from dispatcher.delivery.inventory import Inventory
from dispatcher.delivery.load_queue import LoadQueue
from dispatcher.delivery.permits import Permits
from dispatcher.delivery.types import EndpointLane

FOLLOWED_PER_STEP: Final = 500
"""Endpoints whose lanes are made or updated before other work may run: about 4 ms."""
RECLAIMED_PER_STEP: Final = 5_000
"""Entries of forgotten lanes that are dropped before other work may run: about 4 ms."""


class Ownership(Protocol):
    """The shards that are ours, as the lanes follow them."""

    def held(self) -> Mapping[int, int]:
        """Return shard to token of the shards to send for."""
        ...


class Endpoints(Protocol):
    """The routing table, as the lanes follow it."""

    @property
    def endpoints(self) -> Mapping[EndpointId, Endpoint]:
        """Every endpoint, compiled."""
        ...


class LaneFollower:
    """Makes, updates and drops lanes; used on the event loop's thread only."""

    def __init__(
        self,
        inventory: Inventory,
        load_queue: LoadQueue,
        routing: Endpoints,
        shards: Ownership,
        permits: Permits,
        crowding: Crowding,
    ) -> None:
        self._inventory = inventory
        self._load_queue = load_queue
        self._routing = routing
        self._shards = shards
        self._permits = permits
        self._crowding = crowding
        self._loop = asyncio.get_running_loop()
        self._to_follow: deque[EndpointId] = deque()
        """Endpoints of which the lane may differ from the routing table."""
        self._is_stepping = False

    def follow(self, changed: Collection[EndpointId] | None = None) -> None:
        """Drop the lanes that are not ours any more; make and update the others, in steps.

        `changed` are the endpoints that may differ; None: any may, because the shards changed.
        """
        endpoints, tokens, lanes = (
            self._routing.endpoints,
            self._shards.held(),
            self._inventory.lanes,
        )
        for endpoint_id in [*lanes] if changed is None else changed:
            lane = lanes.get(endpoint_id)
            if lane is not None and not _is_ours(lane, endpoints.get(endpoint_id), tokens):
                del lanes[endpoint_id]
                self._crowding.relieve(lane)
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
        self._permits.pump()
        self._load_queue.add_windows(load)

    def _follow_one(self, endpoint: Endpoint, token: int) -> bool:
        """Make or update the lane of an endpoint; return whether its waiting deliveries are to be loaded."""
        is_open = (
            endpoint.state is EndpointState.ACTIVE
            and endpoint.problem is None
            and not endpoint.is_pulled
        )
        lane = self._inventory.lanes.get(endpoint.id)
        if lane is None:
            self._inventory.lanes[endpoint.id] = lane = EndpointLane(
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
            self._crowding.relieve(lane)
        if lane.endpoint.rate_limit != endpoint.rate_limit:
            lane.bucket = _bucket(endpoint)
        lane.limit = endpoint.max_concurrency
        lane.endpoint = endpoint
        lane.is_open = is_open
        lane.activate()
        self._permits.enqueue(lane)
        if opens and lane.lines is not None:
            lane.lines.sweep()
            self._load_queue.add_lines(lane)
        return opens

    def _reorder(self, lane: EndpointLane, ordering: Ordering) -> None:
        """Begin or end the order of a lane; what is not sent is read again."""
        self._inventory.forget_waiting(lane)
        self._crowding.relieve(lane)
        if lane.lines is not None:
            lane.lines.clear()
        lane.lines = None if ordering is Ordering.NONE else Lines()


def _is_ours(lane: EndpointLane, endpoint: Endpoint | None, tokens: Mapping[int, int]) -> bool:
    return endpoint is not None and tokens.get(endpoint.shard) == lane.token


def _bucket(endpoint: Endpoint) -> TokenBucket | None:
    if endpoint.rate_limit is None:
        return None
    # Operations keep these bounds. A row that was written by hand must cost its own lane only: it
    # gets the nearest rate, NaN the slowest.
    rate = min(RATE_PER_SECOND_MAX, max(RATE_PER_SECOND_MIN, endpoint.rate_limit))
    return TokenBucket(rate, max(1, int(rate)))
