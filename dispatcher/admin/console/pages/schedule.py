"""The schedule: waiting deliveries by due time; made due, postponed or cancelled after a count."""

from collections.abc import Mapping
from typing import Final, TypeVar
from urllib.parse import urlencode

from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.filters import parse_time, read_time, unreadable
from dispatcher.admin.console.forms import problems_by_field
from dispatcher.admin.operations.context import Role
from dispatcher.admin.operations.schedule import Change
from dispatcher.admin.resources.schedule import (
    Postponement,
    SchedulePage,
    ScheduleQuery,
    SelectionFilter,
)
from dispatcher.core.errors import ConflictError, InvalidRequestError

CHANGE_SECONDS_MAX: Final = 90.0
_FIELDS: Final = ("q", "event_type", "endpoint_id", "label", "due_since", "due_until")
_MINUTES_DIGITS_MAX: Final = 6
_Filter = TypeVar("_Filter", ScheduleQuery, SelectionFilter)


async def list_schedule(context: Context) -> web.StreamResponse:
    """Show a page of the schedule; none if the filter cannot be read."""
    query, problems = _read(context, ScheduleQuery, {"cursor": context.query("cursor")})
    page = SchedulePage(items=[], next_cursor=None)
    if not problems:
        try:
            page = await context.operations.schedule.page(context.who, query)
        except InvalidRequestError as error:
            problems = problems_by_field(context, error.problems)
    return context.page(
        "schedule.html",
        status=422 if problems else 200,
        page=page,
        problems=problems,
        acts=tuple(Change),
        types=tuple(context.operations.deployment.catalogue.types),
        is_filtered=any(context.query(name) for name in _FIELDS),
        filter=_carried(context),
    )


def _read(
    context: Context, model: type[_Filter], more: Mapping[str, object]
) -> tuple[_Filter, dict[str, str]]:
    """Return the filter of the address, and its problems by field; with problems it has no condition."""
    problems: dict[str, str] = {}
    values: dict[str, object] = {
        "q": context.query("q"),
        "event_type": context.query("event_type"),
        "endpoint_id": context.query("endpoint_id"),
        "label": [text] if (text := context.query("label")) else None,
        "due_since": read_time(context, "due_since", problems),
        "due_until": read_time(context, "due_until", problems),
        **more,
    }
    if not problems:
        try:
            return model.of(**{k: v for k, v in values.items() if v is not None}), {}
        except InvalidRequestError as error:
            problems = problems_by_field(context, error.problems)
    return model(), problems


def _carried(context: Context) -> str:
    """Return the filter as a query, for the pages of the changes."""
    given = [(name, text) for name in _FIELDS if (text := context.query(name))]
    return urlencode([*given, *(("ids", one) for one in context.request.query.getall("ids", []))])


def _selection(context: Context) -> SelectionFilter:
    """Return what a change is about.

    Raises:
        InvalidRequestError: the filter cannot be read.
    """
    chosen = context.request.query.getall("ids", [])
    wanted, problems = _read(context, SelectionFilter, {"ids": chosen or None})
    if problems:
        raise InvalidRequestError(unreadable(problems))
    return wanted


async def confirm(context: Context) -> web.StreamResponse:
    """Count the deliveries of a filter, and ask for confirmation."""
    return await _change_page(context, _selection(context), {})


async def _change_page(
    context: Context, wanted: SelectionFilter, problems: Mapping[str, str], status: int = 200
) -> web.Response:
    context.who.require(Role.OPERATOR)
    change = Change(context.part("act"))
    # A postponement is counted as of any due time; the form names it.
    counts = Change.CANCEL if change is Change.POSTPONE else change
    counted = await context.operations.schedule.change(context.who, counts, wanted, dry_run=True)
    return context.page(
        "schedule_change.html",
        status=status,
        act=str(change),
        counted=counted,
        given=wanted.given(),
        filter=_carried(context),
        problems=problems,
    )


async def change(context: Context) -> web.StreamResponse:
    """Make due, postpone or cancel the deliveries of the filter of the address."""
    context.who.require(Role.OPERATOR)
    wanted, act = _selection(context), Change(context.part("act"))
    by_seconds = due_at = None
    if act is Change.POSTPONE:
        try:
            given = _postponement(context, wanted)
        except InvalidRequestError as error:
            return await _change_page(
                context, wanted, problems_by_field(context, error.problems), 422
            )
        by_seconds, due_at = given.by_seconds, given.due_at
    if not context.app.forms.take(context.form.get("form_id", "")):
        raise ConflictError(context.text("error.sent_before"))
    await context.operations.schedule.change(
        context.who, act, wanted, dry_run=False, by_seconds=by_seconds, due_at=due_at
    )
    return context.go("/schedule", "note.rescheduled")


def _postponement(context: Context, wanted: SelectionFilter) -> Postponement:
    """Return the duration or the time that was typed; a time that was typed counts.

    Raises:
        InvalidRequestError: neither can be read.
    """
    text, minutes = context.form.get("due_at", ""), context.form.get("by_minutes", "")
    values: dict[str, object] = {"filter": wanted}
    if text:
        values["due_at"] = parse_time(text, context.zone) or text
    elif minutes.isdecimal() and len(minutes) <= _MINUTES_DIGITS_MAX:
        values["by_seconds"] = 60 * int(minutes)
    else:
        values["by_seconds"] = minutes
    return Postponement.of(context.app.now(), **values)


ROUTES: Final = (
    PageRoute("GET", "/schedule", list_schedule),
    PageRoute(
        "GET", "/schedule/{act:" + "|".join(Change) + "}", confirm, seconds=CHANGE_SECONDS_MAX
    ),
    PageRoute(
        "POST", "/schedule/{act:" + "|".join(Change) + "}", change, seconds=CHANGE_SECONDS_MAX
    ),
)
