"""How a deployment scales: replicas, endpoints, and a history of up to 100 million deliveries.

`python -m benchmarks scaling [--short] [--deliveries N] [--endpoints N] [--rows N] [--simulated N] [--rounds N]
[--json PATH] [--report]`. `--report` measures nothing, and writes the tables of `docs/explanation/scaling.md` and the
plot from the results that are there. Each round measures all sizes of one kind in turn, so that the ratios hold
within a round.

*Replicas*: 1, 2 and 4 drain the same events to twenty endpoints, as in `replicas`. They are not pinned.

*Endpoints*: 10, 100, 1,000 and 20,000, each with a tenant of its own and subscribed to every event. The events belong
to ten of the tenants, in turn, so that the other endpoints only exist. At last, the events belong to all of the tenants
in turn: each endpoint has connections of its own, so nearly every delivery opens one. Before the drain that is
measured, each of these endpoints has had an event. All endpoints have one receiver, and so one limit of requests in
flight to it. The event of the first request is committed before the daemon starts.

*History*: none, a tenth of `--rows`, and `--rows` deliveries over 30 days, with their events and attempts, and 100
million simulated ones. For those, three things have the size that they would have with 100 million:

* The planner. 28 days have a hundredth of their rows, and the catalogue states the full number. The plans of the hot
  path and of pages are compared with the plans before that; they must be the same.
* The indexes. Today and yesterday really have all their rows, so that a drain inserts into indexes of the real
  height.
* The cache. `shared_buffers` has the same share of the history as 128 MB, the default of PostgreSQL, has of 100
  million rows.

This shows whether a statement reads more for a longer history, and what higher indexes and a small cache cost. It
does not show the latency of a disk, because the operating system's cache has all blocks that `shared_buffers` does
not. To estimate that, multiply the blocks that are read per delivery by the time of a read. It does not show VACUUM,
backups, or the disk usage of 100 million rows. The planner takes the number of pages from the files, so pages have
their real number. A drain writes as many rows as ever, while the cache is a fraction, so the rate is lower than
with a real history of that size. An empty history with the same small cache shows how much of that the cache causes.
"""

import argparse
import asyncio
import os
import re
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
import orjson

from benchmarks import endpoints, history, replicas
from benchmarks.contenders import Contender
from benchmarks.drain import SETTINGS, TENANT, WARM_DELIVERIES, Figures, drain, ratio, subscribe
from benchmarks.growth import page_seconds
from benchmarks.harness import (
    ROOT,
    Dispatcher,
    Goal,
    Receiver,
    arguments,
    pin,
    postgres,
    prepare_database,
    receiver,
    spread,
    write_results,
)
from benchmarks.plots import RESULTS, curves

REPLICAS: Final = (1, 2, 4)
ENDPOINTS: Final = (10, 100, 1_000)
"""And the number of `--endpoints`."""
USED_ENDPOINTS: Final = 10
ALL_IN_TURN: Final = "all in turn"
MEMORY_ENDPOINTS_MIN: Final = 1_000
"""With fewer endpoints, their memory is less than that of the daemon varies."""
REAL_DAYS: Final = 2
THINNED: Final = 100
"""The other days of the simulated history have one row of so many."""
STOCK_CACHE_KB: Final = 128 * 1024
CACHE_KB_MIN: Final = 2 * 1024
"""Fewer blocks than this may not be enough for the statements that run at the same time."""
PAGE: Final = ROOT / "docs" / "explanation" / "scaling.md"
MARKED: Final = re.compile(r"(<!-- curve: begin -->\n).*(<!-- curve: end -->)", re.DOTALL)
SIMULATED: Final = "simulated"
SMALL: Final = "none, small cache"
RATE: Final = "deliveries per second"
HISTORY: Final = "deliveries in the history"

Rounds = dict[str, list[Figures]]


def measure_replicas(options: argparse.Namespace) -> Rounds:
    """Drain the same events by one, two and four replicas in turn."""
    rounds: Rounds = {str(count): [] for count in REPLICAS}
    with postgres() as (server, url), receiver() as target, tempfile.TemporaryDirectory() as name:
        asyncio.run(replicas.prepare(url, target.url))
        for number in range(1, options.rounds + 1):
            for count in REPLICAS:
                figures = replicas.drain_by(
                    count, url, Path(name), target, server.process_id or 0, options.deliveries
                )
                rounds[str(count)].append(figures)
            _print_round("replicas", number, rounds)
    return rounds


def measure_endpoints(options: argparse.Namespace) -> Rounds:
    """Start a daemon with each number of endpoints in turn, and drain events of which each goes to one endpoint."""
    counts = sorted({*(n for n in ENDPOINTS if n < options.endpoints), options.endpoints})
    rounds: Rounds = {str(count): [] for count in counts} | {ALL_IN_TURN: []}
    with postgres() as (server, _), receiver() as target, tempfile.TemporaryDirectory() as name:
        urls = {}
        for count in counts:
            urls[count] = asyncio.run(prepare_database(server, f"endpoints{count}"))
            asyncio.run(endpoints.fill(urls[count], target.url, count, types=["*"], tenant=TENANT))
        for number in range(1, options.rounds + 1):
            for size in rounds:
                count = options.endpoints if size == ALL_IN_TURN else int(size)
                used_count = count if size == ALL_IN_TURN else USED_ENDPOINTS
                given = urls[count], used_count, Path(name), target, server.process_id or 0
                rounds[size].append(_endpoints_turn(*given, options.deliveries))
            _print_round("endpoints", number, rounds)
    return rounds


def _endpoints_turn(
    url: str, used_count: int, directory: Path, target: Receiver, postgres_id: int, deliveries: int
) -> Figures:
    async def publish() -> str:
        connection = await asyncpg.connect(url)
        event_id = await endpoints.publish_event(connection, "order.created", f"{TENANT}-0")
        await connection.close()
        return event_id

    async def attempted_at(event_id: str) -> float:
        connection = await asyncpg.connect(url)
        at = await endpoints.attempted_at(connection, event_id)
        await connection.close()
        return at

    event_id = asyncio.run(publish())
    daemon = Dispatcher(url, directory, **SETTINGS)
    began = time.time()
    process_id = daemon.start()
    try:
        first = asyncio.run(attempted_at(event_id)) - began
        memory_kb = endpoints.settled_kb(process_id)
        given = url, [daemon], target, postgres_id
        warm = max(used_count, min(deliveries, WARM_DELIVERIES))
        drain(*given, warm, tenant=TENANT, tenants=used_count)
        figures = drain(*given, deliveries, tenant=TENANT, tenants=used_count)
    finally:
        daemon.stop()
    return {**figures, "first_request_seconds": first, "memory_kb": memory_kb}


def measure_history(options: argparse.Namespace) -> tuple[Rounds, dict[str, Any]]:
    """Drain events over each history in turn, and read the first page of deliveries."""
    days = history.days_of(datetime.now(UTC))
    rows_a_day = options.simulated // len(days)
    thin = dict.fromkeys(days[:-REAL_DAYS], rows_a_day // THINNED)
    simulated = thin | dict.fromkeys(days[-REAL_DAYS:], rows_a_day)
    share = sum(simulated.values()) / options.simulated
    cache_kb = max(CACHE_KB_MIN, round(STOCK_CACHE_KB * share))
    settings = {"checkpoint_timeout": "1d"}
    with (
        postgres(cpu=None, shared_buffers=f"{STOCK_CACHE_KB}kB", **settings) as (stock, _),
        postgres(cpu=None, shared_buffers=f"{cache_kb}kB", **settings) as (small, _),
        receiver() as target,
        tempfile.TemporaryDirectory() as name,
    ):
        sizes = (0, options.rows // 10, options.rows)
        contenders = {
            str(rows): Contender(f"history{rows}", stock, Path(name), **SETTINGS) for rows in sizes
        }
        contenders[SMALL] = Contender("small_cache", small, Path(name), **SETTINGS)
        contenders[SIMULATED] = Contender(SIMULATED, small, Path(name), **SETTINGS)
        began = time.monotonic()
        # The servers are not pinned yet: each fills its databases on a processor of its own.
        with ThreadPoolExecutor() as pool:
            futures = [
                pool.submit(_fill_in_turn, {contenders[str(n)].url: _even(days, n) for n in sizes if n}),
                pool.submit(_fill_in_turn, {contenders[SIMULATED].url: simulated}),
            ]  # fmt: skip
        filled = [count for future in futures for count in future.result()]
        print(f"history: {filled} deliveries in {time.monotonic() - began:.0f} s", flush=True)
        changed = asyncio.run(
            _enlarge(contenders[SIMULATED].url, days, dict.fromkeys(thin, THINNED))
        )
        for server in (stock, small):
            pin(server)
        rounds: Rounds = {name: [] for name in contenders}
        for contender in contenders.values():
            subscribe(contender, target, 1)
        for number in range(1, options.rounds + 1):
            for kind, contender in contenders.items():
                server = small if kind in {SMALL, SIMULATED} else stock
                rounds[kind].append(
                    _history_turn(contender, target, server.process_id or 0, options.deliveries)
                )
            _print_round("history", number, rounds)
        levels = {
            name: asyncio.run(history.index_levels(contender.url, days[-1]))
            for name, contender in contenders.items()
        }
    return rounds, {
        "simulated_rows": options.simulated,
        "simulated_rows_there": filled[-1],
        "shared_buffers_kb": {"stock": STOCK_CACHE_KB, SIMULATED: cache_kb},
        "plans_changed": changed,
        "index_levels": levels,
    }


def _even(days: Sequence[date], rows: int) -> dict[date, int]:
    return dict.fromkeys(days, -(-rows // len(days)))


def _fill_in_turn(databases: Mapping[str, Mapping[date, int]]) -> list[int]:
    return [asyncio.run(history.fill(url, rows)) for url, rows in databases.items()]


async def _enlarge(url: str, days: Sequence[date], factors: Mapping[date, float]) -> list[str]:
    """Make the planner assume the full history, and return the names of the plans that this changes."""
    before = await history.plans(url, days)
    await history.enlarge(url, factors)
    after = await history.plans(url, days)
    changed = [name for name, plan in before.items() if after[name] != plan]
    print(f"plans: {len(before)}, changed by the size: {', '.join(changed) or 'none'}", flush=True)
    return changed


def _history_turn(
    contender: Contender, target: Receiver, postgres_id: int, deliveries: int
) -> Figures:
    with contender.running() as daemon:
        given = contender.url, [daemon], target, postgres_id
        drain(*given, min(deliveries, WARM_DELIVERIES), tenant=TENANT)
        before = asyncio.run(history.blocks_read(contender.url))
        figures = drain(*given, deliveries, tenant=TENANT)
        blocks = asyncio.run(history.blocks_read(contender.url)) - before
        page_seconds(daemon)
        page_ms = page_seconds(daemon) * 1000
    return {**figures, "blocks_read": blocks / deliveries, "page_ms": page_ms}


def _print_round(kind: str, number: int, rounds: Rounds) -> None:
    rates = "  ".join(f"{size}: {one[-1]['rate']:,.0f}/s" for size, one in rounds.items())
    print(f"{time.strftime('%H:%M:%S')} {kind}, round {number}: {rates}", flush=True)


# --- the page ---


def tables(document: Mapping[str, Any]) -> str:
    """Return the Markdown of the page's curve, for these results."""
    rounds, facts = document["rounds"], document["history"]
    rows = [
        f"| replicas | {RATE} | relative to one |",
        "| --- | --- | --- |",
        *(f"| {int(size)} | {_rate(one)} | {_relative(rounds['replicas'], size)} |"
          for size, one in rounds["replicas"].items()),
        "",
        f"| endpoints | {RATE} | relative to ten | start to the first request, s | memory, MiB | KB per endpoint |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    most = max(int(size) for size in rounds["endpoints"] if size != ALL_IN_TURN)
    for size, one in rounds["endpoints"].items():
        first = statistics.median(f["first_request_seconds"] for f in one)
        memory = statistics.median(f["memory_kb"] for f in one) / 1024
        what = f"all {most:,} in turn" if size == ALL_IN_TURN else f"{int(size):,}"
        rows.append(
            f"| {what} | {_rate(one)} | {_relative(rounds['endpoints'], size)} | {first:.2f} | {memory:.0f}"
            f" | {_endpoint_kb(rounds['endpoints'], size)} |"
        )
    rows += [
        "",
        f"| {HISTORY} | {RATE} | relative to none | page, ms | blocks read per delivery | levels of the indexes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for size, one in rounds["history"].items():
        page_ms = statistics.median(f["page_ms"] for f in one)
        blocks = statistics.median(f["blocks_read"] for f in one)
        rows.append(
            f"| {_history_size(size, facts)} | {_rate(one)} | {_relative(rounds['history'], size)} | {page_ms:.1f}"
            f" | {blocks:.3f} | {facts['index_levels'][size]} |"
        )
    machine = document["machine"]
    changed = facts["plans_changed"]
    cache_kb = facts["shared_buffers_kb"]
    over_small = spread(ratio(rounds["history"][SIMULATED], rounds["history"][SMALL]))
    turns = len(next(iter(rounds["history"].values())))
    rows += [
        "",
        (
            f"In the simulated history, {facts['simulated_rows_there']:,} deliveries exist, the planner assumes"
            f" {facts['simulated_rows']:,}, and `shared_buffers` is {cache_kb[SIMULATED] / 1024:.1f} instead of"
            f" {cache_kb['stock'] / 1024:.0f} MB. Relative to no history with the same cache, the rate is {over_small}."
            f" Plans that the size changed: {', '.join(changed) or 'none'}."
        ),
        "",
        (
            f"Machine: {machine['processors']} processors, Python {machine['python']};"
            f" {turns} {'round' if turns == 1 else 'rounds'} of {document['deliveries']:,} deliveries;"
            f" commit {document['commit']}; load average at the end {document['load_average']:.1f}."
        ),
        "",
    ]
    if turns == 1:
        rows[-1:] = [
            "",
            "One round only shows that the measurement works. Do not rely on these figures.",
            "",
        ]
    return "\n".join(rows)


def _history_size(size: str, facts: Mapping[str, Any]) -> str:
    if size == SMALL:
        return "0, with the cache of the simulation"
    return f"{facts['simulated_rows']:,}, simulated" if size == SIMULATED else f"{int(size):,}"


def _rate(figures: Sequence[Mapping[str, float]]) -> str:
    return f"{statistics.median(one['rate'] for one in figures):,.0f}"


def _relative(rounds: Mapping[str, list[Figures]], size: str) -> str:
    first = next(iter(rounds))
    return "1" if size == first else spread(ratio(rounds[size], rounds[first]))


def _endpoint_kb(rounds: Mapping[str, list[Figures]], size: str) -> str:
    """Return the memory of each endpoint, the median; a hyphen if there are too few to see it."""
    if size == ALL_IN_TURN or int(size) < MEMORY_ENDPOINTS_MIN:
        return "-"
    first = next(iter(rounds))
    more = [
        one["memory_kb"] - few["memory_kb"]
        for one, few in zip(rounds[size], rounds[first], strict=True)
    ]
    return f"{statistics.median(more) / (int(size) - int(first)):.1f}"


def plot(document: Mapping[str, Any]) -> str:
    """Return the SVG of the curve: the drain rate of each size, relative to the smallest."""
    panels = {}
    for kind, rounds in document["rounds"].items():
        first = next(iter(rounds))
        panels[f"{HISTORY} (* simulated)" if kind == "history" else kind] = [
            (_short(size, document["history"]), sorted(ratio(one, rounds[first])))
            for size, one in rounds.items()
            if size not in {SMALL, ALL_IN_TURN}
        ]
    return curves("Drain rate relative to the smallest size: median and range", panels)


def _short(size: str, facts: Mapping[str, Any]) -> str:
    number = facts["simulated_rows"] if size == SIMULATED else int(size)
    text = (
        f"{number // 10**6}M"
        if number >= 10**6
        else f"{number // 1000}k"
        if number >= 1000
        else str(number)
    )
    return f"{text}*" if size == SIMULATED else text


def report() -> None:
    """Write the tables of the page and the plot from the results that are there."""
    document = orjson.loads((RESULTS / "scaling.json").read_bytes())
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(MARKED.sub(lambda m: m[1] + tables(document) + m[2], text), encoding="utf-8")
    (RESULTS / "scaling.svg").write_text(plot(document), encoding="utf-8")
    print(f"written: {PAGE}, {RESULTS / 'scaling.svg'}")


def main() -> None:
    """Measure all sizes and print the goals, or write the report."""
    options = arguments(
        "scaling",
        __doc__,
        short={"deliveries": 20_000, "endpoints": 20_000, "rows": 10_000_000, "simulated": 100_000_000, "rounds": 3},
        full={"deliveries": 40_000, "endpoints": 20_000, "rows": 10_000_000, "simulated": 100_000_000, "rounds": 5},
        flags={"report": "measure nothing; write the tables and the plot from the results that are there"},
    )  # fmt: skip
    if options.report:
        report()
        return
    by_replicas = measure_replicas(options)
    by_endpoints = measure_endpoints(options)
    by_history, facts = measure_history(options)
    none, most = by_history["0"], str(options.rows)
    ten, many = next(iter(by_endpoints)), str(options.endpoints)
    goals = [
        Goal(9, f"drain over {options.rows:,} old deliveries, over none", 0.9, ratio(by_history[most], none)),
        Goal(9, f"drain over {options.simulated:,} simulated, over none", 0.9, ratio(by_history[SIMULATED], none)),
        Goal(9, f"drain over {options.simulated:,} simulated, over none with the same cache", 0.9,
             ratio(by_history[SIMULATED], by_history[SMALL])),
        Goal(9, "first page of deliveries over the same without history, simulated", 2,
             ratio(by_history[SIMULATED], none, "page_ms"), at_least=False),
        Goal(9, "plans that the simulated size changes", 0, [len(facts["plans_changed"])], at_least=False),
        Goal(10, "two replicas over one", 1.0, ratio(by_replicas["2"], by_replicas["1"])),
        Goal(10, "four replicas over one", 1.0, ratio(by_replicas["4"], by_replicas["1"])),
        Goal(11, f"drain to ten of {options.endpoints:,} endpoints, over ten", 0.9,
             ratio(by_endpoints[many], by_endpoints[ten])),
        Goal(11, "seconds to the first request", 5.0,
             [one["first_request_seconds"] for one in by_endpoints[many]], at_least=False),
    ]  # fmt: skip
    print(f"load average {os.getloadavg()[0]:.1f}")
    write_results(
        "scaling",
        {
            "deliveries": options.deliveries,
            "rounds": {"replicas": by_replicas, "endpoints": by_endpoints, "history": by_history},
            "history": facts,
        },
        options.json,
        goals,
    )


if __name__ == "__main__":
    main()
