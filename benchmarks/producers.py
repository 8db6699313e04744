"""Goal 4: what the triggers cost producers: commits/s with a dispatcher busy, asleep and stopped.

`python -m benchmarks producers [--seconds N] [--rounds N] [--clients 1,8,32] [--json PATH]`.
pgbench inserts one event per transaction. Compared within each round, in turn: `bare` (the same
table without the dispatcher's triggers, the id made by a column default), `stopped` (all triggers,
no dispatcher), `asleep` (a dispatcher that listens, and stays asleep: an upper bound, since under
this load it would wake), `busy` (a dispatcher at work on these very events, subscribed by nobody),
and as the control `always` (a trigger that notifies unconditionally). Ratios to `bare` of the same
round.
"""

import argparse
import asyncio
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import asyncpg

from benchmarks.harness import CLIENT_CPU, Dispatcher, pinned, postgres, spread, write_results

_INSERT = "INSERT INTO {table} (type, data) VALUES ('order.created', '{{\"order_id\": \"ORD-2026-1234\"}}');\n"

_BARE = """
CREATE TABLE dispatcher.outbox_bare (LIKE dispatcher.outbox INCLUDING ALL); ALTER TABLE
dispatcher.outbox_bare ALTER COLUMN id SET DEFAULT 'evt_2026_' ||
nextval('dispatcher.event_number'); CREATE TABLE dispatcher.outbox_always (LIKE dispatcher.outbox
INCLUDING ALL); CREATE FUNCTION dispatcher.bench_always() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
NOTIFY dispatcher_bench; RETURN NULL; END'; CREATE TRIGGER make_id BEFORE INSERT ON
dispatcher.outbox_always FOR EACH ROW WHEN (NEW.id IS NULL) EXECUTE FUNCTION
dispatcher.outbox_make_id(); CREATE TRIGGER notify AFTER INSERT ON dispatcher.outbox_always FOR EACH
ROW EXECUTE FUNCTION dispatcher.bench_always();
"""


def _pgbench() -> str:
    found = shutil.which("pgbench")
    if found is None:
        raise SystemExit(
            "pgbench is not on the PATH; it comes with Postgres' server or contrib package"
        )
    return found


def _commits(
    pgbench: str, directory: Path, host: str, table: str, clients: int, seconds: int
) -> float:
    script = directory / f"{table}.sql"
    script.write_text(_INSERT.format(table=table))
    command = [
        pgbench,
        "-n",
        "-h",
        host,
        "-U",
        "dispatcher",
        "-d",
        "bench",
        "-f",
        str(script),
        "-c",
        str(clients),
        "-j",
        "1",
        "-T",
        str(seconds),
    ]
    output = subprocess.run(
        pinned(CLIENT_CPU, command), check=True, capture_output=True, text=True
    ).stdout
    found = re.search(r"tps = ([0-9.]+)", output)
    if found is None:
        raise SystemExit(output)
    return float(found[1])


async def _run(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def _hold_asleep(url: str) -> "asyncpg.Connection[asyncpg.Record]":
    connection = await asyncpg.connect(url)
    await connection.execute("LISTEN dispatcher_outbox")
    await connection.fetchval("SELECT pg_advisory_lock(1684632432, 1)")
    return connection


def main() -> None:
    """Runs the rounds and prints the ratios."""
    parser = argparse.ArgumentParser(
        prog="benchmarks producers", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--json")
    options = parser.parse_args()
    pgbench = _pgbench()
    results: dict[str, dict[str, list[float]]] = {}
    with postgres() as (server, url), tempfile.TemporaryDirectory() as name:
        directory, host = Path(name), str(server.socket_directory)
        asyncio.run(_run(url, _BARE))
        for clients in [int(text) for text in options.clients.split(",")]:
            tps = results.setdefault(str(clients), {})
            for _ in range(options.rounds):
                for case in ("bare", "stopped", "asleep", "busy", "always"):
                    tps.setdefault(case, []).append(
                        _case(case, pgbench, directory, host, url, clients, options.seconds)
                    )
            print(f"{clients} clients: bare {spread(tps['bare'])} commits/s")
            for case in ("stopped", "asleep", "busy", "always"):
                ratios = [a / b for a, b in zip(tps[case], tps["bare"], strict=True)]
                goal = (
                    "control"
                    if case == "always"
                    else "asleep: no goal"
                    if case == "asleep"
                    else "goal ≥ 0.95"
                )
                print(f"  {case:<8} {spread(ratios):<20} {goal}", flush=True)
    ratios = {
        clients: {
            case: [a / b for a, b in zip(values, tps["bare"], strict=True)]
            for case, values in tps.items()
        }
        for clients, tps in results.items()
    }
    write_results("producers", {"commits_per_second": results, "ratios": ratios}, options.json)


def _case(
    case: str, pgbench: str, directory: Path, host: str, url: str, clients: int, seconds: int
) -> float:
    table = {"bare": "dispatcher.outbox_bare", "always": "dispatcher.outbox_always"}.get(
        case, "dispatcher.outbox"
    )
    asyncio.run(
        _run(
            url,
            "TRUNCATE dispatcher.outbox, dispatcher.outbox_bare, dispatcher.outbox_always",
            "CHECKPOINT",
        )
    )
    if case == "busy":
        daemon = Dispatcher(url, directory)
        daemon.start()
        try:
            return _commits(pgbench, directory, host, table, clients, seconds)
        finally:
            daemon.stop()
    if case == "asleep":
        with asyncio.Runner() as runner:
            connection = runner.run(_hold_asleep(url))
            try:
                return _commits(pgbench, directory, host, table, clients, seconds)
            finally:
                runner.run(connection.close())
    if case == "always":
        with asyncio.Runner() as runner:
            connection = runner.run(asyncpg.connect(url))
            runner.run(connection.execute("LISTEN dispatcher_bench"))
            try:
                return _commits(pgbench, directory, host, table, clients, seconds)
            finally:
                runner.run(connection.close())
    return _commits(pgbench, directory, host, table, clients, seconds)


if __name__ == "__main__":
    main()
