"""Event types: the catalogue, with a sample, subscribers and recent events; and the types that are not in it."""

from typing import Final

import orjson
from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.pages.events import readable
from dispatcher.admin.resources.serialization import write_json
from dispatcher.core.schemas import fields_of


async def list_event_types(context: Context) -> web.StreamResponse:
    """Show the types by the groups of the catalogue, and then those of recent events that are unknown."""
    usage = await context.operations.event_types.usage(context.who)
    catalogue = context.operations.deployment.catalogue
    groups = [
        (group, [one for one in catalogue.types.values() if one.group == name])
        for name, group in catalogue.groups.items()
    ]
    groups.sort(key=lambda one: any(known.operational for known in one[1]))  # those last
    return context.page(
        "event_types.html",
        usage={one.name: one for one in usage.items},
        counted_since=usage.counted_since,
        groups=[(group, types) for group, types in groups if types],
        unknown=[one for one in usage.items if not one.in_catalogue],
    )


async def show_event_type(context: Context) -> web.StreamResponse:
    """Show one type as its receivers and producers need it: meaning, fields, sample, schema."""
    event_types = context.operations.event_types
    event_type = await event_types.show(context.who, context.part("name"))
    schema = context.operations.deployment.catalogue.types[event_type.name].schema
    return context.page(
        "event_type.html",
        one=event_type,
        fields=[] if schema is None else fields_of(schema.document),
        sample=readable(event_type.sample.text),
        schema=None if schema is None else readable(orjson.dumps(schema.document).decode()),
    )


async def download_asyncapi(context: Context) -> web.StreamResponse:
    """Return the AsyncAPI document as a file."""
    return web.Response(
        body=write_json(context.operations.event_types.asyncapi()),
        content_type="application/octet-stream",
        headers={**context.headers, "Content-Disposition": 'attachment; filename="asyncapi.json"'},
    )


ROUTES: Final = (
    PageRoute("GET", "/event-types", list_event_types, portal=True),
    PageRoute("GET", "/event-types/asyncapi.json", download_asyncapi, portal=True),
    PageRoute("GET", "/event-types/{name}", show_event_type, portal=True),
)
