"""Endpoints: the list, and one of them with its figures; made, changed, paused, resumed, deleted."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from aiohttp import web

from dispatcher.admin.console import charts
from dispatcher.admin.console.forms import (
    EMPTY,
    controls_in,
    problems_by_field,
    read_endpoint,
    shown_endpoint,
)
from dispatcher.admin.console.pages.trial import send_and_judge
from dispatcher.admin.console.profiles import facts, in_order
from dispatcher.admin.console.site import Route
from dispatcher.admin.console.visit import Visit
from dispatcher.admin.operations.deployment import Role
from dispatcher.admin.resources.endpoint import EndpointPage, EndpointsQuery
from dispatcher.admin.resources.overview import EndpointFigures
from dispatcher.core.errors import ConflictError, DispatcherError, InvalidRequestError
from dispatcher.core.model import EndpointState, HealthState

TRIAL_SECONDS_MAX: Final = 90.0
"""A form that also sends a test waits for the receiver: its time-out, and some more."""
_ACTS: Final = ("pause", "resume", "delete")


async def listed(visit: Visit) -> web.StreamResponse:
    """Shows the endpoints with how each fared in the last day; none where the filter cannot be read."""
    problems: dict[str, str] = {}
    page = EndpointPage(items=[], next_cursor=None)
    try:
        page = await visit.operations.endpoints.page(
            visit.who,
            EndpointsQuery.of(
                state=visit.query("state"),
                health=visit.query("health"),
                profile=visit.query("profile"),
                name=visit.query("name"),
                cursor=visit.query("cursor"),
            ),
        )
    except InvalidRequestError as error:
        problems = problems_by_field(visit, error.problems)
    figures = await visit.operations.overview.of_endpoints(
        visit.who, [one.id for one in page.items]
    )
    return visit.page(
        "endpoints.html",
        status=422 if problems else 200,
        problems=problems,
        page=page,
        figures=figures,
        sparks={name: _spark(one) for name, one in figures.items()},
        states=tuple(EndpointState),
        healths=tuple(HealthState),
        profiles=sorted(visit.operations.deployment.profiles),
    )


def _spark(figures: EndpointFigures) -> charts.Bars:
    return charts.spark([(one.ok_count, one.not_ok_count) for one in figures.buckets])


async def shown(visit: Visit) -> web.StreamResponse:
    """Shows one endpoint: settings in short, the last day."""
    endpoint = await visit.operations.endpoints.show(visit.who, visit.part("id"))
    figures = (await visit.operations.overview.of_endpoints(visit.who, [endpoint.id]))[endpoint.id]
    buckets = figures.buckets
    return visit.page(
        "endpoint.html",
        tab="overview",
        endpoint=endpoint,
        figures=figures,
        profile=profile_facts(visit, endpoint.profile),
        traffic=charts.bars([(one.ok_count, one.not_ok_count) for one in buckets]),
        latency=charts.lines(
            [[one.p50_seconds for one in buckets], [one.p95_seconds for one in buckets]]
        ),
        warnings=[],
    )


def profile_facts(visit: Visit, name: str) -> object:
    """Returns what a profile means; None where it is not configured any more."""
    profile = visit.operations.deployment.profiles.get(name)
    return None if profile is None else facts(profile)


async def new(visit: Visit) -> web.StreamResponse:
    """Shows the form of a new endpoint."""
    visit.who.require(Role.ADMIN)
    return _form_page(visit, {}, {})


def _form_page(
    visit: Visit, values: Mapping[str, Any], problems: Mapping[str, str], status: int = 200
) -> web.Response:
    values = {**EMPTY, **values}
    deployment = visit.operations.deployment
    catalogue = deployment.catalogue
    groups = [
        (group, [one for one in catalogue.types.values() if one.group == group.name])
        for group in catalogue.groups.values()
    ]
    return visit.page(
        "endpoint_form.html",
        status=status,
        values=values,
        problems=problems,
        groups=[(group, types) for group, types in groups if types],
        controls_in=partial(controls_in, creates=values["endpoint"] is None),
        chosen=values["event_types"],
        profiles=[facts(one) for one in in_order(deployment.profiles)],
        endpoint=values["endpoint"],
    )


def typed(visit: Visit) -> dict[str, Any]:
    """Returns what was typed, for the form that is shown again."""
    return {**visit.form, "event_types": visit.lists.get("event_types", [])}


async def made(visit: Visit) -> web.StreamResponse:
    """Makes an endpoint, sends the test event if asked to, and shows the secret: once."""
    visit.who.require(Role.ADMIN)
    if not visit.site.forms.take(visit.form.get("form_id", "")):
        raise ConflictError(visit.text("error.sent_before"))
    fields, problems = read_endpoint(visit, creates=True)
    if problems:
        visit.site.forms.forget(visit.form.get("form_id", ""))
        return _form_page(visit, typed(visit), problems, 422)
    try:
        endpoint = await visit.operations.endpoints.create(visit.who, fields)
    except InvalidRequestError as error:
        visit.site.forms.forget(visit.form.get("form_id", ""))
        return _form_page(visit, typed(visit), problems_by_field(visit, error.problems), 422)
    except ConflictError as error:
        visit.site.forms.forget(visit.form.get("form_id", ""))
        return _form_page(visit, typed(visit), {"name": visit.problem(error)}, 409)
    trial, trial_problem, was_paused = None, None, False
    if visit.form.get("then") == "test":
        try:
            trial = await send_and_judge(visit, endpoint.id, None, None)
        except DispatcherError as error:
            trial_problem = visit.problem(error)
        failed = trial is None or trial.state != "succeeded"
        if failed and visit.form.get("pause_if_failed"):
            await visit.operations.endpoints.pause(visit.who, endpoint.id)
            was_paused = True
    return visit.page(
        "endpoint_made.html",
        endpoint=endpoint,
        profile=profile_facts(visit, endpoint.profile),
        trial=trial,
        trial_problem=trial_problem,
        was_paused=was_paused,
    )


async def settings(visit: Visit) -> web.StreamResponse:
    """Shows the form of an endpoint that is there; who may not change it sees the values."""
    endpoint = await visit.operations.endpoints.show(visit.who, visit.part("id"))
    known = tuple(visit.operations.deployment.catalogue.types)
    values = {**shown_endpoint(endpoint, (*known, *_wildcards(known))), "endpoint": endpoint}
    values["version"] = endpoint.etag
    return _form_page(visit, values, {})


def _wildcards(types: tuple[str, ...]) -> set[str]:
    return {"*", *(f"{name.partition('.')[0]}.*" for name in types)}


async def changed(visit: Visit) -> web.StreamResponse:
    """Update an endpoint, unless it was changed since the form was shown."""
    visit.who.require(Role.ADMIN)
    endpoint = await visit.operations.endpoints.show(visit.who, visit.part("id"))
    values = {
        **typed(visit),
        "profile": endpoint.profile,
        "endpoint": endpoint,
    }
    fields, problems = read_endpoint(visit, creates=False)
    if problems:
        return _form_page(visit, values, problems, 422)
    try:
        await visit.operations.endpoints.update(
            visit.who, endpoint.id, fields, if_match=visit.form.get("version") or None
        )
    except InvalidRequestError as error:
        return _form_page(visit, values, problems_by_field(visit, error.problems), 422)
    except ConflictError as error:
        return _form_page(visit, values, {"name": visit.problem(error)}, 409)
    return visit.go(f"/webhooks/{endpoint.id}", "note.saved")


async def asked(visit: Visit) -> web.StreamResponse:
    """Ask for confirmation to pause, resume or delete, with the effect on waiting deliveries."""
    act = visit.part("act")
    visit.who.require(Role.ADMIN if act == "delete" else Role.OPERATOR)
    endpoint = await visit.operations.endpoints.show(visit.who, visit.part("id"))
    waiting = await visit.operations.endpoints.waiting(visit.who, endpoint.id)
    return visit.page(
        "endpoint_act.html",
        act=act,
        endpoint=endpoint,
        waiting=waiting,
        hold_days=visit.site.settings.delivery.hold_days,
        version=endpoint.etag,
    )


async def acted(visit: Visit) -> web.StreamResponse:
    """Pauses, resumes or deletes."""
    endpoint_id = visit.part("id")
    match visit.part("act"):
        case "pause":
            await visit.operations.endpoints.pause(visit.who, endpoint_id)
        case "resume":
            await visit.operations.endpoints.resume(visit.who, endpoint_id)
        case _:
            await visit.operations.endpoints.delete(
                visit.who, endpoint_id, if_match=visit.form.get("version") or None
            )
            return visit.go("/webhooks", "note.deleted")
    return visit.go(f"/webhooks/{endpoint_id}", f"note.{visit.part('act')}d")


ROUTES: Final = (
    Route("GET", "/webhooks", listed),
    Route("GET", "/webhooks/new", new),
    Route("POST", "/webhooks/new", made, seconds=TRIAL_SECONDS_MAX),
    Route("GET", "/webhooks/{id}", shown),
    Route("GET", "/webhooks/{id}/settings", settings),
    Route("POST", "/webhooks/{id}/settings", changed),
    Route("GET", "/webhooks/{id}/{act:" + "|".join(_ACTS) + "}", asked),
    Route("POST", "/webhooks/{id}/{act:" + "|".join(_ACTS) + "}", acted),
)
