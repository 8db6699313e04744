"""Leases by the database's clock: shards change hands once the lease has ended, and the token grows each time."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from dispatcher.core.limits import SHARDS_COUNT
from dispatcher.store.leases import Leases
from dispatcher.store.pool import Database

pytestmark = pytest.mark.postgres


@pytest.fixture
async def leases(database: str) -> AsyncIterator[Leases]:
    pool = Database(database, connections_max=4)
    await pool.open()
    yield Leases(pool)
    await pool.close()


async def _end(sql: asyncpg.Connection, incarnation: str) -> None:
    await sql.execute(
        "UPDATE dispatcher.replica SET expires_at = now() WHERE incarnation = $1", incarnation
    )


async def test_the_schema_has_the_shards_that_the_program_counts(sql):
    rows = await sql.fetch("SELECT shard FROM dispatcher.shard ORDER BY shard")
    assert [row["shard"] for row in rows] == list(range(SHARDS_COUNT))


async def test_a_replica_takes_free_shards_and_a_second_gets_none_of_them(leases):
    await leases.join("a", "one", "1", 10.0)
    await leases.join("b", "two", "1", 10.0)
    taken = await leases.take("a", 64)
    assert len(taken) == 64
    assert set(taken.values()) == {1}
    assert await leases.take("b", 64) == {}
    renewal = await leases.renew("a", 10.0)
    assert renewal is not None
    assert (renewal.others_count, renewal.tokens, renewal.free_count) == (1, taken, 0)


async def test_an_ended_lease_frees_the_shards_and_a_takeover_raises_the_token(leases, sql):
    await leases.join("a", "one", "1", 10.0)
    await leases.join("b", "two", "1", 10.0)
    await leases.take("a", 64)
    await _end(sql, "a")
    renewal = await leases.renew("b", 10.0)
    assert renewal is not None
    assert (renewal.others_count, renewal.free_count) == (0, 64)
    taken = await leases.take("b", 64)
    assert set(taken.values()) == {2}
    late = await leases.renew("a", 10.0)
    assert late is not None
    assert late.tokens == {}


async def test_lease_that_ended_untaken_is_renewed_with_its_tokens(leases, sql):
    await leases.join("a", "one", "1", 10.0)
    taken = await leases.take("a", 64)
    await _end(sql, "a")
    renewal = await leases.renew("a", 10.0)
    assert renewal is not None
    assert renewal.tokens == taken


async def test_who_gives_shards_back_calls_the_others(leases, sql):
    heard: asyncio.Queue[str] = asyncio.Queue()
    await sql.add_listener("dispatcher_control", lambda *call: heard.put_nowait(call[-1]))
    await leases.join("a", "one", "1", 10.0)
    await leases.take("a", 64)
    async with asyncio.timeout(5):
        await leases.release("a", [1, 2])
        assert await heard.get() == "shards"
        await leases.leave("a")
        assert await heard.get() == "shards"


async def test_released_shards_are_free_at_once_and_only_the_owner_can_release(leases):
    await leases.join("a", "one", "1", 10.0)
    await leases.join("b", "two", "1", 10.0)
    await leases.take("a", 64)
    await leases.release("b", [1, 2, 3])
    assert await leases.take("b", 64) == {}
    await leases.release("a", [1, 2, 3])
    assert await leases.take("b", 64) == {1: 2, 2: 2, 3: 2}


async def test_a_leftover_of_our_name_is_buried_and_a_living_namesake_is_not(leases):
    await leases.join("old", "one", "1", 10.0)
    await leases.join("new", "one", "1", 10.0)
    await leases.join("other", "two", "1", 10.0)
    seen = await leases.namesakes("one", "new")
    assert [name for name, _ in seen] == ["old"]
    await leases.renew("old", 10.0)
    assert not await leases.expire(*seen[0])
    seen = await leases.namesakes("one", "new")
    assert await leases.expire(*seen[0])
    assert await leases.renew("old", 10.0) is None
    assert await leases.namesakes("one", "new") == []


async def test_a_replica_that_left_is_nobody_and_owns_nothing(leases):
    await leases.join("a", "one", "1", 10.0)
    await leases.take("a", 64)
    await leases.leave("a")
    await leases.join("b", "two", "1", 10.0)
    assert len(await leases.take("b", 64)) == 64


async def test_joining_twice_is_harmless(leases):
    await leases.join("a", "one", "1", 10.0)
    await leases.take("a", 2)
    await leases.join("a", "one", "1", 10.0)
    renewal = await leases.renew("a", 10.0)
    assert renewal is not None
    assert len(renewal.tokens) == 2
