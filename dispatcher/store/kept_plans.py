"""Statements over a month of history whose plans a connection keeps.

Planning a statement for the partitions of a month takes PostgreSQL 2 to 5 ms, often longer than running it, and a plan
for any day would lock every partition there is (store/day_walk.py). Here the days stand in the text as constants
instead of parameters. The plan leaves out the days before them, so it can be kept: a connection makes it once for each
text, so once a day, and again after a partition was attached or analyzed.

It is for statements of which one plan is right for all their other values. A page of deliveries has a text for each
combination of the usual filters, with NULL for the others, so that its plan is the one that these filters need. A
filter of which the value decides which index is read needs a plan of its own.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from dispatcher.runtime.clock import SystemClock
from dispatcher.store.day_walk import (
    FIRST_ROWS,
    KEEP_PLAN,
    NO_END,
    PLAN_AS_BEFORE,
    PLAN_FOR_VALUES,
    month_ago,
)

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.day_walk import MonthReader
    from dispatcher.store.pool import Reach

FEW_DAYS: Final = 3
_CAST: Final = re.compile(r"\$(\d+)::([a-z]+(?:\[\])?)")
_PARAMETER: Final = re.compile(
    r"\$(?P<number>\d+)(?:::(?P<type>[a-z]+(?:\[\])?))?(?P<compared> IS NULL\b)?"
)


def keeps_plans(connection: "Reach") -> bool:
    """Return whether the next statement of a text may meet the plan of this one; a pooler may keep it from that."""
    # The driver's own connections have no such attribute.
    return bool(getattr(connection, "keeps_plans", False))


async def fetch_since(
    connection: "Reach", sql: str, *parameters: object, days: Sequence[date], is_last: bool = False
) -> list["Record"]:
    """Return the rows of a statement; `days` are its last parameters: the first day of each part of history it reads.

    Later statements of the transaction are planned for their values, as in `Database.reading`; with `is_last` there are
    none, which saves a round trip.
    """
    if keeps_plans(connection):
        await connection.execute(KEEP_PLAN)
        rows = await connection.fetch(with_days(sql, len(parameters) + 1, tuple(days)), *parameters)
    else:
        await connection.execute(f"{PLAN_FOR_VALUES}; {FIRST_ROWS}")
        rows = await connection.fetch(sql, *parameters, *days)
    if not is_last:
        await connection.execute(PLAN_AS_BEFORE)
    return rows


async def fetch_of_days(
    connection: "Reach", sql: str, *parameters: object, days: Collection[date]
) -> list["Record"]:
    """Return the rows of a statement whose last two parameters are the first and the last of these days.

    Planning for a few days takes less time than running a plan of a month, and older days have no kept plan. The
    transaction is to plan for values.
    """
    first, last = min(days), max(days)
    since = month_ago(SystemClock.now())
    if first < since or (last - first).days < FEW_DAYS:
        return await connection.fetch(sql, *parameters, first, last)
    return await fetch_since(connection, sql, *parameters, days=(since, NO_END))


async def fetch_of_few_days(
    connection: "Reach", sql: str, keys: Mapping[date, Sequence[object]]
) -> list["Record"]:
    """Return the rows of a statement of one day's keys, a day at a time; none if there are more than a few days.

    None either if the connection keeps no plans. Later statements of the transaction have generic plans.
    """
    if not 0 < len(keys) < FEW_DAYS or not keeps_plans(connection):
        return []
    await connection.execute(KEEP_PLAN)
    rows: list[Record] = []
    for day, of_day in keys.items():
        rows += await connection.fetch(with_days(sql, 2, (day,)), of_day)
    return rows


async def fetch_of_each_day(
    connection: "Reach", sql: str, *parameters: object, days: Sequence[date]
) -> list["Record"]:
    """Return the rows of a statement whose last parameter is an array of these days; it ends its transaction's reads.

    Most deliveries that are loaded or started together are of one day, for which the connection keeps a plan.
    """
    if len(days) == 1 and keeps_plans(connection):
        await connection.execute(KEEP_PLAN)
        return await connection.fetch(with_days(sql, len(parameters) + 1, tuple(days)), *parameters)
    await connection.execute(PLAN_FOR_VALUES)
    return await connection.fetch(sql, *parameters, list(days))


def month_reader(connection: "Reach", sql: str, *parameters: object) -> "MonthReader | None":
    """Return the reader of a statement's rows of the last month; its last two parameters are days.

    None: the connection keeps no plans.
    """
    if not keeps_plans(connection):
        return None
    number = len(parameters) + 1
    return lambda first: connection.fetch(with_days(sql, number, (first, NO_END)), *parameters)


class Given(Enum):
    """What a parameter of a statement with filters is, where it is not a constant."""

    NULL = "null"
    VALUE = "value"
    """A value that differs from run to run, and is never NULL."""


def page_reader(
    connection: "Reach",
    sql: str,
    filters: Sequence[object],
    *,
    values: Collection[int],
    constants: Mapping[int, str] | None = None,
) -> "MonthReader | None":
    """Return the reader of a page of the last month; None: its filters need a plan of their own.

    `values` has the places of the filters of which one plan is right for all values, `constants` those of which each
    value has a plan, as texts. The statement's last two parameters, after the filters, are days.
    """
    constants = constants or {}
    places = {place for place, value in enumerate(filters) if value is not None}
    if not places <= {*values, *constants} or not keeps_plans(connection):
        return None
    parameters = [
        Given.NULL if value is None else constants.get(place, Given.VALUE)
        for place, value in enumerate(filters)
    ]
    arguments = [
        value
        for value, parameter in zip(filters, parameters, strict=True)
        if parameter is Given.VALUE
    ]

    return lambda first: connection.fetch(
        with_filters(sql, (*parameters, day_text(first), day_text(NO_END))), *arguments
    )


@lru_cache(maxsize=256)
def with_filters(sql: str, filters: tuple[Given | str, ...]) -> str:
    """Return the statement with constants where it can have them; the parameters that are left get new numbers.

    A parameter without a cast has that of its first one.
    """
    types = dict(reversed(_CAST.findall(sql)))
    given = [number for number, one in enumerate(filters, 1) if one is Given.VALUE]

    def replaced(found: re.Match[str]) -> str:
        number = int(found["number"])
        kind = filters[number - 1]
        if found["compared"]:
            return "true" if kind is Given.NULL else "false"
        type_ = found["type"] or types.get(found["number"])
        cast = f"::{type_}" if type_ else ""
        if kind is Given.VALUE:
            return f"${given.index(number) + 1}{cast}"
        return f"NULL{cast}" if kind is Given.NULL else f"'{kind}'{cast}"

    return _PARAMETER.sub(replaced, sql)


@lru_cache(maxsize=256)
def with_days(sql: str, number: int, days: tuple[date, ...]) -> str:
    """Return the statement with the days as constants for its parameters from `number` on; an array has one day.

    Raises:
        ValueError: the statement has no such parameter.
    """
    for place, day in enumerate(days, number):
        constant = f"DATE '{day_text(day)}'"
        sql, arrays = re.subn(rf"\${place}::date\[\]", f"ARRAY[{constant}]", sql)
        sql, count = re.subn(rf"\${place}(?:::date)?(?!\d)", constant, sql)
        if not arrays + count:
            raise ValueError(f"the statement has no parameter ${place}")
    return sql


def day_text(day: date) -> str:
    """Return a day as a constant; the driver sends the last one as `infinity` too."""
    return "infinity" if day == NO_END else day.isoformat()
