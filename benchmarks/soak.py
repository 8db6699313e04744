"""Goal 9, over time: a steady load with failures, slow receivers and an endpoint that flaps.

`python -m benchmarks soak [--short] [--minutes N] [--rate N] [--json PATH]`. The load is 80 % of
what the same daemon drained just before, or `--rate` events/s. A delivery leaves 2.3 KB of history,
so that an hour writes some fifty gigabytes; the log is cut at a gigabyte, and the load ends early,
and says so, when the disk is nearly full. Of twenty endpoints one is slow (it answers after a
second), one flaps (30 s of 200, 30 s of 503), and one event in a hundred is answered with 503.
Every few seconds: memory of the daemon, dead and live rows of the hot tables, what waits, latency
and lateness of these seconds. Memory, dead rows and what waits must not grow; the last third is
compared with the second.
"""

import asyncio
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg

from benchmarks.harness import (
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
    wait_for,
    write_results,
)
from benchmarks.plots import lines

EVERY_SECONDS = 5.0
KINDS = (*["ok"] * 17, "ok", "slow", "flap")
WARM_EVENTS = 5_000
LOG_BYTES_MAX = 2**30
FREE_BYTES_MIN = 8 * 2**30
_ROWS = """
SELECT (SELECT sum(n_dead_tup) FROM pg_stat_user_tables WHERE relname IN ('outbox', 'delivery_open'))::int AS dead_rows,
       (SELECT count(*) FROM dispatcher.outbox)::int + (SELECT count(*) FROM dispatcher.delivery_open)::int AS waiting
"""


def _memory_mb(process_id: int) -> float:
    pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def _endpoints(url: str, port: int) -> None:
    connection = await asyncpg.connect(url)
    for number, kind in enumerate(KINDS):
        await add_endpoint(
            connection,
            f"soak{number}",
            f"http://127.0.0.1:{port}/{kind}",
            types=[f"soak.n{number}"],
        )
    await connection.close()


async def _feed(url: str, rate: float, until: float, full: asyncio.Event) -> None:
    """Commits events at a rate, one type after the other, twenty times a second."""
    connection = await asyncpg.connect(url)
    number = 0
    started, inserted = time.monotonic(), 0
    while time.monotonic() < until and not full.is_set():
        due = int((time.monotonic() - started) * rate) - inserted
        if due > 0:
            # One in twenty goes to each endpoint; the slow one gets few, for it takes ten a second.
            kind = number % len(KINDS)
            count = min(due, 5) if KINDS[kind] == "slow" else due
            await insert_events(connection, count, f"soak.n{kind}")
            inserted += due
            number += 1
        await asyncio.sleep(0.05)
    await connection.close()


async def _sample(
    url: str,
    daemon: Dispatcher,
    data_directory: Path,
    started: float,
    until: float,
    full: asyncio.Event,
) -> list[dict[str, float]]:
    connection = await asyncpg.connect(url)
    process_id = daemon.process.pid if daemon.process is not None else 0
    samples: list[dict[str, float]] = []
    delivered, at = daemon.delivered(), time.monotonic()
    while time.monotonic() < until and not full.is_set():
        await asyncio.sleep(EVERY_SECONDS)
        daemon.cut_log(LOG_BYTES_MAX)
        if shutil.disk_usage(data_directory).free < FREE_BYTES_MIN:
            print(
                f"the disk is nearly full: ended after {(time.monotonic() - started) / 60:.0f} min"
            )
            full.set()
        row = await connection.fetchrow(_ROWS)
        now_delivered, now = daemon.delivered(), time.monotonic()
        latency_sum = daemon.metric("dispatcher_delivery_latency_seconds_sum")
        latency_count = daemon.metric("dispatcher_delivery_latency_seconds_count")
        late_sum = daemon.metric("dispatcher_retry_lateness_seconds_sum")
        late_count = daemon.metric("dispatcher_retry_lateness_seconds_count")
        samples.append(
            {
                "minute": (now - started) / 60,
                "memory_mb": _memory_mb(process_id),
                "dead_rows": float(row["dead_rows"] or 0) if row else 0.0,
                "waiting": float(row["waiting"]) if row else 0.0,
                "delivered_per_second": (now_delivered - delivered) / (now - at),
                "latency_sum": latency_sum,
                "latency_count": latency_count,
                "late_sum": late_sum,
                "late_count": late_count,
            }
        )
        delivered, at = now_delivered, now
    await connection.close()
    return samples


def _means(samples: list[dict[str, float]], name: str) -> list[float]:
    """Returns the mean latency or lateness between each two samples, in milliseconds."""
    means = []
    for before, after in itertools.pairwise(samples):
        count = after[f"{name}_count"] - before[f"{name}_count"]
        means.append((after[f"{name}_sum"] - before[f"{name}_sum"]) / max(1.0, count) * 1000)
    return means


async def _load(
    url: str, daemon: Dispatcher, data_directory: Path, rate: float, seconds: float
) -> list[dict[str, float]]:
    started = time.monotonic()
    until = started + seconds
    full = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(_feed(url, rate, until, full))
        sampling = group.create_task(_sample(url, daemon, data_directory, started, until, full))
    return sampling.result()


def _drain_rate(url: str, daemon: Dispatcher) -> float:
    """Returns how fast the daemon drains events of an endpoint that answers at once."""
    before = daemon.delivered()

    async def insert() -> None:
        connection = await asyncpg.connect(url)
        await insert_events(connection, WARM_EVENTS, "soak.n0")
        await connection.close()

    asyncio.run(insert())
    started = time.perf_counter()
    wait_for(lambda: daemon.delivered() - before >= WARM_EVENTS * 0.97, 120)
    return WARM_EVENTS / (time.perf_counter() - started)


def main() -> None:
    """Runs the load and prints the goals."""
    options = arguments(
        "soak", __doc__, short={"minutes": 1, "rate": 0}, full={"minutes": 60, "rate": 0}
    )
    port = free_port()
    command = pinned(SERVER_CPU, [sys.executable, "-m", "benchmarks.sink", str(port)])
    sink = subprocess.Popen(command, cwd=ROOT)
    try:
        wait_for(lambda: accepts(port), 10)
        with postgres() as (server, url), tempfile.TemporaryDirectory() as name:
            asyncio.run(_endpoints(url, port))
            daemon = Dispatcher(url, Path(name))
            daemon.start()
            try:
                drain_rate = _drain_rate(url, daemon)
                rate = options.rate or 0.8 * drain_rate
                print(f"{rate:,.0f} events/s for {options.minutes} minutes", flush=True)
                data = server.moved_to or server.data_directory
                samples = asyncio.run(_load(url, daemon, data, rate, options.minutes * 60))
            finally:
                daemon.stop()
    finally:
        sink.terminate()
        sink.wait(10)
    third = max(1, len(samples) // 3)

    def growth(key: str) -> list[float]:
        middle = statistics.median(one[key] for one in samples[third : 2 * third] or samples)
        return [one[key] / max(1.0, middle) for one in samples[-third:]]

    latencies = _means(samples, "latency")
    latency_growth = statistics.fmean(latencies[-third:]) / max(
        1.0, statistics.fmean(latencies[third : 2 * third] or latencies)
    )
    goals = [
        Goal(9, "soak: memory, last third over the second", 1.1, growth("memory_mb"), at_least=False),
        Goal(
            9, "soak: most dead rows of the hot tables", 200_000,
            [max(one["dead_rows"] for one in samples)], at_least=False,
        ),
Goal(
            9, "soak: mean latency, last third over the second", 1.2, [latency_growth], at_least=False
        ),
    ]  # fmt: skip
    figures: dict[str, object] = {"rate": rate, "drain_rate": drain_rate, "samples": samples}
    write_results("soak", figures, options.json, goals)
    if options.json is None:
        minutes = [one["minute"] for one in samples]
        for key, title in (
            ("memory_mb", "Memory of the daemon, MB"),
            ("dead_rows", "Dead rows of the hot tables"),
            ("waiting", "Events and deliveries that wait"),
        ):
            lines(f"soak_{key}", title, minutes, {key: [one[key] for one in samples]})
        lines(
            "soak_latency", "Mean latency and retry lateness, ms", minutes[1:],
            {"latency": latencies, "lateness": _means(samples, "late")},
        )  # fmt: skip


if __name__ == "__main__":
    main()
