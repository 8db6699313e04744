"""How the ids of deliveries are stored: as UUIDs, in the order of their creation."""

import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from asyncpg.pgproto.pgproto import UUID

from dispatcher.core import ids
from dispatcher.core.model import DeliveryId

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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


def moment_of_uuid(value: uuid.UUID) -> datetime:
    """Return when a delivery with this id was created."""
    unix_ms = int.from_bytes(value.bytes[:6], "big")
    try:
        return _EPOCH + timedelta(milliseconds=unix_ms)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def day_of_uuid(value: uuid.UUID) -> date:
    """Return the day of the partition that holds deliveries with ids around this value."""
    return moment_of_uuid(value).date()


def span_of_event(inserted_at: datetime, day: date, event_id: str) -> tuple[UUID, UUID]:
    """Return the lowest and the highest value that the deliveries of an event can have."""
    low, high = ids.span_of_event(ids.delivery_unix_ms(inserted_at, day), event_id)
    return UUID(low), UUID(high)
