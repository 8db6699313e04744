"""History ends by the day, and what still waits never with it: P15, with its control."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date, timedelta

import asyncpg
import pytest

from dispatcher.core.errors import StoreUnavailableError
from dispatcher.core.model import DeliveryId
from dispatcher.maintenance import retention as module
from dispatcher.maintenance.retention import Action, Days, Retention, planned, steps
from dispatcher.runtime import probe
from dispatcher.runtime.clock import SystemClock
from dispatcher.store.deliveries import Deliveries
from dispatcher.store.partitions import Partition, Partitions
from dispatcher.store.pool import Database
from tests.support.clock import ManualClock
from tests.support.daemon import until
from tests.support.history import TABLES, fill_day, leave_waiting, make_day, tables_of
from tests.support.pace import in_time

pytestmark = pytest.mark.postgres

ALL = set(TABLES)
DAYS = Days(30, 30, 30, 365)


@pytest.fixture
async def sql(fresh_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(fresh_database)
    yield connection
    await connection.close()


@pytest.fixture
async def pool(fresh_database: str) -> AsyncIterator[Database]:
    pool = Database(fresh_database, connections_max=4)
    await pool.open()
    yield pool
    await pool.close()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRY_SECONDS_MIN", 0.001)
    monkeypatch.setattr(module, "TRY_SECONDS_MAX", 0.002)


def retention(pool: Database, days: Days = DAYS) -> Retention:
    return Retention(Partitions(pool), days, clock=SystemClock())


TODAY = date(2026, 11, 24)


def _partitions(*ages: int, emptied: bool = False) -> list[Partition]:
    return [Partition(t, TODAY - timedelta(days=a), 1, 1, emptied) for a in ages for t in TABLES]


def test_a_day_goes_when_all_of_it_is_older_than_its_days():
    found = steps(_partitions(29, 30, 31), {}, TODAY, DAYS)
    assert {(TODAY - step.day).days for step in found} == {31}
    assert [step.table for step in found] == ["delivery_done", "attempt", "body", "event"]


def test_retention_days_per_table_empty_attempts_before_deliveries():
    found = steps(_partitions(8, 15, 31), {}, TODAY, Days(30, 14, 7, 365))
    assert [((TODAY - s.day).days, s.table, s.action) for s in found] == [
        (31, "delivery_done", "drop"),
        (31, "attempt", "drop"),
        (31, "body", "drop"),
        (31, "event", "drop"),
        (15, "delivery_done", "drop"),
        (15, "attempt", "drop"),
        (15, "body", "drop"),
        (8, "attempt", "empty"),
    ]
    again = steps(_partitions(8, emptied=True), {}, TODAY, Days(30, 14, 7, 365))
    assert again == []


def test_what_waits_keeps_its_day_whole():
    waiting = {TODAY - timedelta(days=40): 3}
    found = steps(_partitions(40, 41), waiting, TODAY, Days(30, 30, 7, 365))
    kept = [(s.table, s.unfinished) for s in found if s.action is Action.KEEP]
    assert kept == [(t, 3) for t in ("delivery_done", "attempt", "body", "event")]
    assert sum(s.action is Action.DROP for s in found) == 4


async def test_old_days_go_and_one_with_a_waiting_delivery_stays(sql, pool):
    old, held, young = await make_day(sql, 40), await make_day(sql, 39), await make_day(sql, 30)
    await fill_day(sql, old, 50)
    await fill_day(sql, held, 50)
    waiting = await leave_waiting(sql, held, "waits")
    done = await retention(pool).round()
    assert await tables_of(sql, old) == set()
    assert await tables_of(sql, held) == ALL
    assert await tables_of(sql, young) == ALL
    assert {became for step, became in done if step.day == held} == {"unfinished"}
    (loaded,) = await Deliveries(pool).load([DeliveryId(waiting)])
    assert loaded.body == b"{}"
    await sql.execute("DELETE FROM dispatcher.delivery_open")
    await retention(pool).round()
    assert await tables_of(sql, held) == set()


async def test_control_dropping_by_age_alone_leaves_an_unsendable_delivery(sql, pool):
    """The known-bad variant: it loses the delivery, which stays open and is loaded by nobody."""
    held = await make_day(sql, 39)
    waiting = await leave_waiting(sql, held, "waits")
    for table in TABLES:
        await sql.execute(f"DROP TABLE dispatcher.{table}_{held:%Y%m%d}")
    assert await Deliveries(pool).load([DeliveryId(waiting)]) == []
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.delivery_open") == 1


async def test_a_delivery_that_starts_anew_while_its_day_is_dropped_is_seen(
    sql, pool, fresh_database
):
    """It left the ended ones before the locks were had, so the second look finds it."""
    day = await make_day(sql, 40)
    await fill_day(sql, day, 3)
    other = await asyncpg.connect(fresh_database)
    try:
        await other.execute(
            """
            BEGIN;
            WITH back AS (DELETE FROM dispatcher.delivery_done WHERE right(event_id, 2) = '_2' RETURNING *)
            INSERT INTO dispatcher.delivery_open (id, day, event_id, endpoint_no, event_type_code)
            SELECT id, day, event_id, endpoint_no, event_type_code FROM back
            """
        )
        with pytest.raises(StoreUnavailableError):
            await Partitions(pool).drop("delivery_done", day)
        await other.execute("COMMIT")
        assert await Partitions(pool).drop("delivery_done", day) == "unfinished"
    finally:
        await other.close()
    assert await tables_of(sql, day) == ALL


async def test_a_lock_that_is_held_is_waited_for_200_ms_and_tried_again(sql, pool, fresh_database):
    day = await make_day(sql, 40)
    await fill_day(sql, day, 3)
    reader = await asyncpg.connect(fresh_database)
    try:
        await reader.execute("BEGIN; SELECT count(*) FROM words.delivery_done")
        clock = SystemClock()
        began = clock.monotonic()
        with pytest.raises(StoreUnavailableError, match="lock timeout"):
            await Partitions(pool).drop("delivery_done", day)
        assert clock.monotonic() - began > 0.15
        assert in_time(clock.monotonic() - began, 1.0)
        # Tried again and again, it gets through once the reader is gone.
        with probe.listen() as heard:
            async with asyncio.TaskGroup() as group:
                group.create_task(retention(pool).round())
                await heard.wait("retention.lock_missed", count=2)
                assert await tables_of(sql, day) == ALL
                await reader.execute("COMMIT")
    finally:
        await reader.close()
    assert await tables_of(sql, day) == set()


async def test_tables_of_a_day_stay_while_its_deliveries_do(sql, pool):
    day = await make_day(sql, 40)
    history = Partitions(pool)
    for table in ("event", "body", "attempt"):
        assert await history.drop(table, day) == "needed"
    assert await history.drop("delivery_done", day) == "dropped"
    assert await history.drop("delivery_done", day) == "gone"
    assert await history.drop("event", day) == "dropped"


async def test_attempts_emptied_once_keep_a_partition_for_later_resends(sql, pool):
    day = await make_day(sql, 10)
    await fill_day(sql, day, 5)
    days = Days(30, 30, 7, 365)
    (step, became), *rest = await retention(pool, days).round()
    assert (step.table, became, rest) == ("attempt", "emptied", [])
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.attempt") == 0
    left = await sql.fetch("SELECT attempt_number, response_body FROM dispatcher.attempt_all")
    assert [tuple(row) for row in left] == [(1, None)] * 5, "part of their deliveries"
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.delivery_done") == 5
    await sql.execute(
        "INSERT INTO words.attempt (day, delivery_id, attempt_number, trigger, outcome, attempted_at,"
        " latency_seconds, reused, url, response_code)"
        " SELECT $1, id, 3, 'manual', 'ok', now(), 0.1, false, 'https://x.test/', 200"
        " FROM dispatcher.delivery LIMIT 1",
        day,
    )
    assert await retention(pool, days).round() == []
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.attempt") == 1


async def test_two_replicas_at_once_drop_each_day_once(sql, pool):
    day = await make_day(sql, 40)
    await fill_day(sql, day, 10)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(retention(pool).round()) for _ in range(3)]
    dropped = [
        step.table for task in tasks for step, became in task.result() if became == "dropped"
    ]
    assert sorted(dropped) == sorted(set(dropped))
    await retention(pool).round()
    assert await tables_of(sql, day) == set()


async def test_partition_dropped_while_it_is_measured_has_no_bytes(sql, pool, fresh_database):
    """Its size was NULL, and the sum of the sizes ended the daemon."""
    today = await sql.fetchval("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')")
    beside = await asyncpg.connect(fresh_database)
    oid = await sql.fetchval(f"SELECT 'dispatcher.body_{today}'::regclass::oid")
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = $1"
    async with sql.transaction():
        await sql.execute(f"DROP TABLE dispatcher.body_{today}")
        found = asyncio.ensure_future(Partitions(pool).partitions())

        async def is_waiting() -> bool:
            return bool(await beside.fetchval(waiting, oid))

        await until(is_waiting, seconds=10, what="a reader behind the DROP")
    _, partitions = await found
    assert [
        one.bytes for one in partitions if f"{one.table}_{one.day:%Y%m%d}" == f"body_{today}"
    ] == [0]
    await beside.close()


async def test_a_dry_run_shows_and_touches_nothing(sql, pool):
    day = await make_day(sql, 40)
    found = await planned(Partitions(pool), DAYS)
    assert [(step.day, step.action) for step in found] == [(day, Action.DROP)] * 4
    assert await tables_of(sql, day) == ALL


async def test_old_lines_of_the_audit_log_are_forgotten(sql, pool):
    await sql.execute(
        "INSERT INTO dispatcher.audit (at, actor, tenant, action, object)"
        " SELECT now() - g * interval '100 days', 'x', 'default', 'a', 'o' || g FROM generate_series(1, 5) AS g"
    )
    assert await Partitions(pool).old_audit_lines(365) == 2
    await retention(pool).round()
    left = await sql.fetch("SELECT object FROM dispatcher.audit ORDER BY object")
    assert [row["object"] for row in left] == ["o1", "o2", "o3"]


async def test_a_round_is_made_once_in_a_while_and_tells_its_figures(sql, pool):
    await make_day(sql, 40)
    clock = ManualClock()
    told: list[tuple[int, int]] = []
    made = Retention(
        Partitions(pool),
        DAYS,
        clock=clock,
        figures=lambda partitions, _, kept: told.append((len(partitions), kept)),
    )
    await made.round_if_due()
    await made.round_if_due()
    assert len(told) == 1
    clock.advance(module.SECONDS_BETWEEN)
    await made.round_if_due()
    assert [kept for _, kept in told] == [0, 0]
    assert told[0] == told[1]


def resting(pool) -> Retention:
    return Retention(Partitions(pool), DAYS, clock=SystemClock(), rest_seconds=60)


async def test_a_daemon_rests_between_two_drops_until_it_is_to_stop(sql, pool):
    days = [await make_day(sql, 40), await make_day(sql, 41)]
    made = resting(pool)
    round_ = asyncio.ensure_future(made.round())

    async def has_dropped_one() -> bool:
        return "delivery_done" not in await tables_of(sql, days[1])

    await until(has_dropped_one, seconds=30, what="the first drop")
    made.stop()
    assert [(step.table, became) for step, became in await round_] == [("delivery_done", "dropped")]
    assert await tables_of(sql, days[0]) == set(TABLES)


async def test_the_drops_of_a_round_share_the_time_to_rest(sql, pool, monkeypatch):
    monkeypatch.setattr(module, "REST_SECONDS_TOTAL", 0.01)
    await make_day(sql, 40)
    async with asyncio.timeout(30):
        made = await resting(pool).round()
    assert [became for _, became in made] == ["dropped"] * len(TABLES)
