"""Access to the console: who is signed in, the people of the OpenID provider, and tokens."""

from datetime import timedelta
from typing import Final

from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.filters import parse_time
from dispatcher.admin.console.forms import problems_by_field
from dispatcher.admin.operations.context import TOKEN_ROLES, Role
from dispatcher.admin.resources.access import AccessQuery
from dispatcher.admin.resources.token import CreatedToken, NewToken, Token, TokensQuery
from dispatcher.core.errors import ConflictError, InvalidRequestError

DAYS: Final = ("7", "30", "90", "365")
ROWS: Final = 20


async def list_sessions(context: Context) -> web.StreamResponse:
    """Show the sessions that have not ended."""
    context.who.require(Role.ADMIN)
    page = await context.operations.access.sessions(
        context.who, AccessQuery.of(limit=ROWS, cursor=context.query("cursor"))
    )
    return context.page("access_sessions.html", page=page)


async def end_session(context: Context) -> web.StreamResponse:
    """End a session."""
    await context.operations.access.end_session(context.who, context.part("id"))
    return context.go("/access/sessions", "note.session_ended")


async def list_people(context: Context) -> web.StreamResponse:
    """Show the people who signed in through the OpenID provider."""
    context.who.require(Role.ADMIN)
    page = await context.operations.access.people(
        context.who, AccessQuery.of(limit=ROWS, cursor=context.query("cursor"))
    )
    return context.page(
        "access_people.html",
        page=page,
        rules=context.app.settings.oidc.roles if context.who.tenant is None else (),
        is_configured=context.app.sign_on is not None,
    )


async def list_tokens(context: Context) -> web.StreamResponse:
    """Show tokens, and the form of a new one."""
    context.who.require(Role.ADMIN)
    return await _tokens_page(context, {})


async def _tokens_page(
    context: Context, problems: dict[str, str], made: CreatedToken | None = None, status: int = 200
) -> web.Response:
    page = await context.operations.tokens.page(
        context.who, TokensQuery.of(limit=ROWS, cursor=context.query("cursor"))
    )
    now = context.app.now().isoformat()
    return context.page(
        "access_tokens.html",
        status=status,
        page=page,
        states={one.id: _state(one, now) for one in page.items},
        problems=problems,
        made=made,
        roles=TOKEN_ROLES,
        days=DAYS,
    )


def _state(token: Token, now: str) -> str:
    if token.revoked_at is not None:
        return "revoked"
    has_expired = token.expires_at is not None and token.expires_at <= now
    return "expired" if has_expired else "active"


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
    return context.go("/access", "note.revoked")


async def moved(context: Context) -> web.StreamResponse:
    """Redirect from the page that tokens had before."""
    context.who.require(Role.ADMIN)
    return context.go("/access")


ROUTES: Final = (
    PageRoute("GET", "/access", list_tokens),
    PageRoute("POST", "/access", create_token),
    PageRoute("GET", "/access/sessions", list_sessions),
    PageRoute("POST", "/access/sessions/{id}/end", end_session),
    PageRoute("GET", "/access/people", list_people),
    PageRoute("GET", "/access/tokens/{id}/revoke", confirm_revocation),
    PageRoute("POST", "/access/tokens/{id}/revoke", revoke_token),
    PageRoute("GET", "/tokens", moved),
)
