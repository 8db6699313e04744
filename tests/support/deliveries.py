"""Endpoints, deliveries and results for tests of stages, with what does not matter filled in."""

from datetime import UTC, date, datetime
from typing import Any, cast

from dispatcher.core.matching import parse_event_types
from dispatcher.core.model import (
    Answer,
    DeliveryId,
    DeliveryState,
    EndpointId,
    EndpointState,
    Outcome,
    Trigger,
)
from dispatcher.core.outcome import Decision, RetryPolicy
from dispatcher.delivery.endpoint import Endpoint
from dispatcher.delivery.types import AttemptResult, Delivery, EndpointLane

AT = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DAY = date(2026, 11, 23)


def make_endpoint(name: str = "ep", **changes: Any) -> Endpoint:
    fields: dict[str, Any] = {
        "id": EndpointId(name),
        "tenant": "default",
        "name": name,
        "url": f"https://{name}.test/",
        "profile_name": "standard",
        "profile": None,
        "state": EndpointState.ACTIVE,
        "subscription": parse_event_types(["*"]),
        "label_filter": {},
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
        "failing": False,
        "secrets_change_at": None,
    }
    return Endpoint(**{**fields, **changes})


async def make_no_bodies(deliveries: Any) -> frozenset[DeliveryId]:
    """Stand for `LateBodies.make` where every delivery has its body."""
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


def make_result(
    delivery: Delivery,
    lane: EndpointLane | None = None,
    *,
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
    return AttemptResult(
        delivery,
        cast("EndpointLane", lane),
        endpoint or (lane.endpoint if lane is not None else make_endpoint()),
        token,
        delivery.attempt_count + 1,
        AT,
        0.1,
        finished_at_monotonic,
        Answer(outcome, status=200 if outcome is Outcome.OK else 500),
        Decision(**{**fields, **decision}),
    )
