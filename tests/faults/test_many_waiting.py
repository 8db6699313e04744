"""A great many retries wait when a process is killed: the next start sends at once, and holds its window alone."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from tests.support.bench import Bench
from tests.support.daemon import STANDARD_SECRET, Daemon, add_endpoint, until
from tests.support.pace import in_time

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

ENDPOINTS = 200
DUE_NOW = 200
FIRST_SECONDS_MAX = 3.0
WINDOW_SECONDS_MAX = 30.0
MORE_MEMORY_MIB_MAX = 150.0
PAGE_SECONDS_MAX = 2.0

_FILL = """
WITH made AS (
    INSERT INTO dispatcher.event
        (day, id, type, tenant, data, occurred_at, labels, inserted_at, accepted_at)
    SELECT (now() AT TIME ZONE 'UTC')::date, 'retry' || g, 'order.created', 'default', '{}', now(), '{}', now(), now()
    FROM generate_series($1::int, $2::int) AS g
), bodies AS (
    INSERT INTO dispatcher.body (day, event_id, profile, bytes)
    SELECT (now() AT TIME ZONE 'UTC')::date, 'retry' || g, 'standard', convert_to('{"marker": "m' || g || '"}', 'UTF8')
    FROM generate_series($1::int, $2::int) AS g
)
INSERT INTO dispatcher.delivery_open
    (id, day, event_id, endpoint_no, event_type_code, attempt_count, schedule_position, next_attempt_at)
SELECT (overlay(lpad(to_hex(extract(epoch FROM now())::bigint * 1000), 12, '0') || '8'
                || lpad(to_hex(g * $3 + e), 19, '0') PLACING '8' FROM 17 FOR 1))::uuid,
       (now() AT TIME ZONE 'UTC')::date, 'retry' || g, p.number, 0, 1, 1,
       now() + interval '5 minutes' + random() * interval '1 hour'
FROM generate_series($1::int, $2::int) AS g, generate_series(0, $3::int - 1) AS e
JOIN dispatcher.endpoint AS p ON p.id = 'ep_' || e
"""
_MAKE_DUE = """
UPDATE dispatcher.delivery_open SET next_attempt_at = clock_timestamp()
WHERE id IN (SELECT id FROM dispatcher.delivery_open WHERE next_attempt_at > now() + interval '20 minutes' LIMIT $1)
"""


def _resident_mib(daemon: Daemon) -> float:
    status = Path(f"/proc/{daemon.child.pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


async def _fill(connection: asyncpg.Connection, url: str, count: int) -> None:
    for number in range(ENDPOINTS):
        await add_endpoint(
            connection, f"ep_{number}", url, event_types=["nobody.sends"], shard=number % 64
        )
    events = count // ENDPOINTS
    for first in range(1, events + 1, 100):
        await connection.execute(_FILL, first, min(first + 99, events), ENDPOINTS)
    await connection.execute("ANALYZE dispatcher.delivery_open")


_TIMERS = """
SELECT (f.figures->>'wheel_timers_count')::int
FROM dispatcher.replica_figures AS f JOIN dispatcher.replica AS r USING (incarnation) ORDER BY r.started_at DESC LIMIT 1
"""
_IN_WINDOW = """
SELECT count(*)::int FROM dispatcher.delivery_open
WHERE next_attempt_at BETWEEN clock_timestamp() AND clock_timestamp() + interval '590 seconds'
"""


async def _window_loaded(connection: asyncpg.Connection) -> int:
    """Waits until what is due within the window is in memory; returns how many timers that are."""
    expected = await connection.fetchval(_IN_WINDOW)

    async def loaded() -> int | None:
        timers = await connection.fetchval(_TIMERS)
        return timers if timers is not None and timers >= expected else None

    return int(
        await until(
            loaded, seconds=WINDOW_SECONDS_MAX, what=f"{expected} timers in memory", pause=0.1
        )
    )


async def _ready(daemon: Daemon) -> None:
    async def ready() -> bool:
        return bool((await daemon.get("/readyz"))[0] == 200)

    await until(ready, seconds=20, what="ready")


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_start_before_many_retries_sends_at_once_and_loads_its_window(
    bench: Bench, sql: asyncpg.Connection, say: Callable[[str], None], long_run: bool
) -> None:
    """P17: a million with `--long`, four thousand without."""
    count = 1_000_000 if long_run else 4_000
    receiver = bench.receiver
    receiver.behave(hook={"secret": STANDARD_SECRET})
    empty_began = time.monotonic()
    empty = await bench.daemon().started()
    await _ready(empty)
    empty_seconds = time.monotonic() - empty_began
    empty_mib = _resident_mib(empty)
    empty.kill(signal.SIGTERM)
    await empty.ended(40)
    await _fill(sql, receiver.url("/hook"), count)
    before = await bench.daemon().started()
    await _window_loaded(sql)
    before.kill()
    await before.ended(5)
    await sql.execute(_MAKE_DUE, DUE_NOW)
    began = time.monotonic()
    daemon = bench.daemon()
    await receiver.received(1, kind="request", seconds=20)
    first_seconds = time.monotonic() - began
    await receiver.received(DUE_NOW, seconds=20)
    all_due_seconds = time.monotonic() - began
    timers = await _window_loaded(sql)
    window_seconds = time.monotonic() - began
    asked_at = time.monotonic()
    status, _ = await daemon.get("/readyz")
    page_seconds = time.monotonic() - asked_at
    more_mib = _resident_mib(daemon) - empty_mib
    waiting: Any = await sql.fetchval("SELECT count(*) FROM dispatcher.delivery_open")
    say(
        orjson.dumps(
            {
                "id": "P17",
                "waiting": waiting,
                "empty_start_seconds": round(empty_seconds, 2),
                "first_seconds": round(first_seconds, 2),
                "all_due_seconds": round(all_due_seconds, 2),
                "window_seconds": round(window_seconds, 2),
                "timers": timers,
                "more_memory_mib": round(more_mib, 1),
                "page_seconds": round(page_seconds, 3),
            }
        ).decode()
    )
    assert status == 200
    assert in_time(first_seconds, FIRST_SECONDS_MAX)
    assert in_time(window_seconds, WINDOW_SECONDS_MAX)
    assert more_mib <= MORE_MEMORY_MIB_MAX
    assert in_time(page_seconds, PAGE_SECONDS_MAX)
    assert timers < waiting / 4, "what is due later than the window stays in Postgres"
    assert receiver.count("request") == DUE_NOW, "something was sent before it was due, or twice"
