"""Goal 6: whether dead and slow endpoints with a backlog delay healthy ones.

`python -m benchmarks isolation [--short] [--seconds N] [--rounds N] [--backlog N] [--json PATH]`. Two
hundred endpoints that answer at once share 500 events/s. In turn, each round: alone; and beside
twenty dead endpoints, which accept and never answer, with a backlog of N deliveries in all, and
ten slow ones, which answer after a second and have a hundred deliveries each. Compared: the healthy
ones' time from commit to request received.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from benchmarks.harness import (
    Dispatcher,
    Goal,
    add_endpoint,
    arguments,
    insert_events,
    postgres,
    wait_for,
    write_results,
)
from benchmarks.steady import arrivals, percentiles, produce

HEALTHY_COUNT, DEAD_COUNT, SLOW_COUNT = 200, 20, 10
SLOW_SECONDS = 1.0
SLOW_EVENTS = 100
RATE = 500


def _types(number: int) -> list[str]:
    return [f"round.n{number}e{one}" for one in range(HEALTHY_COUNT)]


async def _endpoints(
    url: str, number: int, kind: str, port: int, types: Sequence[Sequence[str]]
) -> None:
    """Saves one endpoint for each list of types."""
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        for one, its in enumerate(types):
            await add_endpoint(
                connection, f"{kind}{number}x{one}", f"http://127.0.0.1:{port}/hook",
                concurrency=10, types=its,
            )  # fmt: skip
    await connection.close()


async def _backlog(url: str, number: int, count: int) -> None:
    """Lets the backlog be fanned out."""
    connection = await asyncpg.connect(url)
    await insert_events(connection, count // DEAD_COUNT, f"dead.n{number}")
    await insert_events(connection, SLOW_EVENTS, f"slow.n{number}")
    while await connection.fetchval("SELECT EXISTS (SELECT FROM dispatcher.outbox)"):
        await asyncio.sleep(0.1)
    await connection.close()


async def _forget(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("DELETE FROM dispatcher.delivery_open")
    await connection.execute("UPDATE dispatcher.endpoint SET deleted_at = now()")
    await connection.close()


def _round(
    url: str, directory: Path, number: int, seconds: float, backlog: int
) -> dict[str, float]:
    with (
        arrivals() as (healthy, arrived),
        arrivals(stall_seconds=3600) as (dead, _),
        arrivals(stall_seconds=SLOW_SECONDS) as (slow, _),
    ):
        asyncio.run(_endpoints(url, number, "healthy", healthy, [[one] for one in _types(number)]))
        if backlog:
            asyncio.run(_endpoints(url, number, "dead", dead, [[f"dead.n{number}"]] * DEAD_COUNT))
            asyncio.run(_endpoints(url, number, "slow", slow, [[f"slow.n{number}"]] * SLOW_COUNT))
        daemon = Dispatcher(url, directory)
        daemon.start()
        try:
            if backlog:
                asyncio.run(_backlog(url, number, backlog))
            asyncio.run(produce(url, RATE, 2, *_types(number)))
            # The daemon before was killed: this one watches its lease for 2.5 s before it sends.
            wait_for(lambda: daemon.metric("dispatcher_deliveries_total") >= RATE, 20, every=0.2)
            committed = asyncio.run(produce(url, RATE, seconds, *_types(number)))
            time.sleep(0.5)
        finally:
            daemon.kill()
    asyncio.run(_forget(url))
    return percentiles(committed, arrived)


def main() -> None:
    """Runs the rounds and prints the ratio."""
    options = arguments(
        "isolation",
        __doc__,
        short={"seconds": 4, "rounds": 5, "backlog": 20_000},
        full={"seconds": 10, "rounds": 5, "backlog": 100_000},
    )
    alone, beside = [], []
    with postgres() as (_, url), tempfile.TemporaryDirectory() as name:
        for number in range(options.rounds):
            alone.append(_round(url, Path(name), 2 * number, options.seconds, 0))
            beside.append(_round(url, Path(name), 2 * number + 1, options.seconds, options.backlog))
            print(
                f"round {number + 1}: alone {alone[-1]}  beside the dead {beside[-1]}", flush=True
            )
    ratios = [b["p99_ms"] / a["p99_ms"] for a, b in zip(alone, beside, strict=True)]
    print(f"\nbacklog {options.backlog:,} of {DEAD_COUNT} dead endpoints; median (range)")
    for key in ("p50_ms", "p99_ms"):
        medians = [statistics.median(r[key] for r in rounds) for rounds in (alone, beside)]
        print(f"  {key:<8} alone {medians[0]:.2f}  beside {medians[1]:.2f}")
    write_results(
        "isolation",
        {"backlog": options.backlog, "alone": alone, "beside": beside},
        options.json,
        [Goal(6, "healthy p99 next to dead endpoints over alone", 1.2, ratios, at_least=False)],
    )


if __name__ == "__main__":
    main()
