"""Health, open problems and traffic: of a deployment, and of each of some endpoints.

Counts of the past come from the counters of the daemon (`delivery/reporting/traffic_counts.py`), by minute
for the last hour and by hour for longer ranges: at most some seconds old, without test events. A range ends with
the present minute or hour, so "24h" is the present hour and the 23 before it. Waiting deliveries are read from their
rows; a count beyond `COUNT_MAX` is not counted out.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.endpoint_reader import EndpointReader
from dispatcher.admin.resources.overview import (
    AttemptTotals,
    Backlog,
    BreakerState,
    Bucket,
    DeliveryTotals,
    EndpointCounts,
    EndpointFigures,
    HealthProblem,
    Latency,
    OpenProblems,
    Summary,
    TrafficRange,
)
from dispatcher.admin.resources.serialization import time_text
from dispatcher.core import histogram
from dispatcher.store import statistics
from dispatcher.store.endpoint_counts import WaitingRow, read_waiting
from dispatcher.store.statistics import BacklogRow, HourRow, OpenBreaker, TrafficPart, read_backlog

HOURS: Final = 24
COUNT_MAX: Final = 10_000
"""Waiting rows are counted up to here; then the count is a floor and `…_capped` is true."""
LISTED_COUNT_MAX: Final = 1_000
"""The same, where many endpoints are listed."""
PROBLEMS_MAX: Final = 20
"""Endpoints with problems that are listed."""
LATE_SECONDS: Final = 60.0
"""A delivery due for longer than this, or an event in the outbox, is late."""
_DEPLOYMENT_CODES: Final = ("no_dispatcher", "outbox_late", "deliveries_late")
"""Problems of no single endpoint."""


class _Buckets(NamedTuple):
    """The buckets of a range: their number and the length of each."""

    number: int
    seconds: int


_RANGES: Final[Mapping[TrafficRange, _Buckets]] = {
    TrafficRange.HOUR: _Buckets(60, 60),
    TrafficRange.DAY: _Buckets(24, 3_600),
    TrafficRange.WEEK: _Buckets(56, 10_800),
    TrafficRange.MONTH: _Buckets(60, 43_200),
}


class Overview:
    """The figures of a deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._database = deployment.database
        self._clock = deployment.clock
        self._endpoints = EndpointReader(deployment)

    async def problems(self, actor: Actor) -> OpenProblems:
        """Return the problems of this moment.

        An endpoint has one if it is disabled or not healthy, or if deliveries to it have failed while failed
        deliveries are a problem of the deployment.
        """
        subject = statistics.tenant_subject(actor.tenant)
        async with self._database.reading() as connection:
            hours = (await statistics.read_traffic(connection, [subject], HOURS))[subject]
            now = await read_backlog(connection, actor.tenant, COUNT_MAX)
        return await self._open_problems(actor, _problems(now, _failed_count(hours)))

    async def home(
        self, actor: Actor, over: TrafficRange = TrafficRange.DAY
    ) -> tuple[Summary, OpenProblems]:
        """Return the summary and the problems of the same moment, reading the backlog once."""
        summary = await self.summary(actor, over)
        return summary, await self._open_problems(actor, summary.problems)

    async def _open_problems(self, actor: Actor, found: Sequence[HealthProblem]) -> OpenProblems:
        has_failed = any(one.code == "deliveries_failed" for one in found)
        endpoints, more = await self._endpoints.with_problems(
            actor, has_failed=has_failed, failed_max=COUNT_MAX, rows_max=PROBLEMS_MAX
        )
        return OpenProblems(
            deployment=[one for one in found if one.code in _DEPLOYMENT_CODES],
            endpoints=endpoints,
            more=more,
        )

    async def summary(self, actor: Actor, over: TrafficRange = TrafficRange.DAY) -> Summary:
        """Return health, the figures of a range, and the backlog."""
        subject = statistics.tenant_subject(actor.tenant)
        buckets = _RANGES[over]
        async with self._database.reading() as connection:
            days = (await statistics.read_traffic(connection, [subject], HOURS))[subject]
            parts: Sequence[TrafficPart] = [hour.part for hour in days]
            if over is TrafficRange.HOUR:
                parts = await statistics.read_minutes(connection, subject, buckets.number)
            elif over is not TrafficRange.DAY:
                hours = buckets.number * buckets.seconds // 3_600
                more = await statistics.read_traffic(connection, [subject], hours)
                parts = [hour.part for hour in more[subject]]
            now = await read_backlog(connection, actor.tenant, COUNT_MAX)
        moment = self._clock.now()
        problems = _problems(now, _failed_count(days))
        totals, attempts, latency = _totals(parts, now)
        return Summary(
            at=time_text(moment),
            healthy=not problems,
            problems=problems,
            range=over,
            deliveries=totals,
            attempts=attempts,
            latency_seconds=latency,
            failed_unresolved_count=min(now.failed_count, COUNT_MAX),
            failed_unresolved_capped=now.failed_count > COUNT_MAX,
            oldest_undelivered_seconds=max(
                0.0, now.oldest_due_seconds or 0.0, now.outbox_seconds or 0.0
            ),
            backlog=Backlog(
                outbox_count=min(now.outbox_count, COUNT_MAX),
                outbox_capped=now.outbox_count > COUNT_MAX,
                outbox_oldest_seconds=now.outbox_seconds,
                pending_count=min(now.pending_count, COUNT_MAX),
                pending_capped=now.pending_count > COUNT_MAX,
                held_count=min(now.held_count, COUNT_MAX),
                held_capped=now.held_count > COUNT_MAX,
            ),
            endpoints=EndpointCounts(
                active_count=now.active_count,
                paused_count=now.paused_count,
                disabled_count=now.disabled_count,
                down_count=now.down_count,
                degraded_count=now.degraded_count,
                recovering_count=now.recovering_count,
            ),
            dispatchers_alive=now.dispatchers_alive,
            buckets=_buckets(parts, moment, buckets),
        )

    async def of_endpoints(self, actor: Actor, ids: Sequence[str]) -> dict[str, EndpointFigures]:
        """Return the last day of each of the endpoints, those of other tenants left out."""
        async with self._database.reading() as connection:
            waiting = await read_waiting(connection, ids, actor.tenant, LISTED_COUNT_MAX)
            mine = [row.endpoint_id for row in waiting]
            traffic = await statistics.read_traffic(connection, mine, HOURS)
            breakers = await statistics.read_breakers(connection, mine, actor.tenant, len(mine))
        moment = self._clock.now()
        by_id = {breaker.endpoint_id: breaker for breaker in breakers}
        return {
            row.endpoint_id: EndpointFigures(
                **_figures(traffic[row.endpoint_id], row),
                buckets=_buckets(
                    [hour.part for hour in traffic[row.endpoint_id]],
                    moment,
                    _RANGES[TrafficRange.DAY],
                ),
                breaker=_breaker(by_id.get(row.endpoint_id)),
            )
            for row in waiting
        }


def _breaker(row: OpenBreaker | None) -> BreakerState | None:
    if row is None:
        return None
    return BreakerState(
        state=row.state, opened_at=time_text(row.opened_at), probe_at=time_text(row.probe_at)
    )


def _totals(
    parts: Sequence[TrafficPart], now: BacklogRow
) -> tuple[DeliveryTotals, AttemptTotals, Latency]:
    ok = sum(part.ok_count for part in parts)
    refused = sum(part.refused_count for part in parts)
    timed_out = sum(part.timeout_count for part in parts)
    unreachable = sum(part.unreachable_count for part in parts)
    total = ok + refused + timed_out + unreachable
    latency = histogram.add_up(part.latency_counts for part in parts)
    return (
        DeliveryTotals(
            succeeded_count=sum(part.succeeded_count for part in parts),
            failed_count=sum(part.failed_count for part in parts),
            cancelled_count=min(now.cancelled_count, COUNT_MAX),
            cancelled_capped=now.cancelled_count > COUNT_MAX,
        ),
        AttemptTotals(
            total_count=total,
            ok_count=ok,
            refused_count=refused,
            timeout_count=timed_out,
            unreachable_count=unreachable,
            success_rate=ok / total if total else None,
        ),
        Latency(
            p50=histogram.quantile(latency, 0.50),
            p95=histogram.quantile(latency, 0.95),
            p99=histogram.quantile(latency, 0.99),
        ),
    )


def _buckets(parts: Sequence[TrafficPart], moment: datetime, buckets: _Buckets) -> list[Bucket]:
    """Return the buckets of a range, oldest first, including empty ones, so that a chart needs no arithmetic."""
    unit = timedelta(seconds=min(buckets.seconds, 3_600))
    midnight = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    end = midnight + ((moment - midnight) // unit + 1) * unit
    length = timedelta(seconds=buckets.seconds)
    start = end - buckets.number * length
    of_bucket: list[list[TrafficPart]] = [[] for _ in range(buckets.number)]
    for part in parts:
        index = (part.at - start) // length
        if 0 <= index < buckets.number:
            of_bucket[index].append(part)
    return [_bucket(start + index * length, length, those) for index, those in enumerate(of_bucket)]


def _bucket(at: datetime, length: timedelta, parts: Sequence[TrafficPart]) -> Bucket:
    latency = histogram.add_up(part.latency_counts for part in parts)
    return Bucket(
        at=time_text(at),
        until=time_text(at + length),
        ok_count=sum(part.ok_count for part in parts),
        not_ok_count=sum(
            part.refused_count + part.timeout_count + part.unreachable_count for part in parts
        ),
        succeeded_count=sum(part.succeeded_count for part in parts),
        failed_count=sum(part.failed_count for part in parts),
        p50_seconds=histogram.quantile(latency, 0.50),
        p95_seconds=histogram.quantile(latency, 0.95),
    )


def _figures(hours: Sequence[HourRow], waiting: WaitingRow | None) -> dict[str, Any]:
    ok = sum(hour.ok_count for hour in hours)
    total = ok + sum(h.refused_count + h.timeout_count + h.unreachable_count for h in hours)
    latency = histogram.add_up(hour.latency_counts for hour in hours)
    last = hours[-1] if hours else None
    pending = waiting.waiting_count if waiting is not None else 0
    return {
        "attempts_count": total,
        "success_rate": ok / total if total else None,
        "p50_seconds": histogram.quantile(latency, 0.50),
        "p95_seconds": histogram.quantile(latency, 0.95),
        "pending_count": min(pending, LISTED_COUNT_MAX),
        "pending_capped": pending > LISTED_COUNT_MAX,
        "oldest_due_at": None if waiting is None else time_text(waiting.oldest_due_at),
        "last_attempt_at": None if last is None else time_text(last.last_attempt_at),
        "last_outcome": None if last is None else last.last_outcome,
        "last_response_code": None if last is None else last.last_response_code,
        "last_error": None if last is None else last.last_error,
    }


def _failed_count(hours: Sequence[HourRow]) -> int:
    return sum(hour.failed_count for hour in hours)


def _problems(now: BacklogRow, failed_today: int) -> list[HealthProblem]:
    """List the problems of this moment, the gravest first.

    Failed deliveries are a problem until they are resent, as long as some failed in the last day.
    """
    failed = min(now.failed_count, COUNT_MAX) if failed_today else 0
    late = int(now.oldest_due_seconds or 0)
    outbox = int(now.outbox_seconds or 0)
    disabled, down, degraded = now.disabled_count, now.down_count, now.degraded_count
    found = [
        (not now.dispatchers_alive, "no_dispatcher", 0),
        (outbox > LATE_SECONDS, "outbox_late", now.outbox_count),
        (late > LATE_SECONDS, "deliveries_late", late),
        (disabled > 0, "endpoints_disabled", disabled),
        (down > 0, "endpoints_down", down),
        (failed > 0, "deliveries_failed", failed),
        (degraded > 0, "endpoints_degraded", degraded),
    ]
    return [HealthProblem(code=code, count=count) for is_so, code, count in found if is_so]
