"""The health of endpoints: failures counted per endpoint, warnings, and disabling after too many.

    recorder ── follow_up(committed batch) ──▶ endpoint_health rows ──▶ events, or the endpoint disabled

What is always true: only committed results count, and an endpoint that succeeds once is healthy
again. Which endpoints fail is read from Postgres whenever the shards have changed, because the
replica that sent before may have counted failures. While Postgres is away each step is repeated
until it is done. A crash loses at most the counts of one batch.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

import structlog

from dispatcher.core.errors import DataFaultError, StoreUnavailableError
from dispatcher.core.failing import is_to_be_disabled, passed_threshold
from dispatcher.core.matching import is_operational
from dispatcher.core.model import DeliveryId, EndpointId, Outcome, Reason, Trigger
from dispatcher.delivery.ports import EndpointStore
from dispatcher.delivery.types import AttemptResult
from dispatcher.runtime.backoff import Outage, retry
from dispatcher.store.routing import Health

_log = structlog.get_logger("dispatcher.delivery.endpoint_health")

Value = TypeVar("Value")


class Ownership(Protocol):
    """The shards, as the health of endpoints uses them."""

    @property
    def tokens(self) -> Mapping[int, int]:
        """Shard to token, of the shards that are ours."""
        ...


class EndpointHealth:
    """Which endpoints fail; used by the recorder alone, one batch at a time."""

    def __init__(
        self,
        store: EndpointStore,
        shards: Ownership,
        *,
        failing_seconds_max: float,
        failed_attempts_min: int,
    ) -> None:
        self._store = store
        self._shards = shards
        self._failing_seconds_max = failing_seconds_max
        self._failed_attempts_min = failed_attempts_min
        self._failing: set[EndpointId] = set()
        self._tokens: Mapping[int, int] = {}
        """The shards for which `_failing` was read."""
        self._outage = Outage(_log, "endpoint_health.stalled", "endpoint_health.resumed")

    async def follow_up(self, results: list[AttemptResult], fenced: frozenset[DeliveryId]) -> None:
        """Record what committed results mean for their endpoints."""
        if self._shards.tokens != self._tokens:
            tokens = dict(self._shards.tokens)
            self._failing |= await self._until_done(self._store.failing)
            self._tokens = tokens
        failed: list[AttemptResult] = []
        recovered: set[EndpointId] = set()
        for result in results:
            if result.response.outcome is Outcome.OK:
                if self._failing and result.endpoint.id in self._failing:
                    recovered.add(result.endpoint.id)
            elif result.delivery.trigger is not Trigger.TEST and result.endpoint.problem is None:
                failed.append(result)  # with a problem, our configuration failed, not the receiver
        for result in failed:
            if result.decision.disables_endpoint and result.delivery.id not in fenced:
                await self._disable(
                    result.endpoint.id,
                    Reason.GONE,
                    raises_event=not is_operational(result.delivery.event_type),
                )
        if recovered:
            await self._until_done(lambda: self._store.clear_failures(sorted(recovered)))
            self._failing -= recovered
        if failed:
            await self._count(failed)

    async def _count(self, failed: list[AttemptResult]) -> None:
        counts = Counter(r.endpoint.id for r in failed)
        first = {r.endpoint.id: r.attempted_at for r in reversed(failed)}
        self._failing |= counts.keys()
        raising = {r.endpoint.id for r in failed if not is_operational(r.delivery.event_type)}
        failures = [
            (endpoint_id, first[endpoint_id], count, endpoint_id in raising)
            for endpoint_id, count in sorted(counts.items())
        ]
        for health in await self._until_done(lambda: self._store.count_failures(failures)):
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
        if await self._until_done(lambda: self._store.warn(endpoint_id, percent)):
            _log.warning("endpoint.failure_warned", endpoint_id=endpoint_id, percent=percent)

    async def _disable(
        self, endpoint_id: EndpointId, reason: Reason, *, raises_event: bool
    ) -> None:
        if await self._until_done(
            lambda: self._store.disable(endpoint_id, reason, raises_event=raises_event)
        ):
            _log.warning("endpoint.disabled", endpoint_id=endpoint_id, reason=reason)

    async def _until_done(self, action: Callable[[], Awaitable[Value]]) -> Value:
        done = await retry(
            action,
            on=StoreUnavailableError,
            unless=DataFaultError,
            failed=self._outage.began,
        )
        self._outage.ended()
        return done
