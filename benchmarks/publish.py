"""Publishing over HTTP at full speed, next to one INSERT per transaction in the same run.

`python -m benchmarks publish [--short] [--seconds N] [--rounds N] [--json PATH]`. Each round, in turn:
16 connections that insert one event per transaction, 16 connections that publish single events over HTTP,
and 4 that publish batches of 100 (newline-delimited JSON). The daemon runs with every feature on and
delivers the events to one endpoint meanwhile. CPU is that of the daemon and of Postgres, deliveries
included; the clients' own is not counted, but they share the machine.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import uvloop

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

Publish = Callable[[], Awaitable[None]]


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

    async def publish(self) -> None:
        """Sends the request and reads the response.

        Raises:
            SystemExit: it was not accepted.
        """
        self._writer.write(self._request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await self._reader.readexactly(length)
        if head[9:12] not in {b"200", b"201"}:
            raise SystemExit(f"not published: {head!r} {body!r}")

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


def main() -> None:
    """Runs the rounds and prints rates and CPU."""
    options = arguments(
        "publish", __doc__, short={"seconds": 2, "rounds": 3}, full={"seconds": 5, "rounds": 7}
    )
    lines = b"\n".join([_EVENT] * BATCH)
    rates: dict[str, list[float]] = {"insert": [], "http": [], "batch": []}
    cpu: dict[str, list[float]] = {name: [] for name in rates}
    with postgres() as (server, url), receiver() as target, tempfile.TemporaryDirectory() as name:
        asyncio.run(_endpoint(url, target.url))
        daemon = Dispatcher(
            url,
            Path(name),
            DISPATCHER_HTTP__EVENTS_PER_SECOND="1000000",
            DISPATCHER_HTTP__REQUESTS_PER_SECOND="100000",
        )
        daemon_id, server_id = daemon.start(), server.process_id or 0
        cases: dict[str, tuple[int, Callable[[], Awaitable[tuple[int, float]]]]] = {
            "insert": (1, lambda: _inserts(url, options.seconds)),
            "http": (
                1,
                lambda: _requests(
                    daemon.port, CONNECTIONS, _EVENT, "application/json", options.seconds
                ),
            ),
            "batch": (
                BATCH,
                lambda: _requests(
                    daemon.port, BATCH_CONNECTIONS, lines, "application/x-ndjson", options.seconds
                ),
            ),
        }
        try:
            for number in range(options.rounds + 1):
                for case, (size, run) in cases.items():
                    before = cpu_seconds(daemon_id) + cpu_seconds(server_id)
                    count, seconds = uvloop.run(run())
                    used = cpu_seconds(daemon_id) + cpu_seconds(server_id) - before
                    if number:  # the first round warms up
                        rates[case].append(count * size / seconds)
                        cpu[case].append(used / (count * size) * 1e6)
                    wait_for(lambda: _is_drained(daemon), 300)
                print(f"round {number}: " + ", ".join(f"{k} {v[-1:]}" for k, v in rates.items()))
        finally:
            daemon.stop()
    for case in cases:
        print(f"  {case:<7} {spread(rates[case])} events/s, {spread(cpu[case])} µs of CPU each")
    ratio = [http / insert for http, insert in zip(rates["http"], rates["insert"], strict=True)]
    goals = [
        Goal(11, "single events over HTTP, over one INSERT per transaction", 0.5, ratio),
        Goal(11, "a single event over HTTP: CPU µs", 600, cpu["http"], at_least=False),
        Goal(11, "batches of 100: events/s", 15_000, rates["batch"]),
    ]
    write_results("publish", {"events_per_second": rates, "cpu_us": cpu}, options.json, goals)


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
