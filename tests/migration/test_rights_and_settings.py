"""Migrating in a database whose settings, default rights or owners are not the usual ones."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from dispatcher.core.errors import SchemaError
from dispatcher.store import migrate
from dispatcher.store.producers import may_act_as_producer, producer_excess, producer_insert_problem
from dispatcher.store.schema import strangers
from tests.support.cluster import worker_name

pytestmark = pytest.mark.postgres

ODD_SETTINGS = {
    "standard_conforming_strings": "off",
    "search_path": "public",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "default_transaction_isolation": "serializable",
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kolkata",
    "statement_timeout": "1h",
    "check_function_bodies": "off",
}


@pytest.fixture
async def admin(make_database) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(make_database(migrated=False))
    yield connection
    await connection.close()


@pytest.fixture
async def owner(admin) -> AsyncIterator[asyncpg.Connection]:
    """Yields a connection as an ordinary role, which may not create anything."""
    name = f"owner_{worker_name()}"
    database = await admin.fetchval("SELECT current_database()")
    await admin.execute(
        f'DROP ROLE IF EXISTS {name}; CREATE ROLE {name}; REVOKE CREATE ON DATABASE "{database}" FROM PUBLIC'
    )
    host = (await admin.fetchval("SHOW unix_socket_directories")).split(",")[0]
    connection = await asyncpg.connect(f"postgresql://dispatcher@/{database}?host={host}")
    await connection.execute(f"SET SESSION AUTHORIZATION {name}")
    yield connection
    await connection.close()
    await admin.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


async def test_settings_of_the_database_change_nothing_in_the_schema(admin):
    """standard_conforming_strings = off takes a backslash out of a rule, also when a producer sets it."""
    name = await admin.fetchval("SELECT current_database()")
    for setting, value in ODD_SETTINGS.items():
        await admin.execute(
            f'ALTER DATABASE "{name}" SET {setting} = {value if "," in value else repr(value)}'
        )
        await admin.execute(f"SET {setting} = {value if ',' in value else repr(value)}")
    await migrate.migrate(admin)
    await migrate.grant_producers(admin)
    with pytest.raises(asyncpg.CheckViolationError):
        await admin.execute(
            "INSERT INTO dispatcher.outbox (type, data) VALUES ('orderXcreated', '{}')"
        )


async def test_control_a_weakened_rule_is_found(admin):
    await migrate.migrate(admin)
    rules = await admin.fetchval("SELECT pg_get_functiondef('dispatcher.outbox_accept'::regproc)")
    await admin.execute(rules.replace("length(NEW.type) <= 128", "length(NEW.type) <= 256"))
    async with migrate.step(admin):
        problems = await migrate.definition_problems(admin)
    assert [one for one in problems if "outbox_accept" in one] == problems != []
    with pytest.raises(SchemaError, match="outbox_accept"):
        await migrate.migrate(admin)


async def test_closed_default_rights_leave_producers_what_they_need(admin):
    await admin.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    await migrate.migrate(admin)
    await migrate.set_notify(admin, wanted=True)
    assert await migrate.grant_producers(admin) is None
    async with migrate.step(admin):
        assert await migrate.producers_problems(admin) == []
        assert await producer_insert_problem(admin) is None
        assert await producer_excess(admin) == []


async def test_a_missing_right_of_producers_is_named_and_met(admin):
    await migrate.migrate(admin)
    await migrate.grant_producers(admin)
    await admin.execute(
        "REVOKE ALL ON FUNCTION dispatcher.labels_are_valid(jsonb) FROM PUBLIC, dispatcher_producer"
    )
    async with migrate.step(admin):
        (problem,) = await migrate.producers_problems(admin)
        assert "GRANT EXECUTE ON FUNCTION dispatcher.labels_are_valid" in problem
        met = await producer_insert_problem(admin)
    assert met == "permission denied for function labels_are_valid"
    assert await admin.fetchval("SELECT count(*) FROM dispatcher.outbox") == 0


async def test_a_producers_open_ids_do_not_fail_the_trial_insert(admin):
    await migrate.migrate(admin)
    await migrate.grant_producers(admin)
    host = (await admin.fetchval("SHOW unix_socket_directories")).split(",")[0]
    name = await admin.fetchval("SELECT current_database()")
    producer = await asyncpg.connect(f"postgresql://dispatcher@/{name}?host={host}")
    try:
        await admin.execute("SET lock_timeout = '1s'")
        await producer.execute("BEGIN")
        await producer.execute(
            "INSERT INTO dispatcher.outbox (id, type, data) VALUES ($1, 'a.b', '{}')",
            f"dispatcher_check_{admin.get_server_pid()}",
        )
        async with migrate.step(admin):
            assert await producer_insert_problem(admin) is None
    finally:
        await producer.close()


async def test_public_may_execute_only_functions_of_their_arguments(admin):
    await migrate.migrate(admin)
    rows = await admin.fetch(
        "SELECT p.proname::text FROM pg_proc AS p WHERE p.pronamespace = 'dispatcher'::regnamespace"
        " AND EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a WHERE a.grantee = 0)"
    )
    assert {row[0] for row in rows} == {
        "labels_are_valid",
        "delivery_id",
        "delivery_uuid",
        "delivery_created_at",
        "order_key",
    }


async def test_roles_that_may_create_on_our_path_are_named(admin):
    await migrate.migrate(admin)
    async with migrate.step(admin):
        assert await strangers(admin) == []
    await admin.execute("GRANT CREATE ON SCHEMA dispatcher TO PUBLIC")
    async with migrate.step(admin):
        (found,) = await strangers(admin)
    assert found.endswith("REVOKE CREATE ON SCHEMA dispatcher FROM PUBLIC")


async def test_a_schema_that_the_role_owns_needs_no_right_on_the_database(admin, owner):
    user = await owner.fetchval("SELECT current_user::text")
    with pytest.raises(SchemaError, match=f"CREATE SCHEMA dispatcher AUTHORIZATION {user}"):
        await migrate.migrate(owner)
    await admin.execute(f"CREATE SCHEMA dispatcher AUTHORIZATION {user}")
    assert await migrate.migrate(owner) == [one.name for one in migrate.known()]
    assert await migrate.migrate(owner) == []


async def test_a_schema_of_another_role_is_named_with_its_owner(admin, owner):
    await admin.execute("CREATE SCHEMA dispatcher")
    with pytest.raises(SchemaError, match="belongs to role dispatcher"):
        await migrate.migrate(owner)


async def test_the_sql_for_the_dba_runs_as_it_is_printed(admin, owner):
    user = await owner.fetchval("SELECT current_user::text")
    await admin.execute(f"CREATE SCHEMA dispatcher AUTHORIZATION {user}")
    await migrate.migrate(owner)
    if await admin.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = 'dispatcher_producer'"):
        await admin.execute("ALTER ROLE dispatcher_producer RENAME TO dispatcher_producer_before")
    try:
        sql = await migrate.grant_producers(owner)
        assert sql is not None
        await admin.execute(sql)
        async with migrate.step(owner):
            assert await migrate.producers_problems(owner) == []
            assert await may_act_as_producer(owner)
            assert await producer_insert_problem(owner) is None
    finally:
        await admin.execute("DROP OWNED BY dispatcher_producer; DROP ROLE dispatcher_producer")
        if await admin.fetchval(
            "SELECT count(*) FROM pg_roles WHERE rolname = 'dispatcher_producer_before'"
        ):
            await admin.execute(
                "ALTER ROLE dispatcher_producer_before RENAME TO dispatcher_producer"
            )


async def test_a_migration_that_waits_names_the_holder(admin, monkeypatch):
    monkeypatch.setattr(migrate, "_LOCK_RETRIES", 2)
    late = migrate.Migration(
        "9999_pre_late", "pre", "ALTER TABLE dispatcher.outbox ADD late int", "x"
    )
    files = [*migrate.known(), late]
    await migrate.migrate(admin)
    monkeypatch.setattr(migrate, "known", lambda: files)
    database = await admin.fetchval("SELECT current_database()")
    host = (await admin.fetchval("SHOW unix_socket_directories")).split(",")[0]
    holder = await asyncpg.connect(
        f"postgresql://dispatcher@/{database}?host={host}",
        server_settings={"application_name": "nightly report"},
    )
    reports: list[str] = []
    try:
        await holder.execute("BEGIN; LOCK TABLE dispatcher.schema_migration IN SHARE MODE")
        with pytest.raises(SchemaError, match=f"pid {holder.get_server_pid()} .*nightly report"):
            await migrate.migrate(admin, report=reports.append)
    finally:
        await holder.close()
    assert len(reports) == 1
    assert "nightly report" in reports[0]
