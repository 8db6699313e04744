"""Claimed events, and the rows that fan-out writes for them.

A `Claim` has locked its events in an open transaction, which commits what `write()` was given. A `FewClaim`
has read its events without a lock; its `commit()` claims those that still wait and writes their rows in one
statement, which saves three of five round trips. Either way an event leaves the outbox together with the
rows it becomes, or not at all.
"""

import re
from collections.abc import Sequence
from datetime import date, datetime
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from dispatcher.core import codes
from dispatcher.core.model import DeliveryId, EndpointId, Event, EventId
from dispatcher.core.order import Place
from dispatcher.store.delivery_ids import uuid_of, uuids_of
from dispatcher.store.pool import Database
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.pool import Reach

_FAN_OUT = statement("outbox_fan_out")
_FAN_OUT_NUMBERED = statement("outbox_fan_out_numbered")
_CANCEL = statement("delivery_done_insert_cancelled")
_ANNOUNCE = statement("delivery_open_notify")
_ANNOUNCE_PULLED = statement("pull_lease_notify")
_KEEP = statement("transaction_keep")

_is_numbered = re.compile("evt_[0-9]{4}_[0-9]{6,}").fullmatch
"""Whether the outbox made an id (outbox_accept() reserves the form)."""

PULLED_NAMED_MAX = 500
"""Endpoints that one notification names; a payload has at most 8,000 bytes."""

FEW_DELIVERIES_MAX = 128
"""Deliveries that one statement writes; more are copied in a transaction, which costs less per row."""


class BodyRow(NamedTuple):
    """The bytes of one event, in the order of `body`'s columns; `profile` is the body key of its endpoints."""

    day: date
    event_id: EventId
    profile: str
    bytes: bytes


class DeliveryRow(NamedTuple):
    """One new delivery; it is due at once."""

    id: DeliveryId
    day: date
    event_id: EventId
    endpoint_id: EndpointId
    endpoint_no: int
    event_type: str
    tenant: str
    profile: str
    warnings: tuple[str, ...] | None
    place: Place | None = None
    """Its place in a line of its endpoint."""


class CancelledRow(NamedTuple):
    """One delivery that is cancelled at once, and the reason."""

    id: DeliveryId
    event_id: EventId
    endpoint_id: EndpointId
    endpoint_no: int
    event_type: str
    tenant: str
    profile: str
    reason: str


_EVENT_COLUMNS = (
    *("inserted_at", "accepted_at", "occurred_at", "day", "data_offset", "data_length", "id"),
    *("type", "tenant", "profile", "labels", "ordering_key", "traceparent", "data", "bytes"),
    "position",
)
_CLAIMED_EVENT = (
    *("id", "inserted_at", "occurred_at", "data_offset", "data_length", "type", "tenant"),
    *("profile", "labels", "ordering_key", "traceparent", "data", "bytes", "position"),
)
"""The attributes of `dispatcher.claimed_event`."""
_claimed_event = itemgetter(*map(_EVENT_COLUMNS.index, _CLAIMED_EVENT))
_OPEN_COLUMNS = ("id", "day", "event_id", "endpoint_no", "event_type_code", "warnings")
_OPEN_IN_LINE_COLUMNS = (*_OPEN_COLUMNS, "order_key", "position")


class Claim:
    """The events claimed by a transaction; call `write()` once, then the transaction commits."""

    def __init__(
        self,
        connection: "Reach",
        events: list[Event],
        rows: "Sequence[Record]" = (),
    ) -> None:
        self._connection = connection
        self._rows = rows
        self.events = events
        self.routing_version: int = rows[0][10] if rows else 0
        self._accepted_at: datetime | None = rows[0]["accepted_at"] if rows else None
        self.is_written = False
        self.lost: frozenset[EventId] = frozenset()
        """Events that another replica has claimed first; none if they were locked."""

    @cached_property
    def accepted_at(self) -> datetime:
        """When the database accepted the events; UTC."""
        assert self._accepted_at is not None, "an empty claim was never accepted"  # noqa: S101 -- a slip
        return self._accepted_at

    @cached_property
    def day(self) -> date:
        """The partition that these events, their deliveries and attempts belong to."""
        return self.accepted_at.date()

    async def write(
        self, bodies: list[BodyRow], deliveries: list[DeliveryRow], cancelled: list[CancelledRow]
    ) -> None:
        """Write the events with their bodies and deliveries, which are committed when the claim's block ends."""
        self.is_written = True
        events, further = self._event_rows(bodies, deliveries)
        await self._copy("event", _EVENT_COLUMNS, events)
        await self._write_deliveries(further, deliveries, cancelled)

    async def _write_deliveries(
        self, further: list[BodyRow], deliveries: list[DeliveryRow], cancelled: list[CancelledRow]
    ) -> None:
        if further:
            await self._copy("body", BodyRow._fields, further)
        if deliveries:
            code = codes.event_type_code
            plain = [
                (
                    uuid_of(d.id),
                    d.day,
                    d.event_id,
                    d.endpoint_no,
                    code(d.event_type),
                    d.warnings,
                )
                for d in deliveries
                if d.place is None
            ]
            if plain:
                await self._copy("delivery_open", _OPEN_COLUMNS, plain)
            in_line = [
                (
                    uuid_of(d.id),
                    d.day,
                    d.event_id,
                    d.endpoint_no,
                    code(d.event_type),
                    d.warnings,
                    *d.place,
                )
                for d in deliveries
                if d.place is not None
            ]
            if in_line:
                await self._copy("delivery_open", _OPEN_IN_LINE_COLUMNS, in_line)
        if cancelled:
            await self._connection.execute(
                _CANCEL,
                self.day,
                self.accepted_at,
                uuids_of([row.id for row in cancelled]),
                [row.event_id for row in cancelled],
                [row.endpoint_no for row in cancelled],
                [codes.event_type_code(row.event_type) for row in cancelled],
                [codes.REASON_CODES[row.reason] for row in cancelled],
            )

    def _event_rows(
        self, bodies: list[BodyRow], deliveries: list[DeliveryRow]
    ) -> tuple[list[tuple[object, ...]], list[BodyRow]]:
        """Return the events' rows, each with one of its bodies, and the remaining bodies.

        Events with an ordering key or a delivery in a line keep their position, for replays.

        If a body contains an event's data unchanged, the row has only their offset and length in it.
        Otherwise the data are stored separately.
        """
        in_line = {d.event_id for d in deliveries if d.place is not None}
        of_event: dict[str, list[BodyRow]] = {}
        for body in bodies:
            of_event.setdefault(body.event_id, []).append(body)
        accepted_at, day = self._accepted_at, self.day
        events: list[tuple[object, ...]] = []
        further: list[BodyRow] = []
        for row, event in zip(self._rows, self.events, strict=True):
            own: BodyRow | None = None
            offset = -1
            length: int | None = None
            candidates = of_event.get(event.id)
            if candidates:
                data = event.data.encode()
                length = len(data)
                for candidate in candidates:
                    offset = candidate.bytes.find(data)
                    if offset >= 0:
                        own = candidate
                        break
                own = own or candidates[0]
                if len(candidates) > 1:
                    further += [body for body in candidates if body is not own]
            is_within = offset >= 0
            events.append(
                (
                    event.inserted_at,
                    accepted_at,
                    event.occurred_at,
                    day,
                    offset if is_within else None,
                    length if is_within else None,
                    event.id,
                    event.type,
                    event.tenant,
                    None if own is None else own.profile,
                    row["labels"] or "{}",
                    row["ordering_key"],
                    event.traceparent,
                    None if is_within else event.data,
                    None if own is None else own.bytes,
                    event.position
                    if row["ordering_key"] is not None or event.id in in_line
                    else None,
                )
            )
        return events, further

    async def _copy(
        self, table: str, names: Sequence[str], records: "Sequence[tuple[object, ...]]"
    ) -> None:
        await self._connection.copy_records_to_table(
            table, schema_name="dispatcher", columns=names, records=records
        )

    async def keep_open(self) -> None:
        """Run a statement, so that Postgres does not end the transaction as idle."""
        await self._connection.execute(_KEEP)

    async def announce(self, incarnation: str) -> None:
        """Notify the other replicas, at commit, that there are deliveries for them."""
        await announce_arrivals(self._connection, incarnation)

    async def announce_pulled(self, endpoint_nos: Sequence[int]) -> None:
        """Wake the polls of these endpoints, at commit."""
        await announce_pulled(self._connection, endpoint_nos)


class FewClaim(Claim):
    """Events that were read without a lock; `commit` claims and writes those that still wait."""

    def __init__(self, rows: "Sequence[Record]", events: list[Event]) -> None:
        self._rows = rows
        self.events = events
        self.routing_version = rows[0]["routing_version"] if rows else 0
        self._accepted_at = rows[0]["accepted_at"] if rows else None
        self.is_written = False
        self.lost = frozenset()
        self._written: tuple[list[BodyRow], list[DeliveryRow], list[CancelledRow]] = ([], [], [])
        self._announced_by: str | None = None
        self._pulled: Sequence[int] = ()

    @property
    def last_position(self) -> int:
        """The highest position of the events."""
        position: int = self._rows[-1]["position"]
        return position

    async def write(
        self, bodies: list[BodyRow], deliveries: list[DeliveryRow], cancelled: list[CancelledRow]
    ) -> None:
        """Keep the rows for `commit`."""
        self.is_written = True
        self._written = bodies, deliveries, cancelled

    async def keep_open(self) -> None:
        """Do nothing: no transaction is open."""

    async def announce(self, incarnation: str) -> None:
        """Notify the other replicas when the rows are written."""
        self._announced_by = incarnation

    async def announce_pulled(self, endpoint_nos: Sequence[int]) -> None:
        """Wake the polls of these endpoints when the rows are written."""
        self._pulled = endpoint_nos

    async def commit(self, database: Database, *, waits_for_disk: bool) -> None:
        """Claim and write the events that still wait; `lost` has the others."""
        bodies, deliveries, cancelled = self._written
        rows, further = self._event_rows(bodies, deliveries)
        events = [_claimed_event(row) for row in rows]
        numbered = all(_is_numbered(event.id) for event in self.events)
        fan_out = _FAN_OUT_NUMBERED if numbered else _FAN_OUT
        # Rows that are rare, or many, are copied in after the statement, in one transaction with it.
        if (
            further
            or cancelled
            or len(deliveries) > FEW_DELIVERIES_MAX
            or any(row.warnings or row.place for row in deliveries)
            or self._pulled
        ):
            async with database.transaction(waits_for_disk=waits_for_disk) as connection:
                taken = await connection.fetch(
                    fan_out, events, self._accepted_at, self.day, [], waits_for_disk,
                    self._announced_by,
                )  # fmt: skip
                self._lose(taken)
                self._connection = connection
                await self._write_deliveries(
                    [row for row in further if row.event_id not in self.lost],
                    [row for row in deliveries if row.event_id not in self.lost],
                    [row for row in cancelled if row.event_id not in self.lost],
                )
                if self._pulled:
                    await super().announce_pulled(self._pulled)
            return
        code = codes.event_type_code
        opened = [
            (uuid_of(row.id), row.event_id, row.endpoint_no, code(row.event_type))
            for row in deliveries
        ]
        self._lose(
            await database.fetch(
                fan_out, events, self._accepted_at, self.day, opened, waits_for_disk,
                self._announced_by,
            )
        )  # fmt: skip

    def _lose(self, taken: "Sequence[Record]") -> None:
        if len(taken) < len(self.events):
            self.lost = frozenset(e.id for e in self.events) - {row["id"] for row in taken}


def pulled_payload(endpoint_nos: Sequence[int]) -> str:
    """Return what a notification of pulled deliveries names; empty: any endpoint may have some."""
    return "" if len(endpoint_nos) > PULLED_NAMED_MAX else ",".join(map(str, endpoint_nos))


async def announce_pulled(connection: "Reach", endpoint_nos: Sequence[int]) -> None:
    """Wake the polls of these endpoints in every process, at commit."""
    await connection.execute(_ANNOUNCE_PULLED, pulled_payload(endpoint_nos))


async def announce_arrivals(connection: "Reach", incarnation: str) -> None:
    """Notify the replicas except this one, at commit, that there are deliveries for them; empty: notify all."""
    await connection.execute(_ANNOUNCE, incarnation)
