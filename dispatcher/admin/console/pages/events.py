"""Events: the list, and one of them with what became of it at every endpoint."""

from typing import Final

import orjson
from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.filters import PERIODS, chips, ends_before_contents, event_filter
from dispatcher.admin.console.forms import problems_by_field
from dispatcher.admin.resources.event import EventPage
from dispatcher.core.business_key import business_key
from dispatcher.core.errors import InvalidRequestError

DATA_CHARACTERS_SHOWN: Final = 65_536


async def list_events(context: Context) -> web.StreamResponse:
    """Show events, newest first."""
    asked = event_filter(context)
    page, problems = EventPage(items=[], next_cursor=None), asked.problems
    if not problems:
        try:
            page = await context.operations.events.page(context.who, asked.query)
        except InvalidRequestError as error:
            problems = problems_by_field(context, error.problems)
    return context.page(
        "events.html",
        status=422 if problems else 200,
        page=page,
        is_exact=ends_before_contents(asked.query, page),
        problems=problems,
        types=tuple(context.operations.deployment.catalogue.types),
        page_at=asked.now.isoformat() if context.query("period") else None,
        periods=tuple(PERIODS),
        chips=chips(context, asked.given, {}),
        is_filtered=bool(asked.given),
        outcomes=await context.operations.events.outcomes(page.items),
    )


async def show_event(context: Context) -> web.StreamResponse:
    """Show one event, and a verdict for each endpoint of its tenant."""
    explained = await context.operations.explanation.explain(context.who, context.part("id"))
    event = explained.event
    text = event.data.text
    known = context.operations.deployment.catalogue.types.get(event.type)
    return context.page(
        "event.html",
        event=event,
        explained=explained,
        data=readable(text),
        data_bytes=len(text.encode()),
        is_cut=len(text) > DATA_CHARACTERS_SHOWN,
        known=known,
        key=business_key(event.labels),
        targets=[one.endpoint_name for one in explained.endpoints],
    )


async def data(context: Context) -> web.StreamResponse:
    """Return the data of an event as a file, byte for byte."""
    event = (await context.operations.events.show(context.who, context.part("id"))).data
    return web.Response(
        body=event.text.encode(),
        content_type="application/octet-stream",
        headers={**context.headers, "Content-Disposition": 'attachment; filename="event.json"'},
    )


def readable(text: str) -> str:
    """Return JSON on several lines where that changes no digit, else as it is written; cut at a bound."""
    if len(text) <= DATA_CHARACTERS_SHOWN:
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
        # A number that another spelling would come out for, or a name that occurs twice: as it was.
        try:
            if orjson.dumps(value).decode() == "".join(_without_spaces(text)):
                return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
        except orjson.JSONEncodeError:
            return text  # orjson reads 1,024 levels and writes 254
    return text[:DATA_CHARACTERS_SHOWN]


def _without_spaces(text: str) -> list[str]:
    kept, inside, escaped = [], False, False
    for character in text:
        if inside:
            kept.append(character)
            inside = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif not character.isspace():
            kept.append(character)
            inside = character == '"'
    return kept


ROUTES: Final = (
    PageRoute("GET", "/events", list_events, portal=True),
    PageRoute("GET", "/events/{id}", show_event, portal=True),
    PageRoute("GET", "/events/{id}/data", data, portal=True),
)
