"""The health of endpoints: failures counted per endpoint, warnings, and disabling after too many.

    recorder ── follow_up(committed batch) ──▶ endpoint_health rows ──▶ events, or the endpoint disabled

What is always true: only committed results count, and an endpoint that succeeds once is healthy
again. Which endpoints fail is read from Postgres whenever the shards have changed, because the
replica that sent before may have counted failures. While Postgres is away each step is repeated
until it is done. A crash loses at most the counts of one batch.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

import structlog

from dispatcher.core.errors import DataFaultError, StoreUnavailableError
from dispatcher.core.matching import is_operational
from dispatcher.core.model import DeliveryId, EndpointId, Outcome, Trigger
from dispatcher.delivery.ports import EndpointStore
from dispatcher.delivery.types import AttemptResult
from dispatcher.failure_counts import Failure, FailureCounts
from dispatcher.runtime.backoff import Outage, retry

_log = structlog.get_logger("dispatcher.delivery.endpoint_health")

Value = TypeVar("Value")


class Ownership(Protocol):
    """The shards, as the health of endpoints uses them."""

    @property
    def tokens(self) -> Mapping[int, int]:
        """Shard to token, of the shards that are ours."""
        ...


class EndpointHealth(FailureCounts):
    """Which endpoints fail; used by the recorder alone, one batch at a time."""

    def __init__(
        self,
        store: EndpointStore,
        shards: Ownership,
        *,
        failing_seconds_max: float,
        failed_attempts_min: int,
    ) -> None:
        super().__init__(
            store,
            failing_seconds_max=failing_seconds_max,
            failed_attempts_min=failed_attempts_min,
        )
        self._endpoints = store
        self._shards = shards
        self._failing: set[EndpointId] = set()
        self._tokens: Mapping[int, int] = {}
        """The shards for which `_failing` was read."""
        self._outage = Outage(_log, "endpoint_health.stalled", "endpoint_health.resumed")

    async def follow_up(self, results: list[AttemptResult], fenced: frozenset[DeliveryId]) -> None:
        """Record what committed results mean for their endpoints."""
        if self._shards.tokens != self._tokens:
            tokens = dict(self._shards.tokens)
            self._failing |= await self.until_done(self._endpoints.failing)
            self._tokens = tokens
        failures: list[Failure] = []
        recovered: set[EndpointId] = set()
        for result in results:
            if result.response.outcome is Outcome.OK:
                if self._failing and result.endpoint.id in self._failing:
                    recovered.add(result.endpoint.id)
            elif result.delivery.trigger is not Trigger.TEST and result.endpoint.problem is None:
                # With a problem, our configuration failed, not the receiver.
                disables = result.decision.disables_endpoint and result.delivery.id not in fenced
                failures.append(
                    Failure(
                        result.endpoint.id,
                        result.attempted_at,
                        is_operational(result.delivery.event_type),
                        disables,
                    )
                )
        if failures or recovered:
            await self.add(failures, sorted(recovered))
            self._failing -= recovered
            self._failing.update(one.endpoint_id for one in failures)

    async def until_done(self, action: Callable[[], Awaitable[Value]]) -> Value:
        """Run a step again and again until Postgres has carried it out."""
        done = await retry(
            action,
            on=StoreUnavailableError,
            unless=DataFaultError,
            failed=self._outage.began,
        )
        self._outage.ended()
        return done
