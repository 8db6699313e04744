"""Goal 3: from a producer's commit to the request received, at a steady rate, beside one loopback POST.

`python -m benchmarks latency [--short] [--rate N] [--seconds N] [--rounds N] [--json PATH]`. One producer
commits one event per transaction, paced by schedule and not by completion; the receiver notes when
each request was complete. Both read the same machine's clock. Then the same at half of the rate at
which the daemon has just drained a backlog, ten events a transaction.
"""

import asyncio
import http.client
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import orjson

from benchmarks.harness import (
    BODY_DATA,
    ROOT,
    SERVER_CPU,
    Dispatcher,
    Goal,
    accepts,
    add_endpoint,
    arguments,
    free_port,
    insert_events,
    pinned,
    postgres,
    spread,
    wait_for,
    write_results,
)

DRAINED = 5_000
TOGETHER = 10


@contextmanager
def arrivals(
    stall_seconds: float = 0.0, *, cpu: int | None = SERVER_CPU
) -> Iterator[tuple[int, dict[str, float]]]:
    """Runs a receiver that notes arrivals; yields its port, and the arrivals once the block has ended."""
    with tempfile.TemporaryDirectory() as name:
        port, path = free_port(), Path(name) / "arrivals.json"
        arrived: dict[str, float] = {}
        command = [
            sys.executable,
            "-m",
            "benchmarks.arrivals",
            str(port),
            str(path),
            str(stall_seconds),
        ]
        process = subprocess.Popen(pinned(cpu, command), cwd=ROOT)
        try:
            wait_for(lambda: accepts(port), 10)
            yield port, arrived
        finally:
            process.terminate()
            process.wait(10)
            arrived.update(orjson.loads(path.read_bytes()))


async def produce(
    url: str, rate: float, seconds: float, *event_types: str, together: int = 1
) -> dict[str, float]:
    """Commits events at a steady rate, `together` in a transaction; returns when each was committed, by id.

    Transactions take the types in turn.
    """
    connection = await asyncpg.connect(url)
    committed: dict[str, float] = {}
    insert = await connection.prepare(
        "INSERT INTO dispatcher.outbox (type, data)"
        " SELECT $1, $2::json FROM generate_series(1, $3::int) RETURNING id"
    )
    started = time.perf_counter()
    for number in range(int(rate * seconds / together)):
        pause = started + number * together / rate - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        rows = await insert.fetch(event_types[number % len(event_types)], BODY_DATA, together)
        committed.update(dict.fromkeys((row[0] for row in rows), time.time()))
    await connection.close()
    return committed


async def half_rate(url: str, daemon: Dispatcher, event_type: str) -> float:
    """Returns half of the rate at which the daemon drains events of this type."""
    connection = await asyncpg.connect(url)
    before = daemon.delivered()
    await insert_events(connection, DRAINED, event_type)
    await connection.close()
    started = time.perf_counter()
    wait_for(lambda: daemon.delivered() - before >= DRAINED, 120)
    return DRAINED / (time.perf_counter() - started) / 2


def percentiles(committed: dict[str, float], arrived: dict[str, float]) -> dict[str, float]:
    """Returns p50 and p99 in milliseconds, and how many events never arrived."""
    waits = sorted((arrived[i] - at) * 1000 for i, at in committed.items() if i in arrived)
    return {
        "p50_ms": waits[len(waits) // 2],
        "p99_ms": waits[int(len(waits) * 0.99)],
        "missing": float(len(committed) - len(waits)),
    }


def loopback_ms(port: int) -> float:
    """Returns the median time of one POST over a fresh look at an open connection, in milliseconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    times = []
    for _ in range(200):
        started = time.perf_counter()
        connection.request("POST", "/", body=BODY_DATA)
        connection.getresponse().read()
        times.append((time.perf_counter() - started) * 1000)
    connection.close()
    return statistics.median(times)


def main() -> None:
    """Runs the rounds and prints the percentiles."""
    options = arguments(
        "latency",
        __doc__,
        short={"rate": 200, "seconds": 5, "rounds": 5},
        full={"rate": 200, "seconds": 10, "rounds": 9},
    )
    rounds = []
    with postgres() as (_, url), tempfile.TemporaryDirectory() as name:
        for number in range(options.rounds):
            with arrivals() as (port, arrived):
                post_ms = loopback_ms(port)
                asyncio.run(_endpoint(url, number, port))
                daemon = Dispatcher(url, Path(name))
                daemon.start()
                try:
                    asyncio.run(produce(url, options.rate, 1, f"round.n{number}"))  # warm
                    committed = asyncio.run(
                        produce(url, options.rate, options.seconds, f"round.n{number}")
                    )
                    rate = asyncio.run(half_rate(url, daemon, f"round.n{number}"))
                    half = asyncio.run(
                        produce(url, rate, options.seconds, f"round.n{number}", together=TOGETHER)
                    )
                    time.sleep(0.5)
                finally:
                    daemon.stop()
            at_half = percentiles(half, arrived)
            rounds.append(
                {
                    **percentiles(committed, arrived),
                    "loopback_post_ms": post_ms,
                    "half_rate": rate,
                    "half_p50_ms": at_half["p50_ms"],
                    "half_p99_ms": at_half["p99_ms"],
                }
            )
            print(f"round {number + 1}: {rounds[-1]}", flush=True)
    multiples = [one["p50_ms"] / one["loopback_post_ms"] for one in rounds]
    print(f"  p50 as a multiple of one loopback POST: {spread(multiples)}")
    goals = [
        Goal(3, f"{options.rate}/s: p50 ms", 2.5, [r["p50_ms"] for r in rounds], at_least=False),
        Goal(3, f"{options.rate}/s: p99 ms", 8, [r["p99_ms"] for r in rounds], at_least=False),
        Goal(
            3, "half of its own drain rate: p99 ms", 25,
            [r["half_p99_ms"] for r in rounds], at_least=False,
        ),
    ]  # fmt: skip
    write_results("latency", {"rate": options.rate, "rounds": rounds}, options.json, goals)


async def _endpoint(url: str, number: int, port: int) -> None:
    connection = await asyncpg.connect(url)
    await add_endpoint(
        connection, f"latency{number}", f"http://127.0.0.1:{port}/hook", types=[f"round.n{number}"]
    )
    await connection.close()


if __name__ == "__main__":
    main()
