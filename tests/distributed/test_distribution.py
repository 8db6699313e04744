"""`migrate --distribute`, `check`, and the statements that a distributed history needs."""

import asyncio
import contextlib
import re
from pathlib import Path

import asyncpg
import pytest

from dispatcher.core.errors import SchemaError
from dispatcher.store import distributed, statements
from dispatcher.store.distribution import distribute, distribution_problems
from dispatcher.store.pool import Database
from dispatcher.store.schema import Schema
from tests.support.citus import run_sql
from tests.support.forking import run_command

pytestmark = pytest.mark.postgres

ALONE = {
    "event_days", "event_erase_labelled", "event_list_known", "event_list_of_id", "event_list_of_keys",
    "event_list_requested",
    "event_load_of_delivery", "event_number_on_day", "event_search", "event_search_bound", "event_type_recent",
    "job_event_pick",
}  # fmt: skip
"""Statements that read history and no other table: they are sent to the workers as they are."""
OWN = {
    path.stem for path in Path(distributed.__file__).parent.joinpath("sql_distributed").iterdir()
}
READ = re.compile(
    r"\b(?:FROM|JOIN) dispatcher\.(?:event|body|delivery_done|attempt|delivery_row|attempt_row)\b"
)


def test_each_statement_that_reads_history_has_a_distributed_form():
    reading = {
        name
        for name in statements.names()
        if READ.search(_code(statements.statement(name))) and not name.startswith("history_")
    }
    assert reading - ALONE - OWN - distributed.reads().keys() == set()


@pytest.mark.parametrize("name", sorted(OWN | distributed.reads().keys()))
def test_a_distributed_form_takes_the_parameters_of_the_statement(name):
    text = statements.statement(name)
    number = re.compile(r"(?<![%\w])\$(\d+)(?!\$)")
    form = distributed.texts().get(text, text)
    assert set(number.findall(_code(form))) == set(number.findall(_code(text)))


def test_a_distributed_form_names_no_table_of_history():
    for name in distributed.reads():
        text = distributed.texts()[statements.statement(name)]
        assert (
            re.findall(
                READ, re.sub(r"'(?:[^']|'')*'|\$read\$.*?\$read\$", "", text, flags=re.DOTALL)
            )
            == []
        )


def _code(text: str) -> str:
    return re.sub(r"--.*", "", text)


async def test_each_distributed_form_is_prepared(database):
    connection = await asyncpg.connect(database, statement_cache_size=0)
    try:
        await connection.execute("SET search_path = pg_catalog, pg_temp")
        for text in distributed.texts().values():
            await connection.prepare(text)
    finally:
        await connection.close()


def test_command_distributes_a_new_database_and_check_finds_nothing_wrong(citus):
    url = citus.create("by_command")
    environ = {
        "DISPATCHER_DATABASE_URL": url,
        "DISPATCHER_SECRET_KEYS": "k1:" + "QUJD" * 10 + "QUI=",
    }
    done = run_command(["migrate", "--distribute"], environ)
    assert done.returncode == 0, done.stderr
    assert "the history is distributed by event id" in done.stderr
    again = run_command(["migrate", "--distribute"], environ)
    assert (again.returncode, "was distributed before" in again.stderr) == (0, True)
    checked = run_command(["check"], environ)
    assert checked.returncode == 0, checked.stdout
    assert re.search(r"history_distributed +yes", checked.stdout), checked.stdout


async def test_without_the_extension_the_command_refuses(fresh_database):
    connection = await asyncpg.connect(fresh_database)
    try:
        with pytest.raises(SchemaError, match="no extension citus"):
            await distribute(connection)
    finally:
        await connection.close()


async def test_without_a_worker_the_command_refuses(citus):
    url = citus.create("without_workers", workers_count=0)
    run_command(["migrate"], {"DISPATCHER_DATABASE_URL": url})
    connection = await asyncpg.connect(url)
    try:
        with pytest.raises(SchemaError, match="the coordinator has no worker"):
            await distribute(connection)
    finally:
        await connection.close()


async def test_a_living_replica_is_an_obstacle(sql):
    await sql.execute(
        "INSERT INTO dispatcher.replica (incarnation, name, version, expires_at)"
        " VALUES ('r', 'r', '1', now() + interval '1 minute')"
    )
    with pytest.raises(SchemaError, match="1 replicas are alive"):
        await distribute(sql)


async def test_check_finds_what_somebody_changed(citus):
    url = citus.create("changed")
    run_command(["migrate", "--distribute"], {"DISPATCHER_DATABASE_URL": url})
    await run_sql(url, "COMMENT ON VIEW dispatcher.event_write IS 'another'")
    await run_sql(url, "SELECT undistribute_table('dispatcher.body')")
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            problems = await distribution_problems(connection)
    finally:
        await connection.close()
    assert problems == [
        "history is not distributed as body by event_id",
        "the functions of distributed history are of another version; run: dispatcher migrate",
    ]


async def test_migrate_follows_a_column_that_a_newer_version_adds(citus):
    url = citus.create("newer")
    environ = {"DISPATCHER_DATABASE_URL": url}
    assert run_command(["migrate", "--distribute"], environ).returncode == 0
    await run_sql(url, "ALTER TABLE dispatcher.event ADD COLUMN colour text")
    with pytest.raises(asyncpg.DatatypeMismatchError):
        await run_sql(url, "SELECT FROM dispatcher.event_all")
    assert run_command(["migrate"], environ).returncode == 0
    await run_sql(url, "SELECT FROM dispatcher.event_all")


async def test_partitions_are_made_and_dropped_on_the_workers(database, sql):
    pool = Database(database, connections_max=1)
    await pool.open()
    try:
        assert await Schema(pool).make_partitions(9) == 8  # two more days of four tables
    finally:
        await pool.close()
    shards = "SELECT count(*) FROM pg_dist_shard WHERE logicalrelid::text LIKE '%attempt_' || $1"
    day = await sql.fetchval("SELECT to_char((now() AT TIME ZONE 'UTC')::date + 9, 'YYYYMMDD')")
    assert await sql.fetchval(shards, day) == 8
    drop = "SELECT dispatcher.drop_day($1, (now() AT TIME ZONE 'UTC')::date + {})"
    for ahead in (8, 9):
        for table in ("delivery_done", "attempt", "body", "event"):
            assert await sql.fetchval(drop.format(ahead), table) == "dropped"
    assert await sql.fetchval(shards, day) == 0


async def test_each_change_of_history_is_committed_in_two_phases(sql):
    """A plain UPDATE of one shard is not: it would be committed before the rows of the coordinator."""
    day = await sql.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
    insert = (
        "INSERT INTO dispatcher.event_write (day, id, type, tenant, data, occurred_at, inserted_at, accepted_at)"
        f" VALUES ('{day}', 'one', 'a.b', 't', '{{}}', now(), now(), now())"
    )
    update = f"UPDATE dispatcher.event SET erased_at = now() WHERE day = '{day}' AND id = 'one'"
    change = f"SELECT dispatcher.change_history($${update}$$)"
    assert [await _is_prepared(sql, one) for one in (insert, change, update)] == [True, True, False]
    assert await sql.fetchval("SELECT erased_at IS NOT NULL FROM dispatcher.event_all")


async def _is_prepared(sql: asyncpg.Connection, statement: str) -> bool:
    heard: list[str] = []
    listener = lambda _, message: heard.append(str(message))  # noqa: E731 -- removed by its name
    sql.add_log_listener(listener)
    await sql.execute("SET citus.log_remote_commands = on")
    await sql.execute(statement)
    await sql.execute("RESET citus.log_remote_commands")
    sql.remove_log_listener(listener)
    assert any("issuing" in one for one in heard)
    return any("PREPARE TRANSACTION" in one for one in heard)


async def test_connections_that_are_opened_at_once_are_all_distributed(database):
    pool = Database(database, connections_max=8)
    await pool.open()
    try:
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.TaskGroup() as group:
                opening = [
                    group.create_task(stack.enter_async_context(pool.connection()))
                    for _ in range(8)
                ]
            assert {type(one.result()) for one in opening} == {distributed.DistributedConnection}
    finally:
        await pool.close()
