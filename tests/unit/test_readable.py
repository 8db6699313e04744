"""What a row holds that nobody could have saved is told by its column."""

from typing import Any

import pytest

from dispatcher.core.readable import DELAY_SECONDS_MAX, faults

GOOD: dict[str, Any] = {
    "event_types": ["a.b", "*"],
    "labels": {"a": "b", "c": ["d", "e"]},
    "headers": {"X-A": "b"},
    "retry_schedule_seconds": [0.0, 1, DELAY_SECONDS_MAX],
}


def test_what_can_be_saved_can_be_read():
    assert faults(**GOOD) == []
    assert faults(event_types=[], labels={}, headers={}, retry_schedule_seconds=None) == []
    assert faults(**(GOOD | {"retry_schedule_seconds": []})) == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("event_types", ["a.b", None]),
        ("event_types", [["a.b"]]),
        ("labels", {"a": 5}),
        ("labels", {"a": ["b", None]}),
        ("labels", []),
        ("headers", {"X-A": None}),
        ("headers", {"X-A": ["b"]}),
        ("headers", "X-A: b"),
        ("retry_schedule_seconds", [float("inf")]),
        ("retry_schedule_seconds", [float("nan")]),
        ("retry_schedule_seconds", [-0.001]),
        ("retry_schedule_seconds", [DELAY_SECONDS_MAX * 2]),
        ("retry_schedule_seconds", [None]),
        ("retry_schedule_seconds", [[1.0]]),
    ],
)
def test_each_column_is_told_by_its_name(column: str, value: object):
    [fault] = faults(**(GOOD | {column: value}))
    assert fault.startswith(f"{column} ")


def test_all_faults_are_told_together():
    found = faults(event_types=[None], labels=1, headers=1, retry_schedule_seconds=[None])
    assert [one.split()[0] for one in found] == [
        "event_types",
        "labels",
        "headers",
        "retry_schedule_seconds",
    ]
