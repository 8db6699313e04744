"""Goals 10 and 16: a drain by two processes, next to the same drain by one.

`python -m benchmarks replicas [--short] [--deliveries N] [--rounds N] [--json PATH]`. Each round:
one replica alone, then two, which first divide the shards, then two as the processes of one
supervisor (`--processes 2`), whose own CPU is a share of the time. Events go to twenty endpoints on
one receiver. With processors to spare two should come to 1.8 times one; on two processors, which
Postgres and the receiver use as well, to no less than one. The replicas are not pinned.
"""

import asyncio
import os
import tempfile
import time
from pathlib import Path

import asyncpg

from benchmarks.drain import SETTINGS, Figures, drain, ratio, say
from benchmarks.harness import (
    Dispatcher,
    Goal,
    Receiver,
    add_endpoint,
    arguments,
    own_cpu_seconds,
    postgres,
    receiver,
    write_results,
)

ENDPOINTS = 20
PROCESSORS_TO_SPARE = 6
"""From here on two replicas, Postgres and the receiver have processors of their own."""
_DIVIDED = """SELECT count(*) = $1 AND min(held) > 0.4 * sum(held) / $1
FROM (SELECT count(*) AS held FROM dispatcher.shard WHERE owner IS NOT NULL GROUP BY owner) AS holders"""


async def prepare(url: str, target_url: str) -> None:
    """Save the endpoints."""
    connection = await asyncpg.connect(url)
    for one in range(ENDPOINTS):
        await add_endpoint(connection, f"replicas{one}", target_url, concurrency=20)
    await connection.close()


async def _divided(url: str, count: int) -> None:
    """Waits until so many replicas hold about as many shards each."""
    connection = await asyncpg.connect(url)
    deadline = time.monotonic() + 60
    while not await connection.fetchval(_DIVIDED, count):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{count} replicas did not divide the shards")
        await asyncio.sleep(0.2)
    await connection.close()


def drain_by(
    count: int,
    url: str,
    directory: Path,
    target: Receiver,
    postgres_id: int,
    deliveries: int,
    *,
    processes: int = 1,
) -> Figures:
    """Start so many replicas, let them divide the shards, and return the figures of a drain."""
    daemons = [
        Dispatcher(
            url, directory, cpu=None, processes=processes,
            DISPATCHER_REPLICA__NAME=f"replica-{one}", **SETTINGS,
        )
        for one in range(count)
    ]  # fmt: skip
    try:
        for daemon in daemons:
            daemon.start()
        asyncio.run(_divided(url, count * processes))
        assert daemons[0].process is not None  # noqa: S101 -- it runs
        first_id = daemons[0].process.pid
        began, before = time.monotonic(), own_cpu_seconds(first_id)
        figures = drain(url, daemons, target, postgres_id, deliveries // ENDPOINTS, ENDPOINTS)
        used = own_cpu_seconds(first_id) - before
        figures["own_cpu_share"] = used / (time.monotonic() - began)
    finally:
        for daemon in daemons:
            daemon.stop()
    return figures


def main() -> None:
    """Runs the rounds and prints the ratio."""
    options = arguments(
        "replicas",
        __doc__,
        short={"deliveries": 10_000, "rounds": 5},
        full={"deliveries": 40_000, "rounds": 5},
    )
    rounds: dict[str, list[Figures]] = {"ours": [], "two": [], "supervised": []}
    with postgres() as (server, url), receiver() as target, tempfile.TemporaryDirectory() as name:
        asyncio.run(prepare(url, target.url))
        for number in range(1, options.rounds + 1):
            for kind, count, processes in (("ours", 1, 1), ("two", 2, 1), ("supervised", 1, 2)):
                rounds[kind].append(
                    drain_by(
                        count, url, Path(name), target, server.process_id or 0,
                        options.deliveries, processes=processes,
                    )
                )  # fmt: skip
            say(number, rounds)
    processors = os.cpu_count() or 1
    aim = 1.8 if processors >= PROCESSORS_TO_SPARE else 1.0
    goals = [
        Goal(
            10,
            f"two replicas over one, {processors} processors",
            aim,
            ratio(rounds["two"], rounds["ours"]),
        ),
        Goal(
            16,
            f"--processes 2 over one, {processors} processors",
            aim,
            ratio(rounds["supervised"], rounds["ours"]),
        ),
        Goal(
            16,
            "CPU of the supervisor itself during the drain, share of a processor",
            0.01,
            [one["own_cpu_share"] for one in rounds["supervised"]],
            at_least=False,
        ),
    ]
    write_results(
        "replicas", {"deliveries": options.deliveries, "rounds": rounds}, options.json, goals
    )


if __name__ == "__main__":
    main()
