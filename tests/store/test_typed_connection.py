"""Row types are read quickly on a new connection, and other types as the driver reads them."""

import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from dispatcher.store.statements import names, statement
from dispatcher.store.typed_connection import TypedConnection

pytestmark = pytest.mark.postgres

_ROWS = re.compile(r"\$\d+::dispatcher\.\w+\[\]")
"""A parameter that is an array of rows."""
ROW = ("ev_1", None, None, None, None, "a.b", "default", None, "{}", None, None, "{}", b"x", 7)


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(database, connection_class=TypedConnection)
    yield connection
    await connection.close()


async def _prepared(connection: Any) -> list[str]:
    rows = await connection.fetch("SELECT statement FROM pg_catalog.pg_prepared_statements")
    return [row[0] for row in rows]


async def test_array_of_rows_is_encoded_without_the_drivers_query(connection) -> None:
    found = await connection.fetch(
        "SELECT id, bytes, position FROM pg_catalog.unnest($1::dispatcher.claimed_event[])",
        [ROW, ROW],
    )
    assert found == [("ev_1", b"x", 7)] * 2
    statements = await _prepared(connection)
    assert statement("connection_types") in statements
    assert not any("typeinfo_tree" in one for one in statements)


async def test_statements_of_the_product_need_no_query_of_the_drivers(connection) -> None:
    """Each has parameters of its own: the recorder's are arrays of rows and of whole numbers."""
    texts = [text for text in map(statement, sorted(names())) if _ROWS.search(text)]
    assert statement("delivery_record_first") in texts
    for text in texts:
        await connection.prepare(text)
    statements = await _prepared(connection)
    assert not any("typeinfo_tree" in one for one in statements)


async def test_arrays_are_encoded_like_by_the_driver(connection, database) -> None:
    query = "SELECT $1::int8[], $2::int2[], $3::text[], $4::uuid[], $5::point[], $6::name[]"
    values = ([1, None], [[2], [3]], ["a,b"], [UUID(int=7)], [asyncpg.Point(1, 2)], ["n"])
    plain = await asyncpg.connect(database)
    try:
        expected = await plain.fetchrow(query, *values)
    finally:
        await plain.close()
    assert await connection.fetchrow(query, *values) == expected
    assert not any("typeinfo_tree" in one for one in await _prepared(connection))


async def test_row_is_decoded_like_by_the_driver(connection, database) -> None:
    query = "SELECT ROW('a', NULL, NULL, NULL, NULL)::dispatcher.probe_row AS row"
    await connection.execute(
        "CREATE TYPE dispatcher.probe_row AS (a text, b int, c text[], d jsonb, e uuid)"
    )
    plain = await asyncpg.connect(database)
    try:
        expected = await plain.fetchval(query)
    finally:
        await plain.close()
    assert (await connection.fetchval(query)) == expected
    assert dict(await connection.fetchval(query)) == dict(expected)


async def test_other_types_are_left_to_the_driver(connection) -> None:
    await connection.execute("CREATE TYPE dispatcher.probe_color AS ENUM ('red')")
    await connection.execute(
        "CREATE TYPE dispatcher.probe_nested AS (color dispatcher.probe_color, n int)"
    )
    row = await connection.fetchval("SELECT ROW('red', 1)::dispatcher.probe_nested")
    assert row == ("red", 1)
    assert any("typeinfo_tree" in one for one in await _prepared(connection))
