"""A daemon killed in the middle of a drain repeats at most `recorder.unrecorded_max` deliveries."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import cast

import asyncpg
import orjson
import pytest

from tests.support.bench import Bench
from tests.support.daemon import add_endpoint, quiet, until

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

UNRECORDED_MAX = 256
EVENTS_PER_KILL = 8_000

_EVENTS = """
INSERT INTO dispatcher.outbox (type, data) SELECT 'stock.moved', '{"n": 1}' FROM generate_series(1, $1)
"""
_ATTEMPTS = "SELECT count(*) FROM dispatcher.attempt_all"


class FastReceiver(asyncio.Protocol):
    """Answers every request at once; `ids` has the event id of each, in the order of arrival."""

    def __init__(self, ids: list[bytes], transports: set[asyncio.Transport]) -> None:
        self.ids = ids
        self._transports = transports
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transports.add(self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self._transports.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        headers = dict(
            line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line
        )
        if len(body) < int(headers[b"content-length"]):
            return
        self._buffer = b""
        self.ids.append(headers[b"webhook-id"])
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[str, list[bytes]]]:
    ids: list[bytes] = []
    transports: set[asyncio.Transport] = set()
    server = await asyncio.get_running_loop().create_server(
        lambda: FastReceiver(ids, transports), "127.0.0.1", 0
    )
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", ids
    server.close()
    for transport in list(transports):
        transport.abort()
    for _ in range(3):  # their callbacks
        await asyncio.sleep(0)


async def _has(ids: list[bytes], count: int) -> bool:
    return len(ids) >= count


async def _drain_with_kills(
    bench: Bench,
    sql: asyncpg.Connection,
    url: str,
    ids: list[bytes],
    kills: int,
    *,
    held_until: int = 0,
    **settings: str,
) -> list[int]:
    """Kill the daemon in the middle of a backlog again and again; return what each kill left unrecorded.

    Results cannot be committed before a kill until `held_until` more requests were made.
    """
    await add_endpoint(sql, "ep_x", url, max_concurrency=200)
    await sql.execute(_EVENTS, EVENTS_PER_KILL * (kills + 1))
    environ = {f"DISPATCHER_{name}": value for name, value in settings.items()}
    environ["DISPATCHER_DELIVERY__CONCURRENCY_PER_HOST"] = "200"
    unrecorded: list[int] = []
    for _ in range(kills):
        daemon = bench.daemon(process_environ=environ)
        seen = len(ids)

        async def is_under_way(seen: int = seen) -> bool:
            return len(ids) > seen + EVENTS_PER_KILL // 2

        await until(is_under_way, seconds=60, what="a drain under way", pause=0.001)
        if held_until:
            await sql.execute("BEGIN; LOCK TABLE dispatcher.delivery_done IN ACCESS EXCLUSIVE MODE")
            unrecorded_requests = partial(_has, ids, len(ids) + held_until)
            await until(unrecorded_requests, seconds=30, what="unrecorded requests")
        daemon.kill()
        await daemon.ended(5)
        if held_until:
            await sql.execute("ROLLBACK")
        await sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        recorded: int = await sql.fetchval(_ATTEMPTS)
        unrecorded.append(len(ids) - recorded - sum(unrecorded))
    await bench.daemon(process_environ=environ).started(60)
    await quiet(bench.url, seconds=120)
    return unrecorded


@pytest.mark.timeout(1_200)
@pytest.mark.shows("G4")
async def test_a_kill_in_mid_drain_repeats_at_most_the_bound(
    bench: Bench,
    sql: asyncpg.Connection,
    receiver: tuple[str, list[bytes]],
    say: Callable[[str], None],
    long_run: bool,
) -> None:
    url, ids = receiver
    kills = 20 if long_run else 2
    unrecorded = await _drain_with_kills(bench, sql, url, ids, kills)
    events_count = EVENTS_PER_KILL * (kills + 1)
    repeats = len(ids) - len(set(ids))
    line = {"id": "B2", "kills": kills, "repeats": repeats, "unrecorded_at_kills": unrecorded}
    say(orjson.dumps(line).decode())
    assert len(set(ids)) == events_count, "a delivery was lost"
    assert max(unrecorded) <= UNRECORDED_MAX
    assert repeats <= sum(unrecorded)


async def test_control_without_the_bound_a_kill_repeats_more(
    bench: Bench, sql: asyncpg.Connection, receiver: tuple[str, list[bytes]]
) -> None:
    url, ids = receiver
    unrecorded = await _drain_with_kills(
        bench,
        sql,
        url,
        ids,
        1,
        held_until=UNRECORDED_MAX + 100,
        RECORDER__UNRECORDED_MAX="100000",
        RECORDER__BATCH_ROWS="5000",
    )
    assert max(unrecorded) > UNRECORDED_MAX
