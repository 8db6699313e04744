"""Notifications: messages to people about problems of endpoints, for administrators."""

from typing import Any, Final

from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.forms import problems_by_field
from dispatcher.admin.operations.context import Role
from dispatcher.admin.resources.endpoint import EndpointsQuery
from dispatcher.admin.resources.notification import (
    QUIET_SECONDS_DEFAULT,
    NewNotification,
    NotificationsQuery,
)
from dispatcher.core.errors import ConflictError, InvalidRequestError
from dispatcher.core.notifying import PROBLEM_TYPES

TARGETS_MAX: Final = 100
"""Endpoints that the form offers for each profile; others can be used by the API."""
_USUAL: Final = ("slack", "teams", "discord", "line")


async def notifications(context: Context) -> web.StreamResponse:
    """List notifications, and show the form of a new one."""
    context.who.require(Role.ADMIN)
    return await _page(context, {})


async def _page(context: Context, problems: dict[str, str], status: int = 200) -> web.Response:
    operations = context.operations
    page = await operations.notifications.page(
        context.who, NotificationsQuery.of(cursor=context.query("cursor"))
    )
    targets = []
    composed = [name for name, one in operations.deployment.profiles.items() if one.text]
    for profile in sorted({*_USUAL, *composed}):
        found = await operations.endpoints.page(
            context.who, EndpointsQuery.of(profile=profile, limit=str(TARGETS_MAX))
        )
        targets += [(one.id, f"{one.name} ({profile})") for one in found.items]
    return context.page(
        "notifications.html",
        status=status,
        page=page,
        problems=problems,
        types=PROBLEM_TYPES,
        chosen=context.lists.get("event_types", PROBLEM_TYPES),
        targets=targets,
        target_names=dict(targets),
        quiet_default=str(QUIET_SECONDS_DEFAULT),
    )


async def created(context: Context) -> web.StreamResponse:
    """Create a notification."""
    context.who.require(Role.ADMIN)
    form_id = context.form.get("form_id", "")
    if not context.app.forms.take(form_id):
        raise ConflictError(context.text("error.sent_before"))
    problems: dict[str, str] = {}
    try:
        fields = _fields(context, problems)
        if not problems:
            await context.operations.notifications.create(context.who, NewNotification.of(**fields))
    except InvalidRequestError as error:
        problems = problems_by_field(context, error.problems)
    except ConflictError as error:
        problems = {"name": context.problem(error)}
    if problems:
        context.app.forms.forget(form_id)
        return await _page(context, problems, status=422)
    return context.go("/notifications", "note.saved")


def _fields(context: Context, problems: dict[str, str]) -> dict[str, Any]:
    form = {name: value.strip() for name, value in context.form.items()}
    fields: dict[str, Any] = {
        "name": form.get("name", ""),
        "event_types": context.lists.get("event_types", []),
        "endpoint_ids": list(dict.fromkeys(form.get("endpoint_ids", "").split())),
    }
    for name in ("tenant", "to_endpoint_id", "email", "recipient"):
        if form.get(name):
            fields[name] = form[name]
    for name in ("quiet_seconds", "digest_seconds"):
        text = form.get(name, "")
        if text.isascii() and text.isdigit():
            fields[name] = int(text[:12])
        elif text:
            problems[name] = context.text("form.number")
    return fields


async def tested(context: Context) -> web.StreamResponse:
    """Send a test message by a notification."""
    await context.operations.notifications.test(context.who, context.part("id"))
    return context.go("/notifications", "note.test_queued")


async def confirm(context: Context) -> web.StreamResponse:
    """Confirm the deletion of a notification."""
    found = await context.operations.notifications.show(context.who, context.part("id"))
    return context.page("notification_delete.html", notification=found)


async def deleted(context: Context) -> web.StreamResponse:
    """Delete a notification."""
    await context.operations.notifications.delete(context.who, context.part("id"))
    return context.go("/notifications", "note.deleted")


ROUTES: Final = (
    PageRoute("GET", "/notifications", notifications),
    PageRoute("POST", "/notifications", created),
    PageRoute("POST", "/notifications/{id}/test", tested),
    PageRoute("GET", "/notifications/{id}/delete", confirm),
    PageRoute("POST", "/notifications/{id}/delete", deleted),
)
