"""A crash of Postgres that loses claims: the events come back, with the same deliveries, ids and bytes.

The claim's commit does not wait for the disk (ADR 43). The WAL writer is kept from flushing it, requests are in flight
and the receiver holds its responses, so no result flushes it either. Then Postgres ends: every process by SIGKILL, or
by an immediate shutdown.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from dispatcher.dev.postgres import Postgres
from dispatcher.store.migrate import migrate, set_notify
from tests.support.daemon import WMS_SECRET, add_endpoint, quiet

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

EVENTS = 30
ROUNDS, ROUNDS_LONG = 3, 50


@pytest.fixture
def server():
    """A cluster whose WAL writer sleeps as long as it may; not started yet."""
    folder = Path(tempfile.mkdtemp(prefix="dispatcher-fault-"))
    folder.chmod(0o711)
    settings = {
        "synchronous_commit": "on",
        "wal_writer_delay": "10s",
        "wal_writer_flush_after": "1GB",
        "wal_buffers": "64MB",
        "autovacuum": "off",
    }
    postgres = Postgres(folder / "data", durable=False, settings=settings)
    yield postgres
    with contextlib.suppress(Exception):
        postgres.stop()
    shutil.rmtree(folder, ignore_errors=True)


def kill_all(server: Postgres) -> None:
    """Ends the postmaster and all its children at once, as a power cut would."""
    postmaster = server.process_id
    assert postmaster is not None
    children = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/stat")
        if (text := _read(path)) and int(text.rpartition(")")[2].split()[1]) == postmaster
    ]
    for process_id in (postmaster, *children):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGKILL)


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""


async def crashed(server: Postgres, make_bench: Any, rounds: int, *, synchronous: bool) -> Any:
    """Returns the bench and the events' markers after so many crashes, everything delivered."""
    url = await asyncio.to_thread(server.start)
    sql = await asyncpg.connect(url)
    await migrate(sql)
    await set_notify(sql, wanted=True)
    bench = make_bench(url)
    bench.receiver.behave(
        hook={"secret": WMS_SECRET, "delay_seconds": [0.4, 0.6]},
        other={"secret": WMS_SECRET, "delay_seconds": [0.4, 0.6]},
    )
    for name in ("hook", "other"):
        await add_endpoint(
            sql,
            f"ep_{name}",
            bench.receiver.url(f"/{name}"),
            profile="github",
            secret=WMS_SECRET,
            max_concurrency=20,
        )
    await sql.close()
    daemon = await bench.daemon(
        FANOUT__SYNCHRONOUS_COMMIT=str(synchronous).lower(), REPLICA__RENEW_SECONDS="3"
    ).started()
    markers: list[str] = []
    for number in range(rounds):
        made = [f"m{number}x{event}" for event in range(EVENTS)]
        markers += made
        before = bench.receiver.count("request")
        sql = await asyncpg.connect(url)
        await sql.execute(
            "INSERT INTO dispatcher.outbox (type, data)"
            " SELECT 'order.created', format('{\"marker\": \"%s\"}', m)::json FROM unnest($1::text[]) AS m",
            made,
        )
        sql.terminate()
        await bench.receiver.received(before + 20, kind="request")
        if number % 2 == 0:
            kill_all(server)
        url = await asyncio.to_thread(server.restart_immediate)
        await bench.receiver.received(before + 2 * EVENTS, kind="request", seconds=60)
        await quiet(url, seconds=60)
    assert daemon.child.poll() is None
    return bench, url, markers


def by_delivery(bench: Any) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Returns the delivery id and the bytes of each request, by receiver and event."""
    requests: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for entry in bench.receiver.entries("request"):
        seen = (entry["delivery_id"], entry["sha256"])
        requests[entry["path"], entry["marker"]].append(seen)
    return requests


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(2_400)
async def test_claims_lost_in_a_crash_are_repeated_with_the_same_ids_and_bytes(
    server, make_bench, long_run, say
):
    """P16."""
    rounds = ROUNDS_LONG if long_run else ROUNDS
    bench, url, markers = await crashed(server, make_bench, rounds, synchronous=False)
    requests = by_delivery(bench)
    expected = {(path, marker) for path in ("/hook", "/other") for marker in markers}
    assert expected - requests.keys() == set(), "lost"
    assert requests.keys() - expected == set(), "ghost"
    assert [key for key, seen in requests.items() if len(set(seen)) > 1] == [], "not the same"
    repeats = sum(len(seen) - 1 for seen in requests.values())
    sql = await asyncpg.connect(url)
    rows = await sql.fetch("SELECT id, state FROM dispatcher.delivery")
    await sql.close()
    assert {row["id"] for row in rows} == {seen[0][0] for seen in requests.values()}
    assert {row["state"] for row in rows} == {"succeeded"}
    say(f"{rounds} crashes, {len(expected)} deliveries, {repeats} requests repeated, none lost")
    assert repeats > 0, "no claim was lost, so nothing was tried"


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_control_claims_that_wait_for_the_disk_are_not_lost(server, make_bench):
    """P16: with `fanout.synchronous_commit = true` the same crashes repeat no request."""
    bench, _, markers = await crashed(server, make_bench, 2, synchronous=True)
    requests = by_delivery(bench)
    assert len(requests) == 2 * len(markers)
    assert max(len(seen) for seen in requests.values()) == 1
