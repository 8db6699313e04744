"""A producer that keeps a transaction open delays its own events alone: neither the others' nor the API."""

import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from dispatcher.core.errors import StoreUnavailableError
from dispatcher.core.floor import DEAD_ROWS_MIN, Floor
from dispatcher.store import statements
from dispatcher.store.outbox_inserts import NewRow, insert_events
from dispatcher.store.pool import Database
from tests.support.pace import in_time

pytestmark = pytest.mark.postgres

OPEN_ROWS = 60_000
MEBIBYTE = 1_048_000


@pytest.fixture
async def producer(fresh_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(fresh_database)
    yield connection
    await connection.close()


@pytest.fixture
async def database(fresh_database: str) -> AsyncIterator[Database]:
    database = Database(fresh_database, connections_max=2)
    await database.open()
    yield database
    await database.close()


async def test_rows_of_an_open_transaction_are_passed_over_once(
    database: Database, producer: asyncpg.Connection
) -> None:
    """600,000 of them added 1.1 s to each event of every tenant."""
    await producer.execute("BEGIN")
    await producer.execute(
        "INSERT INTO dispatcher.outbox (type, data)"
        f" SELECT 'a.b', '{{}}' FROM generate_series(1, {OPEN_ROWS})"
    )
    row = await database.fetch_row(statements.statement("outbox_poll"), 0, False)
    assert row is not None
    assert row[5] >= DEAD_ROWS_MIN, "the rows in the way are not known"
    floor = Floor()
    for _ in range(2):
        floor.polled(1.0, seconds=row[4], dead_rows=row[5], found=False)
    floor.claimed(2.0, OPEN_ROWS + 1)
    floor.claimed(3.0, OPEN_ROWS + 2)
    assert floor.for_claim() > OPEN_ROWS
    await producer.execute("ROLLBACK")


async def test_large_rows_are_not_read_to_be_counted(
    database: Database, producer: asyncpg.Connection
) -> None:
    await producer.execute(
        "INSERT INTO dispatcher.outbox (type, data) SELECT 'a.b',"
        f" ('{{\"a\": \"' || repeat('x', {MEBIBYTE}) || '\"}}')::json FROM generate_series(1, 40)"
    )
    async with database.transaction() as connection:
        await connection.fetch(statements.statement("outbox_claim"), 40, 1, None, 0)
        await connection.execute("ROLLBACK")
        await connection.execute("BEGIN")
        plan = await connection.fetch(
            "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, COSTS OFF)"
            " SELECT sum(bytes) FROM (SELECT bytes FROM dispatcher.outbox WHERE consumed_at IS NULL"
            " ORDER BY position LIMIT 40) AS waiting"
        )
        whole = await connection.fetch(
            "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, COSTS OFF)"
            " SELECT sum(octet_length(data::text)) FROM dispatcher.outbox"
        )
    assert _pages(plan) * 4 < _pages(whole), "the control reads what is out of line"
    claim = statements.statement("outbox_claim") + statements.statement("outbox_claim_positions")
    assert "octet_length" not in claim


def _pages(plan: list[asyncpg.Record]) -> int:
    line = next(row[0] for row in plan if "Buffers: shared" in row[0])
    return sum(
        int(part.partition("=")[2]) for part in line.split() if part.startswith(("hit=", "read="))
    )


async def test_a_publish_waits_briefly_for_an_id_in_an_open_transaction(
    database: Database, producer: asyncpg.Connection
) -> None:
    """40 of them held the few connections of the API, and a list of endpoints took 8 s."""
    await producer.execute("BEGIN")
    await producer.execute(
        "INSERT INTO dispatcher.outbox (id, type, data) VALUES ('order-1', 'a.b', '{}')"
    )
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        await _publish(database, "order-1")
    assert in_time(time.monotonic() - began, 1.0)
    assert await _publish(database, "order-2") == "order-2"
    await producer.execute("ROLLBACK")
    assert await _publish(database, "order-1") == "order-1"


async def test_control_a_plain_insert_waits_longer(
    database: Database, producer: asyncpg.Connection
) -> None:
    await producer.execute("BEGIN")
    await producer.execute(
        "INSERT INTO dispatcher.outbox (id, type, data) VALUES ('order-1', 'a.b', '{}')"
    )
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        await database.execute(
            "INSERT INTO dispatcher.outbox (id, type, data) VALUES ('order-1', 'a.b', '{}')"
        )
    assert time.monotonic() - began > 1.0
    await producer.execute("ROLLBACK")


def test_claims_that_pass_over_many_rows_raise_the_floor() -> None:
    """A look finds an early event at once, and a claim goes by position."""
    floor = Floor()
    for now in (1.0, 2.0):
        floor.claimed_whole(seconds=0.2, events_count=1)
        floor.claimed(now, int(now) * 10)
        floor.polled(now, seconds=0.001, dead_rows=DEAD_ROWS_MIN, found=True)
    assert floor.for_claim() == 0, (
        "a look that found something is followed by a claim of everything"
    )
    assert floor.for_claim() == 10
    floor.polled(20.0, seconds=0.001, dead_rows=DEAD_ROWS_MIN, found=False)
    assert floor.for_claim() == 0, "nothing is in the way any more"


def test_a_look_that_is_cut_off_leaves_the_floor_to_claims() -> None:
    floor = Floor()
    floor.claimed(1.0, 10)
    floor.claimed(2.0, 20)
    for now in (10.0, 20.0):
        floor.polled(now, seconds=5.5, dead_rows=DEAD_ROWS_MIN, found=True)
    assert floor.for_claim() == 10, "a claim of everything would be cut off as well"
    assert floor.for_poll(21.0) == 10


async def _publish(database: Database, event_id: str) -> str | None:
    row = NewRow("a.b", "{}", event_id, "default", None, None, None, None, None)
    inserted = (await insert_events(database.fetch, [row]))[0]
    return inserted and inserted.id


_WAITING = (
    "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE relation = 'dispatcher.outbox'::regclass AND NOT granted AND backend_type = 'client backend'"
    " AND datname = current_database()"
)
"""Without autovacuum, which may wait for the table as well. The tables of other tests' databases have the same ids."""


async def test_statements_leave_no_server_process_behind_a_locked_table(
    database: Database, producer: asyncpg.Connection
) -> None:
    """`CREATE RULE` of a producer waits for its open INSERT, and everything else waits for `CREATE RULE`."""
    await producer.execute("BEGIN; LOCK TABLE dispatcher.outbox IN ACCESS EXCLUSIVE MODE")
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="lock timeout"):
            await database.fetch_row(statements.statement("outbox_poll"), 0, False)
    assert await producer.fetchval(_WAITING) == 0
    await producer.execute("ROLLBACK")


async def test_control_a_session_without_limits_waits_on_after_it_was_given_up(
    producer: asyncpg.Connection, fresh_database: str
) -> None:
    await producer.execute("BEGIN; LOCK TABLE dispatcher.outbox IN ACCESS EXCLUSIVE MODE")
    given_up = await asyncpg.connect(fresh_database)
    with pytest.raises(TimeoutError):
        await given_up.fetchrow(statements.statement("outbox_poll"), 0, False, timeout=0.5)
    given_up.terminate()
    assert await producer.fetchval(_WAITING) == 1
    await producer.execute("ROLLBACK")
