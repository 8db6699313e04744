"""A test event counts as an attempt of a test; seen: it was not counted at all."""

import aiohttp
import pytest

from tests.support.daemon import STANDARD_SECRET, add_endpoint

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

TOKEN = "an-admin-token-for-a-test-event-0123456789"  # noqa: S105 -- of the test


async def test_a_test_event_counts_as_one_attempt_of_a_test_and_as_nothing_else(bench, sql):
    bench.receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_1", bench.receiver.url("/hook"))
    daemon = bench.daemon(ADMIN_TOKEN=TOKEN)
    await daemon.started()
    url = f"http://127.0.0.1:{daemon.port}/api/v1/endpoints/ep_1/test"
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as client,
        client.post(url, json={"event_type": "order.created"}) as answer,
    ):
        assert answer.status == 200
    _, told = await daemon.get("/metrics")
    lines = [one for one in told.splitlines() if one.startswith("dispatcher_attempts_total{")]
    counted = {one for one in lines if not one.endswith((" 0", " 0.0"))}
    assert len(counted) == 1, counted
    assert 'outcome="test"' in counted.pop()
    assert await daemon.metric("dispatcher_deliveries_total") == 0
