"""A producer that may create objects on our path has none of them called: not by the daemon, not by our triggers.

The database's own search_path begins with a schema full of namesakes (`tests/support/hostile_schema.sql`).
"""

import re
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from dispatcher.core.model import EventId
from dispatcher.store import migrate, statements
from dispatcher.store.outbox import Outbox
from dispatcher.store.partitions import Partitions
from dispatcher.store.pool import Database
from dispatcher.store.schema import Schema
from tests.support.cluster import worker_name
from tests.support.daemon import CHECKOUT

pytestmark = pytest.mark.postgres

PLANT = CHECKOUT / "tests" / "support" / "hostile_schema.sql"
# Statements that are not one SELECT or change of rows: they name no function, or set the path first.
COMMANDS = re.compile(r"^(BEGIN|SET|LOCK|CREATE|DROP|COMMENT|DO|GRANT|NOTIFY)\b", re.MULTILINE)
DEPENDENCIES = """
SELECT d.objid::regprocedure::text AS probe, found.type || ' ' || found.identity AS foreign_object
FROM pg_depend AS d, pg_identify_object(d.refclassid, d.refobjid, d.refobjsubid) AS found
WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'n'
  AND (SELECT pronamespace FROM pg_proc WHERE oid = d.objid) = 'probe'::regnamespace
  AND found.schema NOT IN ('dispatcher', 'pg_catalog', 'information_schema')
"""
BOUND = """
SELECT pg_describe_object(d.classid, d.objid, d.objsubid) || ': ' || found.identity AS bound
FROM pg_depend AS d, pg_identify_object(d.refclassid, d.refobjid, d.refobjsubid) AS found,
     pg_identify_object(d.classid, d.objid, d.objsubid) AS holder
WHERE found.schema = 'hostile' AND holder.schema = 'dispatcher'
"""


async def hostile(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(PLANT.read_text())
        name = await connection.fetchval("SELECT current_database()")
        await connection.execute(
            f'ALTER DATABASE "{name}" SET search_path = hostile, public, pg_catalog'
        )
    finally:
        await connection.close()


@pytest.fixture
async def url(make_database: Callable[..., str]) -> str:
    """Returns a database that was migrated after the namesakes were planted."""
    url = make_database(migrated=False)
    await hostile(url)
    connection = await asyncpg.connect(url)
    await migrate.migrate(connection)
    await migrate.set_notify(connection, wanted=True)
    await migrate.grant_producers(connection)
    await connection.close()
    return url


@pytest.fixture
async def pool(url) -> AsyncIterator[Database]:
    database = Database(url, connections_max=2)
    await database.open()
    yield database
    await database.close()


async def foreign(connection, name: str) -> list[str]:
    """Stores a statement as a SQL function on the connection's path; returns what it depends on elsewhere."""
    text = statements.statement(name)
    types = [
        f"{t.schema}.{_quoted(t.name)}" for t in (await connection.prepare(text)).get_parameters()
    ]
    body = f"BEGIN ATOMIC\n{text.rstrip()};\nEND"
    await connection.execute(
        f"CREATE FUNCTION probe.p_{name}({', '.join(types)}) RETURNS void LANGUAGE sql\n{body}"
    )
    await connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
    return [row["foreign_object"] for row in await connection.fetch(DEPENDENCIES)]


def _quoted(name: str) -> str:
    return f'"_{name.removesuffix("[]")}"' if name.endswith("[]") else f'"{name}"'


EXTENSION = re.compile(r"run_command_on_workers|pg_dist_")
"""What only a server with the extension for distribution has, in pg_catalog; tests/distributed run those statements."""


def queries() -> list[str]:
    texts = {name: statements.statement(name) for name in statements.names()}
    return sorted(
        name
        for name, text in texts.items()
        if not COMMANDS.search(text) and not EXTENSION.search(text)
    )


async def test_no_statement_resolves_outside_pg_catalog_and_dispatcher(pool):
    async with pool.transaction() as connection:
        await connection.execute("CREATE SCHEMA probe")
        found = {name: await foreign(connection, name) for name in queries()}
    assert len(found) > 100
    assert {name: objects for name, objects in found.items() if objects} == {}


async def test_control_the_path_of_the_database_calls_namesakes(pool):
    async with pool.transaction() as connection:
        await connection.execute("CREATE SCHEMA probe")
        await connection.execute("SET LOCAL search_path = hostile, pg_catalog")
        assert await foreign(connection, "token_find")


async def test_the_schema_binds_to_nothing_hostile(pool):
    async with pool.transaction() as connection:
        assert await connection.fetch(BOUND) == []
        assert await migrate.definition_problems(connection) == []


async def test_each_way_to_postgres_has_the_pinned_path(pool):
    show = "SELECT pg_catalog.current_setting('search_path')"
    async with pool.transaction() as connection:
        assert await connection.fetchval(show) == "pg_catalog, pg_temp"
    assert await pool.fetch_value(show) == "pg_catalog, pg_temp"


async def test_upkeep_and_claims_call_no_namesake(pool):
    assert await Schema(pool).make_partitions(9) > 0
    async with pool.transaction() as connection:
        await connection.execute(
            "INSERT INTO dispatcher.outbox (id, type, data, labels) VALUES ('own', 'a.b', '{}', '{\"a\": \"b\"}')"
        )
    outbox = Outbox(pool)
    assert (await outbox.poll()).outbox_waiting
    async with outbox.claim(10, 1_000_000) as claim:
        assert [event.id for event in claim.events] == [EventId("own")]
        day = claim.day
    assert await Partitions(pool).drop("event", day) in ("dropped", "needed")


async def test_a_producer_with_a_path_of_its_own_forges_no_id(url):
    """sec02: the trigger that makes ids called the producer's lpad()."""
    role = f"forger_{worker_name()}"
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"CREATE ROLE {role}; GRANT dispatcher_producer TO {role}")
        async with connection.transaction():
            await connection.execute("SET LOCAL search_path = pg_catalog")
            await connection.execute(
                "CREATE FUNCTION public.lpad(number text, wide integer, pad text) RETURNS text LANGUAGE sql AS"
                " $$SELECT '999999'$$"
            )
            await connection.execute(f"SET LOCAL ROLE {role}")
            await connection.execute("SET LOCAL search_path = public, pg_catalog")
            made = await connection.fetchval(
                "INSERT INTO dispatcher.outbox (type, data) VALUES ('a.b', '{}') RETURNING id"
            )
            assert re.fullmatch(r"evt_\d{4}_000001", made)
            for forged in (
                "INSERT INTO dispatcher.outbox (position, type, data) VALUES (9, 'a.b', '{}')",
                "INSERT INTO dispatcher.outbox (inserted_at, type, data) VALUES (now(), 'a.b', '{}')",
                "INSERT INTO dispatcher.outbox (operational, type, data) VALUES (true, 'dispatcher.x', '{}')",
                "INSERT INTO dispatcher.outbox (consumed_at, type, data) VALUES (now(), 'a.b', '{}')",
                "INSERT INTO dispatcher.outbox (id, type, data) VALUES ('evt_2026_000009', 'a.b', '{}')",
                "INSERT INTO dispatcher.outbox (id, type) VALUES ('x', 'a.b') ON CONFLICT (id) DO UPDATE SET id = 'y'",
                "UPDATE dispatcher.outbox SET data = '{}'",
                "DELETE FROM dispatcher.outbox",
                "SELECT data FROM dispatcher.outbox",
                "SELECT id FROM dispatcher.outbox FOR UPDATE",
                "SELECT nextval('dispatcher.event_number')",
                "SELECT setval('dispatcher.event_number', 1)",
                "SELECT last_value FROM dispatcher.event_number",
                "SELECT setval('dispatcher.asleep_until', 0)",
                "SELECT dispatcher.make_partitions(1)",
                "SELECT dispatcher.drop_day('event', current_date)",
                "LOCK TABLE dispatcher.schema_migration IN ACCESS SHARE MODE",
                "LOCK TABLE dispatcher.outbox IN EXCLUSIVE MODE",
                "CREATE RULE r AS ON INSERT TO dispatcher.outbox DO INSTEAD NOTHING",
                "CREATE TRIGGER t BEFORE INSERT ON dispatcher.outbox EXECUTE FUNCTION dispatcher.outbox_notify()",
                "CREATE FUNCTION dispatcher.f() RETURNS void LANGUAGE sql AS ''",
                "SELECT sealed FROM dispatcher.endpoint_secret",
                "SELECT data FROM dispatcher.event",
            ):
                with pytest.raises(
                    (asyncpg.InsufficientPrivilegeError, asyncpg.CheckViolationError)
                ):
                    async with connection.transaction():
                        await connection.execute(forged)
            await connection.execute("RESET ROLE; SET LOCAL search_path = pg_catalog")
            await connection.execute("DROP FUNCTION public.lpad(text, integer, text)")
    finally:
        await connection.execute(f"DROP ROLE {role}")
        await connection.close()
