"""Resources of deliveries, attempts and events, from their rows."""

import codecs
from collections.abc import Mapping, Sequence
from typing import Any

from dispatcher.admin.resources.delivery import (
    Attempt,
    Delivery,
    DeliveryWithAttempts,
    ResponseHeader,
)
from dispatcher.admin.resources.event import Event, SchemaMismatch
from dispatcher.admin.resources.serialization import JsonText, time_text
from dispatcher.core.limits import RESPONSE_KEPT_BYTES_MAX
from dispatcher.core.order import SHELVED
from dispatcher.core.printable import escape
from dispatcher.core.schemas import Schema
from dispatcher.core.url import masked_url
from dispatcher.store.attempts import AttemptDetail
from dispatcher.store.delivery_details import DeliveryDetail
from dispatcher.store.events import EventDetail


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
    due = row.next_attempt_at
    values["next_attempt_at"] = None if due is not None and due >= SHELVED else time_text(due)
    values["created_at"] = time_text(row.created_at)
    values["finished_at"] = time_text(row.finished_at)
    values["warnings"] = row.warnings or []
    values["labels"] = dict(row.labels)
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
        "response_headers": response_headers(row.response_headers) if bodies else [],
        "response_body": None if body is None else body_text(body),
        "error": row.error,
        "url": row.url if bodies else masked_url(row.url),
    }


def response_headers(lines: bytes | None) -> list[ResponseHeader]:
    """Return the stored header lines of a response; a folded line continues the one before.

    A receiver chooses these bytes. Those that are not UTF-8 are read as Latin-1, as HTTP once
    defined, and characters that steer a terminal or a reader's eye are escaped.
    """
    headers: list[ResponseHeader] = []
    for line in (lines or b"").split(b"\n"):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text = line.decode("latin-1")
        if text[:1] in {" ", "\t"} and headers:
            folded = f"{headers[-1].value} {escape(text.strip())}".strip()
            headers[-1] = ResponseHeader(name=headers[-1].name, value=folded)
        elif text.strip():
            name, _, value = text.partition(":")
            headers.append(ResponseHeader(name=escape(name.strip()), value=escape(value.strip())))
    return headers


def event_of(row: EventDetail, schemas: Mapping[str, Schema]) -> Event:
    """Return an event without its deliveries; its data keep their bytes."""
    return Event(**event_values(row, schemas))


def schema_mismatches(
    event_type: str, data: str, schemas: Mapping[str, Schema]
) -> list[SchemaMismatch]:
    """Return how an event differs from the schema of its type; none without a schema."""
    schema = schemas.get(event_type)
    if schema is None:
        return []
    return [SchemaMismatch(**one._asdict()) for one in schema.mismatches(data)]


def event_values(row: EventDetail, schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """Return the values of an event, by field."""
    values = row._asdict()
    del values["day"]
    values["data"] = JsonText(row.data)
    for name in ("occurred_at", "inserted_at", "accepted_at", "quarantined_at"):
        values[name] = time_text(values[name])
    values["schema_mismatches"] = schema_mismatches(row.type, row.data, schemas)
    return values


def body_text(body: bytes) -> str:
    """Return a stored response body as text; invalid bytes are replaced, a character that was cut is omitted."""
    is_cut = len(body) == RESPONSE_KEPT_BYTES_MAX
    return codecs.getincrementaldecoder("utf-8")("replace").decode(body, final=not is_cut)
