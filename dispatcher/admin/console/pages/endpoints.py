"""Webhooks: the list, and one of them with its figures; created, changed, retried, recovered, deleted."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from aiohttp import web

from dispatcher.admin.console import charts
from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.forms import problems_by_field
from dispatcher.admin.console.profiles import facts
from dispatcher.admin.operations.context import Role
from dispatcher.admin.resources.endpoint import Endpoint, EndpointPage
from dispatcher.admin.resources.endpoint_requests import EndpointsQuery
from dispatcher.admin.resources.job import EndpointRecovery
from dispatcher.admin.resources.overview import EndpointFigures
from dispatcher.admin.resources.serialization import time_text
from dispatcher.core.credentials import certificate_problems, expiry_of, subject_of
from dispatcher.core.errors import ConflictError, DispatcherError, InvalidRequestError
from dispatcher.core.model import EndpointState, HealthState
from dispatcher.core.problems import problem
from dispatcher.core.response_classes import filter_of

TEST_SECONDS_MAX: Final = 90.0
"""A retry waits for the receiver: its timeout, and some more."""
COUNT_SECONDS_MAX: Final = 60.0
"""More than the operation counts, so that its own bound is reported."""
PAGE_SIZE: Final = "20"
RECOVERIES: Final = (1, 6, 24, 168, 744)
"""Hours back that a recovery offers: the last hour to 31 days."""
FETCH_COMMAND: Final = """export DISPATCHER_URL={url} DISPATCHER_TOKEN=dsp_...
dispatcher poll {id} --forward http://localhost:3000/hook"""
ENDPOINT_FIELDS: Final = ("q", "state", "health", "profile", "tenant")
_HEALTHS: Final = (
    HealthState.DOWN, HealthState.DEGRADED, HealthState.RECOVERING, HealthState.HEALTHY,
)  # fmt: skip


async def list_endpoints(context: Context) -> web.StreamResponse:
    """Show the endpoints with their figures of the last day, those in trouble first; none if a filter is invalid."""
    problems: dict[str, str] = {}
    page = EndpointPage(items=[], next_cursor=None)
    try:
        page = await context.operations.endpoints.page(
            context.who,
            EndpointsQuery.of(
                **{name: context.query(name) for name in ENDPOINT_FIELDS},
                sort="trouble",
                limit=PAGE_SIZE,
                cursor=context.query("cursor"),
            ),
        )
    except InvalidRequestError as error:
        problems = problems_by_field(context, error.problems)
    figures = await context.operations.overview.of_endpoints(
        context.who, [one.id for one in page.items]
    )
    return context.page(
        "endpoints.html",
        status=422 if problems else 200,
        problems=problems,
        page=page,
        figures=figures,
        sparks={name: _spark(one) for name, one in figures.items()},
        states=tuple(EndpointState),
        healths=_HEALTHS,
        profiles=sorted(context.operations.deployment.profiles),
        is_filtered=any(context.query(name) for name in ENDPOINT_FIELDS),
    )


def _spark(figures: EndpointFigures) -> charts.Bars:
    return charts.spark([(one.ok_count, one.not_ok_count) for one in figures.buckets])


async def show_endpoint(context: Context) -> web.StreamResponse:
    """Show one endpoint: its failures by response, the last day, its settings in short."""
    endpoint, failures = await context.operations.endpoints.show_with_failures(
        context.who, context.part("id")
    )
    figures = (await context.operations.overview.of_endpoints(context.who, [endpoint.id]))[
        endpoint.id
    ]
    buckets = figures.buckets
    return context.page(
        "endpoint.html",
        tab="overview",
        endpoint=endpoint,
        figures=figures,
        failures=failures,
        classes=[
            None if one.outcome is None else filter_of(one.outcome, one.response_code)
            for one in failures.responses
        ],
        profile=profile_facts(context, endpoint.profile),
        certificate=certificate_facts(endpoint.client_certificate or ""),
        fetch_command=FETCH_COMMAND.format(
            url=context.app.settings.console_url().rstrip("/"), id=endpoint.id
        ),
        traffic=charts.bars([(one.ok_count, one.not_ok_count) for one in buckets]),
        latency=charts.lines(
            [[one.p50_seconds for one in buckets], [one.p95_seconds for one in buckets]]
        ),
    )


def profile_facts(context: Context, name: str) -> object:
    """Return what a profile means; None where it is not configured any more."""
    profile = context.operations.deployment.profiles.get(name)
    return None if profile is None else facts(profile)


def certificate_facts(certificate: str) -> Mapping[str, str] | None:
    """Return the subject and the expiry of a certificate in PEM; None: there is none, or it cannot be read."""
    if not certificate or certificate_problems(certificate):
        return None
    expires_at = time_text(expiry_of(certificate))
    return {"subject": subject_of(certificate), "expires_at": expires_at}


async def confirm(context: Context) -> web.StreamResponse:
    """Confirm a pause, a resumption or a deletion, with the effect on waiting deliveries."""
    act = context.part("act")
    context.who.require(Role.MANAGER if act == "delete" else Role.OPERATOR)
    endpoint = await context.operations.endpoints.show(context.who, context.part("id"))
    return await _confirmation(context, endpoint, act, {})


async def _confirmation(
    context: Context, endpoint: Endpoint, act: str, problems: Mapping[str, str], status: int = 200
) -> web.Response:
    waiting = await context.operations.endpoints.waiting(context.who, endpoint.id)
    return context.page(
        "endpoint_act.html",
        status=status,
        act=act,
        endpoint=endpoint,
        waiting=waiting,
        hold_days=context.app.settings.delivery.hold_days,
        version=endpoint.etag,
        problems=problems,
    )


async def pause_or_resume(context: Context) -> web.StreamResponse:
    """Pause or resume a webhook."""
    endpoint_id, act = context.part("id"), context.part("act")
    endpoints = context.operations.endpoints
    await (endpoints.pause if act == "pause" else endpoints.resume)(context.who, endpoint_id)
    return context.go(f"/webhooks/{endpoint_id}", f"note.{act}d")


async def delete(context: Context) -> web.StreamResponse:
    """Delete a webhook if its name was typed."""
    context.who.require(Role.MANAGER)
    endpoint = await context.operations.endpoints.show(context.who, context.part("id"))
    if context.form.get("confirmed_name", "").strip() != endpoint.name.strip():
        problems = {"confirmed_name": context.text("act.delete.wrong_name")}
        return await _confirmation(context, endpoint, "delete", problems, 422)
    await context.operations.endpoints.delete(
        context.who, endpoint.id, if_match=context.form.get("version") or None
    )
    return context.go("/webhooks", "note.deleted")


async def retry(context: Context) -> web.StreamResponse:
    """Retry a webhook now, and show the outcome: in place, or on a page without scripts."""
    context.who.require(Role.OPERATOR)
    is_part = "HX-Request" in context.request.headers
    if not is_part and not context.app.forms.take(context.form.get("form_id", "")):
        raise ConflictError(context.text("error.sent_before"))
    try:
        endpoint = await context.operations.endpoints.show(context.who, context.part("id"))
        outcome = await context.operations.recovery.retry(context.who, endpoint.id)
    except DispatcherError as error:
        if not is_part:
            raise
        return context.page("_problem.html", problem=context.problem(error))
    template = "_endpoint_retried.html" if is_part else "endpoint_retried.html"
    return context.page(template, endpoint=endpoint, retry=outcome)


async def recover(context: Context) -> web.StreamResponse:
    """Count what a recovery would send; the form below the count starts it."""
    context.who.require(Role.OPERATOR)
    endpoint = await context.operations.endpoints.show(context.who, context.part("id"))
    hours = context.query("hours")
    problems: dict[str, str] = {}
    counted = None
    if hours is not None:
        try:
            wanted = EndpointRecovery.of(since=_since(context, hours), dry_run=True)
            counted = await context.operations.jobs.count_recovery(context.who, endpoint.id, wanted)
        except InvalidRequestError as error:
            problems = problems_by_field(context, error.problems)
        except ConflictError as error:
            problems = {"hours": context.problem(error)}
    return context.page(
        "endpoint_recover.html",
        status=422 if problems else 200,
        tab="overview",
        endpoint=endpoint,
        hours=hours or str(RECOVERIES[2]),
        recoveries=RECOVERIES,
        counted=counted,
        problems=problems,
    )


def _since(context: Context, hours: str) -> datetime:
    """Return the beginning of a recovery.

    Raises:
        InvalidRequestError: it is none of those that the page offers.
    """
    if hours not in {str(one) for one in RECOVERIES}:
        raise InvalidRequestError([problem("hours", "invalid_value", detail=hours[:16])])
    return context.app.now() - timedelta(hours=int(hours))


async def start_recovery(context: Context) -> web.StreamResponse:
    """Create the job that replays what a webhook did not get, once for each form."""
    context.who.require(Role.OPERATOR)
    endpoint_id = context.part("id")
    wanted = EndpointRecovery.of(since=_since(context, context.form.get("hours", "")))
    if not context.app.forms.take(context.form.get("form_id", "")):
        raise ConflictError(context.text("error.sent_before"))
    job = await context.operations.jobs.recover(context.who, endpoint_id, wanted)
    return context.go(f"/jobs/{job.id}", "note.job_created")


ROUTES: Final = (
    PageRoute("GET", "/webhooks", list_endpoints, portal=True),
    PageRoute("GET", "/webhooks/{id}", show_endpoint, portal=True),
    PageRoute("POST", "/webhooks/{id}/retry", retry, seconds=TEST_SECONDS_MAX, portal=True),
    PageRoute("GET", "/webhooks/{id}/recover", recover, seconds=COUNT_SECONDS_MAX),
    PageRoute("POST", "/webhooks/{id}/recover", start_recovery),
    PageRoute("GET", "/webhooks/{id}/{act:pause|resume|delete}", confirm, portal=True),
    PageRoute("POST", "/webhooks/{id}/{act:pause|resume}", pause_or_resume, portal=True),
    PageRoute("POST", "/webhooks/{id}/delete", delete, portal=True),
)
