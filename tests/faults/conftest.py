"""The fault matrix: what its tests ask for."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from dispatcher.store.migrate import set_notify
from tests.support.bench import bench, make_bench, say, sql

__all__ = ["bench", "make_bench", "say", "sql"]


@pytest.fixture
async def notified(sql: asyncpg.Connection) -> AsyncIterator[None]:
    """Has commits wake the daemon, as in production; otherwise each event waits for a poll."""
    await set_notify(sql, wanted=True)
    yield
    await set_notify(sql, wanted=False)
