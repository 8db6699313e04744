"""Activity, tokens and the system, for administrators."""

from datetime import timedelta
from typing import Any, Final

from aiohttp import web

from dispatcher.admin.console.filters import parse_time, read_time
from dispatcher.admin.console.forms import problems_by_field
from dispatcher.admin.console.site import Route
from dispatcher.admin.console.visit import Visit
from dispatcher.admin.operations.deployment import Role
from dispatcher.admin.resources.audit import AuditPage, AuditQuery
from dispatcher.admin.resources.token import CreatedToken, NewToken, TokensQuery
from dispatcher.core.errors import ConflictError, InvalidRequestError

DAYS: Final = ("7", "30", "90", "365")
_UNSAFE: Final = ("egress.allow_http", "egress.allow_networks", "egress.allow_metadata")


async def activity(visit: Visit) -> web.StreamResponse:
    """Shows who did what, newest first."""
    visit.who.require(Role.ADMIN)
    problems: dict[str, str] = {}
    since = read_time(visit, "since", problems)
    until = read_time(visit, "until", problems)
    page = AuditPage(items=[], next_cursor=None)
    if not problems:
        page = await visit.operations.audit.page(
            visit.who,
            AuditQuery.of(
                actor=visit.query("by"),
                action=visit.query("action"),
                object=visit.query("subject"),
                since=since,
                until=until,
                cursor=visit.query("cursor"),
            ),
        )
    fields = ("by", "action", "subject", "since", "until")
    return visit.page(
        "activity.html",
        status=422 if problems else 200,
        page=page,
        problems=problems,
        is_filtered=any(visit.query(name) for name in fields),
    )


async def tokens(visit: Visit) -> web.StreamResponse:
    """Shows tokens, and the form of a new one."""
    visit.who.require(Role.ADMIN)
    return await _tokens_page(visit, {})


async def _tokens_page(
    visit: Visit, problems: dict[str, str], made: CreatedToken | None = None, status: int = 200
) -> web.Response:
    page = await visit.operations.tokens.page(
        visit.who, TokensQuery.of(cursor=visit.query("cursor"))
    )
    return visit.page(
        "tokens.html",
        status=status,
        page=page,
        problems=problems,
        made=made,
        roles=tuple(Role),
        days=DAYS,
    )


async def token_made(visit: Visit) -> web.StreamResponse:
    """Create a token and show it once, in the response to this form."""
    visit.who.require(Role.ADMIN)
    form_id = visit.form.get("form_id", "")
    if not visit.site.forms.take(form_id):
        raise ConflictError(visit.text("error.sent_before"))
    days = visit.form.get("expires_days", "")
    expires_at = None
    if days in DAYS:
        expires_at = visit.site.now() + timedelta(days=int(days))
    elif days:
        expires_at = parse_time(days, visit.zone)
    try:
        made = await visit.operations.tokens.create(
            visit.who,
            NewToken.of(
                visit.site.now(),
                name=visit.form.get("name", "").strip(),
                role=visit.form.get("role", ""),
                tenant=visit.form.get("tenant", "").strip() or None,
                expires_at=expires_at,
            ),
        )
    except InvalidRequestError as error:
        visit.site.forms.forget(form_id)
        return await _tokens_page(visit, problems_by_field(visit, error.problems), status=422)
    except ConflictError as error:
        visit.site.forms.forget(form_id)
        return await _tokens_page(visit, {"name": visit.problem(error)}, status=409)
    return await _tokens_page(visit, {}, made)


async def token_asked(visit: Visit) -> web.StreamResponse:
    """Asks before a token is revoked."""
    visit.who.require(Role.ADMIN)
    token = await visit.operations.tokens.show(visit.who, visit.part("id"))
    return visit.page("token_revoke.html", token=token)


async def token_revoked(visit: Visit) -> web.StreamResponse:
    """Revokes a token."""
    await visit.operations.tokens.revoke(visit.who, visit.part("id"))
    return visit.go("/tokens", "note.revoked")


async def system(visit: Visit) -> web.StreamResponse:
    """Shows replicas and breakers; to who sees all tenants also the database and the settings in force."""
    shown = await visit.operations.system.show(visit.who)
    settings = _settings(visit) if visit.who.tenant is None else []
    return visit.page("system.html", system=shown, settings=settings)


def _settings(visit: Visit) -> list[tuple[str, str, bool]]:
    """Returns key, value and whether it opens something, of every setting that is no secret."""
    found: list[tuple[str, str, bool]] = []
    sections: dict[str, Any] = visit.site.settings.model_dump(mode="json")
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
    Route("GET", "/activity", activity),
    Route("GET", "/tokens", tokens),
    Route("POST", "/tokens", token_made),
    Route("GET", "/tokens/{id}/revoke", token_asked),
    Route("POST", "/tokens/{id}/revoke", token_revoked),
    Route("GET", "/system", system),
)
