"""Retry an endpoint now: the waiting deliveries of a repaired receiver arrive within seconds."""

import base64
import time
from typing import Any
from zlib import crc32

import aiohttp
import pytest

from dispatcher.admin.operations.recovery import Recovery
from dispatcher.cli.session import deployment_of
from dispatcher.config.settings_reader import load_settings
from dispatcher.store.pool import Database
from tests.support.daemon import KEY, STANDARD_SECRET, Daemon, add_endpoint, until
from tests.support.ledger import Plan
from tests.support.story import ALL

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

TOKEN = "an-admin-token-for-the-recovery-0123456789"  # noqa: S105 -- of the test
WAITING = 1_000
SECONDS_MAX = 10.0
"""Issue 14: 1,000 waiting deliveries of a repaired receiver are delivered within 10 s."""


async def _retry(daemon: Daemon) -> Any:
    url = f"http://127.0.0.1:{daemon.port}/api/v1/endpoints/ep_1/retry"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(headers=headers) as client, client.post(url) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def _broken(bench: Any, sql: Any, events_count: int, daemons: int) -> list[Daemon]:
    """Starts daemons and lets an endpoint fail until its breaker defers the rest."""
    bench.receiver.behave(hook={"secret": STANDARD_SECRET, "statuses": [500]})
    schedule = [300.0, 7200.0]
    await add_endpoint(
        sql, "ep_1", bench.receiver.url("/hook"), retry_schedule_seconds=schedule, shard=3
    )
    started = [bench.daemon(name=f"d{number}", ADMIN_TOKEN=TOKEN) for number in range(daemons)]
    for daemon in started:
        await daemon.started()
    await bench.produced(Plan(url=bench.url, events_count=events_count))
    await until(
        lambda: sql.fetchval(
            "SELECT count(*) = $1 AND EXISTS (SELECT FROM dispatcher.endpoint_breaker)"
            " FROM dispatcher.delivery_open",
            events_count,
        ),
        seconds=30,
        what="everything to wait behind an open breaker",
    )
    return started


@pytest.mark.slow
async def test_retry_of_a_repaired_receiver_delivers_all_in_ten_seconds(bench, sql, say):
    """Asked of either of two replicas; a retry before the repair changes no due time."""
    daemons = await _broken(bench, sql, WAITING, 2)
    failed = await _retry(daemons[0])
    assert (failed["state"], failed["waiting_count"]) == ("failed", WAITING)
    assert (failed["attempt"]["response_code"], failed["attempt"]["trigger"]) == (500, "manual")
    assert await sql.fetchval("SELECT count(*) = $1 FROM dispatcher.delivery_open", WAITING)
    assert await sql.fetchval("SELECT count(*) = 0 FROM dispatcher.endpoint_request")
    row = await sql.fetchrow(
        "SELECT attempt_count - schedule_position AS manual FROM dispatcher.delivery WHERE id = $1",
        failed["delivery_id"],
    )
    assert row["manual"] == 1, "its place in the schedule stays"
    bench.receiver.behave(hook={"secret": STANDARD_SECRET})
    began = time.monotonic()
    released = await _retry(daemons[1])
    assert released["state"] in {"released", "releasing"}
    assert released["attempt"]["outcome"] == "ok"
    await until(
        lambda: sql.fetchval(
            "SELECT count(*) = $1 FROM dispatcher.delivery_done WHERE state = 3", WAITING
        ),
        seconds=SECONDS_MAX,
        what="all of them delivered",
    )
    took_seconds = time.monotonic() - began
    say(f"retry now: {WAITING} waiting deliveries in {took_seconds:.1f} s")
    assert took_seconds <= SECONDS_MAX
    entries = bench.receiver.entries("request")
    assert len({entry["event_id"] for entry in entries}) == WAITING


async def test_retry_goes_on_with_another_event_type(bench, sql):
    """The receiver rejects the type that has been due longest; a delivery of the other type releases all."""
    bad, good = (
        [f"m{number}" for number in range(100) if (crc32(f"m{number}".encode()) % 100 < 50) is is_low][:10]
        for is_low in (True, False)
    )  # fmt: skip
    hook = {"secret": STANDARD_SECRET, "statuses": [500]}
    bench.receiver.behave(hook=hook)
    url = bench.receiver.url("/hook")
    await add_endpoint(sql, "ep_1", url, retry_schedule_seconds=[300.0, 7200.0])
    daemon = await bench.daemon(ADMIN_TOKEN=TOKEN).started()
    for event_type, markers in (("order.bad", bad), ("order.good", good)):
        for marker in markers:
            await sql.execute(
                "INSERT INTO dispatcher.outbox (type, data) VALUES ($1, $2)",
                event_type,
                f'{{"marker":"{marker}"}}',
            )
    await until(
        lambda: sql.fetchval("SELECT count(*) = 20 FROM dispatcher.delivery_open WHERE attempt_count > 0"
                             " OR EXISTS (SELECT FROM dispatcher.endpoint_breaker)"),
        seconds=30,
        what="all of them to wait",
    )  # fmt: skip
    failed = await _retry(daemon)
    assert (failed["state"], failed["attempt"]["response_code"]) == ("failed", 500)
    requested = await sql.fetchval(
        "SELECT count(*) FROM dispatcher.audit WHERE action = 'endpoint.retry'"
    )
    assert requested == 2, "one delivery of each type"
    bench.receiver.behave(hook=hook | {"share": 0.5})
    released = await _retry(daemon)
    assert released["state"] in {"released", "releasing"}
    assert released["attempt"]["outcome"] == "ok"
    await until(
        lambda: sql.fetchval("SELECT count(*) = 10 FROM dispatcher.delivery_done WHERE state = 3"),
        seconds=SECONDS_MAX,
        what="the other type delivered",
    )
    types = await sql.fetch(
        "SELECT DISTINCT event_type FROM dispatcher.delivery WHERE state = 'succeeded'"
    )
    assert [row[0] for row in types] == ["order.good"]


async def test_retry_requested_while_no_dispatcher_runs_is_carried_out(bench, sql, database):
    """The request is a row: the one that starts next carries it out, as after a crash."""
    (daemon,) = await _broken(bench, sql, 30, 1)
    daemon.kill()
    await until(
        lambda: sql.fetchval(
            "SELECT count(*) = 0 FROM dispatcher.replica WHERE expires_at > clock_timestamp()"
        ),
        seconds=60,
        what="the lease to end",
    )
    bench.receiver.behave(hook={"secret": STANDARD_SECRET})
    pool = Database(database, connections_max=2)
    await pool.open()
    environment = {
        "DISPATCHER_DATABASE_URL": database,
        "DISPATCHER_SECRET_KEYS": "k1:" + base64.b64encode(KEY).decode(),
        "DISPATCHER_EGRESS__ALLOW_HTTP": "true",
    }
    deployment = deployment_of(load_settings(None, environment), pool)
    try:
        answer = await Recovery(deployment).retry(ALL, "ep_1")
    finally:
        await pool.close()
    assert (answer.state, answer.attempt) == ("requested", None)
    await bench.daemon(name="next").started()
    await until(
        lambda: sql.fetchval("SELECT count(*) = 30 FROM dispatcher.delivery_done WHERE state = 3"),
        seconds=SECONDS_MAX,
        what="all of them delivered by the next dispatcher",
    )
