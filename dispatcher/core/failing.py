"""How near an endpoint that keeps failing is to being disabled, and which warnings are raised before that.

The health of endpoints is defined in `store/sql/endpoint_status_evaluate.sql`; its figures are here.
"""

from typing import Final

WARNED_AT_PERCENT: Final = (90, 70, 50)
"""Of the time after which the endpoint is disabled; the highest first."""

DOWN_SECONDS_LONG: Final = 3600
"""An outage that lasts for so long is reported a second time."""
FAILED_ATTEMPTS_MIN: Final = 3
"""Fewer failed attempts are no problem: a quiet endpoint may have been unreachable for seconds only."""
SHARE_SECONDS: Final = 300.0
"""The time over which the share of failures is computed."""
FAILED_SHARE_MIN: Final = 0.1
"""An endpoint is degraded from this share of failed attempts on: a receiver that restarts stays below it."""
RECOVERING_SECONDS_MIN: Final = 60.0
"""An endpoint recovers for at least so long, the longest cool-down of a breaker; longer if deliveries are overdue."""


def down_thresholds(down_after_seconds: int) -> list[int]:
    """Return after how many seconds without a success an outage is reported."""
    return sorted({down_after_seconds, max(down_after_seconds, DOWN_SECONDS_LONG)})


def passed_threshold(failing_seconds: float, disabled_after_seconds: float) -> int:
    """Return the highest threshold, in percent, that the time of failing has reached; 0: none yet."""
    percent = 100.0 * failing_seconds / disabled_after_seconds
    return next((threshold for threshold in WARNED_AT_PERCENT if percent >= threshold), 0)


def is_to_be_disabled(
    *,
    failing_seconds: float,
    disabled_after_seconds: float,
    failed_attempts: int,
    failed_attempts_min: int,
) -> bool:
    """Return whether an endpoint has failed for long enough and often enough.

    Both, so that a quiet endpoint is not disabled after two requests.
    """
    return failing_seconds >= disabled_after_seconds and failed_attempts >= failed_attempts_min
