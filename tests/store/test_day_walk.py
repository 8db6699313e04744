"""History that is read a few days at a time: every row once, in order, and no plan for all of it."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest

from dispatcher.admin.operations.context import Deployment
from dispatcher.admin.operations.deliveries import DeliveryOperations
from dispatcher.admin.resources.delivery import DeliveriesQuery
from dispatcher.runtime.clock import SystemClock
from dispatcher.store import pool as pool_module
from dispatcher.store.day_walk import DAYS_AT_ONCE, NO_END, PAGE_DAYS, newest_first
from dispatcher.store.kept_plans import fetch_since, with_days
from dispatcher.store.pool import Database
from dispatcher.store.statements import statement
from tests.support.daemon import until
from tests.support.history import day_ago, fill_day, make_day
from tests.support.planned import HISTORY, UnplannedStatementError
from tests.support.story import ALL, Story

pytestmark = pytest.mark.postgres

YESTERDAY, OLDER = 1, (2, 3, 31, 32, 33, 34, 70)
"""Days ago, around the ends of the ranges; yesterday has its partitions from the start."""
ROWS = 2


@pytest.fixture
def database(fresh_database: str) -> str:
    """A database of its own, whose days stay with it."""
    return fresh_database


@pytest.fixture
async def pool(database: str) -> Any:
    pool = Database(database, connections_max=1)
    await pool.open()
    yield pool
    await pool.close()


async def test_ranges_of_days_follow_on_each_other(pool: Database, sql: Any) -> None:
    await make_day(sql, 70)
    today = SystemClock.now().date()
    ranges = "SELECT $1::date AS first, $2::date AS last"

    async def read(**how: Any) -> list[tuple[Any, Any]]:
        async with pool.reading() as connection:
            rows = await newest_first(connection, ranges, enough=lambda _: False, **how)
        return [(row["first"], row["last"]) for row in rows]

    found = await read(days_first=PAGE_DAYS)
    assert found[0] == (today - timedelta(days=PAGE_DAYS - 1), NO_END)
    assert found[1] == (found[0][0] - timedelta(days=DAYS_AT_ONCE), found[0][0] - timedelta(days=1))
    assert found[2][1] == found[1][0] - timedelta(days=1)
    assert found[-1][0] <= today - timedelta(days=70) < found[-2][0]
    newest = today - timedelta(days=40)
    assert (await read(newest=newest, days_first=1))[0] == (newest, newest)
    tomorrow = today + timedelta(days=1)
    assert (await read(newest=tomorrow, days_first=1))[0] == (today, tomorrow)


async def test_pages_over_many_days_have_each_delivery_once(
    deployment: Deployment, story: Story, sql: Any
) -> None:
    endpoint = await story.endpoint()
    days = [await day_ago(sql, YESTERDAY), *[await make_day(sql, one) for one in OLDER]]
    for day in days:
        await fill_day(sql, day, ROWS, endpoint_id=endpoint)
    newest = await story.delivery(endpoint, "today", "failed")
    operations = DeliveryOperations(deployment)

    async def all_of(limit: int, **wanted: Any) -> list[str]:
        seen: list[str] = []
        cursor = None
        while True:
            query = DeliveriesQuery.of(**wanted, limit=limit, cursor=cursor)
            page = await operations.page(ALL, query)
            seen += [one.id for one in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return seen

    found = await all_of(500)
    assert found[0] == newest
    assert len(set(found)) == len(found) == len(days) * ROWS + 1
    assert found == sorted(found, reverse=True)
    old = datetime.combine(await day_ago(sql, 32), time(), UTC)
    for limit in (1, 3, 5):
        assert await all_of(limit) == found
        assert await all_of(limit, tenant="default") == found, "a tenant with few endpoints"
        assert await all_of(limit, until=old) == found[-3 * ROWS :], "33, 34 and 70 days ago"
        assert await all_of(limit, state="failed") == [newest]
        assert await all_of(limit, event_type="no.such") == []


async def test_a_statement_over_history_without_a_plan_for_its_days_is_refused(
    pool: Database,
) -> None:
    """The control: the tests' connections find what would lock all of history."""
    find = statement("delivery_find")
    assert find in HISTORY
    with pytest.raises(UnplannedStatementError):
        await pool.fetch(find, None, None, None)
    async with pool.transaction() as connection:
        with pytest.raises(UnplannedStatementError):
            await connection.fetch(find, None, None, None)
    async with pool.reading() as connection:
        assert await connection.fetch(find, None, None, None) == []


async def test_a_kept_plan_leaves_out_older_days(pool: Database, sql: Any) -> None:
    old = await make_day(sql, 70)
    since = await day_ago(sql, 31)
    failed = "SELECT count(*) FROM dispatcher.delivery_done WHERE state = $1 AND day >= $2::date"
    locked = "SELECT relation::regclass::text FROM pg_locks WHERE pid = pg_backend_pid() AND relation IS NOT NULL"
    kept = "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement = $1"
    for runs in (1, 2):
        async with pool.reading() as connection:
            rows = await fetch_since(connection, failed, 4, days=[since])
            assert [row[0] for row in rows] == [0]
            names = {row[0] for row in await connection.fetch(locked)}
            assert await connection.fetchval("SHOW plan_cache_mode") == "force_custom_plan"
            (plans,) = await connection.fetch(kept, with_days(failed, 2, (since,)))
        assert not [one for one in names if f"{old:%Y%m%d}" in one]
        assert [one for one in names if one.startswith("dispatcher.delivery_done_")]
        assert tuple(plans) == (runs, 0)


async def test_a_connection_forgets_statements_of_past_days(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each day has texts of its own, so a connection that lives for months would collect their plans."""
    monkeypatch.setattr(pool_module, "STATEMENT_KEPT_SECONDS", 0.05)
    pool = Database(database, connections_max=1)
    await pool.open()
    try:
        assert await pool.fetch_value("SELECT $1::int4", 7) == 7

        async def is_forgotten() -> bool:
            kept = await pool.fetch("SELECT statement FROM pg_prepared_statements")
            return "SELECT $1::int4" not in [row[0] for row in kept]

        await until(is_forgotten, seconds=10, what="the statement is forgotten")
    finally:
        await pool.close()


def test_days_replace_their_own_parameters_alone() -> None:
    assert with_days("$1 $2::date $12 $2", 2, (date(2026, 3, 1),)) == (
        "$1 DATE '2026-03-01' $12 DATE '2026-03-01'"
    )
    with pytest.raises(ValueError, match=r"no parameter \$2"):
        with_days("SELECT $1", 2, (date(2026, 3, 1),))
