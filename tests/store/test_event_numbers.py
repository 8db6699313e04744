"""The sequence of event numbers that fell behind, and quarantined events."""

import asyncio
from typing import Any

import asyncpg
import pytest

from dispatcher.core.errors import ConfigurationError, StoreUnavailableError
from dispatcher.store.event_numbers import MARGIN, EventNumbers, Numbers, read_numbers
from dispatcher.store.outbox import Outbox
from dispatcher.store.pool import Database

pytestmark = pytest.mark.postgres

INSERT = "INSERT INTO dispatcher.outbox (type, data) VALUES ('a.b', '{}') RETURNING id"


async def claim_all(outbox: Outbox) -> list[str]:
    async with outbox.claim(100, 1_000_000) as claim:
        return [event.id for event in claim.events]


async def restart(sql: asyncpg.Connection) -> None:
    await sql.execute("ALTER SEQUENCE dispatcher.event_number RESTART WITH 1")


async def highest(sql: asyncpg.Connection) -> int:
    async with sql.transaction():
        return (await read_numbers(sql)).highest


async def test_sequence_behind_history_is_moved_forward(sql, pool):
    ids = [await sql.fetchval(INSERT) for _ in range(5)]
    assert await claim_all(Outbox(pool)) == ids
    await restart(sql)
    async with sql.transaction():
        assert (await read_numbers(sql)).is_behind
    numbers = await EventNumbers(pool).verify()
    assert numbers.is_behind
    assert int((await sql.fetchval(INSERT))[9:]) > numbers.highest
    assert not (await EventNumbers(pool).verify()).is_behind


async def test_sequence_behind_the_outbox_is_moved_forward(sql, pool):
    waiting = int((await sql.fetchval(INSERT))[9:])
    await restart(sql)
    await EventNumbers(pool).verify()
    assert int((await sql.fetchval(INSERT))[9:]) == waiting + MARGIN + 1


async def test_sequence_behind_the_mark_alone_is_moved_forward(sql, pool):
    await sql.fetchval(INSERT)
    await EventNumbers(pool).verify()
    mark = await sql.fetchval("SELECT number FROM dispatcher.event_number_mark")
    await sql.execute("DELETE FROM dispatcher.outbox")
    await restart(sql)
    assert (await EventNumbers(pool).verify()).is_behind
    assert int((await sql.fetchval(INSERT))[9:]) > mark


async def test_sequence_ahead_stays_as_it_is(sql, pool):
    first = int((await sql.fetchval(INSERT))[9:])
    await EventNumbers(pool).verify()
    assert int((await sql.fetchval(INSERT))[9:]) == first + 1


class Busy:
    """A connection after each of whose statements a producer commits events."""

    def __init__(self, connection: asyncpg.Connection, producer: asyncpg.Connection) -> None:
        self._connection = connection
        self._producer = producer

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._connection, name)

        async def run(*arguments: object) -> Any:
            result = await method(*arguments)
            await self._producer.execute(INSERT)
            return result

        return run


async def test_sequence_next_to_a_fast_producer_is_not_taken_for_behind(sql, pool):
    """A daemon that started next to one moved the sequence, and back again: two events had one number."""
    await sql.execute(INSERT)
    async with pool.transaction() as connection:
        busy: Any = Busy(connection, sql)
        assert not (await read_numbers(busy)).is_behind


async def test_sequence_is_never_moved_back(sql, pool):
    drawn = [int((await sql.fetchval(INSERT))[9:]) for _ in range(3)][-1]
    async with pool.transaction() as connection:
        moved_to = await EventNumbers._move(connection, Numbers(0, 1))
    assert moved_to == max(drawn, 1) + MARGIN
    assert int((await sql.fetchval(INSERT))[9:]) == moved_to + 1


async def test_claim_of_events_with_one_position_has_its_day(sql, pool):
    """Their bytes are added up one row after the other, so one of them is the first."""
    for own_id in ("own-1", "own-2"):
        await sql.execute(
            "INSERT INTO dispatcher.outbox (id, position, type, data) VALUES ($1, 1, 'a.b', '{}')",
            own_id,
        )
    outbox = Outbox(pool)
    async with outbox.claim_few(5) as few:
        assert len(few.events) == 2
        assert few.day == few.accepted_at.date()
    for own_id in ("own-3", "own-4"):
        await sql.execute(
            "INSERT INTO dispatcher.outbox (id, position, type, data) VALUES ($1, 1, 'a.b', '{}')",
            own_id,
        )
    async with outbox.claim(5, 1_000_000) as claim:
        assert len(claim.events) == 2
        assert claim.day == claim.accepted_at.date()


async def test_two_replicas_never_move_the_sequence_to_one_number(sql, pool):
    await sql.fetchval(INSERT)
    await EventNumbers(pool).verify()
    await restart(sql)
    async with asyncio.TaskGroup() as group:
        both = [group.create_task(EventNumbers(pool).verify()) for _ in range(2)]
    assert sorted(task.result().is_behind for task in both) == [False, True]


async def test_events_of_a_sequence_that_fell_back_get_new_ids(sql, pool):
    outbox = Outbox(pool)
    await outbox.poll()
    first = [await sql.fetchval(INSERT) for _ in range(3)]
    assert await claim_all(outbox) == first
    # The mark is read again, as it is every 30 s, and more than its slack passes on the database's clock.
    await outbox.renumber([])
    await sql.execute(
        "UPDATE dispatcher.event_number_mark SET marked_at = marked_at - interval '1 hour'"
    )
    outbox._numbers._marked_at = await sql.fetchval(
        "SELECT marked_at FROM dispatcher.event_number_mark"
    )
    await restart(sql)
    again = [await sql.fetchval(INSERT) for _ in range(3)]
    assert again == first
    with pytest.raises(StoreUnavailableError):
        await claim_all(outbox)
    renumbered = await claim_all(outbox)
    assert len(renumbered) == 3
    assert not set(renumbered) & set(first)
    audited = await sql.fetch(
        "SELECT object, detail->>'was' AS was FROM dispatcher.audit WHERE action = 'event.renumber'"
    )
    assert {row["was"] for row in audited} == set(first)
    assert {row["object"] for row in audited} == set(renumbered)


async def test_suspect_number_that_no_event_has_is_kept(sql, pool):
    outbox = Outbox(pool)
    await sql.fetchval(INSERT)
    await outbox.poll()
    await sql.execute("DELETE FROM dispatcher.outbox")
    outbox._numbers._marked_at = await sql.fetchval("SELECT now() - interval '1 hour'")
    await restart(sql)
    event_id = await sql.fetchval(INSERT)
    with pytest.raises(StoreUnavailableError):
        await claim_all(outbox)
    assert await claim_all(outbox) == [event_id]


async def test_sequence_of_another_owner_is_refused_with_its_statement(
    fresh_database: str, sql: asyncpg.Connection
):
    del sql
    owner = await asyncpg.connect(fresh_database)
    reader = f"reader_{owner.get_server_pid()}"
    try:
        await owner.fetchval(INSERT)
        await owner.execute(f"CREATE ROLE {reader} LOGIN")
        await owner.execute(
            f"GRANT USAGE ON SCHEMA dispatcher TO {reader};"
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA dispatcher TO {reader};"
            f"GRANT SELECT ON SEQUENCE dispatcher.event_number TO {reader}"
        )
        await owner.execute("ALTER SEQUENCE dispatcher.event_number RESTART WITH 1")
        pool = Database(fresh_database.replace("dispatcher@", f"{reader}@"), connections_max=2)
        await pool.open()
        with pytest.raises(ConfigurationError, match="SELECT setval"):
            await EventNumbers(pool).verify()
        await pool.close()
    finally:
        await owner.execute(f"DROP OWNED BY {reader}; DROP ROLE {reader}")
        await owner.close()


async def test_claim_deletes_its_own_rows_alone_where_positions_repeat(sql, pool):
    await sql.execute(
        "INSERT INTO dispatcher.outbox (id, position, type, data) VALUES ('own-1', 1, 'a.b', '{}')"
    )
    await restart(sql)
    made = await sql.fetchval(INSERT)
    outbox = Outbox(pool)
    async with outbox.claim(1, 1_000_000) as claim:
        first = [event.id for event in claim.events]
    async with outbox.claim(5, 1_000_000) as claim:
        second = [event.id for event in claim.events]
    assert sorted(first + second) == sorted(["own-1", made])


async def test_control_unverified_sequence_sends_two_events_under_one_id(sql, pool):
    """P25: the claim alone accepts the number a second time on another day."""
    first = await sql.fetchval(INSERT)
    outbox = Outbox(pool)
    assert await claim_all(outbox) == [first]
    await sql.execute("UPDATE dispatcher.event SET day = day - 1")  # yesterday's event
    await restart(sql)
    assert await sql.fetchval(INSERT) == first
    assert await claim_all(outbox) == [first]
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.event WHERE id = $1", first) == 2
