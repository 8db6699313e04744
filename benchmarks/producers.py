"""Goal 4: what the triggers cost producers: commits/s with a dispatcher busy, asleep and stopped.

`python -m benchmarks producers [--short] [--seconds N] [--rounds N] [--json PATH]`.
pgbench inserts one event per transaction. Compared within each round, in turn: `bare` (the same
table without the dispatcher's triggers, the id made by a column default), `stopped` (all triggers,
no dispatcher), `asleep` (a dispatcher that listens, and stays asleep: an upper bound, since under
this load it would wake), `busy` (a dispatcher at work on these very events, subscribed by nobody),
`beside` (the bare table, while a dispatcher is as busy with events that another connection commits
in bulk), and as the control `always` (a trigger that notifies unconditionally). `busy` over `bare`
is what producers feel on this machine, competition for its processors included; `busy` over
`beside` is what the trigger costs of it.
"""

import asyncio
import re
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import asyncpg

from benchmarks.harness import (
    CLIENT_CPU,
    Dispatcher,
    Goal,
    arguments,
    insert_events,
    pinned,
    postgres,
    spread,
    write_results,
)

CLIENTS = (1, 8, 32)
CASES = ("bare", "stopped", "busy", "beside")
CONTROLS = ("asleep", "always")
"""Left out of short runs."""

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


def _feed(url: str, rate: float, stop: threading.Event) -> None:
    """Commits events in bulk at a rate, so that the daemon is as busy as with somebody else's events."""

    async def feed() -> None:
        connection = await asyncpg.connect(url)
        while not stop.is_set():
            started = asyncio.get_running_loop().time()
            await insert_events(connection, max(1, int(rate / 10)))
            await asyncio.sleep(max(0.0, started + 0.1 - asyncio.get_running_loop().time()))
        await connection.close()

    asyncio.run(feed())


async def _hold_asleep(url: str) -> "asyncpg.Connection[asyncpg.Record]":
    connection = await asyncpg.connect(url)
    await connection.execute("LISTEN dispatcher_outbox")
    await connection.fetchval("SELECT setval('dispatcher.asleep_until', 4102444800)")
    return connection


def main() -> None:
    """Runs the rounds and prints the ratios."""
    options = arguments(
        "producers", __doc__, short={"seconds": 1, "rounds": 5}, full={"seconds": 4, "rounds": 7}
    )
    pgbench = _pgbench()
    cases = CASES if options.short else (*CASES, *CONTROLS)
    results: dict[str, dict[str, list[float]]] = {}
    with postgres() as (server, url), tempfile.TemporaryDirectory() as name:
        directory, host = Path(name), str(server.socket_directory)
        asyncio.run(_run(url, _BARE))
        for clients in CLIENTS:
            tps = results.setdefault(str(clients), {})
            for _ in range(options.rounds):
                for case in cases:
                    tps.setdefault(case, []).append(
                        _case(case, pgbench, directory, host, url, clients, options.seconds, tps)
                    )
            print(f"{clients} clients: bare {spread(tps['bare'])} commits/s", flush=True)

    def over(clients: int, case: str, other: str) -> list[float]:
        tps = results[str(clients)]
        return [a / b for a, b in zip(tps[case], tps[other], strict=True)]

    goals = []
    for clients in CLIENTS:
        who = f"{clients} client{'s' if clients > 1 else ''}"
        goals += [
            Goal(4, f"{who}, stopped over bare", 0.95, over(clients, "stopped", "bare")),
            Goal(4, f"{who}, busy over bare", 0.95, over(clients, "busy", "bare")),
            Goal(
                4,
                f"{who}, busy over bare next to an equally busy daemon",
                0.95,
                over(clients, "busy", "beside"),
            ),
        ]
        for case in CONTROLS if not options.short else ():
            print(f"  {who}, {case} over bare: {spread(over(clients, case, 'bare'))}")
    write_results("producers", {"commits_per_second": results}, options.json, goals)


def _case(
    case: str,
    pgbench: str,
    directory: Path,
    host: str,
    url: str,
    clients: int,
    seconds: int,
    before: dict[str, list[float]],
) -> float:
    """Returns the commits/s of one case; `beside` feeds the daemon at the rate of the latest `busy`."""
    tables = {"bare": "outbox_bare", "beside": "outbox_bare", "always": "outbox_always"}
    table = f"dispatcher.{tables.get(case, 'outbox')}"
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
    if case == "beside":
        daemon = Dispatcher(url, directory)
        daemon.start()
        stop = threading.Event()
        feeder = threading.Thread(target=_feed, args=(url, before["busy"][-1], stop))
        feeder.start()
        try:
            return _commits(pgbench, directory, host, table, clients, seconds)
        finally:
            stop.set()
            feeder.join()
            daemon.stop()
    if case == "asleep":
        with asyncio.Runner() as runner:
            connection = runner.run(_hold_asleep(url))
            try:
                return _commits(pgbench, directory, host, table, clients, seconds)
            finally:
                runner.run(connection.execute("SELECT setval('dispatcher.asleep_until', 0)"))
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
