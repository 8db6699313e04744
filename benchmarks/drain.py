"""Goals 1 and 2: how fast a backlog drains and what a delivery costs, beside two bare loops.

`python -m benchmarks drain [--events N] [--rounds N] [--json PATH]`. One endpoint on plain HTTP, 64
in flight. Each round: the daemon drains N events that appear by one commit; a bare
`ClientSession.post` loop makes N requests; the bare lean exchange makes N requests. Ours has every
feature on: egress guard, breaker, metrics, signing, one log line per attempt to a file, each
attempt recorded durably (`synchronous_commit = on`). Only ratios within a round count.
"""

import argparse
import asyncio
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg
import orjson

from benchmarks.harness import (
    CLIENT_CPU,
    ROOT,
    Dispatcher,
    add_endpoint,
    cpu_seconds,
    insert_events,
    pinned,
    postgres,
    receiver,
    spread,
    write_results,
)

IN_FLIGHT = 64


def _bare(kind: str, port: int, requests: int) -> dict[str, float]:
    command = pinned(
        CLIENT_CPU,
        [sys.executable, "-m", "benchmarks.bare", kind, str(port), str(requests), str(IN_FLIGHT)],
    )
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    figures: dict[str, float] = orjson.loads(output)
    return {
        "rate": requests / figures["seconds"],
        "cpu_us": figures["cpu_seconds"] / requests * 1e6,
    }


async def _statements(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    return int(
        await connection.fetchval(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'bench'"
        )
    )


async def _ours(
    url: str, daemon: Dispatcher, process_id: int, postgres_id: int, events: int
) -> dict[str, float]:
    connection = await asyncpg.connect(url)
    before = daemon.metric("dispatcher_deliveries_total")
    async with connection.transaction():
        await insert_events(connection, events)
        await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        daemon_before, postgres_before = cpu_seconds(process_id), cpu_seconds(postgres_id)
        transactions_before = await _statements(connection)
    started = time.perf_counter()
    while daemon.metric("dispatcher_deliveries_total") - before < events:
        await asyncio.sleep(0.1)
    elapsed = time.perf_counter() - started
    figures = {
        "rate": events / elapsed,
        "cpu_us": (cpu_seconds(process_id) - daemon_before) / events * 1e6,
        "postgres_us": (cpu_seconds(postgres_id) - postgres_before) / events * 1e6,
    }
    await asyncio.sleep(1.1)  # the statistics are flushed once a second
    figures["transactions_per_delivery"] = (
        await _statements(connection) - transactions_before
    ) / events
    await connection.close()
    return figures


def main() -> None:
    """Runs the rounds and prints the ratios."""
    parser = argparse.ArgumentParser(
        prog="benchmarks drain", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--events", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    parser.add_argument(
        "--profile", help="write a py-spy profile of the daemon to this file (needs py-spy)"
    )
    options = parser.parse_args()
    rounds: dict[str, list[dict[str, float]]] = {"ours": [], "session": [], "lean": []}
    with (
        postgres() as (server, url),
        receiver() as (port, kind),
        tempfile.TemporaryDirectory() as directory,
    ):
        asyncio.run(_endpoint(url, port))
        daemon = Dispatcher(
            url, Path(directory),
            DISPATCHER_DELIVERY__CONCURRENCY_PER_HOST="64",
            DISPATCHER_DELIVERY__CONCURRENCY_PER_ENDPOINT="64",
        )  # fmt: skip
        process_id, postgres_id = daemon.start(), server.process_id or 0
        try:
            asyncio.run(_ours(url, daemon, process_id, postgres_id, 5_000))  # warm
            profiler = None
            if options.profile:
                profiler = subprocess.Popen(
                    [
                        "py-spy",
                        "record",
                        "-r",
                        "500",
                        "-f",
                        "raw",
                        "-o",
                        options.profile,
                        "-p",
                        str(process_id),
                    ]
                )
            for number in range(options.rounds):
                rounds["ours"].append(
                    asyncio.run(_ours(url, daemon, process_id, postgres_id, options.events))
                )
                for name in ("session", "lean"):
                    rounds[name].append(_bare(name, port, options.events))
                words = [
                    f"{name} {figures[-1]['rate']:,.0f}/s {figures[-1]['cpu_us']:.0f} µs"
                    for name, figures in rounds.items()
                ]
                words.append(f"postgres {rounds['ours'][-1]['postgres_us']:.0f} µs")
                print(f"round {number + 1}: {'  '.join(words)}", flush=True)
            if profiler is not None:
                profiler.send_signal(signal.SIGINT)
                profiler.wait(30)
        finally:
            daemon.stop()
    ours, session, lean = rounds["ours"], rounds["session"], rounds["lean"]
    ratios = {
        "rate over bare session": [
            a["rate"] / b["rate"] for a, b in zip(ours, session, strict=True)
        ],
        "rate over bare lean exchange": [
            a["rate"] / b["rate"] for a, b in zip(ours, lean, strict=True)
        ],
        "CPU (daemon + Postgres) over bare session": [
            (a["cpu_us"] + a["postgres_us"]) / b["cpu_us"]
            for a, b in zip(ours, session, strict=True)
        ],
    }
    goals = {
        "rate over bare session": "≥ 1.5",
        "rate over bare lean exchange": "≥ 0.4",
        "CPU (daemon + Postgres) over bare session": "≤ 0.85",
    }
    print(f"\nreceiver {kind}, {options.events:,} events, {options.rounds} rounds; median (range)")
    for name, values in ratios.items():
        print(f"  {name:<44} {spread(values):<22} goal {goals[name]}")
    for name, key in (
        ("daemon µs a delivery", "cpu_us"),
        ("Postgres µs a delivery", "postgres_us"),
        ("transactions a delivery", "transactions_per_delivery"),
    ):
        print(f"  {name:<44} {statistics.median(f[key] for f in ours):.4g}")
    write_results(
        "drain",
        {"receiver": kind, "events": options.events, "rounds": rounds, "ratios": ratios},
        options.json,
    )


async def _endpoint(url: str, port: int) -> None:
    connection = await asyncpg.connect(url)
    await add_endpoint(connection, "drain", f"http://127.0.0.1:{port}/hook")
    await connection.close()


if __name__ == "__main__":
    main()
