"""The process itself in trouble: stopped past its lease, out of descriptors, its clock moved, many of it."""

import asyncio
import shutil
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

from dispatcher.outbound.descriptor_limits import share_out
from tests.support.checker import Subscriber
from tests.support.daemon import STANDARD_SECRET, WMS_SECRET, add_endpoint, quiet, until
from tests.support.ledger import Plan
from tests.support.pace import in_time

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

CONCURRENCY = 10
DATABASE_CONNECTIONS_MAX = 8


async def test_a_process_that_stood_still_past_its_lease_takes_it_again(bench, sql):
    """F5: alone, so that nobody takes over; what was in flight comes back late and is recorded under the same token."""
    receiver = bench.receiver
    receiver.behave(hook={"secret": STANDARD_SECRET, "delay_seconds": [0.001, 0.05]})
    await add_endpoint(sql, "ep_x", receiver.url("/hook"), max_concurrency=CONCURRENCY)
    settings = {"REPLICA__LEASE_SECONDS": "4", "REPLICA__RENEW_SECONDS": "1"}
    daemon = await bench.daemon(**settings).started()
    producer = bench.produce(Plan(url=bench.url, events_count=300, events_per_second=50))
    await receiver.received(30)
    daemon.kill(signal.SIGSTOP)
    stopped_at = time.monotonic()

    async def lease_ended() -> bool:
        return bool(
            await sql.fetchval(
                "SELECT bool_and(expires_at < clock_timestamp()) FROM dispatcher.replica"
            )
        )

    await until(lease_ended, seconds=10, what="the lease to end")
    daemon.kill(signal.SIGCONT)
    stood_still = time.monotonic() - stopped_at
    assert await producer.ended(20) == 0
    await quiet(bench.url, seconds=20)
    assert daemon.child.poll() is None
    await bench.report(
        "F5",
        [Subscriber("ep_x", "/hook")],
        bounds={"dup": CONCURRENCY},
        stood_still_seconds=round(stood_still, 2),
    )


async def test_running_out_of_descriptors_spends_no_attempt_and_starves_nobody(bench, sql):
    """F7: receivers hold every connection that fits; listener and database go on, and connect anew."""
    endpoints, descriptors = 60, 64
    receiver = bench.receiver
    program = shutil.which("prlimit")
    if program is None:
        pytest.skip("prlimit is not installed")
    answers = {"secret": STANDARD_SECRET, "delay_seconds": [0.01, 0.1]}
    names = [f"hook{number}" for number in range(endpoints)]
    receiver.behave(**dict.fromkeys(names, answers | {"statuses": [0]}))
    for number, name in enumerate(names):
        await add_endpoint(sql, f"ep_{number}", receiver.url(f"/{name}"), max_concurrency=5)
    daemon = await bench.daemon(
        prefix=[program, f"--nofile={descriptors}:{descriptors}"],
        DELIVERY__CONCURRENCY_PER_HOST="300",
    ).started()
    warning = await daemon.said("configuration.warned")
    assert f"the limit of file descriptors is {descriptors}" in warning["warning"]
    fit = share_out(
        descriptors, concurrency_total=500, pool_size=10, listener_connections=256
    ).sockets_max
    await bench.produced(Plan(url=bench.url, events_count=4))
    await receiver.received(fit, kind="request")
    began_at = time.monotonic()
    async with asyncio.TaskGroup() as crowd:
        asking = [crowd.create_task(daemon.get("/livez")) for _ in range(8)]
    longest_seconds = time.monotonic() - began_at
    await sql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'dispatcher%'"
        " AND datname = current_database()"
    )

    async def ready() -> bool:
        return bool((await daemon.get("/readyz"))[0] == 200)

    await until(ready, seconds=10, what="the database, reached anew while all else is held")
    held = receiver.count("request")
    receiver.behave(**dict.fromkeys(names, answers | {"statuses": [200]}))
    await quiet(bench.url, seconds=60)
    failed = await sql.fetch(
        "SELECT outcome, error, count(*) FROM dispatcher.attempt_all WHERE outcome <> 'ok' GROUP BY 1, 2"
    )
    await bench.report(
        "F7",
        [Subscriber(f"ep_{number}", f"/{name}") for number, name in enumerate(names)],
        descriptors=descriptors,
        requests_held=held,
        longest_answer_seconds=round(longest_seconds, 2),
        not_attempted=len(daemon.lines("delivery.not_attempted")),
    )
    assert not failed
    assert [one.result()[0] for one in asking] == [200] * 8
    assert in_time(longest_seconds, 2.0)
    assert held == fit, "what fits is not what was sent"
    assert await ready()


FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@pytest.mark.parametrize("step_seconds", [-3_600, 3_600], ids=["an hour back", "an hour ahead"])
async def test_a_wall_clock_that_jumps_moves_no_attempt(bench, sql, tmp_path, step_seconds):
    """P16: due times are the database's, waits are monotonic; the signature's timestamp is all that jumps."""
    if FAKETIME is None:
        pytest.skip("libfaketime is not installed")
    receiver = bench.receiver
    receiver.behave(hook={"secret": WMS_SECRET, "statuses": [500, 500, 200]})
    await add_endpoint(
        sql, "ep_x", receiver.url("/hook"), profile="wms", retry_schedule_seconds=[2.0, 2.0]
    )
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    await bench.daemon(
        process_environ={
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_TIMESTAMP_FILE": str(clock),
        }
    ).started()
    await bench.produced(Plan(url=bench.url, events_count=8))  # too few for the breaker
    await receiver.received(8)
    clock.write_text(f"{step_seconds:+d}\n")
    requests = await receiver.received(24, kind="request", seconds=20)
    await quiet(bench.url, seconds=10)
    gaps = []
    for marker in {request["marker"] for request in requests}:
        at = [request["at"] for request in requests if request["marker"] == marker]
        gaps += [later - earlier for earlier, later in pairwise(at)]
    signed = {int(request["signed_at"] or 0) for request in requests}
    await bench.report(
        "P16",
        [Subscriber("ep_x", "/hook", "wms", 3)],
        step_seconds=step_seconds,
        gap_seconds=[round(min(gaps), 3), round(max(gaps), 3)],
    )
    assert min(gaps) >= 1.99
    assert in_time(max(gaps), 2.0 + 3.0), "a retry came late, beyond what a busy machine explains"
    assert signed == {0}, "wms signs no timestamp"


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_many_replicas_start_at_once_and_share_out_the_shards(bench, sql, long_run):
    """P18: thirty-two with `--long`, three without."""
    count = 32 if long_run else 3
    pool = 4
    receiver = bench.receiver
    receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_x", receiver.url("/hook"))
    began = time.monotonic()
    daemons = [
        bench.daemon(name=f"r{number}", DATABASE__POOL_SIZE=str(pool)) for number in range(count)
    ]
    for daemon in daemons:
        await daemon.started(120)
    all_started = time.monotonic() - began

    async def shared_out() -> bool:
        owners = await sql.fetch(
            "SELECT owner, count(*) AS held FROM dispatcher.shard GROUP BY owner"
        )
        return len(owners) == count and max(row["held"] for row in owners) <= -(-64 // count) + 1

    await until(shared_out, seconds=60, what="every replica with its share")
    connections = await sql.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'dispatcher%'"
        " AND datname = current_database()"
    )
    await bench.produced(Plan(url=bench.url, events_count=50))
    await quiet(bench.url, seconds=30)
    await bench.report(
        "P18",
        [Subscriber("ep_x", "/hook")],
        replicas=count,
        connections=connections,
        all_started_seconds=round(all_started, 2),
    )
    assert connections <= count * (pool + 4 + 1)


@pytest.mark.alone
@pytest.mark.timeout(400)
async def test_an_outage_that_ends_lets_no_more_through_than_the_limit(bench, sql, long_run):
    """R22: everything that waited is due at once when the receiver is back."""
    events = 5_000 if long_run else 300
    receiver = bench.receiver
    receiver.behave(hook={"secret": STANDARD_SECRET, "statuses": [503]})
    await add_endpoint(
        sql,
        "ep_x",
        receiver.url("/hook"),
        max_concurrency=CONCURRENCY,
        retry_schedule_seconds=[2.0] * 60,
    )
    await bench.daemon().started()
    await bench.produced(Plan(url=bench.url, events_count=events))
    await receiver.received(CONCURRENCY)
    receiver.behave(
        hook={"secret": STANDARD_SECRET, "statuses": [200], "delay_seconds": [0.002, 0.01]}
    )
    await quiet(bench.url, seconds=events / 100 + 60)
    # The receiver saw them all: how many were open at once is in its own log.
    moments = sorted(
        [(e["at"], 1) for e in receiver.entries("request")]
        + [(e["at"], -1) for e in receiver.entries("answer")]
    )
    open_now = most = 0
    for _, change in moments:
        open_now += change
        most = max(most, open_now)
    await bench.report("R22", [Subscriber("ep_x", "/hook", attempts_max=61)], in_flight_max=most)
    assert most <= CONCURRENCY


async def test_ten_thousand_requests_by_name_leak_no_descriptor(bench, sql, long_run):
    """R24: one resolver and one connector a process; ten thousand with `--long`, five hundred without."""
    events = 10_000 if long_run else 500
    receiver = bench.receiver
    receiver.behave(hook={"secret": STANDARD_SECRET})
    url = receiver.url("/hook").replace("127.0.0.1", "localhost")
    await add_endpoint(sql, "ep_x", url, max_concurrency=CONCURRENCY)
    daemon = await bench.daemon(EGRESS__ALLOW_NETWORKS='["127.0.0.0/8", "::1/128"]').started()

    def descriptors() -> int:
        return sum(1 for _ in Path(f"/proc/{daemon.child.pid}/fd").iterdir())

    await bench.produced(Plan(url=bench.url, events_count=50, prefix="first"))
    await quiet(bench.url, seconds=30)
    before = descriptors()
    await bench.produced(Plan(url=bench.url, events_count=events, writers=4), seconds=120)
    await quiet(bench.url, seconds=60)
    after = descriptors()
    opened = await daemon.metric("dispatcher_connections_opened_total")
    await bench.report(
        "R24",
        [Subscriber("ep_x", "/hook")],
        descriptors=[before, after],
        connections_opened=opened,
    )
    assert after <= before + CONCURRENCY + DATABASE_CONNECTIONS_MAX
    assert opened <= events / 10, "connections are not used again"
