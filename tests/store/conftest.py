"""What tests of the store and the operations share: a deployment, a connection beside it, a story."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from dispatcher.admin.operations.context import Deployment
from dispatcher.cli.session import deployment_of
from dispatcher.config.settings_reader import load_settings
from dispatcher.store.pool import Database
from tests.support.story import KEY, Story


@pytest.fixture
async def deployment(database: str) -> AsyncIterator[Deployment]:
    pool = Database(database, connections_max=3)
    await pool.open()
    environment = {"DISPATCHER_DATABASE_URL": database, "DISPATCHER_SECRET_KEYS": KEY}
    yield deployment_of(load_settings(None, environment), pool)
    await pool.close()


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Database]:
    pool = Database(database, connections_max=4)
    await pool.open()
    yield pool
    await pool.close()


@pytest.fixture
async def sql(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
async def connection(database: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
async def story(deployment: Deployment, connection: "asyncpg.Connection[asyncpg.Record]") -> Story:
    return Story(deployment, connection)
