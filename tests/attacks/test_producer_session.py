"""A session with psql as a producer: what it may not read, write, lock, call or set, statement by statement.

The session is that of a role with `dispatcher_producer` and nothing else, and an endpoint, an event and a secret exist.
"""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from dispatcher.store import migrate
from dispatcher.store.partitions import Partitions
from dispatcher.store.pool import Database
from tests.support.cluster import worker_name

pytestmark = pytest.mark.postgres

DENIED = "42501"
RELATIONS = """
SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relkind::text AS kind
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'dispatcher' AND c.relkind IN ('r', 'p', 'v', 'm', 'S') AND c.relname <> 'outbox'
ORDER BY 1
"""
PUBLISH = "INSERT INTO dispatcher.outbox (type, data) VALUES ('a.b', '{}')"
REFUSED = [
    # reading
    "SELECT * FROM dispatcher.outbox",
    "SELECT data FROM dispatcher.outbox",
    "SELECT tenant, type FROM dispatcher.outbox",
    "SELECT o FROM dispatcher.outbox AS o",
    "SELECT to_json(o) FROM dispatcher.outbox AS o",
    "SELECT ctid FROM dispatcher.outbox",
    "SELECT xmin FROM dispatcher.outbox",
    "SELECT id FROM dispatcher.outbox ORDER BY position",
    "SELECT id FROM dispatcher.outbox GROUP BY id HAVING max(inserted_at) > now()",
    f"{PUBLISH} RETURNING position",
    f"{PUBLISH} RETURNING inserted_at",
    f"{PUBLISH} RETURNING *",
    "COPY dispatcher.outbox (data) TO STDOUT",
    "CREATE TEMP VIEW v AS SELECT * FROM dispatcher.event; SELECT * FROM v",
    "SELECT * FROM pg_catalog.pg_statistic",
    "SELECT * FROM pg_catalog.pg_authid",
    f"{PUBLISH}; SELECT lastval()",
    f"{PUBLISH}; SELECT currval('dispatcher.event_number')",
    # changing
    "UPDATE dispatcher.outbox SET data = '{}'",
    "DELETE FROM dispatcher.outbox",
    "TRUNCATE dispatcher.outbox",
    "INSERT INTO dispatcher.outbox (type, data, position) VALUES ('a.b', '{}', 1)",
    "INSERT INTO dispatcher.outbox (type, data, inserted_at) VALUES ('a.b', '{}', '2000-01-01')",
    "INSERT INTO dispatcher.outbox (type, data, consumed_at) VALUES ('a.b', '{}', now())",
    "INSERT INTO dispatcher.outbox (type, data, operational) VALUES ('dispatcher.x', '{}', true)",
    "INSERT INTO dispatcher.outbox OVERRIDING SYSTEM VALUE VALUES (1, 'x', 'a.b', 'default', '{}')",
    "INSERT INTO dispatcher.outbox (id, type) VALUES ('x', 'a.b') ON CONFLICT (id) DO UPDATE SET id = 'y'",
    "MERGE INTO dispatcher.outbox USING (VALUES (1)) AS v ON true WHEN MATCHED THEN DELETE",
    # delaying
    "SELECT id FROM dispatcher.outbox FOR UPDATE",
    "SELECT id FROM dispatcher.outbox FOR KEY SHARE",
    "LOCK TABLE dispatcher.outbox IN ACCESS EXCLUSIVE MODE",
    "LOCK TABLE dispatcher.outbox IN SHARE MODE",
    "LOCK TABLE dispatcher.endpoint IN ACCESS SHARE MODE",
    "SELECT nextval('dispatcher.event_number')",
    "SELECT setval('dispatcher.event_number', 1)",
    "SELECT setval('dispatcher.asleep_until', 0)",
    "COMMENT ON TABLE dispatcher.outbox IS 'x'",
    "REINDEX TABLE dispatcher.outbox",
    # becoming another role, or steering it
    "SET session_replication_role = replica",
    "SET log_min_messages = debug5",
    "ALTER ROLE dispatcher_producer SET statement_timeout = 1",
    "GRANT SELECT ON dispatcher.outbox TO PUBLIC",
    "ALTER TABLE dispatcher.outbox DISABLE TRIGGER ALL",
    "CREATE TABLE dispatcher.x (a int)",
    "CREATE FUNCTION dispatcher.x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE TRIGGER t BEFORE INSERT ON dispatcher.outbox EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE TEMP TABLE t (a int); CREATE TRIGGER t BEFORE INSERT ON t EXECUTE FUNCTION dispatcher.outbox_accept()",
    "CREATE TEMP TABLE t (id text); CREATE TRIGGER t AFTER INSERT ON t EXECUTE FUNCTION dispatcher.outbox_notify()",
    "COPY dispatcher.outbox (type, data) FROM PROGRAM 'id'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_create_physical_replication_slot('x')",
]  # fmt: skip
INVALID = [
    ("id", "'evt_2026_000099'"),
    ("id", "E'evt_2026_000099\\n'"),
    ("id", "'evt_٢٠٢٦_000099'"),
    ("tenant", "'*'"),
    ("tenant", "E'ac\\tme'"),
    ("occurred_at", "'infinity'"),
    ("occurred_at", "'4713-01-01 BC'"),
    ("ordering_key", "repeat('ก', 257)"),
    ("traceparent", "repeat('x', 257)"),
    ("labels", "'[]'"),
    ("labels", "'null'"),
    ("labels", "'{\"a\": 1}'"),
    ("labels", "(SELECT jsonb_object_agg('k' || g, 'v') FROM generate_series(1, 21) AS g)"),
]
PURE = "SELECT p.oid::regprocedure::text FROM pg_proc AS p WHERE p.pronamespace = 'dispatcher'::regnamespace"


@pytest.fixture
async def owner(fresh_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(fresh_database)
    await migrate.grant_producers(connection)
    yield connection
    await connection.close()


@pytest.fixture
async def producer(
    owner: asyncpg.Connection, fresh_database: str
) -> AsyncIterator[asyncpg.Connection]:
    """A session of a role that may publish and has no other right."""
    role = f"hostile_producer_{worker_name()}"
    await owner.execute(f"CREATE ROLE {role} LOGIN; GRANT dispatcher_producer TO {role}")
    await owner.execute(PUBLISH)
    connection = await asyncpg.connect(fresh_database, user=role)
    yield connection
    await connection.close()
    await owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def _state(connection: asyncpg.Connection, statement: str) -> str:
    """Return the SQLSTATE of a statement in a transaction that is rolled back; empty: it succeeded."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(statement)
    except asyncpg.PostgresError as error:
        return str(error.sqlstate)
    finally:
        await transaction.rollback()
    return ""


async def test_a_producer_reads_and_writes_no_other_relation(owner, producer):
    relations = await owner.fetch(RELATIONS)
    assert len(relations) > 50
    allowed = []
    for name, kind in relations:
        statements = [f"SELECT FROM {name} LIMIT 1"]
        if kind in {"r", "p"}:
            statements += [
                f"INSERT INTO {name} DEFAULT VALUES",
                f"DELETE FROM {name}",
                f"TRUNCATE {name}",
            ]
        allowed += [one for one in statements if await _state(producer, one) != DENIED]
    assert allowed == []


async def test_each_statement_of_a_producer_is_refused(owner, producer):
    name = await owner.fetchval("SELECT quote_ident(current_user)")
    other = [
        f"SET ROLE {name}",
        f"SET SESSION AUTHORIZATION {name}",
        f"ALTER ROLE {name} RESET ALL",
    ]
    states = {statement: await _state(producer, statement) for statement in (*REFUSED, *other)}
    assert {one: state for one, state in states.items() if state != DENIED} == {}


async def test_a_producer_sees_no_statistics_and_no_sequence(owner, producer):
    await owner.execute("ANALYZE dispatcher.outbox")
    seen = await producer.fetch("SELECT attname FROM pg_stats WHERE schemaname = 'dispatcher'")
    assert {row["attname"] for row in seen} <= {"id"}
    sequences = await producer.fetch(
        "SELECT last_value FROM pg_sequences WHERE schemaname = 'dispatcher'"
    )
    assert [row["last_value"] for row in sequences if row["last_value"] is not None] == []


async def test_each_forged_value_of_a_producer_is_refused(producer):
    states = {}
    for column, value in INVALID:
        statement = (
            f"INSERT INTO dispatcher.outbox (type, data, {column}) VALUES ('a.b', '{{}}', {value})"
        )
        states[column, value] = await _state(producer, statement)
    assert {one: state for one, state in states.items() if state != "23514"} == {}


async def test_a_producer_calls_no_function_with_rights_of_another(producer):
    """Of the functions with the owner's rights, it may call none; the others have its own rights."""
    callable_ones = await producer.fetch(
        f"{PURE} AND prosecdef AND has_function_privilege(p.oid, 'EXECUTE')"
    )
    assert callable_ones == []
    changing = await producer.fetch(
        f"{PURE} AND provolatile = 'v' AND has_function_privilege(p.oid, 'EXECUTE')"
    )
    assert {row[0].partition("(")[0] for row in changing} == {"dispatcher.publish"}


async def test_prepared_statements_of_a_producer_do_not_stop_retention(
    owner, producer, fresh_database
):
    """PREPARE locks the tables of its statement without checking a right, until the transaction ends."""
    database = Database(fresh_database, connections_max=1)
    await database.open()
    try:
        yesterday = await owner.fetchval("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date - 1")
        await producer.execute(
            "BEGIN; PREPARE p AS DELETE FROM dispatcher.schema_migration;"
            "PREPARE q AS SELECT FROM dispatcher.schema_migration FOR UPDATE"
        )
        assert await Partitions(database).drop("delivery_done", yesterday) == "dropped"
        assert await Partitions(database).empty_attempts(yesterday) == "emptied"
    finally:
        await producer.execute("ROLLBACK")
        await database.close()


async def test_control_the_owner_may_do_what_a_producer_may_not(owner):
    assert await _state(owner, "SELECT data FROM dispatcher.outbox") == ""
    assert await _state(owner, "SELECT nextval('dispatcher.event_number')") == ""
