"""A role that may only connect takes every advisory lock there is to take: nothing of ours waits for one."""

import asyncio
import re
from collections.abc import AsyncIterator

import asyncpg
import pytest

from dispatcher.store import migrate, statements
from dispatcher.store.listener import Listener
from dispatcher.store.partitions import History
from dispatcher.store.pool import Database
from tests.support.cluster import worker_name
from tests.support.daemon import until

pytestmark = pytest.mark.postgres

CLASS = 1684632432
"""The class of the locks that served until they were replaced."""

YESTERDAY = "SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date - 1"


@pytest.fixture
async def stranger(fresh_database) -> AsyncIterator[asyncpg.Connection]:
    """Yields a session of a role that may only connect, holding the locks that were ours."""
    connection = await asyncpg.connect(fresh_database)
    role = f"stranger_{worker_name()}"
    await connection.execute(f"DROP ROLE IF EXISTS {role}; CREATE ROLE {role}; SET ROLE {role}")
    for key in range(3):
        await connection.execute(f"SELECT pg_advisory_lock_shared({CLASS}, {key})")
        await connection.execute(f"SELECT pg_advisory_lock({CLASS}, {key})")
    yield connection
    await connection.execute(f"RESET ROLE; DROP ROLE {role}")
    await connection.close()


def test_no_statement_takes_an_advisory_lock():
    texts = [statements.statement(name) for name in statements.names()]
    texts += [one.sql for one in migrate.known()]
    assert not [text for text in texts if re.search(r"pg_(try_)?advisory", text)]


@pytest.mark.usefixtures("stranger")
async def test_a_sleeping_dispatcher_is_woken_despite_the_locks(fresh_database):
    producer = await asyncpg.connect(fresh_database)
    await migrate.set_notify(producer, wanted=True)
    listener = Listener(fresh_database, control=lambda _: None, arrived=lambda: None, name="n")
    running = asyncio.get_running_loop().create_task(listener.run())
    try:

        async def is_up() -> bool:
            return listener.is_up

        await until(is_up, seconds=10, what="the listener to be up")
        assert await listener.sleep()
        listener.woken.clear()
        await producer.execute("INSERT INTO dispatcher.outbox (type, data) VALUES ('a.b', '{}')")
        async with asyncio.timeout(5):
            await listener.woken.wait()
        await listener.wake()
        listener.woken.clear()
        await producer.execute("INSERT INTO dispatcher.outbox (type, data) VALUES ('a.b', '{}')")
        await producer.execute("NOTIFY dispatcher_arrived")  # later than a wake-up call would be
        assert not listener.woken.is_set()
    finally:
        listener.stop()
        await running
        await producer.close()


@pytest.mark.usefixtures("stranger")
async def test_control_a_lock_by_number_is_out_of_our_reach(fresh_database):
    connection = await asyncpg.connect(fresh_database)
    try:
        assert not await connection.fetchval(f"SELECT pg_try_advisory_lock({CLASS}, 1)")
    finally:
        await connection.close()


@pytest.mark.usefixtures("stranger")
async def test_retention_and_migrations_go_on_despite_the_locks(fresh_database):
    database = Database(fresh_database, connections_max=1)
    await database.open()
    connection = await asyncpg.connect(fresh_database)
    try:
        yesterday = await connection.fetchval(YESTERDAY)
        assert await History(database).drop("delivery_done", yesterday) == "dropped"
        assert await migrate.migrate(connection) == []
    finally:
        await connection.close()
        await database.close()


async def test_two_retentions_exclude_each_other_by_a_lock_of_ours(fresh_database):
    database = Database(fresh_database, connections_max=1)
    await database.open()
    other = await asyncpg.connect(fresh_database)
    try:
        yesterday = await other.fetchval(YESTERDAY)
        await other.execute("BEGIN; SELECT dispatcher.lock_upkeep()")
        assert await History(database).drop("delivery_done", yesterday) == "busy"
        await other.execute("ROLLBACK")
        assert await History(database).drop("delivery_done", yesterday) == "dropped"
    finally:
        await other.close()
        await database.close()
