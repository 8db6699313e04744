"""Filters in the address of a page, read into queries; all problems are reported together.

Times are typed in the viewer's zone, as browsers give them (`2026-05-29T21:32`). One search box finds
by id, by label, by name and by text in the payload.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TypeVar

from dispatcher.admin.console.context import Context
from dispatcher.admin.console.forms import problems_by_field
from dispatcher.admin.console.times import Zone
from dispatcher.admin.resources.delivery import DeliveriesQuery
from dispatcher.admin.resources.event import EventsQuery
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.problems import Problem, problem

_Query = TypeVar("_Query", DeliveriesQuery, EventsQuery)
_DELIVERY_ID: Final = re.compile(r"wh_[a-z0-9]{26}")
DELIVERY_FIELDS: Final = ("q", "endpoint_id", "event_type", "state", "test", "since", "until")
EVENT_FIELDS: Final = ("q", "event_type", "test", "since", "until")
_TESTS: Final[Mapping[str | None, bool | None]] = {None: None, "yes": True, "no": False}


def delivery_query(
    context: Context, endpoint_id: str | None = None
) -> tuple[DeliveriesQuery, dict[str, str]]:
    """Return the query of the address, and its problems by field; with problems the query has no filter."""
    values, problems = _values(context)
    values["endpoint_id"] = endpoint_id or context.query("endpoint_id")
    values["state"] = context.query("state")
    return _read(context, DeliveriesQuery, values, problems)


def delivery_id(context: Context) -> str | None:
    """Return the delivery whose id was searched for, so that its page is shown."""
    text = context.query("q") or ""
    return text if _DELIVERY_ID.fullmatch(text) else None


def event_query(context: Context) -> tuple[EventsQuery, dict[str, str]]:
    """Return the query of a page of events, and its problems by field."""
    values, problems = _values(context)
    return _read(context, EventsQuery, values, problems)


def _values(context: Context) -> tuple[dict[str, object], dict[str, str]]:
    problems: dict[str, str] = {}
    values: dict[str, object] = {
        "event_type": context.query("event_type"),
        "q": context.query("q"),
        "test": _test(context, problems),
        "since": read_time(context, "since", problems),
        "until": read_time(context, "until", problems),
        "cursor": context.query("cursor"),
    }
    return values, problems


def _read(
    context: Context, query: type[_Query], values: Mapping[str, object], problems: dict[str, str]
) -> tuple[_Query, dict[str, str]]:
    if not problems:
        try:
            return query.of(**{k: v for k, v in values.items() if v is not None}), {}
        except InvalidRequestError as error:
            problems = problems_by_field(context, error.problems)
    return query(), problems


def _test(context: Context, problems: dict[str, str]) -> bool | None:
    text = context.query("test")
    if text not in _TESTS:
        problems["test"] = context.text("filter.test_form")
        return None
    return _TESTS[text]


def read_time(context: Context, name: str, problems: dict[str, str]) -> datetime | None:
    """Return an instant that was typed in the viewer's zone; None where none was."""
    text = context.query(name)
    if text is None:
        return None
    found = parse_time(text, context.zone)
    if found is None:
        problems[name] = context.text("filter.time_form")
    return found


def parse_time(text: str, zone: Zone) -> datetime | None:
    """Return an instant; one without a zone is in the viewer's."""
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=zone.info)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def unreadable(problems: Mapping[str, str]) -> list[Problem]:
    """Return the problems of a filter that could not be read, for a page that has no filter."""
    return [problem(name, "invalid_value", detail=text) for name, text in problems.items()]
