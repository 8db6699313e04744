"""Activity, tokens and the system, for administrators."""

from datetime import timedelta
from typing import Any, Final

from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.filters import parse_time, read_time
from dispatcher.admin.console.forms import problems_by_field
from dispatcher.admin.operations.context import Role
from dispatcher.admin.resources.audit import AuditPage, AuditQuery
from dispatcher.admin.resources.token import CreatedToken, NewToken, TokensQuery
from dispatcher.core.errors import ConflictError, InvalidRequestError

DAYS: Final = ("7", "30", "90", "365")
_UNSAFE: Final = ("egress.allow_http", "egress.allow_networks", "egress.allow_metadata")


async def activity(context: Context) -> web.StreamResponse:
    """Show the audit log, newest first."""
    context.who.require(Role.ADMIN)
    problems: dict[str, str] = {}
    since = read_time(context, "since", problems)
    until = read_time(context, "until", problems)
    page = AuditPage(items=[], next_cursor=None)
    if not problems:
        page = await context.operations.audit.page(
            context.who,
            AuditQuery.of(
                actor=context.query("by"),
                action=context.query("action"),
                object=context.query("subject"),
                since=since,
                until=until,
                cursor=context.query("cursor"),
            ),
        )
    fields = ("by", "action", "subject", "since", "until")
    return context.page(
        "activity.html",
        status=422 if problems else 200,
        page=page,
        problems=problems,
        is_filtered=any(context.query(name) for name in fields),
    )


async def list_tokens(context: Context) -> web.StreamResponse:
    """Show tokens, and the form of a new one."""
    context.who.require(Role.ADMIN)
    return await _tokens_page(context, {})


async def _tokens_page(
    context: Context, problems: dict[str, str], made: CreatedToken | None = None, status: int = 200
) -> web.Response:
    page = await context.operations.tokens.page(
        context.who, TokensQuery.of(cursor=context.query("cursor"))
    )
    return context.page(
        "tokens.html",
        status=status,
        page=page,
        problems=problems,
        made=made,
        roles=tuple(Role),
        days=DAYS,
    )


async def create_token(context: Context) -> web.StreamResponse:
    """Create a token and show it once, in the response to this form."""
    context.who.require(Role.ADMIN)
    form_id = context.form.get("form_id", "")
    if not context.app.forms.take(form_id):
        raise ConflictError(context.text("error.sent_before"))
    days = context.form.get("expires_days", "")
    expires_at = None
    if days in DAYS:
        expires_at = context.app.now() + timedelta(days=int(days))
    elif days:
        expires_at = parse_time(days, context.zone)
    try:
        made = await context.operations.tokens.create(
            context.who,
            NewToken.of(
                context.app.now(),
                name=context.form.get("name", "").strip(),
                role=context.form.get("role", ""),
                tenant=context.form.get("tenant", "").strip() or None,
                expires_at=expires_at,
            ),
        )
    except InvalidRequestError as error:
        context.app.forms.forget(form_id)
        return await _tokens_page(context, problems_by_field(context, error.problems), status=422)
    except ConflictError as error:
        context.app.forms.forget(form_id)
        return await _tokens_page(context, {"name": context.problem(error)}, status=409)
    return await _tokens_page(context, {}, made)


async def confirm_revocation(context: Context) -> web.StreamResponse:
    """Ask for confirmation before a token is revoked."""
    context.who.require(Role.ADMIN)
    token = await context.operations.tokens.show(context.who, context.part("id"))
    return context.page("token_revoke.html", token=token)


async def revoke_token(context: Context) -> web.StreamResponse:
    """Revokes a token."""
    await context.operations.tokens.revoke(context.who, context.part("id"))
    return context.go("/tokens", "note.revoked")


async def system(context: Context) -> web.StreamResponse:
    """Show replicas and breakers; to a viewer of all tenants also the database and the effective settings."""
    shown = await context.operations.system.show(context.who)
    settings = _settings(context) if context.who.tenant is None else []
    return context.page("system.html", system=shown, settings=settings)


def _settings(context: Context) -> list[tuple[str, str, bool]]:
    """Return key, value and whether it opens something, of every setting that is no secret."""
    found: list[tuple[str, str, bool]] = []
    sections: dict[str, Any] = context.app.settings.model_dump(mode="json")
    for section, values in sections.items():
        if isinstance(values, dict) and section != "sources":
            for key, value in values.items():
                path = f"{section}.{key}"
                found.append((path, _written(value), path in _UNSAFE and bool(value)))
    return found


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ", ".join(str(one) for one in value)
    return str(value)


ROUTES: Final = (
    PageRoute("GET", "/activity", activity),
    PageRoute("GET", "/tokens", list_tokens),
    PageRoute("POST", "/tokens", create_token),
    PageRoute("GET", "/tokens/{id}/revoke", confirm_revocation),
    PageRoute("POST", "/tokens/{id}/revoke", revoke_token),
    PageRoute("GET", "/system", system),
)
