"""Deliveries next to a saturated API: in one process, and with a process of their own.

`python -m benchmarks roles [--short] [--seconds N] [--rounds N] [--against COMMIT|FOLDER] [--json PATH]`. A producer
commits 50 events per second with SQL, and the time from each commit to the request at the receiver is measured. In each
round, in turn: `quiet`, a process with `--role delivery` and one with `--role api` that gets no requests; `split`, the
same two while 16 connections request lists of deliveries as fast as the API responds; `together`, one process with
`--role all` under the same requests. With `--against`, each case runs with another version of this project as well,
which has its own database.

No process is bound to a processor: Postgres, the dispatcher, the producer, the receiver and the clients share the
machine. The clients of the API run at the lowest priority, because in production they use the CPU of other machines.
The producer and the receiver measure, so they run at a raised priority if the user has the right; what is measured is
the commit, the dispatcher and its server processes in Postgres.
"""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from benchmarks.contenders import Contender, checkouts
from benchmarks.harness import (
    ROOT,
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
from benchmarks.rates import TENANT, WARM_EVENTS, produce
from benchmarks.steady import arrivals, percentiles

EVENTS_PER_SECOND = 50
CASES = {"quiet": False, "split": True, "together": True}
"""Whether the API is saturated meanwhile."""
GOAL = 1.5
Figures = dict[str, float]
_UNLIMITED = {"DISPATCHER_HTTP__REQUESTS_PER_SECOND": "100000"}
_MEASURING_NICE = -10


@contextmanager
def saturated(port: int) -> Iterator[Figures]:
    """Runs the clients of an API; yields their rate, which is known once the block has ended."""
    command = [sys.executable, "-m", "benchmarks.list_clients", str(port)]
    figures: Figures = {}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield figures
        finally:
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=30)
        if process.returncode:
            raise SystemExit("the clients of the API failed")
        figures["requests_per_second"] = float(output)


@contextmanager
def raised_priority() -> Iterator[None]:
    """Raises the priority of this process, and of those that it starts, if the user has the right."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _MEASURING_NICE)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def _measure(
    case: str, number: int, contender: Contender, postgres_id: int, directory: Path, seconds: float
) -> Figures:
    """Returns the percentiles of one case, and the rate and the cost of the requests meanwhile."""
    url = contender.url
    with ExitStack() as stack:
        roles = ["all"] if case == "together" else ["delivery", "api"]
        daemons = [
            Dispatcher(
                url, directory, cpu=None, checkout=contender.checkout, arguments=("--role", role),
                DISPATCHER_REPLICA__NAME=role, **_UNLIMITED,
            )
            for role in roles
        ]  # fmt: skip
        for daemon in daemons:
            daemon.start()
            stack.callback(daemon.stop)
        api, delivering = daemons[-1], daemons[0]
        with raised_priority():
            port, arrived = stack.enter_context(arrivals(cpu=None))
        kind = f"roles.{case}{number}"
        # Of its own type: otherwise each round would also deliver to the receivers of rounds before.
        api.create_endpoint(
            f"{case}{number}", f"http://127.0.0.1:{port}/hook", 64, TENANT, types=[kind]
        )
        asyncio.run(produce(url, 200, WARM_EVENTS, kind))
        wait_for(lambda: delivering.delivered() >= WARM_EVENTS, 60)
        count = int(EVENTS_PER_SECOND * seconds)
        assert api.process is not None  # noqa: S101 -- it runs
        process_id = api.process.pid

        def used() -> float:
            return cpu_seconds(process_id) + sum(postgres_cpu(postgres_id).values())

        before, began = used(), time.monotonic()
        with ExitStack() as load:
            figures = load.enter_context(saturated(api.port)) if CASES[case] else {}
            with raised_priority():
                committed, _ = asyncio.run(produce(url, EVENTS_PER_SECOND, count, kind))
            cpu, elapsed = used() - before, time.monotonic() - began
        rate = figures.setdefault("requests_per_second", 0.0)
        figures["cpu_ms_per_request"] = cpu / (rate * elapsed) * 1000 if rate else 0.0
        wait_for(lambda: delivering.delivered() >= WARM_EVENTS + count, 60)
    return {**percentiles(committed, arrived), **figures}


def main() -> None:
    """Runs the rounds and prints the percentiles of each case."""
    options = arguments(
        "roles",
        __doc__,
        short={"seconds": 6, "rounds": 3},
        full={"seconds": 20, "rounds": 5},
        against=True,
    )
    rounds: dict[str, dict[str, list[Figures]]] = {}
    with ExitStack() as stack:
        server, _ = stack.enter_context(postgres(cpu=None))
        assert server.process_id is not None  # noqa: S101 -- it is ours, and it runs
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        contenders = [
            Contender(one.name, server, directory, one)
            for one in stack.enter_context(checkouts([options.against]))
        ]
        for number in range(options.rounds):
            for case in CASES:
                for contender in contenders:
                    figures = _measure(
                        case, number, contender, server.process_id, directory, options.seconds
                    )
                    rounds.setdefault(contender.name, {}).setdefault(case, []).append(figures)
                    words = "  ".join(f"{key} {value:,.2f}" for key, value in figures.items())
                    print(
                        f"round {number + 1}, {contender.name}, {case}: {words}"
                        f"  load {os.getloadavg()[0]:.1f}",
                        flush=True,
                    )
    for name, of_case in rounds.items():
        for case, found in of_case.items():
            print(
                f"  {name:<10} {case:<9} p50 ms {spread([one['p50_ms'] for one in found])}"
                f"  p99 ms {spread([one['p99_ms'] for one in found])}"
                f"  requests/s {spread([one['requests_per_second'] for one in found])}"
            )
        print(f"  {name:<10} together over quiet, p99: {spread(_over(of_case, 'together'))}")
        print(f"  {name:<10} split over quiet, p99: {spread(_over(of_case, 'split'))}")
    goals = [
        Goal(
            16,
            "split roles, API saturated: p99 over a quiet API",
            GOAL,
            _over(rounds["ours"], "split"),
            at_least=False,
        )
    ]
    write_results("roles", {"rounds": rounds}, options.json, goals)


def _over(of_case: dict[str, list[Figures]], case: str) -> list[float]:
    """Returns the p99 of a case over that of the quiet API in the same round."""
    pairs = zip(of_case[case], of_case["quiet"], strict=True)
    return [one["p99_ms"] / quiet["p99_ms"] for one, quiet in pairs]


if __name__ == "__main__":
    main()
