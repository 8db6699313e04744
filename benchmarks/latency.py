"""Goal 3: from an event to its request at the receiver, through SQL and through the API, alone and next to busy loops.

`python -m benchmarks latency [--short] [--rate N] [--seconds N] [--rounds N] [--neighbours N]
[--against COMMIT|FOLDER] [--json PATH]`. Each round measures at a steady rate, with a new daemon for each half:

* on the machine as it is: `sql`, one event per transaction, from its commit; `api`, one event per `POST /api/v1/events`
  on an open connection, from just before the request; `half`, through SQL with ten events per transaction at half of
  the rate at which this daemon has just drained a backlog;
* `sql` and `api` again next to busy loops (`--neighbours`, two unless given, one per processor, at the normal
  priority; 0 leaves this half out). They have figures and no goals.

All times end when the receiver has the complete request. Next to them stands what the producer waited for: its INSERT
and COMMIT, which are before the time through SQL, or the response of the API, while the event is being delivered.

With `--against`, another version of this project, which has its own database, is measured in turn with this one, and
the results are written to `latency_against.json`.

Each figure has the load average and the number of processors that were busy. The load average is that of the last
minute, so it also contains the busy loops of the round before; the busy processors are those of the measured seconds,
with everything that ran. The producer and the receiver share the processors with the busy loops as well, so their own
wait for a processor is part of the time.
"""

import asyncio
import http.client
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.contenders import Contender, checkouts
from benchmarks.harness import (
    BODY_DATA,
    TICKS_PER_SECOND,
    Dispatcher,
    Goal,
    arguments,
    insert_events,
    postgres,
    spread,
    wait_for,
    write_results,
)
from benchmarks.neighbours import neighbours
from benchmarks.publish import SETTINGS
from benchmarks.steady import arrivals, percentiles, produce, publish

DRAINED = 5_000
TOGETHER = 10
WARM_SECONDS = 1
PAUSES_SECONDS = 2.0
BESIDE = "_neighbours"
"""The end of the name of a case that runs next to busy loops."""
CASES = {"sql": "{rate}/s, SQL", "api": "{rate}/s, API", "half": "half of its own drain rate"}
GOALS = (
    ("sql", "p50_ms", 1.2),
    ("sql", "p99_ms", 3.0),
    ("api", "p50_ms", 1.6),
    ("api", "p99_ms", 4.0),
    ("half", "p99_ms", 20.0),
)
Figures = dict[str, float]
Rounds = Mapping[str, Mapping[str, Sequence[Figures]]]
"""The figures of each round, by contender and case."""


async def half_rate(url: str, daemon: Dispatcher, event_type: str) -> float:
    """Returns half of the rate at which the daemon drains events of this type."""
    connection = await asyncpg.connect(url)
    before = daemon.delivered()
    await insert_events(connection, DRAINED, event_type)
    await connection.close()
    started = time.perf_counter()
    wait_for(lambda: daemon.delivered() - before >= DRAINED, 120)
    return DRAINED / (time.perf_counter() - started) / 2


def loopback_ms(port: int) -> float:
    """Returns the median time of one POST over an open connection, in milliseconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    times = []
    for _ in range(200):
        started = time.perf_counter()
        connection.request("POST", "/", body=BODY_DATA)
        connection.getresponse().read()
        times.append((time.perf_counter() - started) * 1000)
    connection.close()
    return statistics.median(times)


def pauses_ms() -> list[float]:
    """Returns how much longer than a millisecond each sleep of a millisecond took, the shortest first.

    An idle process wakes up some 0.1 ms late. What is more are pauses that the machine makes, which every process on
    the way of an event meets as well.
    """
    found = []
    end = time.perf_counter() + PAUSES_SECONDS
    while (began := time.perf_counter()) < end:
        time.sleep(0.001)
        found.append((time.perf_counter() - began - 0.001) * 1000)
    return sorted(found)


def _busy_seconds() -> float:
    """Returns how long all processors together were busy since the start, also for other virtual machines."""
    fields = Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    user, nice, system, _, _, interrupts, soft_interrupts, stolen = map(int, fields)
    return (user + nice + system + interrupts + soft_interrupts + stolen) / TICKS_PER_SECOND


def measure(
    contender: Contender, number: int, rate: int, seconds: int, loops: int
) -> dict[str, Figures]:
    """Returns the figures of each case, from one daemon, next to so many busy loops."""
    url, event_type = contender.url, f"latency.r{number}n{loops}"
    events: dict[str, dict[str, float]] = {}
    figures: dict[str, Figures] = {}
    with ExitStack() as stack:
        port, arrived = stack.enter_context(arrivals())
        post_ms, pauses = loopback_ms(port), pauses_ms()
        daemon = stack.enter_context(contender.running())
        target = f"http://127.0.0.1:{port}/hook"
        daemon.create_endpoint(event_type, target, 64, "default", types=[event_type])

        def run(
            case: str, produced: Callable[[list[float]], Coroutine[None, None, dict[str, float]]]
        ) -> None:
            took: list[float] = []
            busy, began, before = _busy_seconds(), time.monotonic(), daemon.delivered()
            events[case] = asyncio.run(produced(took))
            lasted = time.monotonic() - began
            figures[case] = {
                "producer_p50_ms": statistics.median(took) * 1000,
                "events_per_second": len(events[case]) / lasted,
                "processors_busy": (_busy_seconds() - busy) / lasted,
                "load_average": os.getloadavg()[0],
            }
            wait_for(lambda: daemon.delivered() - before >= len(events[case]), 60, every=0.2)

        def through_sql(rate: float, seconds: int, together: int = 1) -> Callable[..., Any]:
            return lambda took: produce(
                url, rate, seconds, event_type, together=together, took=took
            )

        def through_api(seconds: int) -> Callable[..., Any]:
            return lambda took: publish(daemon.port, rate, seconds, event_type, took=took)

        run("warm", through_sql(rate, WARM_SECONDS))
        run("warm", through_api(WARM_SECONDS))
        suffix = BESIDE if loops else ""
        with neighbours(loops):
            run("sql" + suffix, through_sql(rate, seconds))
            run("api" + suffix, through_api(seconds))
        if not loops:
            half = asyncio.run(half_rate(url, daemon, event_type))
            run("half", through_sql(half, seconds, TOGETHER))
    del figures["warm"]
    return {
        case: {
            **percentiles(events[case], arrived),
            "loopback_post_ms": post_ms,
            "pause_p99_ms": pauses[int(len(pauses) * 0.99)],
            "pause_max_ms": pauses[-1],
            **others,
        }
        for case, others in figures.items()
    }


def table(document: Mapping[str, Any]) -> list[str]:
    """Returns the lines of a Markdown table of a run's cases, with the ratio to the other version if it has one."""
    rounds: Rounds = document["rounds"]
    others = [name for name in rounds if name != "ours"]
    lines = [
        "| events | busy loops | version | p50, ms | p99, ms | producer waits, p50, ms | load | busy processors |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for case, ours in rounds["ours"].items():
        what = CASES[case.removesuffix(BESIDE)].format(rate=document["rate"])
        start = f"| {what} | {document['neighbours'] if case.endswith(BESIDE) else 0} |"
        for name in [*others, "ours"]:
            columns = (
                spread([one[key] for one in rounds[name][case]]) if key in ours[0] else ""
                for key in (
                    "p50_ms",
                    "p99_ms",
                    "producer_p50_ms",
                    "load_average",
                    "processors_busy",
                )
            )
            lines.append(f"{start} {name} | {' | '.join(columns)} |")
        for name in others:
            pairs = list(zip(ours, rounds[name][case], strict=True))
            p50, p99 = (
                spread([mine[key] / theirs[key] for mine, theirs in pairs])
                for key in ("p50_ms", "p99_ms")
            )
            lines.append(f"{start} ours over {name} | {p50} | {p99} | | | |")
    return lines


def main() -> None:
    """Runs the rounds and prints the percentiles."""
    options = arguments(
        "latency",
        __doc__,
        short={"rate": 200, "seconds": 5, "rounds": 3, "neighbours": 2},
        full={"rate": 200, "seconds": 10, "rounds": 9, "neighbours": 2},
        against=True,
    )
    rounds: dict[str, dict[str, list[Figures]]] = {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server, _ = stack.enter_context(postgres())
        contenders = [
            Contender(one.name, server, directory, one, **SETTINGS)
            for one in stack.enter_context(checkouts([options.against]))
        ]
        for number in range(options.rounds):
            for loops in dict.fromkeys((0, options.neighbours)):
                for contender in contenders:
                    found = measure(contender, number, options.rate, options.seconds, loops)
                    for case, figures in found.items():
                        rounds.setdefault(contender.name, {}).setdefault(case, []).append(figures)
                        words = "  ".join(f"{key} {value:,.2f}" for key, value in figures.items())
                        print(f"round {number + 1}, {contender.name}, {case}: {words}", flush=True)
    ours = rounds["ours"]
    document = {
        "rate": options.rate,
        "seconds": options.seconds,
        "neighbours": options.neighbours,
        "rounds": rounds,
    }
    print("\n".join(table(document)))
    multiples = [one["p50_ms"] / one["loopback_post_ms"] for one in ours["sql"]]
    print(f"  SQL, p50 as a multiple of one loopback POST: {spread(multiples)}")
    goals = [
        Goal(
            3,
            f"{CASES[case].format(rate=options.rate)}: {key.replace('_', ' ')}",
            aim,
            [one[key] for one in ours[case]],
            at_least=False,
        )
        for case, key, aim in GOALS
    ]
    name = "latency_against" if options.against else "latency"
    write_results(name, document, options.json, goals)


if __name__ == "__main__":
    main()
