"""Is it healthy, and how did it fare in the last day: for everything, and for each of some endpoints.

Counts of the past come from the hourly counters of the daemon (`delivery/reporting/traffic_counts.py`): at most some
seconds old, without test events, and the "last day" is the present hour and the 23 before it. What
waits is read from the rows themselves; a count beyond `COUNT_MAX` is not counted out.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from dispatcher.admin.operations.context import Actor, Deployment, Role
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
    Summary,
    TroubledEndpoint,
)
from dispatcher.admin.resources.serialization import time_text
from dispatcher.core import histogram
from dispatcher.core.url import masked_url
from dispatcher.store import statistics
from dispatcher.store.endpoints import TroubledRow, WaitingRow, read_in_trouble, read_waiting
from dispatcher.store.statistics import BacklogRow, HourRow, OpenBreaker, read_backlog

if TYPE_CHECKING:
    from dispatcher.admin.resources.fields import HealthName

HOURS: Final = 24
COUNT_MAX: Final = 10_000
"""Waiting rows are counted up to here; then the count is a floor and `…_capped` is true."""
LISTED_COUNT_MAX: Final = 1_000
"""The same, where many endpoints are listed."""
IN_TROUBLE_MAX: Final = 20
LATE_SECONDS: Final = 60.0
"""A delivery due for longer than this, or an event in the outbox, is late."""


class Overview:
    """The figures of a deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._database = deployment.database
        self._clock = deployment.clock

    async def summary(self, actor: Actor) -> Summary:
        """Return health, the totals of the last day, the backlog, and the endpoints in trouble."""
        subject = statistics.tenant_subject(actor.tenant)
        async with self._database.reading() as connection:
            hours = (await statistics.read_traffic(connection, [subject], HOURS))[subject]
            now = await read_backlog(connection, actor.tenant, COUNT_MAX)
            troubled = await read_in_trouble(connection, actor.tenant, IN_TROUBLE_MAX)
            ids = [one.id for one in troubled]
            traffic = await statistics.read_traffic(connection, ids, HOURS)
            waiting = await read_waiting(connection, ids, actor.tenant, LISTED_COUNT_MAX)
        moment = self._clock.now()
        problems = _problems(now, sum(hour.failed_count for hour in hours))
        by_id = {row.endpoint_id: row for row in waiting}
        totals, attempts, latency = _totals(hours, now)
        return Summary(
            at=time_text(moment),
            healthy=not problems,
            problems=problems,
            window_hours=HOURS,
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
            buckets=_buckets(hours, moment),
            endpoints_in_trouble=[
                _troubled(one, traffic[one.id], by_id.get(one.id), actor) for one in troubled
            ],
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
                buckets=_buckets(traffic[row.endpoint_id], moment),
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
    hours: Sequence[HourRow], now: BacklogRow
) -> tuple[DeliveryTotals, AttemptTotals, Latency]:
    ok = sum(hour.ok_count for hour in hours)
    refused = sum(hour.refused_count for hour in hours)
    timed_out = sum(hour.timeout_count for hour in hours)
    unreachable = sum(hour.unreachable_count for hour in hours)
    total = ok + refused + timed_out + unreachable
    latency = histogram.add_up(hour.latency_counts for hour in hours)
    return (
        DeliveryTotals(
            succeeded_count=sum(hour.succeeded_count for hour in hours),
            failed_count=sum(hour.failed_count for hour in hours),
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


def _buckets(hours: Sequence[HourRow], moment: datetime) -> list[Bucket]:
    """Return 24 buckets, oldest first, including empty ones, so that a chart needs no arithmetic."""
    present = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    by_hour = {row.hour.astimezone(UTC): row for row in hours}
    return [
        _bucket(at, by_hour.get(at))
        for at in (present - timedelta(hours=back) for back in range(HOURS - 1, -1, -1))
    ]


def _bucket(at: datetime, row: HourRow | None) -> Bucket:
    if row is None:
        ok = not_ok = succeeded = failed = 0
        p50 = p95 = None
    else:
        ok, succeeded, failed = row.ok_count, row.succeeded_count, row.failed_count
        not_ok = row.refused_count + row.timeout_count + row.unreachable_count
        p50 = histogram.quantile(row.latency_counts, 0.50)
        p95 = histogram.quantile(row.latency_counts, 0.95)
    return Bucket(
        at=time_text(at),
        ok_count=ok,
        not_ok_count=not_ok,
        succeeded_count=succeeded,
        failed_count=failed,
        p50_seconds=p50,
        p95_seconds=p95,
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


def _troubled(
    row: TroubledRow, hours: Sequence[HourRow], waiting: WaitingRow | None, actor: Actor
) -> TroubledEndpoint:
    breaker = None
    if row.breaker_state is not None:
        breaker = BreakerState(
            state=row.breaker_state, opened_at=None, probe_at=time_text(row.probe_at)
        )
    return TroubledEndpoint(
        **_figures(hours, waiting),
        id=row.id,
        name=row.name,
        tenant=row.tenant,
        url=row.url if actor.may(Role.OPERATOR) else masked_url(row.url),
        state=row.state,
        reason=row.reason,
        health=cast("HealthName", row.health),
        health_since=time_text(row.health_since),
        health_cause=row.health_cause,
        health_response_code=row.health_response_code,
        failed_attempts_count=row.failed_attempts,
        breaker=breaker,
    )


def _problems(now: BacklogRow, failed_today: int) -> list[HealthProblem]:
    """List the problems of this moment, the gravest first.

    Failed deliveries are a problem until they are resent, as long as some failed in the last day.
    """
    failed = min(now.failed_count, COUNT_MAX) if failed_today else 0
    late = int(now.oldest_due_seconds or 0)
    outbox = int(now.outbox_seconds or 0)
    disabled, down, degraded = now.disabled_count, now.down_count, now.degraded_count
    found = [
        (not now.dispatchers_alive, "no_dispatcher", 0,
         "no dispatcher runs: nothing is sent until one does"),
        (outbox > LATE_SECONDS, "outbox_late", now.outbox_count,
         f"events wait in the outbox, the oldest for {outbox} seconds"),
        (late > LATE_SECONDS, "deliveries_late", late,
         f"deliveries are late: the oldest was due {late} seconds ago"),
        (disabled > 0, "endpoints_disabled", disabled,
         f"{_endpoints(disabled)} disabled: what comes is cancelled"),
        (down > 0, "endpoints_down", down, f"{_endpoints(down)} down: deliveries wait"),
        (failed > 0, "deliveries_failed", failed,
         f"{failed} deliveries failed and were not resent with success"),
        (degraded > 0, "endpoints_degraded", degraded,
         f"{_endpoints(degraded)} degraded: a share of the attempts fails"),
    ]  # fmt: skip
    return [
        HealthProblem(code=code, count=count, text=text)
        for is_so, code, count, text in found
        if is_so
    ]


def _endpoints(count: int) -> str:
    return "1 endpoint is" if count == 1 else f"{count} endpoints are"
