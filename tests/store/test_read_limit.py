"""Reads of the API and the console run a few at a time; others wait, in their order."""

import asyncio

import pytest

from dispatcher.core.errors import OverloadedError
from dispatcher.store import read_limit
from dispatcher.store.pool import Database
from dispatcher.store.read_limit import ReadLimit

pytestmark = pytest.mark.postgres


class Figures:
    """What a limit reports: the count of waiting reads, first when it is made and then after each change."""

    def __init__(self) -> None:
        self.waiting: list[int] = []
        self.rejected_count = 0

    def reject(self) -> None:
        self.rejected_count += 1


@pytest.fixture
def figures() -> Figures:
    return Figures()


@pytest.fixture
def limit(figures: Figures) -> ReadLimit:
    return ReadLimit(1, waiting=figures.waiting.append, rejected=figures.reject)


@pytest.fixture
async def limited(database: str, limit: ReadLimit):
    pool = Database(database, connections_max=3, reads=limit)
    await pool.open()
    yield pool
    await pool.close()


async def test_read_limit_further_reads_wait_in_order_and_writes_do_not(limited, figures) -> None:
    ended: list[int] = []

    async def read(number: int) -> None:
        async with limited.reading() as connection:
            await connection.fetchval("SELECT 1")
        ended.append(number)

    async with asyncio.TaskGroup() as group, limited.reading():
        for number in range(3):
            group.create_task(read(number))
        async with limited.transaction() as connection:
            assert await connection.fetchval("SELECT 1") == 1
        assert ended == []
        assert figures.waiting == [0, 1, 2, 3]
    assert ended == [0, 1, 2]
    assert figures.waiting[-1] == 0
    assert figures.rejected_count == 0


async def test_read_limit_a_read_whose_time_is_over_leaves_the_line(limited, figures) -> None:
    async with limited.reading():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), limited.reading():
                pytest.fail("the limit is used up")
    assert figures.waiting == [0, 1, 0]
    assert figures.rejected_count == 1
    async with limited.reading() as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_read_limit_too_many_waiting_are_rejected(limited, figures, monkeypatch) -> None:
    monkeypatch.setattr(read_limit, "WAITING_MAX", 0)
    async with limited.reading():
        with pytest.raises(OverloadedError):
            async with limited.reading():
                pytest.fail("no read may wait")
    assert figures.rejected_count == 1


async def test_read_limit_a_failed_read_releases_its_place(limited) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            async with limited.reading():
                raise ZeroDivisionError
    async with limited.reading() as connection:
        assert await connection.fetchval("SELECT current_setting('plan_cache_mode')") == (
            "force_custom_plan"
        )
