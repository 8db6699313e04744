"""The view `delivery_details`: deliveries as people see them, open ones and those that ended.

Reads are to run in `Database.reading`, planned for their own filters, because a plan made for all
filters fits none.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

import orjson
from asyncpg.pgproto.pgproto import UUID

from dispatcher.core import codes, ids
from dispatcher.store.attempts import AttemptDetail, attempt_detail
from dispatcher.store.day_walk import DAYS_AT_ONCE, PAGE_DAYS, PLAN_AS_BEFORE, newest_page
from dispatcher.store.delivery_ids import (
    delivery_ids_of,
    moment_of_uuid,
    span_of_event,
    uuid_of,
)
from dispatcher.store.events import EventDetail, EventKey
from dispatcher.store.kept_plans import fetch_of_days, fetch_of_few_days, page_reader
from dispatcher.store.pool import data_faults
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.pool import Reach

DELIVERY_COLUMNS = 17
"""How many columns the statements return that end in `delivery_details`."""
_DELIVERIES_PAGE = statement("delivery_page")
_DELIVERIES_OF_IDS = statement("delivery_list_of_ids")
_DELIVERIES_OF_DAY = statement("delivery_list_of_day")
_DELIVERIES_PAGE_OF_ENDPOINTS = statement("delivery_page_of_endpoints")
_ENDPOINT_NUMBERS = statement("endpoint_numbers")
_DELIVERIES_OF_EVENTS = statement("delivery_page_of_events")
_DELIVERY_FIND = statement("delivery_find")
_DELIVERY_CONTEXT = statement("delivery_context")
_DELIVERIES_OF_EVENT = statement("delivery_list_of_event")

EVENT_DELIVERIES_MAX = 1000
FEW_ENDPOINTS = 8
"""A tenant with so few endpoints has its pages read endpoint by endpoint."""
_SELECTIVE = (1, 3, 5, 6, 7, 13, 14)
"""The filters of a page that leave out deliveries of every day: endpoint, type, states, test, labels and response."""
_STATES, _TEST = 5, 6
_KEPT = frozenset({1, 2, 3, 4, 7, 8, 9, 10, 11, 12})
"""The filters of which one plan is right for all values: endpoint, event, type, labels, both ends, rows at most."""
_TAIL_ATTEMPTS = {
    "attempt": statement("attempt_tail"),
    "delivery_done": statement("delivery_done_tail"),
}


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
    labels: Mapping[str, str] = {}
    """Those of its event; empty if the event is not there."""
    ordering_key: str | None = None
    """That of its event."""


class ContextRow(NamedTuple):
    """What decides when a delivery goes on."""

    endpoint_id: str
    name: str
    url: str
    delivery: str
    """`push` or `pull`."""
    state: str
    reason: str | None
    rate_limit: float | None
    retry_schedule_seconds: list[float] | None
    deleted_at: datetime | None
    breaker_state: str | None
    probe_at: datetime | None
    is_resend_waiting: bool
    is_behind: bool
    """Whether an earlier delivery of its line is open."""
    dispatchers_alive: int
    now: datetime


class NewAttempt(NamedTuple):
    """An attempt, and its delivery as it is now."""

    delivery: DeliveryDetail
    attempt: AttemptDetail


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
                moment_of_uuid(row[0]),
                *row[13:15],
                _labels(row[15]),
                row[16],
            )
        )
        for row, delivery_id in zip(rows, found, strict=True)
    ]


def _labels(text: str | None) -> Mapping[str, str]:
    labels: Mapping[str, str] = {} if text in {None, "{}"} else orjson.loads(str(text))
    return labels


async def page_of_deliveries(
    connection: "Reach", filters: Sequence[object]
) -> list[DeliveryDetail]:
    """Return a page; `filters` in the order of the statement."""
    tenant, endpoint_id = filters[:2]
    if tenant is not None and endpoint_id is None:
        rows = await connection.fetch(_ENDPOINT_NUMBERS, tenant, FEW_ENDPOINTS + 1)
        if len(rows) <= FEW_ENDPOINTS:
            return await page_of_endpoints_deliveries(connection, [row[0] for row in rows], filters)
    return delivery_details(
        await newest_page(
            connection,
            _DELIVERIES_PAGE,
            *filters,
            limit=filters[12],
            details=partial(_of_ids, connection),
            newest=filters[11],
            oldest=filters[10],
            days_first=DAYS_AT_ONCE if _is_selective(filters) else PAGE_DAYS,
            month=page_reader(
                connection, _DELIVERIES_PAGE, filters, values=_KEPT, constants=_constants(filters)
            ),
        )
    )


def _constants(filters: Sequence[object]) -> Mapping[int, str]:
    """Return filters as constants, because there are indexes of the unsuccessful deliveries and of the tests alone."""
    states, test = filters[_STATES], filters[_TEST]
    found: dict[int, str] = {}
    if isinstance(states, list) and len(states) == 1:
        found[_STATES] = f"{{{states[0]}}}"
    if test is not None:
        found[_TEST] = "true" if test else "false"
    return found


def _is_selective(filters: Sequence[object]) -> bool:
    """Return whether several filters are given together: few deliveries fulfil them, so two days do not fill a page."""
    return sum(filters[place] is not None for place in _SELECTIVE) > 1


async def page_of_endpoints_deliveries(
    connection: "Reach", numbers: Sequence[int], filters: Sequence[object]
) -> list[DeliveryDetail]:
    """Return a page of the deliveries of a few endpoints; `filters` as in `page_of_deliveries`."""
    if not numbers:
        return []
    rows = await newest_page(
        connection, _DELIVERIES_PAGE_OF_ENDPOINTS, list(numbers), None, *filters[2:],
        limit=filters[12], details=partial(_of_ids, connection), newest=filters[11],
        oldest=filters[10],
    )  # fmt: skip
    return delivery_details(rows)


async def _of_ids(connection: "Reach", picked: "list[Record]") -> "list[Record]":
    """Return the rows of the deliveries that a page has picked, newest first."""
    ended: dict[date, list[UUID]] = {}
    for row in picked:
        if not row["is_open"]:
            ended.setdefault(row["day"], []).append(row["id"])
    found = await fetch_of_few_days(connection, _DELIVERIES_OF_DAY, ended)
    if len(found) < len(picked):
        # Open ones, those of many days, and ended ones that a job has opened since they were picked.
        known = {row["id"] for row in found}
        rest = [row for row in picked if row["id"] not in known]
        days = [row["day"] for row in rest]
        await connection.execute(PLAN_AS_BEFORE)
        found += await fetch_of_days(
            connection, _DELIVERIES_OF_IDS, [row["id"] for row in rest], days, days=days
        )
    return sorted(found, key=itemgetter("id"), reverse=True)


async def page_of_events_deliveries(
    connection: "Reach", events: Sequence[EventKey], filters: Sequence[object]
) -> list[DeliveryDetail]:
    """Return a page of the deliveries of some events; `filters` in the order of the statement."""
    rows = await connection.fetch(
        _DELIVERIES_OF_EVENTS,
        [event.day for event in events],
        [event.id for event in events],
        *_spans([(event.inserted_at, event.day, event.id) for event in events]),
        *filters,
    )
    return delivery_details(rows)


async def find_delivery(
    connection: "Reach", delivery_id: str, tenant: str | None
) -> DeliveryDetail | None:
    """Return a delivery; None: there is none of that id. The id names its partition."""
    if not ids.is_id(delivery_id, ids.DELIVERY_PREFIX):
        return None
    try:
        day = ids.day_of(delivery_id)
    except ValueError:
        return None
    rows = await connection.fetch(_DELIVERY_FIND, uuid_of(delivery_id), day, tenant)
    return delivery_details(rows)[0] if rows else None


async def load_context(connection: "Reach", delivery: DeliveryDetail) -> ContextRow | None:
    """Return what decides when a delivery goes on; None: its endpoint's row is not there."""
    row = await connection.fetchrow(_DELIVERY_CONTEXT, delivery.endpoint_id, uuid_of(delivery.id))
    return None if row is None else ContextRow(*row)


async def deliveries_of_event(connection: "Reach", event: EventDetail) -> list[DeliveryDetail]:
    """Return the deliveries of an event, the first thousand where there are more."""
    if event.day is None:
        return []
    span = span_of_event(event.inserted_at, event.day, event.id)
    return delivery_details(
        await connection.fetch(
            _DELIVERIES_OF_EVENT, event.id, event.day, EVENT_DELIVERIES_MAX, *span
        )
    )


def _spans(events: "Sequence[tuple[datetime, date, str]]") -> "tuple[list[UUID], list[UUID]]":
    """Return the lowest and the highest id that each event's deliveries can have."""
    spans = [span_of_event(*event) for event in events]
    return [low for low, _ in spans], [high for _, high in spans]


async def read_tail_attempts(
    connection: "Reach", table: str, day: date, page: int, since: datetime, rows_max: int
) -> list[NewAttempt]:
    """Return the newest attempts in a partition from a page on, oldest first, without response bodies.

    Raises:
        DataFaultError: a row cannot be decoded.
    """
    with data_faults():
        rows = await connection.fetch(_TAIL_ATTEMPTS[table], day, f"({page},0)", since, rows_max)
    return [
        NewAttempt(delivery, attempt_detail(tuple(row)[DELIVERY_COLUMNS:]))
        for delivery, row in zip(delivery_details(rows), rows, strict=True)
    ]
