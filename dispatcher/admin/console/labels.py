"""Labels: why an attempt failed, the remedy, the look of a state.

The sets of outcomes and states are closed, and a test asks the catalogues for each of their words.
"""

from collections.abc import Mapping
from typing import Final

from dispatcher.admin.resources.delivery import Attempt, Delivery
from dispatcher.core.model import DeliveryState, EndpointState, HealthState, Outcome

ADVISED_CODES: Final = frozenset(
    {301, 302, 307, 308, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 500, 502, 503, 504}
)
TONES: Final[Mapping[str, str]] = {
    DeliveryState.SUCCEEDED: "good",
    DeliveryState.FAILED: "bad",
    DeliveryState.CANCELLED: "muted",
    DeliveryState.PENDING: "plain",
    DeliveryState.RETRYING: "warn",
    EndpointState.ACTIVE: "on",
    EndpointState.PAUSED: "warn",
    EndpointState.DISABLED: "bad",
    HealthState.HEALTHY: "good",
    HealthState.DEGRADED: "warn",
    HealthState.DOWN: "bad",
    HealthState.RECOVERING: "plain",
    **{outcome: "good" if outcome is Outcome.OK else "bad" for outcome in Outcome},
}
ICONS: Final = {
    "good": "✓", "bad": "✕", "muted": "\N{EN DASH}", "plain": "…", "warn": "↻", "on": "●",
}  # fmt: skip


def advice(attempt: Attempt) -> str | None:
    """Return the key of what to do about an attempt; None for a success."""
    outcome, code = Outcome(attempt.outcome), attempt.response_code
    if outcome is Outcome.OK:
        return None
    if outcome is Outcome.HTTP_ERROR and code in ADVISED_CODES:
        return f"advice.code_{code}"
    if outcome is Outcome.HTTP_ERROR and code is not None:
        return f"advice.code_{code // 100}xx" if code // 100 in {3, 4, 5} else "advice.http_error"
    return f"advice.{outcome}"


def afterwards(delivery: Delivery, resend_code: str, endpoint_state: str | None) -> str | None:
    """Return the key of the step after the advice; None if no manual step is left."""
    if delivery.state != "failed":
        return None
    if delivery.test:
        return "advice.then_test"
    if resend_code != "allowed":
        return None
    is_active = endpoint_state == EndpointState.ACTIVE
    return "advice.then_resend" if is_active else "advice.then_resume"


def retry_count(delivery: Delivery) -> int:
    """Return the sources' "Retry count": attempts after the first one."""
    return max(0, delivery.attempt_count - 1)
