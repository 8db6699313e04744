"""Makes the index of the text of each ended day, if `search.trigram_index` asks for it.

What is always true: only days that get no more events have an index, so that no event pays for it. One index is made at
a time, the newest day first, by the first of the replicas that are alive.

Crash: the index is left invalid, which no search uses; the next round drops it and makes it again. Slow or absent
Postgres: the next round retries, and searches read the day without the index. Without the extension nothing is made,
and one line of the log and `dispatcher check` report it.
"""

import asyncio
import time
from typing import Final

import structlog

from dispatcher.config.database_url import UrlSource
from dispatcher.core.errors import StoreUnavailableError
from dispatcher.runtime import probe
from dispatcher.runtime.backoff import Outage
from dispatcher.store.text_indexes import ENDED_SECONDS, TextIndexSession

_log = structlog.get_logger("dispatcher.maintenance.text_indexes")

SECONDS_BETWEEN: Final = 600.0


class TextIndexes:
    """One loop; it works for minutes a day."""

    def __init__(
        self, url: str | UrlSource, incarnation: str, *, ended_seconds: float = ENDED_SECONDS
    ) -> None:
        self._url = url
        self._incarnation = incarnation
        self._ended_seconds = ended_seconds
        self._stop = asyncio.Event()
        self._outage = Outage(_log, "text_index.stalled", "text_index.resumed")
        self._is_reported = False

    def stop(self) -> None:
        """End `run`; an index that is being made is left to the next start."""
        self._stop.set()

    async def run(self) -> None:
        """Run rounds until stopped."""
        while not self._stop.is_set():
            work = asyncio.get_running_loop().create_task(self.round())
            stop = asyncio.get_running_loop().create_task(self._stop.wait())
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            work.cancel()
            stop.cancel()
            try:
                await work
                self._outage.ended()
            except StoreUnavailableError as error:
                self._outage.began(error)
            except asyncio.CancelledError:
                if not self._stop.is_set():
                    raise
                return
            try:
                async with asyncio.timeout(SECONDS_BETWEEN):
                    await self._stop.wait()
            except TimeoutError:
                continue

    async def round(self) -> int:
        """Make the indexes that are missing; return how many were made.

        Raises:
            StoreUnavailableError: not now; those that were made stay.
        """
        made = 0
        async with TextIndexSession(self._url) as session:
            days = await session.days(self._incarnation, self._ended_seconds)
            if any(day.is_being_made for day in days):
                return 0  # by a replica that was the first before
            for day in days:
                if day.is_valid:
                    continue
                if day.make is None:
                    if not self._is_reported:
                        self._is_reported = True
                        _log.warning("text_index.skipped", extension="pg_trgm")
                    break
                began = time.monotonic()
                if day.is_valid is not None:
                    await session.run(day.drop)
                await session.run(day.make)
                await session.run(day.analyze)
                made += 1
                seconds = round(time.monotonic() - began, 1)
                days_now = await session.days(self._incarnation, self._ended_seconds)
                sizes = {one.day: one.bytes for one in days_now}
                _log.info(
                    "text_index.created",
                    day=str(day.day),
                    bytes=sizes.get(day.day, 0),
                    duration_seconds=seconds,
                )
        probe.hit("text_indexes.done", made=made)
        return made
