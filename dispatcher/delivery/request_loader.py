"""Carries out people's requests: resends and cancellations of deliveries, retries and changes of endpoints.

    requests of deliveries (resend now, cancel) ────────────────────▶ demand, cancel
    requests about endpoints (retry now, the schedule was changed) ─▶ release, window

A request stays in Postgres until it has been carried out, so that after a crash the next owner of the shard carries it
out. A resend is forgotten once its attempt is recorded. The loader runs this between its own statements.
"""

from typing import Protocol

import structlog

from dispatcher.core.model import DeliveryId, DeliveryState, EndpointId, Reason, Trigger
from dispatcher.delivery.inventory import Inventory
from dispatcher.delivery.lanes import Lanes
from dispatcher.delivery.load_queue import LoadQueue
from dispatcher.delivery.permits import Permits
from dispatcher.delivery.ports import DeliveryStore, RequestStore
from dispatcher.delivery.types import Delivery
from dispatcher.late_bodies import LateBodies
from dispatcher.runtime import probe
from dispatcher.store.delivery_requests import EndpointRequestRow, RequestRow

_log = structlog.get_logger("dispatcher.delivery.request_loader")

REQUESTS_MAX = 500
"""Requests of deliveries that are read at once."""
ENDPOINT_REQUESTS_MAX = 200
"""Requests about endpoints that are read at once."""
RELEASED_ROWS_MAX = 2000
"""Scheduled deliveries that one statement makes due: some 30 ms."""
_OPEN = (DeliveryState.PENDING, DeliveryState.RETRYING)


class Ownership(Protocol):
    """The shards that are ours, as the loader of requests uses them."""

    def held(self) -> dict[int, int]:
        """Return shard to token of the shards to send for."""
        ...


class RequestLoader:
    """Reads requests and hands them to lanes; `load` is called by the loader alone."""

    def __init__(
        self,
        requests: RequestStore,
        deliveries: DeliveryStore,
        inventory: Inventory,
        load_queue: LoadQueue,
        lanes: Lanes,
        permits: Permits,
        late_bodies: LateBodies,
        shards: Ownership,
    ) -> None:
        self._requests = requests
        self._deliveries = deliveries
        self._inventory = inventory
        self._queue = load_queue
        self._lanes = lanes
        self._permits = permits
        self._late_bodies = late_bodies
        self._shards = shards

    async def load(self) -> None:
        """Carry out what has been requested for our shards."""
        self._queue.has_requests = False
        await self._load_of_deliveries()
        await self._load_of_endpoints()

    async def _load_of_deliveries(self) -> None:
        """Hand resends to their lanes, and forget deliveries that a person cancelled."""
        shards = list(self._shards.held())
        if not shards:
            return
        acted_on: list[tuple[DeliveryId, str]] = []
        for row in await self._requests.of_deliveries(
            shards, REQUESTS_MAX, self._inventory.busy_ids()
        ):
            if row.kind == "cancel":
                if row.endpoint_id is not None:
                    self._lanes.cancel(row.endpoint_id, row.id)
                    self._queue.sweep(self._inventory.lanes.get(row.endpoint_id))
                acted_on.append((row.id, row.kind))
            elif row.answered:
                acted_on.append((row.id, row.kind))
            elif (
                row.body is None
                and row.day is not None
                and row.id in await self._late_bodies.make([(row.id, row.day)])
            ):
                self._queue.add_requests()  # read again, with its body
            elif row.body is None or row.endpoint_id is None:
                _log.warning("delivery.resend_rejected", delivery_id=row.id)
                acted_on.append((row.id, row.kind))
            elif (delivery := await self._in_turn(row.endpoint_id, _requested(row))) is None:
                _log.info("delivery.resend_postponed", delivery_id=row.id)
                acted_on.append((row.id, row.kind))
            else:
                self._lanes.demand(row.endpoint_id, delivery)
        self._permits.pump()
        if acted_on:
            await self._requests.forget(acted_on)

    async def _in_turn(self, endpoint_id: EndpointId, delivery: Delivery) -> Delivery | None:
        """Return a requested delivery with its place; None if it is open and others of its line come before it."""
        lane = self._inventory.lanes.get(endpoint_id)
        if lane is None or lane.lines is None or delivery.state not in _OPEN:
            return delivery
        rows = await self._deliveries.place([delivery.id])
        if not rows or rows[0].place is None:
            return delivery
        if rows[0].previous_id is not None or rows[0].is_held:
            return None
        return delivery._replace(place=rows[0].place)

    async def _load_of_endpoints(self) -> None:
        """Release the deliveries of endpoints whose retry succeeded, and read changed schedules again.

        A release is made in slices, with other work between them. Its request stays until all is
        released and the lane knows, so that after a crash the next owner goes on.
        """
        tokens = self._shards.held()
        if not tokens:
            return
        acted_on: list[EndpointRequestRow] = []
        for row in await self._requests.of_endpoints(tokens, ENDPOINT_REQUESTS_MAX):
            if row.kind == "reload":
                lane = self._inventory.lanes.get(row.endpoint_id)
                if lane is None or lane.lines is None:
                    brought = await self._deliveries.bring_back(row.endpoint_no, RELEASED_ROWS_MAX)
                    if brought == RELEASED_ROWS_MAX:
                        self._queue.add_requests()  # there may be more
                        continue
                self._lanes.reload(row.endpoint_id)
                self._queue.sweep(lane)
            elif row.succeeded is None:
                continue  # the recorder has the requests read again once its attempt is recorded
            elif row.succeeded:
                released = await self._deliveries.release(row.endpoint_no, RELEASED_ROWS_MAX)
                _log.info("endpoint.released", endpoint_id=row.endpoint_id, deliveries=released)
                if released == RELEASED_ROWS_MAX:
                    self._queue.add_requests()  # there may be more
                    continue
                self._lanes.test_succeeded(row.endpoint_id)
                self._lanes.reload(row.endpoint_id)
            acted_on.append(row)
        if acted_on:
            await self._requests.forget_of_endpoints(acted_on)
        probe.hit("loader.endpoint_requests", requests=len(acted_on))


def _requested(row: RequestRow) -> Delivery:
    assert row.day is not None and row.body is not None and row.inserted_at is not None  # noqa: S101, PT018 -- one join
    return Delivery(
        row.id,
        row.day,
        row.event_id or "",
        row.event_type or "",
        row.body,
        row.inserted_at,
        row.traceparent,
        DeliveryState(row.state or DeliveryState.PENDING),
        Reason(row.reason) if row.reason else None,
        row.attempt_count or 0,
        row.schedule_position or 0,
        Trigger.MANUAL,
    )
