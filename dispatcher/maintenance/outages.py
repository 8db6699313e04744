"""Watches for endpoints that are down, by the clock rather than by attempts.

Behind an open breaker no attempt is made and no delivery fails, so nothing that results trigger can
report the outage. Every replica asks the database every few seconds; the statement commits threshold
and event together, so that an outage is reported once for each threshold, whatever restarts.

Slow or absent Postgres: the watch retries at its next turn. A crash loses nothing.
"""

import asyncio
from typing import Protocol

import structlog

from dispatcher.core.errors import StoreUnavailableError
from dispatcher.core.failing import DOWN_ATTEMPTS_MIN, DOWN_SECONDS
from dispatcher.runtime import probe
from dispatcher.store.endpoints import DownEndpoint

_log = structlog.get_logger("dispatcher.maintenance.outages")

SECONDS_BETWEEN = 10.0


class HealthStore(Protocol):
    """The health of endpoints, as the watch uses it."""

    async def report_down(
        self, thresholds_seconds: tuple[int, ...], failed_attempts_min: int
    ) -> list[DownEndpoint]:
        """Raise an event for each endpoint that has newly been down for a threshold; return them."""
        ...


class OutageWatch:
    """One loop; its only state is in the database."""

    def __init__(self, health: HealthStore, *, seconds_between: float = SECONDS_BETWEEN) -> None:
        self._health = health
        self._seconds_between = seconds_between
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End `run` after the statement that it is at."""
        self._stop.set()

    async def run(self) -> None:
        """Report outages until stopped."""
        while not self._stop.is_set():
            try:
                down = await self._health.report_down(DOWN_SECONDS, DOWN_ATTEMPTS_MIN)
            except StoreUnavailableError as error:
                _log.warning("outages.stalled", error=str(error))
            else:
                for endpoint in down:
                    _log.warning(
                        "endpoint.went_down",
                        endpoint_id=endpoint.id,
                        down_seconds=endpoint.down_seconds,
                        failing_since=endpoint.first_failure_at.isoformat(),
                    )
                probe.hit("outages.checked", down=len(down))
            try:
                async with asyncio.timeout(self._seconds_between):
                    await self._stop.wait()
            except TimeoutError:
                continue
