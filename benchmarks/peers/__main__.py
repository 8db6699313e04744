"""Goal 1 beside the peers: job queues on Postgres that post each job, on the same receiver and Postgres.

`python -m benchmarks peers [--short] [--events N] [--rounds N] [--json PATH]`. Installs pg-boss and
Graphile Worker from npm (with undici) and PgQueuer and Procrastinate from PyPI (with aiohttp) into
this folder. Each round, in turn: ours drains N events; each peer posts N jobs that were enqueued
before the clock started (a tenth of them for Procrastinate, which is slow). The peers sign as we
do; they guard, limit and log nothing. PgQueuer and Procrastinate record each job's end, which is
the nearest they have to our record of each attempt.
"""

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import orjson

from benchmarks.drain import SETTINGS, Figures, drain, ratio, save_endpoint, say
from benchmarks.harness import (
    CLIENT_CPU,
    Dispatcher,
    Goal,
    Receiver,
    arguments,
    cpu_seconds,
    pinned,
    postgres,
    receiver,
    write_results,
)

HERE = Path(__file__).resolve().parent
PEERS: dict[str, tuple[Sequence[str], int]] = {
    "pg-boss": (("node", "pgboss.mjs"), 1),
    "graphile worker": (("node", "graphile.mjs"), 1),
    "pgqueuer": ((".venv/bin/python", "run_pgqueuer.py"), 1),
    "procrastinate": ((".venv/bin/python", "run_procrastinate.py"), 10),
}
"""How each is started, and by what its jobs are divided."""
RECORDING = ("pgqueuer", "procrastinate")


def _install() -> list[str]:
    """Installs what can be installed here, and returns the peers that can run."""
    found = []
    if shutil.which("npm"):
        if not (HERE / "node_modules").is_dir():
            command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
            subprocess.run(command, cwd=HERE, check=True, stdout=subprocess.DEVNULL)
        found += ["pg-boss", "graphile worker"]
    else:
        print("no npm here: pg-boss and Graphile Worker are left out")
    if not (HERE / ".venv").is_dir():
        subprocess.run([sys.executable, "-m", "venv", ".venv"], cwd=HERE, check=True)
        pip = [".venv/bin/python", "-m", "pip", "install", "-q", "-r", "requirements.txt"]
        subprocess.run(pip, cwd=HERE, check=True)
    return [*found, *RECORDING]


async def _fresh_database(url: str) -> str:
    """Makes an empty database for one run of a peer."""
    connection = await asyncpg.connect(url)
    await connection.execute("DROP DATABASE IF EXISTS peer WITH (FORCE)")
    await connection.execute("CREATE DATABASE peer")
    await connection.close()
    return url.replace("/bench", "/peer")


def _peer(name: str, url: str, target: Receiver, postgres_id: int, jobs: int) -> Figures:
    """Lets a peer post so many jobs; returns its rate and what a job costs."""
    command, divisor = PEERS[name]
    jobs //= divisor
    database = asyncio.run(_fresh_database(url))
    with subprocess.Popen(
        pinned(CLIENT_CPU, [*command, database, target.url, str(jobs)]),
        cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 -- both are pipes
        try:
            if process.stdout.readline() != b"ready\n":
                raise SystemExit(f"{name} did not become ready")
            first = [cpu_seconds(process.pid), cpu_seconds(postgres_id)]
            process.stdin.write(b"go\n")
            process.stdin.flush()
            seconds = orjson.loads(process.stdout.readline())["seconds"]
            last = [cpu_seconds(process.pid), cpu_seconds(postgres_id)]
        finally:
            process.kill()
    return {
        "rate": jobs / seconds,
        "cpu_us": (last[0] - first[0]) / jobs * 1e6,
        "postgres_us": (last[1] - first[1]) / jobs * 1e6,
    }


def main() -> None:
    """Runs the rounds and prints the ratios."""
    options = arguments(
        "peers", __doc__, short={"events": 8_000, "rounds": 5}, full={"events": 20_000, "rounds": 5}
    )
    names = _install()
    rounds: dict[str, list[Figures]] = {name: [] for name in ("ours", *names)}
    with postgres() as (server, url), receiver() as target, tempfile.TemporaryDirectory() as name:
        asyncio.run(save_endpoint(url, target))
        postgres_id = server.process_id or 0
        daemon = Dispatcher(url, Path(name), **SETTINGS)
        daemon.start()
        try:
            drain(url, [daemon], target, postgres_id, 3_000)  # warm
            for number in range(1, options.rounds + 1):
                rounds["ours"].append(drain(url, [daemon], target, postgres_id, options.events))
                for peer in names:
                    rounds[peer].append(_peer(peer, url, target, postgres_id, options.events))
                say(number, rounds)
        finally:
            daemon.stop()
    ours = rounds["ours"]
    rates = {peer: [one["rate"] for one in rounds[peer]] for peer in names}
    best = [max(values) for values in zip(*rates.values(), strict=True)]
    best_recording = [
        max(values) for values in zip(*(rates[peer] for peer in RECORDING), strict=True)
    ]
    for peer in names:
        cost = [one["cpu_us"] + one["postgres_us"] for one in rounds[peer]]
        print(f"  {peer}: {sum(cost) / len(cost):,.0f} µs a job, worker and Postgres")
    goals = [
        Goal(1, "deliveries/s over the best peer", 1.5,
             [a["rate"] / b for a, b in zip(ours, best, strict=True)]),
        Goal(1, "deliveries/s over the best peer that records each job", 3,
             [a["rate"] / b for a, b in zip(ours, best_recording, strict=True)]),
        *(Goal(1, f"deliveries/s over {peer}", 1, ratio(ours, rounds[peer])) for peer in names),
    ]  # fmt: skip
    write_results("peers", {"events": options.events, "rounds": rounds}, options.json, goals)


if __name__ == "__main__":
    main()
