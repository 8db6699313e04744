"""Filters in the address of a page, read into queries; all problems are reported together.

Times are typed in the viewer's zone, as browsers give them (`2026-05-29T21:32`). One search box finds
by id, by label, by name and by text in the payload.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Generic, TypeVar
from urllib.parse import urlencode

from dispatcher.admin.console.context import Context
from dispatcher.admin.console.forms import problems_by_field
from dispatcher.admin.console.times import Zone, moment
from dispatcher.admin.resources.delivery import DeliveriesQuery, DeliveryPage
from dispatcher.admin.resources.event import EventPage, EventsQuery
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.problems import Problem, problem

_Query = TypeVar("_Query", DeliveriesQuery, EventsQuery)
DELIVERY_ID: Final = re.compile(r"wh_[a-z0-9]{26}")
PERIODS: Final[Mapping[str, timedelta]] = {
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
}
ROWS: Final = ("20", "50", "100")
"""Rows of a page that people can choose; the first is the default."""
_COMMON_FIELDS: Final = ("q", "event_type", "label", "test", "period", "since", "until")
DELIVERY_FIELDS: Final = (*_COMMON_FIELDS, "endpoint_id", "state", "response")
EVENT_FIELDS: Final = (*_COMMON_FIELDS, "system")
_TESTS: Final[Mapping[str | None, bool | None]] = {None: None, "yes": True, "no": False}


@dataclass(frozen=True, slots=True)
class Filter(Generic[_Query]):
    """A filter of the address, as people see it and as a query."""

    query: _Query
    """Without a condition if there are problems."""
    problems: dict[str, str]
    """By field."""
    given: list[tuple[str, str]]
    """The conditions of the address, for chips and for links to other pages."""
    now: datetime
    """The moment that a period ends with; a page after the first one keeps that of the first."""

    def carried(self) -> str:
        """Return the conditions for another page, with a period as a time."""
        rest = [(name, text) for name, text in self.given if name != "period"]
        if any(name == "period" for name, _ in self.given) and self.query.since is not None:
            rest.append(("since", self.query.since.isoformat()))
        return urlencode(rest)


def delivery_filter(context: Context, endpoint_id: str | None = None) -> Filter[DeliveriesQuery]:
    """Return the filter of a page of deliveries; `endpoint_id` is the page's own."""
    values, problems, now = _values(context)
    values["endpoint_id"] = endpoint_id or context.query("endpoint_id")
    values["state"] = _joined(context, "state")
    values["response"] = _joined(context, "response")
    given = _given(context, DELIVERY_FIELDS)
    if endpoint_id is not None:
        given = [one for one in given if one[0] != "endpoint_id"] + [("endpoint_id", endpoint_id)]
    query, problems = _read(context, DeliveriesQuery, values, problems)
    return Filter(query, problems, given, now)


def delivery_id(context: Context) -> str | None:
    """Return the delivery whose id was searched for, so that its page is shown."""
    text = context.query("q") or ""
    return text if DELIVERY_ID.fullmatch(text) else None


def event_filter(context: Context) -> Filter[EventsQuery]:
    """Return the filter of a page of events; without another choice it leaves out the dispatcher's own."""
    values, problems, now = _values(context)
    system = context.query("system")
    if system not in {None, "yes", "only"}:
        problems["system"] = context.text("filter.system_form")
    values["system"] = {"yes": None, "only": True}.get(system or "", False)
    query, problems = _read(context, EventsQuery, values, problems)
    return Filter(query, problems, _given(context, EVENT_FIELDS), now)


def chips(
    context: Context, given: Sequence[tuple[str, str]], names: Mapping[str, str]
) -> list[tuple[str, str, str]]:
    """Return the conditions as people read them, each with the address without it; `names` are those of endpoints."""
    found = []
    for name, text in given:
        address = context.address(None, **{name: None, "cursor": None, "at": None})
        shown = names.get(text, text) if name == "endpoint_id" else _in_words(context, name, text)
        found.append((context.language.word("filterof", name), shown, address))
    return found


def _in_words(context: Context, name: str, text: str) -> str:
    match name:
        case "state":
            return ", ".join(context.language.word("state", one) for one in text.split(","))
        case "response":
            return ", ".join(context.language.word("response", one) for one in text.split(","))
        case "period" if text in PERIODS:
            return context.language.word("period", text)
        case "test":
            return context.language.word("filtertest", text)
        case "system":
            return context.language.word("filtersystem", text)
        case "since" | "until":
            at = parse_time(text, context.zone)
            shown = None if at is None else moment(at.isoformat(), context.zone)
            return text if shown is None else shown.local
        case _:
            return text


def _given(context: Context, fields: Sequence[str]) -> list[tuple[str, str]]:
    """Return the conditions of the address; several states or classes are one."""
    given: list[tuple[str, str]] = []
    for name in fields:
        texts = [text.strip() for text in context.request.query.getall(name, [])]
        if name in {"state", "response"}:
            texts = [_joined(context, name) or ""]
        given += [(name, text) for text in texts if text]
    return given


def _joined(context: Context, name: str) -> str | None:
    """Return the values of a parameter that a form repeats, separated by commas."""
    texts = context.request.query.getall(name, [])
    return ",".join(one.strip() for text in texts for one in text.split(",") if one.strip()) or None


def _values(context: Context) -> tuple[dict[str, object], dict[str, str], datetime]:
    problems: dict[str, str] = {}
    until = read_time(context, "until", problems)
    since = read_time(context, "since", problems)
    now = read_time(context, "at", problems) or context.app.now()
    period = context.query("period")
    if period is not None:
        if period not in PERIODS:
            problems["period"] = context.text("filter.period_form", allowed=", ".join(PERIODS))
        else:
            since = now - PERIODS[period]
    labels = [text.strip() for text in context.request.query.getall("label", []) if text.strip()]
    values: dict[str, object] = {
        "event_type": context.query("event_type"),
        "q": context.query("q"),
        "label": labels or None,
        "test": _test(context, problems),
        "since": since,
        "until": until,
        "cursor": context.query("cursor"),
        "limit": _limit(context, problems),
    }
    return values, problems, now


def _limit(context: Context, problems: dict[str, str]) -> str:
    text = context.query("rows") or ROWS[0]
    if text not in ROWS:
        problems["rows"] = context.text("filter.rows_form", allowed=", ".join(ROWS))
    return text


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


def ends_before_contents(
    query: DeliveriesQuery | EventsQuery, page: DeliveryPage | EventPage
) -> bool:
    """Return whether a page has the exact matches of a text, and the next one searches the payloads."""
    return bool(
        query.q
        and page.next_cursor
        and page.searched_back_to is None
        and len(page.items) < query.limit
    )


def unreadable(problems: Mapping[str, str]) -> list[Problem]:
    """Return the problems of a filter that could not be read, for a page that has no filter."""
    return [problem(name, "invalid_value", detail=text) for name, text in problems.items()]
