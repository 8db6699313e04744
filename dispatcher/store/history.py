"""What operations ask of the database about events, deliveries and attempts, as people see them.

Reads are to run in `admin.reading`, planned for their own filters, because a plan made for all
filters fits none. Changes take the connection of the caller's transaction.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import orjson

from dispatcher.core import ids
from dispatcher.core.errors import DataFaultError
from dispatcher.store.day_walk import PLAN_FOR_VALUES, newest_first
from dispatcher.store.pool import Database
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.pool import Reach

_CONTROL_NOTIFY = statement("control_notify")
_DELIVERIES_PAGE = statement("deliveries_page")
_DELIVERIES_OF_EVENTS = statement("deliveries_of_events")
_EVENTS_LABELLED = statement("events_labelled")
_EVENTS_REQUESTED = statement("events_requested")
_EVENTS_OF_ID = statement("events_of_id")
_DELIVERY_FIND = statement("delivery_find")
_DELIVERY_CONTEXT = statement("delivery_context")
_BODY_LOAD = statement("body_load")
_EVENT_OF_DELIVERY = statement("event_of_delivery")
_DELIVERY_RESEND = statement("delivery_resend")
_DELIVERIES_RESENDABLE = statement("deliveries_resendable")
_DELIVERIES_RESEND = statement("deliveries_resend")
_DELIVERY_CANCEL = statement("delivery_cancel")
_ATTEMPTS_LOAD = statement("attempts_load")
_EVENT_PUBLISH = statement("event_publish")
_JSON_KIND = statement("json_kind")
_EVENT_FIND = statement("event_find")
_EVENTS_PAGE = statement("events_page")
_EVENTS_PAGE_OF_KEYS = statement("events_page_of_keys")
_EVENT_DELIVERIES = statement("event_deliveries")
_TRIAL_RECORD = statement("trial_record")

EVENT_DELIVERIES_MAX = 1000
EVENTS_MAX = 100


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


class ContextRow(NamedTuple):
    """What decides when a delivery goes on."""

    endpoint_id: str
    name: str
    url: str
    state: str
    reason: str | None
    rate_limit: float | None
    retry_schedule_seconds: list[float] | None
    deleted_at: datetime | None
    breaker_state: str | None
    probe_at: datetime | None
    is_resend_waiting: bool
    dispatchers_alive: int
    now: datetime


class EventKey(NamedTuple):
    """What an accepted event is found by."""

    day: date
    id: str


class EventDetail(NamedTuple):
    """An event as people see it; without `accepted_at` and `day` it still waits in the outbox."""

    id: str
    type: str
    tenant: str
    data: str
    occurred_at: datetime
    ordering_key: str | None
    labels: dict[str, str]
    traceparent: str | None
    inserted_at: datetime
    accepted_at: datetime | None
    test: bool
    day: date | None


async def call_dispatchers(connection: "Reach") -> None:
    """Lets dispatchers look, once the transaction has committed, for what people asked."""
    await connection.execute(_CONTROL_NOTIFY)


def _limit(value: object) -> int:
    assert isinstance(value, int)  # noqa: S101 -- the statement's own parameter
    return value


# Deliveries


async def page_of_deliveries(
    connection: "Reach", filters: Sequence[object]
) -> list[DeliveryDetail]:
    """Returns a page; `filters` in the order of the statement."""
    limit = _limit(filters[11])
    rows = await newest_first(
        connection, _DELIVERIES_PAGE, *filters, enough=lambda found: len(found) >= limit
    )
    return [DeliveryDetail(*row) for row in rows[:limit]]


async def page_of_events_deliveries(
    connection: "Reach", events: Sequence[EventKey], filters: Sequence[object]
) -> list[DeliveryDetail]:
    """Returns a page of the deliveries of some events; `filters` in the order of the statement."""
    days, event_ids = [event.day for event in events], [event.id for event in events]
    rows = await connection.fetch(_DELIVERIES_OF_EVENTS, days, event_ids, *filters)
    return [DeliveryDetail(*row) for row in rows]


async def labelled_events(
    connection: "Reach", filters: Sequence[object]
) -> list[tuple[EventKey, datetime]]:
    """Returns accepted events by their labels, with when, newest first; `filters` in the statement's order."""
    rows = await connection.fetch(_EVENTS_LABELLED, *filters)
    return [(EventKey(row[0], row[1]), row[2]) for row in rows]


async def requested_events(
    connection: "Reach", digits: bytes, profiles: Sequence[str]
) -> list[EventKey]:
    """Returns the events whose body under one of the profiles has a request id of these digits."""
    rows = await newest_first(
        connection, _EVENTS_REQUESTED, digits, list(profiles),
        enough=lambda found: len(found) >= EVENTS_MAX,
    )  # fmt: skip
    return [EventKey(*row) for row in rows]


async def events_of_id(connection: "Reach", event_id: str) -> list[EventKey]:
    """Returns every accepted event of an id, newest first."""
    rows = await newest_first(
        connection, _EVENTS_OF_ID, event_id, enough=lambda found: len(found) >= EVENTS_MAX
    )
    return [EventKey(row[0], row[1]) for row in rows]


async def find_delivery(
    connection: "Reach", delivery_id: str, tenant: str | None
) -> DeliveryDetail | None:
    """Returns a delivery; None: there is none of that id.

    Its partition is that of its event's acceptance, which lies within a day of the moment in the
    id.
    """
    if not ids.is_id(delivery_id, ids.DELIVERY_PREFIX):
        return None
    try:
        made = ids.day_of(delivery_id)
        days = [made + timedelta(days=offset) for offset in (-1, 0, 1)]
    except (ValueError, OverflowError):
        return None
    row = await connection.fetchrow(_DELIVERY_FIND, delivery_id, days, tenant)
    return None if row is None else DeliveryDetail(*row)


async def load_attempts(connection: "Reach", delivery: DeliveryDetail) -> list[AttemptDetail]:
    """Returns the attempts of a delivery, in order."""
    rows = await connection.fetch(_ATTEMPTS_LOAD, delivery.id, delivery.day)
    return [AttemptDetail(*row) for row in rows]


async def load_context(connection: "Reach", delivery: DeliveryDetail) -> ContextRow | None:
    """Returns what decides when a delivery goes on; None: its endpoint's row is not there."""
    row = await connection.fetchrow(_DELIVERY_CONTEXT, delivery.endpoint_id, delivery.id)
    return None if row is None else ContextRow(*row)


async def load_body(connection: "Reach", delivery: DeliveryDetail) -> bytes | None:
    """Returns the bytes that every attempt of a delivery sends; None: none were made."""
    body: bytes | None = await connection.fetchval(
        _BODY_LOAD, delivery.day, delivery.event_id, delivery.profile
    )
    return body


async def load_event(connection: "Reach", delivery: DeliveryDetail) -> EventDetail | None:
    """Returns the event of a delivery."""
    row = await connection.fetchrow(_EVENT_OF_DELIVERY, delivery.day, delivery.event_id)
    return None if row is None else _event(row)


async def ask_for_resend(connection: "Reach", delivery: DeliveryDetail, actor: str) -> bool:
    """Asks for one more attempt; returns whether the endpoint is still there."""
    asked = await connection.fetchval(
        _DELIVERY_RESEND, delivery.id, delivery.day, delivery.endpoint_id, actor
    )
    await call_dispatchers(connection)
    return asked is not None


async def count_resendable(connection: "Reach", deliveries: Sequence[DeliveryDetail]) -> int:
    """Returns how many of the deliveries have their endpoint and body still."""
    await connection.execute(PLAN_FOR_VALUES)
    count = await connection.fetchval(
        _DELIVERIES_RESENDABLE,
        [row.day for row in deliveries],
        [row.endpoint_id for row in deliveries],
        [row.event_id for row in deliveries],
        [row.profile for row in deliveries],
    )
    return int(count)


async def ask_for_resends(
    connection: "Reach", deliveries: Sequence[DeliveryDetail], actor: str
) -> int:
    """Asks for one more attempt of each whose endpoint and body are still there; returns how many."""
    await connection.execute(PLAN_FOR_VALUES)
    asked = await connection.fetchval(
        _DELIVERIES_RESEND,
        [row.id for row in deliveries],
        [row.day for row in deliveries],
        [row.endpoint_id for row in deliveries],
        actor,
        [row.event_id for row in deliveries],
        [row.profile for row in deliveries],
    )
    await call_dispatchers(connection)
    return int(asked)


async def cancel_delivery(connection: "Reach", delivery_id: str, actor: str) -> bool:
    """Ends an open delivery; returns whether it was open."""
    ended = await connection.fetchval(_DELIVERY_CANCEL, delivery_id, actor)
    await call_dispatchers(connection)
    return ended is not None


async def record_trial(connection: "Reach", values: Sequence[object]) -> None:
    """Records a test event with its one attempt; values in the order of the statement."""
    await connection.execute(_TRIAL_RECORD, *values)


# Events


def _event(row: "Record") -> EventDetail:
    values = {name: row[name] for name in EventDetail._fields}
    return EventDetail(**{**values, "labels": orjson.loads(row["labels"])})


async def json_kind(database: Database, text: str) -> str | None:
    """Returns what kind of JSON a text is (`object`, `array`, ...); None: it is none.

    Postgres is asked because it judges what producers insert: no two parsers agree on every text.
    """
    try:
        kind: str | None = await database.fetch_value(_JSON_KIND, text)
    except (DataFaultError, asyncpg.StatementTooComplexError):
        return None
    return kind


async def publish_event(connection: "Reach", values: Sequence[object]) -> str | None:
    """Inserts into the outbox; returns the id, None where it is known. Values in the statement's order."""
    event_id: str | None = await connection.fetchval(_EVENT_PUBLISH, *values)
    return event_id


async def find_event(connection: "Reach", event_id: str, tenant: str | None) -> EventDetail | None:
    """Returns the newest event of that id; None: there is none."""
    rows = await newest_first(connection, _EVENT_FIND, event_id, tenant, enough=bool)
    return _event(rows[0]) if rows else None


async def page_of_events(connection: "Reach", filters: Sequence[object]) -> list[EventDetail]:
    """Returns a page; `filters` in the order of the statement."""
    limit = _limit(filters[8])
    rows = await newest_first(
        connection, _EVENTS_PAGE, *filters, enough=lambda found: len(found) >= limit
    )
    return [_event(row) for row in rows[:limit]]


async def page_of_certain_events(
    connection: "Reach", events: Sequence[EventKey], filters: Sequence[object]
) -> list[EventDetail]:
    """Returns a page of these accepted events and of waiting ones; `filters` in the statement's order."""
    days, event_ids = [event.day for event in events], [event.id for event in events]
    rows = await connection.fetch(_EVENTS_PAGE_OF_KEYS, days, event_ids, *filters)
    return [_event(row) for row in rows]


async def deliveries_of_event(connection: "Reach", event: EventDetail) -> list[DeliveryDetail]:
    """Returns the deliveries of an event, the first thousand where there are more."""
    if event.day is None:
        return []
    rows = await connection.fetch(_EVENT_DELIVERIES, event.id, event.day, EVENT_DELIVERIES_MAX)
    return [DeliveryDetail(*row) for row in rows]
