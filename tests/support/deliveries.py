"""Endpoints, deliveries and results for tests of stages, with what does not matter filled in."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from dispatcher.core.breaker import Breaker
from dispatcher.core.matching import parse_event_types
from dispatcher.core.model import (
    DeliveryId,
    DeliveryState,
    EndpointId,
    EndpointState,
    HttpResponse,
    Outcome,
    Trigger,
)
from dispatcher.core.outcome import Decision, RetryPolicy
from dispatcher.delivery.endpoint import Endpoint
from dispatcher.delivery.types import IN_FLIGHT, AttemptResult, Delivery, EndpointLane, Entry
from dispatcher.late_bodies import LateBodies

AT = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DAY = date(2026, 11, 23)


def make_endpoint(name: str = "ep", **changes: Any) -> Endpoint:
    fields: dict[str, Any] = {
        "id": EndpointId(name),
        "number": 1,
        "revision": 1,
        "tenant": "default",
        "name": name,
        "url": f"https://{name}.test/",
        "ca_pem": None,
        "credentials": None,
        "profile_name": "standard",
        "profile": None,
        "state": EndpointState.ACTIVE,
        "subscription": parse_event_types(["*"]),
        "label_filter": {},
        "content_filter": None,
        "is_pulled": False,
        "mask": None,
        "body_key": "standard",
        "shard": 1,
        "max_concurrency": 2,
        "rate_limit": None,
        "timeout_seconds": 5.0,
        "retry_policy": RetryPolicy(schedule=(1.0,), jitter_range=None, gone_disables=False),
        "template": None,
        "target": None,
        "host_key": (name, 443),
        "problem": None,
        "problem_detail": "",
        "secrets_change_at": None,
    }
    if changes.get("profile") is not None:
        fields["body_key"] = changes["profile"].name
    return Endpoint(**{**fields, **changes})


class NoLateBodies(LateBodies):
    """Stands for `LateBodies` where every delivery has its body."""

    def __init__(self) -> None: ...

    async def make(self, deliveries: Sequence[tuple[DeliveryId, date]]) -> frozenset[DeliveryId]:
        """Make none."""
        del deliveries
        return frozenset()


def make_delivery(
    name: str, *, trigger: Trigger = Trigger.SCHEDULED, body: bytes = b"{}", attempt_count: int = 0
) -> Delivery:
    return Delivery(
        DeliveryId(name),
        DAY,
        f"evt-{name}",
        "a.b",
        body,
        AT,
        None,
        DeliveryState.PENDING,
        None,
        attempt_count,
        0,
        trigger,
    )


def make_lane(endpoint: Endpoint | None = None) -> EndpointLane:
    return EndpointLane(
        endpoint or make_endpoint(), 1, breaker=Breaker(), bucket=None, is_open=True, active={}
    )


def make_entry(delivery: Delivery, lane: EndpointLane | None = None) -> Entry:
    """An entry in flight that no inventory knows of."""
    entry = Entry(delivery.id, lane or make_lane(), delivery)
    entry.phase = IN_FLIGHT
    return entry


def make_result(
    delivery: Delivery,
    lane: EndpointLane | None = None,
    *,
    entry: Entry | None = None,
    endpoint: Endpoint | None = None,
    outcome: Outcome = Outcome.OK,
    token: int = 1,
    next_delay_seconds: float | None = None,
    finished_at_monotonic: float = 1_000.0,
    **decision: Any,
) -> AttemptResult:
    state = DeliveryState.SUCCEEDED if outcome is Outcome.OK else DeliveryState.RETRYING
    fields = {
        "state": state,
        "reason": None,
        "schedule_position": 1,
        "next_delay_seconds": next_delay_seconds,
    }
    entry = entry or make_entry(delivery, lane or (make_lane(endpoint) if endpoint else None))
    return AttemptResult(
        entry,
        delivery,
        endpoint or entry.lane.endpoint,
        token,
        delivery.attempt_count + 1,
        AT,
        0.1,
        finished_at_monotonic,
        HttpResponse(outcome, status=200 if outcome is Outcome.OK else 500),
        Decision(**{**fields, **decision}),
    )
