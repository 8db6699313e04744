"""What operations ask of the database about events, deliveries and attempts, as people see them.

Reads are to run in `Database.reading`, planned for their own filters, because a plan made for all
filters fits none. Changes take the connection of the caller's transaction.
"""

from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import orjson

from dispatcher.core import ids
from dispatcher.core.errors import DataFaultError
from dispatcher.store.columns import (
    AttemptDetail,
    DeliveryDetail,
    attempt_detail,
    delivery_details,
    delivery_ids_of,
    span_of_event,
    uuid_of,
    uuids_of,
)
from dispatcher.store.day_walk import PLAN_FOR_VALUES, newest_first
from dispatcher.store.pool import Database
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record
    from asyncpg.pgproto.pgproto import UUID

    from dispatcher.store.pool import Reach

_CONTROL_NOTIFY = statement("delivery_request_notify")
_DELIVERIES_PAGE = statement("delivery_page")
_DELIVERIES_PAGE_OF_ENDPOINTS = statement("delivery_page_of_endpoints")
_ENDPOINT_NUMBERS = statement("endpoint_numbers")
_DELIVERIES_OF_EVENTS = statement("delivery_page_of_events")
_EVENTS_LABELLED = statement("event_list_labelled")
_EVENTS_REQUESTED = statement("event_list_requested")
_EVENTS_OF_ID = statement("event_list_of_id")
_DELIVERY_FIND = statement("delivery_find")
_DELIVERY_CONTEXT = statement("delivery_context")
_BODY_LOAD = statement("body_load")
_EVENT_OF_DELIVERY = statement("event_load_of_delivery")
_DELIVERY_RESEND = statement("delivery_resend")
_DELIVERIES_RESENDABLE = statement("delivery_count_resendable")
_DELIVERIES_RESEND = statement("delivery_resend_many")
_DELIVERY_CANCEL = statement("delivery_cancel")
_ATTEMPTS_LOAD = statement("attempt_load")
_ATTEMPTS_LAST = statement("attempt_last")
_EVENT_PUBLISH = statement("outbox_insert")
_EVENT_PUBLISH_LIMITS = statement("outbox_insert_limits")
_JSON_KIND = statement("server_json_type")
_EVENT_FIND = statement("event_find")
_EVENTS_QUARANTINED = statement("outbox_page_quarantined")
_RELEASE = statement("outbox_release")
_EVENTS_PAGE = statement("event_page")
_EVENTS_PAGE_OF_KEYS = statement("event_page_of_keys")
_EVENT_DELIVERIES = statement("event_deliveries")
_TRIAL_RECORD = statement("event_record_test")
_TEST_SUCCEEDED = statement("endpoint_breaker_report_test")

EVENT_DELIVERIES_MAX = 1000
EVENTS_MAX = 100
FEW_ENDPOINTS = 8
"""A tenant with so few endpoints has its pages read endpoint by endpoint."""


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
    """What an accepted event and its deliveries are found by."""

    day: date
    id: str
    inserted_at: datetime

    @property
    def unix_ms(self) -> int:
        """The time in the ids of its deliveries."""
        return ids.delivery_unix_ms(self.inserted_at, self.day)


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
    quarantined_at: datetime | None = None
    """When Postgres rejected its fan-out; it stays in the outbox until it is released."""


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
    tenant, endpoint_id, *rest = filters
    limit = _limit(filters[12])
    if tenant is not None and endpoint_id is None:
        rows = await connection.fetch(_ENDPOINT_NUMBERS, tenant, FEW_ENDPOINTS + 1)
        if len(rows) <= FEW_ENDPOINTS:
            numbers = [row[0] for row in rows]
            page = await newest_first(
                connection, _DELIVERIES_PAGE_OF_ENDPOINTS, numbers, None, *rest,
                enough=lambda found: len(found) >= limit,
            )  # fmt: skip
            return delivery_details(page[:limit])
    rows = await newest_first(
        connection, _DELIVERIES_PAGE, *filters, enough=lambda found: len(found) >= limit
    )
    return delivery_details(rows[:limit])


async def page_of_events_deliveries(
    connection: "Reach", events: Sequence[EventKey], filters: Sequence[object]
) -> list[DeliveryDetail]:
    """Returns a page of the deliveries of some events; `filters` in the order of the statement."""
    rows = await connection.fetch(
        _DELIVERIES_OF_EVENTS,
        [event.day for event in events],
        [event.id for event in events],
        *_spans([(event.inserted_at, event.day, event.id) for event in events]),
        *filters,
    )
    return delivery_details(rows)


async def labelled_events(
    connection: "Reach", filters: Sequence[object]
) -> list[tuple[EventKey, datetime]]:
    """Returns accepted events by their labels, with when, newest first; `filters` in the statement's order."""
    limit = _limit(filters[6])
    rows = await newest_first(
        connection, _EVENTS_LABELLED, *filters, enough=lambda found: len(found) >= limit
    )
    return [(EventKey(*row[:3]), row[3]) for row in rows[:limit]]


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
    return [EventKey(*row) for row in rows]


async def find_delivery(
    connection: "Reach", delivery_id: str, tenant: str | None
) -> DeliveryDetail | None:
    """Returns a delivery; None: there is none of that id. The id names its partition."""
    if not ids.is_id(delivery_id, ids.DELIVERY_PREFIX):
        return None
    try:
        day = ids.day_of(delivery_id)
    except ValueError:
        return None
    rows = await connection.fetch(_DELIVERY_FIND, uuid_of(delivery_id), day, tenant)
    return delivery_details(rows)[0] if rows else None


async def load_attempts(connection: "Reach", delivery: DeliveryDetail) -> list[AttemptDetail]:
    """Returns the attempts of a delivery, in order."""
    rows = await connection.fetch(
        _ATTEMPTS_LOAD, delivery.day, delivery.event_id, delivery.endpoint_id
    )
    return [attempt_detail(tuple(row)) for row in rows]


async def load_context(connection: "Reach", delivery: DeliveryDetail) -> ContextRow | None:
    """Returns what decides when a delivery goes on; None: its endpoint's row is not there."""
    row = await connection.fetchrow(_DELIVERY_CONTEXT, delivery.endpoint_id, uuid_of(delivery.id))
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
        _DELIVERY_RESEND,
        uuid_of(delivery.id),
        delivery.day,
        delivery.endpoint_id,
        actor,
        delivery.event_id,
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
        uuids_of([row.id for row in deliveries]),
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
    ended = await connection.fetchval(_DELIVERY_CANCEL, uuid_of(delivery_id), actor)
    await call_dispatchers(connection)
    return ended is not None


async def record_trial(connection: "Reach", values: Sequence[object]) -> None:
    """Records a test event with its one attempt; values in the order of the statement."""
    await connection.execute(_TRIAL_RECORD, *values)


async def report_test_succeeded(connection: "Reach", endpoint_id: str) -> None:
    """Have the replica that sends for the endpoint close its breaker, once this is committed."""
    await connection.execute(_TEST_SUCCEEDED, endpoint_id)


# Events


def _event(row: "Record") -> EventDetail:
    values = {name: row[name] for name in EventDetail._fields if name in row}
    return EventDetail(**{**values, "labels": orjson.loads(row["labels"])})


async def json_kind(database: Database, text: str) -> str | None:
    """Returns what kind of JSON a text is (`object`, `array`, ...); None: it is none.

    Postgres decides because it validates what producers insert: no two parsers agree on every text.
    """
    try:
        kind: str | None = await database.fetch_value(_JSON_KIND, text)
    except (DataFaultError, asyncpg.StatementTooComplexError):
        return None
    return kind


async def publish_event(connection: "Reach", values: Sequence[object]) -> str | None:
    """Inserts into the outbox; returns the id, None where it is known. Values in the statement's order."""
    await connection.execute(_EVENT_PUBLISH_LIMITS)
    event_id: str | None = await connection.fetchval(_EVENT_PUBLISH, *values)
    return event_id


async def find_event(connection: "Reach", event_id: str, tenant: str | None) -> EventDetail | None:
    """Returns the newest event of that id; None: there is none."""
    rows = await newest_first(connection, _EVENT_FIND, event_id, tenant, enough=bool)
    return _event(rows[0]) if rows else None


async def page_of_quarantined_events(
    connection: "Reach", filters: Sequence[object]
) -> list[EventDetail]:
    """Return a page; `filters` in the order of the statement."""
    return [_event(row) for row in await connection.fetch(_EVENTS_QUARANTINED, *filters)]


async def release_event(connection: "Reach", event_id: str, tenant: str | None) -> str | None:
    """Return a quarantined event to the queue; return its tenant, None where it is not quarantined."""
    found: str | None = await connection.fetchval(_RELEASE, event_id, tenant)
    if found is not None:
        await call_dispatchers(connection)
    return found


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
    span = span_of_event(event.inserted_at, event.day, event.id)
    return delivery_details(
        await connection.fetch(_EVENT_DELIVERIES, event.id, event.day, EVENT_DELIVERIES_MAX, *span)
    )


def _spans(events: "Sequence[tuple[datetime, date, str]]") -> "tuple[list[UUID], list[UUID]]":
    """Returns the lowest and the highest id that each event's deliveries can have."""
    spans = [span_of_event(*event) for event in events]
    return [low for low, _ in spans], [high for _, high in spans]


async def read_last_attempts(
    connection: "Reach", deliveries: Sequence[tuple[str, str, str]]
) -> dict[str, AttemptDetail]:
    """Return the last attempt of each delivery (id, event's id, endpoint's id) that has one."""
    rows = await connection.fetch(
        _ATTEMPTS_LAST,
        uuids_of([delivery[0] for delivery in deliveries]),
        [ids.day_of(delivery[0]) for delivery in deliveries],
        [delivery[1] for delivery in deliveries],
        [delivery[2] for delivery in deliveries],
    )
    found = delivery_ids_of([row[0] for row in rows])
    return {
        delivery_id: attempt_detail(tuple(row)[1:])
        for delivery_id, row in zip(found, rows, strict=True)
    }
