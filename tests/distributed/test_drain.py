"""The daemon on a distributed history: what is committed is delivered, recorded and shown, whatever is killed."""

import pytest

from tests.support.checker import Subscriber
from tests.support.citus import run_sql
from tests.support.daemon import STANDARD_SECRET, WMS_SECRET, add_endpoint, quiet
from tests.support.ledger import Plan
from tests.support.servers import frozen

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

RETRIES = [1.0] * 30
SUBSCRIBERS = [
    Subscriber("ep_steady", "/steady", attempts_max=31),
    Subscriber("ep_flaky", "/flaky", "wms", attempts_max=31),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_drain_survives_a_killed_daemon_and_a_worker_that_crashes(
    bench, sql, citus, long_run
):
    """One endpoint answers 503 first. The daemon is killed and a worker crashes while events are sent."""
    events_count = 10_000 if long_run else 1_000
    receiver = bench.receiver
    receiver.behave(
        steady={"secret": STANDARD_SECRET},
        flaky={"secret": WMS_SECRET, "statuses": [503, 200], "share": 0.3},
    )
    await add_endpoint(sql, "ep_steady", receiver.url("/steady"), retry_schedule_seconds=RETRIES)
    await add_endpoint(
        sql, "ep_flaky", receiver.url("/flaky"), profile="wms", retry_schedule_seconds=RETRIES
    )
    first = await bench.daemon(name="first").started()
    await bench.produced(Plan(url=bench.url, events_count=events_count, writers=4), seconds=120)
    await receiver.received(events_count // 5, seconds=60)
    first.kill()
    await bench.daemon(name="second").started()
    await receiver.received(events_count, seconds=120)
    citus.worker.restart_immediate()
    await quiet(bench.url, seconds=300)
    await run_sql(
        bench.url, "SELECT recover_prepared_transactions()"
    )  # Citus does it once a minute
    report = await bench.report("D1", SUBSCRIBERS, bounds={"dup": 256, "unrecorded": 256})
    assert report.pairs == 2 * events_count


async def test_worker_that_hangs_delays_events_and_loses_none(bench, sql, citus):
    receiver = bench.receiver
    receiver.behave(steady={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_steady", receiver.url("/steady"), retry_schedule_seconds=RETRIES)
    daemon = await bench.daemon().started()
    await bench.produced(Plan(url=bench.url, events_count=20, prefix="before"))
    await quiet(bench.url, seconds=30)
    with frozen(citus.worker):
        await bench.produced(Plan(url=bench.url, events_count=50, prefix="while"))
        await daemon.said("intake.stalled", seconds=30)
    await quiet(bench.url, seconds=60)
    await run_sql(bench.url, "SELECT recover_prepared_transactions()")
    await bench.report("D2", SUBSCRIBERS[:1], bounds={"dup": 256})


async def test_control_events_of_one_endpoint_alone_are_missed(bench, sql):
    receiver = bench.receiver
    receiver.behave(steady={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_steady", receiver.url("/steady"))
    await bench.daemon().started()
    await bench.produced(Plan(url=bench.url, events_count=10))
    await quiet(bench.url, seconds=30)
    with pytest.raises(AssertionError, match="lost 10 > 0"):
        await bench.report("D1", SUBSCRIBERS)
