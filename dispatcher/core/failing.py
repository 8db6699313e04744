"""How near an endpoint that keeps failing is to being disabled, and which warnings are raised before that."""

from typing import Final

WARNED_AT_PERCENT: Final = (90, 70, 50)
"""Of the time after which the endpoint is disabled; the highest first."""

DOWN_SECONDS: Final = (300, 3600)
"""An endpoint is reported as down when no attempt has succeeded for so long; each threshold once in an outage."""
DOWN_ATTEMPTS_MIN: Final = 3
"""Fewer failed attempts are not an outage: a quiet endpoint may have been unreachable for seconds only."""


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
