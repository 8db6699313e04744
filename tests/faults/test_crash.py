"""Killed, frozen and replaced daemons lose nothing, repeat at most what was in flight, and resume in seconds."""

import signal
import time
from typing import Any

import pytest

from tests.support.checker import Subscriber
from tests.support.daemon import STANDARD_SECRET, WMS_SECRET, Receiver, add_endpoint, quiet, until
from tests.support.ledger import Plan

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

RECOVERY_SECONDS_MAX = 5.0
TAKEOVER_SECONDS_MAX = 15.0


async def test_kill_under_load_loses_nothing_and_the_next_start_resumes_within_seconds(
    bench, sql, long_run
):
    """F1, F4: the same replica name, killed at moments of a fixed seed, events streaming in all the while."""
    kills = 50 if long_run else 5
    receiver = bench.receiver
    receiver.behave(
        steady={"secret": STANDARD_SECRET, "delay_seconds": [0.005, 0.2]},
        flaky={
            "secret": WMS_SECRET,
            "delay_seconds": [0.005, 0.05],
            "statuses": [503, 500, 200],
            "share": 0.3,
        },
    )
    await add_endpoint(sql, "ep_steady", receiver.url("/steady"), max_concurrency=20)
    await add_endpoint(
        sql,
        "ep_flaky",
        receiver.url("/flaky"),
        profile="wms",
        max_concurrency=20,
        retry_schedule_seconds=[1.0] * 12,
    )
    daemon = await bench.daemon().started()
    producer = bench.produce(
        Plan(url=bench.url, events_count=kills * 300, events_per_second=60, writers=4, seed=11)
    )
    in_flight = 0
    recoveries = []
    for number in range(kills):
        before = len(receiver.entries("request"))
        await receiver.received(before + 40 + 37 * (number % 3), kind="request")
        daemon.kill()
        await daemon.ended(5)
        in_flight = max(in_flight, await _without_result(sql, receiver))
        seen = len(receiver.entries("request"))
        began = time.monotonic()
        daemon = bench.daemon()
        await receiver.received(seen + 1, kind="request", seconds=RECOVERY_SECONDS_MAX + 3)
        recoveries.append(round(time.monotonic() - began, 2))
    assert await producer.ended(kills * 300 / 60 + 20) == 0
    await quiet(bench.url, seconds=60)
    await bench.report(
        "F1-F4",
        [Subscriber("ep_steady", "/steady"), Subscriber("ep_flaky", "/flaky", "wms", 13)],
        seed=11,
        bounds={"dup": in_flight, "unrecorded": in_flight},
        kills=kills,
        recovery_seconds_max=max(recoveries),
    )
    assert max(recoveries) <= RECOVERY_SECONDS_MAX, recoveries


async def _without_result(sql: Any, receiver: Receiver) -> int:
    """Counts requests without an attempt row: those that were in flight at this kill and at the ones before."""
    recorded: int = await sql.fetchval("SELECT count(*) FROM dispatcher.attempt")
    return max(0, len(receiver.entries("request")) - recorded)


async def test_a_retry_keeps_its_due_time_across_a_kill(bench, sql):
    receiver = bench.receiver
    receiver.behave(later={"secret": STANDARD_SECRET, "statuses": [500, 200]})
    await add_endpoint(
        sql, "ep_later", receiver.url("/later"), retry_schedule_seconds=[6.0], profile="wms"
    )
    receiver.behave(later={"secret": WMS_SECRET, "statuses": [500, 200]})
    daemon = await bench.daemon().started()
    bench.produce(Plan(url=bench.url, events_count=1))
    due = await until(
        lambda: sql.fetchval(
            "SELECT next_attempt_at FROM dispatcher.delivery_open WHERE state = 'retrying'"
        ),
        seconds=10,
        what="a committed retry",
    )
    daemon.kill()
    await daemon.ended(5)
    bench.daemon()
    await receiver.received(2, path="/later", seconds=15)
    await quiet(bench.url, seconds=5)
    late = await sql.fetchval(
        "SELECT extract(epoch FROM attempted_at - $1)::float8 FROM dispatcher.attempt WHERE attempt_number = 2",
        due,
    )
    assert -0.01 <= late <= 1.0
    await bench.report(
        "F1-due-times",
        [Subscriber("ep_later", "/later", "wms", 2)],
        lateness_seconds=round(late, 3),
    )


async def test_a_frozen_replica_is_fenced_and_the_other_goes_on(bench, sql):
    """F2: results of requests that were in flight when the replica froze are refused once another took over."""
    receiver = bench.receiver
    receiver.behave(held={"secret": STANDARD_SECRET, "statuses": [0]})
    await add_endpoint(sql, "ep_held", receiver.url("/held"), timeout_seconds=60.0)
    settings = {"REPLICA__LEASE_SECONDS": "4", "REPLICA__RENEW_SECONDS": "1"}
    zombie = await bench.daemon(name="zombie", **settings).started()
    bench.produce(Plan(url=bench.url, events_count=8))
    await receiver.received(8, kind="request")
    zombie.kill(signal.SIGSTOP)
    stopped_at = time.monotonic()
    receiver.behave(held={"secret": STANDARD_SECRET, "statuses": [200]})
    heir = await bench.daemon(name="heir", **settings).started()
    await receiver.received(16, seconds=TAKEOVER_SECONDS_MAX)
    took_over = time.monotonic() - stopped_at
    await quiet(bench.url, seconds=10)
    attempts = await sql.fetchval("SELECT count(*) FROM dispatcher.attempt")
    zombie.kill(signal.SIGCONT)

    async def fenced() -> bool:
        return bool(await zombie.metric("dispatcher_results_fenced_total") == 8)

    await until(fenced, seconds=15, what="eight results refused")
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.attempt") == attempts == 8
    assert await zombie.metric("dispatcher_leases_lost_total") == 64
    assert heir.child.poll() is None
    await bench.report(
        "F2",
        [Subscriber("ep_held", "/held")],
        bounds={"dup": 8, "unrecorded": 8},
        takeover_seconds=round(took_over, 2),
    )
    assert took_over <= TAKEOVER_SECONDS_MAX


async def test_events_reach_endpoints_of_the_other_replica_at_once(bench, sql):
    """Any replica may fan out: what it makes for another's endpoints must not wait for that one's next window."""
    receiver = bench.receiver
    for shard in range(0, 64, 8):
        receiver.behave(**{f"s{shard}": {"secret": STANDARD_SECRET}})
        await add_endpoint(sql, f"ep_{shard}", receiver.url(f"/s{shard}"), shard=shard)
    await bench.daemon(name="one").started()
    await bench.daemon(name="two").started()
    await until(
        lambda: sql.fetchval(
            "SELECT count(DISTINCT owner) = 2 AND min(c) >= 24 FROM"
            " (SELECT owner, count(*) AS c FROM dispatcher.shard WHERE owner IS NOT NULL GROUP BY owner) AS s"
        ),
        seconds=20,
        what="both replicas holding their share",
    )
    began = time.monotonic()
    bench.produce(Plan(url=bench.url, events_count=20, events_per_second=20))
    await receiver.received(160, seconds=20)
    await quiet(bench.url, seconds=10)
    await bench.report(
        "two-replicas",
        [Subscriber(f"ep_{shard}", f"/s{shard}") for shard in range(0, 64, 8)],
        delivered_after_seconds=round(time.monotonic() - began, 2),
    )
