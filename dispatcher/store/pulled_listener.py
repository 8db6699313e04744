"""Listens for deliveries that polls wait for; prompts only, because without one a poll reads again by itself.

While the connection is lost or Postgres is unavailable, it connects again with backoff, and `is_up` is False.
"""

import asyncio
from collections.abc import Callable

import asyncpg
import structlog

from dispatcher.config.database_url import UrlSource
from dispatcher.runtime.backoff import Backoff
from dispatcher.store.connector import Connector
from dispatcher.store.session import pin_session

_log = structlog.get_logger("dispatcher.store.pulled_listener")

CHANNEL_PULLED = "dispatcher_pulled"
PROVE_SECONDS = 5.0
CONNECT_SECONDS_MAX = 5.0
RESPONSE_SECONDS_MAX = 2.0


class PulledListener:
    """Receives notifications of deliveries that polls wait for, as prompts: without one they read every second."""

    def __init__(self, url: str | UrlSource, arrived: Callable[[str], None]) -> None:
        """`arrived` is called with the numbers of the endpoints, joined by commas; empty: any."""
        self._connector = Connector(url)
        self._arrived = arrived
        self.is_up = False

    async def run(self) -> None:
        """Listen, and connect again with backoff after a failure, until cancelled."""
        backoff = Backoff(0.1, 5.0)
        while True:
            try:
                await self._listen()
                backoff.reset()
            except (
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,
                OSError,
            ) as error:
                _log.info("pull_listener.disconnected", error=str(error) or type(error).__name__)
            await backoff.pause()

    async def _listen(self) -> None:
        connection = await self._connector.connect(
            seconds=CONNECT_SECONDS_MAX, purpose="listen", command_timeout=RESPONSE_SECONDS_MAX,
            statement_cache_size=0,
        )  # fmt: skip
        try:
            if not await pin_session(connection):
                raise ConnectionError("a pooler stands before Postgres")
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(
                CHANNEL_PULLED, lambda *heard: self._arrived(str(heard[-1]))
            )
            self.is_up = True
            self._arrived("")
            while not lost.is_set():
                # A half-open connection is detected by a round trip.
                await connection.fetchval("SELECT 1")
                try:
                    async with asyncio.timeout(PROVE_SECONDS):
                        await lost.wait()
                except TimeoutError:
                    continue
        finally:
            self.is_up = False
            connection.terminate()
