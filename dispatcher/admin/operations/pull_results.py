"""What became of pulled deliveries, recorded as the attempts of a push are.

    settle (the receiver) ─┐
    expire (`run`) ────────┴▶ attempt, state, next due time ──▶ the next of the line, health, counts

Invariants: a lease that ends unsettled is a failed attempt (`timeout`), and the endpoint's schedule decides on the next
one. Only the process that has taken a lease records its attempt. A result is reported as `expired` if another attempt
of its number was recorded before. What follows a recorded attempt (health, traffic, metrics, the next of the line)
is done once, and never fails the request.

A crash before a settled lease is recorded leaves no attempt, and the delivery is returned again when the lease would
have ended. If the lease had expired, another process records it. A crash afterwards loses the counts of that batch.
While Postgres is unavailable, results are refused, and the deliveries are returned again.
"""

import asyncio
import random
import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal, NamedTuple

import structlog

from dispatcher.admin.operations.context import Deployment
from dispatcher.admin.resources.pull import (
    LeaseResult,
    LeaseResults,
    SettledLease,
    SettledLeases,
)
from dispatcher.core import histogram
from dispatcher.core.errors import BatchRefusedError, DataFaultError, StoreUnavailableError
from dispatcher.core.matching import is_operational
from dispatcher.core.model import DeliveryId, DeliveryState, EndpointId, Outcome, Trigger
from dispatcher.core.outcome import Decision, RetryPolicy, decide, honours_retry_after, judge_status
from dispatcher.failure_counts import Failure, FailureCounts
from dispatcher.runtime import probe
from dispatcher.runtime.backoff import Outage
from dispatcher.store.attempts import AttemptRow
from dispatcher.store.pull_leases import PulledEndpoint, PullLeases, TakenLease
from dispatcher.store.results import MoveRow
from dispatcher.store.routing import Endpoints
from dispatcher.store.statistics import RecentRow, Statistics, TrafficRow, tenant_subject
from dispatcher.telemetry.metrics import Metrics

_log = structlog.get_logger("dispatcher.admin.pull")

EXPIRED_AT_ONCE: Final = 100
LOOK_SECONDS_MIN: Final = 0.2
LOOK_SECONDS_MAX: Final = 4.0
"""How often the end of the first lease is read. A shorter lease that begins meanwhile is recorded that much late."""
_LEASE_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_FINAL: Final = (DeliveryState.SUCCEEDED, DeliveryState.FAILED)


class PulledResult(NamedTuple):
    """One attempt with what it makes of its delivery."""

    lease: TakenLease
    endpoint: PulledEndpoint
    attempt: AttemptRow
    decision: Decision

    @property
    def move(self) -> MoveRow:
        """The delivery's new state."""
        return MoveRow(
            self.endpoint.shard, self.lease.delivery_id, self.attempt.attempt_number, self.decision.state,
            self.decision.reason, self.decision.schedule_position, self.decision.next_delay_seconds,
        )  # fmt: skip


class PullResults:
    """Ends leases and records their attempts; `run` is a task of the daemon."""

    def __init__(
        self, deployment: Deployment, leases: PullLeases, metrics: Metrics | None = None
    ) -> None:
        self._deployment = deployment
        self._leases = leases
        self._statistics = Statistics(deployment.database)
        disabling = deployment.settings.disabling
        self._failures = FailureCounts(
            Endpoints(deployment.database),
            failing_seconds_max=disabling.failing_hours * 3600,
            failed_attempts_min=disabling.failed_attempts_min,
        )
        self._metrics = metrics
        self._outage = Outage(_log, "pull.stalled", "pull.resumed")

    async def settle(self, endpoint_no: int, results: LeaseResults) -> SettledLeases:
        """Record what a receiver made of its leases; those that have expired, or are another endpoint's, are left."""
        given = {one.lease_id: one for one in results.results if _LEASE_ID.fullmatch(one.lease_id)}
        taken = await self._leases.take(endpoint_no, list(given)) if given else []
        missed = await self._record([(lease, given[lease.lease_id]) for lease in taken])
        recorded = {lease.lease_id for lease in taken if lease.delivery_id not in missed}

        def status(lease_id: str) -> Literal["recorded", "expired"]:
            return "recorded" if lease_id in recorded else "expired"

        return SettledLeases(
            items=[
                SettledLease(lease_id=one.lease_id, status=status(one.lease_id))
                for one in results.results
            ]
        )

    async def expire(self) -> int:
        """Record the leases that have expired as failed attempts; return how many there were."""
        taken = await self._leases.take_expired(EXPIRED_AT_ONCE)
        if taken:
            still_open = await self._leases.still_open(taken)
            # A delivery that was cancelled meanwhile gets no attempt.
            lost = [
                one
                for one in taken
                if one.delivery_id in still_open or one.trigger is Trigger.MANUAL
            ]
            await self._record([(lease, None) for lease in lost])
            cancelled = [one for one in taken if one not in lost]
            await self._leases.end(cancelled)
            await self._leases.bring_back(cancelled)
        return len(taken)

    async def _record(
        self, pairs: Sequence[tuple[TakenLease, LeaseResult | None]]
    ) -> frozenset[DeliveryId]:
        """Record attempts, and what follows from them; return those that were not recorded.

        Without a result the lease has expired. It is ended here, unless its attempt is fenced: then it is taken over
        once more.
        """
        if not pairs:
            return frozenset()
        results = await self._evaluate(pairs)
        fenced, superseded = await self._leases.record(
            [one.move for one in results], [one.attempt for one in results]
        )
        missed = fenced | superseded
        results = [one for one in results if one.lease.delivery_id not in missed]
        ended = [lease for lease, _ in pairs if lease.delivery_id not in fenced]
        await self._leases.end(
            [lease for lease, result in pairs if result is None and lease in ended]
        )
        manual = [
            (one.lease.delivery_id, one.attempt.attempted_at, one.attempt.outcome == Outcome.OK)
            for one in results
            if one.lease.trigger is Trigger.MANUAL
        ]
        self._report(results)
        try:
            if manual:
                await self._leases.settle_resends(manual)
            await self._leases.bring_back(ended)
            await self._follow_up(results)
        except (StoreUnavailableError, BatchRefusedError, DataFaultError) as error:
            self._outage.began(error)  # no reason to fail what is recorded
        probe.hit("pull.recorded", attempts=len(results))
        return missed

    async def _evaluate(
        self, pairs: Sequence[tuple[TakenLease, LeaseResult | None]]
    ) -> list[PulledResult]:
        leases = [lease for lease, _ in pairs]
        endpoints = await self._leases.endpoints([one.endpoint_no for one in leases])
        types = await self._leases.event_types(leases)
        now = self._deployment.clock.now()
        results: list[PulledResult] = []
        for lease, result in pairs:
            endpoint = endpoints.get(lease.endpoint_no)
            event_type = types.get((lease.day, lease.event_id))
            if endpoint is None or event_type is None:
                continue  # retention has deleted the event
            outcome = Outcome.TIMEOUT if result is None else judge_status(result.response_code)
            decision = self._decision(endpoint, lease, outcome, result)
            attempt = _attempt(lease, event_type, outcome, result, now)
            results.append(PulledResult(lease, endpoint, attempt, decision))
        return results

    def _decision(
        self,
        endpoint: PulledEndpoint,
        lease: TakenLease,
        outcome: Outcome,
        result: LeaseResult | None,
    ) -> Decision:
        policy = RetryPolicy.of(
            self._deployment.profiles.get(endpoint.profile),
            endpoint.retry_schedule_seconds,
            endpoint.skip_after_attempts,
        )
        after = None
        if result is not None and honours_retry_after(result.response_code):
            after = result.retry_after_seconds
        return decide(
            outcome=outcome,
            trigger=lease.trigger,
            state=lease.state,
            reason=lease.reason,
            schedule_position=lease.schedule_position,
            policy=policy,
            jitter=random.random(),  # noqa: S311 -- spreads load, guards nothing
            retry_after_seconds=after,
        )

    async def _follow_up(self, results: Sequence[PulledResult]) -> None:
        """Count the attempts in the health of their endpoints and in the traffic."""
        failures: list[Failure] = []
        recovered: set[EndpointId] = set()
        for _, endpoint, attempt, decision in results:
            if attempt.outcome != Outcome.OK:
                failures.append(
                    Failure(
                        endpoint.id, attempt.attempted_at, is_operational(attempt.event_type),
                        decision.disables_endpoint,
                    )
                )  # fmt: skip
            elif endpoint.is_failing:
                recovered.add(endpoint.id)
        await self._failures.add(failures, sorted(recovered))
        recent = _recent(results)
        if recent:
            await self._statistics.add_recent(recent)
        rows = [row for one in results for row in _traffic(one)]
        if rows:
            await self._statistics.add(_added_up(rows))

    def _report(self, results: Sequence[PulledResult]) -> None:
        for lease, endpoint, attempt, decision in results:
            _log.info(
                "delivery.attempted",
                delivery_id=attempt.delivery_id,
                event_id=attempt.event_id,
                event_type=attempt.event_type,
                endpoint_id=endpoint.id,
                tenant=endpoint.tenant,
                profile=endpoint.profile,
                attempt_number=attempt.attempt_number,
                trigger=attempt.trigger,
                outcome=attempt.outcome,
                state=decision.state,
                schedule_position=decision.schedule_position,
            )
            if self._metrics is None:
                continue
            self._metrics.attempts.labels(endpoint.profile, attempt.outcome).inc()
            if decision.state in _FINAL and decision.state is not lease.state:
                self._metrics.deliveries.labels(endpoint.profile, decision.state).inc()
            if self._deployment.settings.metrics.per_endpoint:
                self._metrics.endpoint_attempts.labels(endpoint.id, attempt.outcome).inc()

    async def run(self) -> None:
        """Record expired leases as they end, until cancelled."""
        while True:
            seconds = LOOK_SECONDS_MAX
            try:
                next_end = await self._leases.next_end_seconds()
                if next_end is not None and next_end <= 0:
                    while await self.expire() == EXPIRED_AT_ONCE:
                        pass
                    seconds = LOOK_SECONDS_MIN
                elif next_end is not None:
                    seconds = next_end
                self._outage.ended()
            except (StoreUnavailableError, DataFaultError) as error:
                self._outage.began(error)
            await asyncio.sleep(min(max(seconds, LOOK_SECONDS_MIN), LOOK_SECONDS_MAX))


def _recent(results: Sequence[PulledResult]) -> list[RecentRow]:
    """Return the attempts by endpoint, sorted, of those that fail or failed in the last minutes."""
    counts: Counter[tuple[EndpointId, bool]] = Counter()
    last: dict[EndpointId, AttemptRow] = {}
    ids: set[EndpointId] = set()
    for _, endpoint, attempt, _ in results:
        is_ok = attempt.outcome == Outcome.OK
        counts[endpoint.id, is_ok] += 1
        if not is_ok:
            last[endpoint.id] = attempt
        if not is_ok or endpoint.failed_lately:
            ids.add(endpoint.id)
    return [
        RecentRow(
            one, counts[one, True], counts[one, False],
            last[one].outcome if one in last else None,
            last[one].response_code if one in last else None,
        )
        for one in sorted(ids)
    ]  # fmt: skip


def _attempt(
    lease: TakenLease, event_type: str, outcome: Outcome, result: LeaseResult | None, now: datetime
) -> AttemptRow:
    seconds = max(0.0, (now - lease.leased_at).total_seconds())
    error = None if result is None else result.error
    if result is None:
        error = "the lease ended before the receiver returned a result"
    return AttemptRow(
        lease.day, lease.event_id, event_type, lease.endpoint_no, lease.delivery_id, lease.attempt_count + 1,
        lease.trigger, outcome, None, lease.leased_at, seconds, None, None, None, None, False, None, lease.revision,
        None if result is None else result.response_code, None, error, None,
    )  # fmt: skip


def _traffic(result: PulledResult) -> list[TrafficRow]:
    """Return the counts of one attempt, of its endpoint, of its tenant and of all."""
    lease, endpoint, attempt, decision = result
    is_ok, is_timeout = attempt.outcome == Outcome.OK, attempt.outcome == Outcome.TIMEOUT
    ends = decision.state is not lease.state
    latency = [0] * histogram.COUNTS
    latency[histogram.place(attempt.latency_seconds)] = 1
    subjects = (endpoint.id, tenant_subject(endpoint.tenant), tenant_subject(None))
    return [
        TrafficRow(
            subject, int(is_ok), int(not is_ok and not is_timeout), int(is_timeout), 0,
            int(ends and decision.state is DeliveryState.SUCCEEDED),
            int(ends and decision.state is DeliveryState.FAILED),
            "{" + ",".join(map(str, latency)) + "}", attempt.attempted_at, attempt.outcome,
            attempt.response_code, attempt.error,
        )
        for subject in subjects
    ]  # fmt: skip


def _added_up(rows: Sequence[TrafficRow]) -> list[TrafficRow]:
    """Return one row for each subject, sorted, as one statement requires."""
    sums: dict[str, TrafficRow] = {}
    for row in rows:
        before = sums.get(row.subject)
        if before is None:
            sums[row.subject] = row
            continue
        latency = histogram.add_up(
            [int(count) for count in one.latency_counts[1:-1].split(",")] for one in (before, row)
        )
        sums[row.subject] = row._replace(
            ok_count=before.ok_count + row.ok_count,
            refused_count=before.refused_count + row.refused_count,
            timeout_count=before.timeout_count + row.timeout_count,
            succeeded_count=before.succeeded_count + row.succeeded_count,
            failed_count=before.failed_count + row.failed_count,
            latency_counts="{" + ",".join(map(str, latency)) + "}",
        )
    return sorted(sums.values())
