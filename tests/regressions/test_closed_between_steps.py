"""A connection that another task closed between preparing and running a statement ended the daemon with an error.

asyncpg has no connection then, and raises an AttributeError. It was seen once, at a Ctrl-C on a slow machine: the
listener closed its connection while the intake cancelled the NOTIFY of producers.
"""

import asyncio
from typing import Any

import asyncpg
import pytest

from dispatcher.core.errors import StoreUnavailableError
from dispatcher.runtime import probe
from dispatcher.store.listener import NotifyListener
from dispatcher.store.pool import Database
from tests.support.daemon import until
from tests.support.sending import spawn

pytestmark = pytest.mark.postgres


class Between:
    """Holds the next statement of any connection after it was prepared."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        driver: Any = asyncpg.Connection
        prepare = driver._get_statement

        async def held(connection: Any, *given: Any, **options: Any) -> Any:
            statement = await prepare(connection, *given, **options)
            self.reached.set()
            await self.go_on.wait()
            return statement

        monkeypatch.setattr(driver, "_get_statement", held)


async def test_listener_that_stops_waits_for_a_statement(database, monkeypatch):
    listener = NotifyListener(database, control=lambda _: None, arrived=lambda: None, name="test")
    with probe.listen() as heard:
        running = spawn(listener.run())
        await heard.wait("listener.connected")
    assert await listener.sleep()
    between = Between(monkeypatch)
    waking = spawn(listener.wake())
    await between.reached.wait()
    listener.stop()

    async def is_dropped() -> bool:
        return not listener.is_up

    await until(is_dropped, seconds=5, what="the listener drops its connection")
    between.go_on.set()
    await waking
    await running


async def test_statement_on_connections_that_were_closed_is_an_outage(database, monkeypatch):
    pool = Database(database, connections_max=1)
    await pool.open()
    assert await pool.fetch_value("SELECT 1") == 1
    between = Between(monkeypatch)
    asking = spawn(pool.fetch_value("SELECT 2"))
    await between.reached.wait()
    await pool.close()
    between.go_on.set()
    with pytest.raises(StoreUnavailableError):
        await asking
