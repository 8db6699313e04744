"""The search of every page: pages, webhooks and event types by name, an id or a label, and links that search payloads.

Invariants: a search reads indexes and memory alone, at most `ITEMS_MAX` rows a group, within
`SECONDS_MAX`. The text of payloads is searched by the lists, once a person chooses it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple
from urllib.parse import quote, urlencode

from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.filters import DELIVERY_ID
from dispatcher.admin.console.navigation import GROUPS
from dispatcher.admin.resources.endpoint_requests import EndpointsQuery
from dispatcher.core.errors import NotFoundError, StoreUnavailableError

ITEMS_MAX: Final = 6
TEXT_CHARACTERS_MAX: Final = 200
SECONDS_MAX: Final = 2.0
LABEL_CHARACTERS_MIN: Final = 3
"""Shorter values are typed on the way to a longer one."""
_ID_CHARACTERS_MAX: Final = 128
_ENDPOINT_PREFIX: Final = "ep_"


class Item(NamedTuple):
    """One result: its name, a note on it, and its page."""

    name: str
    note: str
    href: str
    is_code: bool = False


class Group(NamedTuple):
    """The results of one kind; `key` is the message of the heading."""

    key: str
    items: list[Item]


async def search(context: Context) -> web.StreamResponse:
    """Show the results in groups; without scripts an exact id leads to its page at once."""
    text = (context.query("q") or "")[:TEXT_CHARACTERS_MAX]
    groups: list[Group] = []
    is_complete = True
    if text:
        found = _by_id(context, text), _labels(context, text), _endpoints(context, text)
        try:
            async with asyncio.timeout(SECONDS_MAX):
                groups = [await one for one in found]
        except (TimeoutError, StoreUnavailableError):
            is_complete = False
        finally:
            for one in found:
                one.close()
        named = _named(groups)
        if named is not None and "HX-Request" not in context.request.headers:
            return context.go(named.href)
        groups += [_event_types(context, text), _pages(context, text)]
    return context.page(
        "search.html",
        text=text,
        groups=[one for one in groups if one.items],
        is_complete=is_complete,
        deeper=_deeper(context, text) if text else [],
    )


def _named(groups: list[Group]) -> Item | None:
    """Return what the text names: the object of the id, or else the only label with this value."""
    if not groups:
        return None
    by_id, labels = groups[0].items, groups[1].items
    if by_id:
        return by_id[0]
    return labels[0] if len(labels) == 1 else None


async def _by_id(context: Context, text: str) -> Group:
    """Return the delivery, the webhook or the event of an id."""
    group = Group("search.by_id", [])
    if len(text) > _ID_CHARACTERS_MAX or any(one.isspace() for one in text):
        return group
    find: Callable[[Context, str], Awaitable[Item]] = _event
    if DELIVERY_ID.fullmatch(text):
        find = _delivery
    elif text.startswith(_ENDPOINT_PREFIX):
        find = _endpoint
    with contextlib.suppress(NotFoundError):
        group.items.append(await find(context, text))
    return group


async def _delivery(context: Context, text: str) -> Item:
    found = await context.operations.deliveries.show(context.who, text)
    note = f"{found.event_type} · {context.language.word('state', found.state)}"
    return Item(found.id, note, f"/deliveries/{quote(found.id, safe='')}", is_code=True)


async def _event(context: Context, text: str) -> Item:
    found = await context.operations.events.show(context.who, text)
    return Item(found.id, found.type, f"/events/{quote(found.id, safe='')}", is_code=True)


async def _endpoint(context: Context, text: str) -> Item:
    found = await context.operations.endpoints.show(context.who, text)
    return Item(found.name, found.id, f"/webhooks/{quote(found.id, safe='')}")


async def _labels(context: Context, text: str) -> Group:
    """Return the labels of events with this value, as an order number, each with its deliveries."""
    if len(text) < LABEL_CHARACTERS_MIN:
        return Group("search.labels", [])
    items: dict[str, Item] = {}
    for event in await context.operations.events.labelled(context.who, text, ITEMS_MAX):
        for name, value in event.labels.items():
            label = f"{name}={value}"
            if text in {value, label}:
                href = f"/deliveries?{urlencode({'label': label})}"
                items.setdefault(label, Item(label, event.type, href, is_code=True))
    return Group("search.labels", list(items.values()))


async def _endpoints(context: Context, text: str) -> Group:
    page = await context.operations.endpoints.page(
        context.who, EndpointsQuery.of(q=text, limit=ITEMS_MAX)
    )
    items = [
        Item(
            one.name,
            context.language.word("health", one.health)
            if one.state == "active"
            else context.language.word("state", one.state),
            f"/webhooks/{quote(one.id, safe='')}",
        )
        for one in page.items
    ]
    return Group("nav.endpoints", items)


def _event_types(context: Context, text: str) -> Group:
    """Return types whose name or title has the text, with their deliveries."""
    wanted, language = text.lower(), context.language.code
    items = []
    for one in context.operations.deployment.catalogue.types.values():
        title = one.title.th if language == "th" else one.title.en
        if wanted in one.name or wanted in title.lower():
            href = f"/deliveries?{urlencode({'event_type': one.name})}"
            items.append(Item(one.name, title, href, is_code=True))
    return Group("search.types", items[:ITEMS_MAX])


def _pages(context: Context, text: str) -> Group:
    items = [
        Item(name, context.text(f"nav.{group.key}"), entry.href)
        for group in GROUPS
        for entry in group.entries
        if context.may(entry.role)
        and text.lower() in (name := context.text(f"nav.{entry.key}")).lower()
    ]
    return Group("search.pages", items[:ITEMS_MAX])


def _deeper(context: Context, text: str) -> list[Item]:
    """Return the links to the lists, which also search labels and payloads."""
    query = urlencode({"q": text})
    return [
        Item(context.text("search.deliveries", text=text), "", f"/deliveries?{query}"),
        Item(context.text("search.events", text=text), "", f"/events?{query}"),
    ]


ROUTES: Final = (PageRoute("GET", "/search", search),)
