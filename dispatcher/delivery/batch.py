"""One claim's rows: what fan-out writes for its events, and the deliveries that they become.

What is always true: the body of an event is encoded once per profile, and once for each endpoint with a mask, here, and
never again. A masked body is stored for its endpoint alone, so that no other endpoint gets it, and none gets another's.
Deliveries that will not happen (the endpoint is disabled, the event cannot be encoded) are rows
too, cancelled with their reason. Nothing is written before `write`.
"""

import asyncio
from collections.abc import Sequence

import structlog

from dispatcher.core.envelope import Encoded, encode
from dispatcher.core.errors import EncodingError
from dispatcher.core.ids import delivery_ids, delivery_unix_ms, endpoint_bits, event_bits
from dispatcher.core.model import (
    DeliveryState,
    EndpointId,
    EndpointState,
    Event,
    Reason,
    Trigger,
    made,
)
from dispatcher.core.order import Ordering, Place, place_of
from dispatcher.core.profile import JsonMode, Profile
from dispatcher.delivery.endpoint import Endpoint
from dispatcher.delivery.ports import Claim
from dispatcher.delivery.types import Delivery
from dispatcher.store.claims import BodyRow, CancelledRow, DeliveryRow

_log = structlog.get_logger("dispatcher.delivery.batch")

KEEP_SECONDS = 2.0
"""A transaction that sends nothing for 10 s is ended by Postgres; encoding one event may take as long."""


class Batch:
    """The rows of one claim, and the deliveries they become once committed."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._day = claim.day
        self._targets: list[tuple[Event, Endpoint, str | None, Encoded | None]] = []
        self._bodies: list[BodyRow] = []
        self._encoded: dict[tuple[Profile, str], Encoded | None] = {}
        self._encoded_event: Event | None = None
        self.deliveries: list[tuple[EndpointId, Delivery]] = []
        """What is to be sent now, once the claim has committed."""
        self.has_order = False
        """Whether one of these stands in a line."""
        self.unmatched: list[Event] = []
        """Events that no endpoint subscribes to, apart from the dispatcher's own events."""

    def add(self, event: Event, endpoint: Endpoint) -> None:
        """Add one event for one endpoint; encode the body if it is the first of its profile."""
        reason: str | None = None
        if endpoint.state is EndpointState.DISABLED:
            reason = Reason.ENDPOINT_DISABLED
        encoded = None
        if endpoint.profile is not None:
            encoded = self._encode(event, endpoint.profile, endpoint)
            if encoded is None:
                reason = reason or Reason.UNENCODABLE_EVENT
        self._targets.append((event, endpoint, reason, encoded))

    def _encode(self, event: Event, profile: Profile, endpoint: Endpoint) -> Encoded | None:
        key = (profile, endpoint.body_key)
        if event is not self._encoded_event:
            self._encoded_event = event
            self._encoded = {}
        elif key in self._encoded:
            return self._encoded[key]
        try:
            encoded = encode(profile, event, endpoint.mask)
            row = made(BodyRow, (self._day, event.id, endpoint.body_key, encoded.body))
            self._bodies.append(row)
        except EncodingError as error:
            _log.warning(
                "event.encoding_failed", event_id=event.id, profile=profile.name, error=str(error)
            )
            encoded = None
        self._encoded[key] = encoded
        return encoded

    async def encode_apart(self, event: Event, endpoints: Sequence[Endpoint]) -> None:
        """Encode a large event in a thread, so that the event loop keeps running and the claim stays open."""
        for endpoint in {e.body_key: e for e in endpoints}.values():
            profile = endpoint.profile
            if profile is None:
                continue
            if profile.json is not JsonMode.JAVASCRIPT and endpoint.mask is None:
                continue
            encoding = asyncio.ensure_future(
                asyncio.to_thread(self._encode, event, profile, endpoint)
            )
            try:
                while not (await asyncio.wait({encoding}, timeout=KEEP_SECONDS))[0]:
                    await self._claim.keep_open()
            finally:
                encoding.cancel()  # of no effect on one that has ended
            await encoding

    @property
    def count(self) -> int:
        """Deliveries of the batch."""
        return len(self._targets)

    async def write(self) -> None:
        """Write all rows within the claim's transaction."""
        day = self._day
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
        pulled: set[int] = set()
        for delivery_id, (event, endpoint, reason, encoded) in zip(ids, self._targets, strict=True):
            if reason is not None:
                cancelled.append(
                    CancelledRow(
                        delivery_id,
                        event.id,
                        endpoint.id,
                        endpoint.number,
                        event.type,
                        event.tenant,
                        endpoint.profile_name,
                        reason,
                    )
                )
                continue
            place: Place | None = None
            if endpoint.ordering is not Ordering.NONE:
                place = place_of(endpoint.ordering, event.ordering_key, event.position)
                self.has_order |= place is not None and not endpoint.is_pulled
            rows.append(
                made(
                    DeliveryRow,
                    (
                        delivery_id,
                        day,
                        event.id,
                        endpoint.id,
                        endpoint.number,
                        event.type,
                        event.tenant,
                        endpoint.profile_name,
                        (encoded.warnings or None) if encoded is not None else None,
                        place,
                    ),
                )
            )
            if endpoint.is_pulled:
                pulled.add(endpoint.number)
                continue
            is_open = endpoint.state is EndpointState.ACTIVE and endpoint.problem is None
            if encoded is not None and is_open:
                delivery = made(
                    Delivery,
                    (
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
                        place,
                    ),
                )
                self.deliveries.append((endpoint.id, delivery))
        await self._claim.write(self._bodies, rows, cancelled)
        if pulled:
            await self._claim.announce_pulled(sorted(pulled))
