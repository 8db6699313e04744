"""The table `event`: accepted events, with the waiting ones where people see both; and their erasure.

Reads are to run in `Database.reading`, planned for their own filters, because a plan made for all
filters fits none. Changes take the connection of the caller's transaction.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import orjson

from dispatcher.core import ids
from dispatcher.store.day_walk import (
    PLAN_AS_BEFORE,
    PLAN_FOR_VALUES,
    days_of_events,
    newest_first,
    newest_page,
)
from dispatcher.store.delivery_ids import span_of_event
from dispatcher.store.delivery_requests import notify_dispatchers
from dispatcher.store.kept_plans import fetch_of_days, month_reader, page_reader
from dispatcher.store.pool import Database
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.delivery_details import DeliveryDetail
    from dispatcher.store.pool import Reach

_EVENTS_LABELLED = statement("event_list_labelled")
_EVENTS_REQUESTED = statement("event_list_requested")
_EVENTS_OF_KEYS = statement("event_list_of_keys")
_BODY_KEYS = statement("endpoint_body_keys")
_EVENTS_OF_ID = statement("event_list_of_id")
_EVENT_OF_DELIVERY = statement("event_load_of_delivery")
_EVENT_FIND = statement("event_find")
_EVENT_OUTCOMES = statement("event_outcomes")
_TYPES_RECENT = statement("event_type_recent")
_EVENTS_PAGE = statement("event_page")
_EVENTS_PAGE_OF_KEYS = statement("event_page_of_keys")
_RECORD_TEST = statement("event_record_test")
_ERASE = statement("event_erase")
_COUNT = statement("event_erase_count")
_DAYS = statement("event_days")
_LABELLED = statement("event_erase_labelled")
_OUTBOX_LABELLED = statement("event_erase_labelled_waiting")

EVENTS_MAX = 100
_LABELS = frozenset({2, 9})
"""The filters of a page whose value decides which index is read: labels, and a value under any label."""
_KEPT = frozenset(range(11)) - _LABELS
OWN_BODIES_MAX = 20
"""A statement that is kept names so many endpoints with bodies of their own at most."""
SLICE_ROWS = 20_000
"""Events looked at in one statement; some 20 ms each."""


class EventKey(NamedTuple):
    """The key of an accepted event and of its deliveries."""

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


class Erased(NamedTuple):
    """The contents of one event that were erased, as counts."""

    events: int
    bodies: int
    answers: int
    cancelled: int
    """Deliveries that waited."""


class OutcomeCounts(NamedTuple):
    """The deliveries of one event, by what became of them."""

    succeeded_count: int
    failed_count: int
    cancelled_count: int
    waiting_count: int


class TypeRow(NamedTuple):
    """An event type among the newest events."""

    type: str
    events_count: int
    last_at: datetime


class EventDay(NamedTuple):
    """A day on which an event of an id was accepted."""

    day: date
    tenant: str
    inserted_at: datetime


async def keys_of_labelled_events(
    connection: "Reach", filters: Sequence[object]
) -> list[tuple[EventKey, datetime]]:
    """Return accepted events by their labels, with when, newest first; `filters` in the statement's order."""
    rows = await newest_page(connection, _EVENTS_LABELLED, *filters, limit=filters[6])
    return [(EventKey(*row[:3]), row[3]) for row in rows]


async def requested_events(
    connection: "Reach", digits: bytes, profiles: Sequence[str]
) -> list[EventKey]:
    """Return the events whose body under one of the profiles has a request id of these digits."""
    own = [row[0] for row in await connection.fetch(_BODY_KEYS, list(profiles))]
    filters = [digits, [*profiles, *own]]
    # The indexes are of certain profiles, so a plan for any profile uses none of them.
    names = {1: f"{{{','.join([*profiles, *own])}}}"} if len(own) <= OWN_BODIES_MAX else {}
    rows = await newest_page(
        connection,
        _EVENTS_REQUESTED,
        *filters,
        limit=EVENTS_MAX,
        details=partial(_of_keys, connection),
        month=page_reader(connection, _EVENTS_REQUESTED, filters, values={0}, constants=names),
    )
    return [EventKey(*row) for row in rows]


async def _of_keys(connection: "Reach", picked: "list[Record]") -> "list[Record]":
    """Return the keys with their times."""
    if not picked:
        return []
    days = [row[0] for row in picked]
    await connection.execute(PLAN_AS_BEFORE)
    rows = await fetch_of_days(
        connection, _EVENTS_OF_KEYS, days, [row[1] for row in picked], days=days
    )
    keys = {(row[0], row[1]) for row in picked}
    return [row for row in rows if (row[0], row[1]) in keys]


async def events_of_id(connection: "Reach", event_id: str) -> list[EventKey]:
    """Return every accepted event of an id, newest first."""
    rows = await newest_page(
        connection,
        _EVENTS_OF_ID,
        event_id,
        limit=EVENTS_MAX,
        month=month_reader(connection, _EVENTS_OF_ID, event_id),
    )
    return [EventKey(*row) for row in rows]


async def load_event(connection: "Reach", delivery: "DeliveryDetail") -> EventDetail | None:
    """Return the event of a delivery."""
    row = await connection.fetchrow(_EVENT_OF_DELIVERY, delivery.day, delivery.event_id)
    return None if row is None else event_detail(row)


async def record_test_event(connection: "Reach", values: Sequence[object]) -> None:
    """Record a test event with its one attempt; the values are in the order of the statement."""
    await connection.execute(_RECORD_TEST, *values)


def event_detail(row: "Record") -> EventDetail:
    """Return an event from a row whose columns have the names of the fields."""
    values = {name: row[name] for name in EventDetail._fields if name in row}
    return EventDetail(**{**values, "labels": orjson.loads(row["labels"])})


async def find_event(connection: "Reach", event_id: str, tenant: str | None) -> EventDetail | None:
    """Return the newest event of that id; None: there is none."""
    rows = await newest_first(
        connection,
        _EVENT_FIND,
        event_id,
        tenant,
        enough=bool,
        month=month_reader(connection, _EVENT_FIND, event_id, tenant),
    )
    return event_detail(rows[0]) if rows else None


async def page_of_events(connection: "Reach", filters: Sequence[object]) -> list[EventDetail]:
    """Return a page; `filters` in the order of the statement."""
    since = filters[4]
    rows = await newest_page(
        connection,
        _EVENTS_PAGE,
        *filters,
        limit=filters[8],
        oldest=since.astimezone(UTC).date() if isinstance(since, datetime) else None,
        is_of_history=False,  # those that wait, or are quarantined, are of no partition
        month=page_reader(connection, _EVENTS_PAGE, filters, values=_KEPT),
    )
    return [event_detail(row) for row in rows]


async def read_outcomes(
    connection: "Reach", events: Sequence[EventKey], deliveries_max: int
) -> dict[tuple[date, str], OutcomeCounts]:
    """Return the deliveries of some events, counted, by the day and the id of each event."""
    spans = [span_of_event(event.inserted_at, event.day, event.id) for event in events]
    rows = await connection.fetch(
        _EVENT_OUTCOMES,
        [event.day for event in events],
        [event.id for event in events],
        [low for low, _ in spans],
        [high for _, high in spans],
        deliveries_max,
    )
    return {(row[0], row[1]): OutcomeCounts(*tuple(row)[2:]) for row in rows}


async def read_recent_types(
    connection: "Reach", since: datetime, tenant: str | None, events_max: int, types_max: int
) -> tuple[list[TypeRow], int, datetime | None]:
    """Return the types of the newest events, how many events were read, and when the oldest was accepted."""
    day = since.astimezone(UTC).date()
    rows = await connection.fetch(_TYPES_RECENT, since, day, events_max, tenant, types_max)
    types = [TypeRow(*tuple(row)[2:]) for row in rows if row["type"] is not None]
    return types, rows[0]["read_count"], rows[0]["oldest_at"]


async def page_of_certain_events(
    connection: "Reach", events: Sequence[EventKey], filters: Sequence[object]
) -> list[EventDetail]:
    """Return a page of these accepted events and of waiting ones; `filters` in the statement's order."""
    days, event_ids = [event.day for event in events], [event.id for event in events]
    rows = await connection.fetch(_EVENTS_PAGE_OF_KEYS, days, event_ids, *filters)
    return [event_detail(row) for row in rows]


async def labelled_event_ids(
    database: Database, labels: Mapping[str, str], tenant: str | None
) -> AsyncIterator[str]:
    """Yield the ids of all events with these labels, waiting ones first; it reads all events of all days."""
    text = orjson.dumps(dict(labels)).decode()
    last_id = ""
    while rows := await database.fetch(_OUTBOX_LABELLED, text, tenant, last_id):
        for row in rows:
            yield row["id"]
        last_id = rows[-1]["id"]
    for day in await days_of_events(database):
        after: str | None = ""
        while after is not None:
            async with database.transaction(is_planned_for_values=True) as connection:
                found = await connection.fetchrow(_LABELLED, day, after, text, SLICE_ROWS, tenant)
            after = None if found is None else found["last_id"]
            for event_id in [] if found is None else found["ids"]:
                yield event_id


async def days_of_event(connection: "Reach", event_id: str, tenant: str | None) -> list[EventDay]:
    """Return the days on which events of this id were accepted."""
    rows = await newest_first(connection, _DAYS, event_id, tenant, enough=lambda _: False)
    return [EventDay(*row) for row in rows]


async def count_erasable(connection: "Reach", event_id: str, tenant: str | None) -> Erased:
    """Return what erasing this id would remove."""
    days = await days_of_event(connection, event_id, tenant)
    spans = [span_of_event(day.inserted_at, day.day, event_id) for day in days]
    await connection.execute(PLAN_FOR_VALUES)
    row = await connection.fetchrow(
        _COUNT,
        event_id,
        tenant,
        [day.day for day in days],
        [low for low, _ in spans],
        [high for _, high in spans],
    )
    assert row is not None  # noqa: S101 -- a SELECT of subqueries has one row
    return Erased(*row)


async def erase_event(connection: "Reach", event_id: str, day: EventDay, actor: str) -> Erased:
    """Blank one accepted event; its dispatchers are notified to drop its deliveries from memory."""
    await connection.execute(PLAN_FOR_VALUES)
    span = span_of_event(day.inserted_at, day.day, event_id)
    row = await connection.fetchrow(_ERASE, event_id, day.day, actor, *span)
    assert row is not None  # noqa: S101 -- a SELECT of subqueries has one row
    await notify_dispatchers(connection)
    return Erased(1, row["bodies"], row["answers"], row["cancelled"])
