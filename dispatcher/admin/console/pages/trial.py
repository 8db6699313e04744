"""Send Test Event: a type, its sample to edit, and the result in place."""

from typing import Final

from aiohttp import web

from dispatcher.admin.console.forms import problems_by_field
from dispatcher.admin.console.site import Route
from dispatcher.admin.console.visit import Visit
from dispatcher.admin.operations.deployment import Role
from dispatcher.admin.resources.delivery import DeliveryWithAttempts
from dispatcher.admin.resources.endpoint import Endpoint
from dispatcher.core.errors import ConflictError, InvalidRequestError
from dispatcher.core.matching import parse_event_types

TRIAL_SECONDS_MAX: Final = 90.0


async def send_and_judge(
    visit: Visit, endpoint_id: str, event_type: str | None, data: str | None
) -> DeliveryWithAttempts:
    """Send a test event and return its delivery with the attempt.

    Raises:
        DispatcherError: nothing was sent; the text has the reason.
    """
    return await visit.operations.trial.send(
        visit.who, endpoint_id, event_type=event_type, data=data
    )


async def trial(visit: Visit) -> web.StreamResponse:
    """Shows the form."""
    endpoint = await visit.operations.endpoints.show(visit.who, visit.part("id"))
    return _page(visit, endpoint, None, {})


async def sent(visit: Visit) -> web.StreamResponse:
    """Sends, and shows what came of it below the form."""
    visit.who.require(Role.OPERATOR)
    endpoint = await visit.operations.endpoints.show(visit.who, visit.part("id"))
    if not visit.site.forms.take(visit.form.get("form_id", "")):
        raise ConflictError(visit.text("error.sent_before"))
    event_type = visit.form.get("event_type") or None
    sample = _sample(visit, event_type)
    data = visit.form.get("data", "").strip() or None
    try:
        result = await send_and_judge(
            visit, endpoint.id, event_type, None if data == sample else data
        )
    except InvalidRequestError as error:
        return _page(visit, endpoint, None, problems_by_field(visit, error.problems), 422)
    return _page(visit, endpoint, result, {})


def _sample(visit: Visit, event_type: str | None) -> str | None:
    known = visit.operations.deployment.catalogue.types.get(event_type or "")
    return None if known is None else known.sample


def _page(
    visit: Visit,
    endpoint: Endpoint,
    result: DeliveryWithAttempts | None,
    problems: dict[str, str],
    status: int = 200,
) -> web.Response:
    catalogue = visit.operations.deployment.catalogue
    profile = visit.operations.deployment.profiles.get(endpoint.profile)
    subscription = parse_event_types(endpoint.event_types)
    types = [one for one in catalogue.types.values() if subscription.matches(one.name)]
    fixed = None if profile is None or profile.fixed_test is None else profile.fixed_test.event_type
    chosen = visit.form.get("event_type") or visit.query("event_type")
    chosen = chosen or (None if fixed else (types[0].name if types else None))
    others = [one for one in catalogue.types.values() if one not in types]
    return visit.page(
        "endpoint_test.html",
        status=status,
        tab="test",
        endpoint=endpoint,
        types=types,
        others=others,
        fixed=fixed,
        chosen=chosen,
        data=visit.form.get("data") or _sample(visit, chosen) or "",
        result=result,
        problems=problems,
    )


ROUTES: Final = (
    Route("GET", "/webhooks/{id}/test", trial),
    Route("POST", "/webhooks/{id}/test", sent, seconds=TRIAL_SECONDS_MAX),
)
