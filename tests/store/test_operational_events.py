"""Events about the dispatcher itself: raised once, with what causes them, under the endpoint's tenant."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from dispatcher.config.catalogue import load_catalogue
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.model import EndpointId
from dispatcher.runtime.clock import SystemClock
from dispatcher.store import migrate
from dispatcher.store.pool import Database
from dispatcher.store.results import MoveRow, Results
from dispatcher.store.routing import Endpoints
from tests.support.words import attempt_row, wh

pytestmark = pytest.mark.postgres

SHARD, TOKEN = 5, 7
EP = EndpointId("ep_x")


@pytest.fixture
async def sql(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    await connection.execute(
        "UPDATE dispatcher.shard SET owner = 'me', token = $1 WHERE shard = $2", TOKEN, SHARD
    )
    await connection.execute(
        "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)"
        " VALUES ($1, 'acme', 'ERP \u0e44\u0e17\u0e22', 'https://x.test/', 'wms', '{*}', $2)",
        EP,
        SHARD,
    )
    yield connection
    await connection.close()


async def raised(sql: asyncpg.Connection) -> list[tuple[str, dict[str, Any]]]:
    rows = await sql.fetch("SELECT type, tenant, data FROM dispatcher.outbox ORDER BY position")
    assert all(row["tenant"] == "acme" for row in rows)
    return [(row["type"], orjson.loads(row["data"])) for row in rows]


def fields_of(event_type: str) -> list[str]:
    """The names that the catalogue shows to subscribers, in order."""
    return list(
        orjson.loads(
            load_catalogue(load_settings(None, {}).directories_for("catalogue"))
            .types[event_type]
            .sample
        )
    )


async def failing_since(sql: asyncpg.Connection, hours: float, *, warned: int = 0) -> None:
    await sql.execute(
        "INSERT INTO dispatcher.endpoint_health VALUES ($1, now() - $2::interval, 30, $3)",
        EP,
        timedelta(hours=hours),
        warned,
    )


async def opened(sql: asyncpg.Connection, name: str, event_type: str = "a.b") -> None:
    await sql.execute(
        "INSERT INTO words.delivery_open (id, day, event_id, endpoint_id, event_type, tenant, profile)"
        " VALUES ($1, (now() AT TIME ZONE 'UTC')::date, $4, $2, $3, 'acme', 'wms')",
        wh(0, event_id=name, endpoint_id=EP),
        EP,
        event_type,
        f"e{name}",
    )


async def record(
    pool: Database,
    *names: str,
    state: str = "failed",
    token: int = TOKEN,
    event_type: str = "a.b",
) -> None:
    reason = "schedule_spent" if state == "failed" else None
    now = SystemClock.now()
    moves = [
        MoveRow(
            SHARD,
            wh(0, event_id=n, endpoint_id=EP),
            1,
            state,
            reason,
            1,
            5.0 if state == "retrying" else None,
        )
        for n in names
    ]
    attempts = [
        attempt_row(
            now.date(),
            wh(0, event_id=n, endpoint_id=EP),
            f"e{n}",
            event_type=event_type,
            outcome="http_error",
            attempted_at=now,
            response_code=503,
            error="503",
        )
        for n in names
    ]
    await Results(pool).record(moves, attempts, {SHARD: token})


async def test_each_threshold_is_told_once_by_however_many_replicas(sql, pool):
    await failing_since(sql, 61)
    routing = Endpoints(pool)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(routing.warn(EP, 50)) for _ in range(4)]
    assert sorted(task.result() for task in tasks) == [False, False, False, True]
    assert await routing.warn(EP, 70)
    assert not await routing.warn(EP, 50)
    events = await raised(sql)
    assert [(kind, data["percent"]) for kind, data in events] == [
        ("dispatcher.endpoint.failing", 50),
        ("dispatcher.endpoint.failing", 70),
    ]
    data = events[0][1]
    assert list(data) == fields_of("dispatcher.endpoint.failing")
    assert (data["endpoint_id"], data["endpoint_name"]) == (EP, "ERP \u0e44\u0e17\u0e22")
    since = datetime.fromisoformat(data["failing_since"])
    assert datetime.fromisoformat(data["at"]) - since > timedelta(hours=60)
    assert data["at"].endswith("Z")


async def test_disabling_is_told_once_and_is_in_the_audit_log(sql, pool):
    routing = Endpoints(pool)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(routing.disable(EP, "gone", raises_event=True)) for _ in range(3)
        ]
    assert sorted(task.result() for task in tasks) == [False, False, True]
    ((kind, data),) = await raised(sql)
    assert kind == "dispatcher.endpoint.disabled"
    assert list(data) == fields_of(kind)
    assert data["reason"] == "gone"
    audit = await sql.fetch("SELECT actor, tenant, action, object, detail FROM dispatcher.audit")
    assert [tuple(row) for row in audit] == [
        ("dispatcher", "acme", "endpoint.disable", EP, '{"reason": "gone"}')
    ]


async def test_disabling_by_operational_deliveries_alone_raises_nothing(sql, pool):
    assert await Endpoints(pool).disable(EP, "failing_too_long", raises_event=False)
    assert await raised(sql) == []


@pytest.mark.parametrize(("warned", "count"), [(0, 0), (50, 1)])
async def test_recovery_is_told_where_a_warning_was(sql, pool, warned, count):
    await failing_since(sql, 61, warned=warned)
    for _ in range(2):
        await Endpoints(pool).clear_failures([EP])
    events = await raised(sql)
    assert [kind for kind, _ in events] == ["dispatcher.endpoint.recovered"] * count
    for kind, data in events:
        assert list(data) == fields_of(kind)
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.endpoint_health") == 0


async def test_a_failed_delivery_is_told_once_with_its_last_attempt(sql, pool):
    await opened(sql, "wh_a")
    for _ in range(2):  # the second time as after a commit whose answer was lost
        await record(pool, "wh_a")
    ((kind, data),) = await raised(sql)
    assert kind == "dispatcher.delivery.failed"
    assert list(data) == fields_of(kind)
    assert {k: v for k, v in data.items() if k not in {"at", "endpoint_name"}} == {
        "endpoint_id": EP,
        "reason": "schedule_spent",
        "delivery_id": wh(0, event_id="wh_a", endpoint_id=EP),
        "event_id": "ewh_a",
        "event_type": "a.b",
        "attempt_count": 1,
        "last_outcome": "http_error",
        "last_response_code": 503,
    }


async def test_what_is_fenced_retried_or_operational_says_nothing(sql, pool):
    await opened(sql, "wh_a")
    await opened(sql, "wh_b")
    await opened(sql, "wh_c", "dispatcher.delivery.failed")
    await record(pool, "wh_a", token=TOKEN + 1)
    await record(pool, "wh_b", state="retrying")
    await record(pool, "wh_c", event_type="dispatcher.delivery.failed")
    assert await raised(sql) == []
    assert (
        await sql.fetchval("SELECT count(*) FROM dispatcher.delivery WHERE state = 'failed'") == 1
    )


async def test_an_event_that_cannot_be_raised_takes_its_cause_back(sql, pool):
    """Cause and event commit together: here the outbox refuses, so the delivery has not failed either."""
    await opened(sql, "wh_a")
    await sql.execute("ALTER TABLE dispatcher.outbox ADD CONSTRAINT no CHECK (tenant <> 'acme')")
    try:
        with pytest.raises(asyncpg.CheckViolationError):
            await record(pool, "wh_a")
        assert await sql.fetchval("SELECT state FROM dispatcher.delivery") == "pending"
    finally:
        await sql.execute("ALTER TABLE dispatcher.outbox DROP CONSTRAINT no")


async def test_producers_cannot_pass_for_the_dispatcher(sql):
    await migrate.grant_producers(sql)
    await sql.execute("SET ROLE dispatcher_producer")
    with pytest.raises(asyncpg.CheckViolationError, match="type_prefix_dispatcher_is_reserved"):
        await sql.execute(
            "INSERT INTO dispatcher.outbox (type, data) VALUES ('dispatcher.endpoint.disabled', '{}')"
        )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await sql.execute(
            "INSERT INTO dispatcher.outbox (operational, type, data)"
            " VALUES (true, 'dispatcher.endpoint.disabled', '{}')"
        )
    await sql.execute("RESET ROLE")
    with pytest.raises(asyncpg.CheckViolationError):
        await sql.execute(
            "INSERT INTO dispatcher.outbox (operational, type, data) VALUES (true, 'a.b', '{}')"
        )
