"""Endpoints that are down: reported by the clock, once for each threshold of an outage."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from dispatcher.config.catalogue import load_catalogue
from dispatcher.config.settings import load_settings
from dispatcher.core.failing import DOWN_ATTEMPTS_MIN, DOWN_SECONDS
from dispatcher.core.model import EndpointId
from dispatcher.maintenance.outages import OutageWatch
from dispatcher.runtime import probe
from dispatcher.runtime.clock import SystemClock
from dispatcher.store.deliveries import Deliveries
from dispatcher.store.endpoints import Endpoints
from dispatcher.store.pool import Database

pytestmark = pytest.mark.postgres

EP = EndpointId("ep_x")


@pytest.fixture
async def sql(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    await connection.execute(
        "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)"
        " VALUES ($1, 'acme', 'ERP', 'https://x.test/', 'wms', '{*}', 5)",
        EP,
    )
    yield connection
    await connection.close()


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Database]:
    pool = Database(database, connections_max=4)
    await pool.open()
    yield pool
    await pool.close()


async def failed(
    routing: Endpoints, *, ago: float, count: int = 3, by_producers: bool = True
) -> None:
    first_at = SystemClock.now() - timedelta(seconds=ago)
    await routing.count_failures([(EP, first_at, count, by_producers)])


async def passed(sql: asyncpg.Connection, seconds: float) -> None:
    await sql.execute(
        "UPDATE dispatcher.endpoint_health SET first_failure_at = now() - $1::interval",
        timedelta(seconds=seconds),
    )


async def report(routing: Endpoints) -> list[int]:
    down = await routing.report_down(DOWN_SECONDS, DOWN_ATTEMPTS_MIN)
    return [endpoint.down_seconds for endpoint in down]


async def raised(sql: asyncpg.Connection) -> list[tuple[str, Any]]:
    rows = await sql.fetch("SELECT type, data FROM dispatcher.outbox ORDER BY position")
    return [(row["type"], orjson.loads(row["data"])) for row in rows]


async def test_an_outage_raises_one_event_for_each_threshold(sql, pool):
    routing = Endpoints(pool)
    await failed(routing, ago=290)
    assert await report(routing) == []
    await passed(sql, 301)
    assert await report(routing) == [300]
    assert await report(Endpoints(pool)) == [], "nor by another replica, nor after a restart"
    await failed(routing, ago=0)
    assert await report(routing) == []
    await passed(sql, 3601)
    assert await report(routing) == [3600]
    assert await report(routing) == []
    events = await raised(sql)
    assert [(kind, data["down_seconds"]) for kind, data in events] == [
        ("dispatcher.endpoint.failing", 300),
        ("dispatcher.endpoint.failing", 3600),
    ]
    catalogue = load_catalogue(load_settings(None, {}).directories_for("catalogue"))
    sample = orjson.loads(catalogue.types["dispatcher.endpoint.failing"].sample)
    assert list(events[0][1]) == list(sample)
    assert events[0][1]["reason"] == "down"


async def test_a_daemon_that_was_away_for_an_hour_raises_the_highest_alone(sql, pool):
    routing = Endpoints(pool)
    await failed(routing, ago=4000)
    assert await report(routing) == [3600]
    assert len(await raised(sql)) == 1


async def test_a_success_ends_the_outage_and_the_next_is_reported_again(sql, pool):
    routing = Endpoints(pool)
    await failed(routing, ago=301)
    await report(routing)
    await routing.clear_failures([EP])
    await failed(routing, ago=301)
    assert await report(routing) == [300]
    assert [kind for kind, _ in await raised(sql)] == [
        "dispatcher.endpoint.failing",
        "dispatcher.endpoint.recovered",
        "dispatcher.endpoint.failing",
    ]


@pytest.mark.parametrize("state", ["paused", "disabled"])
async def test_an_endpoint_that_is_not_active_is_not_down(sql, pool, state):
    await failed(Endpoints(pool), ago=301)
    await sql.execute(
        "UPDATE dispatcher.endpoint SET state = $1, reason = 'x',"
        " paused_at = CASE WHEN $1 = 'paused' THEN now() END",
        state,
    )
    assert await report(Endpoints(pool)) == []


async def test_fewer_failed_attempts_are_no_outage(sql, pool):
    del sql
    await failed(Endpoints(pool), ago=301, count=DOWN_ATTEMPTS_MIN - 1)
    assert await report(Endpoints(pool)) == []


async def test_an_outage_of_our_own_events_is_logged_and_raises_none(sql, pool):
    await failed(Endpoints(pool), ago=301, by_producers=False)
    assert await report(Endpoints(pool)) == [300]
    await Endpoints(pool).clear_failures([EP])
    assert await raised(sql) == []


async def test_two_replicas_report_an_outage_once(sql, pool):
    routing = Endpoints(pool)
    await failed(routing, ago=301)
    async with asyncio.TaskGroup() as group:
        both = [group.create_task(report(one)) for one in (routing, Endpoints(pool))]
    assert sorted(one.result() for one in both) == [[], [300]]
    assert len(await raised(sql)) == 1


async def test_the_watch_reports_while_no_attempt_is_made(sql, pool):
    await failed(Endpoints(pool), ago=301)
    watch = OutageWatch(Endpoints(pool), seconds_between=0.05)
    with probe.listen() as heard:
        task = asyncio.get_running_loop().create_task(watch.run())
        await heard.wait("outages.checked", count=2)
        watch.stop()
        await task
    assert len(await raised(sql)) == 1


async def test_gauges_count_endpoints_down_and_age_of_deferred(sql, pool):
    deliveries, routing = Deliveries(pool), Endpoints(pool)
    await failed(routing, ago=301)
    await sql.execute(
        "INSERT INTO dispatcher.replica (incarnation, name, version, expires_at)"
        " VALUES ('r1', 'r1', '1', now() + interval '1 minute');"
        "INSERT INTO dispatcher.endpoint_breaker VALUES ('ep_x', 'r1', 'open', now(), now());"
        "INSERT INTO words.delivery_open (id, day, event_id, endpoint_id, event_type, tenant,"
        " profile, next_attempt_at) VALUES ('wh_1', current_date, 'e1', 'ep_x', 'a.b', 'acme', 'wms',"
        " now() - interval '900 seconds')"
    )
    row = await deliveries.gauges()
    assert list(row["endpoints_down"]) == [1, 0]
    assert row["oldest_deferred_seconds"] == pytest.approx(900, abs=30)
    await passed(sql, 3601)
    assert list((await deliveries.gauges())["endpoints_down"]) == [1, 1]
