"""Postgres restarts, drops the listener, is away at start or has no schema: nothing is lost, work resumes."""

import asyncio
import contextlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from dispatcher.dev.postgres import Postgres
from dispatcher.store.migrate import migrate, set_notify
from tests.support.bench import Bench
from tests.support.checker import Subscriber
from tests.support.daemon import STANDARD_SECRET, add_endpoint, quiet, until
from tests.support.ledger import Plan
from tests.support.pace import in_time

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

AGAIN_SECONDS_MAX = 5.0


@pytest.fixture
def server():
    """A cluster of the test's own, to be restarted; not started yet."""
    folder = Path(tempfile.mkdtemp(prefix="dispatcher-fault-"))
    folder.chmod(0o711)
    postgres = Postgres(folder / "data", durable=False, settings={"synchronous_commit": "on"})
    yield postgres
    with contextlib.suppress(Exception):
        postgres.stop()
    shutil.rmtree(folder, ignore_errors=True)


async def _migrated(server: Postgres) -> str:
    url = await asyncio.to_thread(server.start)
    connection = await asyncpg.connect(url)
    try:
        await migrate(connection)
        await set_notify(connection, wanted=True)
    finally:
        await connection.close()
    return url


async def _endpoint(bench: Bench, **columns: Any) -> None:
    bench.receiver.behave(hook={"secret": STANDARD_SECRET, "delay_seconds": [0.001, 0.05]})
    connection = await asyncpg.connect(bench.url)
    try:
        await add_endpoint(connection, "ep_x", bench.receiver.url("/hook"), **columns)
    finally:
        await connection.close()


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.shows("G6")
async def test_postgres_restart_under_load_loses_nothing_and_is_used_at_once(
    server, make_bench, long_run
):
    """P8."""
    restarts = 50 if long_run else 2
    bench = make_bench(await _migrated(server))
    await _endpoint(bench, max_concurrency=20)
    daemon = await bench.daemon().started()
    producer = bench.produce(
        Plan(
            url=bench.url,
            events_count=restarts * 600 + 200,
            events_per_second=100,
            writers=4,
            seed=8,
        )
    )
    again = []
    in_flight = 0
    for _ in range(restarts):
        before = len(bench.receiver.entries("answer"))
        await bench.receiver.received(before + 150)
        await asyncio.to_thread(server.restart_immediate)
        accepted_at = time.monotonic()
        before = len(bench.receiver.entries("answer"))
        in_flight += 20
        await bench.receiver.received(before + 1, seconds=AGAIN_SECONDS_MAX + 5)
        again.append(round(time.monotonic() - accepted_at, 2))
    assert await producer.ended(restarts * 6 + 90) == 0
    await quiet(bench.url, seconds=30)
    await bench.report(
        "P8",
        [Subscriber("ep_x", "/hook")],
        seed=8,
        # A crash loses the claims that were not flushed: their requests are repeated, and recorded once.
        bounds={"dup": in_flight, "unrecorded": in_flight},
        again_seconds_max=max(again),
    )
    assert in_time(max(again), AGAIN_SECONDS_MAX)
    assert daemon.child.poll() is None


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_listener_killed_every_second_delays_pick_up_by_one_poll(bench, sql, long_run):
    """P3."""
    rounds = 30 if long_run else 5
    bench.receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_x", bench.receiver.url("/hook"))
    await set_notify(sql, wanted=True)
    daemon = await bench.daemon().started()
    producer = bench.produce(Plan(url=bench.url, events_count=rounds * 20, events_per_second=20))
    killed = 0
    for number in range(rounds):
        await bench.receiver.received(20 * number + 5, seconds=10)
        killed += await sql.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'dispatcher listen'"
        )
        await daemon.said("listener.connected", count=number + 2)
    assert await producer.ended(rounds + 20) == 0
    await quiet(bench.url, seconds=10)
    waited = await sql.fetchval(
        "SELECT max(extract(epoch FROM accepted_at - inserted_at))::float8 FROM dispatcher.event"
    )
    await bench.report(
        "P3", [Subscriber("ep_x", "/hook")], killed=killed, pick_up_seconds_max=round(waited, 3)
    )
    assert killed >= rounds
    assert in_time(waited, 1.5)


async def test_a_database_that_is_away_at_start_is_waited_for(server, make_bench):
    server_url = await _migrated(server)
    link = Path(tempfile.mkdtemp(prefix="dispatcher-link-")) / "s"
    url = server_url.replace(str(server.socket_directory), str(link))
    await asyncio.to_thread(server.stop)
    bench = make_bench(url)
    daemon = bench.daemon()

    async def not_ready() -> bool:
        return bool((await daemon.get("/readyz"))[0] == 503)

    await until(not_ready, seconds=10, what="not ready")
    assert (await daemon.get("/livez"))[0] == 200
    assert daemon.child.poll() is None
    await asyncio.to_thread(server.start)
    assert server.socket_directory is not None
    link.symlink_to(server.socket_directory)
    await daemon.started()

    async def ready() -> bool:
        return bool((await daemon.get("/readyz"))[0] == 200)

    await until(ready, seconds=10, what="ready")
    await _endpoint(bench)
    await bench.produced(Plan(url=url, events_count=5))
    await quiet(url, seconds=10)
    await bench.report("away-at-start", [Subscriber("ep_x", "/hook")])
    shutil.rmtree(link.parent)


async def test_a_database_without_the_schema_ends_the_start_with_2(make_database, make_bench):
    daemon = make_bench(make_database(migrated=False)).daemon()
    assert await daemon.ended(15) == 2
    assert "dispatcher migrate" in daemon.log_path.read_text()


@pytest.mark.slow
async def test_claims_that_hang_make_it_not_ready_while_its_lease_is_renewed(bench, sql, database):
    """F6: the process is well, renews its lease and answers, and takes nothing in: whoever balances load must know."""
    bench.receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_x", bench.receiver.url("/hook"))
    daemon = await bench.daemon().started()
    answers: dict[str, tuple[int, str]] = {}

    async def has_status(status: int) -> bool:
        answers["last"] = await daemon.get("/readyz")
        return answers["last"][0] == status

    await until(lambda: has_status(200), seconds=10, what="ready")
    other = await asyncpg.connect(database)
    await other.execute("BEGIN; LOCK TABLE dispatcher.outbox IN ACCESS EXCLUSIVE MODE")
    began = time.monotonic()
    await until(lambda: has_status(503), seconds=30, what="not ready", pause=0.5)
    not_ready_seconds = time.monotonic() - began
    assert "intake.stalled" in answers["last"][1]
    assert (await daemon.get("/livez"))[0] == 200, "a restart would not help"
    assert await sql.fetchval(
        "SELECT renewed_at > clock_timestamp() - interval '5 seconds' FROM dispatcher.replica"
    )
    await other.execute("COMMIT")
    await other.close()
    await until(lambda: has_status(200), seconds=10, what="ready again")
    await bench.produced(Plan(url=bench.url, events_count=10))
    await quiet(bench.url, seconds=10)
    await bench.report(
        "F6", [Subscriber("ep_x", "/hook")], not_ready_after_seconds=round(not_ready_seconds, 1)
    )


async def test_a_locked_table_and_a_deadlocked_statement_are_waited_out(bench, sql, database):
    """P14."""
    bench.receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_x", bench.receiver.url("/hook"))
    daemon = await bench.daemon().started()
    other = await asyncpg.connect(database)
    await other.execute("BEGIN; LOCK TABLE dispatcher.delivery_done IN ACCESS EXCLUSIVE MODE")
    await bench.produced(Plan(url=bench.url, events_count=10))
    await bench.receiver.received(10)
    await daemon.said("recorder.stalled")
    await other.execute("COMMIT")
    await other.close()
    await quiet(bench.url, seconds=10)
    await bench.report("P14-lock", [Subscriber("ep_x", "/hook")])
