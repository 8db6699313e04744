"""A deployment on the real database, with an admin token, and connections to look behind it."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.cli.session import deployment_of
from dispatcher.config.settings_reader import load_settings
from dispatcher.store.pool import Database
from tests.admin.serving import Api, served

KEY = "k1:" + "QUJD" * 10 + "QUI="
ADMIN_TOKEN = "admin-token-of-the-tests-0123456789"  # noqa: S105 -- of the tests
ALL = Actor(name="cli:tester")
ACME = Actor(name="cli:acme", tenant="acme")


def environment(url: str) -> dict[str, str]:
    return {
        "DISPATCHER_DATABASE_URL": url,
        "DISPATCHER_SECRET_KEYS": KEY,
        "DISPATCHER_ADMIN_TOKEN": ADMIN_TOKEN,
        "DISPATCHER_SMTP__HOST": "127.0.0.1",
        "DISPATCHER_SMTP__SENDER": "dispatcher@example.com",
        "DISPATCHER_HTTP__REQUESTS_PER_SECOND": "100000",
        "DISPATCHER_EGRESS__ALLOW_HTTP": "true",
        "DISPATCHER_EGRESS__ALLOW_NETWORKS": '["127.0.0.1/32"]',
    }


@pytest.fixture
async def deployment(database: str) -> AsyncIterator[Deployment]:
    pool = Database(database, connections_max=4)
    await pool.open()
    yield deployment_of(load_settings(None, environment(database)), pool)
    await pool.close()


@pytest.fixture
async def connection(database: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
async def api(deployment: Deployment) -> AsyncIterator[Api]:
    async with served(deployment) as found:
        yield found
