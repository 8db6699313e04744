"""Endpoints: the list, and one of them with its figures; made, changed, paused, resumed, deleted."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from aiohttp import web

from dispatcher.admin.console import charts
from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.forms import (
    EMPTY,
    controls_in,
    problems_by_field,
    read_endpoint,
    shown_endpoint,
)
from dispatcher.admin.console.pages.test_events import send_test_event
from dispatcher.admin.console.profiles import facts, in_order
from dispatcher.admin.operations.context import Role
from dispatcher.admin.resources.endpoint import EndpointPage, EndpointsQuery
from dispatcher.admin.resources.overview import EndpointFigures
from dispatcher.core.errors import ConflictError, DispatcherError, InvalidRequestError
from dispatcher.core.matching import is_operational
from dispatcher.core.model import EndpointState, HealthState

TEST_SECONDS_MAX: Final = 90.0
"""A form that also sends a test waits for the receiver: its time-out, and some more."""
_ACTS: Final = ("pause", "resume", "delete")


async def list_endpoints(context: Context) -> web.StreamResponse:
    """Show the endpoints with their figures of the last day; none if the filter is invalid."""
    problems: dict[str, str] = {}
    page = EndpointPage(items=[], next_cursor=None)
    try:
        page = await context.operations.endpoints.page(
            context.who,
            EndpointsQuery.of(
                state=context.query("state"),
                health=context.query("health"),
                profile=context.query("profile"),
                name=context.query("name"),
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
        healths=tuple(HealthState),
        profiles=sorted(context.operations.deployment.profiles),
    )


def _spark(figures: EndpointFigures) -> charts.Bars:
    return charts.spark([(one.ok_count, one.not_ok_count) for one in figures.buckets])


async def show_endpoint(context: Context) -> web.StreamResponse:
    """Show one endpoint: settings in short, the last day."""
    endpoint = await context.operations.endpoints.show(context.who, context.part("id"))
    figures = (await context.operations.overview.of_endpoints(context.who, [endpoint.id]))[
        endpoint.id
    ]
    buckets = figures.buckets
    return context.page(
        "endpoint.html",
        tab="overview",
        endpoint=endpoint,
        figures=figures,
        profile=profile_facts(context, endpoint.profile),
        traffic=charts.bars([(one.ok_count, one.not_ok_count) for one in buckets]),
        latency=charts.lines(
            [[one.p50_seconds for one in buckets], [one.p95_seconds for one in buckets]]
        ),
        warnings=[],
    )


def profile_facts(context: Context, name: str) -> object:
    """Return what a profile means; None where it is not configured any more."""
    profile = context.operations.deployment.profiles.get(name)
    return None if profile is None else facts(profile)


async def new_endpoint(context: Context) -> web.StreamResponse:
    """Show the form of a new endpoint."""
    context.who.require(Role.ADMIN)
    return _form_page(context, {}, {})


def _form_page(
    context: Context, values: Mapping[str, Any], problems: Mapping[str, str], status: int = 200
) -> web.Response:
    deployment = context.operations.deployment
    values = {**EMPTY, "profile": deployment.settings.endpoints.default_profile, **values}
    catalogue = deployment.catalogue
    groups = [
        (group, [one for one in catalogue.types.values() if one.group == group.name])
        for group in catalogue.groups.values()
    ]
    return context.page(
        "endpoint_form.html",
        status=status,
        values=values,
        problems=problems,
        groups=sorted(
            ((group, types) for group, types in groups if types),
            key=lambda one: all(is_operational(each.name) for each in one[1]),  # they come last
        ),
        controls_in=partial(controls_in, creates=values["endpoint"] is None),
        chosen=values["event_types"],
        profiles=[facts(one) for one in in_order(deployment.profiles)],
        endpoint=values["endpoint"],
    )


def typed(context: Context) -> dict[str, Any]:
    """Return what was typed, for the form that is shown again."""
    return {**context.form, "event_types": context.lists.get("event_types", [])}


async def create_endpoint(context: Context) -> web.StreamResponse:
    """Create an endpoint, send a test event on request, and show the secret once."""
    context.who.require(Role.ADMIN)
    if not context.app.forms.take(context.form.get("form_id", "")):
        raise ConflictError(context.text("error.sent_before"))
    fields, problems = read_endpoint(context, creates=True)
    if problems:
        context.app.forms.forget(context.form.get("form_id", ""))
        return _form_page(context, typed(context), problems, 422)
    try:
        endpoints = context.operations.endpoints
        endpoint = await endpoints.create(context.who, endpoints.read_new(context.who, fields))
    except InvalidRequestError as error:
        context.app.forms.forget(context.form.get("form_id", ""))
        return _form_page(context, typed(context), problems_by_field(context, error.problems), 422)
    except ConflictError as error:
        context.app.forms.forget(context.form.get("form_id", ""))
        return _form_page(context, typed(context), {"name": context.problem(error)}, 409)
    test, test_problem, was_paused = None, None, False
    if context.form.get("then") == "test":
        try:
            test = await send_test_event(context, endpoint.id, None, None)
        except DispatcherError as error:
            test_problem = context.problem(error)
        failed = test is None or test.state != "succeeded"
        if failed and context.form.get("pause_if_failed"):
            await context.operations.endpoints.pause(context.who, endpoint.id)
            was_paused = True
    return context.page(
        "endpoint_made.html",
        endpoint=endpoint,
        profile=profile_facts(context, endpoint.profile),
        test=test,
        test_problem=test_problem,
        was_paused=was_paused,
    )


async def edit_endpoint(context: Context) -> web.StreamResponse:
    """Show the form of an existing endpoint; a viewer who may not change it sees the values."""
    endpoint = await context.operations.endpoints.show(context.who, context.part("id"))
    known = tuple(context.operations.deployment.catalogue.types)
    values = {**shown_endpoint(endpoint, (*known, *_wildcards(known))), "endpoint": endpoint}
    values["version"] = endpoint.etag
    return _form_page(context, values, {})


def _wildcards(types: tuple[str, ...]) -> set[str]:
    return {"*", *(f"{name.partition('.')[0]}.*" for name in types)}


async def update_endpoint(context: Context) -> web.StreamResponse:
    """Update an endpoint, unless it was changed since the form was shown."""
    context.who.require(Role.ADMIN)
    endpoint = await context.operations.endpoints.show(context.who, context.part("id"))
    values = {
        **typed(context),
        "profile": endpoint.profile,
        "endpoint": endpoint,
    }
    fields, problems = read_endpoint(context, creates=False)
    if problems:
        return _form_page(context, values, problems, 422)
    try:
        endpoints = context.operations.endpoints
        change = await endpoints.read_change(context.who, endpoint.id, fields)
        version = context.form.get("version") or None
        await endpoints.update(context.who, endpoint.id, change, if_match=version)
    except InvalidRequestError as error:
        return _form_page(context, values, problems_by_field(context, error.problems), 422)
    except ConflictError as error:
        return _form_page(context, values, {"name": context.problem(error)}, 409)
    return context.go(f"/webhooks/{endpoint.id}", "note.saved")


async def confirm(context: Context) -> web.StreamResponse:
    """Ask for confirmation to pause, resume or delete, with the effect on waiting deliveries."""
    act = context.part("act")
    context.who.require(Role.ADMIN if act == "delete" else Role.OPERATOR)
    endpoint = await context.operations.endpoints.show(context.who, context.part("id"))
    waiting = await context.operations.endpoints.waiting(context.who, endpoint.id)
    return context.page(
        "endpoint_act.html",
        act=act,
        endpoint=endpoint,
        waiting=waiting,
        hold_days=context.app.settings.delivery.hold_days,
        version=endpoint.etag,
    )


async def act(context: Context) -> web.StreamResponse:
    """Pauses, resumes or deletes."""
    endpoint_id = context.part("id")
    match context.part("act"):
        case "pause":
            await context.operations.endpoints.pause(context.who, endpoint_id)
        case "resume":
            await context.operations.endpoints.resume(context.who, endpoint_id)
        case _:
            await context.operations.endpoints.delete(
                context.who, endpoint_id, if_match=context.form.get("version") or None
            )
            return context.go("/webhooks", "note.deleted")
    return context.go(f"/webhooks/{endpoint_id}", f"note.{context.part('act')}d")


async def retry(context: Context) -> web.StreamResponse:
    """Retry a webhook now, and show the outcome."""
    context.who.require(Role.OPERATOR)
    endpoint = await context.operations.endpoints.show(context.who, context.part("id"))
    if not context.app.forms.take(context.form.get("form_id", "")):
        raise ConflictError(context.text("error.sent_before"))
    outcome = await context.operations.recovery.retry(context.who, endpoint.id)
    return context.page("endpoint_retried.html", endpoint=endpoint, retry=outcome)


ROUTES: Final = (
    PageRoute("GET", "/webhooks", list_endpoints),
    PageRoute("GET", "/webhooks/new", new_endpoint),
    PageRoute("POST", "/webhooks/new", create_endpoint, seconds=TEST_SECONDS_MAX),
    PageRoute("GET", "/webhooks/{id}", show_endpoint),
    PageRoute("GET", "/webhooks/{id}/settings", edit_endpoint),
    PageRoute("POST", "/webhooks/{id}/settings", update_endpoint),
    PageRoute("POST", "/webhooks/{id}/retry", retry, seconds=TEST_SECONDS_MAX),
    PageRoute("GET", "/webhooks/{id}/{act:" + "|".join(_ACTS) + "}", confirm),
    PageRoute("POST", "/webhooks/{id}/{act:" + "|".join(_ACTS) + "}", act),
)
