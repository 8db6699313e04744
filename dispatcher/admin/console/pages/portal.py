"""The portal's own pages: opening it with a link, its color, and leaving it. All other pages are the console's.

A link's page has one button, which a script presses in a frame. Only its POST uses the link up, so that a program that
fetches the address for a preview does not. The GET looks the link up for its state and for the origins that may embed
the page. A link that was used by this browser leads to its portal again, so that a page can be reloaded.
"""

from typing import Final

from aiohttp import web

from dispatcher.admin.console.app import PORTAL, PageRoute, portal_ended
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.cookies import drop_portal_session, is_bare, set_portal_session
from dispatcher.core.contrast import COLOR, accent_on
from dispatcher.core.errors import NotFoundError
from dispatcher.core.problems import problem

HOME: Final = f"{PORTAL}/webhooks"
OPENED: Final = "opened"
"""A parameter of the first page: without a session, it shows that the browser kept no cookie."""
STATUS: Final = {"unused": 200, "unknown": 403, "used": 410, "expired": 410, "revoked": 410}
LIGHT: Final = ("#ffffff", "#eff1f4")
"""`--paper` and `--raised` of the light theme in console.css; a test compares them."""
DARK: Final = ("#14171c", "#20252d")


async def home(context: Context) -> web.StreamResponse:
    """Lead to the first page of the portal."""
    if context.actor is not None:
        return context.go(HOME)
    if context.query(OPENED) is None:
        return portal_ended(context)
    return context.page("portal_ended.html", status=401, reason="no_cookies")


async def link_page(context: Context) -> web.StreamResponse:
    """Show the page of a link with its button, or why it cannot be used."""
    return await _link_page(context)


async def use_link(context: Context) -> web.StreamResponse:
    """Use a link up, open its session and lead to the portal."""
    peer = context.app.peer(context.request)
    if not peer.is_encrypted and not is_bare(peer):
        return await _link_page(context)
    code = context.part("code")
    found = await context.app.portals.find_link(code, peer.address)
    opened = None if found is None else await context.app.portals.open(code, peer.address)
    if opened is None:
        return await _link_page(context)
    answer = context.go(f"{PORTAL}?{OPENED}=1")
    in_frames = bool(opened.portal.frame_ancestors)
    set_portal_session(answer, peer, opened.cookie, opened.seconds_max, in_frames=in_frames)
    return answer


async def _link_page(context: Context) -> web.StreamResponse:
    peer, code = context.app.peer(context.request), context.part("code")
    found = await context.app.portals.find_link(code, peer.address)
    cookie = context.app.portal_cookie(context.request)
    if cookie is not None and await context.app.portals.is_session_of(cookie, code):
        return context.go(HOME)
    # The page is that of the link, not that of a session that the browser may still have.
    context.actor, state = None, "unknown"
    if found is not None:
        context.show_portal(found.portal)
        state = found.state
    needs_tls = not peer.is_encrypted and not is_bare(peer)
    return context.page(
        "portal_link.html",
        status=403 if needs_tls else STATUS[state],
        state=state,
        needs_tls=needs_tls,
    )


async def theme(context: Context) -> web.StreamResponse:
    """Return a color as a style sheet, in shades that are readable in both themes; it depends on its name alone."""
    color = f"#{context.part('color')}"
    if not COLOR.fullmatch(color):
        raise NotFoundError(problem("id", "id_not_found"))
    light, dark = accent_on(color, *LIGHT, is_dark=False), accent_on(color, *DARK, is_dark=True)
    pairs = zip(("accent", "accent-ink", "accent-soft"), light, dark, strict=True)
    rules = "".join(f"--{name}: light-dark({one}, {other}); " for name, one, other in pairs)
    return web.Response(
        text=f":root {{ {rules}--brand: {color}; }}\n",
        content_type="text/css",
        headers={
            "Cache-Control": "public, max-age=86400",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Content-Security-Policy": "default-src 'none'",
        },
    )


async def sign_out(context: Context) -> web.StreamResponse:
    """End the session."""
    cookie = context.app.portal_cookie(context.request)
    if cookie is not None:
        await context.app.auth.sign_out(cookie, context.who)
    answer = context.go(PORTAL)
    drop_portal_session(answer, context.app.peer(context.request))
    return answer


ROUTES: Final = (
    PageRoute("GET", PORTAL, home, everybody=True),
    PageRoute("GET", f"{PORTAL}/", home, everybody=True),
    PageRoute("GET", f"{PORTAL}/link/{{code}}", link_page, everybody=True),
    PageRoute("POST", f"{PORTAL}/link/{{code}}", use_link, everybody=True),
    PageRoute("GET", f"{PORTAL}/theme/{{color}}.css", theme, everybody=True),
    PageRoute("POST", f"{PORTAL}/sign-out", sign_out),
)
