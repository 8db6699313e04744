"""Pages for signing in with a token, signing out and preferences, and the console's static files."""

from typing import Final

from aiohttp import web

from dispatcher.admin.console import assets
from dispatcher.admin.console.cookies import (
    LANGUAGE_COOKIE,
    THEME_COOKIE,
    ZONE_COOKIE,
    drop_session,
    is_bare,
    keep,
    session_cookie,
    set_session,
)
from dispatcher.admin.console.languages import NAMES
from dispatcher.admin.console.site import Route
from dispatcher.admin.console.times import available_names, zone_names
from dispatcher.admin.console.visit import THEMES, Visit, local_path

AUTOMATIC: Final = "auto"


async def sign_in(visit: Visit) -> web.StreamResponse:
    """Return the sign-in form, or a redirect if the user is already signed in."""
    if visit.actor is not None:
        return visit.go(local_path(visit.query("next")))
    return _sign_in_page(visit, 200, None)


async def signed_in(visit: Visit) -> web.StreamResponse:
    """Authenticate the token and open a session."""
    token = visit.form.get("token", "").strip()
    peer = visit.site.peer(visit.request)
    opened = await visit.site.auth.sign_in(token, peer.address) if token else None
    if opened is None:
        return _sign_in_page(visit, 401, visit.text("sign_in.wrong"))
    answer = visit.go(local_path(visit.form.get("next")))
    set_session(answer, peer, opened.cookie, opened.seconds_max)
    return answer


def _sign_in_page(visit: Visit, status: int, problem: str | None) -> web.Response:
    peer = visit.site.peer(visit.request)
    return visit.page(
        "sign_in.html",
        status=status,
        problem=problem,
        needs_tls=not peer.is_encrypted and not is_bare(peer),
        next=local_path(visit.form.get("next") or visit.query("next")),
    )


async def sign_out(visit: Visit) -> web.StreamResponse:
    """End the session."""
    peer = visit.site.peer(visit.request)
    cookie = visit.request.cookies.get(session_cookie(peer))
    if cookie is not None:
        await visit.site.auth.sign_out(cookie, visit.who)
    answer = visit.go("/sign-in")
    drop_session(answer, peer)
    return answer


async def preferences(visit: Visit) -> web.StreamResponse:
    """Return the form for language, theme and time zone."""
    return visit.page("preferences.html", themes=THEMES, zones=zone_names())


async def preferred(visit: Visit) -> web.StreamResponse:
    """Save the chosen language, theme and time zone, as far as they are present and valid."""
    answer = visit.go(local_path(visit.form.get("back")))
    if (language := visit.form.get("language")) in NAMES and language is not None:
        keep(answer, LANGUAGE_COOKIE, language)
    if (theme := visit.form.get("theme")) in THEMES and theme is not None:
        keep(answer, THEME_COOKIE, theme)
    zone = visit.form.get("zone")
    if zone == AUTOMATIC:
        answer.del_cookie(ZONE_COOKIE, path="/", samesite="Lax")
    elif zone is not None and (zone == "UTC" or zone in available_names()):
        keep(answer, ZONE_COOKIE, f"set:{zone}")
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
    Route("GET", "/sign-in", sign_in, everybody=True),
    Route("POST", "/sign-in", signed_in, everybody=True),
    Route("POST", "/sign-out", sign_out),
    Route("GET", "/preferences", preferences, everybody=True),
    Route("POST", "/preferences", preferred, everybody=True),
)
