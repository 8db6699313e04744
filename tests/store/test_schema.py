"""The schema as the daemon sees it: absent, fitting, writable; partitions ahead; what CHECKs and triggers hold."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from dispatcher.core.errors import SchemaError
from dispatcher.store import migrate
from dispatcher.store.pool import Database
from dispatcher.store.schema import Schema

pytestmark = pytest.mark.postgres


@pytest.fixture
async def sql(fresh_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(fresh_database)
    yield connection
    await connection.close()


@pytest.fixture
async def schema(fresh_database: str) -> AsyncIterator[Schema]:
    pool = Database(fresh_database, connections_max=2)
    await pool.open()
    yield Schema(pool)
    await pool.close()


async def test_a_migrated_database_fits_and_is_writable(schema):
    await schema.require()
    assert await schema.is_writable()


async def test_an_empty_database_does_not_fit_and_says_what_to_do(make_database):
    pool = Database(make_database(migrated=False))
    await pool.open()
    try:
        with pytest.raises(SchemaError, match="dispatcher migrate"):
            await Schema(pool).require()
    finally:
        await pool.close()


async def test_a_read_only_server_is_not_writable(schema, sql):
    name = await sql.fetchval("SELECT current_database()")
    await sql.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    assert not await schema.is_writable()


async def test_partitions_are_made_ahead_once_and_take_rows_of_their_day(schema, sql):
    assert await schema.make_partitions(7) == 0
    assert await schema.make_partitions(9) == 4 * 2
    assert await schema.make_partitions(9) == 0
    for day in ("CURRENT_DATE - 1", "CURRENT_DATE + 9"):
        await sql.execute(
            f"INSERT INTO dispatcher.body (day, event_id, profile, bytes) VALUES ({day}, 'e', 'wms', '')"
        )
    with pytest.raises(asyncpg.CheckViolationError, match="no partition"):
        await sql.execute(
            "INSERT INTO dispatcher.body (day, event_id, profile, bytes) VALUES (CURRENT_DATE + 10, 'e', 'wms', '')"
        )


async def test_every_function_pins_its_search_path(sql):
    """A function without it resolves names in the schemas of its caller, who may be a producer."""
    loose = await sql.fetch(
        "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'dispatcher'::regnamespace"
        " AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)"
    )
    assert loose == []


async def test_a_migrated_schema_is_the_expected_one(sql):
    """`python -m tests.support.definitions` writes the file again after a change of the schema."""
    async with migrate.step(sql):
        assert await migrate.definitions(sql) == migrate.expected_definitions()


async def test_endpoint_or_secret_change_raises_the_routing_version(sql):
    version = await sql.fetchval("SELECT version FROM dispatcher.routing")
    for change in (
        (
            "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)"
            " VALUES ('ep', 'default', 'e', 'https://x.test/', 'wms', '{*}', 1)"
        ),
        "INSERT INTO dispatcher.endpoint_secret (endpoint_id, role, key_id, sealed) VALUES ('ep', 'current', 'k', '')",
        "UPDATE dispatcher.endpoint SET url = 'https://y.test/'",
        "DELETE FROM dispatcher.endpoint_secret",
        "DELETE FROM dispatcher.endpoint",
    ):
        await sql.execute(change)
        now = await sql.fetchval("SELECT version FROM dispatcher.routing")
        assert now > version
        version = now


@pytest.mark.parametrize(
    "columns",
    [
        "state = 'paused'",
        "state = 'disabled'",
        "paused_at = now()",
        "shard = 64",
        "event_types = '{}'",
        "max_concurrency = 0",
        "rate_limit = 0",
        "timeout_seconds = 0",
        "ordering = 'random'",
        "skip_after_attempts = 0",
        "headers = '[]'",
    ],
)
async def test_the_database_refuses_an_endpoint_that_cannot_be(sql, columns):
    await sql.execute(
        "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)"
        " VALUES ('ep', 'default', 'e', 'https://x.test/', 'wms', '{*}', 1)"
    )
    with pytest.raises(asyncpg.CheckViolationError):
        await sql.execute(f"UPDATE dispatcher.endpoint SET {columns}")


async def test_endpoint_name_is_unique_in_its_tenant_unless_deleted(sql):
    insert = (
        "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)"
        " VALUES ($1, $2, 'e', 'https://x.test/', 'wms', '{*}', 1)"
    )
    await sql.execute(insert, "ep1", "a")
    await sql.execute(insert, "ep2", "b")
    with pytest.raises(asyncpg.UniqueViolationError):
        await sql.execute(insert, "ep3", "a")
    await sql.execute("UPDATE dispatcher.endpoint SET deleted_at = now() WHERE id = 'ep1'")
    await sql.execute(insert, "ep3", "a")
