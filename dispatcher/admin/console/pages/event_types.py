"""Event types: the catalogue, with a sample, subscribers and recent events; and the types that are not in it."""

from typing import Final

from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.pages.events import readable


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
        samples={name: readable(one.sample) for name, one in catalogue.types.items()},
    )


ROUTES: Final = (PageRoute("GET", "/event-types", list_event_types),)
