"""Events at a steady rate, through SQL and through the API, and the time until the receiver has each request.

Producers are paced by schedule and not by completion. They and the receiver read the same machine's clock.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import orjson

from benchmarks.harness import BODY_DATA, ROOT, SERVER_CPU, accepts, free_port, pinned, wait_for
from benchmarks.publish import Client

API_CONNECTIONS = 16


@contextmanager
def arrivals(
    stall_seconds: float = 0.0, *, cpu: int | None = SERVER_CPU
) -> Iterator[tuple[int, dict[str, float]]]:
    """Runs a receiver that notes arrivals; yields its port, and the arrivals once the block has ended."""
    with tempfile.TemporaryDirectory() as name:
        port, path = free_port(), Path(name) / "arrivals.json"
        arrived: dict[str, float] = {}
        command = [
            sys.executable,
            "-m",
            "benchmarks.arrivals",
            str(port),
            str(path),
            str(stall_seconds),
        ]
        process = subprocess.Popen(pinned(cpu, command), cwd=ROOT)
        try:
            wait_for(lambda: accepts(port), 10)
            yield port, arrived
        finally:
            process.terminate()
            process.wait(10)
            arrived.update(orjson.loads(path.read_bytes()))


async def _paced(rate: float, count: int) -> AsyncIterator[int]:
    """Yields the numbers from 0 to `count`, each when it is due."""
    started = time.perf_counter()
    for number in range(count):
        pause = started + number / rate - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        yield number


async def produce(
    url: str,
    rate: float,
    seconds: float,
    *event_types: str,
    together: int = 1,
    took: list[float] | None = None,
) -> dict[str, float]:
    """Commits events at a steady rate, `together` in a transaction; returns when each was committed, by id.

    Transactions take the types in turn. `took` gets the seconds of each INSERT with its COMMIT.
    """
    took = [] if took is None else took
    connection = await asyncpg.connect(url)
    committed: dict[str, float] = {}
    insert = await connection.prepare(
        "INSERT INTO dispatcher.outbox (type, data)"
        " SELECT $1, $2::json FROM generate_series(1, $3::int) RETURNING id"
    )
    async for number in _paced(rate / together, int(rate * seconds / together)):
        began = time.perf_counter()
        rows = await insert.fetch(event_types[number % len(event_types)], BODY_DATA, together)
        took.append(time.perf_counter() - began)
        committed.update(dict.fromkeys((row[0] for row in rows), time.time()))
    await connection.close()
    return committed


async def publish(
    port: int, rate: float, seconds: float, event_type: str, *, took: list[float] | None = None
) -> dict[str, float]:
    """Publishes single events through the API at a steady rate; returns when each request began, by the event's id.

    A request uses a connection that is open and idle, so that a slow response delays no other request. `took` gets
    the seconds from each request to its response.
    """
    took = [] if took is None else took
    event = f'{{"type":"{event_type}","data":{BODY_DATA}}}'.encode()
    clients = [Client(port, event, "application/json") for _ in range(API_CONNECTIONS)]
    idle: asyncio.Queue[Client] = asyncio.Queue()
    for client in clients:
        await client.open()
        idle.put_nowait(client)
    began: dict[str, float] = {}

    async def send(client: Client) -> None:
        began_at = time.time()
        response = await client.publish()
        took.append(time.time() - began_at)
        began[orjson.loads(response)["id"]] = began_at
        idle.put_nowait(client)

    async with asyncio.TaskGroup() as group:
        async for _ in _paced(rate, int(rate * seconds)):
            group.create_task(send(await idle.get()))
    for client in clients:
        client.close()
    return began


def percentiles(committed: dict[str, float], arrived: dict[str, float]) -> dict[str, float]:
    """Returns p50 and p99 in milliseconds, and how many events never arrived."""
    waits = sorted((arrived[i] - at) * 1000 for i, at in committed.items() if i in arrived)
    return {
        "p50_ms": waits[len(waits) // 2],
        "p99_ms": waits[int(len(waits) * 0.99)],
        "missing": float(len(committed) - len(waits)),
    }
