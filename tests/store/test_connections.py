"""Connections to Postgres are bounded, used in order, and never used in an uncertain state."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from dispatcher.store.connections import ConnectionPool

pytestmark = pytest.mark.postgres


class Made:
    """Makes connections and counts them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.count = 0
        self.fails = False

    async def __call__(self) -> "asyncpg.Connection[asyncpg.Record]":
        self.count += 1
        if self.fails:
            raise ConnectionRefusedError
        return await asyncpg.connect(self._url)


@pytest.fixture
async def made(database: str) -> Made:
    return Made(database)


@pytest.fixture
async def connections(made: Made) -> AsyncIterator[ConnectionPool]:
    kept = ConnectionPool(made, connections_max=2, idle_seconds=60.0)
    yield kept
    kept.terminate()


async def test_connections_the_last_returned_is_lent_first(connections, made) -> None:
    first, second = [await connections.acquire(5.0) for _ in range(2)]
    connections.release(first)
    connections.release(second)
    assert await connections.acquire(5.0) is second
    assert made.count == 2


async def test_connections_at_the_bound_callers_are_served_in_order(connections, made) -> None:
    lent = [await connections.acquire(5.0) for _ in range(2)]
    served: list[int] = []

    async def use(number: int) -> None:
        connection = await connections.acquire(5.0)
        served.append(number)
        connections.release(connection)

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(use(number))
        await asyncio.sleep(0)
        connections.release(lent[0])
    assert served == [0, 1, 2, 3]
    assert made.count == 2


async def test_connections_a_caller_waits_no_longer_than_its_limit(connections) -> None:
    for _ in range(2):
        await connections.acquire(5.0)
    with pytest.raises(TimeoutError):
        await connections.acquire(0.01)


async def test_connections_one_lent_to_a_cancelled_caller_is_kept(connections, made) -> None:
    lent = [await connections.acquire(5.0) for _ in range(2)]
    waiting = asyncio.ensure_future(connections.acquire(5.0))
    await asyncio.sleep(0)
    connections.release(lent[0])  # it is the waiting caller's now ...
    waiting.cancel()  # ... which gives up before it runs
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await connections.acquire(5.0) is lent[0]
    assert made.count == 2


async def test_connections_a_place_of_a_cancelled_caller_is_free(connections, made) -> None:
    lent = [await connections.acquire(5.0) for _ in range(2)]
    waiting = asyncio.ensure_future(connections.acquire(5.0))
    await asyncio.sleep(0)
    lent[0].terminate()
    connections.release(lent[0])
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not (await connections.acquire(5.0)).is_closed()
    assert made.count == 3


async def test_connections_one_left_in_a_transaction_is_closed(connections) -> None:
    connection = await connections.acquire(5.0)
    await connection.execute("BEGIN")
    connections.release(connection)
    assert connection.is_closed()
    assert await connections.acquire(5.0) is not connection


async def test_connections_one_that_the_server_closed_is_replaced(connections) -> None:
    connection = await connections.acquire(5.0)
    connections.release(connection)
    connection.terminate()
    assert not (await connections.acquire(5.0)).is_closed()


async def test_connections_a_failure_to_connect_leaves_its_place_free(connections, made) -> None:
    made.fails = True
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            await connections.acquire(5.0)
    made.fails = False
    for _ in range(2):
        await connections.acquire(5.0)


async def test_connections_a_failure_lets_the_next_caller_try(connections, made) -> None:
    """Otherwise callers that wait behind a failed one would wait for their limit."""
    kept = [await connections.acquire(5.0) for _ in range(2)]
    waiting = [asyncio.ensure_future(connections.acquire(5.0)) for _ in range(2)]
    await asyncio.sleep(0)
    made.fails = True
    kept[0].terminate()
    connections.release(kept[0])
    for caller in waiting:
        with pytest.raises(ConnectionRefusedError):
            await caller


async def test_connections_after_expire_none_made_before_is_lent(connections) -> None:
    idle, lent = [await connections.acquire(5.0) for _ in range(2)]
    connections.release(idle)
    connections.expire()
    connections.release(lent)
    assert await connections.acquire(5.0) not in (idle, lent)
    assert await connections.acquire(5.0) not in (idle, lent)


async def test_connections_idle_ones_are_closed_after_their_time(made) -> None:
    connections = ConnectionPool(made, connections_max=2, idle_seconds=0.01)
    connection = await connections.acquire(5.0)
    ended = asyncio.Event()
    connection.add_termination_listener(lambda _: ended.set())
    connections.release(connection)
    async with asyncio.timeout(5.0):
        await ended.wait()
    connections.terminate()


async def test_connections_after_terminate_no_caller_waits(connections) -> None:
    lent = [await connections.acquire(5.0) for _ in range(2)]
    waiting = asyncio.ensure_future(connections.acquire(5.0))
    await asyncio.sleep(0)
    connections.terminate()
    with pytest.raises(asyncpg.InterfaceError):
        await waiting
    with pytest.raises(asyncpg.InterfaceError):
        await connections.acquire(5.0)
    assert lent[0].is_closed()
    connections.release(lent[0])
