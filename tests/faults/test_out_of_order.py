"""P1: many writers commit out of order after random delays, and nothing is lost; a cursor on the id loses."""

import asyncio

import pytest

from tests.support import ledger
from tests.support.checker import Subscriber
from tests.support.daemon import STANDARD_SECRET, add_endpoint, quiet
from tests.support.ledger import Plan

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

WRITERS = 32
SEED = 64
PICK_UP_SECONDS_MAX = 0.9
"""Commits wake the daemon, so that no event waits for a poll, which takes up to a second."""


class CursorReader:
    """The known-bad variant: reads the outbox's rows beyond the highest position that it has seen."""

    def __init__(self, connection) -> None:
        self._connection = connection
        self._position = 0
        self.taken: set[str] = set()

    async def read(self) -> None:
        rows = await self._connection.fetch(
            "SELECT position, id FROM dispatcher.outbox WHERE position > $1 ORDER BY position",
            self._position,
        )
        for row in rows:
            self._position = row["position"]
            self.taken.add(row["id"])


def _plan(url: str, events_count: int, delay_seconds_max: float) -> Plan:
    return Plan(
        url=url,
        events_count=events_count,
        writers=WRITERS,
        delay_seconds_max=delay_seconds_max,
        rolled_back_share=0.05,
        own_id_share=0.2,
        seed=SEED,
    )


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.shows("G2")
@pytest.mark.usefixtures("notified")
async def test_commits_out_of_order_lose_nothing_and_delay_nobody_else(bench, sql, long_run):
    events_count, delay = (100_000, 0.1) if long_run else (2_000, 0.2)
    receiver = bench.receiver
    receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_x", receiver.url("/hook"), max_concurrency=50)
    await bench.daemon().started()
    await bench.produced(
        _plan(bench.url, events_count, delay), seconds=events_count / WRITERS * delay + 60
    )
    await quiet(bench.url, seconds=events_count / 200 + 20)
    # Inserted is not committed: what a writer's own delay explains is taken off.
    waited = await sql.fetchval(
        "SELECT percentile_disc(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM accepted_at - inserted_at)::float8)"
        " FROM dispatcher.event"
    )
    await bench.report(
        "P1", [Subscriber("ep_x", "/hook")], seed=SEED, pick_up_seconds_p99=round(waited, 3)
    )
    assert waited <= delay + PICK_UP_SECONDS_MAX


async def test_a_cursor_on_the_id_loses_events_under_the_same_load(bench, sql):
    """The control: were it to lose nothing, the load above would prove nothing."""
    reader = CursorReader(sql)
    producer = bench.produce(_plan(bench.url, 1_000, 0.1))
    while producer.child.poll() is None:
        await reader.read()
        await asyncio.sleep(0)
    await reader.read()
    committed = {i.event_id for i in ledger.read(producer.ledger) if i.outcome == "committed"}
    assert len(committed) > 900
    assert committed - reader.taken
