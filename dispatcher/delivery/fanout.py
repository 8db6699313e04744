"""Fans out: claimed events become deliveries, bodies and history, in the claim's own transaction.

    claim ── is the routing table as new as the claim? ── match ── encode once per profile ── write ── commit ── offer

What is always true: an event leaves the outbox exactly when its deliveries exist; its body bytes
are made here, once, and never again. An endpoint saved before the event's commit is in the table
that matches it. Deliveries that will not happen (the endpoint is disabled, the event cannot be
encoded) are rows too, cancelled with their reason; an event that matches nobody is history without
deliveries. A delivery to an endpoint that this deployment's configuration makes unusable waits like
any other; if the endpoint's profile is missing, its body is made when the profile is back
(`late_bodies.py`). One bad event or endpoint costs its own deliveries only.

Lanes are told of the deliveries before the commit, so that nobody else brings them meanwhile, and
are offered them after it; what they do not take is in Postgres already. A crash before the commit
leaves the events in the outbox; after it, the deliveries are loaded by whoever owns the endpoints.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog

from dispatcher.core.envelope import Encoded, encode
from dispatcher.core.errors import BatchRefusedError, EncodingError
from dispatcher.core.ids import delivery_ids, delivery_unix_ms, endpoint_bits, event_bits
from dispatcher.core.model import DeliveryState, EndpointId, EndpointState, Event, Reason, Trigger
from dispatcher.core.profile import JsonMode, Profile
from dispatcher.delivery.endpoint import Endpoint
from dispatcher.delivery.ports import OutboxStore
from dispatcher.delivery.types import Delivery, RoutesEvents, TakesNewDeliveries
from dispatcher.runtime import probe
from dispatcher.store.outbox import BodyRow, CancelledRow, Claim, DeliveryRow

_log = structlog.get_logger("dispatcher.delivery.fanout")

BATCH_EVENTS_MAX = 5_000
BATCH_DELIVERIES_MAX = 5_000
"""About what one transaction writes, judged by the batch before: events times their endpoints."""
LARGE_CHARACTERS = 65_536
"""Larger data are rewritten for JavaScript in a thread: a hostile megabyte takes half a second."""


class TakenThrough(NamedTuple):
    """How many events one batch had, and whether it was cut at its bound."""

    events_count: int
    more: bool


class Overtaken(NamedTuple):
    """What was fanned out before its turn by position."""

    events_count: int
    per_tenant_max: int


class Fanout:
    """One batch at a time, at intake's pace."""

    def __init__(
        self,
        outbox: OutboxStore,
        routing: RoutesEvents,
        *,
        lanes: TakesNewDeliveries,
        fanned_out: Callable[[list[Event]], None],
        set_aside: Callable[[], None],
        incarnation: str,
        batch_bytes_max: int,
    ) -> None:
        self._outbox = outbox
        self._routing = routing
        self._lanes = lanes
        self._fanned_out = fanned_out
        self._set_aside = set_aside
        self._incarnation = incarnation
        self._batch_bytes_max = batch_bytes_max
        self._events_max = BATCH_EVENTS_MAX
        """Less than that for a while after a batch was refused."""
        self._deliveries_per_event = 1.0

    async def __call__(self, events_max: int) -> TakenThrough:
        """Takes up to so many events through.

        A batch that Postgres refuses for its contents is tried again smaller, down to one event;
        if that one is refused it is set aside, visible in the outbox, and the others go on.

        Raises:
            StoreUnavailableError: none of them was, as far as is known; ask again later.
        """
        deliveries_bound = max(1, int(BATCH_DELIVERIES_MAX / self._deliveries_per_event))
        limit = min(events_max, self._events_max, deliveries_bound)
        if self._events_max == 1:
            return await self._one_by_one()
        try:
            taken = await self._through(limit)
        except BatchRefusedError:
            self._events_max = max(1, limit // 10)
            return TakenThrough(0, more=True)
        self._events_max = min(events_max, self._events_max * 2)
        return taken

    async def overtake(self, events_max: int) -> Overtaken:
        """Fans out up to so many events of tenants that wait behind another tenant's backlog, in turns.

        Raises:
            StoreUnavailableError: none of them was, as far as is known; retry later.
        """
        deliveries_bound = max(1, int(BATCH_DELIVERIES_MAX / self._deliveries_per_event))
        pick = await self._outbox.pick(min(events_max, deliveries_bound))
        if not pick.tenants:
            return Overtaken(0, 0)
        return Overtaken(await self._overtake(pick.tenants), pick.per_tenant_max)

    async def _overtake(self, tenants: dict[int, str]) -> int:
        """Fans out certain events; halves a batch that Postgres refuses until the refused event is alone."""
        try:
            return (await self._through(len(tenants), tenants=tenants)).events_count
        except BatchRefusedError:
            if len(tenants) == 1:
                self._outbox.leave(*tenants)
                return 0
        items = list(tenants.items())
        half = len(items) // 2
        return await self._overtake(dict(items[:half])) + await self._overtake(dict(items[half:]))

    async def _one_by_one(self) -> TakenThrough:
        """Takes the oldest event through, or sets that very one aside if it is refused again."""
        event_id = await self._outbox.oldest()
        if event_id is None:
            self._events_max = BATCH_EVENTS_MAX
            return TakenThrough(0, more=False)
        try:
            taken = await self._through(1, event_id)
        except BatchRefusedError as error:
            if await self._outbox.set_aside(event_id):
                self._set_aside()
                _log.error("event.set_aside", event_id=event_id, error=str(error))
            return TakenThrough(0, more=True)
        self._events_max = 2
        return taken

    async def _through(
        self,
        events_max: int,
        event_id: str | None = None,
        tenants: dict[int, str] | None = None,
    ) -> TakenThrough:
        """Fans out one batch, one certain event, or picked ones, in one transaction."""
        new: list[tuple[EndpointId, Delivery]] = []
        try:
            async with self._outbox.claim(
                events_max, self._batch_bytes_max, event_id, tenants
            ) as claim:
                events = claim.events
                if not events:
                    return TakenThrough(0, more=False)
                if claim.routing_version != self._routing.version:
                    await self._routing.refresh()
                batch = _Batch(claim)
                for event in events:
                    endpoints = self._routing.route(event)
                    if len(event.data) > LARGE_CHARACTERS:
                        await batch.encode_apart(event, endpoints)
                    for endpoint in endpoints:
                        batch.add(event, endpoint)
                await batch.write()
                new = batch.deliveries
                if not self._lanes.reserve(new):
                    await claim.announce(self._incarnation)
        except BaseException:
            self._lanes.unreserve(new)
            raise
        self._deliveries_per_event = max(1.0, batch.count / len(events))
        for endpoint_id, delivery in new:
            self._lanes.offer_reserved(endpoint_id, delivery)
        self._fanned_out(events)
        probe.hit("fanout.committed", events=len(events))
        bytes_count = sum(len(event.data) for event in events)
        return TakenThrough(
            len(events), len(events) == events_max or bytes_count > self._batch_bytes_max // 4
        )


class _Batch:
    """The rows of one claim, and the deliveries they become once committed."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._targets: list[tuple[Event, Endpoint, str | None, Encoded | None]] = []
        self._bodies: list[BodyRow] = []
        self._encoded: dict[Profile, Encoded | None] = {}
        self._encoded_event: Event | None = None
        self.deliveries: list[tuple[EndpointId, Delivery]] = []
        """What is to be sent now, once the claim has committed."""

    def add(self, event: Event, endpoint: Endpoint) -> None:
        """Adds one event for one endpoint; encodes the body if it is the first of its profile."""
        reason: str | None = None
        if endpoint.state is EndpointState.DISABLED:
            reason = Reason.ENDPOINT_DISABLED
        encoded = None
        if endpoint.profile is not None:
            encoded = self._encode(event, endpoint.profile)
            if encoded is None:
                reason = reason or Reason.UNENCODABLE_EVENT
        self._targets.append((event, endpoint, reason, encoded))

    def _encode(self, event: Event, profile: Profile) -> Encoded | None:
        if event is not self._encoded_event:
            self._encoded_event = event
            self._encoded = {}
        elif profile in self._encoded:
            return self._encoded[profile]
        try:
            encoded = encode(profile, event)
            self._bodies.append(BodyRow(self._claim.day, event.id, profile.name, encoded.body))
        except EncodingError as error:
            _log.warning(
                "event.unencodable", event_id=event.id, profile=profile.name, error=str(error)
            )
            encoded = None
        self._encoded[profile] = encoded
        return encoded

    async def encode_apart(self, event: Event, endpoints: Sequence[Endpoint]) -> None:
        """Encodes a large event in a thread, so that the event loop turns on."""
        for profile in {e.profile for e in endpoints if e.profile is not None}:
            if profile.json is JsonMode.JAVASCRIPT:
                await asyncio.to_thread(self._encode, event, profile)

    @property
    def count(self) -> int:
        """Deliveries of the batch."""
        return len(self._targets)

    async def write(self) -> None:
        """Writes all rows within the claim's transaction."""
        day = self._claim.day
        unix_ms: list[int] = []
        bits: list[int] = []
        hashed: Event | None = None
        event_ms = event_hash = 0
        for event, endpoint, _, _ in self._targets:  # an event's endpoints follow each other
            if event is not hashed:
                hashed = event
                event_ms = delivery_unix_ms(event.inserted_at, day)
                event_hash = event_bits(event.id)
            unix_ms.append(event_ms)
            bits.append(event_hash ^ endpoint_bits(endpoint.id))
        ids = delivery_ids(unix_ms, bits)
        rows: list[DeliveryRow] = []
        cancelled: list[CancelledRow] = []
        for delivery_id, (event, endpoint, reason, encoded) in zip(ids, self._targets, strict=True):
            if reason is not None:
                cancelled.append(
                    CancelledRow(
                        delivery_id,
                        event.id,
                        endpoint.id,
                        event.type,
                        event.tenant,
                        endpoint.profile_name,
                        reason,
                    )
                )
                continue
            rows.append(
                DeliveryRow(
                    delivery_id,
                    day,
                    event.id,
                    endpoint.id,
                    event.type,
                    event.tenant,
                    endpoint.profile_name,
                    (encoded.warnings or None) if encoded is not None else None,
                )
            )
            is_open = endpoint.state is EndpointState.ACTIVE and endpoint.problem is None
            if encoded is not None and is_open:
                delivery = Delivery(
                    delivery_id,
                    day,
                    event.id,
                    event.type,
                    encoded.body,
                    event.inserted_at,
                    event.traceparent,
                    DeliveryState.PENDING,
                    None,
                    0,
                    0,
                    Trigger.SCHEDULED,
                )
                self.deliveries.append((endpoint.id, delivery))
        await self._claim.write(self._bodies, rows, cancelled)
