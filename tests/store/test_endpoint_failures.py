"""Failures of an endpoint by response, and endpoints by trouble: what they count, and how few rows they read."""

from typing import Any

import pytest

from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.resources.endpoint_requests import EndpointsQuery
from dispatcher.core.errors import InvalidRequestError, NotFoundError
from dispatcher.runtime.clock import SystemClock
from dispatcher.store import endpoint_counts
from dispatcher.store.day_walk import KEEP_PLAN, month_ago
from dispatcher.store.kept_plans import with_days
from dispatcher.store.statements import statement
from tests.support.explained import nodes_of, rows_of
from tests.support.story import ALL, Story

pytestmark = pytest.mark.postgres

FAILED = 3_000
"""Of each failing endpoint."""
FILL = """
INSERT INTO dispatcher.delivery_done (id, day, event_id, endpoint_no, event_type_code, state, reason, attempt_count,
                                      schedule_position)
SELECT gen_random_uuid(), (now() AT TIME ZONE 'UTC')::date - $3::integer, 'e' || g, p.number, 0, 4, 1, 2, 2
FROM generate_series(1, $1) AS g, dispatcher.endpoint AS p WHERE p.id = ANY ($2::text[]);
"""
ATTEMPTS = """
INSERT INTO dispatcher.attempt (day, event_id, endpoint_no, delivery_id, attempt_number, trigger, outcome, attempted_at,
                                latency_seconds, revision, reused, response_code)
SELECT d.day, d.event_id, d.endpoint_no, d.id, n, 1, 2, now(), 0.1, 1, false, 500 + n
FROM dispatcher.delivery_done AS d, generate_series(1, 2) AS n
"""


@pytest.fixture
async def story(deployment: Deployment, sql: Any) -> Story:
    return Story(deployment, sql)


async def attempt(sql: Any, delivery_id: str, number: int, outcome: str, code: int | None) -> None:
    await sql.execute(
        "INSERT INTO words.attempt (day, delivery_id, attempt_number, trigger, outcome, attempted_at, latency_seconds,"
        " url, response_code, reused) VALUES"
        " ((now() AT TIME ZONE 'UTC')::date, $1, $2, 'scheduled', $3, now(), 0.1, 'https://x.test/', $4, false)",
        delivery_id,
        number,
        outcome,
        code,
    )


async def test_failures_are_counted_by_the_last_response(
    deployment: Deployment, story: Story, sql: Any
) -> None:
    erp, other = await story.endpoint(), await story.endpoint("other")
    responses = [("http_error", 503), ("http_error", 503), ("timeout", None), ("http_error", 401)]
    for number, (outcome, code) in enumerate(responses):
        delivery = await story.delivery(erp, f"f{number}", "failed")
        await attempt(sql, delivery, 1, "http_error", 500)
        await attempt(sql, delivery, 2, outcome, code)
    waiting = await story.delivery(erp, "w1", "retrying")
    await attempt(sql, waiting, 1, "http_error", 503)
    await story.delivery(erp, "w2")
    await story.delivery(erp, "none", "failed")
    await story.delivery(erp, "ok", "succeeded")
    await attempt(sql, await story.delivery(other, "o1", "failed"), 1, "timeout", None)

    found = await Endpoints(deployment).failures(ALL, erp)
    rows = [
        (one.outcome, one.response_code, one.failed_count, one.retrying_count)
        for one in found.responses
    ]
    assert rows == [
        ("http_error", 503, 2, 1),
        ("http_error", 401, 1, 0),
        ("timeout", None, 1, 0),
        (None, None, 1, 0),
    ]
    assert not found.capped
    with pytest.raises(NotFoundError):
        await Endpoints(deployment).failures(Actor(name="a", tenant="acme"), erp)


async def test_the_newest_failures_are_counted(
    deployment: Deployment, story: Story, sql: Any
) -> None:
    """Failures of yesterday must not hide that the receiver responds differently today."""
    erp = await story.endpoint()
    await sql.execute(FILL, FAILED, [erp], 1)
    await sql.execute(FILL, 5, [erp], 0)
    await sql.execute(ATTEMPTS)
    await sql.execute(
        "UPDATE dispatcher.attempt SET response_code = 401"
        " WHERE attempt_number = 2 AND day = (now() AT TIME ZONE 'UTC')::date"
    )
    found = await Endpoints(deployment).failures(ALL, erp)
    assert [(one.response_code, one.failed_count) for one in found.responses] == [
        (502, 95),
        (401, 5),
    ]
    assert found.capped
    assert (await Endpoints(deployment).show(ALL, erp)).failed_unresolved_count == 1_000


@pytest.mark.parametrize("read_max", [5, 7, 10_000])
async def test_counts_are_the_same_in_one_pass_and_by_endpoint(
    deployment: Deployment,
    story: Story,
    sql: Any,
    monkeypatch: pytest.MonkeyPatch,
    read_max: int,
) -> None:
    """Above the bound of one pass, each endpoint is counted by itself."""
    monkeypatch.setattr(endpoint_counts, "FAILED_READ_MAX", read_max)
    monkeypatch.setattr(endpoint_counts, "COUNTED_MAX", 4)
    many, few, none = [await story.endpoint(name) for name in ("many", "few", "none")]
    await sql.execute(FILL, 3, [many, few], 1)
    await sql.execute(FILL, 1, [many], 0)
    await sql.execute(FILL, 100, [await story.endpoint("another")], 0)
    await story.delivery(few, "waits")
    async with deployment.database.reading() as connection:
        counts = await endpoint_counts.count_deliveries(connection, [many, few, none, "ep_gone"])
    assert counts == {many: (0, 4), few: (1, 3), none: (0, 0)}
    await sql.execute("DELETE FROM dispatcher.delivery_done")
    await sql.execute(FILL, 50, [many], 0)
    async with deployment.database.reading() as connection:
        counts = await endpoint_counts.count_deliveries(connection, [many])
    assert counts == {many: (0, 5)}, "one more than is counted"


async def test_endpoints_by_trouble_are_the_worst_first(
    deployment: Deployment, story: Story, sql: Any
) -> None:
    made = {name: await story.endpoint(name) for name in "abcdefgh"}
    for name, health in {"c": "recovering", "d": "degraded", "e": "down"}.items():
        await sql.execute(
            "INSERT INTO dispatcher.endpoint_status (endpoint_id, health, since) VALUES ($1, $2, now())",
            made[name],
            health,
        )
    await sql.execute(
        "UPDATE dispatcher.endpoint SET state = 'disabled', reason = 'gone' WHERE name = 'f'"
    )
    for name, count in {"b": 1, "g": 3}.items():
        for number in range(count):
            await story.delivery(made[name], f"{name}{number}", "failed")

    async def names(**query: str) -> tuple[list[str], str | None]:
        page = await Endpoints(deployment).page(ALL, EndpointsQuery.of(sort="trouble", **query))
        return [one.name for one in page.items], page.next_cursor

    assert await names() == (["e", "f", "d", "c", "g", "b", "a", "h"], None)
    assert (await names(q="G"))[0] == ["g"]
    assert (await names(q="%"))[0] == [], "wildcards are literal"
    assert (await names(health="degraded"))[0] == ["d"]
    first, cursor = await names(limit="3")
    assert first == ["e", "f", "d"]
    assert cursor is not None
    second, cursor = await names(limit="3", cursor=cursor)
    assert second == ["c", "g", "b"]
    assert cursor is not None
    assert await names(limit="3", cursor=cursor) == (["a", "h"], None)
    with pytest.raises(InvalidRequestError):
        await names(limit="3", cursor=cursor, q="a")
    newest = await Endpoints(deployment).page(ALL, EndpointsQuery.of(q="A"))
    assert [one.name for one in newest.items] == ["a"]


async def test_counts_read_no_more_rows_than_their_bounds(
    deployment: Deployment, story: Story, sql: Any
) -> None:
    """An endpoint may have a million failed deliveries: neither statement may read them."""
    made = [await story.endpoint(f"e{number}") for number in range(30)]
    await sql.execute(FILL, FAILED, made[:5], 0)
    await sql.execute(ATTEMPTS)
    await sql.execute("ANALYZE dispatcher.delivery_done, dispatcher.attempt")
    since = month_ago(SystemClock.now())

    async def rows_read(name: str, *parameters: str, day_at: int) -> tuple[float, set[str]]:
        async with deployment.database.reading() as connection:
            await connection.execute(KEEP_PLAN)
            await connection.execute(
                f"PREPARE kept AS {with_days(statement(name), day_at, (since,))}"
            )
            text = await connection.fetchval(
                f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE kept ({', '.join(parameters)})"
            )
            await connection.execute("DEALLOCATE kept")
        nodes = nodes_of(text)
        scanned = {one["Relation Name"] for one in nodes if one["Node Type"] == "Seq Scan"}
        return rows_of(nodes), {one for one in scanned if one.startswith(("delivery", "attempt"))}

    rows, scanned = await rows_read(
        "endpoint_count_failures", f"'{made[0]}'", "NULL", "1000", "100", "20", day_at=6
    )
    assert rows <= 2_000
    assert not scanned
    failing = f"'{{{','.join(made)}}}'"
    rows, scanned = await rows_read("endpoint_count_deliveries", failing, "1000", "10000", day_at=4)
    assert rows <= 10_000
    assert not scanned
    rows, scanned = await rows_read("endpoint_count_many_deliveries", failing, "1000", day_at=3)
    assert rows <= 5 * 1_001
    assert not scanned
    rows, scanned = await rows_read(
        "endpoint_list_by_trouble", *("NULL",) * 6, "1000", "20", "0", day_at=10
    )
    assert rows <= 1_000
    assert not scanned
