"""Deliveries: of all endpoints and of one, filtered by the address; one of them; acts on one or many."""

from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web

from dispatcher.admin.console.commands import as_curl, as_verify
from dispatcher.admin.console.filters import (
    DELIVERY_FIELDS,
    delivery_id,
    delivery_query,
    unreadable,
)
from dispatcher.admin.console.forms import problems_by_field
from dispatcher.admin.console.site import Route
from dispatcher.admin.console.visit import Visit
from dispatcher.admin.console.words import advice, afterwards
from dispatcher.admin.operations.deployment import Role
from dispatcher.admin.resources.delivery import DeliveryPage
from dispatcher.core.errors import ConflictError, InvalidRequestError, NotFoundError
from dispatcher.core.model import DeliveryState

RESEND_SECONDS_MAX: Final = 120.0
BODY_CHARACTERS_SHOWN: Final = 65_536
ATTEMPT_DIGITS_MAX: Final = 6
_NOTHING: Final = DeliveryPage(items=[], next_cursor=None)


async def listed(visit: Visit) -> web.StreamResponse:
    """Shows the deliveries of all endpoints."""
    found = delivery_id(visit)
    if found is not None:
        return visit.go(f"/deliveries/{found}")
    return await _list_page(visit, "deliveries.html", None, {})


async def listed_of_endpoint(visit: Visit) -> web.StreamResponse:
    """Shows the deliveries of one endpoint."""
    endpoint = await visit.operations.endpoints.show(visit.who, visit.part("id"))
    return await _list_page(visit, "endpoint_deliveries.html", endpoint.id, {"endpoint": endpoint})


async def _list_page(
    visit: Visit, template: str, endpoint_id: str | None, values: dict[str, Any]
) -> web.Response:
    query, problems = delivery_query(visit, endpoint_id)
    page = _NOTHING
    if not problems:
        try:
            page = await visit.operations.deliveries.page(visit.who, query)
        except InvalidRequestError as error:
            problems = problems_by_field(visit, error.problems)
    names = await visit.operations.endpoints.names(
        visit.who, [one.endpoint_id for one in page.items]
    )
    last = await visit.operations.deliveries.last_attempts(visit.who, page.items)
    return visit.page(
        template,
        status=422 if problems else 200,
        tab="deliveries",
        page=page,
        names=names,
        last=last,
        problems=problems,
        states=tuple(DeliveryState),
        types=tuple(visit.operations.deployment.catalogue.types),
        is_filtered=any(visit.query(name) for name in DELIVERY_FIELDS),
        filter=_carried(visit, endpoint_id),
        tail_path=_tail_path(visit, endpoint_id),
        **values,
    )


def _tail_path(visit: Visit, endpoint_id: str | None) -> str | None:
    """Return the path of the live tail of this list; None if the filter has more than the tail supports."""
    if any(visit.query(name) for name in DELIVERY_FIELDS if name != "endpoint_id"):
        return None
    whose = endpoint_id or visit.query("endpoint_id")
    return "/deliveries/tail" + (f"?{urlencode({'endpoint_id': whose})}" if whose else "")


def _carried(visit: Visit, endpoint_id: str | None) -> str:
    """Returns the filter as a query, for the page that resends what it finds."""
    given = {name: visit.query(name) for name in DELIVERY_FIELDS}
    given["endpoint_id"] = endpoint_id or given["endpoint_id"]
    return urlencode({name: value for name, value in given.items() if value is not None})


async def shown(visit: Visit) -> web.StreamResponse:
    """Shows one delivery: its attempts, what was sent and came back, why, and what to do."""
    report = await visit.operations.inspection.delivery(
        visit.who, visit.part("id"), attempt_number=_attempt_number(visit)
    )
    delivery, endpoint = report.delivery, report.endpoint
    request, body = report.request, report.body
    return visit.page(
        "delivery.html",
        report=report,
        delivery=delivery,
        endpoint=endpoint,
        advice=[advice(one) for one in delivery.attempts],
        afterwards=afterwards(
            delivery, report.resend.code, None if endpoint is None else endpoint.state
        ),
        is_open=delivery.state in {DeliveryState.PENDING, DeliveryState.RETRYING},
        body=None if body is None else body[:BODY_CHARACTERS_SHOWN],
        is_cut=body is not None and len(body) > BODY_CHARACTERS_SHOWN,
        curl=None if request is None or body is None else as_curl(request, body),
        command=None if request is None else as_verify(request, delivery.profile),
        signed_content=None if request is None else request.signed_content[:BODY_CHARACTERS_SHOWN],
    )


def _attempt_number(visit: Visit) -> int | None:
    text = visit.query("attempt")
    if text is None:
        return None
    if not text.isdecimal() or len(text) > ATTEMPT_DIGITS_MAX:
        raise NotFoundError(visit.text("error.no_such_thing"))
    return int(text)


async def acted(visit: Visit) -> web.StreamResponse:
    """Resends or cancels one delivery."""
    found = visit.part("id")
    if visit.part("act") == "cancel":
        await visit.operations.deliveries.cancel(visit.who, found)
        return visit.go(f"/deliveries/{found}", "note.cancelled")
    await visit.operations.deliveries.resend(visit.who, found)
    return visit.go(f"/deliveries/{found}", "note.resent")


async def asked(visit: Visit) -> web.StreamResponse:
    """Counts what a filter finds, and asks before all of it is sent once more."""
    visit.who.require(Role.OPERATOR)
    wanted, problems = delivery_query(visit)
    if problems:
        raise InvalidRequestError(unreadable(problems))
    counted = await visit.operations.deliveries.resend_matching(visit.who, wanted, dry_run=True)
    return visit.page(
        "resend.html", counted=counted, given=wanted.given(), filter=_carried(visit, None)
    )


async def resent(visit: Visit) -> web.StreamResponse:
    """Asks for one more attempt of everything that the filter of the address finds."""
    visit.who.require(Role.OPERATOR)
    wanted, problems = delivery_query(visit)
    if problems:
        raise InvalidRequestError(unreadable(problems))
    if not visit.site.forms.take(visit.form.get("form_id", "")):
        raise ConflictError(visit.text("error.sent_before"))
    counted = await visit.operations.deliveries.resend_matching(visit.who, wanted, dry_run=False)
    return visit.page("resent.html", counted=counted, filter=_carried(visit, None))


ROUTES: Final = (
    Route("GET", "/deliveries", listed),
    Route("GET", "/deliveries/resend", asked, seconds=RESEND_SECONDS_MAX),
    Route("POST", "/deliveries/resend", resent, seconds=RESEND_SECONDS_MAX),
    Route("GET", "/deliveries/{id}", shown),
    Route("POST", "/deliveries/{id}/{act:resend|cancel}", acted),
    Route("GET", "/webhooks/{id}/deliveries", listed_of_endpoint),
)
