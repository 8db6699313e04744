"""The daemon on a distributed history: its own tests, with another database, and a replay."""

import asyncio
from urllib.request import Request, urlopen

import orjson
import pytest

from tests.e2e.test_order import test_keys_stay_in_order_across_kills_and_retries
from tests.e2e.test_recovery import test_retry_requested_while_no_dispatcher_runs_is_carried_out
from tests.e2e.test_retries import (
    test_a_paused_endpoint_holds_what_comes_and_resumes_oldest_first,
    test_deliveries_of_deleted_or_disabled_endpoints_are_cancelled,
    test_schedule_exhausted_fails_and_a_resend_succeeds,
)
from tests.support.daemon import STANDARD_SECRET, add_endpoint, quiet, until
from tests.support.ledger import Plan

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

__all__ = [
    "test_a_paused_endpoint_holds_what_comes_and_resumes_oldest_first",
    "test_deliveries_of_deleted_or_disabled_endpoints_are_cancelled",
    "test_keys_stay_in_order_across_kills_and_retries",
    "test_retry_requested_while_no_dispatcher_runs_is_carried_out",
    "test_schedule_exhausted_fails_and_a_resend_succeeds",
]
TOKEN = "admin-token-of-the-tests-0123456789"  # noqa: S105 -- of the tests
EVENTS = 200


async def test_replay_job_delivers_all_that_failed(bench, sql):
    receiver = bench.receiver
    receiver.behave(hook={"secret": STANDARD_SECRET, "statuses": [500, 200], "share": 0.2})
    await add_endpoint(sql, "ep_x", receiver.url("/hook"), retry_schedule_seconds=[])
    daemon = await bench.daemon(ADMIN_TOKEN=TOKEN).started()
    await bench.produced(Plan(url=bench.url, events_count=EVENTS))
    await quiet(bench.url, seconds=60)
    counts = "SELECT state, count(*) FROM dispatcher.delivery GROUP BY 1"
    failed = dict(await sql.fetch(counts))["failed"]
    assert 0 < failed < EVENTS
    job = await asyncio.to_thread(
        _api, daemon.port, "/jobs", {"kind": "replay", "filter": {"state": "failed"}}
    )
    job_id = job["id"]

    async def is_settled() -> bool:
        found = await asyncio.to_thread(_api, daemon.port, f"/jobs/{job_id}")
        return bool(found["succeeded_count"] == failed)

    await until(is_settled, seconds=60, what="the end of the job")
    assert dict(await sql.fetch(counts)) == {"succeeded": EVENTS}


def _api(port: int, path: str, body: dict[str, object] | None = None) -> dict[str, object]:
    request = Request(
        f"http://127.0.0.1:{port}/api/v1{path}",
        orjson.dumps(body) if body else None,
        {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
    )
    with urlopen(request, timeout=10) as response:  # noqa: S310 -- the daemon's own port
        found: dict[str, object] = orjson.loads(response.read())
    return found
