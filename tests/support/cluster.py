"""The throw-away Postgres of a test run: one cluster, one migrated template, one clone per worker.

The process that pytest was started in owns the cluster, also where xdist spreads the tests: it
starts it before the workers and stops it after them, and if it is killed the kernel ends the server
with it. Workers are told the socket's folder. fsync is off: nothing here is meant to last.

A worker's database is emptied for each test, by a function in the template. What the
migrations themselves insert is kept aside in the template (schema `seed`) and put back.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import asyncpg

from dispatcher.core import codes
from dispatcher.dev.postgres import Postgres
from dispatcher.dev.postgres_binaries import PostgresError

Result = TypeVar("Result")

TEMPLATE = "dispatcher_template"
TEMPLATE_LOCK = 7_263_001
EMPTY = """
CREATE FUNCTION seed.empty() RETURNS void LANGUAGE plpgsql
SET session_replication_role = replica SET lock_timeout = '10s' AS $$
DECLARE
    written text;
BEGIN
    PERFORM pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend';
    -- A table without a page has held no row, also none that was rolled back.
    SELECT string_agg(c.oid::regclass::text, ', ') INTO written FROM pg_class AS c
    WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind = 'r' AND c.relname <> 'schema_migration'
      AND pg_relation_size(c.oid) > 0;
    IF written IS NOT NULL THEN
        EXECUTE 'TRUNCATE ' || written || ' CASCADE';
    END IF;
    {restore}
    PERFORM setval(s.seqrelid, s.seqstart, false) FROM pg_sequence AS s JOIN pg_class AS c ON c.oid = s.seqrelid
    WHERE c.relnamespace = 'dispatcher'::regnamespace;
END $$
"""
"""Only tables that were written are truncated: to truncate all of them takes 20 times as long."""
MEMORY_BYTES_MIN = 4 * 2**30
SETTINGS = {"max_connections": "200", "max_wal_senders": "0", "wal_level": "minimal"}


def run_apart(
    make: Callable[[], Coroutine[Any, Any, Result]],
    run: Callable[[Coroutine[Any, Any, Result]], Result] = asyncio.run,
) -> Result:
    """Runs a coroutine on a loop and a thread of its own, so that no test's loop is touched."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(run(make()))
        except BaseException as error:  # noqa: BLE001 -- handed to the caller's thread
            errors.append(error)

    thread = threading.Thread(target=work, name="cluster-admin")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class Cluster:
    """What a worker knows of the running cluster."""

    def __init__(self, socket_directory: str) -> None:
        self.socket_directory = socket_directory
        self._emptiers: dict[str, Emptier] = {}

    def dsn_for(self, database: str) -> str:
        return f"postgresql://dispatcher@/{database}?host={self.socket_directory}"

    def clone(self, name: str) -> str:
        """Clones the migrated template, replacing a database of that name; returns its URL."""
        run_apart(lambda: self._clone(name))
        return self.dsn_for(name)

    def create(self, name: str) -> str:
        """Makes an empty database, replacing one of that name; returns its URL."""
        run_apart(lambda: self._replace(name, "template0"))
        return self.dsn_for(name)

    def drop(self, name: str) -> None:
        run_apart(lambda: self._drop(name))

    def empty(self, name: str) -> None:
        """Puts a clone back to what the migrations left; ends connections that a test left open."""
        emptier = self._emptiers.setdefault(name, Emptier(self.dsn_for(name)))
        emptier.empty()

    def close(self) -> None:
        """Closes the connections that it keeps."""
        for emptier in self._emptiers.values():
            emptier.close()

    async def _clone(self, name: str) -> None:
        await self._make_template()
        await self._replace(name, TEMPLATE)

    async def _replace(self, name: str, template: str) -> None:
        connection = await asyncpg.connect(self.dsn_for("postgres"))
        try:
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        finally:
            await connection.close()

    async def _drop(self, name: str) -> None:
        connection = await asyncpg.connect(self.dsn_for("postgres"))
        try:
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        finally:
            await connection.close()

    async def _make_template(self) -> None:
        # The first worker migrates; the others wait for its lock and find the finished template.
        connection = await asyncpg.connect(self.dsn_for("postgres"))
        try:
            await connection.execute("SELECT pg_advisory_lock($1)", TEMPLATE_LOCK)
            known = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)"
            if await connection.fetchval(known, TEMPLATE):
                return
            unfinished = f"{TEMPLATE}_unfinished"
            await connection.execute(f'DROP DATABASE IF EXISTS "{unfinished}" WITH (FORCE)')
            await connection.execute(f'CREATE DATABASE "{unfinished}" TEMPLATE template0')
            await migrate_for_tests(self.dsn_for(unfinished))
            await connection.execute(f'ALTER DATABASE "{unfinished}" RENAME TO "{TEMPLATE}"')
        finally:
            await connection.close()


async def migrate_for_tests(dsn: str) -> None:
    """Migrates a database, with the function that empties it and the insertable views."""
    from dispatcher.store.migrate import migrate  # noqa: PLC0415 -- only the template needs it

    connection = await asyncpg.connect(dsn)
    try:
        await migrate(connection)
        await connection.execute(_words())
        await connection.execute("CREATE SCHEMA seed")
        restore = ""
        for table in await _tables(connection):
            if await connection.fetchval(f'SELECT EXISTS (SELECT FROM dispatcher."{table}")'):
                columns = await _stored_columns(connection, table)
                await connection.execute(
                    f'CREATE TABLE seed."{table}" AS SELECT {columns} FROM dispatcher."{table}"'
                )
                if table != "schema_migration":
                    restore += (
                        f'INSERT INTO dispatcher."{table}" ({columns}) OVERRIDING SYSTEM VALUE '
                        f'SELECT {columns} FROM seed."{table}";\n'
                    )
        await connection.execute(EMPTY.format(restore=restore))
    finally:
        await connection.close()


def _words() -> str:
    """Returns the SQL of the insertable views (words.sql)."""
    text = (Path(__file__).parent / "words.sql").read_text()
    for name, words in (("REASONS", codes.REASONS), ("OUTCOMES", codes.OUTCOMES)):
        text = text.replace(f"${name}$", ", ".join(f"'{word}'" for word in words))
    return text


async def _tables(connection: asyncpg.Connection) -> list[str]:
    """Returns the schema's tables, partitions left out: their parents stand for them."""
    rows = await connection.fetch(
        """
        SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'dispatcher' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
        ORDER BY c.relname
        """
    )
    return [row["relname"] for row in rows]


async def _stored_columns(connection: asyncpg.Connection, table: str) -> str:
    rows = await connection.fetch(
        """
        SELECT a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'dispatcher' AND c.relname = $1 AND a.attnum > 0
          AND NOT a.attisdropped AND a.attgenerated = ''
        ORDER BY a.attnum
        """,
        table,
    )
    return ", ".join(f'"{row["attname"]}"' for row in rows)


class Emptier:
    """Empties a database over one connection: a new backend for each test would compile the function again."""

    descriptors: ClassVar[set[str]] = set()
    """Of the connections that stay open from test to test, which is no leak of the one that opened them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._runner = asyncio.Runner()
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._descriptor = ""

    def empty(self) -> None:
        """Empty the database; connect again if the connection was ended."""
        run_apart(self._empty, self._runner.run)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.terminate()
        run_apart(
            lambda: asyncio.sleep(0), self._runner.run
        )  # the transport closes on a turn of its loop
        self._runner.close()

    async def _empty(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await self._connection.execute("SELECT seed.empty()")
                return
            self._connection.terminate()
        self.descriptors.discard(self._descriptor)
        self._connection = await asyncpg.connect(self.url)
        transport = self._connection._transport  # type: ignore[attr-defined]  # the driver offers no other way
        self._descriptor = str(transport.get_extra_info("socket").fileno())
        self.descriptors.add(self._descriptor)
        await self._connection.execute("SELECT seed.empty()")


class OwnedCluster:
    """The cluster as its owner sees it; `error` tells why there is none."""

    def __init__(self) -> None:
        # Root's Postgres runs as another user, who must be able to pass this folder.
        self._directory = Path(tempfile.mkdtemp(prefix="dispatcher-test-", dir=_memory_directory()))
        self._directory.chmod(0o711)
        self._postgres = Postgres(self._directory / "data", durable=False, settings=SETTINGS)
        self.socket_directory: str | None = None
        self.error: str | None = None

    def start(self) -> None:
        """Starts it; where that is not possible, keeps the reason for the tests that need it."""
        try:
            self._postgres.start()
        except PostgresError as error:
            self.error = str(error)
        else:
            self.socket_directory = str(self._postgres.socket_directory)

    def stop(self) -> None:
        self._postgres.stop()
        shutil.rmtree(self._directory, ignore_errors=True)


def _memory_directory() -> str | None:
    """Returns a folder in memory, None if there is none with room: emptied tables are new files each time."""
    directory = Path("/dev/shm")  # noqa: S108 -- files of a mode of their own in it
    try:
        usage = shutil.disk_usage(directory)
    except OSError:
        return None
    is_usable = os.access(directory, os.W_OK | os.X_OK) and usage.free > MEMORY_BYTES_MIN
    return str(directory) if is_usable else None


def worker_name() -> str:
    """Returns xdist's name of this worker, or `main`."""
    return os.environ.get("PYTEST_XDIST_WORKER", "main")
