"""Statements over a month of history whose plans a connection keeps.

Planning a statement for the partitions of a month takes PostgreSQL 2 to 5 ms, often longer than running it, and a plan
for any day would lock every partition there is (store/day_walk.py). Here the days stand in the text as constants
instead of parameters. The plan leaves out the days before them, so it can be kept: a connection makes it once for each
text, so once a day, and again after a partition was attached or analyzed.

It is for statements of which one plan is right for all their other values. A filter that decides which index is read
needs a plan of its own.
"""

import re
from collections.abc import Collection, Sequence
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from dispatcher.runtime.clock import SystemClock
from dispatcher.store.day_walk import NO_END, PLAN_FOR_VALUES, month_ago

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.pool import Reach

FEW_DAYS: Final = 3
FIRST_ROWS: Final = "SET LOCAL enable_bitmapscan = off"
"""Before a statement that reads the first rows of an index: a bitmap is made of all of them."""
KEEP: Final = f"SET LOCAL plan_cache_mode = force_generic_plan; {FIRST_ROWS}"
_AS_BEFORE: Final = f"{PLAN_FOR_VALUES}; SET LOCAL enable_bitmapscan = on"
"""As `Database.reading` begins (connection_plan.sql)."""


async def fetch_since(
    connection: "Reach", sql: str, *parameters: object, days: Sequence[date]
) -> list["Record"]:
    """Return the rows of a statement; `days` are its last parameters: the first day of each part of history it reads.

    Later statements of the transaction are planned for their values, as in `Database.reading`.
    """
    # The driver's own connections have no such attribute.
    if getattr(connection, "keeps_plans", False):
        await connection.execute(KEEP)
        rows = await connection.fetch(with_days(sql, len(parameters) + 1, tuple(days)), *parameters)
    else:
        await connection.execute(f"{PLAN_FOR_VALUES}; {FIRST_ROWS}")
        rows = await connection.fetch(sql, *parameters, *days)
    await connection.execute(_AS_BEFORE)
    return rows


async def fetch_of_days(
    connection: "Reach", sql: str, *parameters: object, days: Collection[date]
) -> list["Record"]:
    """Return the rows of a statement whose last two parameters are the first and the last of these days.

    Planning for a few days takes less time than running a plan of a month, and older days have no kept plan.
    """
    first, last = min(days), max(days)
    since = month_ago(SystemClock.now())
    if first < since or (last - first).days < FEW_DAYS:
        return await connection.fetch(sql, *parameters, first, last)
    return await fetch_since(connection, sql, *parameters, days=(since, NO_END))


@lru_cache(maxsize=64)
def with_days(sql: str, number: int, days: tuple[date, ...]) -> str:
    """Return the statement with the days as constants for its parameters from `number` on.

    Raises:
        ValueError: the statement has no such parameter.
    """
    for place, day in enumerate(days, number):
        sql, count = re.subn(rf"\${place}(?:::date)?(?!\d)", f"DATE '{day.isoformat()}'", sql)
        if not count:
            raise ValueError(f"the statement has no parameter ${place}")
    return sql
