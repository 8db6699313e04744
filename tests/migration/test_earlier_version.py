"""Expand and contract, shown with an artificial second migration: rows survive, and what does not fit is refused."""

import subprocess
import sys

import asyncpg
import pytest

from dispatcher.core.errors import SchemaError
from dispatcher.store import migrate as module
from dispatcher.store.migrate import Migration, known, migrate, require
from dispatcher.store.statements import names, statement
from tests.support.daemon import Daemon

pytestmark = pytest.mark.postgres

SECOND = Migration(
    "0002_pre_artificial",
    "pre",
    "ALTER TABLE dispatcher.replica ADD COLUMN colour text;"
    "ALTER TABLE dispatcher.event ADD COLUMN colour text;"
    "CREATE INDEX event_colour ON dispatcher.event (colour)",
    "x",
)
# Several commands in one text, or one that cannot be prepared: `migrate` alone sends them.
NOT_PREPARED = {
    "producer_role",
    "schema_bootstrap",
    "schema_mark_dev",
    "producer_notify_attach",
    "producer_notify_drop",
    "transaction_begin",
    "migration_begin",
    "migration_lock",
    "schema_create",
    "producer_member",
    "producer_trial",
    # Of servers with the extension citus: tests/distributed.
    "history_distribute",
    "history_functions",
    "history_prepared_max",
    "history_state",
}


async def upgraded(url: str, monkeypatch: pytest.MonkeyPatch) -> asyncpg.Connection:
    """Applies the artificial migration to a database of this version; returns a connection to it."""
    connection = await asyncpg.connect(url)
    newer = [*known(), SECOND]
    with monkeypatch.context() as patched:
        patched.setattr(module, "known", lambda: newer)
        assert await migrate(connection, "pre") == [SECOND.name]
    return connection


async def test_statements_of_this_version_are_served_after_a_newer_pre(fresh_database, monkeypatch):
    connection = await upgraded(fresh_database, monkeypatch)
    try:
        await require(connection)
        for name in sorted(names() - NOT_PREPARED):
            await connection.prepare(statement(name))
    finally:
        await connection.close()


async def test_control_a_dropped_column_fails_a_statement(fresh_database):
    connection = await asyncpg.connect(fresh_database)
    try:
        await connection.execute("ALTER TABLE dispatcher.replica DROP COLUMN version CASCADE")
        with pytest.raises(asyncpg.UndefinedColumnError):
            await connection.prepare(statement("replica_join"))
    finally:
        await connection.close()


async def test_rows_of_this_version_survive_a_newer_pre(fresh_database, monkeypatch):
    connection = await asyncpg.connect(fresh_database)
    try:
        await connection.execute(
            "INSERT INTO dispatcher.outbox (id, type, data) VALUES ('own', 'a.b', '{}');"
            "INSERT INTO dispatcher.replica (incarnation, name, version, expires_at) VALUES ('i', 'n', '1', now())"
        )
        newer = await upgraded(fresh_database, monkeypatch)
        await newer.close()
        assert await connection.fetchval("SELECT id FROM dispatcher.outbox") == "own"
        assert await connection.fetchval("SELECT colour IS NULL FROM dispatcher.replica")
    finally:
        await connection.close()


async def test_a_newer_version_refuses_the_schema_of_this_one(fresh_database, monkeypatch):
    connection = await asyncpg.connect(fresh_database)
    try:
        newer = [*known(), SECOND]
        monkeypatch.setattr(module, "known", lambda: newer)
        with pytest.raises(SchemaError, match=r"too old.*run: dispatcher migrate"):
            await require(connection)
    finally:
        await connection.close()


@pytest.mark.e2e
@pytest.mark.parametrize("is_migrated", [False, True], ids=["no schema", "unknown post"])
async def test_a_daemon_refuses_a_schema_that_does_not_fit(make_database, is_migrated, tmp_path):
    url = make_database(migrated=is_migrated)
    if is_migrated:
        connection = await asyncpg.connect(url)
        await connection.execute(
            "INSERT INTO dispatcher.schema_migration VALUES ('0002_post_newer', 'post', 'x')"
        )
        await connection.close()
    daemon = Daemon(url, tmp_path)
    try:
        assert await daemon.ended(30) == 2
        advice = "upgrade dispatcher" if is_migrated else "dispatcher migrate"
        assert advice in daemon.log_path.read_text()
    finally:
        daemon.stop()


def test_what_is_pending_is_named(make_database):
    url = make_database(migrated=False)
    finished = subprocess.run(
        [sys.executable, "-m", "dispatcher", "migrate", "--check"],
        env={"DISPATCHER_DATABASE_URL": url, "DISPATCHER_HOME": "/nonexistent", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 1
    assert finished.stdout.split() == [one.name for one in known()]
