"""Goals 1 and 2: how fast a backlog drains and what a delivery costs, beside two bare loops.

`python -m benchmarks drain [--short] [--events N] [--rounds N] [--json PATH]`. One endpoint on
plain HTTP, 64 in flight. Each round: the daemon drains N events that appear by one commit; a bare
`ClientSession.post` loop makes N requests; the bare lean exchange makes N requests; a second daemon,
which logs warnings only, drains as many from a database of its own. Ours has every
feature on: egress guard, breaker, metrics, signing, one log line per attempt to a file, each
attempt recorded durably (`synchronous_commit = on`). Only ratios within a round count.

`--against COMMIT|FOLDER` compares with another version of this project instead, and `--unbounded` with
this version without a bound of unrecorded attempts; both together compare the other version with this
one without the bound, which shows what storage alone costs. Each round drains N events to one endpoint, and
N / 20 events to 20 endpoints, by one contender and then by the other. Besides the rate it counts what
a delivery costs: CPU of the daemon and of Postgres, WAL, disk and rows. Postgres makes neither
checkpoints nor automatic vacuums meanwhile; VACUUM runs after each turn, and counts by itself.

`--ordering` compares an endpoint whose `ordering` is `key`, with 1,000 keys, with one without an order.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import asyncpg
import orjson

from benchmarks.contenders import Contender, checkouts
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
    postgres_cpu,
    prepare_database,
    receiver,
    spread,
    wait_delivered,
    write_results,
)

IN_FLIGHT = 64
KEYS = 1_000
"""Ordering keys of a drain that compares by them."""
SETTINGS = {
    "DISPATCHER_DELIVERY__CONCURRENCY_PER_HOST": str(IN_FLIGHT),
    "DISPATCHER_DELIVERY__CONCURRENCY_PER_ENDPOINT": str(IN_FLIGHT),
}
IDLE_SECONDS = 20
TENANT = "bench"
"""Whose events a comparison delivers: a history may have endpoints for those of other tenants."""
WARM_DELIVERIES = 2_000
SHAPES = {"one endpoint": 1, "fan-out of 20": 20}
QUIET = {"autovacuum": "off", "checkpoint_timeout": "1d", "max_wal_size": "20GB"}
"""So that a turn does not pay for its predecessor."""
UNBOUNDED = "100000"
"""The highest value that the setting accepts; more than a drain has events."""
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


_STATEMENTS = """(SELECT sum(calls)::bigint FROM pg_stat_statements AS s JOIN pg_database AS d ON d.oid = s.dbid
WHERE d.datname = current_database() AND s.query NOT LIKE 'SET LOCAL %')"""
"""Every statement that Postgres was given, BEGIN, COMMIT and COPY included, except this one and the settings that
come with BEGIN."""


class Cpu(NamedTuple):
    """CPU seconds so far."""

    daemons: float
    postgres: dict[str, float]


class Counted(NamedTuple):
    """What Postgres has counted so far."""

    statements: int
    wal_bytes: int


async def _count(connection: "asyncpg.Connection[asyncpg.Record]") -> Counted:
    sql = f"SELECT {_STATEMENTS}, (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint"
    (row,) = await connection.fetch(sql)
    return Counted(*row)


async def _commit(
    url: str, events: int, tenant: str, keys: int, tenants: int, read: Callable[[], Cpu]
) -> tuple[Cpu, Counted]:
    """Commits events; returns the CPU and the counters before the commit.

    Inserting is the producer's work: only what comes after it counts.
    """
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        await insert_events(connection, events, tenant=tenant, keys=keys, tenants=tenants)
        await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        counted, cpu = await _count(connection), read()
    await connection.close()
    return cpu, counted._replace(statements=counted.statements + 2)  # this count, and COMMIT


async def _counted(url: str) -> Counted:
    connection = await asyncpg.connect(url)
    counted = await _count(connection)
    await connection.close()
    return counted


def drain(
    url: str,
    daemons: Sequence[Dispatcher],
    target: Receiver,
    postgres_id: int,
    events: int,
    fan_out: int = 1,
    tenant: str = "default",
    keys: int = 0,
    tenants: int = 0,
) -> Figures:
    """Commit events of `fan_out` deliveries each and return their rate and the costs of a delivery.

    `tenant`, `keys` and `tenants` are those of `insert_events`.
    """
    count = events * fan_out
    before = sum(daemon.delivered() for daemon in daemons)
    ids = [daemon.process.pid for daemon in daemons if daemon.process is not None]

    def read() -> Cpu:
        return Cpu(sum(map(cpu_seconds, ids)), postgres_cpu(postgres_id))

    first, counted = asyncio.run(_commit(url, events, tenant, keys, tenants, read))
    started = time.perf_counter()
    wait_delivered(daemons, target, before, count)
    elapsed = time.perf_counter() - started
    last = read()
    after = asyncio.run(_counted(url))
    all_us = (sum(last.postgres.values()) - sum(first.postgres.values())) / count * 1e6
    backends_us = (last.postgres["backends"] - first.postgres["backends"]) / count * 1e6
    return {
        "rate": count / elapsed,
        "cpu_us": (last.daemons - first.daemons) / count * 1e6,
        "postgres_us": all_us,
        "backends_us": backends_us,
        "background_us": all_us - backends_us,
        "wal_bytes": (after.wal_bytes - counted.wal_bytes) / count,
        "statements_per_delivery": (after.statements - counted.statements) / count,
    }


def _idle_statements_per_second(url: str) -> float:
    """Returns how many statements a second a daemon with nothing to do makes; looking is one of ours."""
    time.sleep(3)
    before = asyncio.run(_counted(url)).statements
    time.sleep(IDLE_SECONDS)
    return (asyncio.run(_counted(url)).statements - before - 1) / IDLE_SECONDS


async def save_endpoint(url: str, target: Receiver, name: str = "drain") -> None:
    """Saves the one endpoint, subscribed to everything."""
    connection = await asyncpg.connect(url)
    await add_endpoint(connection, name, target.url, concurrency=IN_FLIGHT)
    await connection.close()


def ratio(ours: list[Figures], theirs: list[Figures], key: str = "rate") -> list[float]:
    """Returns ours over theirs, round by round."""
    return [a[key] / b[key] for a, b in zip(ours, theirs, strict=True)]


def say(number: int, rounds: Mapping[str, list[Figures]]) -> None:
    """Prints the latest figures of each contender."""
    words = [
        f"{name} {f[-1]['rate']:,.0f}/s {f[-1]['cpu_us']:.0f} µs" for name, f in rounds.items()
    ]
    print(
        f"round {number}: {'  '.join(words)}  postgres {rounds['ours'][-1]['postgres_us']:.0f} µs"
    )


class Stored(NamedTuple):
    """What a database has stored so far."""

    inserted: Counter[str]
    updated: Counter[str]
    deleted: Counter[str]
    history_bytes: int


_ROWS = """SELECT regexp_replace(relname, '_[0-9]{8}$', '') AS name, n_tup_ins, n_tup_upd, n_tup_del
FROM pg_stat_user_tables WHERE schemaname = 'dispatcher'"""
_HISTORY_BYTES = """SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
WHERE relnamespace = 'dispatcher'::regnamespace AND relkind = 'r' AND relname ~ '_[0-9]{8}$'"""
_OTHERS = """SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"""


async def _stored(url: str) -> tuple[Stored, float]:
    """Vacuums; returns what is stored, and the CPU seconds of the vacuum.

    The daemon has stopped: its backends publish their last figures when they end.
    """
    connection = await asyncpg.connect(url)
    while await connection.fetchval(_OTHERS):
        await asyncio.sleep(0.05)
    sums: dict[str, Counter[str]] = {
        key: Counter() for key in ("n_tup_ins", "n_tup_upd", "n_tup_del")
    }
    for row in await connection.fetch(_ROWS):
        for key, counter in sums.items():
            counter[row["name"]] += row[key]
    history = await connection.fetchval(_HISTORY_BYTES)
    process_id = await connection.fetchval("SELECT pg_backend_pid()")
    before = cpu_seconds(process_id)
    await connection.execute("VACUUM (ANALYZE)")
    vacuum_seconds = cpu_seconds(process_id) - before
    await connection.close()
    return Stored(*sums.values(), history), vacuum_seconds


def subscribe(contender: Contender, target: Receiver, width: int) -> None:
    """Creates the endpoints through the contender's API."""
    with contender.running() as daemon:
        for one in range(width):
            daemon.create_endpoint(f"drain{one}", target.url, max(10, IN_FLIGHT // width), TENANT)


def turn(
    contender: Contender,
    target: Receiver,
    postgres_id: int,
    events: int,
    fan_out: int = 1,
    keys: int = 0,
) -> Figures:
    """Lets a contender drain events by itself; returns its rate, and what a delivery costs.

    Rows and bytes of the warm-up count as well, per delivery.
    """
    warm = max(1, min(events, WARM_DELIVERIES // fan_out))
    before, _ = asyncio.run(_stored(contender.url))
    with contender.running() as daemon:
        drain(contender.url, [daemon], target, postgres_id, warm, fan_out, TENANT, keys)
        figures = drain(contender.url, [daemon], target, postgres_id, events, fan_out, TENANT, keys)
    after, vacuum_seconds = asyncio.run(_stored(contender.url))
    count = (warm + events) * fan_out
    inserted = after.inserted - before.inserted
    del inserted["outbox"]  # the producer's row
    return {
        **figures,
        "vacuum_us": vacuum_seconds / count * 1e6,
        "disk_bytes": (after.history_bytes - before.history_bytes) / count,
        "rows_inserted": inserted.total() / count,
        "rows_updated": (after.updated - before.updated).total() / count,
        "rows_deleted": (after.deleted - before.deleted).total() / count,
    }


COSTS = {
    "rate": "deliveries/s",
    "cpu_us": "CPU of the daemon, µs",
    "postgres_us": "CPU of Postgres, µs",
    "backends_us": "  its backends, µs",
    "background_us": "  WAL writer, checkpointer, I/O workers, µs",
    "vacuum_us": "VACUUM afterwards, µs",
    "wal_bytes": "WAL, bytes",
    "disk_bytes": "history on disk with indexes, bytes",
    "rows_inserted": "rows inserted, without the producer's",
    "rows_updated": "rows updated",
    "rows_deleted": "rows deleted",
    "statements_per_delivery": "SQL statements",
}


def table(title: str, ours: tuple[str, list[Figures]], theirs: tuple[str, list[Figures]]) -> str:
    """Returns the figures of two contenders, a line for each: medians, and the ratio with its range."""
    lines = [
        f"| {title} | {theirs[0]} | {ours[0]} | ratio: median (range) |",
        "| --- | --- | --- | --- |",
    ]
    for key, what in COSTS.items():
        pair = [statistics.median(one[key] for one in rounds) for rounds in (theirs[1], ours[1])]
        form = ",.0f" if pair[0] > 100 else ".2f" if pair[0] >= 0.1 else ".4f"
        defined = all(one[key] for one in theirs[1])
        both = spread(ratio(ours[1], theirs[1], key)) if defined else "-"
        lines.append(f"| {what.strip()} | {pair[0]:{form}} | {pair[1]:{form}} | {both} |")
    return "\n".join(lines)


def compare(options: argparse.Namespace) -> None:
    """Runs the rounds of two contenders, and prints what a delivery costs each of them."""
    kind_of_run = "_".join(word for word in ("against", "unbounded") if getattr(options, word))
    itself = not options.against
    shapes = {"one endpoint": 1} if itself else SHAPES
    unbounded = {"DISPATCHER_RECORDER__UNRECORDED_MAX": UNBOUNDED} if options.unbounded else {}
    ours, other = ({}, unbounded) if itself else (unbounded, {})
    results: dict[str, dict[str, list[Figures]]] = {}
    with (
        checkouts([options.against]) as versions,
        postgres(**QUIET) as (server, _),
        receiver() as target,
        tempfile.TemporaryDirectory() as name,
    ):
        theirs = versions[-1]
        names = ("ours", "unbounded" if itself else theirs.name)
        contenders: dict[str, tuple[Contender, Contender]] = {}
        for shape, width in shapes.items():
            results[shape] = {one: [] for one in names}
            contenders[shape] = (
                Contender(f"ours_{width}", server, Path(name), **SETTINGS, **ours),
                Contender(f"theirs_{width}", server, Path(name), theirs, **SETTINGS, **other),
            )
            for one in contenders[shape]:
                subscribe(one, target, width)
        for number in range(1, options.rounds + 1):
            for shape, width in shapes.items():
                for kind, contender in zip(names, contenders[shape], strict=True):
                    figures = turn(
                        contender, target, server.process_id or 0, options.events // width, width
                    )
                    results[shape][kind].append(figures)
                say(number, results[shape])
    print(f"load average {os.getloadavg()[0]:.1f}\n")
    for shape, rounds in results.items():
        print(table(shape, (names[0], rounds[names[0]]), (names[1], rounds[names[1]])) + "\n")
    write_results(
        f"drain_{kind_of_run}",
        {"receiver": target.kind, "events": options.events, "against": names[1], "rounds": results},
        options.json,
        _bound_goals(results) if itself else _cost_goals(results, names[1]),
    )


def _bound_goals(results: Mapping[str, Mapping[str, list[Figures]]]) -> list[Goal]:
    rounds = results["one endpoint"]
    what = "deliveries/s with the bound of unrecorded attempts, over without"
    return [Goal(1, what, 0.97, ratio(rounds["ours"], rounds["unbounded"]))]


def _cost_goals(results: Mapping[str, Mapping[str, list[Figures]]], theirs: str) -> list[Goal]:
    one, fanned_out = (results[shape]["ours"] for shape in SHAPES)
    rates = ratio(one, results["one endpoint"][theirs])

    def at_most(what: str, aim: float, key: str, rounds: list[Figures] = one) -> Goal:
        return Goal(2, what, aim, [figures[key] for figures in rounds], at_least=False)

    return [
        Goal(1, f"deliveries/s over {theirs}", 1.0, rates),
        at_most("CPU of Postgres, µs per delivery", 15, "postgres_us"),
        at_most("CPU of the daemon, µs per delivery", 33, "cpu_us"),
        at_most("WAL, bytes per delivery", 2_300, "wal_bytes"),
        at_most("history on disk, bytes per delivery", 1_150, "disk_bytes"),
        at_most("rows inserted per delivery", 3.1, "rows_inserted"),
        at_most("rows inserted per delivery, fan-out of 20", 2.1, "rows_inserted", fanned_out),
    ]


async def _order(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE dispatcher.endpoint SET ordering = 'key'")
    await connection.close()


def compare_ordering(options: argparse.Namespace) -> None:
    """Drains the same events, with `KEYS` ordering keys, to an endpoint with an order and to one without."""
    rounds: dict[str, list[Figures]] = {"ours": [], "none": []}
    with (
        postgres(**QUIET) as (server, _),
        receiver() as target,
        tempfile.TemporaryDirectory() as name,
    ):
        contenders = {one: Contender(one, server, Path(name), **SETTINGS) for one in rounds}
        for one in contenders.values():
            subscribe(one, target, 1)
        asyncio.run(_order(contenders["ours"].url))
        for number in range(1, options.rounds + 1):
            for kind, one in contenders.items():
                figures = turn(one, target, server.process_id or 0, options.events, keys=KEYS)
                rounds[kind].append(figures)
            say(number, rounds)
    print(f"load average {os.getloadavg()[0]:.1f}\n")
    print(table("one endpoint", ("key", rounds["ours"]), ("none", rounds["none"])) + "\n")
    write_results(
        "drain_ordering",
        {"receiver": target.kind, "events": options.events, "keys": KEYS, "rounds": rounds},
        options.json,
        [Goal(1, "deliveries/s by key over none", 0.8, ratio(rounds["ours"], rounds["none"]))],
    )


def main() -> None:
    """Runs the rounds and prints the ratios."""
    options = arguments(
        "drain",
        __doc__,
        short={"events": 15_000, "rounds": 5},
        full={"events": 30_000, "rounds": 9},
        against=True,
        flags={
            "unbounded": "compare with this version without `recorder.unrecorded_max`",
            "ordering": "compare `ordering = key`, with 1,000 keys, with `none`",
        },
    )
    if options.ordering:
        compare_ordering(options)
        return
    if options.against or options.unbounded:
        compare(options)
        return
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
