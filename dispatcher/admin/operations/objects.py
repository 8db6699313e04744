"""The objects of deliveries, attempts and events, and the version of an endpoint."""

import codecs
from collections.abc import Sequence

from dispatcher.admin.resources.serialization import JsonText, Object, time_text
from dispatcher.core.limits import RESPONSE_KEPT_BYTES_MAX
from dispatcher.core.url import masked_url
from dispatcher.store.columns import AttemptDetail, DeliveryDetail
from dispatcher.store.history import EventDetail


def delivery_object(
    delivery: DeliveryDetail,
    attempts: Sequence[AttemptDetail] | None = None,
    *,
    bodies: bool = True,
) -> Object:
    """Returns a delivery; `attempts` are part of it where one delivery was asked for.

    Without `bodies` what receivers answered is left null: whoever may only look must not read an
    internal service through the log of its deliveries.
    """
    found: Object = {
        "id": delivery.id,
        "event_id": delivery.event_id,
        "endpoint_id": delivery.endpoint_id,
        "event_type": delivery.event_type,
        "tenant": delivery.tenant,
        "profile": delivery.profile,
        "state": delivery.state,
        "reason": delivery.reason,
        "test": delivery.test,
        "attempt_count": delivery.attempt_count,
        "schedule_position": delivery.schedule_position,
        "next_attempt_at": time_text(delivery.next_attempt_at),
        "created_at": time_text(delivery.created_at),
        "finished_at": time_text(delivery.finished_at),
        "warnings": list(delivery.warnings or ()),
    }
    if attempts is not None:
        found["attempts"] = [attempt_object(attempt, bodies=bodies) for attempt in attempts]
    return found


def attempt_object(attempt: AttemptDetail, *, bodies: bool = True) -> Object:
    """Return an attempt; a body that is not UTF-8 has its bad bytes replaced.

    Without `bodies` the URL is masked as well: it may be a credential.
    """
    body = attempt.response_body if bodies else None
    return {
        "attempt_number": attempt.attempt_number,
        "trigger": attempt.trigger,
        "outcome": attempt.outcome,
        "flags": list(attempt.flags or ()),
        "attempted_at": time_text(attempt.attempted_at),
        "latency_seconds": round(attempt.latency_seconds, 6),
        "response_code": attempt.response_code,
        "response_body": None if body is None else body_text(body),
        "error": attempt.error,
        "url": attempt.url if bodies else masked_url(attempt.url),
    }


def phases_object(attempt: AttemptDetail, *, peer: bool) -> Object:
    """Returns where an attempt's time went, and over which connection."""
    return {
        "peer": attempt.peer if peer else None,
        "reused": attempt.reused,
        "dns_seconds": _seconds(attempt.dns_seconds),
        "connect_seconds": _seconds(attempt.connect_seconds),
        "wait_seconds": _seconds(attempt.wait_seconds),
        "read_seconds": _seconds(attempt.read_seconds),
    }


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def event_object(event: EventDetail, deliveries: Sequence[DeliveryDetail] | None = None) -> Object:
    """Returns an event with its data as written; `deliveries` where one event was asked for."""
    found: Object = {
        "id": event.id,
        "type": event.type,
        "tenant": event.tenant,
        "data": JsonText(event.data),
        "occurred_at": time_text(event.occurred_at),
        "ordering_key": event.ordering_key,
        "labels": event.labels,
        "traceparent": event.traceparent,
        "inserted_at": time_text(event.inserted_at),
        "accepted_at": time_text(event.accepted_at),
        "test": event.test,
        "quarantined_at": time_text(event.quarantined_at),
    }
    if deliveries is not None:
        found["deliveries"] = [delivery_object(delivery) for delivery in deliveries]
    return found


def body_text(body: bytes) -> str:
    """Returns a kept answer as text: bad bytes replaced, a character that the limit cut in two left out."""
    is_cut = len(body) == RESPONSE_KEPT_BYTES_MAX
    return codecs.getincrementaldecoder("utf-8")("replace").decode(body, final=not is_cut)


def endpoint_etag(endpoint: Object) -> str:
    """Returns the version of an endpoint's object as an entity tag, quotes included (RFC 9110, 8.8.3).

    Every change moves `updated_at`, which has microseconds, and changes of one endpoint wait for
    each other.
    """
    return f'"{endpoint["updated_at"]}"'
