"""Postgres frozen, failed over, read-only, full, behind a pooler, or cut off in the middle of a COMMIT."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from dispatcher.store.migrate import set_notify
from tests.support.bench import Bench
from tests.support.checker import Subscriber
from tests.support.daemon import STANDARD_SECRET, Daemon, add_endpoint, quiet, until
from tests.support.fault_proxy import FaultProxy
from tests.support.ledger import Plan
from tests.support.pace import in_time
from tests.support.servers import (
    fill,
    frozen,
    own_cluster,
    pair,
    pgbouncer,
    prepare,
    small_disk,
    socket_of,
)

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

USABLE_SECONDS_MAX = 10.0
ANSWER_SECONDS_MAX = 6.5
POLL_SECONDS_MAX = 1.5
PROOF_SECONDS_MAX = 2.0
"""How long intake may wait for the lock on a LISTEN connection that is dead and not known to be."""
HOOK = [Subscriber("ep_x", "/hook")]


async def _endpoint(bench: Bench, **columns: Any) -> None:
    bench.receiver.behave(hook={"secret": STANDARD_SECRET, "delay_seconds": [0.001, 0.02]})
    connection = await asyncpg.connect(bench.url)
    try:
        await add_endpoint(connection, "ep_x", bench.receiver.url("/hook"), **columns)
    finally:
        await connection.close()


async def _answers_again(bench: Bench, seconds: float) -> float:
    """Returns how long it took until the receiver had answered something new."""
    began = time.monotonic()
    count = bench.receiver.count("answer")
    await bench.receiver.received(count + 1, seconds=seconds)
    return time.monotonic() - began


async def _is_ready(daemon: Daemon, *, wanted: bool) -> None:
    async def look() -> bool:
        return bool(((await daemon.get("/readyz"))[0] == 200) is wanted)

    await until(look, seconds=15, what=f"ready: {wanted}")


async def _longest_question(daemon: Daemon, seconds: float) -> float:
    """Asks for readiness again and again; returns how long the slowest answer took."""
    longest, until_at = 0.0, time.monotonic() + seconds
    while time.monotonic() < until_at:
        began = time.monotonic()
        status, _ = await daemon.get("/readyz")
        assert status in {200, 503}, "it did not answer"
        longest = max(longest, time.monotonic() - began)
    return longest


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.shows("G9")
async def test_a_frozen_postgres_holds_nobody_up_and_is_usable_at_once_after(make_bench, long_run):
    """P9: SIGSTOP of the whole server."""
    seconds = 60.0 if long_run else 7.0
    with own_cluster() as server:
        bench = make_bench(await prepare(await asyncio.to_thread(server.start)))
        await _endpoint(bench)
        daemon = await bench.daemon().started()
        producer = bench.produce(
            Plan(url=bench.url, events_count=int(30 * (seconds + 6)), events_per_second=30, seed=9)
        )
        await bench.receiver.received(30)
        with frozen(server):
            longest = await _longest_question(daemon, seconds)
            assert (await daemon.get("/livez"))[0] == 200
            assert (await daemon.get("/readyz"))[0] == 503
        usable = await _answers_again(bench, USABLE_SECONDS_MAX)
        await _is_ready(daemon, wanted=True)
        assert await producer.ended(90) == 0
        await quiet(bench.url, seconds=30)
        connection = await asyncpg.connect(bench.url)
        sessions = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'dispatcher%'"
        )
        await connection.close()
        await bench.report(
            "P9", HOOK, seed=9, frozen_seconds=seconds, usable_seconds=round(usable, 2),
            longest_answer_seconds=round(longest, 2), sessions=sessions,
        )  # fmt: skip
        assert in_time(longest, ANSWER_SECONDS_MAX)
        assert sessions <= 10 + 4 + 1, "connections were left behind"


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_promoted_standby_is_written_to_within_seconds(make_bench, long_run):
    """P10: the primary dies under load, its synchronous standby is promoted, the old one comes back read-only."""
    rounds = 20.0 if long_run else 8.0
    with pair() as servers:
        # Waiting for the standby, or a COMMIT that the producer was told of could be lost with the primary.
        servers.first._settings["synchronous_standby_names"] = "b"
        await asyncio.to_thread(servers.first.restart_immediate)
        bench = make_bench(servers.url())
        await prepare(bench.url)
        await _endpoint(bench)
        daemon = await bench.daemon().started()
        producer = bench.produce(
            Plan(
                url=bench.url,
                events_count=int(40 * rounds),
                events_per_second=40,
                writers=4,
                seed=10,
            )
        )
        await bench.receiver.received(40)
        in_flight = 10
        servers.first._end(signal.SIGQUIT)
        await asyncio.to_thread(servers.promote)
        usable = await _answers_again(bench, USABLE_SECONDS_MAX)
        await asyncio.to_thread(servers.return_as_standby)
        assert await producer.ended(90) == 0
        await quiet(bench.url, seconds=30)
        await _is_ready(daemon, wanted=True)
        await bench.report(
            "P10", HOOK, seed=10, bounds={"dup": in_flight, "unrecorded": in_flight},
            writable_seconds=round(usable, 2),
        )  # fmt: skip
        assert in_time(usable, USABLE_SECONDS_MAX)
        assert daemon.child.poll() is None


async def test_read_only_primary_is_left_until_it_accepts_writes(make_bench):
    """P10: SQLSTATE 25006 on connections that stay open, as a managed service does in a switch-over."""
    with own_cluster() as server:
        bench = make_bench(await prepare(await asyncio.to_thread(server.start)))
        await _endpoint(bench)
        daemon = await bench.daemon().started()
        await bench.produced(Plan(url=bench.url, events_count=20, prefix="before"))
        await bench.receiver.received(20)
        admin = await asyncpg.connect(bench.url)
        await admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await admin.execute("SELECT pg_reload_conf()")
        await _is_ready(daemon, wanted=False)
        await admin.execute("SET default_transaction_read_only = off")
        await admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
        await admin.execute("SELECT pg_reload_conf()")
        await admin.close()
        await _is_ready(daemon, wanted=True)
        await bench.produced(Plan(url=bench.url, events_count=20, prefix="after"))
        await quiet(bench.url, seconds=15)
        await bench.report("P10-read-only", HOOK)
        assert daemon.child.poll() is None


@pytest.mark.timeout(400)
async def test_a_commit_whose_answer_is_lost_is_neither_repeated_nor_forgotten(
    bench, sql, long_run
):
    """P11: the proxy lets COMMIT through and cuts before its answer, again and again."""
    events = 2_000 if long_run else 150
    bench.receiver.behave(hook={"secret": STANDARD_SECRET, "statuses": [500, 200], "share": 0.3})
    await add_endpoint(sql, "ep_x", bench.receiver.url("/hook"), retry_schedule_seconds=[0.5] * 7)
    async with _proxied(bench.url) as (proxy, url):
        commits = 0

        def every_third_commit(_: object, piece: bytes) -> bool:
            nonlocal commits
            if b"COMMIT\0" not in piece:
                return False
            commits += 1
            return commits % 3 == 0

        proxy.cut_after = every_third_commit
        await bench.daemon(url=url).started()
        plan = Plan(url=bench.url, events_count=events, events_per_second=60, seed=11)
        await bench.produced(plan, seconds=events / 60 + 30)
        await quiet(bench.url, seconds=60)
        cuts = sum(line.endswith("cut") for line in proxy.log)
    await bench.report("P11", HOOK, seed=11, commits_cut=cuts)
    assert cuts >= 5


@asynccontextmanager
async def _proxied(url: str) -> AsyncIterator[tuple[FaultProxy, str]]:
    """Yields a proxy before the database, and the URL that leads through it."""
    folder, name = socket_of(url)
    async with FaultProxy(path=f"{folder}/.s.PGSQL.5432") as proxy:
        yield proxy, f"postgresql://dispatcher@127.0.0.1:{proxy.port}/{name}"


async def test_a_half_open_listen_connection_is_noticed_and_polling_goes_on(bench, sql):
    """P4: nothing comes through any more, and nobody is told."""
    bench.receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_x", bench.receiver.url("/hook"))
    await set_notify(sql, wanted=True)
    async with _proxied(bench.url) as (proxy, url):
        daemon = await bench.daemon(url=url).started()
        await daemon.said("listener.connected")
        next(link for link in proxy.links if b"dispatcher listen" in link.first_bytes).stall()
        stalled_at = time.monotonic()
        producer = bench.produce(Plan(url=bench.url, events_count=60, events_per_second=10))
        await daemon.said("listener.disconnected")
        noticed = time.monotonic() - stalled_at
        await daemon.said("listener.connected", count=2)
        assert await producer.ended(20) == 0
        await quiet(bench.url, seconds=10)
    waited = await sql.fetchval(
        "SELECT max(extract(epoch FROM accepted_at - inserted_at))::float8 FROM dispatcher.event"
    )
    await bench.report(
        "P4", HOOK, noticed_seconds=round(noticed, 2), pick_up_seconds_max=round(waited, 3)
    )
    assert in_time(noticed, 10.0)
    assert in_time(waited, PROOF_SECONDS_MAX + POLL_SECONDS_MAX)


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
async def test_behind_a_transaction_pooler_it_polls_and_says_so(bench, sql, told):
    """P5: `database.pooler` set, and left out: then LISTEN is found not to work within seconds."""
    bench.receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_x", bench.receiver.url("/hook"))
    with pgbouncer(bench.url) as pooled:
        daemon = bench.daemon(url=pooled, **({"DATABASE__POOLER": "true"} if told else {}))
        await daemon.started()
        if not told:
            await daemon.said("listener.disconnected", seconds=5)
        await bench.produced(Plan(url=bench.url, events_count=200, events_per_second=100))
        await quiet(bench.url, seconds=20)
        assert await daemon.metric("dispatcher_listener_up") == 0
        assert not daemon.lines("listener.connected")
        assert daemon.child.poll() is None
    await bench.report("P5" if told else "P5-not-told", HOOK)


async def test_a_full_disk_is_waited_out(make_bench):
    """P14: not a byte is free on the disk."""
    with (
        small_disk(160) as disk,
        own_cluster(
            data=disk / "data", max_connections="20", max_wal_size="48MB", min_wal_size="32MB",
            wal_recycle="off",
        ) as server,
    ):  # fmt: skip
        bench = make_bench(await prepare(await asyncio.to_thread(server.start)))
        await _endpoint(bench, event_types=["order.created"])
        daemon = await bench.daemon(DATABASE__POOL_SIZE="4").started()
        await bench.produced(Plan(url=bench.url, events_count=20, prefix="before"))
        await bench.receiver.received(20)
        # While the daemon stands still, more is committed than the disk will hold once more as history.
        daemon.kill(signal.SIGSTOP)
        await bench.produced(
            Plan(url=bench.url, events_count=300, prefix="full", data_bytes=20_000, writers=4)
        )
        ballast = await asyncio.to_thread(fill, disk)
        daemon.kill(signal.SIGCONT)
        await daemon.said("intake.stalled", seconds=30)
        ballast.unlink()
        if server._process is None or server._process.poll() is not None:
            await asyncio.to_thread(server.restart_immediate)  # it panicked for its WAL
        await quiet(bench.url, seconds=30)
        await bench.report("P14-disk", HOOK, bounds={"dup": 20, "unrecorded": 20})
        assert daemon.child.poll() is None


async def test_when_every_connection_is_taken_it_waits_and_goes_on(make_bench):
    """P14: too many clients."""
    with own_cluster(max_connections="16") as server:
        bench = make_bench(await prepare(await asyncio.to_thread(server.start)))
        await _endpoint(bench)
        daemon = await bench.daemon(DATABASE__POOL_SIZE="2").started()
        await bench.produced(Plan(url=bench.url, events_count=10, prefix="before"))
        await bench.receiver.received(10)
        taken: list[asyncpg.Connection] = []
        try:
            ended = await asyncpg.connect(bench.url)
            await ended.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'dispatcher%'"
            )
            taken.append(ended)
            with contextlib.suppress(asyncpg.TooManyConnectionsError):
                while True:
                    taken.append(await asyncpg.connect(bench.url))
            for number in range(10):
                await taken[0].execute(
                    "INSERT INTO dispatcher.outbox (type, data) VALUES ('order.created', $1)",
                    f'{{"n": {number}}}',
                )
        finally:
            for connection in taken:
                await connection.close()
        await quiet(bench.url, seconds=20)
        await bench.receiver.received(20)
        assert daemon.child.poll() is None
