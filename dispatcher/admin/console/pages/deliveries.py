"""Deliveries: of all endpoints and of one, filtered by the address; one of them; acts on one or many."""

from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.commands import as_curl, as_verify
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.filters import Filter, delivery_filter, delivery_id
from dispatcher.admin.console.forms import problems_by_field
from dispatcher.admin.console.labels import advice, afterwards
from dispatcher.admin.resources.delivery import DeliveriesQuery, DeliveryPage
from dispatcher.core.errors import InvalidRequestError, NotFoundError
from dispatcher.core.model import DeliveryState
from dispatcher.core.problems import problem

BODY_CHARACTERS_SHOWN: Final = 65_536
ATTEMPT_DIGITS_MAX: Final = 6
_NOTHING: Final = DeliveryPage(items=[], next_cursor=None)


async def list_deliveries(context: Context) -> web.StreamResponse:
    """Show the deliveries of all endpoints."""
    found = delivery_id(context)
    if found is not None:
        return context.go(f"/deliveries/{found}")
    return await _list_page(context, "deliveries.html", None, {})


async def list_deliveries_of_endpoint(context: Context) -> web.StreamResponse:
    """Show the deliveries of one endpoint."""
    endpoint = await context.operations.endpoints.show(context.who, context.part("id"))
    return await _list_page(
        context, "endpoint_deliveries.html", endpoint.id, {"endpoint": endpoint}
    )


async def _list_page(
    context: Context, template: str, endpoint_id: str | None, values: dict[str, Any]
) -> web.Response:
    asked = delivery_filter(context, endpoint_id)
    page, problems = _NOTHING, asked.problems
    if not problems:
        try:
            page = await context.operations.deliveries.page(context.who, asked.query)
        except InvalidRequestError as error:
            problems = problems_by_field(context, error.problems)
        except NotFoundError as error:
            problems = {"endpoint_id": context.problem(error)}
    names = await context.operations.endpoints.names(
        context.who, [one.endpoint_id for one in page.items]
    )
    last = await context.operations.deliveries.last_attempts(context.who, page.items)
    return context.page(
        template,
        status=422 if problems else 200,
        tab="deliveries",
        page=page,
        names=names,
        last=last,
        problems=problems,
        states=tuple(DeliveryState),
        types=tuple(context.operations.deployment.catalogue.types),
        is_filtered=bool(asked.given),
        filter=asked.carried(),
        tail_path=_tail_path(context, asked, endpoint_id),
        **values,
    )


def _tail_path(
    context: Context, asked: Filter[DeliveriesQuery], endpoint_id: str | None
) -> str | None:
    """Return the path of the live tail of this list; None if it has a text, an end, or is not the first page."""
    query = asked.query
    if asked.problems or query.q or query.until or context.query("cursor"):
        return None
    given = [(name, text) for name, text in asked.given if name != "period"]
    if endpoint_id is not None and ("endpoint_id", endpoint_id) not in given:
        given.append(("endpoint_id", endpoint_id))
    return "/deliveries/tail" + (f"?{urlencode(given)}" if given else "")


async def show_delivery(context: Context) -> web.StreamResponse:
    """Show one delivery: its attempts, the request and the response, the reason, and the next step."""
    report = await context.operations.delivery_reports.delivery(
        context.who, context.part("id"), attempt_number=_attempt_number(context)
    )
    delivery, endpoint = report.delivery, report.endpoint
    request, body = report.request, report.body
    return context.page(
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


def _attempt_number(context: Context) -> int | None:
    text = context.query("attempt")
    if text is None:
        return None
    if not text.isdecimal() or len(text) > ATTEMPT_DIGITS_MAX:
        raise NotFoundError(problem("attempt", "attempt_not_found", value=text))
    return int(text)


async def act(context: Context) -> web.StreamResponse:
    """Resends or cancels one delivery."""
    found = context.part("id")
    if context.part("act") == "cancel":
        await context.operations.deliveries.cancel(context.who, found)
        return context.go(f"/deliveries/{found}", "note.cancelled")
    await context.operations.deliveries.resend(context.who, found)
    return context.go(f"/deliveries/{found}", "note.resent")


ROUTES: Final = (
    PageRoute("GET", "/deliveries", list_deliveries),
    PageRoute("GET", "/deliveries/{id}", show_delivery),
    PageRoute("POST", "/deliveries/{id}/{act:resend|cancel}", act),
    PageRoute("GET", "/webhooks/{id}/deliveries", list_deliveries_of_endpoint),
)
