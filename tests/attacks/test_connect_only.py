"""A role that may only connect takes every advisory lock and refers to our tables: nothing of ours waits or fails."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from dispatcher.maintenance.retention import Days, Retention
from dispatcher.runtime.clock import SystemClock
from dispatcher.store import migrate, statements
from dispatcher.store.listener import NotifyListener
from dispatcher.store.partitions import Partitions
from dispatcher.store.pool import Database
from tests.support.cluster import worker_name
from tests.support.daemon import until
from tests.support.history import fill_day, make_day, tables_of

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
    await connection.execute(f"DISCARD TEMP; RESET ROLE; DROP ROLE {role}")
    await connection.close()


async def test_the_documented_statement_leaves_no_way_to_fill_the_table_of_locks(fresh_database):
    """Its own role cannot take advisory locks nor make temporary tables; the owner's producers still insert."""
    page = Path(__file__).parents[2] / "docs" / "explanation" / "security.md"
    (statement,) = re.findall(r"(?ms)^```sql\n(.*?)^```$", page.read_text(encoding="utf-8"))
    connection = await asyncpg.connect(fresh_database)
    transaction = connection.transaction()
    await transaction.start()
    ways = {
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_xact_lock_shared(1, 2)",
        "CREATE TEMPORARY TABLE t ()",
    }

    async def open_ways() -> set[str]:
        found = set()
        for way in ways:
            try:
                async with connection.transaction():
                    await connection.execute(f"SET LOCAL ROLE outsider; {way}")
                    await connection.execute("RESET ROLE")
            except asyncpg.InsufficientPrivilegeError:
                continue
            found.add(way)
        return found

    try:
        await connection.execute("CREATE ROLE outsider")
        assert await open_ways() == ways  # the control
        await connection.execute("DROP TABLE t")
        await connection.execute(statement)
        assert await open_ways() == set()
        await connection.execute("INSERT INTO dispatcher.outbox (type, data) VALUES ('a.b', '{}')")
    finally:
        await transaction.rollback()
        await connection.close()


def test_no_statement_takes_an_advisory_lock():
    """But for a distributed history, whose rows on several workers no statement can lock (ADR 0131)."""
    names = set(statements.names()) - {"history_functions"}
    texts = [statements.statement(name) for name in names]
    texts += [one.sql for one in migrate.known()]
    assert not [text for text in texts if re.search(r"pg_(try_)?advisory", text)]


@pytest.mark.usefixtures("stranger")
async def test_a_sleeping_dispatcher_is_woken_despite_the_locks(fresh_database):
    producer = await asyncpg.connect(fresh_database)
    await migrate.set_notify(producer, wanted=True)
    listener = NotifyListener(
        fresh_database, control=lambda _: None, arrived=lambda: None, name="n"
    )
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
        assert await Partitions(database).drop("delivery_done", yesterday) == "dropped"
        assert await migrate.migrate(connection) == []
    finally:
        await connection.close()
        await database.close()


async def test_retention_and_migrations_exclude_each_other_by_a_lock_of_ours(fresh_database):
    database = Database(fresh_database, connections_max=1)
    await database.open()
    other = await asyncpg.connect(fresh_database)
    try:
        yesterday = await other.fetchval(YESTERDAY)
        for lock in ("SELECT dispatcher.lock_upkeep()", statements.statement("migration_lock")):
            await other.execute(f"BEGIN; {lock}")
            assert await Partitions(database).drop("delivery_done", yesterday) == "busy"
            await other.execute("ROLLBACK")
        assert await Partitions(database).drop("delivery_done", yesterday) == "dropped"
    finally:
        await other.close()
        await database.close()


async def _refer(stranger: asyncpg.Connection, admin: asyncpg.Connection, table: str) -> None:
    """Create a temporary view that refers to a table by its number, which needs no right at all."""
    number = await admin.fetchval(f"SELECT 'dispatcher.{table}'::regclass::oid::text")
    await stranger.execute(f"CREATE TEMP VIEW on_{table} AS SELECT '{number}'::regclass AS t")


async def test_views_of_a_stranger_leave_partitions_empty_and_days_go(fresh_database, stranger):
    database = Database(fresh_database, connections_max=1)
    await database.open()
    admin = await asyncpg.connect(fresh_database)
    try:
        referred, later = await make_day(admin, 41), await make_day(admin, 40)
        for day in (referred, later):
            await fill_day(admin, day, 5)
        for table in ("delivery_done", "event"):
            await _refer(stranger, admin, f"{table}_{referred:%Y%m%d}")
        retention = Retention(Partitions(database), Days(30, 30, 30, 365), clock=SystemClock())
        done = await retention.round()
        assert {step.table: became for step, became in done if step.day == referred} == {
            "delivery_done": "emptied",
            "attempt": "dropped",
            "body": "dropped",
            "event": "emptied",
        }
        assert await tables_of(admin, later) == set()
        for table in ("delivery_done", "event"):
            assert await admin.fetchval(f"SELECT count(*) FROM dispatcher.{table}") == 0
        await stranger.execute("DISCARD TEMP")
        await retention.round()
        assert await tables_of(admin, referred) == set()
    finally:
        await admin.close()
        await database.close()


async def test_control_a_table_of_a_strangers_view_is_not_dropped(fresh_database, stranger):
    admin = await asyncpg.connect(fresh_database)
    try:
        day = await make_day(admin, 40)
        await _refer(stranger, admin, f"event_{day:%Y%m%d}")
        with pytest.raises(asyncpg.DependentObjectsStillExistError):
            await admin.execute(f"DROP TABLE dispatcher.event_{day:%Y%m%d}")
    finally:
        await admin.close()
