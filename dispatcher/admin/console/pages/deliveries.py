"""Deliveries: of all endpoints and of one, filtered by the address; one of them; acts on one or many."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.commands import as_curl, as_verify
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.filters import (
    PERIODS,
    ROWS,
    Filter,
    chips,
    delivery_filter,
    delivery_id,
    ends_before_contents,
    unreadable,
)
from dispatcher.admin.console.forms import problems_by_field
from dispatcher.admin.console.labels import advice, afterwards
from dispatcher.admin.console.pages.events import readable
from dispatcher.admin.console.views import keep_views, read_views, with_view
from dispatcher.admin.file_response import send_file
from dispatcher.admin.operations.deliveries import EXPORT_ROWS_MAX, EXPORT_SECONDS_MAX
from dispatcher.admin.operations.export_files import MEDIA_TYPES, export_text, file_name
from dispatcher.admin.operations.signature_diagnosis import Diagnosis
from dispatcher.admin.resources.delivery import (
    DeliveriesQuery,
    DeliveryPage,
    ExportQuery,
    ListFilter,
)
from dispatcher.admin.resources.delivery_report import DeliveryReport
from dispatcher.core.business_key import business_key
from dispatcher.core.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    TooManyError,
)
from dispatcher.core.model import DeliveryState
from dispatcher.core.problems import problem
from dispatcher.core.response_classes import CLASSES

BODY_CHARACTERS_SHOWN: Final = 65_536
ATTEMPT_DIGITS_MAX: Final = 6
WATCH_SECONDS_MAX: Final = 120
"""How long a page asks for the result of an attempt; an attempt takes 60 s at most."""
SOON_SECONDS: Final = 30
WATCHED_DIGITS_MAX: Final = 12
REFUSING_CODES: Final = frozenset({400, 401, 403})
_OPEN: Final = frozenset({DeliveryState.PENDING, DeliveryState.RETRYING})
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
    wanted = {one.endpoint_id for one in page.items} | {
        text for name, text in asked.given if name == "endpoint_id"
    }
    names = await context.operations.endpoints.names(context.who, wanted)
    last = await context.operations.deliveries.last_attempts(context.who, page.items)
    own = [one for one in asked.given if endpoint_id is None or one[0] != "endpoint_id"]
    return context.page(
        template,
        status=422 if problems else 200,
        tab="deliveries",
        page=page,
        is_exact=ends_before_contents(asked.query, page),
        page_at=asked.now.isoformat() if context.query("period") else None,
        names=names,
        last=last,
        problems=problems,
        states=tuple(DeliveryState),
        classes=tuple(CLASSES),
        periods=tuple(PERIODS),
        rows=ROWS,
        chosen={name: text.split(",") for name, text in asked.given},
        chips=chips(context, own, {one: row.name for one, row in names.items()}),
        types=tuple(context.operations.deployment.catalogue.types),
        is_filtered=bool(own),
        filter=asked.carried(),
        view=urlencode(own),
        views=[] if context.base or endpoint_id is not None else read_views(context.request),
        has_waiting=_may_wait(asked.query),
        tail_path=_tail_path(context, asked, endpoint_id),
        **values,
    )


def _may_wait(query: DeliveriesQuery) -> bool:
    """Return whether the filter can be one of the schedule, which has waiting deliveries alone."""
    states = set((query.state or "pending").split(","))
    return (
        bool(states & {"pending", "retrying"})
        and query.response is None
        and query.test is not True
        and query.since is None
        and query.until is None
        and query.state is None
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
    return context.at("/deliveries/tail") + (f"?{urlencode(given)}" if given else "")


async def export(context: Context) -> web.StreamResponse:
    """Stream the deliveries of a filter as a file, at most `EXPORT_ROWS_MAX` of them."""
    asked = delivery_filter(context)
    if asked.problems:
        raise InvalidRequestError(unreadable(asked.problems))
    form = context.query("format") or "csv"
    if form not in MEDIA_TYPES:
        raise InvalidRequestError(
            [problem("format", "not_one_of", allowed="csv, json", value=form)]
        )
    values = {name: getattr(asked.query, name) for name in ListFilter.model_fields}
    query = ExportQuery.model_construct(**values, format=form)
    operations = context.operations
    note = context.text("export.more", count=EXPORT_ROWS_MAX)
    parts = export_text(operations.deliveries, operations.endpoints, context.who, query, note)
    name = file_name(query, context.app.now().astimezone(context.zone.info))
    return await send_file(context.request, parts, name, MEDIA_TYPES[form], context.headers)


async def save_view(context: Context) -> web.StreamResponse:
    """Keep the filter of a list under a name in the browser."""
    views = with_view(
        read_views(context.request),
        context.form.get("name", "").strip(),
        context.form.get("query", ""),
    )
    answer = context.go(f"/deliveries?{views[-1].query}")
    keep_views(answer, views)
    return answer


async def remove_view(context: Context) -> web.StreamResponse:
    """Remove a view of the browser."""
    name = context.form.get("name", "")
    answer = context.go("/deliveries")
    keep_views(answer, [one for one in read_views(context.request) if one.name != name])
    return answer


async def show_delivery(context: Context) -> web.StreamResponse:
    """Show one delivery: its attempts, the request and the response, the reason, and the next step."""
    return await delivery_page(context, context.part("id"))


async def delivery_page(
    context: Context,
    delivery_id: str,
    *,
    done: str | None = None,
    refused: str | None = None,
    is_diagnosing: bool = False,
    diagnosis: Diagnosis | None = None,
    diagnosis_problem: str | None = None,
    problems: Mapping[str, str] | None = None,
    status: int = 200,
) -> web.Response:
    """Return the page of a delivery, with the outcome of a requested action or a diagnosis."""
    report = await context.operations.delivery_reports.delivery(
        context.who, delivery_id, attempt_number=_attempt_number(context)
    )
    delivery, endpoint = report.delivery, report.endpoint
    request, body = report.request, report.body
    return context.page(
        "delivery.html",
        status=status,
        problems=problems or {},
        report=report,
        delivery=delivery,
        endpoint=endpoint,
        key=business_key(delivery.labels),
        done=done,
        refused=refused,
        watched=_watched(context, report, asked=done is not None),
        is_diagnosing=is_diagnosing,
        is_suspected=_is_suspected(report),
        can_diagnose=_signs(context, delivery.profile),
        diagnosis=diagnosis,
        diagnosis_problem=diagnosis_problem,
        advice=[advice(one) for one in delivery.attempts],
        afterwards=afterwards(
            delivery, report.resend.code, None if endpoint is None else endpoint.state
        ),
        is_open=delivery.state in _OPEN,
        body=None if body is None else readable(body)[:BODY_CHARACTERS_SHOWN],
        is_cut=body is not None and len(body) > BODY_CHARACTERS_SHOWN,
        curl=None if request is None or body is None else as_curl(request, body),
        command=None if request is None else as_verify(request, delivery.profile),
        also_commands=[]
        if request is None
        else [as_verify(request, one.profile) for one in request.also_signed],
        signed_content=None if request is None else request.signed_content[:BODY_CHARACTERS_SHOWN],
    )


def _signs(context: Context, profile_name: str) -> bool:
    profile = context.operations.deployment.profiles.get(profile_name)
    return profile is not None and profile.signs


def _is_suspected(report: DeliveryReport) -> bool:
    """Return whether the last response is one that receivers give to a signature that they refuse."""
    attempts = report.delivery.attempts
    return bool(attempts) and attempts[-1].response_code in REFUSING_CODES


def _watched(context: Context, report: DeliveryReport, *, asked: bool) -> str | None:
    """Return the address that shows how an attempt ends that is due now or was asked for; None: none is.

    A page watches for `WATCH_SECONDS_MAX` after it was opened, or after a resend was asked for.
    """
    now = context.app.now()
    soon_at = now + timedelta(seconds=SOON_SECONDS)
    due_at = report.delivery.next_attempt_at
    is_due = (
        report.delivery.state in _OPEN
        and due_at is not None
        and datetime.fromisoformat(due_at) < soon_at
    )
    if report.resend.code != "waiting" and not is_due:
        return None
    end = int(now.timestamp()) + WATCH_SECONDS_MAX
    text = context.query("watched") or ""
    if text.isdecimal() and len(text) <= WATCHED_DIGITS_MAX and not asked:
        end = min(end, int(text))
    if end <= now.timestamp():
        return None
    values = {"watched": end, "attempt": context.query("attempt")}
    return context.address(f"/deliveries/{report.delivery.id}", **values)


async def body(context: Context) -> web.StreamResponse:
    """Return the body of a delivery as a file, byte for byte."""
    delivery_id = context.part("id")
    report = await context.operations.delivery_reports.delivery(context.who, delivery_id)
    if report.body is None:
        raise NotFoundError(problem("id", "event_erased"))
    name = f"{report.delivery.id}.json"
    return web.Response(
        body=report.body.encode(),
        content_type="application/octet-stream",
        headers={**context.headers, "Content-Disposition": f'attachment; filename="{name}"'},
    )


def _attempt_number(context: Context) -> int | None:
    text = context.query("attempt")
    if text is None:
        return None
    if not text.isdecimal() or len(text) > ATTEMPT_DIGITS_MAX:
        raise NotFoundError(problem("attempt", "attempt_not_found", value=text))
    return int(text)


async def act(context: Context) -> web.StreamResponse:
    """Resend or cancel one delivery; the page shows the outcome in place."""
    found = context.part("id")
    is_cancel = context.part("act") == "cancel"
    note = "note.cancelled" if is_cancel else "note.resent"
    in_place = "HX-Request" in context.request.headers
    try:
        if is_cancel:
            await context.operations.deliveries.cancel(context.who, found)
        else:
            await context.operations.deliveries.resend(context.who, found)
    except (ConflictError, TooManyError) as error:
        if not in_place:
            raise
        return await delivery_page(context, found, refused=context.problem(error))
    if in_place:
        return await delivery_page(context, found, done=note)
    return context.go(f"/deliveries/{found}", note)


ROUTES: Final = (
    PageRoute("GET", "/deliveries", list_deliveries, portal=True),
    PageRoute("GET", "/deliveries/export", export, seconds=EXPORT_SECONDS_MAX + 30, portal=True),
    PageRoute("POST", "/deliveries/views", save_view),
    PageRoute("POST", "/deliveries/views/remove", remove_view),
    PageRoute("GET", "/deliveries/{id}", show_delivery, portal=True),
    PageRoute("GET", "/deliveries/{id}/body", body, portal=True),
    PageRoute("POST", "/deliveries/{id}/{act:resend|cancel}", act, portal=True),
    PageRoute("GET", "/webhooks/{id}/deliveries", list_deliveries_of_endpoint, portal=True),
)
