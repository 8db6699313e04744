"""One process delivers, another serves the API; several processes are one service."""

import orjson
import pytest
from aiohttp import ClientSession

from tests.support.daemon import STANDARD_SECRET, add_endpoint, quiet

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

TOKEN = "admin-token-of-the-tests-0123456789"  # noqa: S105 -- of the tests


async def publish(port: int, count: int) -> list[int]:
    """Publishes events over HTTP; returns the statuses."""
    body = orjson.dumps({"type": "order.created", "data": {}})
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    statuses = []
    async with ClientSession() as session:
        for _ in range(count):
            url = f"http://127.0.0.1:{port}/api/v1/events"
            async with session.post(url, data=body, headers=headers) as response:
                statuses.append(response.status)
    return statuses


async def test_api_role_takes_no_lease_and_delivery_role_serves_probes(bench, sql):
    bench.receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_x", bench.receiver.url("/hook"))
    api = await bench.daemon(name="api", arguments=["--role", "api"], ADMIN_TOKEN=TOKEN).started()
    assert await publish(api.port, 3) == [201, 201, 201]
    assert (await api.get("/readyz"))[0] == 200
    assert "dispatcher_listener_up " not in (await api.get("/metrics"))[1]
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.replica") == 0
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.outbox") == 3
    delivery = await bench.daemon(name="delivery", arguments=["--role", "delivery"]).started()
    await bench.receiver.received(3)
    await quiet(bench.url, seconds=20)
    assert await sql.fetch("SELECT name FROM dispatcher.replica") == [("delivery",)]
    assert [(await delivery.get(path))[0] for path in ("/livez", "/readyz", "/metrics")] == [
        200
    ] * 3
    assert [(await delivery.get(path))[0] for path in ("/", "/api/v1/events")] == [503, 503]
    for daemon in (api, delivery):
        daemon.kill(15)
        assert await daemon.ended(20) == 0
