"""What /metrics says of the whole database: days that are ready, rows that wait for vacuum, clocks apart."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from dispatcher.delivery.gauges import Gauges
from dispatcher.delivery.inventory import Inventory
from dispatcher.runtime.clock import SystemClock
from dispatcher.store.deliveries import Deliveries
from dispatcher.store.pool import Database
from dispatcher.telemetry.metrics import HOT_TABLES, Gauge, Metrics

pytestmark = pytest.mark.postgres

PARENTS = ("event", "body", "delivery_done", "attempt")


class WrongClock(SystemClock):
    """A clock that is set wrong."""

    def __init__(self, seconds: float) -> None:
        self._wrong = timedelta(seconds=seconds)

    def now(self) -> datetime:  # type: ignore[override]  # the base needs no instance
        return SystemClock.now() + self._wrong

    monotonic = staticmethod(SystemClock.monotonic)


@pytest.fixture
async def pool(fresh_database: str) -> AsyncIterator[Database]:
    made = Database(fresh_database, connections_max=2)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def sql(fresh_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(fresh_database)
    yield connection
    await connection.close()


async def scrape(pool: Database, clock_wrong_seconds: float = 0.0) -> Metrics:
    """Renders once, beside a pipeline that stands still."""
    pipeline: Any = SimpleNamespace(
        inventory=Inventory(SystemClock()),
        listener=SimpleNamespace(is_up=True),
        routing=SimpleNamespace(version=0),
        connections=SimpleNamespace(opened_count=0, reused_count=0, blocked_counts={}),
    )
    metrics = Metrics(version="1")
    await Gauges(
        metrics, pipeline, Deliveries(pool), None, WrongClock(clock_wrong_seconds)
    ).render()
    return metrics


def value(gauge: Gauge) -> float:
    """Returns the value of a gauge without labels."""
    return by_label(gauge)[()]


def by_label(gauge: Gauge) -> dict[tuple[str, ...], float]:
    """Returns the value of each series, by its label values."""
    (family,) = gauge.collect()
    return {tuple(one.labels.values()): one.value for one in family.samples}


@pytest.mark.parametrize("parent", PARENTS)
async def test_days_ahead_end_before_the_first_day_that_any_table_lacks(pool, sql, parent):
    assert value((await scrape(pool)).history_partitions_ahead) == 7
    name = await sql.fetchval(
        "SELECT to_char((now() AT TIME ZONE 'UTC')::date + 3, 'YYYYMMDD')",
    )
    await sql.execute(f"DROP TABLE dispatcher.{parent}_{name}")
    assert value((await scrape(pool)).history_partitions_ahead) == 2


async def test_without_the_next_day_none_are_ahead(pool, sql):
    name = await sql.fetchval("SELECT to_char((now() AT TIME ZONE 'UTC')::date + 1, 'YYYYMMDD')")
    await sql.execute(f"DROP TABLE dispatcher.event_{name}")
    assert value((await scrape(pool)).history_partitions_ahead) == 0


async def test_without_today_the_days_ahead_are_minus_one(pool, sql):
    name = await sql.fetchval("SELECT to_char((now() AT TIME ZONE 'UTC')::date, 'YYYYMMDD')")
    await sql.execute(f"ALTER TABLE dispatcher.body DETACH PARTITION dispatcher.body_{name}")
    assert value((await scrape(pool)).history_partitions_ahead) == -1


async def test_each_hot_table_has_its_dead_rows(pool, sql):
    assert set(by_label((await scrape(pool)).dead_rows)) == {(table,) for table in HOT_TABLES}
    await sql.execute("ALTER TABLE dispatcher.outbox SET (autovacuum_enabled = off)")
    await sql.execute(
        "INSERT INTO dispatcher.outbox (type, data) SELECT 'a.b', '{}' FROM generate_series(1, 40)"
    )
    await sql.execute("DELETE FROM dispatcher.outbox")
    await sql.fetchval("SELECT pg_stat_force_next_flush()")
    await sql.fetchval("SELECT 1")
    assert by_label((await scrape(pool)).dead_rows)["outbox",] == 40


async def test_the_queue_of_notifications_is_a_share(pool):
    assert 0 <= value((await scrape(pool)).notify_queue_usage) < 1


@pytest.mark.parametrize(("wrong", "least", "most"), [(0, 0, 0), (90, 88, 90), (-90, -90, -88)])
async def test_the_clocks_difference_has_its_sign_and_leaves_the_way_out(pool, wrong, least, most):
    found = value((await scrape(pool, wrong)).database_clock_difference)
    assert least <= found <= most
