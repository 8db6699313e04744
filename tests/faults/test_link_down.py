"""The network link under the LISTEN connection goes down, and nobody is told."""

import asyncio
import contextlib
import time

import asyncpg
import pytest

from dispatcher.store.migrate import set_notify
from tests.support.checker import Subscriber
from tests.support.daemon import STANDARD_SECRET, add_endpoint, quiet
from tests.support.far_database import far_database
from tests.support.ledger import Plan
from tests.support.pace import in_time

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

NOTICED_SECONDS_MAX = 10.0
PICK_UP_SECONDS_MAX = 2.0 + 1.5
"""Intake waits for the lock on a connection that is dead and not known to be; then it polls."""


@pytest.mark.slow
async def test_a_link_that_goes_down_under_listen_is_noticed_and_polling_goes_on(bench, sql):
    """P4: beside it a listener without a round trip, which goes on to believe in the dead link."""
    bench.receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_x", bench.receiver.url("/hook"))
    await set_notify(sql, wanted=True)
    heard: list[object] = []
    told = asyncio.Event()
    with far_database(bench.url, bench.folder) as far, contextlib.ExitStack() as ending:
        witness = await asyncpg.connect(bench.url)
        ending.callback(witness.terminate)
        daemon = await bench.daemon(LISTEN_DATABASE_URL=far.url).started()
        await daemon.said("listener.connected")
        control = await asyncpg.connect(far.url)
        ending.callback(control.terminate)
        await control.add_listener("p4", lambda *call: heard.append(call))
        far.set_link("down")
        down_at = time.monotonic()
        producer = bench.produce(Plan(url=bench.url, events_count=60, events_per_second=10))
        await daemon.said("listener.disconnected")
        noticed = time.monotonic() - down_at
        assert await producer.ended(20) == 0
        await quiet(bench.url, seconds=10)
        await witness.add_listener("p4", lambda *_: told.set())
        await sql.execute("NOTIFY p4")
        async with asyncio.timeout(5):
            await told.wait()
        assert not control.is_closed(), "the link was not half-open: this proves nothing"
        assert heard == []
        far.set_link("up")
        await daemon.said("listener.connected", count=2, seconds=30)
    waited = await sql.fetchval(
        "SELECT max(extract(epoch FROM accepted_at - inserted_at))::float8 FROM dispatcher.event"
    )
    await bench.report(
        "P4-link",
        [Subscriber("ep_x", "/hook")],
        noticed_seconds=round(noticed, 2),
        pick_up_seconds_max=round(waited, 3),
    )
    assert in_time(noticed, NOTICED_SECONDS_MAX)
    assert in_time(waited, PICK_UP_SECONDS_MAX)
