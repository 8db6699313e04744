"""The objects that operations answer: their keys, their times, and pages with opaque cursors."""

import base64
import binascii
import codecs
import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar

import orjson

from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.limits import RESPONSE_KEPT_BYTES_MAX
from dispatcher.core.url import masked_url
from dispatcher.store.columns import AttemptDetail, DeliveryDetail
from dispatcher.store.history import EventDetail

Row = TypeVar("Row")
Object = dict[str, Any]
"""Ready for `write_json`; times are texts, an event's data is a `JsonText`."""

LIMIT_DEFAULT: Final = 50
LIMIT_MAX: Final = 500
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class JsonText:
    """JSON that is written as it stands: digits, order of keys and spaces of an event's data stay."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class Place(NamedTuple):
    """Where a page ended: the time and id of its last item."""

    at: datetime
    id: str


def write_json(value: object, *, indent: bool = False) -> bytes:
    """Returns an object as JSON."""
    return orjson.dumps(value, _fragment, orjson.OPT_INDENT_2 if indent else 0)


def _fragment(value: object) -> orjson.Fragment:
    if isinstance(value, JsonText):
        return orjson.Fragment(value.text)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def time_text(moment: datetime | None) -> str | None:
    """Returns RFC 3339 in UTC with microseconds and `Z`, as in `2026-05-29T14:32:11.000000Z`."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


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


def page_object(
    rows: Sequence[Row],
    limit: int,
    place: Callable[[Row], Place],
    item: Callable[[Row], Object],
    *,
    scope: str = "",
) -> Object:
    """Returns a page of at most `limit` of the rows, of which one more than that was asked for."""
    shown = rows[:limit]
    cursor = write_cursor(place(shown[-1]), scope) if len(rows) > limit else None
    return {"items": [item(row) for row in shown], "next_cursor": cursor}


def cursor_scope(listing: str, tenant: str | None, wanted: Mapping[str, object]) -> str:
    """Returns what a cursor is bound to: the listing, whose it is, and its filter."""
    text = orjson.dumps([listing, tenant, dict(wanted)], default=str, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:12]


def write_cursor(place: Place, scope: str = "") -> str:
    """Returns a text that `read_cursor` turns back under the same scope; nobody else is to read it."""
    microseconds = (place.at - _EPOCH) // timedelta(microseconds=1)
    text = f"{microseconds}|{scope}|{place.id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(text: str | None, scope: str = "") -> Place | None:
    """Returns the place of a cursor; None is the first page.

    Raises:
        InvalidRequestError: the text is no cursor of ours, or that of another list or filter.
    """
    if text is None:
        return None
    place, bound_to = _opened_cursor(text)
    if bound_to != scope:
        raise InvalidRequestError(
            [("cursor", "belongs to a list with another filter; begin with its first page")]
        )
    return place


def cursor_problems(text: str) -> list[tuple[str, str]]:
    """Lists what is wrong with a cursor, whatever list it is of."""
    try:
        _opened_cursor(text)
    except InvalidRequestError as error:
        return error.problems
    return []


def _opened_cursor(text: str) -> tuple[Place, str]:
    """Returns the place of a cursor and the scope that it is bound to."""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        decoded = base64.b64decode(padded, b"-_", validate=True).decode()
        microseconds, bound_to, identifier = decoded.split("|", 2)
        place = Place(_EPOCH + timedelta(microseconds=int(microseconds)), identifier)
    except (binascii.Error, ValueError, OverflowError):
        raise _no_cursor() from None
    if not place.id.isprintable() or write_cursor(place, bound_to) != text:
        raise _no_cursor()
    return place, bound_to


def _no_cursor() -> InvalidRequestError:
    return InvalidRequestError([("cursor", "is not a next_cursor of an earlier page")])


def limit_problems(limit: int) -> list[tuple[str, str]]:
    """Lists what is wrong with the size of a page."""
    if 1 <= limit <= LIMIT_MAX:
        return []
    return [("limit", f"must be from 1 to {LIMIT_MAX}")]
