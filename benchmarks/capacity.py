"""The capacity model against this machine: measures its costs, predicts three other sizes, compares.

`python -m benchmarks capacity [--seconds N] [--rounds N] [--json PATH]`. Producers without a daemon
calibrate the CPU of their commits; a drained batch that of attempts, the drain rate and disk; steady
loads (idle, few events, more) that of rounds. Three other sizes are predicted and measured: CPU of the
daemon and of Postgres at a steady rate, bytes on disk of a drained batch of the same shape. All steady
loads are run in turn, some rounds of them, and medians are compared, for a machine's speed drifts.
CPU of Postgres includes the producers' own inserts.

`--predict --events-per-second N --fan-out N ...` measures nothing, and applies the committed costs.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import asyncpg

from benchmarks.capacity_model import (
    MICROSECONDS,
    Costs,
    Cpu,
    Disk,
    Load,
    bytes_per_event,
    committed_costs,
    cores,
    predict,
)
from benchmarks.harness import (
    Dispatcher,
    add_endpoint,
    cpu_seconds,
    postgres,
    receiver,
    write_results,
)

SIZES = (Load(40, 2, 300), Load(120, 6, 500), Load(250, 10, 1000))
CALIBRATION = (Load(0, 1), Load(20, 1), Load(200, 1))
PRODUCERS = 8
BATCH_EVENTS = (3_000, 5_000, 5_000)
ERROR_MAX = 0.25
TABLES = ("event", "body", "delivery_done", "attempt")
FAN_OUT_MAX = 10


class Measured(NamedTuple):
    """CPU of one steady run."""

    daemon_cores: float
    postgres_cores: float
    rate: float
    memory_bytes: float


def data_of(size: int) -> str:
    """Returns a JSON object of that many bytes."""
    frame = '{"order_id":"ORD-2026-1234","note":""}'
    return frame[:-2] + "x" * (size - len(frame)) + '"}'


def memory_bytes(process_id: int) -> int:
    """Returns what a process holds in memory."""
    fields = Path(f"/proc/{process_id}/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * 4096


async def _endpoints(url: str, port: int) -> None:
    """Makes ten; the n-th subscribes to the types of fan-out n and more."""
    connection = await asyncpg.connect(url)
    for number in range(1, FAN_OUT_MAX + 1):
        await add_endpoint(
            connection,
            f"capacity{number}",
            f"http://127.0.0.1:{port}/hook",
            types=[f"fan.n{wide}" for wide in range(number, FAN_OUT_MAX + 1)],
        )
    await connection.close()


async def _produce(url: str, load: Load, seconds: float) -> int:
    """Commits one event a transaction, paced by schedule, over some connections; returns how many."""
    data, started, count = data_of(load.data_bytes), time.perf_counter(), 0

    async def one() -> None:
        nonlocal count
        connection = await asyncpg.connect(url)
        insert = await connection.prepare(
            "INSERT INTO dispatcher.outbox (type, data) VALUES ($1, $2)"
        )
        while (elapsed := time.perf_counter() - started) < seconds:
            if count < load.events_per_second * elapsed:
                count += 1
                await insert.fetch(f"fan.n{load.fan_out}", data)
            else:
                await asyncio.sleep(0.005)
        await connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(PRODUCERS):
            group.create_task(one())
    return count


async def _drained(url: str) -> None:
    connection = await asyncpg.connect(url)
    deadline = time.monotonic() + 120
    while await connection.fetchval(
        "SELECT EXISTS (SELECT FROM dispatcher.outbox) OR EXISTS (SELECT FROM dispatcher.delivery_open)"
    ):
        if time.monotonic() > deadline:
            raise TimeoutError("not drained")
        await asyncio.sleep(0.1)
    await connection.close()


async def _steady(
    url: str, daemon_id: int, postgres_id: int, load: Load, seconds: float
) -> Measured:
    """Runs one load and returns what it kept busy; the first second is not counted."""
    await _produce(url, load, 1.0)
    before = cpu_seconds(daemon_id), cpu_seconds(postgres_id)
    started = time.perf_counter()
    count = await _produce(url, load, seconds) if load.events_per_second else 0
    if not load.events_per_second:
        await asyncio.sleep(seconds)
    await _drained(url)
    elapsed = time.perf_counter() - started
    return Measured(
        (cpu_seconds(daemon_id) - before[0]) / elapsed,
        (cpu_seconds(postgres_id) - before[1]) / elapsed,
        count / elapsed,
        memory_bytes(daemon_id),
    )


async def _sizes(connection: "asyncpg.Connection[asyncpg.Record]") -> dict[str, float]:
    """Returns bytes by table, and where the write-ahead log stands."""
    found = {
        table: float(
            await connection.fetchval(
                "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = $1::text::regclass",
                f"dispatcher.{table}",
            )
        )
        for table in TABLES
    }
    found["wal"] = float(
        await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
    )
    return found


async def _batch(
    url: str, daemon_id: int, postgres_id: int, load: Load, events: int
) -> dict[str, float]:
    """Drains one batch; returns by how many bytes each table grew, how fast it went, and its CPU."""
    connection = await asyncpg.connect(url)
    before = await _sizes(connection)
    busy = cpu_seconds(daemon_id), cpu_seconds(postgres_id)
    started = time.perf_counter()
    await connection.execute(
        "INSERT INTO dispatcher.outbox (type, data) SELECT $1, $2::json FROM generate_series(1, $3::int)",
        f"fan.n{load.fan_out}", data_of(load.data_bytes), events,
    )  # fmt: skip
    await _drained(url)
    elapsed = time.perf_counter() - started
    deliveries = events * load.fan_out
    found = {
        "drain_per_second": deliveries / elapsed,
        "daemon_us": (cpu_seconds(daemon_id) - busy[0]) / deliveries * MICROSECONDS,
        "postgres_us": (cpu_seconds(postgres_id) - busy[1]) / deliveries * MICROSECONDS,
    }
    after = await _sizes(connection)
    await connection.close()
    return found | {name: after[name] - before[name] for name in after}


async def _producers_alone(url: str, postgres_id: int, seconds: float) -> float:
    """Returns the CPU of Postgres for one committed event, in microseconds, while no daemon runs."""
    busy = cpu_seconds(postgres_id)
    count = await _produce(url, CALIBRATION[-1], seconds)
    return (cpu_seconds(postgres_id) - busy) / count * MICROSECONDS


def calibrate_cpu(
    runs: list[tuple[float, float]],
    attempt_us: float,
    drain_per_second: float,
    commit_us: float = 0.0,
) -> Cpu:
    """Solves for what a round costs and how many there are at most.

    `runs` are those of `CALIBRATION`: (events per second, cores). What attempts and
    commits do not explain of them is rounds. The rate divided by that is linear in the rate divided by
    the room that is left: its intercept is one round's cost, and its slope gives their limit.
    """
    (_, idle), *others = ((rate, busy * MICROSECONDS) for rate, busy in runs)
    (few_at, few_of), (more_at, more_of) = (
        (
            rate / (1 - rate / drain_per_second),
            rate / (busy - idle - rate * (attempt_us + commit_us)),
        )
        for rate, busy in others
    )
    slope = max(1e-9, (more_of - few_of) / (more_at - few_at))
    round_us = 1 / max(1e-9, few_of - slope * few_at)
    return Cpu(idle / MICROSECONDS, round_us, 1 / (slope * round_us), attempt_us, commit_us)


def calibrate_disk(load: Load, events: int, grown: dict[str, float]) -> Disk:
    """Divides a batch's growth by its rows."""
    deliveries = events * load.fan_out
    return Disk(
        event_bytes=grown["event"] / events - load.data_bytes,
        body_bytes=grown["body"] / events - load.data_bytes,
        delivery_bytes=grown["delivery_done"] / deliveries,
        attempt_bytes=grown["attempt"] / deliveries,
        wal_attempt_bytes=grown["wal"] / deliveries,
    )


def main() -> None:
    """Measures and compares, or predicts alone."""
    parser = argparse.ArgumentParser(
        prog="benchmarks capacity", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    parser.add_argument("--predict", action="store_true")
    parser.add_argument("--events-per-second", type=float, default=20.0)
    parser.add_argument("--fan-out", type=float, default=1.0)
    parser.add_argument("--data-bytes", type=int, default=500)
    parser.add_argument("--attempts-per-delivery", type=float, default=1.0)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--profiles", type=int, default=1)
    options = parser.parse_args()
    if options.predict:
        load = Load(*(getattr(options, field) for field in Load._fields))
        for name, value in predict(load, committed_costs())._asdict().items():
            print(f"{name:<22} {value:,.3g}" if value < 1 else f"{name:<22} {value:,.0f}")
        return
    with (
        postgres() as (server, url),
        receiver() as (port, kind),
        tempfile.TemporaryDirectory() as directory,
    ):
        asyncio.run(_endpoints(url, port))
        commit_us = statistics.median(
            asyncio.run(_producers_alone(url, server.process_id or 0, options.seconds))
            for _ in range(options.rounds)
        )
        daemon = Dispatcher(url, Path(directory))
        daemon_id, postgres_id = daemon.start(), server.process_id or 0

        def steady(load: Load) -> Measured:
            return asyncio.run(_steady(url, daemon_id, postgres_id, load, options.seconds))

        def batch(load: Load, events: int) -> dict[str, float]:
            return asyncio.run(_batch(url, daemon_id, postgres_id, load, events))

        try:
            steady(Load(100, 5))  # warm
            loads = (*CALIBRATION, *SIZES)
            rounds, batches = [], []
            for _ in range(options.rounds):
                rounds.append([steady(load) for load in loads])
                batches.append(batch(SIZES[1], BATCH_EVENTS[1]))
            grown = [batch(SIZES[0], BATCH_EVENTS[0]), {}, batch(SIZES[2], BATCH_EVENTS[2])]
        finally:
            daemon.stop()
    runs = [
        Measured(*map(statistics.median, zip(*measured, strict=True)))
        for measured in zip(*rounds, strict=True)
    ]
    calibration, sizes = runs[: len(CALIBRATION)], runs[len(CALIBRATION) :]
    middle = {name: statistics.median(one[name] for one in batches) for name in batches[0]}
    grown[1] = middle
    drain = middle["drain_per_second"]
    costs = Costs(
        calibrate_cpu(
            [(run.rate, run.daemon_cores) for run in calibration], middle["daemon_us"], drain
        ),
        calibrate_cpu(
            [(run.rate, run.postgres_cores) for run in calibration],
            middle["postgres_us"],
            drain,
            commit_us,
        ),
        calibrate_disk(SIZES[1], BATCH_EVENTS[1], middle),
        drain,
    )
    print(f"receiver {kind}; costs of this machine:")
    print(f"  drain     {drain:,.0f} deliveries/s")
    for name, part in (
        ("daemon", costs.daemon),
        ("postgres", costs.postgres),
        ("disk", costs.disk),
    ):
        words = (f"{key} {value:,.4g}" for key, value in part._asdict().items())
        print(f"  {name:<9} {', '.join(words)}")
    rows = [
        _compare(load, costs, run, grew, events)
        for load, run, grew, events in zip(SIZES, sizes, grown, BATCH_EVENTS, strict=True)
    ]
    worst = max(row[f"{what}_error"] for row in rows for what in ("daemon", "postgres", "disk"))
    print(f"largest error {worst:.0%}; goal ≤ {ERROR_MAX:.0%}")
    print(f"memory of the daemon, idle: {calibration[0].memory_bytes / 2**20:.0f} MiB")
    write_results(
        "capacity",
        {
            "receiver": kind,
            "rounds": options.rounds,
            "seconds": options.seconds,
            "costs": {
                "daemon": costs.daemon._asdict(),
                "postgres": costs.postgres._asdict(),
                "disk": costs.disk._asdict(),
                "drain_per_second": drain,
            },
            "idle_memory_bytes": calibration[0].memory_bytes,
            "calibration": [run._asdict() for run in calibration],
            "sizes": rows,
            "largest_error": worst,
        },
        options.json,
    )


def _compare(
    load: Load, costs: Costs, run: Measured, grown: dict[str, float], events: int
) -> dict[str, float]:
    """Compares one size's predictions with what was measured, and prints both."""
    kept = load._replace(events_per_second=run.rate)  # what the producers really made
    disk = sum(grown[table] for table in TABLES) / events
    pairs = {
        "daemon": (cores(kept, costs.daemon, costs.drain_per_second), run.daemon_cores),
        "postgres": (cores(kept, costs.postgres, costs.drain_per_second), run.postgres_cores),
        "disk": (bytes_per_event(load, costs.disk), disk),
    }
    row: dict[str, float] = {
        **load._asdict(),
        "rate": run.rate,
        "memory_bytes": run.memory_bytes,
    }
    words = []
    for name, (predicted, measured) in pairs.items():
        row |= {
            f"{name}_predicted": predicted,
            f"{name}_measured": measured,
            f"{name}_error": abs(predicted / measured - 1),
        }
        words.append(f"{name} {predicted:,.4g} / {measured:,.4g} ({row[f'{name}_error']:.0%})")
    print(
        f"{run.rate:,.0f} events/s x {load.fan_out:g}, {load.data_bytes} bytes; predicted / measured: "
        + "; ".join(words),
        flush=True,
    )
    return row


if __name__ == "__main__":
    main()
