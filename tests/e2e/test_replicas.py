"""Two replicas that share the endpoints: what one takes in for the other is on its way at once."""

import time

import pytest

from dispatcher.store.migrate import set_notify
from tests.support.daemon import STANDARD_SECRET, add_endpoint, until
from tests.support.ledger import Plan

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

ENDPOINTS = 8


async def test_deliveries_for_the_other_replica_do_not_wait_for_its_poll(bench, sql):
    """Polls are a minute apart here, so that only the announcement can be what moved them."""
    await set_notify(sql, wanted=True)
    receiver = bench.receiver
    names = [f"ep_{number}" for number in range(ENDPOINTS)]
    receiver.behave(**{name: {"secret": STANDARD_SECRET} for name in names})
    for number, name in enumerate(names):
        await add_endpoint(sql, name, receiver.url(f"/{name}"), shard=number * 8)
    for name in ("a", "b"):
        await bench.daemon(name=name, INTAKE__POLL_SECONDS="60").started()

    async def divided() -> bool:
        held = "SELECT count(DISTINCT owner) = 2 FROM dispatcher.shard WHERE shard % 8 = 0"
        taken = "SELECT bool_and(owner IS NOT NULL) FROM dispatcher.shard"
        return bool(await sql.fetchval(held) and await sql.fetchval(taken))

    await until(divided, seconds=20, what="both replicas to hold some of the endpoints")
    began = time.monotonic()
    await bench.produced(Plan(url=bench.url, events_count=3))
    await receiver.received(3 * ENDPOINTS, seconds=30)
    assert time.monotonic() - began < 30, "they waited for a poll"
