"""Operational events through the whole pipeline: delivered to who asked for them, silent about themselves."""

from datetime import timedelta

import orjson
import pytest

from tests.support.daemon import STANDARD_SECRET, add_endpoint, quiet

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]


async def test_a_life_of_failures_is_told_to_who_asked_and_never_about_itself(bench, sql):
    """Failing, failed, recovered, disabled: each once. `*` gets none; a dead subscriber hears of itself nothing."""
    receiver = bench.receiver
    ok = {"secret": STANDARD_SECRET}
    receiver.behave(
        flaky={**ok, "statuses": [500, 200, 410]},
        alerts=ok,
        everything=ok,
        deaf={**ok, "statuses": [500]},
    )
    await add_endpoint(
        sql, "ep_flaky", receiver.url("/flaky"), event_types=["t.*"], retry_schedule_seconds=[]
    )
    await add_endpoint(sql, "ep_alerts", receiver.url("/alerts"), event_types=["dispatcher.*"])
    await add_endpoint(sql, "ep_everything", receiver.url("/everything"), event_types=["*"])
    await add_endpoint(
        sql,
        "ep_deaf",
        receiver.url("/deaf"),
        event_types=["dispatcher.*"],
        retry_schedule_seconds=[],
    )
    await sql.execute(
        "INSERT INTO dispatcher.endpoint_health VALUES ('ep_flaky', now() - $1::interval, 30, 0)",
        timedelta(hours=61),
    )
    await bench.daemon().started()
    for number in range(3):
        await sql.execute(
            "INSERT INTO dispatcher.outbox (id, type, data) VALUES ($1, 't.x', '{}')",
            f"own-{number}",
        )
        await quiet(bench.url, seconds=15)
    events = await sql.fetch(
        "SELECT type, data FROM dispatcher.event_all WHERE accepted_at IS NOT NULL"
        " AND type LIKE 'dispatcher.%' ORDER BY accepted_at, id"
    )
    told = [(row["type"].removeprefix("dispatcher."), orjson.loads(row["data"])) for row in events]
    assert sorted((kind, data["reason"]) for kind, data in told) == [
        ("delivery.failed", "gone"),
        ("delivery.failed", "schedule_spent"),
        ("endpoint.disabled", "gone"),
        ("endpoint.failing", "failing_too_long"),
        ("endpoint.recovered", "succeeded"),
    ]
    assert {data["endpoint_id"] for _, data in told} == {"ep_flaky"}
    counts = {
        path: receiver.count("request", f"/{path}") for path in ("alerts", "everything", "deaf")
    }
    assert counts == {"alerts": 5, "everything": 3, "deaf": 5}
    failed = await sql.fetchval(
        "SELECT count(*) FROM dispatcher.delivery WHERE endpoint_id = 'ep_deaf' AND state = 'failed'"
    )
    assert failed == 5
