"""P15: history ends while deliveries flow; nobody waits long for a lock, and nothing that waits is lost."""

import asyncio
import contextlib
import os
import statistics
import subprocess
import time

import asyncpg
import orjson
import pytest

from dispatcher.maintenance.retention import REST_SECONDS, Days, Retention
from dispatcher.runtime.clock import SystemClock
from dispatcher.store.partitions import Partitions
from dispatcher.store.pool import Database
from tests.support.checker import Subscriber
from tests.support.daemon import STANDARD_SECRET, add_endpoint, quiet, until
from tests.support.forking import run_command
from tests.support.history import TABLES, fill_day, leave_waiting, make_day, tables_of
from tests.support.ledger import Plan
from tests.support.pace import in_time

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

LOCK_WAIT_SECONDS_MAX = 1.0
"""Beyond the longest wait of the same deliveries without retention."""
DRAIN_RATIO_MIN = 0.9


class LockWatch:
    """Polls for sessions that wait for a lock, and keeps the longest wait."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._longest_seconds = 0.0

    async def run(self) -> None:
        connection = await asyncpg.connect(self._url)
        try:
            while True:
                waited = await connection.fetchval(
                    "SELECT max(extract(epoch FROM clock_timestamp() - waitstart))::float8"
                    " FROM pg_locks WHERE NOT granted AND waitstart IS NOT NULL"
                )
                self._longest_seconds = max(self._longest_seconds, waited or 0.0)
                await asyncio.sleep(0.02)
        finally:
            connection.terminate()

    def take(self) -> float:
        """Return the longest wait since the last call."""
        longest, self._longest_seconds = self._longest_seconds, 0.0
        return longest


async def retired(url: str, days: int) -> list[str]:
    """Goes one round of retention, as a daemon does that keeps so many days; returns what became of each."""
    pool = Database(url, connections_max=1)
    await pool.open()
    try:
        made = Retention(
            Partitions(pool),
            Days(days, days, days, 365),
            clock=SystemClock(),
            rest_seconds=REST_SECONDS,
        )
        return [became for _, became in await made.round()]
    finally:
        await pool.close()


def command(url: str) -> "subprocess.CompletedProcess[str]":
    """Runs `dispatcher retention` as an operator does."""
    environ = {**os.environ, "DISPATCHER_DATABASE_URL": url, "DISPATCHER_HOME": "/nonexistent"}
    return run_command(["retention", "--json"], environ)


async def drained(bench, sql, prefix: str, events: int) -> float:
    """Commits so many events at once; returns the seconds until all but what is held is delivered."""
    began = time.monotonic()
    await bench.produced(Plan(url=bench.url, prefix=prefix, events_count=events), 300)

    async def only_held() -> bool:
        return bool(
            await sql.fetchval(
                "SELECT NOT EXISTS (SELECT FROM dispatcher.outbox WHERE consumed_at IS NULL)"
                " AND NOT EXISTS (SELECT FROM dispatcher.delivery_open AS o JOIN dispatcher.endpoint AS p"
                " ON p.number = o.endpoint_no WHERE p.id <> 'ep_old')"
            )
        )

    await until(only_held, seconds=300, what="a drain", pause=0.05)
    return time.monotonic() - began


@pytest.mark.alone
@pytest.mark.timeout(900)
async def test_old_days_are_dropped_while_deliveries_flow(make_bench, fresh_database, long_run):
    """Long: ten million deliveries in ten days, a drain at 0.9 of its speed without, no lock wait over a second."""
    days, rows, events, rounds = (10, 1_000_000, 20_000, 3) if long_run else (3, 2_000, 300, 1)
    bench = make_bench(fresh_database)
    sql = await asyncpg.connect(fresh_database, command_timeout=600)
    try:
        bench.receiver.behave(hook={"secret": STANDARD_SECRET}, old={"secret": STANDARD_SECRET})
        await add_endpoint(sql, "ep_x", bench.receiver.url("/hook"), max_concurrency=50)
        await add_endpoint(sql, "ep_old", bench.receiver.url("/old"), event_types=["never.x"])
        await sql.execute(
            "UPDATE dispatcher.endpoint SET state = 'paused', paused_at = now() WHERE id = 'ep_old'"
        )
        old = [await make_day(sql, 40 + number) for number in range(days)]
        for day in old:
            await fill_day(sql, day, rows)
        held = await make_day(sql, 39)
        held_id = await leave_waiting(sql, held, "held")
        await sql.execute("ANALYZE")
        # The daemon keeps everything; retention runs beside it, at the moments that are measured.
        daemon = await bench.daemon(
            RETENTION__EVENTS_DAYS="3650",
            RETENTION__DELIVERIES_DAYS="3650",
            RETENTION__ATTEMPTS_DAYS="3650",
        ).started()
        watch = LockWatch(fresh_database)
        watching = asyncio.ensure_future(watch.run())
        before: list[float] = []
        during: list[float] = []
        waits_before: list[float] = []
        waits_during: list[float] = []
        ended: list[str] = []
        try:
            for number in range(rounds):
                before.append(await drained(bench, sql, f"before{number}", events))
                waits_before.append(watch.take())
                # A share of the old days each time, the oldest first; with the last one all that are old.
                kept_days = 38 + days * (rounds - 1 - number) // rounds
                ending = asyncio.ensure_future(retired(fresh_database, kept_days))
                during.append(await drained(bench, sql, f"during{number}", events))
                ended += await ending
                waits_during.append(watch.take())
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
        assert ended.count("dropped") == days * len(TABLES)
        assert await tables_of(sql, held) == set(TABLES)
        for day in old:
            assert await tables_of(sql, day) == set()
        # What waited of the kept day is delivered when its endpoint is resumed; then its day goes too.
        await sql.execute(
            "UPDATE dispatcher.endpoint SET state = 'active', paused_at = NULL WHERE id = 'ep_old'"
        )
        await quiet(fresh_database, seconds=15)
        state = await sql.fetchval("SELECT state FROM dispatcher.delivery WHERE id = $1", held_id)
        assert state == "succeeded"
        finished = await asyncio.to_thread(command, fresh_database)
        assert finished.returncode == 0, finished.stderr
        assert {one["result"] for one in orjson.loads(finished.stdout)["items"]} == {"dropped"}
        assert await tables_of(sql, held) == set()
        ratio = statistics.median(before) / statistics.median(during)
        await bench.report(
            "P15",
            [Subscriber("ep_x", "/hook")],
            bounds={"phantom": 1},  # the held one, which no producer of the test committed
            rows_dropped=days * rows,
            drains_seconds=[round(seconds, 2) for seconds in (*before, *during)],
            drain_ratio=round(ratio, 2),
            lock_wait_longest_seconds=round(max(waits_during), 3),
            control_lock_wait_longest_seconds=round(max(waits_before), 3),
        )
        assert in_time(max(waits_during), LOCK_WAIT_SECONDS_MAX + max(waits_before))
        if long_run:
            assert ratio >= DRAIN_RATIO_MIN
        assert daemon.child.poll() is None
    finally:
        await sql.close()
