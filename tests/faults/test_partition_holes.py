"""R26: partitions that matter are missing under a DDL freeze; readiness, the gauge and `check` name them."""

import asyncio
import subprocess

import asyncpg
import pytest

from dispatcher.store.pool import Database
from dispatcher.store.schema import Schema
from tests.support.daemon import CHECKOUT, Daemon, until
from tests.support.forking import run_command

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

DAY = "to_char((now() AT TIME ZONE 'UTC')::date + {}, 'YYYYMMDD')"


def _check(daemon: Daemon) -> "subprocess.CompletedProcess[str]":
    return run_command(["check"], daemon.environ, cwd=CHECKOUT)


@pytest.mark.slow
async def test_a_missing_partition_of_today_is_not_ready_and_named(make_bench, fresh_database):
    """R26: the daemon's role may not create tables, so that nothing makes the partition again."""
    sql = await asyncpg.connect(fresh_database)
    await sql.execute(
        "DROP ROLE IF EXISTS frozen; CREATE ROLE frozen LOGIN; GRANT USAGE ON SCHEMA dispatcher TO frozen;"
        "GRANT ALL ON ALL TABLES IN SCHEMA dispatcher TO frozen;"
        "GRANT ALL ON ALL SEQUENCES IN SCHEMA dispatcher TO frozen"
    )
    bench = make_bench(fresh_database.replace("//dispatcher@", "//frozen@"))
    daemon = await bench.daemon().started()

    answers: list[str] = []

    async def has_status(status: int) -> bool:
        seen, text = await daemon.get("/readyz")
        answers.append(text)
        return bool(seen == status)

    await until(lambda: has_status(200), seconds=30, what="ready")
    today = await sql.fetchval("SELECT " + DAY.format(0))
    middle = await sql.fetchval("SELECT " + DAY.format(3))
    await sql.execute(f"ALTER TABLE dispatcher.event DETACH PARTITION dispatcher.event_{today}")
    await sql.execute(f"DROP TABLE dispatcher.body_{middle}")
    await until(lambda: has_status(503), seconds=30, what="not ready")
    assert "today's partition of event is missing" in answers[-1]

    async def gauge_tells() -> bool:
        return bool(await daemon.metric("dispatcher_history_partitions_ahead") == -1)

    await until(gauge_tells, seconds=30, what="the gauge", pause=0.5)
    checked = await asyncio.to_thread(_check, daemon)
    assert checked.returncode == 1
    assert "partition of event for" in checked.stdout
    assert "partition of body for" in checked.stdout
    await sql.execute(
        f"ALTER TABLE dispatcher.event ATTACH PARTITION dispatcher.event_{today}"
        f" FOR VALUES FROM ('{today}') TO ('{await sql.fetchval('SELECT ' + DAY.format(1))}')"
    )
    await until(lambda: has_status(200), seconds=30, what="ready again")
    bench.stop()
    await sql.execute("DROP OWNED BY frozen; DROP ROLE frozen")
    await sql.close()


async def test_the_day_of_a_waiting_delivery_counts_as_missing(fresh_database):
    """R26: its attempts are recorded in that day's partition."""
    pool = Database(fresh_database, connections_max=1)
    await pool.open()
    schema = Schema(pool)
    assert await schema.missing_partitions(7, with_waiting=True) == []
    await pool.execute(
        "INSERT INTO dispatcher.delivery_open (id, day, event_id, endpoint_no, event_type_code)"
        " VALUES (gen_random_uuid(), current_date - 40, 'evt_1', 1, 1)"
    )
    assert await schema.missing_partitions(7) == []
    missing = await schema.missing_partitions(7, with_waiting=True)
    await pool.close()
    assert {one.table for one in missing} == {"event", "body", "delivery_done", "attempt"}
    assert {one.days_from_today for one in missing} == {-40}


async def test_control_counting_from_tomorrow_does_not_see_today(fresh_database):
    """R26: what the gauge once counted, by names from tomorrow on."""
    sql = await asyncpg.connect(fresh_database)
    today = await sql.fetchval("SELECT " + DAY.format(0))
    await sql.execute(f"DROP TABLE dispatcher.event_{today}")
    seen = await sql.fetchval(
        "SELECT count(*) FROM generate_series(1, 7) AS ahead WHERE to_regclass('dispatcher.event_'"
        " || to_char((now() AT TIME ZONE 'UTC')::date + ahead, 'YYYYMMDD')) IS NOT NULL"
    )
    await sql.close()
    assert seen == 7
