"""Rows of the history as people see them, and the values in which they are stored."""

import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncpg.pgproto.pgproto import UUID

from dispatcher.core import codes, ids
from dispatcher.core.model import DeliveryId

if TYPE_CHECKING:
    from asyncpg import Record

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FAILED_DAYS = 31
DELIVERY_COLUMNS = 15
"""How many columns the statements return that end in `delivery_details`."""


class DeliveryDetail(NamedTuple):
    """A delivery as people see it."""

    id: str
    day: date
    event_id: str
    endpoint_id: str
    event_type: str
    tenant: str
    profile: str
    state: str
    reason: str | None
    test: bool
    attempt_count: int
    schedule_position: int
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None
    warnings: list[str] | None


class AttemptDetail(NamedTuple):
    """An attempt as people see it."""

    attempt_number: int
    trigger: str
    outcome: str
    flags: list[str] | None
    attempted_at: datetime
    latency_seconds: float
    response_code: int | None
    response_body: bytes | None
    error: str | None
    url: str
    dns_seconds: float | None
    connect_seconds: float | None
    wait_seconds: float | None
    read_seconds: float | None
    reused: bool
    peer: str | None


def uuid_of(delivery_id: str) -> UUID:
    """Return the value of a delivery id's column."""
    return UUID(ids.to_bytes(delivery_id))


def uuids_of(delivery_ids: Sequence[str]) -> list[UUID]:
    """Return the values of delivery ids' columns."""
    return [UUID(ids.to_bytes(delivery_id)) for delivery_id in delivery_ids]


def delivery_ids_of(values: "Sequence[UUID]") -> list[DeliveryId]:
    """Return the ids in a column."""
    return ids.delivery_ids_of([value.bytes for value in values])


def first_uuid(at: datetime | None) -> UUID | None:
    """Return the lowest value that a delivery created at this moment or later can have."""
    if at is None:
        return None
    microseconds = (at - _EPOCH) // _EPOCH.resolution
    return UUID(ids.first_of(-(-microseconds // 1000)))  # rounded up: an id has whole milliseconds


def failed_since(now: datetime) -> date:
    """Return the first day whose failed deliveries are counted: older days would each be locked for a count."""
    return now.astimezone(UTC).date() - timedelta(days=FAILED_DAYS)


def day_of_uuid(value: uuid.UUID) -> date:
    """Return the day of the partition that holds deliveries with ids around this value."""
    unix_ms = int.from_bytes(value.bytes[:6], "big")
    try:
        return (_EPOCH + timedelta(milliseconds=unix_ms)).date()
    except OverflowError:
        return date.max


def span_of_event(inserted_at: datetime, day: date, event_id: str) -> tuple[UUID, UUID]:
    """Return the lowest and the highest value that the deliveries of an event can have."""
    low, high = ids.span_of_event(ids.delivery_unix_ms(inserted_at, day), event_id)
    return UUID(low), UUID(high)


def delivery_details(rows: "Sequence[Record]") -> list[DeliveryDetail]:
    """Return deliveries from rows that begin with a delivery's columns, in the statements' order."""
    found = delivery_ids_of([row[0] for row in rows])
    return [
        DeliveryDetail._make(
            (
                delivery_id,
                *row[1:7],
                codes.state_of(row[7]),
                codes.reason_of(row[8]),
                *row[9:13],
                ids.moment_of(delivery_id),
                *row[13:DELIVERY_COLUMNS],
            )
        )
        for row, delivery_id in zip(rows, found, strict=True)
    ]


def attempt_detail(values: Sequence[Any]) -> AttemptDetail:
    """Return an attempt from its columns, in the statements' order."""
    number, trigger, outcome, *rest = values
    return AttemptDetail._make(
        (number, codes.trigger_of(trigger), codes.outcome_of(outcome), *rest)
    )
