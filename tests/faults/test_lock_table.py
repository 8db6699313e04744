"""A role that may only connect fills PostgreSQL's table of locks, so that no session can take another one."""

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from tests.support.bench import Bench
from tests.support.checker import Subscriber
from tests.support.daemon import STANDARD_SECRET, add_endpoint, quiet, until
from tests.support.ledger import Plan
from tests.support.servers import own_cluster, prepare

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

EVENTS = 200
FILL = "SELECT count(pg_advisory_lock(g)) FROM generate_series(1, 10000000) AS g"
"""Locks of a session survive the error of the statement that takes them."""
PUBLISH = "INSERT INTO dispatcher.outbox (type, data) VALUES ('order.created', '{}')"
STRANGER = f"stranger_{os.getpid()}"
"""Other tests' servers may run under the same user id."""
RUNBOOK = Path(__file__).parents[2] / "docs" / "how-to" / "runbooks.md"


def end_as_the_runbook_advises(role: str, data: Path) -> None:
    """Finds the server process of a role with the runbook's command, and ends it with `kill`."""
    (command,) = re.findall(r"(?m)^ps -u postgres .*$", RUNBOOK.read_text(encoding="utf-8"))
    owner = str(data.stat().st_uid)
    listed = subprocess.run(
        shlex.split(command.replace("postgres", owner)), capture_output=True, text=True, check=True
    ).stdout
    (process,) = re.findall(rf"(?m)^ *(\d+) .*\bpostgres: {role} ", listed)
    os.kill(int(process), signal.SIGTERM)


@pytest.mark.timeout(120)
async def test_a_full_lock_table_loses_nothing_and_is_recovered_from(
    make_bench: Callable[[str], Bench],
) -> None:
    """S13: no statement of anybody succeeds meanwhile, the producers' included."""
    with own_cluster(max_locks_per_transaction="10", max_connections="40") as server:
        bench = make_bench(await prepare(server.start()))
        bench.receiver.behave(hook={"secret": STANDARD_SECRET})
        admin = await asyncpg.connect(bench.url)
        await add_endpoint(admin, "ep_x", bench.receiver.url("/hook"))
        await admin.execute(f"CREATE ROLE {STRANGER} LOGIN")
        stranger = await asyncpg.connect(bench.url, user=STRANGER)
        daemon = await bench.daemon().started()
        producer = bench.produce(Plan(url=bench.url, events_count=EVENTS, events_per_second=100))
        await bench.receiver.received(10)
        with pytest.raises(asyncpg.OutOfMemoryError):
            await stranger.execute(FILL)

        async def is_full() -> bool:
            """Fill up what transactions have released since; return whether a producer's INSERT finds no room."""
            with suppress(asyncpg.OutOfMemoryError):
                await stranger.execute(FILL)
            transaction = admin.transaction()
            await transaction.start()
            try:
                await admin.execute(PUBLISH)
            except asyncpg.OutOfMemoryError:
                return True
            finally:
                await transaction.rollback()
            return False

        await until(is_full, seconds=20, what="the table is full")  # the control
        await daemon.said("traffic.stalled")
        end_as_the_runbook_advises(STRANGER, server.moved_to or server.data_directory)
        await admin.close()
        assert await producer.ended(30) == 0
        await quiet(bench.url, seconds=20)
        await bench.report("S13", [Subscriber("ep_x", "/hook")], bounds={"duplicates": EVENTS})
