"""The forms of a webhook: a new one with a preview of its request, its result, and the settings of one."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.forms import (
    EMPTY,
    controls_in,
    problems_by_field,
    read_endpoint,
    shown_endpoint,
)
from dispatcher.admin.console.pages.secrets import signing_values
from dispatcher.admin.console.pages.test_events import send_test_event
from dispatcher.admin.console.profiles import facts, in_order
from dispatcher.admin.operations.context import Role
from dispatcher.admin.operations.credentials import expiring_at
from dispatcher.admin.operations.endpoint_rules import unknown_subscriptions
from dispatcher.admin.operations.request_preview import RequestPreview, preview_of, preview_request
from dispatcher.admin.resources.content_filter import FilterTest, FilterTestResult
from dispatcher.admin.resources.endpoint import Endpoint
from dispatcher.admin.resources.serialization import time_text
from dispatcher.core.errors import (
    ConflictError,
    DispatcherError,
    InvalidRequestError,
    NotFoundError,
)
from dispatcher.core.matching import event_types_problems, is_operational

TEST_SECONDS_MAX: Final = 90.0
"""A form that also sends a test waits for the receiver: its timeout, and some more."""


async def new_endpoint(context: Context) -> web.StreamResponse:
    """Show the form of a new webhook."""
    context.who.require(Role.MANAGER)
    return _form_page(context, {}, {})


def _form_page(
    context: Context,
    values: Mapping[str, Any],
    problems: Mapping[str, str],
    status: int = 200,
    preview: RequestPreview | None = None,
    filter_test: FilterTestResult | None = None,
) -> web.Response:
    deployment = context.operations.deployment
    values = {**EMPTY, "profile": deployment.settings.endpoints.default_profile, **values}
    endpoint = values["endpoint"]
    catalogue = deployment.catalogue
    groups = [
        (group, [one for one in catalogue.types.values() if one.group == group.name])
        for group in catalogue.groups.values()
    ]
    return context.page(
        "endpoint_new.html" if endpoint is None else "endpoint_settings.html",
        status=status,
        tab="settings",
        values=values,
        problems=problems,
        groups=sorted(
            ((group, types) for group, types in groups if types),
            key=lambda one: all(is_operational(each.name) for each in one[1]),  # they come last
        ),
        controls_in=partial(controls_in, creates=endpoint is None, is_admin=context.may("admin")),
        chosen=values["event_types"],
        profiles=[facts(one) for one in in_order(deployment.profiles)],
        endpoint=endpoint,
        preview=preview,
        filter_test=filter_test,
        had_secret=bool(context.form.get("secret")),
    )


def typed(context: Context) -> dict[str, Any]:
    """Return what was typed, for the form that is shown again."""
    return {**context.form, "event_types": context.lists.get("event_types", [])}


async def create_endpoint(context: Context) -> web.StreamResponse:
    """Create a webhook, send a test event on request, and show the secret once; or show a preview only."""
    context.who.require(Role.MANAGER)
    if context.form.get("then") == "preview":
        return _previewed(context)
    if context.form.get("then") == "filter":
        return await _filter_tested(context, typed(context), context.form.get("tenant") or None)
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
        **signing_values(context, endpoint),
        test=test,
        test_problem=test_problem,
        was_paused=was_paused,
        unknown_types=unknown_subscriptions(endpoint.event_types, context.operations.deployment),
        expires_at=time_text(expiring_at(endpoint.client_certificate, context.app.now())),
    )


def _previewed(context: Context) -> web.Response:
    """Show the request that a new webhook of the typed settings would get."""
    deployment = context.operations.deployment
    fields, _ = read_endpoint(context, creates=True)
    default = deployment.settings.endpoints.default_profile
    profile = deployment.profiles.get(fields.get("profile") or default)
    preview = None
    if profile is not None:
        preview = preview_request(
            deployment,
            profile=profile,
            url=fields.get("url", ""),
            event_types=fields["event_types"],
            headers=fields.get("headers", {}),
            is_signed=fields.get("secret", "") is not None,
            also_sign=fields.get("also_sign", ()),
            ed25519=fields.get("key_type") == "ed25519",
            include=fields.get("include", ()),
            exclude=fields.get("exclude", ()),
        )
    return _preview_page(context, typed(context), preview)


def _preview_page(
    context: Context, values: Mapping[str, Any], preview: RequestPreview | None
) -> web.Response:
    """Show the request that typed settings would send, in place or with the form around it."""
    if "HX-Request" in context.request.headers:
        return context.page("_request_preview.html", preview=preview)
    return _form_page(context, values, {}, preview=preview)


async def _filter_tested(
    context: Context, values: Mapping[str, Any], tenant: str | None
) -> web.Response:
    """Show how many of the newest events the typed filter matches, in place or with the form around it."""
    fields, _ = read_endpoint(context, creates=False)
    event_types = [] if event_types_problems(fields["event_types"]) else fields["event_types"]
    result, problems = None, dict[str, str]()
    try:
        result = await context.operations.content_filters.test(
            context.who,
            FilterTest.of(content_filter=fields.get("content_filter") or "", tenant=tenant),
            event_types=event_types,
        )
    except InvalidRequestError as error:
        problems = problems_by_field(context, error.problems)
    except NotFoundError as error:
        problems = {"tenant": context.problem(error)}
    if "HX-Request" in context.request.headers:
        return context.page("_filter_test.html", filter_test=result, problems=problems)
    return _form_page(context, values, problems, 422 if problems else 200, filter_test=result)


async def edit_endpoint(context: Context) -> web.StreamResponse:
    """Show the settings of a webhook; a viewer who may not change them sees the values."""
    endpoint = await context.operations.endpoints.show(context.who, context.part("id"))
    known = ("*", *context.operations.deployment.catalogue.types)  # they have boxes
    values = {**shown_endpoint(endpoint, known), "endpoint": endpoint}
    values["version"] = endpoint.etag
    preview = None
    if context.who.may(Role.MANAGER):
        preview = _preview_of_change(context, endpoint, {})
    return _form_page(context, values, {}, preview=preview)


def _preview_of_change(
    context: Context, endpoint: Endpoint, changed: Mapping[str, Any]
) -> RequestPreview | None:
    deployment = context.operations.deployment
    profile = deployment.profiles.get(endpoint.profile)
    return None if profile is None else preview_of(deployment, endpoint, profile, changed)


async def update_endpoint(context: Context) -> web.StreamResponse:
    """Change a webhook, unless it was changed since the form was shown; or show a preview only."""
    context.who.require(Role.MANAGER)
    endpoint = await context.operations.endpoints.show(context.who, context.part("id"))
    values = {
        **typed(context),
        "profile": endpoint.profile,
        "endpoint": endpoint,
    }
    if context.form.get("then") == "filter":
        return await _filter_tested(context, values, endpoint.tenant)
    fields, problems = read_endpoint(context, creates=False)
    if context.form.get("then") == "preview":
        return _preview_page(context, values, _preview_of_change(context, endpoint, fields))
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


ROUTES: Final = (
    PageRoute("GET", "/webhooks/new", new_endpoint, portal=True),
    PageRoute("POST", "/webhooks/new", create_endpoint, seconds=TEST_SECONDS_MAX, portal=True),
    PageRoute("GET", "/webhooks/{id}/settings", edit_endpoint, portal=True),
    PageRoute("POST", "/webhooks/{id}/settings", update_endpoint, portal=True),
)
