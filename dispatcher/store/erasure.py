"""Blank events on request: find them by id or label, and remove their contents."""

from collections.abc import AsyncIterator, Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING, NamedTuple

import orjson

from dispatcher.store.columns import span_of_event
from dispatcher.store.day_walk import PLAN_FOR_VALUES, newest_first
from dispatcher.store.history import call_dispatchers
from dispatcher.store.pool import Database
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_ERASE = statement("event_erase")
_COUNT = statement("event_erase_count")
_ERASE_WAITING = statement("event_erase_waiting")
_DAYS = statement("event_days")
_LABELLED = statement("event_erase_labelled")
_OUTBOX_LABELLED = statement("event_erase_labelled_waiting")
_PARTITION_DAYS = statement("event_partition_days")

SLICE_ROWS = 20_000
"""Events looked at in one statement; some 20 ms each."""


class Erased(NamedTuple):
    """What was taken away of one event."""

    events: int
    bodies: int
    answers: int
    cancelled: int
    """Deliveries that waited."""


async def labelled(
    database: Database, labels: Mapping[str, str], tenant: str | None
) -> AsyncIterator[str]:
    """Yields the ids of all events with these labels, waiting ones first; it reads all events of all days."""
    text = orjson.dumps(dict(labels)).decode()
    last_id = ""
    while rows := await database.fetch(_OUTBOX_LABELLED, text, tenant, last_id):
        for row in rows:
            yield row["id"]
        last_id = rows[-1]["id"]
    for day in [row["day"] for row in await database.fetch(_PARTITION_DAYS)]:
        after: str | None = ""
        while after is not None:
            found = await database.fetch_row(_LABELLED, day, after, text, SLICE_ROWS, tenant)
            after = None if found is None else found["last_id"]
            for event_id in [] if found is None else found["ids"]:
                yield event_id


class Day(NamedTuple):
    """A day on which an event of an id was accepted."""

    day: date
    tenant: str
    inserted_at: datetime


async def days_of(connection: "Reach", event_id: str, tenant: str | None) -> list[Day]:
    """Returns the days on which events of this id were accepted."""
    rows = await newest_first(connection, _DAYS, event_id, tenant, enough=lambda _: False)
    return [Day(*row) for row in rows]


async def count(connection: "Reach", event_id: str, tenant: str | None) -> Erased:
    """Returns what erasing this id would take away."""
    days = await days_of(connection, event_id, tenant)
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


async def erase_waiting(connection: "Reach", event_id: str, tenant: str | None) -> int:
    """Takes a waiting event out of the outbox, blanked; returns how many there were."""
    return int(await connection.fetchval(_ERASE_WAITING, event_id, tenant))


async def erase(connection: "Reach", event_id: str, day: Day, actor: str) -> Erased:
    """Blank one accepted event; its dispatchers are notified to drop its deliveries from memory."""
    await connection.execute(PLAN_FOR_VALUES)
    span = span_of_event(day.inserted_at, day.day, event_id)
    row = await connection.fetchrow(_ERASE, event_id, day.day, actor, *span)
    assert row is not None  # noqa: S101 -- a SELECT of subqueries has one row
    await call_dispatchers(connection)
    return Erased(1, row["bodies"], row["answers"], row["cancelled"])
