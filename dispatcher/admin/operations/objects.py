"""Resources of deliveries, attempts and events, from their rows."""

import codecs
from collections.abc import Sequence
from typing import Any

from dispatcher.admin.resources.delivery import Attempt, Delivery, DeliveryWithAttempts
from dispatcher.admin.resources.event import Event
from dispatcher.admin.resources.serialization import JsonText, time_text
from dispatcher.core.limits import RESPONSE_KEPT_BYTES_MAX
from dispatcher.core.url import masked_url
from dispatcher.store.columns import AttemptDetail, DeliveryDetail
from dispatcher.store.history import EventDetail


def delivery_of(row: DeliveryDetail) -> Delivery:
    """Return a delivery without its attempts."""
    return Delivery(**delivery_values(row))


def delivery_with_attempts(
    row: DeliveryDetail, attempts: Sequence[AttemptDetail], *, bodies: bool
) -> DeliveryWithAttempts:
    """Return a delivery with its attempts; see `attempt_of`."""
    return DeliveryWithAttempts(
        **delivery_values(row),
        attempts=[attempt_of(attempt, bodies=bodies) for attempt in attempts],
    )


def delivery_values(row: DeliveryDetail) -> dict[str, Any]:
    """Return the values of a delivery, by field."""
    values = row._asdict()
    del values["day"]
    values["next_attempt_at"] = time_text(row.next_attempt_at)
    values["created_at"] = time_text(row.created_at)
    values["finished_at"] = time_text(row.finished_at)
    values["warnings"] = row.warnings or []
    return values


def attempt_of(row: AttemptDetail, *, bodies: bool) -> Attempt:
    """Return an attempt.

    Without `bodies` it has no response body, because a viewer must not read an internal service
    through the log of its deliveries, and its URL is masked, because it may be a credential.
    """
    return Attempt(**attempt_values(row, bodies=bodies))


def attempt_values(row: AttemptDetail, *, bodies: bool) -> dict[str, Any]:
    """Return the values of an attempt, by field."""
    body = row.response_body if bodies else None
    return {
        "attempt_number": row.attempt_number,
        "trigger": row.trigger,
        "outcome": row.outcome,
        "flags": row.flags or [],
        "attempted_at": time_text(row.attempted_at),
        "latency_seconds": round(row.latency_seconds, 6),
        "response_code": row.response_code,
        "response_body": None if body is None else body_text(body),
        "error": row.error,
        "url": row.url if bodies else masked_url(row.url),
    }


def event_of(row: EventDetail) -> Event:
    """Return an event without its deliveries; its data keep their bytes."""
    return Event(**event_values(row))


def event_values(row: EventDetail) -> dict[str, Any]:
    """Return the values of an event, by field."""
    values = row._asdict()
    del values["day"]
    values["data"] = JsonText(row.data)
    for name in ("occurred_at", "inserted_at", "accepted_at", "quarantined_at"):
        values[name] = time_text(values[name])
    return values


def body_text(body: bytes) -> str:
    """Return a stored response body as text; invalid bytes are replaced, a character that was cut is omitted."""
    is_cut = len(body) == RESPONSE_KEPT_BYTES_MAX
    return codecs.getincrementaldecoder("utf-8")("replace").decode(body, final=not is_cut)
