"""Content filters over HTTP: tried on past events."""

from dispatcher.admin.api.route import ApiResponse, Call
from dispatcher.admin.resources.content_filter import FilterTest


async def test_content_filter(call: Call, fields: FilterTest) -> ApiResponse:
    """Try a content filter on the newest events.

    Nothing is sent or changed. Reading ends after 3 s, so that fewer events than `limit` may be checked.
    """
    return ApiResponse(await call.operations.content_filters.test(call.actor, fields))
