"""Notifications: messages to people about problems of endpoints, for administrators."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.forms import problems_by_field
from dispatcher.admin.operations.context import Role
from dispatcher.admin.resources.endpoint_requests import EndpointsQuery
from dispatcher.admin.resources.notification import (
    QUIET_SECONDS_DEFAULT,
    NewNotification,
    Notification,
    NotificationChange,
    NotificationsQuery,
)
from dispatcher.core.errors import (
    ConflictError,
    DispatcherError,
    InvalidRequestError,
    NotFoundError,
)
from dispatcher.core.notifying import PROBLEM_TYPES

TARGETS_MAX: Final = 100
"""Endpoints that the form offers for each profile; others can be used by the API."""
PAGE_SIZE: Final = "20"
_USUAL: Final = ("slack", "teams", "discord", "line")
_EMPTY: Final[Mapping[str, Any]] = {
    "name": "",
    "event_types": list(PROBLEM_TYPES),
    "to_endpoint_id": "",
    "email": "",
    "recipient": "",
    "endpoint_ids": "",
    "quiet_seconds": str(QUIET_SECONDS_DEFAULT),
    "digest_seconds": "",
    "tenant": "",
}


async def list_notifications(context: Context) -> web.StreamResponse:
    """List the notification rules."""
    context.who.require(Role.ADMIN)
    operations = context.operations
    page = await operations.notifications.page(
        context.who, NotificationsQuery.of(cursor=context.query("cursor"), limit=PAGE_SIZE)
    )
    ids = {one.to_endpoint_id for one in page.items} | {
        endpoint_id for one in page.items for endpoint_id in one.endpoint_ids
    }
    names = await operations.endpoints.names(context.who, [one for one in ids if one])
    return context.page(
        "notifications.html", page=page, names={one: names[one].name for one in names}
    )


async def new_notification(context: Context) -> web.StreamResponse:
    """Show the form of a new rule."""
    context.who.require(Role.ADMIN)
    return await _form_page(context, _EMPTY, {})


async def show_notification(context: Context) -> web.StreamResponse:
    """Show a rule: the problems that it follows, and its form."""
    rule = await context.operations.notifications.show(context.who, context.part("id"))
    names = await context.operations.endpoints.names(context.who, rule.endpoint_ids)
    return await _form_page(context, _values_of(rule, names), {}, rule=rule)


def _values_of(rule: Notification, names: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the form shows of a rule; an endpoint is shown by its name if that identifies it."""
    shown = [names[one].name if one in names else one for one in rule.endpoint_ids]
    return {
        "name": rule.name,
        "event_types": rule.event_types,
        "to_endpoint_id": rule.to_endpoint_id or "",
        "email": rule.email or "",
        "recipient": rule.recipient or "",
        "endpoint_ids": "\n".join(
            name if shown.count(name) == 1 else endpoint_id
            for name, endpoint_id in zip(shown, rule.endpoint_ids, strict=True)
        ),
        "quiet_seconds": str(rule.quiet_seconds),
        "digest_seconds": "" if rule.digest_seconds is None else str(rule.digest_seconds),
        "tenant": rule.tenant or "",
    }


async def _form_page(
    context: Context,
    values: Mapping[str, Any],
    problems: Mapping[str, str],
    *,
    rule: Notification | None = None,
    status: int = 200,
) -> web.Response:
    operations = context.operations
    targets: list[tuple[str, str]] = []
    composed = [name for name, one in operations.deployment.profiles.items() if one.text]
    for profile in sorted({*_USUAL, *composed}):
        found = await operations.endpoints.page(
            context.who, EndpointsQuery.of(profile=profile, limit=str(TARGETS_MAX))
        )
        targets += [(one.id, f"{one.name} ({profile})") for one in found.items]
    chosen = values["to_endpoint_id"]
    if chosen and chosen not in dict(targets):
        targets.append((chosen, chosen))
    return context.page(
        "notification_form.html",
        status=status,
        rule=rule,
        values=values,
        problems=problems,
        types=PROBLEM_TYPES,
        targets=targets,
    )


async def create_notification(context: Context) -> web.StreamResponse:
    """Create a rule."""
    context.who.require(Role.ADMIN)
    form_id = context.form.get("form_id", "")
    if not context.app.forms.take(form_id):
        raise ConflictError(context.text("error.sent_before"))
    problems: dict[str, str] = {}
    try:
        fields = await _fields(context, problems)
        if context.form.get("tenant", "").strip():
            fields["tenant"] = context.form["tenant"].strip()
        if not problems:
            rule = await context.operations.notifications.create(
                context.who, NewNotification.of(**_given(fields))
            )
            return context.go(f"/notifications/{rule.id}", "note.saved")
    except InvalidRequestError as error:
        problems = problems_by_field(context, error.problems)
    except ConflictError as error:
        problems = {"name": context.problem(error)}
    context.app.forms.forget(form_id)
    return await _form_page(context, _typed(context), problems, status=422)


async def update_notification(context: Context) -> web.StreamResponse:
    """Change a rule; the problems that it follows stay."""
    rule = await context.operations.notifications.show(context.who, context.part("id"))
    problems: dict[str, str] = {}
    try:
        fields = await _fields(context, problems)
        if not problems:
            change = NotificationChange.of(**fields)
            await context.operations.notifications.update(context.who, rule.id, change)
            return context.go(f"/notifications/{rule.id}", "note.saved")
    except InvalidRequestError as error:
        problems = problems_by_field(context, error.problems)
    except ConflictError as error:
        problems = {"name": context.problem(error)}
    return await _form_page(context, _typed(context), problems, rule=rule, status=422)


def _typed(context: Context) -> Mapping[str, Any]:
    """Return what was typed, for the form that is shown again."""
    return {**_EMPTY, **context.form, "event_types": context.lists.get("event_types", [])}


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


async def _fields(context: Context, problems: dict[str, str]) -> dict[str, Any]:
    """Return the fields of a rule as they were typed; null where a field is empty."""
    form = {name: value.strip() for name, value in context.form.items()}
    fields: dict[str, Any] = {
        "name": form.get("name", ""),
        "event_types": context.lists.get("event_types", []),
        "endpoint_ids": await _endpoint_ids(context, form.get("endpoint_ids", ""), problems),
        **{name: form.get(name) or None for name in ("to_endpoint_id", "email", "recipient")},
        "digest_seconds": None,
    }
    for name in ("quiet_seconds", "digest_seconds"):
        text = form.get(name, "")
        if text.isascii() and text.isdigit():
            fields[name] = int(text[:12])
        elif text:
            problems[name] = context.text("form.number")
    return fields


async def _endpoint_ids(context: Context, text: str, problems: dict[str, str]) -> Sequence[str]:
    """Return the ids of the endpoints that were typed, one name or id on each line."""
    found: list[str] = []
    for line in text.splitlines()[:TARGETS_MAX]:
        name = line.strip()
        if not name:
            continue
        try:
            found.append(await context.operations.names.id_of(context.who, "endpoint", name))
        except (NotFoundError, ConflictError) as error:
            problems["endpoint_ids"] = f"{name}: {context.problem(error)}"
    return list(dict.fromkeys(found))


async def test_notification(context: Context) -> web.StreamResponse:
    """Send a test message by a rule; the outcome is shown in place, or on the next page without scripts."""
    is_part = "HX-Request" in context.request.headers
    try:
        rule = await context.operations.notifications.test(context.who, context.part("id"))
    except DispatcherError as error:
        if not is_part:
            raise
        return context.page("_notification_tested.html", rule=None, problem=context.problem(error))
    if not is_part:
        return context.go(f"/notifications/{rule.id}", "note.test_queued")
    return context.page("_notification_tested.html", rule=rule, problem="")


async def confirm_deletion(context: Context) -> web.StreamResponse:
    """Confirm the deletion of a rule."""
    found = await context.operations.notifications.show(context.who, context.part("id"))
    return context.page("notification_delete.html", notification=found)


async def delete_notification(context: Context) -> web.StreamResponse:
    """Delete a rule."""
    await context.operations.notifications.delete(context.who, context.part("id"))
    return context.go("/notifications", "note.deleted")


ROUTES: Final = (
    PageRoute("GET", "/notifications", list_notifications),
    PageRoute("GET", "/notifications/new", new_notification),
    PageRoute("POST", "/notifications/new", create_notification),
    PageRoute("GET", "/notifications/{id}", show_notification),
    PageRoute("POST", "/notifications/{id}", update_notification),
    PageRoute("POST", "/notifications/{id}/test", test_notification),
    PageRoute("GET", "/notifications/{id}/delete", confirm_deletion),
    PageRoute("POST", "/notifications/{id}/delete", delete_notification),
)
