"""Failed attempts of endpoints: counted since the last success, warned about, and disabling after too many.

Every process that records attempts uses it: the recorder for requests, and the API for deliveries that are pulled. The
counts are in Postgres, so that the processes share them. A crash loses at most the counts of one batch.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol, TypeVar

import structlog

from dispatcher.core.failing import is_to_be_disabled, passed_threshold
from dispatcher.core.model import EndpointId, Reason
from dispatcher.store.routing import Health

_log = structlog.get_logger("dispatcher.failure_counts")

Value = TypeVar("Value")


class FailureStore(Protocol):
    """The failures of endpoints, as rows."""

    async def disable(self, endpoint_id: EndpointId, reason: str, *, raises_event: bool) -> bool:
        """Disable an active endpoint; return whether it was active."""
        ...

    async def warn(self, endpoint_id: EndpointId, percent: int) -> bool:
        """Raise the event that an endpoint has been failing for that share of the time it is given."""
        ...

    async def count_failures(
        self, failures: Sequence[tuple[EndpointId, datetime, int, bool]]
    ) -> list[Health]:
        """Add failed attempts (endpoint, first time, count, of a producer's event); return the health since."""
        ...

    async def clear_failures(self, endpoint_ids: Sequence[EndpointId]) -> None:
        """Clear the failures of endpoints that have succeeded again."""
        ...


class Failure(NamedTuple):
    """One failed attempt that is recorded."""

    endpoint_id: EndpointId
    attempted_at: datetime
    is_operational: bool
    """It was of an event of the dispatcher itself, so that it raises no further event."""
    disables_endpoint: bool
    """The receiver returned 410, and the profile disables the endpoint then."""


class FailureCounts:
    """Counts committed failures, one batch at a time."""

    def __init__(
        self, store: FailureStore, *, failing_seconds_max: float, failed_attempts_min: int
    ) -> None:
        self._store = store
        self._failing_seconds_max = failing_seconds_max
        self._failed_attempts_min = failed_attempts_min

    async def until_done(self, action: Callable[[], Awaitable[Value]]) -> Value:
        """Run a step; a process that may wait for Postgres overrides it with repetitions."""
        return await action()

    async def add(self, failures: Sequence[Failure], recovered: Sequence[EndpointId]) -> None:
        """Count failures, oldest first, and clear those of endpoints that have succeeded."""
        for failure in failures:
            if failure.disables_endpoint:
                await self._disable(
                    failure.endpoint_id, Reason.GONE, raises_event=not failure.is_operational
                )
        if recovered:
            await self.until_done(lambda: self._store.clear_failures(sorted(recovered)))
        if failures:
            await self._count(failures)

    async def _count(self, failures: Sequence[Failure]) -> None:
        counts = Counter(one.endpoint_id for one in failures)
        first = {one.endpoint_id: one.attempted_at for one in reversed(failures)}
        raising = {one.endpoint_id for one in failures if not one.is_operational}
        rows = [
            (endpoint_id, first[endpoint_id], count, endpoint_id in raising)
            for endpoint_id, count in sorted(counts.items())
        ]
        for health in await self.until_done(lambda: self._store.count_failures(rows)):
            await self._evaluate(health, raises_event=health.endpoint_id in raising)

    async def _evaluate(self, health: Health, *, raises_event: bool) -> None:
        """Disable an endpoint that has failed for long enough, or warn that it will be."""
        if is_to_be_disabled(
            failing_seconds=health.failing_seconds,
            disabled_after_seconds=self._failing_seconds_max,
            failed_attempts=health.failed_attempts,
            failed_attempts_min=self._failed_attempts_min,
        ):
            await self._disable(
                health.endpoint_id, Reason.FAILING_TOO_LONG, raises_event=raises_event
            )
            return
        percent = passed_threshold(health.failing_seconds, self._failing_seconds_max)
        if raises_event and percent > health.warned_percent:
            await self._warn(health.endpoint_id, percent)

    async def _warn(self, endpoint_id: EndpointId, percent: int) -> None:
        if await self.until_done(lambda: self._store.warn(endpoint_id, percent)):
            _log.warning("endpoint.failure_warned", endpoint_id=endpoint_id, percent=percent)

    async def _disable(
        self, endpoint_id: EndpointId, reason: Reason, *, raises_event: bool
    ) -> None:
        if await self.until_done(
            lambda: self._store.disable(endpoint_id, reason, raises_event=raises_event)
        ):
            _log.warning("endpoint.disabled", endpoint_id=endpoint_id, reason=reason)
