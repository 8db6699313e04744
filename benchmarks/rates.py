"""The cost of an event at steady rates: CPU of the daemon and of Postgres, and the time from commit to receiver.

`python -m benchmarks rates [--short] [--seconds N] [--rounds N] [--at RATE ...] [--against COMMIT|FOLDER]`. A
producer commits one event per transaction, paced by schedule. Each round measures every rate with each
contender in turn, each with its own database and daemon. The CPU includes what the daemon does anyway
(polls, statistics), so an event costs more the lower the rate is. The producer's own server process and
its share of the commit are not counted.
"""

import asyncio
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import asyncpg

from benchmarks.contenders import Contender, checkouts
from benchmarks.harness import (
    BODY_DATA,
    Dispatcher,
    Goal,
    arguments,
    cpu_seconds,
    postgres,
    postgres_cpu,
    spread,
    wait_for,
    write_results,
)
from benchmarks.steady import arrivals, percentiles

RATES = (1, 10, 50, 200, 1_000, 5_000)
WARM_EVENTS = 200
TENANT = "bench"
SETTLE_SECONDS = 0.5
"""Time for the last results to be recorded, which belongs to the measured CPU; the metrics are not read meanwhile."""
GOALS = {50: 1_800.0, 200: 800.0}
"""Microseconds of CPU per event, daemon and Postgres: half of what was measured when the goal was set."""
P50_GOAL_MS = 1.2
Figures = dict[str, float]


async def produce(
    url: str, rate: int, count: int, event_type: str
) -> tuple[dict[str, float], float]:
    """Commits events at a steady rate; returns when each was committed, and the CPU of the server process."""
    connection = await asyncpg.connect(url)
    process_id = await connection.fetchval("SELECT pg_backend_pid()")
    insert = await connection.prepare(
        "INSERT INTO dispatcher.outbox (type, tenant, data) VALUES ($1, $2, $3::json) RETURNING id"
    )
    before = cpu_seconds(process_id)
    committed: dict[str, float] = {}
    started = time.perf_counter()
    for number in range(count):
        pause = started + number / rate - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        event_id = await insert.fetchval(event_type, TENANT, BODY_DATA)
        committed[event_id] = time.time()
    used = cpu_seconds(process_id) - before
    await connection.close()
    return committed, used


def measure(
    contender: Contender, postgres_id: int, number: int, rate: int, seconds: float
) -> Figures:
    """Returns CPU per event in microseconds, and the percentiles of the time to the receiver."""
    event_type = f"rates.r{number}_{rate}"
    with arrivals() as (port, arrived), contender.running() as daemon:
        # Of its own type: otherwise each round would also deliver to the receivers of rounds before.
        daemon.create_endpoint(
            f"rates{number}-{rate}", f"http://127.0.0.1:{port}/hook", 64, TENANT, types=[event_type]
        )
        asyncio.run(produce(contender.url, max(rate, WARM_EVENTS), WARM_EVENTS, event_type))
        _settle(daemon, WARM_EVENTS)
        assert daemon.process is not None  # noqa: S101 -- it runs
        count = max(rate, int(rate * seconds))
        before = cpu_seconds(daemon.process.pid), sum(postgres_cpu(postgres_id).values())
        committed, own = asyncio.run(produce(contender.url, rate, count, event_type))
        time.sleep(SETTLE_SECONDS)
        after = cpu_seconds(daemon.process.pid), sum(postgres_cpu(postgres_id).values())
        _settle(daemon, WARM_EVENTS + count)
    figures = percentiles(committed, arrived)
    return {
        "daemon_us": (after[0] - before[0]) / count * 1e6,
        "postgres_us": (after[1] - before[1] - own) / count * 1e6,
        "load_average": os.getloadavg()[0],
        **figures,
    }


def _settle(daemon: Dispatcher, count: int) -> None:
    wait_for(lambda: daemon.delivered() >= count, 60, every=0.2)


def _rates() -> list[int]:
    """Returns the rates after `--at`, which it takes from the command line; all of them without it."""
    if "--at" not in sys.argv:
        return list(RATES)
    place = sys.argv.index("--at")
    rates: list[int] = []
    while place + 1 < len(sys.argv) and sys.argv[place + 1].isdecimal():
        rates.append(int(sys.argv.pop(place + 1)))
    del sys.argv[place]
    return rates


def main() -> None:
    """Measures each rate with each contender in turn, and prints the medians."""
    rates = _rates()
    options = arguments(
        "rates",
        __doc__,
        short={"seconds": 5, "rounds": 3},
        full={"seconds": 20, "rounds": 5},
        against=True,
    )
    rounds: dict[str, dict[int, list[Figures]]] = {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server, _ = stack.enter_context(postgres())
        assert server.process_id is not None  # noqa: S101 -- it is ours, and it runs
        contenders = [
            Contender(one.name, server, directory, one)
            for one in stack.enter_context(checkouts([options.against]))
        ]
        for number in range(options.rounds):
            for rate in rates:
                for contender in contenders:
                    figures = measure(contender, server.process_id, number, rate, options.seconds)
                    rounds.setdefault(contender.name, {}).setdefault(rate, []).append(figures)
                    words = "  ".join(f"{name} {value:,.2f}" for name, value in figures.items())
                    print(f"round {number + 1}, {contender.name}, {rate}/s: {words}", flush=True)
    ours = rounds["ours"]
    for name, of_rate in rounds.items():
        for rate, figures_ in of_rate.items():
            print(
                f"  {name:<10} {rate:>5}/s  daemon µs {spread([f['daemon_us'] for f in figures_])}"
                f"  postgres µs {spread([f['postgres_us'] for f in figures_])}"
                f"  p50 ms {spread([f['p50_ms'] for f in figures_])}"
                f"  p99 ms {spread([f['p99_ms'] for f in figures_])}"
            )
            if name != "ours":
                for key in ("daemon_us", "postgres_us"):
                    ratios = [a[key] / b[key] for a, b in zip(ours[rate], figures_, strict=True)]
                    print(f"  ours over {name} at {rate}/s, {key}: {spread(ratios)}")
    goals = [
        Goal(
            16, f"{rate}/s: CPU, daemon + Postgres, µs per event", aim,
            [f["daemon_us"] + f["postgres_us"] for f in ours[rate]], at_least=False,
        )
        for rate, aim in GOALS.items() if rate in ours
    ]  # fmt: skip
    goals += [
        Goal(
            16, f"{rate}/s: p50 ms", P50_GOAL_MS, [f["p50_ms"] for f in ours[rate]], at_least=False
        )
        for rate in GOALS
        if rate in ours
    ]
    figures_by_name = {
        name: {str(rate): values for rate, values in of_rate.items()}
        for name, of_rate in rounds.items()
    }
    write_results("rates", {"rounds": figures_by_name}, options.json, goals)


if __name__ == "__main__":
    main()
