"""The controls of F4, P4, P5, P9, P10, P18: what is wrong in how one stands with Postgres, and what it costs.

On the real server; a link that swallows everything stands for a network that went silent.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from dispatcher.core.errors import StoreUnavailableError
from dispatcher.store import listener as listener_module
from dispatcher.store import pool as pool_module
from dispatcher.store.leases import Leases
from dispatcher.store.listener import NotifyListener
from dispatcher.store.pool import Database, _throw_away
from tests.support.daemon import until
from tests.support.fault_proxy import FaultProxy
from tests.support.pace import in_time
from tests.support.servers import pgbouncer, socket_of

pytestmark = pytest.mark.postgres


@pytest.fixture
async def leases(database: str) -> AsyncIterator[Leases]:
    pool = Database(database, connections_max=10)
    await pool.open()
    yield Leases(pool)
    await pool.close()


@pytest.fixture
async def link(database: str) -> AsyncIterator[FaultProxy]:
    """A proxy before the server's socket."""
    folder, _ = socket_of(database)
    async with FaultProxy(path=f"{folder}/.s.PGSQL.5432") as proxy:
        yield proxy


def through(proxy: FaultProxy, database: str) -> str:
    return f"postgresql://dispatcher@127.0.0.1:{proxy.port}/{socket_of(database)[1]}"


# --- F4: the same name again ----------------------------------------------------------------------


async def test_f4_control_host_name_as_incarnation_gives_two_owners_per_shard(
    leases: Leases,
):
    """Counted: shards that the process of before, which stood still and goes on, still believes to be its own."""

    async def believed_by_both(first: str, second: str) -> int:
        await leases.join(first, "host", "1", 10.0)
        await leases.take(first, 64)
        seen = await leases.namesakes("host", second)
        await leases.join(second, "host", "1", 10.0)
        for leftover in seen:
            await leases.expire(*leftover)
        await leases.take(second, 64)
        before, now = await leases.renew(first, 10.0), await leases.renew(second, 10.0)
        assert now is not None
        assert len(now.tokens) == 64
        await leases.leave(second)
        return 0 if before is None else len(before.tokens.items() & now.tokens.items())

    assert await believed_by_both("host-1a2b", "host-3c4d") == 0
    assert await believed_by_both("host", "host") == 64


# --- P4: a half-open LISTEN connection ------------------------------------------------------------


async def test_p4_control_listener_without_round_trip_misses_a_dead_link(
    database: str, link: FaultProxy, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listener_module, "PROVE_SECONDS", 0.1)
    monkeypatch.setattr(listener_module, "RESPONSE_SECONDS_MAX", 0.2)
    ours = NotifyListener(
        through(link, database), control=lambda _: None, arrived=lambda: None, name="p4"
    )
    running = asyncio.get_running_loop().create_task(ours.run())

    async def is_up() -> bool:
        return ours.is_up

    async def is_down() -> bool:
        return not ours.is_up

    await until(is_up, seconds=5, what="our listener")
    theirs = await asyncpg.connect(through(link, database))
    heard: list[object] = []
    await theirs.add_listener("p4", lambda *call: heard.append(call))
    for one in link.links:
        one.stall()
    await until(is_down, seconds=2, what="the dead link to be noticed")
    speaker = await asyncpg.connect(database)
    await speaker.execute("NOTIFY p4")
    await speaker.close()
    assert not theirs.is_closed(), "the control no longer fails: the row has lost its meaning"
    assert heard == []
    theirs.terminate()
    ours.stop()
    await running


# --- P5: a transaction pooler ---------------------------------------------------------------------


async def test_p5_control_listen_behind_a_pooler_succeeds_and_receives_nothing(
    database: str, sql: asyncpg.Connection
):
    heard: list[object] = []
    direct = asyncio.Event()
    await sql.add_listener("p5", lambda *_: direct.set())
    with pgbouncer(database) as url:
        connections: list[asyncpg.Connection] = []

        async def is_there() -> bool:
            with contextlib.suppress(OSError):
                connections.append(await asyncpg.connect(url, statement_cache_size=0))
            return bool(connections)

        await until(is_there, seconds=5, what="the pooler")
        (assumed,) = connections
        await assumed.add_listener("p5", lambda *call: heard.append(call))
        speaker = await asyncpg.connect(database)
        for _ in range(3):
            direct.clear()
            await speaker.execute("NOTIFY p5")
            async with asyncio.timeout(5):
                await direct.wait()
        await speaker.close()
        assert heard == []
        assumed.terminate()


# --- P9: a frozen server --------------------------------------------------------------------------


async def test_p9_control_a_polite_close_waits_for_a_server_that_says_nothing(
    database: str, link: FaultProxy
):
    """Seconds until the connection is out of the way, with a link that swallows everything."""
    polite, ours = [await asyncpg.connect(through(link, database)) for _ in range(2)]
    for one in link.links:
        one.stall()
    closing = asyncio.get_running_loop().create_task(polite.close())
    began_at = time.monotonic()
    _throw_away(ours)
    assert ours.is_closed()
    assert in_time(time.monotonic() - began_at, 0.1)
    await asyncio.wait([closing], timeout=0.5)
    assert not closing.done(), "the control no longer fails: the row has lost its meaning"
    closing.cancel()
    with contextlib.suppress(asyncio.CancelledError, TimeoutError):
        await closing
    polite.terminate()


# --- P10: a server that turned read-only -----------------------------------------------------------


@pytest.mark.parametrize("is_bad", [False, True], ids=["ours", "known-bad"])
async def test_p10_control_pool_ignoring_read_only_stays_with_the_old_server(
    database: str, monkeypatch: pytest.MonkeyPatch, is_bad: bool
):
    """Counted: writes of ten that fail after a session turned read-only, while others would take them."""
    if is_bad:
        passing = tuple(
            kind for kind in pool_module._PASSING if kind is not asyncpg.ReadOnlySQLTransactionError
        )
        monkeypatch.setattr(pool_module, "_PASSING", passing)
    pool = Database(database, connections_max=1)
    await pool.open()
    await pool.execute("SET default_transaction_read_only = on")
    failed = healthy = 0
    for number in range(10):
        healthy += await pool.fetch_value("SELECT 1")
        try:
            await pool.execute(
                "INSERT INTO dispatcher.outbox (type, data) VALUES ('a.b', $1)", f'{{"n":{number}}}'
            )
        except (StoreUnavailableError, asyncpg.PostgresError):
            failed += 1
    await pool.close()
    assert failed == (10 if is_bad else 1)
    assert healthy == 10, "SELECT 1 as a sign of health would have said so"


# --- P18: many at once ----------------------------------------------------------------------------


async def test_p18_control_start_under_one_advisory_lock_waits_for_a_frozen_one(
    database: str, leases: Leases, sql: asyncpg.Connection
):
    """Counted: replicas that have started while one stands still in the middle of its start."""
    count = 8

    async def ours(number: int) -> int:
        await leases.join(f"r{number}", f"r{number}", "1", 10.0)
        return len(await leases.take(f"r{number}", 64 // count))

    async def theirs() -> None:
        connection = await asyncpg.connect(database)
        try:
            await connection.execute("SELECT pg_advisory_lock(18)")
        finally:
            connection.terminate()

    transaction = sql.transaction()
    await transaction.start()
    await sql.execute("SELECT pg_advisory_lock(18)")
    # In the middle of its start it holds the rows that it was about to take.
    await sql.execute("SELECT FROM dispatcher.shard WHERE shard < 8 FOR UPDATE")
    loop = asyncio.get_running_loop()
    waiting = [loop.create_task(theirs()) for _ in range(count - 1)]
    async with asyncio.timeout(5):
        started = [await ours(number) for number in range(1, count)]
    watching = await asyncpg.connect(database)

    async def all_wait() -> bool:
        waiting = await watching.fetchval(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        )
        return bool(waiting == count - 1)

    await until(all_wait, seconds=5, what="the others to stand in line")
    await watching.close()
    assert started == [8] * (count - 1)
    assert sum(task.done() for task in waiting) == 0
    await transaction.rollback()
    await sql.execute("SELECT pg_advisory_unlock(18)")
    await asyncio.wait(waiting)
