"""Publishing over HTTP at full speed, next to one INSERT per transaction in the same run.

`python -m benchmarks publish [--short] [--seconds N] [--rounds N] [--json PATH] [--against COMMIT|FOLDER]`. Each
round, with each contender in turn: 16 connections that insert one event per transaction (`insert`), 16 connections
that publish single events over HTTP (`http`), and 4 that publish batches of 100 (`batch`, newline-delimited JSON).
The daemon runs with every feature on and delivers the events to one endpoint meanwhile. The same cases follow with a
process of the role `api`, which delivers nothing (`insert_alone`, `http_alone`, `batch_alone`): the difference is
what deliveries cost. CPU is that of the daemon and of Postgres while events are published; the clients' own is not
counted, but they share the machine.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import uvloop

from benchmarks.contenders import Contender, checkouts
from benchmarks.harness import (
    BODY_DATA,
    TOKEN,
    Dispatcher,
    Goal,
    add_endpoint,
    arguments,
    cpu_seconds,
    postgres,
    receiver,
    spread,
    wait_for,
    write_results,
)

CONNECTIONS = 16
BATCH_CONNECTIONS = 4
BATCH = 100
_EVENT = b'{"type":"order.created","data":' + BODY_DATA.encode() + b"}"
_INSERT = "INSERT INTO dispatcher.outbox (type, data) VALUES ('order.created', $1::text::json)"

WARM_SECONDS = 0.5
SETTINGS = {
    "DISPATCHER_HTTP__EVENTS_PER_SECOND": "1000000",
    "DISPATCHER_HTTP__REQUESTS_PER_SECOND": "100000",
}

Figures = dict[str, float]
Publish = Callable[[], Awaitable[object]]
Run = Callable[[float], Awaitable[tuple[int, float]]]


class Client:
    """One connection that sends the same request again and again, with as little work as possible."""

    def __init__(self, port: int, body: bytes, content_type: str) -> None:
        self._port = port
        head = (
            f"POST /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body

    async def open(self) -> None:
        """Connects."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def publish(self) -> bytes:
        """Sends the request and returns the response's body.

        Raises:
            SystemExit: it was not accepted.
        """
        self._writer.write(self._request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await self._reader.readexactly(length)
        if head[9:12] not in {b"200", b"201"}:
            raise SystemExit(f"not published: {head!r} {body!r}")
        return body

    def close(self) -> None:
        """Disconnects."""
        self._writer.close()


async def _at_full_speed(publishes: list[Publish], seconds: float) -> tuple[int, float]:
    """Publishes on all connections for so long; returns how often, and the time that it took."""
    ends_at = time.perf_counter() + seconds
    counts = [0] * len(publishes)

    async def one(number: int, publish: Publish) -> None:
        while time.perf_counter() < ends_at:
            await publish()
            counts[number] += 1

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number, publish in enumerate(publishes):
            group.create_task(one(number, publish))
    return sum(counts), time.perf_counter() - started


async def _inserts(url: str, seconds: float) -> tuple[int, float]:
    connections = [await asyncpg.connect(url) for _ in range(CONNECTIONS)]
    statements = [await connection.prepare(_INSERT) for connection in connections]

    def of(statement: "asyncpg.prepared_stmt.PreparedStatement[asyncpg.Record]") -> Publish:
        async def publish() -> None:
            await statement.fetch(BODY_DATA)

        return publish

    found = await _at_full_speed([of(statement) for statement in statements], seconds)
    for connection in connections:
        await connection.close()
    return found


async def _requests(
    port: int, connections: int, body: bytes, content_type: str, seconds: float
) -> tuple[int, float]:
    clients = [Client(port, body, content_type) for _ in range(connections)]
    for client in clients:
        await client.open()
    found = await _at_full_speed([client.publish for client in clients], seconds)
    for client in clients:
        client.close()
    return found


def measure(
    contender: Contender, postgres_id: int, seconds: float, *, delivers: bool
) -> dict[str, Figures]:
    """Returns the rate, the CPU and its parts of each case, from one daemon that is started for them."""
    command = () if delivers else ("--role", "api")
    lines = b"\n".join([_EVENT] * BATCH)
    measured: dict[str, Figures] = {}
    with contender.running(command=command) as daemon:
        assert daemon.process is not None  # noqa: S101 -- it runs
        daemon_id, port = daemon.process.pid, daemon.port
        cases: dict[str, tuple[int, Run]] = {
            "insert": (1, lambda time_: _inserts(contender.url, time_)),
            "http": (
                1,
                lambda time_: _requests(port, CONNECTIONS, _EVENT, "application/json", time_),
            ),
            "batch": (
                BATCH,
                lambda time_: _requests(
                    port, BATCH_CONNECTIONS, lines, "application/x-ndjson", time_
                ),
            ),
        }
        for _, run in cases.values():
            uvloop.run(run(WARM_SECONDS))
        for case, (size, run) in cases.items():
            _settle(contender, daemon, delivers=delivers)
            before = cpu_seconds(daemon_id), cpu_seconds(postgres_id)
            count, took = uvloop.run(run(seconds))
            used = cpu_seconds(daemon_id) - before[0], cpu_seconds(postgres_id) - before[1]
            events = count * size
            measured[case] = {
                "events_per_second": events / took,
                "cpu_us": sum(used) / events * 1e6,
                "daemon_us": used[0] / events * 1e6,
                "postgres_us": used[1] / events * 1e6,
            }
        _settle(contender, daemon, delivers=delivers)
    return measured


def _settle(contender: Contender, daemon: Dispatcher, *, delivers: bool) -> None:
    """Waits for the deliveries; removes the events that none deliver."""
    if delivers:
        wait_for(lambda: _is_drained(daemon), 300, every=0.2)
    else:
        asyncio.run(_execute(contender.url, "TRUNCATE dispatcher.outbox"))


def main() -> None:
    """Runs the rounds and prints rates and CPU."""
    options = arguments(
        "publish",
        __doc__,
        short={"seconds": 2, "rounds": 3},
        full={"seconds": 5, "rounds": 7},
        against=True,
    )
    rounds: dict[str, dict[str, list[Figures]]] = {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server, _ = stack.enter_context(postgres())
        target = stack.enter_context(receiver())
        assert server.process_id is not None  # noqa: S101 -- it is ours, and it runs
        contenders = [
            Contender(one.name, server, directory, one, **SETTINGS)
            for one in stack.enter_context(checkouts([options.against]))
        ]
        for contender in contenders:
            asyncio.run(_endpoint(contender.url, target.url))
        for number in range(options.rounds):
            for delivers, suffix in ((True, ""), (False, "_alone")):
                for contender in contenders:
                    found = measure(
                        contender, server.process_id, options.seconds, delivers=delivers
                    )
                    for case, figures in found.items():
                        of_case = rounds.setdefault(contender.name, {})
                        of_case.setdefault(case + suffix, []).append(figures)
                        words = "  ".join(f"{key} {value:,.0f}" for key, value in figures.items())
                        print(
                            f"round {number + 1}, {contender.name}, {case + suffix}: {words}",
                            flush=True,
                        )
    for name, of_case in rounds.items():
        for case, all_figures in of_case.items():
            print(
                f"  {name:<9} {case:<12} {_column(all_figures, 'events_per_second')} events/s,"
                f" CPU µs each: daemon {_column(all_figures, 'daemon_us')},"
                f" Postgres {_column(all_figures, 'postgres_us')}"
            )
            if name != "ours":
                for key in ("events_per_second", "daemon_us", "postgres_us"):
                    pairs = zip(rounds["ours"][case], all_figures, strict=True)
                    ratios = [mine[key] / theirs[key] for mine, theirs in pairs if theirs[key]]
                    if ratios:
                        print(f"    ours over {name}, {key}: {spread(ratios)}")
    ours = rounds["ours"]
    rates, cpu = (
        {case: [one[key] for one in figures] for case, figures in ours.items()}
        for key in ("events_per_second", "cpu_us")
    )
    ratio = [http / insert for http, insert in zip(rates["http"], rates["insert"], strict=True)]
    goals = [
        Goal(11, "single events over HTTP, over one INSERT per transaction", 0.5, ratio),
        Goal(11, "a single event over HTTP: CPU µs", 600, cpu["http"], at_least=False),
        Goal(11, "the same, not delivered: CPU µs", 600, cpu["http_alone"], at_least=False),
        Goal(11, "batches of 100: events/s", 15_000, rates["batch"]),
        Goal(11, "batches of 100, not delivered: events/s", 15_000, rates["batch_alone"]),
    ]
    write_results(
        "publish",
        {"events_per_second": rates, "cpu_us": cpu, "rounds": rounds},
        options.json,
        goals,
    )


def _column(all_figures: list[Figures], key: str) -> str:
    return spread([figures[key] for figures in all_figures])


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(sql)
    await connection.close()


def _is_drained(daemon: Dispatcher) -> bool:
    return (
        daemon.metric("dispatcher_outbox_backlog_events")
        == 0
        == daemon.metric("dispatcher_pending_deliveries")
    )


async def _endpoint(url: str, target_url: str) -> None:
    connection = await asyncpg.connect(url)
    await add_endpoint(connection, "publish", target_url)
    await connection.close()


if __name__ == "__main__":
    main()
