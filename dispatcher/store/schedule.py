"""The schedule: waiting deliveries by due time, and changes of it by people.

Reads are to run in `Database.reading`. A change takes the caller's transaction, and requests in it that the dispatchers
of the endpoints read the schedule again: Postgres first, memory second.
"""

from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, NamedTuple

from dispatcher.store.day_walk import PLAN_FOR_VALUES
from dispatcher.store.delivery_ids import delivery_ids_of, uuids_of
from dispatcher.store.delivery_requests import notify_dispatchers
from dispatcher.store.event_bodies import DAYS_AT_ONCE
from dispatcher.store.search import ANY_TEXT, TextFilter
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.pool import Reach

_SCHEDULE = statement("delivery_open_schedule")
_SCHEDULE_OF_IDS = statement("delivery_open_schedule_of_ids")
_MATCH = statement("event_match")
_MOVE = statement("delivery_open_move")
_CANCEL = statement("delivery_open_cancel")


class ScheduledRow(NamedTuple):
    """A waiting delivery, and what decides when it goes on."""

    id: str
    day: date
    event_id: str
    endpoint_id: str
    endpoint_name: str
    tenant: str
    profile: str
    attempt_count: int
    schedule_position: int
    next_attempt_at: datetime
    warnings: list[str] | None
    endpoint_state: str
    rate_limit: float | None
    breaker_state: str | None
    probe_at: datetime | None
    is_pulled: bool


class EventMatch(NamedTuple):
    """The type of an event, whether it matches the filter, and whether it contains the text."""

    type: str
    matches: bool
    has_text: bool


async def read_schedule(connection: "Reach", filters: Sequence[object]) -> list[ScheduledRow]:
    """Return the next waiting deliveries; `filters` in the order of the statement."""
    return _rows(await connection.fetch(_SCHEDULE, *filters))


async def read_schedule_of(
    connection: "Reach", delivery_ids: Sequence[str], filters: Sequence[object]
) -> list[ScheduledRow]:
    """Return those of the deliveries that wait and match; `filters` in the order of the statement."""
    return _rows(await connection.fetch(_SCHEDULE_OF_IDS, uuids_of(delivery_ids), *filters))


async def match_events(
    connection: "Reach",
    keys: Sequence[tuple[date, str]],
    event_type: str | None,
    labels: str | None,
    text: TextFilter | None = None,
) -> dict[tuple[date, str], EventMatch]:
    """Return the events of these days and ids, `DAYS_AT_ONCE` days at a time."""
    wanted = dict.fromkeys(keys)
    days = sorted({day for day, _ in wanted})
    found: dict[tuple[date, str], EventMatch] = {}
    await connection.execute(PLAN_FOR_VALUES)
    for first in range(0, len(days), DAYS_AT_ONCE):
        some = set(days[first : first + DAYS_AT_ONCE])
        part = [key for key in wanted if key[0] in some]
        rows = await connection.fetch(
            _MATCH,
            [day for day, _ in part],
            [event_id for _, event_id in part],
            event_type,
            labels,
            *(ANY_TEXT if text is None else text.values()),
        )
        for row in rows:
            found[row["day"], row["event_id"]] = EventMatch(
                row["type"], row["matches"], row["has_text"]
            )
    return found


async def move_deliveries(
    connection: "Reach",
    delivery_ids: Sequence[str],
    *,
    until: datetime | None,
    by_seconds: float | None,
    actor: str,
) -> set[str]:
    """Change the due times of waiting deliveries, without either value to now; return those that were moved."""
    rows = await connection.fetch(_MOVE, uuids_of(delivery_ids), until, by_seconds, actor)
    await notify_dispatchers(connection)
    return set(delivery_ids_of([row["id"] for row in rows]))


async def cancel_deliveries(
    connection: "Reach", delivery_ids: Sequence[str], *, actor: str
) -> set[str]:
    """Cancel waiting deliveries; return those that were cancelled."""
    rows = await connection.fetch(_CANCEL, uuids_of(delivery_ids), actor)
    await notify_dispatchers(connection)
    return set(delivery_ids_of([row["id"] for row in rows]))


def _rows(rows: "Sequence[Record]") -> list[ScheduledRow]:
    ids = delivery_ids_of([row[0] for row in rows])
    return [
        ScheduledRow(delivery_id, *tuple(row)[1:])
        for row, delivery_id in zip(rows, ids, strict=True)
    ]
