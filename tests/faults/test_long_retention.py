"""Years of history with stock settings: no reader and no producer runs out of shared memory for locks."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson
import pytest

from dispatcher.runtime.clock import SystemClock
from dispatcher.store.delivery_details import page_of_deliveries
from dispatcher.store.endpoint_counts import (
    DeliveryCounts,
    count_deliveries,
    count_failures,
    read_progress,
)
from dispatcher.store.endpoints import find_endpoint
from dispatcher.store.events import (
    days_of_event,
    events_of_id,
    find_event,
    keys_of_labelled_events,
    page_of_events,
    requested_events,
)
from dispatcher.store.pool import Database
from dispatcher.store.statistics import read_backlog
from tests.support import long_history
from tests.support.history import day_ago

pytestmark = pytest.mark.postgres

READERS = 10
GENERIC_AFTER = 5
"""A statement that has run so often on a connection may get a plan for any values."""
LOCKS = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'relation'"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
OWN_LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND pid = pg_backend_pid()"
ALL_OF_HISTORY = "SELECT count(*) FROM dispatcher.delivery_done AS d WHERE d.id = gen_random_uuid()"


async def _days(sql: asyncpg.Connection, count: int) -> None:
    """Makes days of history, some at a time: a transaction that makes all of them would need the locks as well."""
    for first in range(0, count, 5):
        last_day, first_day = await day_ago(sql, first), await day_ago(sql, first + 4)
        await long_history.make_days(sql, first_day, last_day)


async def _read(database: Database) -> None:
    """Reads what pages, searches and commands read over all of history, finding nothing."""
    nothing: list[object] = [None] * 16
    async with database.reading() as connection:
        nothing[1], nothing[12] = "ep_none", 50
        assert await page_of_deliveries(connection, nothing) == []
        assert await page_of_events(connection, ["other-tenant", *[None] * 7, 50, None, None]) == []
        assert await find_event(connection, "evt_none", None) is None
        assert await events_of_id(connection, "evt_none") == []
        assert await requested_events(connection, b"12345678", ["humansoft"]) == []
        assert await days_of_event(connection, "evt_none", None) == []
        label = orjson.dumps({"nothing": "has it"}).decode()
        filters = [label, None, None, None, None, None, 50]
        assert await keys_of_labelled_events(connection, filters) == []
        await read_backlog(connection, None, 100)
    async with database.reading() as connection:
        assert await count_failures(connection, "ep_none", None) == ([], DeliveryCounts())
        assert await count_deliveries(connection, ["ep_none"]) == {}
    async with database.transaction() as connection:
        for _ in range(GENERIC_AFTER + 1):
            assert await find_endpoint(connection, "ep_none", None) is None
    await read_progress(database, ["ep_none"], SystemClock.now())


async def _locks(sql: asyncpg.Connection) -> int:
    """Count the locks in this database; those of other workers' tests are in the same view."""
    return int(await sql.fetchval(LOCKS))


class _Counting:
    """A connection that counts, after each of its statements, the locks that it holds."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.most = 0

    async def _count(self) -> None:
        locks = await self._connection.fetchval(OWN_LOCKS)
        self.most = max(self.most, locks)

    async def execute(self, sql: str, *parameters: object) -> object:
        return await self._connection.execute(sql, *parameters)

    async def fetch(self, sql: str, *parameters: object) -> object:
        rows = await self._connection.fetch(sql, *parameters)
        await self._count()
        return rows

    async def fetchval(self, sql: str, *parameters: object) -> object:
        return await self._connection.fetchval(sql, *parameters)


class _OneConnection:
    """A database whose transactions are those of one counting connection."""

    def __init__(self, connection: _Counting) -> None:
        self._connection = connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[_Counting]:
        yield self._connection

    async def fetch(self, sql: str, *parameters: object) -> object:
        return await self._connection.fetch(sql, *parameters)


async def test_labels_and_progress_lock_the_partitions_they_read(fresh_database: str) -> None:
    """Of 90 days of history a search by labels locks a month at a time, and progress the days since its start."""
    sql = await asyncpg.connect(fresh_database)
    pool = Database(fresh_database, connections_max=1)
    await pool.open()
    locks = {}
    try:
        await _days(sql, 90)
        async with pool.reading() as connection:
            counting = _Counting(connection)
            filters = ['{"a": "b"}', None, None, None, None, None, 50]
            await keys_of_labelled_events(counting, filters)  # type: ignore[arg-type]  # a counting stand-in
            locks["labels"] = counting.most
        async with pool.transaction() as connection:
            counting = _Counting(connection)
            reader: Any = _OneConnection(counting)
            await read_progress(reader, ["ep_none"], SystemClock.now())
            locks["progress"] = counting.most
        async with sql.transaction():
            await sql.fetchval(ALL_OF_HISTORY)
            locks["control"] = await sql.fetchval(OWN_LOCKS)
    finally:
        await pool.close()
        await sql.close()
    assert locks["labels"] < 40 * 5 + 20, locks  # 32 days and those to come, the event table alone
    assert locks["progress"] < 9 * 7 + 20, locks  # today and the days to come
    assert locks["control"] > 90 * 5, locks


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_readers_of_years_of_history_abort_no_producer(
    fresh_database: str, long_run: bool, say: Callable[[str], None]
) -> None:
    days = 1_095 if long_run else 150
    sql = await asyncpg.connect(fresh_database)
    pool = Database(fresh_database, connections_max=READERS)
    await pool.open()
    most = inserted = 0
    try:
        await _days(sql, days)
        done = asyncio.Event()

        async def produce() -> None:
            nonlocal most, inserted
            while not done.is_set():
                await sql.execute("INSERT INTO dispatcher.outbox (type, data) VALUES ('a.b', '{}')")
                inserted += 1
                most = max(most, await _locks(sql))

        async with asyncio.TaskGroup() as all_of_them:
            producer = all_of_them.create_task(produce())
            async with asyncio.TaskGroup() as readers:
                for _ in range(READERS):
                    readers.create_task(_read(pool))
            done.set()
            await producer
        # The control: one plain statement over all of history.
        async with sql.transaction():
            before = await _locks(sql)
            try:
                await sql.fetchval(ALL_OF_HISTORY)
                control = await _locks(sql) - before
            except asyncpg.OutOfMemoryError:
                control = 1_000_000
    finally:
        await pool.close()
        await sql.close()
    say(orjson.dumps({"id": "M3", "days": days, "readers": READERS, "inserted": inserted,
                      "locks_at_most": most, "locks_of_one_plain_statement": control}).decode())  # fmt: skip
    assert inserted > 0
    assert control > days * 5, "a statement over all of history needs many locks"
    # Of a reader some 510 at most: on a busy machine all ten hold theirs at once, and 5,064 were counted.
    assert most < READERS * 550, "each reader holds the locks of a few weeks"
