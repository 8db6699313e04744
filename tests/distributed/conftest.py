"""The database of these tests: its history is distributed over two workers."""

from collections.abc import Iterator

import asyncpg
import pytest

from dispatcher.store.distribution import distribute
from tests.support.bench import bench, say, sql
from tests.support.citus import Citus, run_sql, running
from tests.support.cluster import Emptier, migrate_for_tests, run_apart

__all__ = ["bench", "say", "sql"]


@pytest.fixture(scope="session")
def citus() -> Iterator[Citus]:
    """A coordinator and two workers."""
    with running() as found:
        yield found


@pytest.fixture(scope="session")
def distributed_database(citus: Citus) -> Iterator[Emptier]:
    url = citus.create("distributed")
    run_apart(lambda: _prepare(url))
    emptier = Emptier(url)
    yield emptier
    emptier.close()


@pytest.fixture
def database(distributed_database: Emptier) -> str:
    """The URL of a database with a distributed history, which is empty."""
    distributed_database.empty()
    tables = "dispatcher.event, dispatcher.body, dispatcher.delivery_done, dispatcher.attempt"
    run_apart(lambda: run_sql(distributed_database.url, f"TRUNCATE {tables}"))
    return distributed_database.url


async def _prepare(url: str) -> None:
    await migrate_for_tests(url)
    connection = await asyncpg.connect(url)
    try:
        await distribute(connection)
    finally:
        await connection.close()
