"""Overview, system and what waits: figures through the operations, on the real database."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.operations.overview import Overview
from dispatcher.admin.operations.system import System
from dispatcher.admin.resources.endpoint_requests import EndpointsQuery
from dispatcher.admin.resources.overview import TrafficRange
from dispatcher.core import histogram
from dispatcher.core.errors import ConflictError, NotFoundError, PreconditionFailedError
from dispatcher.store import routing as stored
from dispatcher.store.deliveries import Deliveries
from dispatcher.store.leases import Leases
from dispatcher.store.statistics import BreakerRow, Statistics, TrafficRow
from tests.support.endpoints import create_endpoint, update_endpoint
from tests.support.story import ACME, ALL

pytestmark = pytest.mark.postgres


async def make(deployment: Deployment, name: str, tenant: str = "default") -> str:
    fields = {
        "name": name,
        "tenant": tenant,
        "url": "https://example.com/",
        "event_types": ["order.*"],
    }
    return str((await create_endpoint(Endpoints(deployment), ALL, fields)).id)


def counted(subject: str, ok: int, refused: int = 0, *, seconds: float = 0.1) -> TrafficRow:
    latency = [0] * histogram.COUNTS
    latency[histogram.place(seconds)] = ok + refused
    return TrafficRow(
        subject,
        ok,
        refused,
        0,
        0,
        ok,
        0,
        "{" + ",".join(map(str, latency)) + "}",
        datetime.now(UTC),  # noqa: TID251 -- rows count from the database's clock, which is this one
        "ok" if not refused else "http_error",
        503 if refused else 200,
        None,
    )


async def open_delivery(
    connection: Any, endpoint_id: str, number: int, tenant: str = "default"
) -> None:
    await connection.execute(
        "INSERT INTO words.delivery_open (id, day, event_id, endpoint_id, event_type, tenant, profile)"
        " VALUES ('wh' || $1, now()::date, 'e' || $1, $2, 'order.created', $3, 'standard')",
        str(number),
        endpoint_id,
        tenant,
    )


async def test_counts_of_a_flush_are_added_to_those_before(deployment: Deployment) -> None:
    statistics = Statistics(deployment.database)
    await statistics.add([counted("all", 3, 1), counted("ep", 3, 1)])
    await statistics.add([counted("all", 5, seconds=0.4)])
    answer = await Overview(deployment).summary(ALL)
    assert answer.attempts.ok_count == 8
    assert answer.attempts.refused_count == 1
    assert answer.attempts.success_rate == pytest.approx(8 / 9)
    assert answer.deliveries.succeeded_count == 8
    assert 0.09 <= (answer.latency_seconds.p50 or 0) <= 0.6
    assert answer.latency_seconds.p95 == pytest.approx(0.4, rel=0.2)
    assert len(answer.buckets) == 24
    assert answer.buckets[-1].ok_count == 8
    assert sum(bucket.ok_count for bucket in answer.buckets[:-1]) == 0


async def test_each_range_has_its_buckets_and_the_counts_within_it(
    deployment: Deployment, connection: Any
) -> None:
    statistics, overview = Statistics(deployment.database), Overview(deployment)
    await statistics.add([counted("all", 1), counted("tenant/acme", 4), counted("ep", 9)])
    for table, column, back in (
        ("traffic", "hour", "30 hours"), ("traffic", "hour", "9 days"), ("traffic", "hour", "40 days"),
        ("traffic_minute", "minute", "20 minutes"), ("traffic_minute", "minute", "70 minutes"),
    ):  # fmt: skip
        await connection.execute(
            f"INSERT INTO dispatcher.{table} SELECT (jsonb_populate_record(t, jsonb_build_object("
            f"'{column}', t.{column} - interval '{back}', 'ok_count', 10))).* FROM dispatcher.{table} AS t"
            f" WHERE subject = 'all' AND ok_count = 1"
        )
    found = {over: await overview.summary(ALL, over) for over in TrafficRange}
    assert {over: (len(one.buckets), one.attempts.ok_count) for over, one in found.items()} == {
        "1h": (60, 11), "24h": (24, 1), "7d": (56, 11), "30d": (60, 21),
    }  # fmt: skip
    for summary in found.values():
        pairs = zip(summary.buckets, summary.buckets[1:], strict=False)
        assert all(one.until == after.at for one, after in pairs)
        assert summary.buckets[-1].ok_count == 1
        assert summary.buckets[-1].p50_seconds is not None
    assert (await overview.summary(ACME, TrafficRange.HOUR)).attempts.ok_count == 4
    assert (
        await connection.fetchval(
            "SELECT count(*) FROM dispatcher.traffic_minute WHERE subject = 'ep'"
        )
        == 0
    )


async def test_a_tenant_sees_its_own_figures(deployment: Deployment, connection: Any) -> None:
    ours, theirs = await make(deployment, "a", "acme"), await make(deployment, "b")
    await Statistics(deployment.database).add(
        [counted("all", 9), counted("tenant/acme", 2), counted("tenant/default", 7)]
    )
    for number in range(3):
        await open_delivery(connection, theirs, number)
    await open_delivery(connection, ours, 9, "acme")
    answer = await Overview(deployment).summary(ACME)
    assert answer.attempts.ok_count == 2
    assert answer.backlog.pending_count == 1
    assert answer.endpoints.active_count == 1
    assert set(await Overview(deployment).of_endpoints(ACME, [ours, theirs])) == {ours}


async def test_an_endpoint_shows_how_it_fared_and_what_waits(
    deployment: Deployment, connection: Any
) -> None:
    endpoint = await make(deployment, "a")
    await Statistics(deployment.database).add([counted(endpoint, 1, 3)])
    await open_delivery(connection, endpoint, 1)
    found = (await Overview(deployment).of_endpoints(ALL, [endpoint]))[endpoint]
    assert found.success_rate == 0.25
    assert found.pending_count == 1
    assert found.last_response_code == 503
    assert found.breaker is None
    assert len(found.buckets) == 24


async def test_an_open_breaker_is_seen_while_its_replica_lives(
    deployment: Deployment, connection: Any
) -> None:
    endpoint = await make(deployment, "a")
    await Leases(deployment.database).join("alive", "one", "1.0", 60.0)
    statistics = Statistics(deployment.database)
    await statistics.publish_breakers("alive", [BreakerRow(endpoint, "open", 30.0)])
    await statistics.publish_figures("alive", {"lanes_count": 7})
    assert [
        one.health for one in await stored.Endpoints(deployment.database).evaluate_health(300)
    ] == ["degraded"]
    answer = await Overview(deployment).summary(ALL)
    assert [one.code for one in answer.problems] == ["endpoints_degraded"]
    assert answer.endpoints.degraded_count == 1
    (troubled,) = (await Overview(deployment).problems(ALL)).endpoints
    assert troubled.health == "degraded"
    figures = (await Overview(deployment).of_endpoints(ALL, [endpoint]))[endpoint]
    assert figures.breaker is not None
    assert figures.breaker.state == "open"
    shown = await System(deployment).show(ALL)
    assert shown.breakers[0].endpoint_id == endpoint
    assert shown.replicas[0].figures == {"lanes_count": 7}
    of_acme = await System(deployment).show(ACME)
    assert (of_acme.breakers, of_acme.hot_tables, of_acme.partitions) == ([], [], [])
    assert (of_acme.postgres, of_acme.replicas[0].figures) == (None, None)
    await connection.execute("UPDATE dispatcher.replica SET expires_at = now() - interval '1 s'")
    assert (await System(deployment).show(ALL)).breakers == []


async def test_a_breaker_that_closed_is_published_no_longer(deployment: Deployment) -> None:
    endpoint = await make(deployment, "a")
    await Leases(deployment.database).join("alive", "one", "1.0", 60.0)
    statistics = Statistics(deployment.database)
    await statistics.publish_breakers("alive", [BreakerRow(endpoint, "open", 30.0)])
    await statistics.publish_breakers("alive", [])
    assert (await System(deployment).show(ALL)).breakers == []


async def test_late_deliveries_and_no_dispatcher_are_problems(
    deployment: Deployment, connection: Any
) -> None:
    endpoint = await make(deployment, "a")
    assert [p.code for p in (await Overview(deployment).summary(ALL)).problems] == ["no_dispatcher"]
    await open_delivery(connection, endpoint, 1)
    await connection.execute(
        "UPDATE dispatcher.delivery_open SET next_attempt_at = now() - interval '5 min'"
    )
    answer = await Overview(deployment).summary(ALL)
    assert "deliveries_late" in [problem.code for problem in answer.problems]
    assert answer.oldest_undelivered_seconds == pytest.approx(300, abs=30)


async def test_failed_deliveries_are_a_problem_until_they_are_resent(
    deployment: Deployment, connection: Any
) -> None:
    endpoint, theirs = await make(deployment, "a", "acme"), await make(deployment, "b")
    await Leases(deployment.database).join("alive", "one", "1.0", 60.0)
    for number, (owner, state, test) in enumerate(
        [
            (endpoint, 4, False),
            (endpoint, 4, False),
            (theirs, 4, False),
            (endpoint, 4, True),
            (endpoint, 5, False),
        ]
    ):
        await connection.execute(
            "INSERT INTO dispatcher.delivery_done (day, endpoint_no, event_type_code, attempt_count,"
            " schedule_position, state, reason, test, id, event_id) SELECT (now() AT TIME ZONE 'UTC')::date,"
            " number, 1, 0, 0, $3, 1, $4, gen_random_uuid(), $2 FROM dispatcher.endpoint WHERE id = $1",
            owner, f"e{number}", state, test,
        )  # fmt: skip
    overview, endpoints = Overview(deployment), Endpoints(deployment)
    answer = await overview.summary(ALL)
    assert (answer.healthy, answer.failed_unresolved_count) == (True, 3), "none failed today"
    await Statistics(deployment.database).add(
        [
            counted("all", 1)._replace(failed_count=3),
            counted("tenant/acme", 1)._replace(failed_count=2),
        ]
    )
    answer = await overview.summary(ALL)
    assert [(one.code, one.count) for one in answer.problems] == [("deliveries_failed", 3)]
    answer = await overview.summary(ACME)
    assert [(one.code, one.count) for one in answer.problems] == [("deliveries_failed", 2)]
    found = await overview.problems(ACME)
    assert ([one.id for one in found.endpoints], found.deployment) == ([endpoint], [])
    assert (await endpoints.show(ALL, endpoint)).failed_unresolved_count == 2
    await connection.execute(
        "DELETE FROM dispatcher.delivery_done WHERE state = 4"
    )  # as resends do
    assert (await overview.summary(ALL)).healthy
    assert (await overview.problems(ALL)).count == 0
    assert (await endpoints.show(ALL, endpoint)).failed_unresolved_count == 0


async def test_endpoints_are_listed_by_health_with_since_and_cause(
    deployment: Deployment, connection: Any
) -> None:
    down, healthy = await make(deployment, "a"), await make(deployment, "b")
    await connection.execute(
        "INSERT INTO dispatcher.endpoint_status VALUES ($1, 'down', now(), 'http_error', 503)", down
    )
    await open_delivery(connection, down, 1)
    endpoints = Endpoints(deployment)

    async def of(health: str) -> list[str]:
        return [
            one.id for one in (await endpoints.page(ALL, EndpointsQuery.of(health=health))).items
        ]

    assert (await of("down"), await of("healthy"), await of("degraded")) == ([down], [healthy], [])
    shown = await endpoints.show(ALL, down)
    assert (shown.state, shown.health, shown.health_cause, shown.health_response_code) == (
        "active", "down", "http_error", 503,
    )  # fmt: skip
    assert shown.health_since is not None
    assert (shown.waiting_count, shown.waiting_capped) == (1, False)
    assert [one.id for one in (await Overview(deployment).problems(ALL)).endpoints] == [down]


async def test_what_waits_for_an_endpoint_is_counted(
    deployment: Deployment, connection: Any
) -> None:
    endpoint = await make(deployment, "a", "acme")
    for number in range(3):
        await open_delivery(connection, endpoint, number, "acme")
    waiting = await Endpoints(deployment).waiting(ACME, endpoint)
    assert waiting.waiting_count == 3
    assert not waiting.capped
    with pytest.raises(NotFoundError):
        await Endpoints(deployment).waiting(Actor(name="x", tenant="other"), endpoint)


async def test_a_change_of_an_older_version_is_refused(deployment: Deployment) -> None:
    endpoints, endpoint = Endpoints(deployment), await make(deployment, "a")
    tag = (await endpoints.show(ALL, endpoint)).etag
    newer = (await update_endpoint(endpoints, ALL, endpoint, {"name": "b"}, if_match=tag)).etag
    with pytest.raises(PreconditionFailedError):
        await update_endpoint(endpoints, ALL, endpoint, {"name": "c"}, if_match=tag)
    with pytest.raises(PreconditionFailedError):
        await endpoints.delete(ALL, endpoint, if_match=tag)
    assert (await endpoints.show(ALL, endpoint)).name == "b"
    await endpoints.delete(ALL, endpoint, if_match=newer)


async def test_old_traffic_is_forgotten(deployment: Deployment, connection: Any) -> None:
    statistics = Statistics(deployment.database)
    await statistics.add([counted("all", 1), counted("ep", 1)])
    await connection.execute(
        "UPDATE dispatcher.traffic SET hour = hour - interval '40 days' WHERE subject = 'ep'"
    )
    await connection.execute(
        "UPDATE dispatcher.traffic_minute SET minute = minute - interval '3 hours'"
    )
    assert await statistics.forget(30, 100) == 2, "an hour of the endpoint, a minute of all"
    assert await statistics.forget(30, 100) == 0


async def test_partitions_are_shown_by_day(deployment: Deployment) -> None:
    shown = await System(deployment).show(ALL)
    today = datetime.now(UTC).date().isoformat()  # noqa: TID251 -- as above
    (day,) = [one for one in shown.partitions if one.day == today]
    assert {table.table for table in day.tables} == {
        "event",
        "body",
        "delivery_done",
        "attempt",
    }
    assert shown.postgres is not None
    assert shown.postgres.connections_count >= 1


async def test_of_two_who_take_one_name_at_once_one_is_told(deployment: Deployment) -> None:
    taken: list[str] = []

    async def take() -> None:
        try:
            await make(deployment, "erp")
        except ConflictError as error:
            taken.append(str(error))

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(take())
    assert len(taken) == 2
    assert "erp" in taken[0]
    assert len((await Endpoints(deployment).page(ALL, EndpointsQuery.of(name="erp"))).items) == 1


async def test_what_waits_for_a_breaker_is_late_on_no_replica(
    deployment: Deployment, connection: Any
) -> None:
    """The gauge is of the whole database: a breaker that another replica sees counts as well."""
    endpoint = await make(deployment, "a")
    await open_delivery(connection, endpoint, 1)
    deliveries = Deliveries(deployment.database)
    assert (await deliveries.gauges())["due_endpoints"] == [endpoint]
    await Leases(deployment.database).join("another", "two", "1.0", 60.0)
    await Statistics(deployment.database).publish_breakers(
        "another", [BreakerRow(endpoint, "open", 30.0)]
    )
    row = await deliveries.gauges()
    assert (row["due_endpoints"], row["due_ages_seconds"]) == ([], [])
    summary = await Overview(deployment).summary(ALL)
    assert summary.oldest_undelivered_seconds == 0


async def test_what_waits_for_its_turn_or_for_a_poll_is_not_late(
    deployment: Deployment, connection: Any
) -> None:
    """One failing key, or a receiver that does not poll, fired the alert about a stuck dispatcher."""
    deliveries = Deliveries(deployment.database)
    ordered = await make(deployment, "ordered")
    pulled = await make(deployment, "pulled")
    await connection.execute(
        "UPDATE dispatcher.endpoint SET ordering = 'key' WHERE id = $1", ordered
    )
    await connection.execute(
        "UPDATE dispatcher.endpoint SET delivery = 'pull' WHERE id = $1", pulled
    )
    numbers = {
        row["id"]: row["number"]
        for row in await connection.fetch("SELECT id, number FROM dispatcher.endpoint")
    }

    async def waiting(
        event: str, endpoint_id: str, key: int | None, place: int, due_in: float
    ) -> None:
        await connection.execute(
            "INSERT INTO dispatcher.delivery_open"
            " (id, day, event_id, endpoint_no, event_type_code, order_key, position, next_attempt_at)"
            " VALUES (gen_random_uuid(), current_date, $1, $2, 1, $3, $4, now() + make_interval(secs => $5))",
            event, numbers[endpoint_id], key, place, due_in,
        )  # fmt: skip

    await waiting("first", ordered, 7, 1, 3600.0)  # failed, and retried in an hour
    await waiting("second", ordered, 7, 2, -1200.0)
    await waiting("fetched", pulled, None, 3, -900.0)
    row = await deliveries.gauges()
    assert row["due_endpoints"] == [ordered]
    assert row["due_ages_seconds"] == [pytest.approx(-3600, abs=30)]
    assert row["oldest_unpolled_seconds"] == pytest.approx(900, abs=30)
    summary = await Overview(deployment).summary(ALL)
    assert summary.oldest_undelivered_seconds == 0
    assert "deliveries_late" not in [problem.code for problem in summary.problems]
    await waiting("of another key", ordered, 8, 4, -300.0)
    row = await deliveries.gauges()
    assert row["due_ages_seconds"] == [pytest.approx(300, abs=30)]
    summary = await Overview(deployment).summary(ALL)
    assert summary.oldest_undelivered_seconds == pytest.approx(300, abs=30)
