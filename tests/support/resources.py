"""Resources for tests that need one without a database; each argument replaces a field."""

from typing import Any

from dispatcher.admin.resources.delivery import Attempt, Delivery
from dispatcher.admin.resources.endpoint import DEFAULTS, Endpoint

AT = "2026-05-29T14:32:11.000000Z"


def make_attempt(**changes: Any) -> Attempt:
    """Return an attempt that failed."""
    values: dict[str, Any] = {
        "attempt_number": 1,
        "trigger": "scheduled",
        "outcome": "http_error",
        "flags": [],
        "attempted_at": AT,
        "latency_seconds": 0.1,
        "response_code": 500,
        "response_headers": [],
        "response_body": None,
        "error": None,
        "url": "https://example.com/hooks",
    }
    return Attempt(**values | changes)


def make_delivery(**changes: Any) -> Delivery:
    """Return a delivery that is retrying after two attempts."""
    values: dict[str, Any] = {
        "id": "wh_1",
        "event_id": "evt_1",
        "endpoint_id": "ep_1",
        "event_type": "order.created",
        "tenant": "default",
        "profile": "standard",
        "state": "retrying",
        "reason": None,
        "test": False,
        "attempt_count": 2,
        "schedule_position": 2,
        "next_attempt_at": AT,
        "created_at": AT,
        "finished_at": None,
        "warnings": [],
        "labels": {},
        "ordering_key": None,
    }
    return Delivery(**values | changes)


def make_endpoint(**changes: Any) -> Endpoint:
    """Return an active endpoint with default settings."""
    values: dict[str, Any] = {
        **DEFAULTS,
        "id": "ep_01kat9zma1e4gbryhh3m9dq2yw",
        "tenant": "default",
        "profile": "standard",
        "state": "active",
        "reason": None,
        "created_at": AT,
        "updated_at": AT,
        "secret": None,
        "oauth_client_secret": None,
        "client_key": None,
        "public_key": None,
        "staged_secret": None,
        "previous_secret_expires_at": None,
        "problem": None,
        "health": "healthy",
        "health_since": None,
        "health_cause": None,
        "health_response_code": None,
        "waiting_count": 0,
        "waiting_capped": False,
        "failed_unresolved_count": 0,
        "failed_unresolved_capped": False,
    }
    return Endpoint(**values | changes)
