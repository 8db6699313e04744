"""Goal 8: kill -9 with a million retries pending: how soon the next start sends, and in how much memory.

`python -m benchmarks recovery [--short] [--retries N] [--rounds N] [--json PATH]`. Retries wait for
200 endpoints, due over the next hour; each round a few are due at once. The daemon is killed while
it holds them; its memory is compared with that of one with nothing to do. Measured: from the start
of the next process to the first request of a due retry, by the attempts' rows.
"""

import asyncio
import tempfile
import time
from pathlib import Path

import asyncpg

from benchmarks.harness import (
    Dispatcher,
    Goal,
    Receiver,
    add_endpoint,
    arguments,
    postgres,
    receiver,
    write_results,
)

ENDPOINTS = 200
DUE = 200
_FILL = """
WITH made AS (
    INSERT INTO dispatcher.event
        (day, id, type, tenant, data, occurred_at, labels, inserted_at, accepted_at)
    SELECT (now() AT TIME ZONE 'UTC')::date, 'retry' || g, 'order.created', 'default', '{}', now(), '{}', now(), now()
    FROM generate_series($1::int, $2::int) AS g
), bodies AS (
    INSERT INTO dispatcher.body (day, event_id, profile, bytes)
    SELECT (now() AT TIME ZONE 'UTC')::date, 'retry' || g, 'standard', convert_to('{}', 'UTF8')
    FROM generate_series($1::int, $2::int) AS g
)
INSERT INTO dispatcher.delivery_open
    (id, day, event_id, endpoint_no, event_type_code, attempt_count, schedule_position, next_attempt_at)
SELECT (lpad(to_hex(floor(extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '8' || substr(md5(g::text), 1, 3)
        || '8' || substr(md5(g::text), 4, 15))::uuid,
       (now() AT TIME ZONE 'UTC')::date, 'retry' || g, p.number, 1, 1, 1,
       now() + interval '15 minutes' + random() * interval '1 hour'
FROM generate_series($1::int, $2::int) AS g
JOIN dispatcher.endpoint AS p ON p.id = 'ep_bench_recovery' || g % $3
"""
_MAKE_DUE = """
UPDATE dispatcher.delivery_open SET next_attempt_at = now()
WHERE id IN (SELECT id FROM dispatcher.delivery_open WHERE next_attempt_at > now() + interval '1 minute' LIMIT $1)
"""


async def _fill(url: str, target: Receiver, retries: int) -> None:
    connection = await asyncpg.connect(url)
    for one in range(ENDPOINTS):
        await add_endpoint(connection, f"recovery{one}", target.url, types=["nobody.sends"])
    for first in range(1, retries + 1, 50_000):
        await connection.execute(_FILL, first, min(first + 49_999, retries), ENDPOINTS)
    await connection.execute("ANALYZE")
    await connection.close()


async def _make_due(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(_MAKE_DUE, DUE)
    await connection.close()


async def _first_after(url: str, since: float) -> float:
    """Waits for the first attempt after a moment, and returns how many seconds later it began."""
    connection = await asyncpg.connect(url)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        seconds = await connection.fetchval(
            "SELECT extract(epoch FROM min(attempted_at))::float8 - $1 FROM dispatcher.attempt_row"
            " WHERE attempted_at > to_timestamp($1)",
            since,
        )
        if seconds is not None:
            await connection.close()
            return float(seconds)
        await asyncio.sleep(0.05)
    raise TimeoutError("nothing was sent")


def _memory_mb(process_id: int) -> float:
    for line in Path(f"/proc/{process_id}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _settled_memory_mb(process_id: int) -> float:
    """Returns the memory once it has stopped growing: loading goes on while sending has begun."""
    before, now = 0.0, _memory_mb(process_id)
    deadline = time.monotonic() + 60
    while now - before > 0.5 and time.monotonic() < deadline:
        time.sleep(2)
        before, now = now, _memory_mb(process_id)
    return now


def main() -> None:
    """Runs the rounds and prints the goals."""
    options = arguments(
        "recovery",
        __doc__,
        short={"retries": 200_000, "rounds": 3},
        full={"retries": 1_000_000, "rounds": 5},
    )
    rounds: list[dict[str, float]] = []
    with postgres() as (_, url), receiver() as target, tempfile.TemporaryDirectory() as name:
        settings = {"DISPATCHER_DELIVERY__WHEEL_HORIZON_SECONDS": "7200"}
        daemon = Dispatcher(url, Path(name), **settings)
        empty_mb = _settled_memory_mb(daemon.start())
        daemon.kill()
        asyncio.run(_fill(url, target, options.retries))
        process_id = daemon.start()
        for number in range(1, options.rounds + 1):
            time.sleep(4)  # the one before is watched for 2.5 s before its work is taken over
            held_mb = _settled_memory_mb(process_id)
            daemon.kill()
            asyncio.run(_make_due(url))
            started = time.time()
            process_id = daemon.start()
            seconds = asyncio.run(_first_after(url, started))
            rounds.append({"first_seconds": seconds, "more_mb": held_mb - empty_mb})
            print(
                f"round {number}: first request after {seconds:.2f} s, {held_mb - empty_mb:.0f} MB"
            )
        daemon.stop()
    goals = [
        Goal(
            8, f"{options.retries:,} retries pending: seconds from start to first request", 3,
            [one["first_seconds"] for one in rounds], at_least=False,
        ),
        Goal(
            8, "MB more than empty", 150, [one["more_mb"] for one in rounds], at_least=False
        ),
    ]  # fmt: skip
    write_results("recovery", {"retries": options.retries, "rounds": rounds}, options.json, goals)


if __name__ == "__main__":
    main()
