"""Goals 4 and 16: what the triggers cost producers, with a dispatcher busy, asleep and stopped: commits/s, and CPU.

`python -m benchmarks producers [--short] [--seconds N] [--rounds N] [--json PATH]`.
pgbench inserts one event per transaction. Compared within each round, in turn: `bare` (a table with the same
columns and indexes whose rules are CHECK constraints and whose ids are a column default, without triggers),
`silent` (all triggers but the wake-up call), `stopped` (all triggers, no dispatcher), `asleep` (a dispatcher
that listens, and stays asleep: an upper bound, since under this load it would wake), `busy` (a dispatcher at
work on these very events, which no endpoint subscribes to), `beside` (the bare table, while a dispatcher is as
busy with events that another connection commits in bulk), and as the control `always` (a trigger that notifies
unconditionally). `busy` over `bare` is what producers feel on this machine, competition for its processors
included; `busy` over `beside` is what the triggers cost of it. The CPU of the server processes per commit,
which other work on the machine disturbs less than the rate, is compared where no daemon works: `stopped` and
`asleep` over `silent`, which is what the wake-up call costs, and over `bare`.
"""

import asyncio
import re
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

import asyncpg

from benchmarks.harness import (
    CLIENT_CPU,
    Dispatcher,
    Goal,
    arguments,
    insert_events,
    pinned,
    postgres,
    postgres_cpu,
    spread,
    write_results,
)

CLIENTS = (1, 8, 32)
CASES = ("bare", "silent", "stopped", "asleep", "busy", "beside")
CONTROLS = ("always",)
"""Left out of short runs."""
OWN_TABLES = ("bare", "silent", "always")
CPU_GOAL = 1.05


class Run(NamedTuple):
    """What all cases share."""

    pgbench: str
    directory: Path
    host: str
    url: str
    server_id: int
    seconds: int


class Measured(NamedTuple):
    """The commits/s of a case, and the CPU of the server's backends in microseconds per commit."""

    rate: float
    cpu_us: float


_INSERT = "INSERT INTO {table} (type, data) VALUES ('order.created', '{{\"order_id\": \"ORD-2026-1234\"}}');\n"

_TABLES = """
CREATE TABLE dispatcher.outbox_bare (LIKE dispatcher.outbox INCLUDING ALL,
    CHECK (id ~ '^[A-Za-z0-9_-]{1,64}$'), CHECK (type ~ '^[a-z][a-z0-9_]*([.][a-z0-9_]+)+$' AND length(type) <= 128),
    CHECK (operational = (type LIKE 'dispatcher.%')), CHECK (tenant ~ '^[a-z0-9_-]{1,64}$'),
    CHECK (data IS NOT NULL OR consumed_at IS NOT NULL), CHECK (json_typeof(data) = 'object'),
    CHECK (octet_length(data::text) <= 1048576),
    CHECK (occurred_at >= '1970-01-01 00:00:00+00' AND occurred_at < '10000-01-01 00:00:00+00'),
    CHECK (length(ordering_key) <= 256), CHECK (labels = '{}' OR dispatcher.labels_are_valid(labels)),
    CHECK (length(traceparent) <= 256));
ALTER TABLE dispatcher.outbox_bare ALTER COLUMN bytes SET DEFAULT 0,
    ALTER COLUMN id SET DEFAULT 'evt_2026_' || nextval('dispatcher.event_number');
CREATE TABLE dispatcher.outbox_silent (LIKE dispatcher.outbox INCLUDING ALL);
CREATE TRIGGER accept BEFORE INSERT ON dispatcher.outbox_silent FOR EACH ROW
    EXECUTE FUNCTION dispatcher.outbox_accept();
CREATE TABLE dispatcher.outbox_always (LIKE dispatcher.outbox INCLUDING ALL);
CREATE FUNCTION dispatcher.bench_always() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN NOTIFY dispatcher_bench; RETURN NULL; END';
CREATE TRIGGER accept BEFORE INSERT ON dispatcher.outbox_always FOR EACH ROW
    EXECUTE FUNCTION dispatcher.outbox_accept();
CREATE TRIGGER notify AFTER INSERT ON dispatcher.outbox_always FOR EACH ROW
    EXECUTE FUNCTION dispatcher.bench_always();
"""


def _pgbench() -> str:
    found = shutil.which("pgbench")
    if found is None:
        raise SystemExit(
            "pgbench is not on the PATH; it comes with Postgres' server or contrib package"
        )
    return found


def _commits(run: "Run", table: str, clients: int) -> Measured:
    script = run.directory / f"{table}.sql"
    script.write_text(_INSERT.format(table=table))
    command = [
        *(run.pgbench, "-n", "-h", run.host, "-U", "dispatcher", "-d", "bench", "-f", str(script)),
        *("-c", str(clients), "-j", "1", "-T", str(run.seconds)),
    ]
    before = postgres_cpu(run.server_id)["backends"]
    output = subprocess.run(
        pinned(CLIENT_CPU, command), check=True, capture_output=True, text=True
    ).stdout
    used = postgres_cpu(run.server_id)["backends"] - before
    rate = re.search(r"tps = ([0-9.]+)", output)
    count = re.search(r"actually processed: ([0-9]+)", output)
    if rate is None or count is None:
        raise SystemExit(output)
    return Measured(float(rate[1]), used / max(1, int(count[1])) * 1e6)


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
    cases = CASES if options.short else (*CASES, *CONTROLS)
    results: dict[str, dict[str, list[Measured]]] = {}
    with postgres() as (server, url), tempfile.TemporaryDirectory() as name:
        assert server.process_id is not None  # noqa: S101 -- it is ours, and it runs
        run = Run(
            _pgbench(),
            Path(name),
            str(server.socket_directory),
            url,
            server.process_id,
            options.seconds,
        )
        asyncio.run(_run(url, _TABLES))
        for clients in CLIENTS:
            of_case = results.setdefault(str(clients), {})
            for _ in range(options.rounds):
                for case in cases:
                    of_case.setdefault(case, []).append(_case(case, run, clients, of_case))
            rates = [one.rate for one in of_case["bare"]]
            print(f"{clients} clients: bare {spread(rates)} commits/s", flush=True)

    def over(clients: int, case: str, other: str, figure: str = "rate") -> list[float]:
        pairs = zip(results[str(clients)][case], results[str(clients)][other], strict=True)
        return [getattr(a, figure) / getattr(b, figure) for a, b in pairs]

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
        goals += [
            Goal(
                16,
                f"{who}, {case} over {other}: CPU of Postgres per commit",
                CPU_GOAL,
                over(clients, case, other, "cpu_us"),
                at_least=False,
            )
            for other in ("silent", "bare")
            for case in ("stopped", "asleep")
        ]
        for case in CONTROLS if not options.short else ():
            print(f"  {who}, {case} over bare: {spread(over(clients, case, 'bare'))}")
    figures = {
        clients: {case: [one._asdict() for one in found] for case, found in of_case.items()}
        for clients, of_case in results.items()
    }
    write_results("producers", {"commits": figures}, options.json, goals)


def _case(case: str, run: Run, clients: int, before: dict[str, list[Measured]]) -> Measured:
    """Returns the figures of one case; `beside` feeds the daemon at the rate of the latest `busy`."""
    tables = {"beside": "bare"} | {name: name for name in OWN_TABLES}
    table = f"dispatcher.outbox_{tables[case]}" if case in tables else "dispatcher.outbox"
    asyncio.run(
        _run(
            run.url,
            f"TRUNCATE dispatcher.outbox, {', '.join(f'dispatcher.outbox_{t}' for t in OWN_TABLES)}",
            "SELECT setval('dispatcher.asleep_until', 0)",
            "CHECKPOINT",
        )
    )
    if case == "busy":
        daemon = Dispatcher(run.url, run.directory)
        daemon.start()
        try:
            return _commits(run, table, clients)
        finally:
            daemon.stop()
    if case == "beside":
        daemon = Dispatcher(run.url, run.directory)
        daemon.start()
        stop = threading.Event()
        feeder = threading.Thread(target=_feed, args=(run.url, before["busy"][-1].rate, stop))
        feeder.start()
        try:
            return _commits(run, table, clients)
        finally:
            stop.set()
            feeder.join()
            daemon.stop()
    if case == "asleep":
        with asyncio.Runner() as runner:
            connection = runner.run(_hold_asleep(run.url))
            try:
                return _commits(run, table, clients)
            finally:
                runner.run(connection.execute("SELECT setval('dispatcher.asleep_until', 0)"))
                runner.run(connection.close())
    if case == "always":
        with asyncio.Runner() as runner:
            connection = runner.run(asyncpg.connect(run.url))
            runner.run(connection.execute("LISTEN dispatcher_bench"))
            try:
                return _commits(run, table, clients)
            finally:
                runner.run(connection.close())
    return _commits(run, table, clients)


if __name__ == "__main__":
    main()
