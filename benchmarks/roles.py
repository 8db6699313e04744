"""Deliveries next to a saturated API: in one process, and with a process of their own.

`python -m benchmarks roles [--short] [--seconds N] [--rounds N] [--json PATH]`. A producer commits 50 events per second
with SQL, and the time from each commit to the request at the receiver is measured. In each round, in turn: `quiet`, a
process with `--role delivery` and one with `--role api` that gets no requests; `split`, the same two while 16
connections ask the API for lists of deliveries as fast as it responds; `together`, one process with `--role all` under
the same requests. No process is pinned, and all share the machine with the producer, the receiver and the clients.
"""

import asyncio
import os
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import uvloop

from benchmarks.harness import (
    TOKEN,
    Dispatcher,
    Goal,
    arguments,
    postgres,
    spread,
    wait_for,
    write_results,
)
from benchmarks.latency import arrivals, percentiles
from benchmarks.rates import TENANT, WARM_EVENTS, produce

EVENTS_PER_SECOND = 50
CONNECTIONS = 16
CASES = {"quiet": False, "split": True, "together": True}
"""Whether the API is saturated meanwhile."""
GOAL = 1.5
_REQUEST = (
    f"GET /api/v1/deliveries?limit=50 HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
).encode()
_UNLIMITED = {"DISPATCHER_HTTP__REQUESTS_PER_SECOND": "100000"}


class Load:
    """Clients that ask for a list again and again, on a thread of their own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ends = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()))
        self.requests_count = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(self._one())

    async def _one(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while not self._ends.is_set():
            writer.write(_REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(
                int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            )
            if head[9:12] != b"200":
                raise SystemExit(f"not answered: {head!r}")
            self.requests_count += 1
        writer.close()


def _measure(case: str, number: int, url: str, directory: Path, seconds: float) -> dict[str, float]:
    """Return the percentiles of one case, and the requests per second that the API has answered."""
    with ExitStack() as stack:
        port, arrived = stack.enter_context(arrivals())
        roles = ["all"] if case == "together" else ["delivery", "api"]
        daemons = [
            Dispatcher(
                url, directory, cpu=None, arguments=("--role", role),
                DISPATCHER_REPLICA__NAME=role, **_UNLIMITED,
            )
            for role in roles
        ]  # fmt: skip
        for daemon in daemons:
            daemon.start()
            stack.callback(daemon.stop)
        api, delivering = daemons[-1], daemons[0]
        api.create_endpoint(f"{case}{number}", f"http://127.0.0.1:{port}/hook", 64, TENANT)
        kind = f"roles.{case}{number}"
        asyncio.run(produce(url, 200, WARM_EVENTS, kind))
        wait_for(lambda: delivering.delivered() >= WARM_EVENTS, 60)
        count = int(EVENTS_PER_SECOND * seconds)
        requests_per_second = 0.0
        if CASES[case]:
            with Load(api.port) as load:
                began, before = time.monotonic(), load.requests_count
                committed, _ = asyncio.run(produce(url, EVENTS_PER_SECOND, count, kind))
                requests_per_second = (load.requests_count - before) / (time.monotonic() - began)
        else:
            committed, _ = asyncio.run(produce(url, EVENTS_PER_SECOND, count, kind))
        wait_for(lambda: delivering.delivered() >= WARM_EVENTS + count, 60)
    return {**percentiles(committed, arrived), "requests_per_second": requests_per_second}


def main() -> None:
    """Run the rounds and print the percentiles of each case."""
    options = arguments(
        "roles", __doc__, short={"seconds": 6, "rounds": 3}, full={"seconds": 20, "rounds": 5}
    )
    rounds: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
    with postgres() as (_, url), tempfile.TemporaryDirectory() as name:
        for number in range(options.rounds):
            for case in CASES:
                figures = _measure(case, number, url, Path(name), options.seconds)
                rounds[case].append(figures)
                words = "  ".join(f"{key} {value:,.2f}" for key, value in figures.items())
                print(
                    f"round {number + 1}, {case}: {words}  load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )
    for case, found in rounds.items():
        print(
            f"  {case:<9} p50 ms {spread([one['p50_ms'] for one in found])}"
            f"  p99 ms {spread([one['p99_ms'] for one in found])}"
            f"  requests/s {spread([one['requests_per_second'] for one in found])}"
        )

    def over(case: str) -> list[float]:
        pairs = zip(rounds[case], rounds["quiet"], strict=True)
        return [one["p99_ms"] / quiet["p99_ms"] for one, quiet in pairs]

    print(f"  together over quiet, p99: {spread(over('together'))}")
    goals = [
        Goal(
            16,
            "split roles, API saturated: p99 over a quiet API",
            GOAL,
            over("split"),
            at_least=False,
        )
    ]
    write_results("roles", {"rounds": rounds}, options.json, goals)


if __name__ == "__main__":
    main()
