"""Events with their bodies, as the attempts of their deliveries need them."""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

from dispatcher.store.kept_plans import fetch_of_each_day
from dispatcher.store.pool import Database, columns, data_faults
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

_LOAD_EVENTS = statement("event_load")

DAYS_AT_ONCE = 16
"""Days of history that one statement reads; it locks only their partitions (store/day_walk.py)."""


async def events_of(
    database: Database, rows: "Sequence[Record]"
) -> "dict[tuple[date, str, str], Record]":
    """Return the events of these rows by day, id and body key."""
    keys = dict.fromkeys((row["day"], row["event_id"], row["profile"]) for row in rows)
    for row in rows:
        if row["earlier_profile"] is not None:
            keys[row["day"], row["event_id"], row["earlier_profile"]] = None
    return await events_by_key(database, list(keys))


async def events_by_key(
    database: Database, keys: Sequence[tuple[date, str, str]]
) -> "dict[tuple[date, str, str], Record]":
    """Return events by day, id and body key, from `DAYS_AT_ONCE` days at a time."""
    days = sorted({key[0] for key in keys})
    events: dict[tuple[date, str, str], Record] = {}
    for first in range(0, len(days), DAYS_AT_ONCE):
        some = set(days[first : first + DAYS_AT_ONCE])
        wanted = columns([key for key in keys if key[0] in some], 3)
        with data_faults():
            async with database.transaction() as connection:
                for row in await fetch_of_each_day(
                    connection, _LOAD_EVENTS, *wanted, days=sorted(some)
                ):
                    events[row["day"], row["event_id"], row["profile"]] = row
    return events


def event_of(events: "dict[tuple[date, str, str], Record]", row: "Record") -> "Record | None":
    """Return the event of a delivery with its body: its own, or the one that its attempts sent before it had a mask."""
    event = events.get((row["day"], row["event_id"], row["profile"]))
    if row["earlier_profile"] is None or event is None or event["bytes"] is not None:
        return event
    return events.get((row["day"], row["event_id"], row["earlier_profile"]), event)
