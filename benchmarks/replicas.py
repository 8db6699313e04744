"""Goal 10: a drain by two processes, beside the same drain by one.

`python -m benchmarks replicas [--short] [--deliveries N] [--rounds N] [--json PATH]`. Each round:
one replica alone, then two, which first divide the shards. Events go to twenty endpoints on one
receiver. With processors to spare two should come to 1.8 times one; on two processors, which
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
    add_endpoint,
    arguments,
    postgres,
    receiver,
    write_results,
)

ENDPOINTS = 20
PROCESSORS_TO_SPARE = 6
"""From here on two replicas, Postgres and the receiver have processors of their own."""
_DIVIDED = """SELECT count(*) = $1 AND min(held) > 0.4 * sum(held) / $1
FROM (SELECT count(*) AS held FROM dispatcher.shard WHERE owner IS NOT NULL GROUP BY owner) AS holders"""


async def _prepare(url: str, target_url: str) -> None:
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


def main() -> None:
    """Runs the rounds and prints the ratio."""
    options = arguments(
        "replicas",
        __doc__,
        short={"deliveries": 10_000, "rounds": 5},
        full={"deliveries": 40_000, "rounds": 5},
    )
    rounds: dict[str, list[Figures]] = {"ours": [], "two": []}
    with postgres() as (server, url), receiver() as target, tempfile.TemporaryDirectory() as name:
        asyncio.run(_prepare(url, target.url))
        for number in range(1, options.rounds + 1):
            for kind, count in (("ours", 1), ("two", 2)):
                daemons = [
                    Dispatcher(
                        url, Path(name), cpu=None, DISPATCHER_REPLICA__NAME=f"replica-{one}", **SETTINGS
                    )
                    for one in range(count)
                ]  # fmt: skip
                try:
                    for daemon in daemons:
                        daemon.start()
                    asyncio.run(_divided(url, count))
                    rounds[kind].append(
                        drain(
                            url, daemons, target, server.process_id or 0,
                            options.deliveries // ENDPOINTS, ENDPOINTS,
                        )
                    )  # fmt: skip
                finally:
                    for daemon in daemons:
                        daemon.stop()
            say(number, rounds)
    processors = os.cpu_count() or 1
    goal = Goal(
        10,
        f"two replicas over one, {processors} processors",
        1.8 if processors >= PROCESSORS_TO_SPARE else 1.0,
        ratio(rounds["two"], rounds["ours"]),
    )
    write_results(
        "replicas", {"deliveries": options.deliveries, "rounds": rounds}, options.json, [goal]
    )


if __name__ == "__main__":
    main()
