"""Expand and contract: this schema serves an earlier version's statements, and this version refuses an older schema."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from dispatcher.core.errors import SchemaError
from dispatcher.store import migrate as module
from dispatcher.store.migrate import known, migrate, require
from tests.support.cluster import run_apart, worker_name
from tests.support.daemon import Daemon

pytestmark = pytest.mark.postgres

STATEMENTS = Path(__file__).parent / "statements_of_0001.sql"
# Several commands in one text, or one that cannot be prepared: `migrate` alone sends them.
NOT_PREPARED = {
    "producer_role",
    "schema_bootstrap",
    "notify_attach",
    "notify_drop",
    "control_notify",
}


def statements() -> dict[str, str]:
    pieces = re.split(r"^-- statement: (\w+)\n", STATEMENTS.read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


@pytest.fixture(scope="module")
def url_with_pre(cluster) -> Iterator[str]:
    """A database to which this version's `pre` files are applied, and no `post` file."""
    name = f"with_pre_{worker_name()}"
    url = cluster.create(name)

    async def fill() -> None:
        connection = await asyncpg.connect(url)
        try:
            await migrate(connection, "pre")
        finally:
            await connection.close()

    run_apart(fill)
    yield url
    cluster.drop(name)


@pytest.mark.parametrize("name", sorted(statements().keys() - NOT_PREPARED))
async def test_a_statement_of_the_earlier_version_is_served_after_pre(url_with_pre, name):
    connection = await asyncpg.connect(url_with_pre)
    try:
        await connection.prepare(statements()[name])
    finally:
        await connection.close()


def test_the_statements_of_the_earlier_version_are_all_there():
    found = statements()
    assert len(found) == 79
    assert found.keys() >= NOT_PREPARED


async def test_a_statement_that_the_schema_no_longer_serves_would_be_seen(url_with_pre):
    """The control: a dropped column is an error at once."""
    connection = await asyncpg.connect(url_with_pre)
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("ALTER TABLE dispatcher.replica DROP COLUMN version CASCADE")
        with pytest.raises(asyncpg.UndefinedColumnError):
            await connection.prepare(statements()["replica_join"])
        await transaction.rollback()
    finally:
        await connection.close()


async def at_0001(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the schema of the earlier version."""
    first = [one for one in known() if one.name.startswith("0001_")]
    connection = await asyncpg.connect(url)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(module, "known", lambda: first)
            await migrate(connection)
    finally:
        await connection.close()


async def test_rows_of_the_earlier_schema_survive_pre(make_database, monkeypatch):
    url = make_database(migrated=False)
    await at_0001(url, monkeypatch)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "INSERT INTO dispatcher.outbox (id, type, data) VALUES ('own', 'a.b', '{}');"
            "INSERT INTO dispatcher.event (day, id, type, tenant, data, occurred_at, labels, inserted_at, accepted_at)"
            " SELECT (now() AT TIME ZONE 'UTC')::date, 'evt', 'a.b', 'default', '{}', now(), '{}', now(), now();"
            "INSERT INTO dispatcher.replica (incarnation, name, version, expires_at) VALUES ('i', 'n', '1', now())"
        )
        await migrate(connection, "pre")
        assert await connection.fetchval("SELECT NOT operational FROM dispatcher.outbox")
        assert await connection.fetchval("SELECT erased_at IS NULL FROM dispatcher.event")
        assert await connection.fetchval("SELECT key_ids IS NULL FROM dispatcher.replica")
        await require(connection)
    finally:
        await connection.close()


@pytest.mark.e2e
async def test_this_version_refuses_the_earlier_schema_and_says_what_to_do(
    make_database, monkeypatch, tmp_path
):
    url = make_database(migrated=False)
    await at_0001(url, monkeypatch)
    connection = await asyncpg.connect(url)
    try:
        with pytest.raises(SchemaError, match=r"too old.*run: dispatcher migrate"):
            await require(connection)
    finally:
        await connection.close()
    daemon = Daemon(url, tmp_path)
    try:
        assert await daemon.ended(30) == 2
        assert "dispatcher migrate" in daemon.log_path.read_text()
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
