"""Filters in the address of a page: what a person typed becomes a filter, every fault told at once.

Times are typed in the viewer's zone, as browsers give them (`2026-05-29T21:32`). One search box finds
by id, by label and by business key.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from dispatcher.admin.console.times import Zone
from dispatcher.admin.console.visit import Visit
from dispatcher.admin.operations.delivery_search import DeliveryFilter
from dispatcher.core.problems import Problem, problem

_DELIVERY_ID: Final = re.compile(r"wh_[a-z0-9]{26}")
DELIVERY_FIELDS: Final = ("q", "endpoint_id", "event_type", "state", "test", "since", "until")
EVENT_FIELDS: Final = ("q", "event_type", "test", "since", "until")
_TESTS: Final[Mapping[str | None, bool | None]] = {None: None, "yes": True, "no": False}


def delivery_filter(
    visit: Visit, endpoint_id: str | None = None
) -> tuple[DeliveryFilter, dict[str, str]]:
    """Returns the filter of the address, and what is wrong with it by field."""
    problems: dict[str, str] = {}
    values: dict[str, object] = {
        "endpoint_id": endpoint_id or visit.query("endpoint_id"),
        "event_type": visit.query("event_type"),
        "state": visit.query("state"),
        "test": _test(visit, problems),
        "since": read_time(visit, "since", problems),
        "until": read_time(visit, "until", problems),
        "search": visit.query("q"),
    }
    return DeliveryFilter(**{k: v for k, v in values.items() if v is not None}), problems  # type: ignore[arg-type]  # as named


def delivery_id(visit: Visit) -> str | None:
    """Returns the delivery whose id was searched for: its page is the answer."""
    text = visit.query("q") or ""
    return text if _DELIVERY_ID.fullmatch(text) else None


def event_filter(visit: Visit) -> tuple[dict[str, object], dict[str, str]]:
    """Returns the arguments of a page of events, and what is wrong by field."""
    problems: dict[str, str] = {}
    values: dict[str, object] = {
        "event_type": visit.query("event_type"),
        "search": visit.query("q"),
        "test": _test(visit, problems),
        "since": read_time(visit, "since", problems),
        "until": read_time(visit, "until", problems),
    }
    return values, problems


def _test(visit: Visit, problems: dict[str, str]) -> bool | None:
    text = visit.query("test")
    if text not in _TESTS:
        problems["test"] = visit.text("filter.test_form")
        return None
    return _TESTS[text]


def read_time(visit: Visit, name: str, problems: dict[str, str]) -> datetime | None:
    """Returns an instant that was typed in the viewer's zone; None where none was."""
    text = visit.query(name)
    if text is None:
        return None
    found = parse_time(text, visit.zone)
    if found is None:
        problems[name] = visit.text("filter.time_form")
    return found


def parse_time(text: str, zone: Zone) -> datetime | None:
    """Returns an instant; one without a zone is in the viewer's."""
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=zone.info)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def unreadable(problems: Mapping[str, str]) -> list[Problem]:
    """Return the problems of a filter that could not be read, for a page that has no filter."""
    return [problem(name, "invalid_value", detail=text) for name, text in problems.items()]
