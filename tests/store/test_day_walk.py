"""History that is read a few days at a time: every row once, in order, and no plan for all of it."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest

from dispatcher.admin.operations.context import Deployment
from dispatcher.admin.operations.deliveries import DeliveryOperations
from dispatcher.admin.operations.delivery_filter import page_filters
from dispatcher.admin.operations.events import Events
from dispatcher.admin.resources.delivery import DeliveriesQuery
from dispatcher.admin.resources.event import EventsQuery
from dispatcher.admin.resources.serialization import labels_json
from dispatcher.runtime.clock import SystemClock
from dispatcher.store import delivery_details, events
from dispatcher.store import pool as pool_module
from dispatcher.store.day_walk import (
    DAYS_AT_ONCE,
    KEEP_PLAN,
    NO_BEGINNING,
    NO_END,
    PAGE_DAYS,
    newest_first,
)
from dispatcher.store.delivery_details import page_of_deliveries
from dispatcher.store.delivery_ids import uuid_of
from dispatcher.store.events import page_of_events
from dispatcher.store.kept_plans import (
    Given,
    fetch_of_each_day,
    fetch_since,
    with_days,
    with_filters,
)
from dispatcher.store.pool import Database
from dispatcher.store.statements import statement
from tests.support.daemon import until
from tests.support.explained import nodes_of, rows_of
from tests.support.history import day_ago, fill_day, make_day
from tests.support.planned import HISTORY, UnplannedStatementError
from tests.support.story import ALL, Story

pytestmark = pytest.mark.postgres

LOCKED = "SELECT relation::regclass::text FROM pg_locks WHERE pid = pg_backend_pid() AND relation IS NOT NULL"
CONSTANTS = {5, 6}
"""The places of the states and of `test` in the filters of a page; they are constants of the text."""
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
    assert len(await read(oldest=today, days_first=1)) == 1
    (*_, last) = await read(oldest=today - timedelta(days=40), days_first=1)
    assert last[0] <= today - timedelta(days=40) <= last[1]
    assert await read(oldest=date.min, days_first=PAGE_DAYS) == found, "before history begins"
    older = await read(is_of_history=False, days_first=PAGE_DAYS)
    assert older == [*found, (NO_BEGINNING, found[-1][0] - timedelta(days=1))]
    assert len(await read(is_of_history=False, oldest=today, days_first=1)) == 1


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
    early = datetime.combine(await day_ago(sql, 33), time(), UTC)
    for limit in (1, 3, 5):
        assert await all_of(limit) == found
        assert await all_of(limit, since=datetime(1, 1, 1, tzinfo=UTC)) == found
        assert await all_of(limit, since=early) == found[: -2 * ROWS], "not 34 and 70 days ago"
        assert await all_of(limit, tenant="default") == found, "a tenant with few endpoints"
        assert await all_of(limit, until=old) == found[-3 * ROWS :], "33, 34 and 70 days ago"
        assert await all_of(limit, state="failed") == [newest]
        assert await all_of(limit, event_type="no.such") == []


async def test_events_that_wait_are_in_order_with_those_that_were_accepted(
    deployment: Deployment, sql: Any
) -> None:
    """A quarantined event keeps its place, also if it is older than history is, and none is listed twice."""
    for ago in (32, 33, 70):
        await fill_day(sql, await make_day(sql, ago), 1)
    for name, ago in {"q10": 10, "q35": 35, "q90": 90, "w34": 34}.items():
        await sql.execute(
            "INSERT INTO dispatcher.outbox (id, type, data, labels)"
            """ VALUES ($1, 'a.b', '{}', '{"site": "BKK"}')""",
            name,
        )
        await sql.execute(
            "UPDATE dispatcher.outbox SET inserted_at = now() - make_interval(days => $2),"
            " consumed_at = CASE WHEN id ~ '^q' THEN now() END WHERE id = $1",
            name,
            ago,
        )
    operations = Events(deployment)

    async def all_of(limit: int, **wanted: Any) -> list[str]:
        seen: list[str] = []
        cursor = None
        while True:
            page = await operations.page(ALL, EventsQuery.of(limit=limit, cursor=cursor, **wanted))
            seen += [one.id for one in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return seen

    accepted = {ago: f"evt_{await day_ago(sql, ago):%Y%m%d}_1" for ago in (32, 33, 70)}
    expected = ["q10", accepted[32], accepted[33], "w34", "q35", accepted[70], "q90"]
    ever = datetime(1, 1, 1, tzinfo=UTC)
    since = datetime.combine(await day_ago(sql, 40), time(), UTC)
    for limit in (1, 2, 3, 50):
        assert await all_of(limit) == expected
        assert await all_of(limit, since=ever) == expected
        assert await all_of(limit, since=since) == expected[:5]
        assert await all_of(limit, label=["site=BKK"]) == ["q10", "w34", "q35", "q90"]


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
    kept = "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement = $1"
    for runs in (1, 2):
        async with pool.reading() as connection:
            rows = await fetch_since(connection, failed, 4, days=[since])
            assert [row[0] for row in rows] == [0]
            names = {row[0] for row in await connection.fetch(LOCKED)}
            assert await connection.fetchval("SHOW plan_cache_mode") == "force_custom_plan"
            (plans,) = await connection.fetch(kept, with_days(failed, 2, (since,)))
        assert not [one for one in names if f"{old:%Y%m%d}" in one]
        assert [one for one in names if one.startswith("dispatcher.delivery_done_")]
        assert tuple(plans) == (runs, 0)


@pytest.mark.parametrize(
    "names",
    [
        "",
        "endpoint",
        "type",
        "state",
        "endpoint type state",
        "until",
        "endpoint until",
        "since",
        "since until",
        "label",
        "endpoint label",
        "test",
        "no-test",
    ],
)
async def test_a_page_of_the_usual_filters_keeps_its_plan(
    pool: Database, story: Story, sql: Any, monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    """The rows are those of a plan for these values, the plan is kept, and no day before the month is locked."""
    endpoint, other = await story.endpoint(), await story.endpoint("other")
    old, recent = await make_day(sql, 70), await make_day(sql, 3)
    for day in (old, recent):
        await fill_day(sql, day, 5, endpoint_id=endpoint)
    for number, to in enumerate((endpoint, other, endpoint)):
        await story.event(f"failed{number}", labels='{"site": "BKK"}')
        await story.delivery(to, f"failed{number}", "failed")
        await story.delivery(to, f"succeeded{number}")
        await story.delivery(to, f"test{number}", "succeeded")
    await sql.execute("UPDATE dispatcher.delivery_done SET test = true WHERE event_id LIKE 'test%'")
    usual: dict[str, dict[str, object]] = {
        "endpoint": {"endpoint_id": endpoint},
        "type": {"event_type": "order.created"},
        "state": {"state": "failed"},
        "until": {"until": datetime.combine(recent, time(12), UTC)},
        "since": {"since": datetime.combine(recent, time(), UTC)},
        "label": {"label": ["site=BKK"]},
        "test": {"test": True},
        "no-test": {"test": False},
    }
    wanted = DeliveriesQuery.of(
        **{name: value for one in names.split() for name, value in usual[one].items()}
    )
    labels = labels_json(wanted.label)
    filters = page_filters(None, wanted, None, 2, types=[], labels=labels)
    kept = (
        "SELECT statement, generic_plans, custom_plans FROM pg_prepared_statements"
        " WHERE starts_with(statement, $1)"
    )
    beginning = statement("delivery_page").partition("\n")[0]
    async with pool.reading() as connection:
        rows = await page_of_deliveries(connection, filters)
    assert len(rows) == 2
    async with pool.reading() as connection:
        assert await page_of_deliveries(connection, filters) == rows
        ((text, *plans),) = await connection.fetch(kept, beginning)
    assert plans == [2, 0], "one text, and its plan is kept"
    given = [one for place, one in enumerate(filters) if one is not None and place not in CONSTANTS]
    async with pool.reading() as connection:
        await connection.execute(KEEP_PLAN)
        picked = await connection.fetch(text, *given)
        locked = {row[0] for row in await connection.fetch(LOCKED)}
    assert [row["id"] for row in picked] == [uuid_of(row.id) for row in rows]
    assert [one for one in locked if f"{recent:%Y%m%d}" in one]
    assert not [one for one in locked if f"{old:%Y%m%d}" in one]
    monkeypatch.setattr(delivery_details, "_KEPT", frozenset[int]())
    async with pool.reading() as connection:
        assert await page_of_deliveries(connection, filters) == rows


async def test_delivery_that_a_job_opens_meanwhile_is_listed(
    deployment: Deployment, story: Story, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id is picked from those that have ended, and its row is read from those that are open."""
    endpoint = await story.endpoint()
    made = [await story.delivery(endpoint, f"e{number}", "failed") for number in range(5)]
    made.append(await story.delivery(endpoint, "waits"))
    read_rows = delivery_details._of_ids

    async def open_one_and_read(connection: Any, picked: Any) -> Any:
        await sql.execute(
            "WITH d AS (DELETE FROM dispatcher.delivery_done WHERE event_id = 'e2' RETURNING *)"
            " INSERT INTO dispatcher.delivery_open (id, day, event_id, endpoint_no, event_type_code, next_attempt_at)"
            " SELECT id, day, event_id, endpoint_no, event_type_code, now() FROM d"
        )
        return await read_rows(connection, picked)

    monkeypatch.setattr(delivery_details, "_of_ids", open_one_and_read)
    found = (await DeliveryOperations(deployment).page(ALL)).items
    assert [one.id for one in found] == made[::-1]
    states = {one.event_id: one.state for one in found}
    assert states == dict.fromkeys(["e0", "e1", "e3", "e4"], "failed") | {
        "e2": "pending",
        "waits": "pending",
    }


@pytest.mark.parametrize("rows_first", [0, 1, 3])
@pytest.mark.parametrize("is_analyzed", [True, False])
async def test_plan_of_a_nearly_empty_day_reads_by_ids(
    sql: Any, rows_first: int, is_analyzed: bool
) -> None:
    """A connection keeps the plan of today, which it may make just after midnight."""
    day = await day_ago(sql, 0)
    await fill_day(sql, day, rows_first)
    if is_analyzed:
        await sql.execute("ANALYZE")
    text = with_days(statement("delivery_list_of_day"), 2, (day,))
    async with sql.transaction():
        await sql.execute(f"SET LOCAL enable_seqscan = off; {KEEP_PLAN}")
        await sql.execute(f"PREPARE kept AS {text}")
        await sql.execute("EXECUTE kept ('{}')")
        await sql.execute("DELETE FROM dispatcher.attempt")
        await sql.execute("DELETE FROM dispatcher.delivery_done")
        await sql.execute("DELETE FROM dispatcher.body")
        await sql.execute("DELETE FROM dispatcher.event")
        await fill_day(sql, day, 5_000)
        ids = await sql.fetchval(
            "SELECT array_agg(id) FROM (SELECT id FROM dispatcher.delivery_done LIMIT 100) AS d"
        )
        plan = await sql.fetchval(
            f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE kept ('{{{','.join(map(str, ids))}}}')"
        )
        await sql.execute("DEALLOCATE kept")
    assert rows_of(nodes_of(plan)) <= 2 * len(ids)


@pytest.mark.parametrize("names", ["", "tenant", "type", "test", "since until", "place", "system"])
async def test_a_page_of_events_keeps_its_plan(
    pool: Database, story: Story, sql: Any, monkeypatch: pytest.MonkeyPatch, names: str
) -> None:
    """The rows are those of a plan for these values, the plan is kept, and no day before the month is locked."""
    old, recent = await make_day(sql, 70), await make_day(sql, 3)
    for day in (old, recent):
        await fill_day(sql, day, 5)
    for number in range(3):
        await story.event(f"e{number}")
    middle = datetime.combine(recent, time(1), UTC) + timedelta(milliseconds=3)
    usual: dict[str, dict[int, object]] = {
        "tenant": {0: "default"},
        "type": {1: "a.*"},
        "test": {3: False},
        "since": {4: middle},
        "until": {5: SystemClock.now()},
        "place": {6: SystemClock.now(), 7: "e0"},
        "system": {10: False},
    }
    filters: list[object] = [None] * 11
    filters[8] = 4
    for one in names.split():
        for place, value in usual[one].items():
            filters[place] = value
    kept = (
        "SELECT statement, generic_plans, custom_plans FROM pg_prepared_statements"
        " WHERE starts_with(statement, $1) AND generic_plans > 0"
    )
    beginning = statement("event_page").partition("\n")[0]
    async with pool.reading() as connection:
        rows = await page_of_events(connection, filters)
    assert len(rows) >= 3
    async with pool.reading() as connection:
        assert await page_of_events(connection, filters) == rows
        ((text, *plans),) = await connection.fetch(kept, beginning)
    assert plans == [2, 0], "one text, and its plan is kept"
    async with pool.reading() as connection:
        await connection.execute(KEEP_PLAN)
        await connection.fetch(text, *[one for one in filters if one is not None])
        locked = {row[0] for row in await connection.fetch(LOCKED)}
    assert [one for one in locked if f"{recent:%Y%m%d}" in one]
    assert not [one for one in locked if f"{old:%Y%m%d}" in one]
    monkeypatch.setattr(events, "_KEPT", frozenset[int]())
    async with pool.reading() as connection:
        assert await page_of_events(connection, filters) == rows


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


async def test_rows_of_one_day_are_read_with_a_plan_that_is_kept(pool: Database, sql: Any) -> None:
    old = await make_day(sql, 70)
    days = [await make_day(sql, 2), await day_ago(sql, 1)]
    text = "SELECT count(*) FROM dispatcher.event WHERE id <> $1 AND day = ANY ($2::date[])"
    plans = (
        "SELECT sum(generic_plans)::int, sum(custom_plans)::int FROM pg_prepared_statements"
        " WHERE starts_with(statement, 'SELECT count(*) FROM dispatcher.event')"
    )
    for some, made in ((days[:1], (1, 0)), (days[:1], (2, 0)), (days, (2, 1))):
        async with pool.transaction() as connection:
            rows = await fetch_of_each_day(connection, text, "x", days=some)
            assert [row[0] for row in rows] == [0]
            locked = {row[0] for row in await connection.fetch(LOCKED)}
            (counted,) = await connection.fetch(plans)
        assert tuple(counted) == made
        assert not [one for one in locked if f"{old:%Y%m%d}" in one]


def test_filters_that_are_not_given_leave_the_text() -> None:
    text = (
        "($1::text IS NULL OR a = $1) AND ($2::text[] IS NULL OR $3) AND b = $2 AND c @> $2::jsonb"
    )
    assert with_filters(text, (Given.NULL, Given.VALUE, "x")) == (
        "(true OR a = NULL::text) AND (false OR 'x') AND b = $1::text[] AND c @> $1::jsonb"
    )
    assert with_filters("$1 = $3", (Given.VALUE, Given.NULL, Given.VALUE)) == "$1 = $2"


def test_days_replace_their_own_parameters_alone() -> None:
    assert with_days("$1 $2::date $12 $2", 2, (date(2026, 3, 1),)) == (
        "$1 DATE '2026-03-01' $12 DATE '2026-03-01'"
    )
    assert with_days("$2::date[]", 2, (date(2026, 3, 1),)) == "ARRAY[DATE '2026-03-01']"
    with pytest.raises(ValueError, match=r"no parameter \$2"):
        with_days("SELECT $1", 2, (date(2026, 3, 1),))
