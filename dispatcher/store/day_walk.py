"""Reads history a few days at a time, newest first, so that a statement locks few partitions.

Postgres locks each partition and index that a statement may read, about 7 for each day and table, in a
shared table of `max_locks_per_transaction` times `max_connections` entries. A list over three years of
history needs more than all of them, and then transactions of producers abort with "out of shared
memory". Here each statement names a range of days as constants, so that the planner drops the other
partitions before it locks them, and the locks of one range are released before the next is read.

Statements take the range as their last two parameters; the first range has no end (`infinity`).
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final, cast

from dispatcher.runtime.clock import SystemClock
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.pool import Database, Reach

    MonthReader = Callable[[date], Awaitable[list[Record]]]
    """Reads the rows from a day on with a plan that the connection keeps (store/kept_plans.py)."""

_OLDEST = statement("partition_oldest")
_DAYS_OF_EVENTS = statement("event_partition_days")

DAYS_AT_ONCE: Final = 32
"""A month and a day: with the default retention one statement reads everything."""
PAGE_DAYS: Final = 2
"""The first range of a page: these days fill most pages, and planning for a month takes longer than reading one."""
NO_END: Final = date.max
"""`infinity` in Postgres."""
NO_BEGINNING: Final = date.min
"""`-infinity` in Postgres."""
MONTH_DAYS: Final = 31

PLAN_FOR_VALUES: Final = "SET LOCAL plan_cache_mode = force_custom_plan"
"""Before a statement that names its days: a generic plan locks every partition."""
FIRST_ROWS: Final = "SET LOCAL enable_bitmapscan = off"
"""Before a statement that reads the first rows of an index: a bitmap is made of all of them."""
KEEP_PLAN: Final = f"SET LOCAL plan_cache_mode = force_generic_plan; {FIRST_ROWS}"
"""Before a statement whose plan the connection keeps (store/kept_plans.py)."""
PLAN_AS_BEFORE: Final = f"{PLAN_FOR_VALUES}; SET LOCAL enable_bitmapscan = on"
"""After it: as `Database.reading` begins (connection_plan.sql)."""
# Only a plan made for these very days can leave the others out. Rolling back to the savepoint releases the locks, and
# ends the settings made after it.
_BEGIN = f"SAVEPOINT days; {PLAN_FOR_VALUES}"
_BEGIN_MONTH = f"SAVEPOINT days; {KEEP_PLAN}"
_AGAIN = f"ROLLBACK TO SAVEPOINT days; {PLAN_FOR_VALUES}"
_END = "ROLLBACK TO SAVEPOINT days; RELEASE SAVEPOINT days"


def month_ago(now: datetime) -> date:
    """Return the first day that is read for a count: older days would each be locked for it."""
    return now.astimezone(UTC).date() - timedelta(days=MONTH_DAYS)


async def days_of_events(database: "Database") -> list[date]:
    """Return the days that have a partition of events, from the oldest."""
    return [row["day"] for row in await database.fetch(_DAYS_OF_EVENTS)]


async def oldest_day(connection: "Reach") -> date | None:
    """Return the oldest day of history; None: there is none."""
    day: date | None = await connection.fetchval(_OLDEST)
    return day


async def newest_first(
    connection: "Reach",
    sql: str,
    *parameters: object,
    enough: Callable[[list["Record"]], bool],
    details: Callable[[list["Record"]], Awaitable[list["Record"]]] | None = None,
    newest: date | None = None,
    oldest: date | None = None,
    is_of_history: bool = True,
    days_first: int = DAYS_AT_ONCE,
    month: "MonthReader | None" = None,
) -> list["Record"]:
    """Return the rows of a read-only statement, range after range, until they are enough.

    `details` reads what belongs to the rows of a range, before the locks of that range are released, and sets how its
    statements are planned. The connection is in a transaction, which keeps none of the locks. The first range has
    `days_first` days, and ends with `newest` where no row is of a later day; or `month` reads it. The last range has
    the day with which history begins, or `oldest` where no row is of an earlier day. Without `is_of_history`, rows may
    be older than history is: one more range, without a beginning, has these.
    """
    now = SystemClock.now()
    last = newest or NO_END
    first = min(last, now.date()) - timedelta(days=days_first - 1)
    beginning: date | None = None
    rows: list[Record] = []
    if month is not None and last >= month_ago(now):
        first = month_ago(now)
        await connection.execute(_BEGIN_MONTH)
        found = await month(first)
    else:
        await connection.execute(_BEGIN)
        found = await connection.fetch(sql, *parameters, first, last)
    while True:
        rows += found if details is None else await details(found)
        if enough(rows) or first == NO_BEGINNING or (oldest is not None and first <= oldest):
            break
        if beginning is None:
            beginning = await oldest_day(connection)
        is_last = beginning is None or first <= beginning
        if is_last and is_of_history:
            break
        await connection.execute(_AGAIN)
        last = first - timedelta(days=1)
        first = NO_BEGINNING if is_last else first - timedelta(days=DAYS_AT_ONCE)
        found = await connection.fetch(sql, *parameters, first, last)
    await connection.execute(_END)
    return rows


async def newest_page(
    connection: "Reach",
    sql: str,
    *parameters: object,
    limit: object,
    details: Callable[[list["Record"]], Awaitable[list["Record"]]] | None = None,
    newest: object = None,
    oldest: object = None,
    is_of_history: bool = True,
    days_first: int = DAYS_AT_ONCE,
    month: "MonthReader | None" = None,
) -> list["Record"]:
    """Return the first `limit` rows, as `newest_first` reads them.

    `limit`, `newest` and `oldest` are parameters of the statement as well, so their types are not known.
    """
    rows_max = cast("int", limit)
    rows = await newest_first(
        connection,
        sql,
        *parameters,
        enough=lambda found: len(found) >= rows_max,
        details=details,
        newest=cast("date | None", newest),
        oldest=cast("date | None", oldest),
        is_of_history=is_of_history,
        days_first=days_first,
        month=month,
    )
    return rows[:rows_max]
