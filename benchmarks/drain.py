"""Goals 1 and 2: how fast a backlog drains and what a delivery costs, beside two bare loops.

`python -m benchmarks drain [--short] [--events N] [--rounds N] [--json PATH]`. One endpoint on
plain HTTP, 64 in flight. Each round: the daemon drains N events that appear by one commit; a bare
`ClientSession.post` loop makes N requests; the bare lean exchange makes N requests; a second daemon,
which logs warnings only, drains as many from a database of its own. Ours has every
feature on: egress guard, breaker, metrics, signing, one log line per attempt to a file, each
attempt recorded durably (`synchronous_commit = on`). Only ratios within a round count.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import asyncpg
import orjson

from benchmarks.harness import (
    CLIENT_CPU,
    ROOT,
    Dispatcher,
    Goal,
    Receiver,
    add_endpoint,
    arguments,
    cpu_seconds,
    insert_events,
    pinned,
    postgres,
    prepare_database,
    receiver,
    wait_delivered,
    write_results,
)

IN_FLIGHT = 64
SETTINGS = {
    "DISPATCHER_DELIVERY__CONCURRENCY_PER_HOST": str(IN_FLIGHT),
    "DISPATCHER_DELIVERY__CONCURRENCY_PER_ENDPOINT": str(IN_FLIGHT),
}
IDLE_SECONDS = 20
Figures = dict[str, float]


def bare(kind: str, target: Receiver, requests: int, *ca_file: str) -> Figures:
    """Lets a bare loop make so many requests; returns its rate and CPU."""
    arguments_ = [kind, target.url, str(requests), str(IN_FLIGHT), *ca_file]
    command = pinned(CLIENT_CPU, [sys.executable, "-m", "benchmarks.bare", *arguments_])
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    figures: Figures = orjson.loads(output)
    return {
        "rate": requests / figures["seconds"],
        "cpu_us": figures["cpu_seconds"] / requests * 1e6,
    }


_STATEMENTS = """SELECT sum(calls) FROM pg_stat_statements AS s JOIN pg_database AS d ON d.oid = s.dbid
WHERE d.datname = current_database()"""
"""Every statement that Postgres was given, BEGIN, COMMIT and COPY included, this question not yet."""


async def _commit(
    url: str, events: int, read: Callable[[], list[float]]
) -> tuple[list[float], int]:
    """Commits events; returns what `read` said and how many statements there were, the commit included.

    Inserting is the producer's work: only what comes after it counts.
    """
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        await insert_events(connection, events)
        await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        readings = read()
        statements = int(await connection.fetchval(_STATEMENTS))
    await connection.close()
    return readings, statements + 2  # the question, and COMMIT


async def _statements(url: str) -> int:
    connection = await asyncpg.connect(url)
    count = int(await connection.fetchval(_STATEMENTS))
    await connection.close()
    return count


def drain(
    url: str,
    daemons: Sequence[Dispatcher],
    target: Receiver,
    postgres_id: int,
    events: int,
    fan_out: int = 1,
) -> Figures:
    """Commits events of `fan_out` deliveries each; returns their rate, and what a delivery costs."""
    count = events * fan_out
    before = sum(daemon.delivered() for daemon in daemons)
    ids = [daemon.process.pid for daemon in daemons if daemon.process is not None]

    def read() -> list[float]:
        return [sum(map(cpu_seconds, ids)), cpu_seconds(postgres_id)]

    first, statements = asyncio.run(_commit(url, events, read))
    started = time.perf_counter()
    wait_delivered(daemons, target, before, count)
    elapsed = time.perf_counter() - started
    last = read()
    return {
        "rate": count / elapsed,
        "cpu_us": (last[0] - first[0]) / count * 1e6,
        "postgres_us": (last[1] - first[1]) / count * 1e6,
        "statements_per_delivery": (asyncio.run(_statements(url)) - statements) / count,
    }


def _idle_statements_per_second(url: str) -> float:
    """Returns how many statements a second a daemon with nothing to do makes; looking is one of ours."""
    time.sleep(3)
    before = asyncio.run(_statements(url))
    time.sleep(IDLE_SECONDS)
    return (asyncio.run(_statements(url)) - before - 1) / IDLE_SECONDS


async def save_endpoint(url: str, target: Receiver, name: str = "drain") -> None:
    """Saves the one endpoint, subscribed to everything."""
    connection = await asyncpg.connect(url)
    await add_endpoint(connection, name, target.url, concurrency=IN_FLIGHT)
    await connection.close()


def ratio(ours: list[Figures], theirs: list[Figures], key: str = "rate") -> list[float]:
    """Returns ours over theirs, round by round."""
    return [a[key] / b[key] for a, b in zip(ours, theirs, strict=True)]


def say(number: int, rounds: dict[str, list[Figures]]) -> None:
    """Prints the latest figures of each contender."""
    words = [
        f"{name} {f[-1]['rate']:,.0f}/s {f[-1]['cpu_us']:.0f} µs" for name, f in rounds.items()
    ]
    print(
        f"round {number}: {'  '.join(words)}  postgres {rounds['ours'][-1]['postgres_us']:.0f} µs"
    )


def main() -> None:
    """Runs the rounds and prints the ratios."""
    options = arguments(
        "drain",
        __doc__,
        short={"events": 15_000, "rounds": 5},
        full={"events": 30_000, "rounds": 9},
    )
    rounds: dict[str, list[Figures]] = {"ours": [], "session": [], "lean": [], "unlogged": []}
    with postgres() as (server, url), receiver() as target, tempfile.TemporaryDirectory() as name:
        asyncio.run(save_endpoint(url, target))
        other_url = asyncio.run(prepare_database(server, "unlogged"))
        asyncio.run(save_endpoint(other_url, target))
        daemon = Dispatcher(url, Path(name), **SETTINGS)
        unlogged = Dispatcher(other_url, Path(name), **SETTINGS, DISPATCHER_LOG__LEVEL="warning")
        contenders = {"ours": (url, daemon), "unlogged": (other_url, unlogged)}
        try:
            for its_url, one in contenders.values():
                one.start()
                drain(its_url, [one], target, server.process_id or 0, 5_000)  # warm
            for number in range(1, options.rounds + 1):
                for kind, (its_url, one) in contenders.items():
                    rounds[kind].append(
                        drain(its_url, [one], target, server.process_id or 0, options.events)
                    )
                for kind in ("session", "lean"):
                    rounds[kind].append(bare(kind, target, options.events))
                say(number, rounds)
            idle = _idle_statements_per_second(url)  # before there is anything to vacuum
        finally:
            for _, one in contenders.values():
                one.stop()
    ours, session, lean = rounds["ours"], rounds["session"], rounds["lean"]
    both = [{"cpu_us": one["cpu_us"] + one["postgres_us"]} for one in ours]
    for key in ("cpu_us", "postgres_us"):
        print(f"  {key} a delivery, median: {statistics.median(one[key] for one in ours):.4g}")
    write_results(
        "drain",
        {"receiver": target.kind, "events": options.events, "rounds": rounds},
        options.json,
        [
            Goal(1, "deliveries/s over bare ClientSession.post", 1.5, ratio(ours, session)),
            Goal(1, "deliveries/s over the bare lean exchange", 0.4, ratio(ours, lean)),
            Goal(1, "without log lines: deliveries/s over with", 1.0, ratio(rounds["unlogged"], ours)),
            Goal(
                2, "CPU, daemon + Postgres, over bare ClientSession.post", 0.85,
                ratio(both, session, "cpu_us"), at_least=False,
            ),
            Goal(
                2, "CPU, daemon + Postgres, µs per delivery", 80,
                [one["cpu_us"] for one in both], at_least=False,
            ),
            Goal(
                2, "SQL statements per delivery", 0.02,
                [one["statements_per_delivery"] for one in ours], at_least=False,
            ),
            Goal(2, "SQL statements per second when idle", 3, [idle], at_least=False),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
