"""Migrations: each file once, by phase, checksummed; what is unknown is accepted or refused by its phase."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from dispatcher.core.errors import SchemaError
from dispatcher.store import migrate as module
from dispatcher.store.migrate import has_notify, known, migrate, pending, require, set_notify
from tests.support.daemon import until
from tests.support.servers import own_cluster

pytestmark = pytest.mark.postgres

EVERYTHING = """
    SELECT 'column', table_name || '.' || column_name, data_type || is_nullable || coalesce(column_default, '')
    FROM information_schema.columns WHERE table_schema = 'dispatcher'
    UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'dispatcher'
    UNION ALL SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(c.oid)
    FROM pg_constraint AS c JOIN pg_namespace AS n ON n.oid = connamespace WHERE nspname = 'dispatcher'
    UNION ALL SELECT 'function', p.oid::regprocedure::text, pg_get_functiondef(p.oid)
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = pronamespace WHERE nspname = 'dispatcher'
    UNION ALL SELECT 'trigger', tgrelid::regclass || '.' || tgname, pg_get_triggerdef(t.oid)
    FROM pg_trigger AS t WHERE NOT tgisinternal
    ORDER BY 1, 2, 3
"""


@pytest.fixture
async def sql(make_database) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(make_database(migrated=False))
    yield connection
    await connection.close()


async def _everything(connection) -> list[tuple[str, ...]]:
    return [tuple(row) for row in await connection.fetch(EVERYTHING)]


async def test_migrating_applies_every_file_once_in_order(sql):
    names = [migration.name for migration in known()]
    assert names == sorted(names)
    assert await migrate(sql) == names
    assert await migrate(sql) == []
    await require(sql)


async def test_phase_by_phase_makes_the_same_schema_as_all_at_once(sql, make_database):
    await migrate(sql)
    other = await asyncpg.connect(make_database(migrated=False))
    try:
        await migrate(other, "pre")
        await require(other)
        await migrate(other, "post")
        assert await pending(other) == []
        assert await _everything(other) == await _everything(sql)
    finally:
        await other.close()


async def test_two_at_once_apply_each_file_once(make_database):
    url = make_database(migrated=False)
    connections = [await asyncpg.connect(url) for _ in range(2)]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(migrate(connection)) for connection in connections]
        done = [name for task in tasks for name in task.result()]
        assert sorted(done) == [migration.name for migration in known()]
    finally:
        for connection in connections:
            await connection.close()


async def test_an_applied_file_that_was_changed_is_refused(sql):
    await migrate(sql)
    await sql.execute("UPDATE dispatcher.schema_migration SET checksum = 'other'")
    for action in (pending, migrate, require):
        with pytest.raises(SchemaError, match="other contents"):
            await action(sql)


@pytest.mark.parametrize("phase", ["pre", "post"])
async def test_an_unknown_pre_file_is_accepted_and_an_unknown_post_file_refused(sql, phase):
    await migrate(sql)
    await sql.execute(
        "INSERT INTO dispatcher.schema_migration (name, phase, checksum) VALUES ($1, $2, 'x')",
        f"9999_{phase}_of_a_newer_version",
        phase,
    )
    if phase == "pre":
        await require(sql)
    else:
        with pytest.raises(SchemaError, match="too new"):
            await require(sql)


async def test_a_missing_pre_file_is_too_old_and_a_missing_post_file_is_not(sql, monkeypatch):
    await migrate(sql)
    files = known()
    newer = [
        *files,
        module.Migration("9998_post_x", "post", "SELECT 1", "x"),
    ]
    monkeypatch.setattr(module, "known", lambda: newer)
    await require(sql)
    monkeypatch.setattr(
        module, "known", lambda: [*newer, module.Migration("9999_pre_x", "pre", "SELECT 1", "x")]
    )
    with pytest.raises(SchemaError, match="too old: 9999_pre_x"):
        await require(sql)


async def test_a_file_that_fails_leaves_nothing_of_itself(sql, monkeypatch):
    files = known()
    bad = module.Migration(
        "9999_pre_bad", "pre", "CREATE TABLE dispatcher.half (); SELECT 1/0", "x"
    )
    monkeypatch.setattr(module, "known", lambda: [*files, bad])
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(sql)
    assert await sql.fetchval("SELECT to_regclass('dispatcher.half') IS NULL")
    assert [m.name for m in await pending(sql)] == ["9999_pre_bad"]


async def test_a_lock_that_is_held_is_waited_for_with_a_bound(make_database, monkeypatch):
    """F9: a migration leaves the lock's queue again and again, and in the end gives up."""
    monkeypatch.setattr(module, "_LOCK_RETRIES", 2)
    monkeypatch.setattr(module, "_LOCK_RETRY_SECONDS", 0.01)
    late = module.Migration(
        "9999_pre_late", "pre", "ALTER TABLE dispatcher.outbox ADD late int", "x"
    )
    files = [*known(), late]
    url = make_database()
    monkeypatch.setattr(module, "known", lambda: files)
    connection, holder = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        await holder.execute("BEGIN; LOCK TABLE dispatcher.outbox IN ACCESS SHARE MODE")
        with pytest.raises(SchemaError, match=r"a lock could not be had.*held by pid"):
            await migrate(connection)
        await holder.execute("COMMIT")
        assert await migrate(connection) == ["9999_pre_late"]
    finally:
        await connection.close()
        await holder.close()


async def test_a_prepared_transaction_that_holds_a_lock_is_named(monkeypatch):
    """It has no session: pg_terminate_backend() does not end it, and it survives a restart."""
    monkeypatch.setattr(module, "_LOCK_RETRIES", 2)
    monkeypatch.setattr(module, "_LOCK_RETRY_SECONDS", 0.01)
    with own_cluster(max_prepared_transactions="1") as postgres:
        connection = await asyncpg.connect(await asyncio.to_thread(postgres.start))
        try:
            await migrate(connection)
            await connection.execute(
                "BEGIN; INSERT INTO dispatcher.outbox (type, data) VALUES ('a.b', '{}');"
                "PREPARE TRANSACTION 'forgotten'"
            )
            with pytest.raises(
                SchemaError, match=r"held by prepared transaction 'forgotten'.*ROLLBACK PREPARED"
            ):
                await set_notify(connection, wanted=True)
            await connection.execute("ROLLBACK PREPARED 'forgotten'")
            assert await set_notify(connection, wanted=True)
        finally:
            await connection.close()


@pytest.mark.parametrize("is_bad", [False, True], ids=["ours", "known-bad"])
async def test_control_migration_without_lock_timeout_blocks_readers(
    make_database, monkeypatch, is_bad
):
    """F9: a long transaction reads; the migration stands in line behind it, and readers behind the migration."""
    change = "ALTER TABLE dispatcher.outbox ADD late int"
    files = [*known(), module.Migration("9999_pre_late", "pre", change, "x")]
    url = make_database()
    monkeypatch.setattr(module, "known", lambda: files)
    connections = [await asyncpg.connect(url) for _ in range(4)]
    migrating, holder, reader, watching = connections
    await holder.execute("BEGIN; LOCK TABLE dispatcher.outbox IN ACCESS SHARE MODE")
    running = asyncio.get_running_loop().create_task(
        migrating.execute(change) if is_bad else migrate(migrating)
    )

    async def stands_in_line() -> bool:
        return bool(await watching.fetchval("SELECT bool_or(NOT granted) FROM pg_locks"))

    await until(stands_in_line, seconds=5, what="the migration to wait")
    reading = asyncio.get_running_loop().create_task(
        reader.fetchval("SELECT count(*) FROM dispatcher.outbox")
    )
    await asyncio.wait([reading], timeout=1.0)
    assert reading.done() is not is_bad
    await holder.execute("COMMIT")
    await asyncio.wait([running, reading])
    assert (running.exception(), reading.exception()) == (None, None)
    for connection in connections:
        await connection.close()


async def test_the_wake_up_call_is_attached_and_dropped(sql):
    await migrate(sql)
    before = await has_notify(sql)
    assert await set_notify(sql, wanted=not before)
    assert await has_notify(sql) is not before
    assert not await set_notify(sql, wanted=not before)
    assert await set_notify(sql, wanted=before)
