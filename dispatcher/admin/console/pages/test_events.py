"""Send Test Event: a type, its sample to edit, and the result in place."""

from typing import Final

from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.forms import problems_by_field
from dispatcher.admin.console.pages.events import readable
from dispatcher.admin.operations.context import Role
from dispatcher.admin.resources.delivery import DeliveryWithAttempts
from dispatcher.admin.resources.endpoint import Endpoint
from dispatcher.core.errors import ConflictError, DispatcherError, InvalidRequestError
from dispatcher.core.matching import parse_event_types

TEST_SECONDS_MAX: Final = 90.0


async def send_test_event(
    context: Context, endpoint_id: str, event_type: str | None, data: str | None
) -> DeliveryWithAttempts:
    """Send a test event and return its delivery with the attempt.

    Raises:
        DispatcherError: nothing was sent; the text has the reason.
    """
    return await context.operations.test_events.send(
        context.who, endpoint_id, event_type=event_type, data=data
    )


async def new_test(context: Context) -> web.StreamResponse:
    """Show the form."""
    endpoint = await context.operations.endpoints.show(context.who, context.part("id"))
    return _page(context, endpoint, None, {})


async def send_test(context: Context) -> web.StreamResponse:
    """Sends, and shows what came of it below the form."""
    context.who.require(Role.OPERATOR)
    if "HX-Request" in context.request.headers:
        return await _send_in_place(context)
    endpoint = await context.operations.endpoints.show(context.who, context.part("id"))
    if not context.app.forms.take(context.form.get("form_id", "")):
        raise ConflictError(context.text("error.sent_before"))
    event_type = context.form.get("event_type") or None
    sample = _sample(context, event_type)
    data = context.form.get("data", "").replace("\r\n", "\n").strip() or None
    try:
        result = await send_test_event(
            context, endpoint.id, event_type, None if data == sample else data
        )
    except InvalidRequestError as error:
        return _page(context, endpoint, None, problems_by_field(context, error.problems), 422)
    return _page(context, endpoint, result, {})


async def _send_in_place(context: Context) -> web.Response:
    """Send a test event of the usual type, and return its result as a part of the page."""
    try:
        result = await send_test_event(context, context.part("id"), None, None)
    except DispatcherError as error:
        return context.page("_endpoint_tested.html", result=None, problem=context.problem(error))
    return context.page("_endpoint_tested.html", result=result, problem="")


def _sample(context: Context, event_type: str | None) -> str | None:
    """Return the catalogue's sample on several lines; unchanged, it is sent as it is in the catalogue."""
    known = context.operations.deployment.catalogue.types.get(event_type or "")
    return None if known is None else readable(known.sample)


def _page(
    context: Context,
    endpoint: Endpoint,
    result: DeliveryWithAttempts | None,
    problems: dict[str, str],
    status: int = 200,
) -> web.Response:
    catalogue = context.operations.deployment.catalogue
    profile = context.operations.deployment.profiles.get(endpoint.profile)
    subscription = parse_event_types(endpoint.event_types)
    types = [one for one in catalogue.types.values() if subscription.matches(one.name)]
    fixed = None if profile is None or profile.fixed_test is None else profile.fixed_test.event_type
    chosen = context.form.get("event_type") or context.query("event_type")
    chosen = chosen or (None if fixed else (types[0].name if types else None))
    others = [one for one in catalogue.types.values() if one not in types]
    return context.page(
        "endpoint_test.html",
        status=status,
        tab="test",
        endpoint=endpoint,
        types=types,
        others=others,
        fixed=fixed,
        chosen=chosen,
        data=context.form.get("data") or _sample(context, chosen) or "",
        result=result,
        problems=problems,
    )


ROUTES: Final = (
    PageRoute("GET", "/webhooks/{id}/test", new_test, portal=True),
    PageRoute("POST", "/webhooks/{id}/test", send_test, seconds=TEST_SECONDS_MAX, portal=True),
)
