"""Thresholds on the way to being disabled: never early, the highest that is reached, and enough attempts."""

import pytest

from dispatcher.core.failing import is_to_be_disabled, passed_threshold

HOUR = 3600.0


@pytest.mark.parametrize(
    ("hours", "percent"),
    [(0, 0), (59.9, 0), (60, 50), (83.9, 50), (84, 70), (107.9, 70), (108, 90), (500, 90)],
)
def test_the_highest_threshold_that_is_reached(hours, percent):
    assert passed_threshold(hours * HOUR, 120 * HOUR) == percent


@pytest.mark.parametrize(
    ("hours", "attempts", "answer"), [(120, 20, True), (119.9, 20, False), (900, 19, False)]
)
def test_disabled_only_for_long_and_often(hours, attempts, answer):
    judged = is_to_be_disabled(
        failing_seconds=hours * HOUR,
        disabled_after_seconds=120 * HOUR,
        failed_attempts=attempts,
        failed_attempts_min=20,
    )
    assert judged is answer
