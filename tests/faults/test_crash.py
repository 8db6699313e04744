"""Killed, frozen and replaced daemons lose nothing, repeat at most what was in flight, and resume in seconds."""

import asyncio
import random
import signal
import time
from typing import Any

import pytest

from tests.support.checker import Subscriber, read_receiver, repeats_without_a_kill
from tests.support.daemon import (
    STANDARD_SECRET,
    WMS_SECRET,
    Daemon,
    Receiver,
    add_endpoint,
    quiet,
    until,
)
from tests.support.ledger import Plan
from tests.support.pace import in_time
from tests.support.sending import spawn

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

RECOVERY_SECONDS_MAX = 5.0
"""From the moment in which a process stands; how long a busy machine takes to start one is not ours."""
UNRECORDED_MAX = 100
"""As many attempts are at most sent and not committed, those in flight included."""
TAKEOVER_SECONDS_MAX = 15.0


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(2_400)
@pytest.mark.shows("G1")
async def test_kill_under_load_loses_nothing_and_a_start_resumes_in_seconds(bench, sql, long_run):
    """F1, F4: two replicas, one of them killed at a time, each started again under its own name at once.

    With `--long` every twentieth stays away until the other has taken over.
    """
    kills = 200 if long_run else 4
    chance = random.Random(11)  # noqa: S311 -- the moments of a fixed seed
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
    concurrency = 100 if long_run else 20
    await add_endpoint(
        sql,
        "ep_steady",
        receiver.url("/steady"),
        event_types=["order.created"],
        max_concurrency=concurrency,
        shard=3,
    )
    await add_endpoint(
        sql,
        "ep_flaky",
        receiver.url("/flaky"),
        profile="wms",
        event_types=["grn.created"],
        max_concurrency=concurrency,
        shard=50,
        retry_schedule_seconds=[1.0] * 12,
    )
    settings = {
        "RECORDER__BATCH_ROWS": str(UNRECORDED_MAX),
        "RECORDER__UNRECORDED_MAX": str(UNRECORDED_MAX),
        "DELIVERY__CONCURRENCY_PER_HOST": str(2 * concurrency),
    }
    daemons = {name: await bench.daemon(name=name, **settings).started() for name in ("one", "two")}
    producers = [
        bench.produce(
            Plan(
                url=bench.url,
                events_count=1_000_000,
                prefix=event_type,
                event_type=event_type,
                events_per_second=per_second,
                writers=4,
                seed=11,
            )
        )
        for event_type, per_second in (
            ("order.created", 400 if long_run else 60),
            ("grn.created", 100 if long_run else 60),
        )
    ]
    recoveries: list[float] = []
    outages: list[float] = []
    takeovers: list[float] = []
    kills_at: list[float] = []
    for number in range(1, kills + 1):
        await asyncio.sleep(chance.uniform(0.2, 5.0 if long_run else 1.0))  # the moment of the kill
        name = chance.choice(sorted(daemons))
        kills_at.append(time.monotonic())
        daemons[name].kill()
        await daemons[name].ended(5)
        seen = {path: receiver.count("request", path) for path in ("/steady", "/flaky")}
        killed_at = time.monotonic()
        if number % 20 == 0:
            # Whichever endpoint was the killed one's: both go on by the other alone.
            await _resumed(receiver, seen)
            takeovers.append(round(time.monotonic() - killed_at, 2))
            daemons[name] = await bench.daemon(name=name, **settings).started(90)
            continue
        daemons[name] = bench.daemon(name=name, **settings)
        starting = spawn(_started_at(daemons[name]))
        await _resumed(receiver, seen)
        resumed_at = time.monotonic()
        outages.append(round(resumed_at - killed_at, 2))
        recoveries.append(round(max(0.0, resumed_at - await starting), 2))
    for producer in producers:
        producer.kill()  # what it was committing then is settled by the database
        await producer.ended(5)
    await quiet(bench.url, seconds=120)
    unrecorded = await _without_result(sql, receiver)
    unexplained = repeats_without_a_kill(read_receiver(receiver.record)[1], kills_at)
    await bench.report(
        "F1-F4",
        [
            Subscriber(
                "ep_steady", "/steady", takes=lambda intent: intent.event_type == "order.created"
            ),
            Subscriber(
                "ep_flaky", "/flaky", "wms", 13, lambda intent: intent.event_type == "grn.created"
            ),
        ],
        seed=11,
        bounds={"dup": unrecorded, "unrecorded": UNRECORDED_MAX * kills},
        kills=kills,
        recovery_seconds_max=max(recoveries),
        outage_seconds_max=max(outages),
        outage_seconds_median=sorted(outages)[len(outages) // 2],
        takeover_seconds=takeovers,
        repeats_without_a_kill=len(unexplained),
    )
    assert unexplained == [], "a delivery was repeated more often than its sender was killed"
    assert in_time(max(recoveries), RECOVERY_SECONDS_MAX), recoveries
    assert in_time(max(outages + takeovers), TAKEOVER_SECONDS_MAX), (outages, takeovers)


async def _resumed(receiver: Receiver, seen: dict[str, int]) -> None:
    async def both() -> bool:
        return all(receiver.count("request", path) > count for path, count in seen.items())

    await until(both, seconds=TAKEOVER_SECONDS_MAX + 15, what="requests at both endpoints")


async def _started_at(daemon: Daemon) -> float:
    await daemon.started(90)
    return time.monotonic()


async def _without_result(sql: Any, receiver: Receiver) -> int:
    """Counts requests without an attempt row: those that were in flight at this kill and at the ones before."""
    recorded: int = await sql.fetchval("SELECT count(*) FROM dispatcher.attempt_all")
    return max(0, len(receiver.entries("request")) - recorded)


@pytest.mark.shows("G5")
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
            "SELECT next_attempt_at FROM dispatcher.delivery_open WHERE schedule_position > 0"
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
        "SELECT extract(epoch FROM attempted_at - $1)::float8 FROM dispatcher.attempt_all WHERE attempt_number = 2",
        due,
    )
    assert late >= -0.01
    assert in_time(late, 1.0)
    await bench.report(
        "F1-due-times",
        [Subscriber("ep_later", "/later", "wms", 2)],
        lateness_seconds=round(late, 3),
    )


@pytest.mark.timeout(400)
@pytest.mark.shows("G7")
async def test_a_frozen_replica_is_fenced_and_the_other_goes_on(bench, sql, long_run):
    """F2: results of requests that were in flight when the replica froze are refused once another took over.

    With `--long` it stays frozen for three leases.
    """
    receiver = bench.receiver
    receiver.behave(held={"secret": STANDARD_SECRET, "statuses": [0]})
    await add_endpoint(sql, "ep_held", receiver.url("/held"), timeout_seconds=60.0)
    lease_seconds = 10.0 if long_run else 4.0
    settings = {"REPLICA__LEASE_SECONDS": str(lease_seconds), "REPLICA__RENEW_SECONDS": "1"}
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
    attempts = await sql.fetchval("SELECT count(*) FROM dispatcher.attempt_all")
    if long_run:
        await asyncio.sleep(3 * lease_seconds - (time.monotonic() - stopped_at))
    requests = receiver.count("request")
    zombie.kill(signal.SIGCONT)

    async def fenced() -> bool:
        return bool(await zombie.metric("dispatcher_results_fenced_total") == 8)

    await until(fenced, seconds=15, what="eight results refused")
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.attempt_all") == attempts == 8
    assert await zombie.metric("dispatcher_leases_lost_total") == 64
    assert heir.child.poll() is None
    assert receiver.count("request") == requests, "the zombie sent something after its lease"
    await bench.report(
        "F2",
        [Subscriber("ep_held", "/held")],
        bounds={"dup": 8, "unrecorded": 8},
        takeover_seconds=round(took_over, 2),
    )
    assert in_time(took_over, TAKEOVER_SECONDS_MAX)


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
