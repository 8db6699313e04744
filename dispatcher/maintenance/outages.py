"""Watches the health of endpoints, by the clock rather than by attempts.

Behind an open breaker no attempt is made and no delivery fails, so nothing that results trigger can
report the outage. Every replica evaluates every few seconds. The statements are safe to run on any
number of replicas: a change is recorded once, and threshold and event are committed together, so
that an outage is reported once for each threshold, whatever restarts.

Slow or absent Postgres: the watch retries at its next turn. A crash loses nothing.
"""

import asyncio

import structlog

from dispatcher.core.errors import StoreUnavailableError
from dispatcher.core.failing import down_thresholds
from dispatcher.core.model import HealthState
from dispatcher.runtime import probe
from dispatcher.store.routing import DownEndpoint, Endpoints, HealthChange

_log = structlog.get_logger("dispatcher.maintenance.outages")

SECONDS_BETWEEN = 5.0


class OutageWatch:
    """One loop; its only state is in the database."""

    def __init__(
        self,
        health: Endpoints,
        *,
        down_after_seconds: int,
        seconds_between: float = SECONDS_BETWEEN,
    ) -> None:
        self._health = health
        self._down_after_seconds = down_after_seconds
        self._thresholds_seconds = down_thresholds(down_after_seconds)
        self._seconds_between = seconds_between
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End `run` after the statement that it is at."""
        self._stop.set()

    async def run(self) -> None:
        """Evaluate health and report outages until stopped."""
        while not self._stop.is_set():
            try:
                changes = await self._health.evaluate_health(self._down_after_seconds)
                down = await self._health.report_down(self._thresholds_seconds)
            except StoreUnavailableError as error:
                _log.warning("outages.stalled", error=str(error))
            else:
                _write(changes, down)
                probe.hit("outages.checked", down=len(down), changes=len(changes))
            try:
                async with asyncio.timeout(self._seconds_between):
                    await self._stop.wait()
            except TimeoutError:
                continue


def _write(changes: list[HealthChange], down: list[DownEndpoint]) -> None:
    for change in changes:
        write = _log.warning if change.health == HealthState.DOWN else _log.info
        write(
            "endpoint.health_changed",
            endpoint_id=change.endpoint_id,
            was=change.was or HealthState.HEALTHY,
            health=change.health,
            since=change.since,
            cause=change.cause,
            response_code=change.response_code,
        )
    for endpoint in down:
        _log.warning(
            "endpoint.went_down",
            endpoint_id=endpoint.id,
            down_seconds=endpoint.down_seconds,
            failing_since=endpoint.first_failure_at,
        )
