"""The health of endpoints, and outages: reported by the clock, once for each threshold of an outage."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from dispatcher.config.catalogue import load_catalogue
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.failing import FAILED_ATTEMPTS_MIN, down_thresholds
from dispatcher.core.model import EndpointId
from dispatcher.maintenance.outages import OutageWatch
from dispatcher.runtime import probe
from dispatcher.runtime.clock import SystemClock
from dispatcher.store.deliveries import Deliveries
from dispatcher.store.endpoints import resume_endpoint
from dispatcher.store.pool import Database
from dispatcher.store.routing import Endpoints
from dispatcher.store.statistics import BreakerRow, RecentRow, Statistics
from tests.support.daemon import until

pytestmark = pytest.mark.postgres

EP = EndpointId("ep_x")
DOWN_AFTER = 300


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
    await routing.evaluate_health(DOWN_AFTER)
    down = await routing.report_down(down_thresholds(DOWN_AFTER))
    return [endpoint.down_seconds for endpoint in down]


async def health(routing: Endpoints) -> list[tuple[str | None, str]]:
    """Evaluate; return what changed, from and to."""
    return [(one.was, one.health) for one in await routing.evaluate_health(DOWN_AFTER)]


async def breaker(sql: asyncpg.Connection, pool: Database, *states: str) -> None:
    """Publish the breaker of a living replica; no state: it is closed."""
    await sql.execute(
        "INSERT INTO dispatcher.replica (incarnation, name, version, expires_at)"
        " VALUES ('r1', 'r1', '1', now() + interval '1 minute') ON CONFLICT DO NOTHING"
    )
    await Statistics(pool).publish_breakers("r1", [BreakerRow(EP, one, 5.0) for one in states])


async def attempts(pool: Database, ok: int, failed: int) -> None:
    cause = ("http_error", 503) if failed else (None, None)
    await Statistics(pool).add_recent([RecentRow(EP, ok, failed, *cause)])


async def minutes_passed(sql: asyncpg.Connection, minutes: int) -> None:
    await sql.execute(
        "UPDATE dispatcher.endpoint_recent SET minute = minute - $1::interval",
        timedelta(minutes=minutes),
    )
    await sql.execute(
        "UPDATE dispatcher.endpoint_status SET since = since - $1::interval",
        timedelta(minutes=minutes),
    )


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
    await failed(Endpoints(pool), ago=301, count=FAILED_ATTEMPTS_MIN - 1)
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
    watch = OutageWatch(Endpoints(pool), down_after_seconds=DOWN_AFTER, seconds_between=0.05)
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
    await routing.evaluate_health(DOWN_AFTER)
    row = await deliveries.gauges(1)
    assert orjson.loads(row["endpoints_by_health"]) == {"down": 1}
    assert row["longest_down_seconds"] == pytest.approx(301, abs=30)
    assert [one[:3] for one in orjson.loads(row["endpoints_down"])] == [["acme", "ep_x", "ERP"]]
    assert row["oldest_deferred_seconds"] == pytest.approx(900, abs=30)
    assert (await deliveries.gauges())["endpoints_down"] is None, "named only where settings ask"
    await sql.execute("UPDATE dispatcher.endpoint SET state = 'paused', paused_at = now()")
    row = await deliveries.gauges(1)
    assert (row["endpoints_by_health"], row["longest_down_seconds"]) == (None, 0)


async def test_health_of_an_outage_from_the_breaker_to_recovery(sql, pool):
    """Down at once with an open breaker, until a success; recovering while deliveries are overdue; healthy."""
    routing = Endpoints(pool)
    await failed(routing, ago=40)
    await attempts(pool, 0, 12)
    assert await health(routing) == [(None, "degraded")]
    await breaker(sql, pool, "open")
    assert await health(routing) == [("degraded", "down")]
    assert await report(routing) == [], "announced only after down_after"
    row = await sql.fetchrow("SELECT * FROM dispatcher.endpoint_status")
    assert (row["cause"], row["response_code"]) == ("http_error", 503)
    assert row["since"] == await sql.fetchval(
        "SELECT first_failure_at FROM dispatcher.endpoint_health"
    )
    await breaker(sql, pool, "half_open")
    await sql.execute("DELETE FROM dispatcher.replica")  # its replica dies: the breaker is lost
    assert await health(routing) == [], "only a success ends it"
    await routing.clear_failures([EP])
    assert await health(Endpoints(pool)) == [("down", "recovering")]
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.endpoint_recent") == 0
    await sql.execute(
        "INSERT INTO words.delivery_open (id, day, event_id, endpoint_id, event_type, tenant,"
        " profile, next_attempt_at) VALUES ('wh_1', current_date, 'e1', 'ep_x', 'a.b', 'acme', 'wms',"
        " now() - interval '900 seconds')"
    )
    await minutes_passed(sql, 2)
    assert await health(routing) == [], "a delivery is overdue"
    await sql.execute("DELETE FROM dispatcher.delivery_open")
    assert await health(routing) == [("recovering", "healthy")]
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.endpoint_status") == 0


async def test_deliveries_behind_a_retried_one_of_their_line_are_not_overdue(sql, pool):
    """The endpoint is healthy again although one ordering key waits for its retry."""
    routing = Endpoints(pool)
    await sql.execute("UPDATE dispatcher.endpoint SET ordering = 'key' WHERE id = $1", EP)
    await failed(routing, ago=40)
    await attempts(pool, 0, 12)
    await breaker(sql, pool, "open")
    assert await health(routing) == [(None, "down")]
    await sql.execute("DELETE FROM dispatcher.replica")
    await routing.clear_failures([EP])
    assert await health(routing) == [("down", "recovering")]
    waiting = (
        "INSERT INTO dispatcher.delivery_open"
        " (id, day, event_id, endpoint_no, event_type_code, order_key, position, next_attempt_at)"
        " SELECT gen_random_uuid(), current_date, 'e' || $2::bigint, number, 1, $1, $2,"
        " now() + make_interval(secs => $3) FROM dispatcher.endpoint"
    )
    for key, place, due_in in ((7, 1, 3600.0), (7, 2, -900.0), (8, 3, -900.0)):
        await sql.execute(waiting, key, place, due_in)
    await minutes_passed(sql, 2)
    assert await health(routing) == [], "that of the other key is overdue"
    await sql.execute("DELETE FROM dispatcher.delivery_open WHERE order_key = 8")
    assert await health(routing) == [("recovering", "healthy")]


async def test_health_without_traffic_is_down_after_the_setting(sql, pool):
    await failed(Endpoints(pool), ago=299)
    assert await health(Endpoints(pool)) == []
    await passed(sql, 301)
    assert await health(Endpoints(pool)) == [(None, "down")]


@pytest.mark.parametrize(
    ("ok", "failures", "expected"), [(27, 3, True), (28, 3, False), (0, 2, False)]
)
async def test_health_is_degraded_from_a_share_of_failures_on(sql, pool, ok, failures, expected):
    await attempts(pool, ok, failures)
    assert await health(Endpoints(pool)) == [(None, "degraded")] * expected
    await minutes_passed(sql, 6)
    assert await health(Endpoints(pool)) == [("degraded", "healthy")] * expected


async def test_health_is_degraded_while_a_breaker_defers_some_types(sql, pool):
    await breaker(sql, pool, "half_open")
    assert await health(Endpoints(pool)) == [(None, "degraded")]
    await breaker(sql, pool)
    assert await health(Endpoints(pool)) == [("degraded", "healthy")]


async def test_health_of_a_paused_endpoint_stays_until_resumed(sql, pool):
    routing = Endpoints(pool)
    await failed(routing, ago=301)
    await routing.evaluate_health(DOWN_AFTER)
    await sql.execute("UPDATE dispatcher.endpoint SET state = 'paused', paused_at = now()")
    await routing.clear_failures([EP])
    assert await health(routing) == []
    await resume_endpoint(sql, EP)
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.endpoint_status") == 0
    assert await health(routing) == []


async def test_two_replicas_record_a_change_of_health_once(sql, pool):
    routing = Endpoints(pool)
    await failed(routing, ago=301)
    await routing.evaluate_health(DOWN_AFTER)
    await routing.clear_failures([EP])

    async def both_wait() -> bool:
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        return bool(await sql.fetchval(waiting) == 2)

    async with asyncio.TaskGroup() as group, sql.transaction():
        await sql.execute("SELECT FROM dispatcher.endpoint_status FOR UPDATE")
        both = [group.create_task(health(Endpoints(pool))) for _ in range(2)]
        await until(both_wait, seconds=4, what="both have evaluated, and neither has written")
    assert sorted(one.result() for one in both) == [[], [("down", "recovering")]]
    assert await sql.fetchval("SELECT health FROM dispatcher.endpoint_status") == "recovering"
