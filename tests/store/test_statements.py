"""Every statement in `sql/` is understood by Postgres on the migrated schema, and asked for by name somewhere."""

import re
from pathlib import Path

import asyncpg
import pytest

from dispatcher.store import statements

pytestmark = pytest.mark.postgres

PACKAGE = Path(statements.__file__).parent.parent
# What statements are about that are not about a table.
GROUPS = {
    "connection", "deployment", "history", "listener", "migration", "partition", "producer", "schema", "server",
    "transaction",
}  # fmt: skip
# Several commands in one file, or a command that cannot be prepared: run by tests of their own.
NOT_PREPARED = {
    "producer_role",
    "schema_bootstrap",
    "producer_notify_attach",
    "producer_notify_drop",
    "transaction_begin",
    "migration_begin",
    "migration_lock",
    "schema_create",
    "producer_member",
    "producer_trial",
    "delivery_request_notify",
    # Of servers with the extension citus: tests/distributed.
    "history_distribute",
    "history_functions",
    "history_prepared_max",
    "history_state",
}


@pytest.fixture(scope="module")
def sources() -> str:
    return "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("name", sorted(statements.names() - NOT_PREPARED))
async def test_a_statement_is_prepared_on_the_migrated_schema(database, name):
    connection = await asyncpg.connect(database)
    try:
        await connection.prepare(statements.statement(name))
    finally:
        await connection.close()


@pytest.mark.parametrize("name", sorted(statements.names()))
def test_a_statement_is_used_and_opens_with_what_it_does(sources, name):
    assert re.search(rf'"{name}"', sources)
    text = statements.statement(name)
    assert text.startswith("-- ")
    assert "Parameters" in text


def test_the_ones_that_are_not_prepared_are_there():
    assert statements.names() >= NOT_PREPARED


async def test_a_statement_is_named_after_its_table(database):
    connection = await asyncpg.connect(database)
    try:
        tables = await connection.fetch(
            "SELECT relname FROM pg_class"
            " WHERE relnamespace = 'dispatcher'::regnamespace AND relkind IN ('r', 'p', 'v')"
        )
    finally:
        await connection.close()
    prefixes = tuple(f"{one}_" for one in (*(row[0] for row in tables), *GROUPS))
    assert [name for name in statements.names() if not name.startswith(prefixes)] == []


def test_an_unknown_statement_is_an_error_at_once():
    with pytest.raises(KeyError):
        statements.statement("no_such_statement")
