"""`dispatcher.publish`: the insert as a function call, with its caller's rights and on a pinned path."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from dispatcher.store.migrate import grant_producers

pytestmark = pytest.mark.postgres


@pytest.fixture
async def producer(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    await grant_producers(connection)
    await connection.execute("SET ROLE dispatcher_producer")
    yield connection
    await connection.close()


async def test_publish_function_inserts_as_the_producer_role(producer, connection):
    text = '{"b": 12.0, "a": "\u0e01"}'
    made = await producer.fetchval("SELECT dispatcher.publish('order.created', $1::text)", text)
    await producer.execute(
        "SELECT dispatcher.publish('order.created', json_build_object('a', 1.50), id => 'mine', tenant => 'acme',"
        " labels => '{\"region\": \"th\"}', occurred_at => '2026-01-02 03:04:05+00', ordering_key => 'k',"
        " traceparent => 't')"
    )
    await producer.execute("SELECT dispatcher.publish('order.created', '{}')")
    rows = await connection.fetch("SELECT * FROM dispatcher.outbox ORDER BY position")
    assert [row["id"] for row in rows[:2]] == [made, "mine"]
    assert [row["data"] for row in rows] == [text, '{"a" : 1.50}', "{}"]
    own = rows[1]
    assert (own["tenant"], own["labels"], own["ordering_key"]) == ("acme", '{"region": "th"}', "k")
    assert own["occurred_at"].isoformat() == "2026-01-02T03:04:05+00:00"
    assert rows[0]["occurred_at"] is not None


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("dispatcher.publish('Order', '{}')", asyncpg.CheckViolationError),
        ("dispatcher.publish('order.created', '[]')", asyncpg.CheckViolationError),
        ("dispatcher.publish('order.created', '{')", asyncpg.InvalidTextRepresentationError),
        ("dispatcher.publish('order.created', '{}'::jsonb)", asyncpg.UndefinedFunctionError),
        ("dispatcher.publish('order.created', NULL::json)", asyncpg.CheckViolationError),
        ("dispatcher.publish('dispatcher.endpoint.disabled', '{}')", asyncpg.CheckViolationError),
    ],
)  # fmt: skip
async def test_publish_function_refuses_what_an_insert_refuses(producer, call, error):
    with pytest.raises(error):
        await producer.execute(f"SELECT {call}")


async def test_publish_function_needs_the_right_to_insert(connection):
    await connection.execute("CREATE ROLE stranger")
    try:
        await connection.execute("GRANT USAGE ON SCHEMA dispatcher TO stranger; SET ROLE stranger")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("SELECT dispatcher.publish('order.created', '{}')")
    finally:
        await connection.execute("RESET ROLE; DROP OWNED BY stranger; DROP ROLE stranger")
