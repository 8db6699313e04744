"""Pages for signing in (token, one-time link, OpenID provider), signing out and preferences, and the static files.

A link's page has one button. Only its POST uses the link up, so that a program that fetches the address for
a preview does not; the GET looks nothing up, so that it reveals nothing about the link. The POST ends in a
redirect, and the code in the browser's history is worthless by then.
"""

from typing import Final

from aiohttp import web

from dispatcher.admin.console import assets
from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import THEMES, Context, local_path
from dispatcher.admin.console.cookies import (
    LANGUAGE_COOKIE,
    THEME_COOKIE,
    ZONE_COOKIE,
    drop_flow,
    drop_session,
    flow_cookie,
    is_bare,
    keep,
    session_cookie,
    set_flow,
    set_session,
)
from dispatcher.admin.console.languages import NAMES
from dispatcher.admin.console.times import available_names, zone_names
from dispatcher.admin.oidc.errors import SignOnError
from dispatcher.admin.oidc.flow import FLOW_SECONDS
from dispatcher.core.errors import NotFoundError
from dispatcher.core.problems import problem

AUTOMATIC: Final = "auto"


async def sign_in_form(context: Context) -> web.StreamResponse:
    """Return the sign-in form, or a redirect if the user is already signed in."""
    if context.actor is not None:
        return context.go(local_path(context.query("next")))
    return _sign_in_page(context, 200, None)


async def sign_in(context: Context) -> web.StreamResponse:
    """Authenticate the token and open a session."""
    token = context.form.get("token", "").strip()
    peer = context.app.peer(context.request)
    opened = await context.app.auth.sign_in(token, peer.address) if token else None
    if opened is None:
        return _sign_in_page(context, 401, context.text("sign_in.wrong"))
    answer = context.go(local_path(context.form.get("next")))
    set_session(answer, peer, opened.cookie, opened.seconds_max)
    return answer


async def link_form(context: Context) -> web.StreamResponse:
    """Return the page with the button that uses a sign-in link."""
    return _link_page(context, 200, None)


async def use_link(context: Context) -> web.StreamResponse:
    """Use a sign-in link up and open its session."""
    peer = context.app.peer(context.request)
    if not peer.is_encrypted and not is_bare(peer):
        return _link_page(context, 403, None)
    opened = await context.app.auth.sign_in_by_link(context.part("code"), peer.address)
    if opened is None:
        return _link_page(context, 401, context.text("sign_in.link_wrong"))
    answer = context.go("/")
    set_session(answer, peer, opened.cookie, opened.seconds_max)
    return answer


async def start_sign_on(context: Context) -> web.StreamResponse:
    """Send the browser to the OpenID provider."""
    sign_on, peer = context.app.sign_on, context.app.peer(context.request)
    if sign_on is None:
        raise NotFoundError(problem("id", "id_not_found"))
    if not peer.is_encrypted and not is_bare(peer):
        return _sign_in_page(context, 403, None)
    try:
        started = await sign_on.start(local_path(context.query("next")), peer.address)
    except SignOnError as error:
        return _sign_in_page(context, 502, context.text(f"sign_in.oidc_{error.reason}"))
    answer = context.go(started.url)
    set_flow(answer, peer, started.cookie, FLOW_SECONDS)
    return answer


async def complete_sign_on(context: Context) -> web.StreamResponse:
    """Complete a sign-in when the browser returns from the OpenID provider."""
    sign_on, peer = context.app.sign_on, context.app.peer(context.request)
    if sign_on is None:
        raise NotFoundError(problem("id", "id_not_found"))
    try:
        completed = await sign_on.complete(
            cookie=context.request.cookies.get(flow_cookie(peer)),
            state=context.query("state") or "",
            code=context.query("code"),
            address=peer.address,
        )
    except SignOnError as error:
        status = 502 if error.reason == "unavailable" else 403
        answer = _sign_in_page(context, status, context.text(f"sign_in.oidc_{error.reason}"))
    else:
        answer = context.go(local_path(completed.next_path))
        set_session(answer, peer, completed.session.cookie, completed.session.seconds_max)
    drop_flow(answer, peer)
    return answer


def _link_page(context: Context, status: int, reason: str | None) -> web.Response:
    peer = context.app.peer(context.request)
    return context.page(
        "sign_in_link.html",
        status=status,
        problem=reason,
        needs_tls=not peer.is_encrypted and not is_bare(peer),
    )


def _sign_in_page(context: Context, status: int, reason: str | None) -> web.Response:
    peer = context.app.peer(context.request)
    return context.page(
        "sign_in.html",
        status=status,
        problem=reason,
        sign_on=context.app.sign_on,
        # Of a return from the provider, the address holds a code.
        here=context.address("/sign-in", next=context.query("next")),
        needs_tls=not peer.is_encrypted and not is_bare(peer),
        next=local_path(context.form.get("next") or context.query("next")),
    )


async def sign_out(context: Context) -> web.StreamResponse:
    """End the session."""
    peer = context.app.peer(context.request)
    cookie = context.request.cookies.get(session_cookie(peer))
    if cookie is not None:
        await context.app.auth.sign_out(cookie, context.who)
    answer = context.go("/sign-in")
    drop_session(answer, peer)
    return answer


async def edit_preferences(context: Context) -> web.StreamResponse:
    """Return the form for language, theme and time zone."""
    return context.page("preferences.html", themes=THEMES, zones=zone_names())


async def save_preferences(context: Context) -> web.StreamResponse:
    """Save the chosen language, theme and time zone, as far as they are present and valid."""
    answer = context.go(local_path(context.form.get("back")))
    in_frames = bool(context.frame_ancestors)
    if (language := context.form.get("language")) in NAMES and language is not None:
        keep(answer, LANGUAGE_COOKIE, language, in_frames=in_frames)
    if (theme := context.form.get("theme")) in THEMES and theme is not None:
        keep(answer, THEME_COOKIE, theme, in_frames=in_frames)
    zone = context.form.get("zone")
    if zone == AUTOMATIC:
        keep(answer, ZONE_COOKIE, "", in_frames=in_frames)
    elif zone is not None and (zone == "UTC" or zone in available_names()):
        keep(answer, ZONE_COOKIE, f"set:{zone}", in_frames=in_frames)
    return answer


async def static(request: web.Request) -> web.Response:
    """Return a static file; its name contains its hash, so it never changes."""
    by_path = {asset.path: asset for asset in assets.load().values()}
    asset = by_path.get(request.path)
    if asset is None:
        raise web.HTTPNotFound
    return web.Response(
        body=asset.body,
        headers={
            "Content-Type": asset.content_type,
            "Cache-Control": "public, max-age=31536000, immutable",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Content-Security-Policy": "default-src 'none'",
        },
    )


ROUTES: Final = (
    PageRoute("GET", "/sign-in", sign_in_form, everybody=True),
    PageRoute("POST", "/sign-in", sign_in, everybody=True),
    PageRoute("GET", "/sign-in/oidc", start_sign_on, everybody=True),
    PageRoute("GET", "/sign-in/callback", complete_sign_on, everybody=True),
    PageRoute("GET", "/sign-in/{code}", link_form, everybody=True),
    PageRoute("POST", "/sign-in/{code}", use_link, everybody=True),
    PageRoute("POST", "/sign-out", sign_out),
    PageRoute("GET", "/preferences", edit_preferences, everybody=True, portal=True),
    PageRoute("POST", "/preferences", save_preferences, everybody=True, portal=True),
)
