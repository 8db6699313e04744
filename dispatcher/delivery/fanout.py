"""Fans out: claimed events become deliveries, bodies and history, in the claim's own transaction.

    claim ── is the routing table as new as the claim? ── match ── encode once per profile ── write ── commit ── offer

Invariants: an event leaves the outbox in the transaction that creates its deliveries. Its body bytes are
encoded here, once. An endpoint saved before the event's commit is in the table that matches the event.
Deliveries that will not happen (the endpoint is disabled, the event cannot be encoded) are rows too,
cancelled with their reason. An event that matches no endpoint is history without deliveries. A delivery to
an endpoint that this deployment's configuration makes unusable waits like any other. If the endpoint's
profile is missing, the body is encoded when the profile is available again (`late_bodies.py`). An invalid
event or endpoint affects only its own deliveries.

Lanes reserve the deliveries before the commit, so that the loader skips them meanwhile, and are offered
them after it. Deliveries that do not fit into lanes are already in Postgres. If a crash precedes the
commit, the events are still in the outbox. If it follows the commit, the replica that owns the endpoints
loads the deliveries.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

import structlog

from dispatcher.core.errors import BatchRefusedError, StoreUnavailableError
from dispatcher.core.filters import EventValues
from dispatcher.core.matching import is_operational
from dispatcher.core.model import DeliveryId, Event, EventId
from dispatcher.core.notifying import NOTIFICATION
from dispatcher.core.schemas import Schema
from dispatcher.delivery.batch import Batch
from dispatcher.delivery.endpoint import Endpoint
from dispatcher.delivery.lanes import Lanes, Reserved
from dispatcher.delivery.permits import Permits
from dispatcher.delivery.ports import DeliveryStore, OutboxStore
from dispatcher.delivery.reporting import Reporting
from dispatcher.delivery.routing import RoutingTable
from dispatcher.delivery.turns import Turn, Turns
from dispatcher.runtime import probe
from dispatcher.runtime.clock import Clock
from dispatcher.store.deliveries import PlacedRow
from dispatcher.store.outbox import FEW_BYTES_MAX, FEW_EVENTS_MAX

_log = structlog.get_logger("dispatcher.delivery.fanout")

BATCH_EVENTS_MAX = 5_000
BATCH_DELIVERIES_MAX = 1_000
"""Deliveries that one transaction writes, estimated by the endpoints per event of the batch before."""
LARGE_CHARACTERS = 16_384
"""Larger data are rewritten for JavaScript in a thread: 3 µs a character at worst, 3.4 s for a mebibyte."""
ENCODING_SECONDS = 0.25
"""Target duration of encoding per claim, because the events of all tenants wait for it."""
ENCODING_SECONDS_MAX = 1.0
"""A claim of several events that takes longer is abandoned, and the next one is smaller."""
YIELD_SECONDS = 0.01
"""How long encoding may block the event loop."""
BATCH_SECONDS = 0.5
"""Target duration of a batch whose bytes make it slow, because the events of all tenants wait for it."""
BATCH_BYTES_MIN = 1_048_576
"""A batch of fewer bytes is slow for another reason, such as a distant Postgres."""
UNSURE_SECONDS = 30.0
"""How long the deliveries of a COMMIT without a response are searched in Postgres, once that responds again."""
_UNTIL_IT_RESPONDS: Final = float("inf")


class _CostlyBatchError(Exception):
    """Encoding took too long; `events_count` is the size to try next."""

    def __init__(self, events_count: int) -> None:
        self.events_count = events_count
        super().__init__()


class TakenThrough(NamedTuple):
    """The number of events in a batch, and whether the batch was cut at its bound."""

    events_count: int
    more: bool


class Overtaken(NamedTuple):
    """The events that were fanned out before their turn by position."""

    events_count: int
    per_tenant_max: int


class Fanout:
    """Fans out batches of claimed events; intake decides when."""

    def __init__(
        self,
        outbox: OutboxStore,
        deliveries: DeliveryStore,
        routing: RoutingTable,
        lanes: Lanes,
        permits: Permits,
        reporting: Reporting,
        *,
        clock: Clock,
        incarnation: str,
        batch_bytes_max: int,
        schemas: Mapping[str, Schema] = MappingProxyType({}),
    ) -> None:
        """Compare events with `schemas`, which are by event type; they are delivered in any case."""
        self._schemas = schemas
        self._outbox = outbox
        self._deliveries = deliveries
        self._turns = Turns()
        self._routing = routing
        self._lanes = lanes
        self._permits = permits
        self._reporting = reporting
        self._clock = clock
        self._incarnation = incarnation
        self._bytes_max = self._bytes_limit = batch_bytes_max
        """The bound of a batch's bytes, which is smaller after a slow batch; and its setting."""
        self._events_max = BATCH_EVENTS_MAX
        """The bound of a batch, which is smaller for a while after a batch was refused."""
        self._encoding_events_max = BATCH_EVENTS_MAX
        """The estimated number of events like the last ones that can be encoded in `ENCODING_SECONDS`."""
        self._deliveries_per_event = 1.0
        self._bytes_per_event = 1.0
        self._unsure_until = float("-inf")

    def expected_deliveries(self, events_max: int) -> float:
        """Return the number of deliveries that a batch of up to so many events like the last ones makes."""
        return min(events_max * self._deliveries_per_event, float(BATCH_DELIVERIES_MAX))

    async def __call__(self, events_max: int, *, few: bool = False) -> TakenThrough:
        """Fan out up to `events_max` events; with `few` some of them at most, which costs two statements.

        If Postgres refuses a batch for its contents, a smaller one is tried, down to one event. If that
        event is refused, it gets a new id if an earlier event has the same one. Otherwise it is
        quarantined in the outbox. The other events go on.

        Raises:
            StoreUnavailableError: no event was fanned out, as far as is known; retry later.
        """
        deliveries_bound = max(1, int(BATCH_DELIVERIES_MAX / self._deliveries_per_event))
        # A row that a claim locks and then leaves, because its bytes exceed the bound, costs a write.
        bytes_bound = max(1, int(2 * self._bytes_max / self._bytes_per_event))
        limit = min(
            events_max, self._events_max, deliveries_bound, bytes_bound, self._encoding_events_max
        )
        if self._events_max == 1:
            return await self._one_by_one()
        if few:
            limit = min(limit, FEW_EVENTS_MAX)
        try:
            taken = await self._through(limit, few=few)
        except BatchRefusedError:
            self._events_max = max(1, limit // 10)
            return TakenThrough(0, more=True)
        except _CostlyBatchError:
            return TakenThrough(0, more=True)
        self._events_max = min(events_max, self._events_max * 2)
        return taken

    async def overtake(self, events_max: int) -> Overtaken:
        """Fan out up to `events_max` events of tenants that wait behind another tenant's backlog, in turns.

        Raises:
            StoreUnavailableError: no event was fanned out, as far as is known; retry later.
        """
        deliveries_bound = max(1, int(BATCH_DELIVERIES_MAX / self._deliveries_per_event))
        pick = await self._outbox.pick(min(events_max, deliveries_bound, self._encoding_events_max))
        if not pick.tenants:
            return Overtaken(0, 0)
        return Overtaken(await self._overtake(pick.tenants), pick.per_tenant_max)

    async def _overtake(self, tenants: dict[int, str]) -> int:
        """Fan out picked events; halve a batch that Postgres refuses until the refused event is alone."""
        try:
            return (await self._through(len(tenants), tenants=tenants)).events_count
        except BatchRefusedError:
            if len(tenants) == 1:
                self._outbox.leave(*tenants)
                return 0
        except _CostlyBatchError as error:
            # A later scan finds the rest.
            return await self._overtake(dict(list(tenants.items())[: error.events_count]))
        items = list(tenants.items())
        half = len(items) // 2
        return await self._overtake(dict(items[:half])) + await self._overtake(dict(items[half:]))

    async def _one_by_one(self) -> TakenThrough:
        """Fan out the oldest event; if it is refused again, renumber or quarantine it."""
        event_id = await self._outbox.oldest()
        if event_id is None:
            self._events_max = BATCH_EVENTS_MAX
            return TakenThrough(0, more=False)
        try:
            taken = await self._through(1, event_id)
        except BatchRefusedError as error:
            if await self._outbox.renumber([event_id]):
                return TakenThrough(0, more=True)
            if await self._outbox.quarantine(event_id):
                self._reporting.metrics.events_quarantined.inc()
                _log.error("event.quarantined", event_id=event_id, error=str(error))
            return TakenThrough(0, more=True)
        self._events_max = 2
        return taken

    def is_unsure(self) -> bool:
        """Return whether a recent batch may have been committed although its COMMIT failed.

        To be asked after a statement that succeeded: a server that was frozen or cut off may commit when it is back,
        however long that took, so the time begins then.
        """
        now = self._clock.monotonic()
        if self._unsure_until == _UNTIL_IT_RESPONDS:
            self._unsure_until = now + UNSURE_SECONDS
        return now < self._unsure_until

    async def _through(
        self,
        events_max: int,
        event_id: str | None = None,
        tenants: dict[int, str] | None = None,
        *,
        few: bool = False,
    ) -> TakenThrough:
        """Fan out one batch, a few events, one given event, or picked events, all or none of them."""
        reserved: list[Reserved] = []
        turn: Turn | None = None
        began = self._clock.monotonic()
        bytes_max = FEW_BYTES_MAX if few else self._bytes_max
        if few:
            claiming = self._outbox.claim_few(events_max)
        else:
            claiming = self._outbox.claim(events_max, bytes_max, event_id, tenants)
        try:
            async with claiming as claim:
                events = claim.events
                if not events:
                    return TakenThrough(0, more=False)
                if claim.routing_version != self._routing.version:
                    await self._routing.refresh()
                if self._routing.has_order():
                    turn = self._turns.begin(events)
                batch = Batch(claim)
                await self._encode(batch, events)
                await batch.write()
                reserved = self._lanes.reserve(batch.deliveries)
                if not self._lanes.are_all_ours(reserved):
                    await claim.announce(self._incarnation)
        except (BatchRefusedError, _CostlyBatchError):
            self._give_up(reserved, turn)
            raise
        except BaseException:
            self._give_up(reserved, turn)
            self._unsure_until = _UNTIL_IT_RESPONDS
            raise
        if claim.lost:
            reserved = self._without(claim.lost, reserved)
        self._deliveries_per_event = max(1.0, batch.count / len(events))
        in_line: list[Reserved] = []
        if batch.has_order:
            in_line = [one for one in reserved if one.delivery.place is not None]
            reserved = [one for one in reserved if one.delivery.place is None]
        self._lanes.offer_reserved(reserved)
        self._permits.pump()
        if turn is not None:
            await self._place(turn, in_line)
        elif in_line:  # the first endpoint with an order appeared while events were encoded
            self._lanes.place_reserved(in_line, {})
        self._reporting.fanned_out(
            [event for event in events if event.id not in claim.lost],
            [event.type for event in batch.unmatched if event.id not in claim.lost],
        )
        probe.hit("fanout.committed", events=len(events))
        bytes_count = sum(len(event.data) for event in events)
        self._bytes_per_event = max(1.0, bytes_count / len(events))
        self._follow_bytes(bytes_count, self._clock.monotonic() - began)
        return TakenThrough(len(events), len(events) == events_max or bytes_count > bytes_max // 4)

    def _follow_bytes(self, bytes_count: int, seconds: float) -> None:
        """Adapt the bound of a batch's bytes, so that one tenant's large events do not delay the others'."""
        if seconds > BATCH_SECONDS and bytes_count > BATCH_BYTES_MIN:
            self._bytes_max = max(BATCH_BYTES_MIN, int(bytes_count * BATCH_SECONDS / seconds))
        elif seconds < BATCH_SECONDS / 2 and bytes_count > self._bytes_max // 4:
            self._bytes_max = min(self._bytes_limit, self._bytes_max * 2)

    async def _place(self, turn: Turn, reserved: Sequence[Reserved]) -> None:
        """Put committed deliveries in their lines, after those of claims with earlier events.

        If Postgres is unavailable, the loader finds them.
        """
        placed: dict[DeliveryId, PlacedRow] = {}
        try:
            if any(one.entry is not None for one in reserved):
                await self._turns.wait(turn)
                try:
                    rows = await self._deliveries.place([one.delivery.id for one in reserved])
                    placed = {row.id: row for row in rows}
                except StoreUnavailableError as error:
                    _log.warning(
                        "fanout.placement_failed", deliveries=len(reserved), error=str(error)
                    )
        finally:
            self._turns.end(turn)
            self._lanes.place_reserved(reserved, placed)
        self._lanes.release_held()
        self._permits.pump()

    def _filtered(self, event: Event, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        """Return the endpoints whose content filter matches; an evaluation error does not match, and is counted."""
        values = EventValues.of(event)
        matching: list[Endpoint] = []
        for endpoint in endpoints:
            if endpoint.content_filter is None or event.type == NOTIFICATION:
                matching.append(endpoint)
                continue
            result = endpoint.content_filter.evaluate(values)
            if result.matched:
                matching.append(endpoint)
            elif result.error is None:
                self._reporting.metrics.events_filtered.inc()
            else:
                self._reporting.metrics.filter_errors.inc()
                _log.warning(
                    "filter.evaluation_failed",
                    endpoint_id=endpoint.id,
                    event_id=event.id,
                    error=result.error,
                )
        return matching

    def _compare(self, event: Event, schema: Schema) -> None:
        """Count and log an event that does not fit the schema of its type; it is delivered all the same."""
        mismatches = schema.mismatches(event.data)
        if mismatches:
            self._reporting.metrics.schema_mismatches.inc()
            _log.warning(
                "event.schema_mismatched",
                event_id=event.id,
                event_type=event.type,
                errors=[f"{one.field}: {one.detail}" for one in mismatches],
            )

    def _give_up(self, reserved: Sequence[Reserved], turn: Turn | None) -> None:
        """Forget the deliveries of a claim that has failed, or whose outcome is unknown."""
        self._lanes.unreserve(reserved)
        if turn is not None:
            self._turns.end(turn)

    def _without(self, lost: Collection[EventId], reserved: list[Reserved]) -> list[Reserved]:
        """Forget the deliveries of events that another replica has claimed; return the others."""
        self._lanes.unreserve([one for one in reserved if one.delivery.event_id in lost])
        # The other replica's notification may have come while they were reserved, when the loader skips them.
        self._unsure_until = max(self._unsure_until, self._clock.monotonic() + UNSURE_SECONDS)
        return [one for one in reserved if one.delivery.event_id not in lost]

    async def _encode(self, batch: Batch, events: Sequence[Event]) -> None:
        """Match and encode events, and yield to the event loop every `YIELD_SECONDS`.

        Raises:
            _CostlyBatchError: encoding took too long; the next batch is smaller.
        """
        began = yielded = now = self._clock.monotonic()
        for count, event in enumerate(events, 1):
            subscribed = endpoints = self._routing.route(event)
            if endpoints and self._routing.has_filters():
                endpoints = self._filtered(event, endpoints)
            if self._schemas and event.type in self._schemas:
                self._compare(event, self._schemas[event.type])
            if len(event.data) > LARGE_CHARACTERS:
                await batch.encode_apart(event, endpoints)
            for endpoint in endpoints:
                batch.add(event, endpoint)
            if not subscribed and not is_operational(event.type):
                batch.unmatched.append(event)
            now = self._clock.monotonic()
            if now - began > ENCODING_SECONDS_MAX and count < len(events):
                self._encoding_events_max = max(1, count // 4)
                raise _CostlyBatchError(self._encoding_events_max)
            if now - yielded > YIELD_SECONDS:
                await asyncio.sleep(0)
                yielded = self._clock.monotonic()
        if now - began > ENCODING_SECONDS:
            share = ENCODING_SECONDS / (now - began)
            self._encoding_events_max = max(1, int(len(events) * share))
        elif len(events) >= self._encoding_events_max:
            self._encoding_events_max = min(BATCH_EVENTS_MAX, self._encoding_events_max * 2)
