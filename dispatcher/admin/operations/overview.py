"""Is it healthy, and how did it fare in the last day: for everything, and for each of some endpoints.

Counts of the past come from the hours that the daemon tallies (`delivery/reporting/traffic_counts.py`): at most some
seconds old, without test events, and the "last day" is the present hour and the 23 before it. What
waits is read from the rows themselves; a count beyond `COUNT_MAX` is not counted out.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from dispatcher.admin.operations.deployment import Actor, Deployment, Role
from dispatcher.admin.resources.serialization import Object, time_text
from dispatcher.core import histogram
from dispatcher.core.url import masked_url
from dispatcher.store import admin as store
from dispatcher.store import pages, statistics
from dispatcher.store.pages import NowRow, TroubledEndpoint, WaitingRow
from dispatcher.store.statistics import HourRow

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

    async def summary(self, actor: Actor) -> Object:
        """Returns health, totals of the last day, hourly buckets, what waits, and who is in trouble.

        `problems` lists what is wrong now as `{code, count, text}`, the gravest first; `healthy` says
        that it is empty. Shares and percentiles are null where nothing was counted.
        """
        subject = statistics.tenant_subject(actor.tenant)
        async with store.reading(self._database) as connection:
            hours = (await statistics.read_traffic(connection, [subject], HOURS))[subject]
            now = await pages.read_now(connection, actor.tenant, COUNT_MAX)
            troubled = await pages.read_in_trouble(connection, actor.tenant, IN_TROUBLE_MAX)
            ids = [one.id for one in troubled]
            traffic = await statistics.read_traffic(connection, ids, HOURS)
            waiting = await pages.read_waiting(connection, ids, actor.tenant, LISTED_COUNT_MAX)
        moment = self._clock.now()
        problems = _problems(now)
        by_id = {row.endpoint_id: row for row in waiting}
        return {
            "at": time_text(moment),
            "healthy": not problems,
            "problems": problems,
            "window_hours": HOURS,
            **_totals(hours, now),
            "oldest_undelivered_seconds": max(
                0.0, now.oldest_due_seconds or 0.0, now.outbox_seconds or 0.0
            ),
            "backlog": {
                "outbox_count": min(now.outbox_count, COUNT_MAX),
                "outbox_capped": now.outbox_count > COUNT_MAX,
                "outbox_oldest_seconds": now.outbox_seconds,
                "pending_count": min(now.pending_count, COUNT_MAX),
                "pending_capped": now.pending_count > COUNT_MAX,
                "held_count": min(now.held_count, COUNT_MAX),
                "held_capped": now.held_count > COUNT_MAX,
            },
            "endpoints": {
                "active_count": now.active_count,
                "paused_count": now.paused_count,
                "disabled_count": now.disabled_count,
                "deferred_count": now.deferred_count,
                "failing_count": now.failing_count,
            },
            "dispatchers_alive": now.dispatchers_alive,
            "buckets": _buckets(hours, moment),
            "endpoints_in_trouble": [
                _troubled(one, traffic[one.id], by_id.get(one.id), actor) for one in troubled
            ],
        }

    async def of_endpoints(self, actor: Actor, ids: Sequence[str]) -> dict[str, Object]:
        """Returns for each of the endpoints (those of the actor's tenant) how it fared in the last day.

        Each has `success_rate`, `p50_seconds`, `p95_seconds`, `attempts_count`, 24 `buckets`,
        `pending_count` (with `pending_capped`), `oldest_due_at`, `last_attempt_at`, `last_outcome`,
        `last_response_code`, `last_error`, and `breaker` (null while it is closed).
        """
        async with store.reading(self._database) as connection:
            waiting = await pages.read_waiting(connection, ids, actor.tenant, LISTED_COUNT_MAX)
            mine = [row.endpoint_id for row in waiting]
            traffic = await statistics.read_traffic(connection, mine, HOURS)
            breakers = await statistics.read_breakers(connection, mine, actor.tenant, len(mine))
        moment = self._clock.now()
        found: dict[str, Object] = {}
        for row in waiting:
            found[row.endpoint_id] = {
                **_fared(traffic[row.endpoint_id], row),
                "buckets": _buckets(traffic[row.endpoint_id], moment),
                "breaker": None,
            }
        for breaker in breakers:
            found[breaker.endpoint_id]["breaker"] = {
                "state": breaker.state,
                "opened_at": time_text(breaker.opened_at),
                "probe_at": time_text(breaker.probe_at),
            }
        return found


def _totals(hours: Sequence[HourRow], now: NowRow) -> Object:
    ok = sum(hour.ok_count for hour in hours)
    refused = sum(hour.refused_count for hour in hours)
    timed_out = sum(hour.timeout_count for hour in hours)
    unreachable = sum(hour.unreachable_count for hour in hours)
    total = ok + refused + timed_out + unreachable
    latency = histogram.add_up(hour.latency_counts for hour in hours)
    return {
        "deliveries": {
            "succeeded_count": sum(hour.succeeded_count for hour in hours),
            "failed_count": sum(hour.failed_count for hour in hours),
            "cancelled_count": min(now.cancelled_count, COUNT_MAX),
            "cancelled_capped": now.cancelled_count > COUNT_MAX,
        },
        "attempts": {
            "total_count": total,
            "ok_count": ok,
            "refused_count": refused,
            "timeout_count": timed_out,
            "unreachable_count": unreachable,
            "success_rate": ok / total if total else None,
        },
        "latency_seconds": {
            "p50": histogram.quantile(latency, 0.50),
            "p95": histogram.quantile(latency, 0.95),
            "p99": histogram.quantile(latency, 0.99),
        },
    }


def _buckets(hours: Sequence[HourRow], moment: datetime) -> list[Object]:
    """Returns 24 buckets, oldest first, empty ones included, so that a chart needs no arithmetic."""
    present = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    by_hour = {row.hour.astimezone(UTC): row for row in hours}
    return [
        _bucket(at, by_hour.get(at))
        for at in (present - timedelta(hours=back) for back in range(HOURS - 1, -1, -1))
    ]


def _bucket(at: datetime, row: HourRow | None) -> Object:
    if row is None:
        ok = not_ok = succeeded = failed = 0
        p50 = p95 = None
    else:
        ok, succeeded, failed = row.ok_count, row.succeeded_count, row.failed_count
        not_ok = row.refused_count + row.timeout_count + row.unreachable_count
        p50 = histogram.quantile(row.latency_counts, 0.50)
        p95 = histogram.quantile(row.latency_counts, 0.95)
    return {
        "at": time_text(at),
        "ok_count": ok,
        "not_ok_count": not_ok,
        "succeeded_count": succeeded,
        "failed_count": failed,
        "p50_seconds": p50,
        "p95_seconds": p95,
    }


def _fared(hours: Sequence[HourRow], waiting: WaitingRow | None) -> Object:
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
    one: TroubledEndpoint, hours: Sequence[HourRow], waiting: WaitingRow | None, actor: Actor
) -> Object:
    return {
        "id": one.id,
        "name": one.name,
        "tenant": one.tenant,
        "url": one.url if actor.may(Role.OPERATOR) else masked_url(one.url),
        "state": one.state,
        "reason": one.reason,
        "failing_since": time_text(one.first_failure_at),
        "failed_attempts_count": one.failed_attempts or 0,
        "breaker": None
        if one.breaker_state is None
        else {"state": one.breaker_state, "probe_at": time_text(one.probe_at)},
        **_fared(hours, waiting),
    }


def _problems(now: NowRow) -> list[Object]:
    """Lists what is wrong now, the gravest first; `code` is stable, `text` is for people."""
    failing = now.failing_count
    late = int(now.oldest_due_seconds or 0)
    outbox = int(now.outbox_seconds or 0)
    disabled, deferred = now.disabled_count, now.deferred_count
    found = [
        (not now.dispatchers_alive, "no_dispatcher", 0,
         "no dispatcher runs: nothing is sent until one does"),
        (outbox > LATE_SECONDS, "outbox_late", now.outbox_count,
         f"events wait in the outbox, the oldest for {outbox} seconds"),
        (late > LATE_SECONDS, "deliveries_late", late,
         f"deliveries are late: the oldest was due {late} seconds ago"),
        (disabled > 0, "endpoints_disabled", disabled,
         f"{_endpoints(disabled)} disabled: what comes is cancelled"),
        (deferred > 0, "breakers_open", deferred,
         f"{_endpoints(deferred)} only probed, for failing so often"),
        (failing > 0, "endpoints_failing", failing, f"{_endpoints(failing)} failing"),
    ]  # fmt: skip
    return [
        {"code": code, "count": count, "text": text} for is_so, code, count, text in found if is_so
    ]


def _endpoints(count: int) -> str:
    return "1 endpoint is" if count == 1 else f"{count} endpoints are"
