"""The console's web app: templates, request dispatch and error pages.

A page is a function from a `Context` to a response. Before it runs, the session is looked up, the form is
read, and the origin of a change is verified. After it, an error of ours has become a page that shows the
next step. Any other exception is logged, and the response is a page with status 500.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Final, NamedTuple
from urllib.parse import urlencode

import jinja2
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from dispatcher.admin import client_address
from dispatcher.admin.auth import Auth, SessionActor
from dispatcher.admin.console import languages
from dispatcher.admin.console.context import THEMES, Context
from dispatcher.admin.console.cookies import (
    LANGUAGE_COOKIE,
    THEME_COOKIE,
    ZONE_COOKIE,
    Peer,
    portal_cookies,
    session_cookie,
)
from dispatcher.admin.console.csrf import Forms, comes_from_us, same_token
from dispatcher.admin.console.error_pages import error_page, failure_page
from dispatcher.admin.console.times import read_zone
from dispatcher.admin.oidc.sign_on import SignOn
from dispatcher.admin.operations.facade import Operations
from dispatcher.admin.portal import PortalAuth, PortalSession
from dispatcher.config.settings import Settings
from dispatcher.core.errors import DispatcherError, InvalidRequestError, StoreUnavailableError
from dispatcher.core.printable import escape, escape_lines, is_text
from dispatcher.core.problems import Problem, problem

_log = structlog.get_logger("dispatcher.admin.console")

RESPONSE_SECONDS_MAX: Final = 30.0
"""A page that takes longer gets the response for an unavailable Postgres; test events have their own bound."""

PORTAL: Final = "/portal"
"""The path of the portal: its pages are those of the console, of one tenant and with a session of their own."""

Page = Callable[[Context], Awaitable[web.StreamResponse]]


class PageRoute(NamedTuple):
    """A page and its path.

    `everybody`: it needs no session. `portal`: it is also a page of the portal, below `/portal`.
    """

    method: str
    path: str
    page: Page
    everybody: bool = False
    seconds: float = RESPONSE_SECONDS_MAX
    portal: bool = False


class ConsoleApp:
    """The state that all pages share."""

    def __init__(
        self,
        operations: Operations,
        auth: Auth,
        settings: Settings,
        sign_on: SignOn | None = None,
    ) -> None:
        self.operations = operations
        self.auth = auth
        self.portals = PortalAuth(operations.deployment, auth)
        self.sign_on = sign_on
        self.settings = settings
        self.languages = languages.NAMES
        self.forms = Forms()
        self.names: dict[str, str] = {}
        """Cached names of endpoints; the live tail writes and clears them."""
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("dispatcher.admin.console"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
            finalize=_printable,
        )

    def now(self) -> datetime:
        """Return the present moment."""
        return self.operations.deployment.clock.now()

    def render(self, template: str, values: Mapping[str, object]) -> str:
        """Return the rendered template."""
        return self._templates.get_template(template).render(values)

    @property
    def error_pages(self) -> Middleware:
        """The middleware that returns an error page if a browser requests a page that does not exist."""

        @web.middleware
        async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await handler(request)
            except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
                is_page = "text/html" in request.headers.get("Accept", "")
                # The request refers to the error, whose traceback refers to the request.
                error.__traceback__ = None
                if request.path.startswith("/api/") or not is_page:
                    page = web.Response(status=error.status, text=error.text)
                else:
                    page = error_page(await self._of_missing(request), error.status, "")
                if isinstance(error, web.HTTPMethodNotAllowed):
                    page.headers["Allow"] = error.headers["Allow"]
                return page

        return answer

    def add(self, application: web.Application, route: PageRoute) -> None:
        """Add a page to the application, and to the portal if it is one of the portal's."""
        application.router.add_route(route.method, route.path, self._handler(route))
        if route.portal:
            self.add_to_portal(application, route)

    def add_to_portal(self, application: web.Application, route: PageRoute) -> None:
        """Add a page to the portal only, below its path."""
        path = route.path if route.path.startswith(PORTAL) else PORTAL + route.path
        application.router.add_route(route.method, path, self._handler(route, base=PORTAL))

    def _handler(
        self, route: PageRoute, base: str = ""
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            context = self.context(request, base)
            try:
                async with asyncio.timeout(route.seconds):
                    return await self._answer(route, context)
            except TimeoutError:
                slow = StoreUnavailableError(f"no response within {route.seconds:.0f} s")
                return failure_page(context, slow)
            except (DispatcherError, web.HTTPException) as error:
                return failure_page(context, error)
            except ConnectionError:
                raise  # of the client, or of a file that was not finished
            except Exception:  # noqa: BLE001 -- the border: whatever it is, people get a page and the log the trace
                _log.exception("console.failed", method=route.method, route=route.path)
                return error_page(context, 500, "")

        return answer

    def peer(self, request: web.Request) -> Peer:
        """Return the client of a request."""
        trusted = self.settings.http.trusted_proxies
        return Peer(
            client_address.address_of(request, trusted),
            client_address.is_encrypted(request, trusted),
            client_address.is_loopback(request, trusted),
        )

    async def _session(self, request: web.Request) -> SessionActor | None:
        cookie = request.cookies.get(session_cookie(self.peer(request)))
        return None if cookie is None else await self.auth.actor_of_session(cookie)

    def portal_cookie(self, request: web.Request) -> str | None:
        """Return the session cookie of the portal; None if there is none."""
        names = portal_cookies(self.peer(request))
        return next((request.cookies[name] for name in names if name in request.cookies), None)

    async def _portal_session(self, request: web.Request) -> PortalSession | None:
        cookie = self.portal_cookie(request)
        return None if cookie is None else await self.portals.session(cookie)

    async def is_signed_in(self, context: Context) -> bool:
        """Return whether the session is still valid."""
        if context.base:
            return await self._portal_session(context.request) is not None
        return await self._session(context.request) is not None

    async def _sign_in(self, context: Context) -> bool:
        """Set the actor of the session; return whether there is one."""
        if context.base:
            found = await self._portal_session(context.request)
            if found is None:
                return False
            context.actor, context.csrf = found.actor, found.csrf_token
            context.show_portal(found.portal)
            return True
        session = await self._session(context.request)
        if session is None:
            return False
        context.actor, context.csrf = session
        return True

    async def _of_missing(self, request: web.Request) -> Context:
        """Return the context of a page that does not exist, which has the frame of the portal in the portal."""
        if request.path != PORTAL and not request.path.startswith(f"{PORTAL}/"):
            return self.context(request)
        context = self.context(request, PORTAL)
        try:
            await self._sign_in(context)
        except StoreUnavailableError:
            _log.info("portal.lookup_failed", reason="the session cannot be looked up now")
        return context

    def context(self, request: web.Request, base: str = "") -> Context:
        """Return a context without an actor; `base` is the path of the portal for its pages."""
        theme = request.cookies.get(THEME_COOKIE, "")
        return Context(
            app=self,
            request=request,
            language=languages.choose(
                request.cookies.get(LANGUAGE_COOKIE), request.headers.get("Accept-Language")
            ),
            zone=read_zone(request.cookies.get(ZONE_COOKIE)),
            theme=theme if theme in THEMES else "auto",
            base=base,
            # Pages without a session hold nothing of a tenant, and explain themselves in any frame of ours.
            frame_ancestors=self.settings.portal.frame_ancestors if base else (),
        )

    async def _answer(self, route: PageRoute, context: Context) -> web.StreamResponse:
        request = context.request
        problems = _query_problems(request)
        if problems:
            raise InvalidRequestError(problems)
        if request.method == "POST" and not comes_from_us(request.headers):
            raise web.HTTPForbidden(text="cross-site")
        if not await self._sign_in(context) and not route.everybody:
            return portal_ended(context) if context.base else _to_sign_in(context)
        if request.method == "POST":
            await context.read_form()
            if context.actor is not None and not same_token(context.form.get("csrf"), context.csrf):
                raise web.HTTPForbidden(text="csrf")
        return await route.page(context)


def portal_ended(context: Context) -> web.Response:
    """Return the page for people whose portal session has ended; it leads nowhere, because only a link opens one."""
    if "HX-Request" in context.request.headers:
        return web.Response(status=204, headers={**context.headers, "HX-Redirect": PORTAL})
    return context.page("portal_ended.html", status=401, reason="ended")


def _printable(value: object) -> object:
    """Escape control and direction characters, which could mislead a reader, in the values of a template.

    Templates create the markup. They mark a form's fields (`| e`), because browsers send the values of
    fields back unchanged.
    """
    return escape_lines(value) if type(value) is str else value


def _query_problems(request: web.Request) -> list[Problem]:
    """List the query parameters that a text column could not hold."""
    return [
        problem(escape(name)[:64], "invalid_text")
        for name, value in request.query.items()
        if not (is_text(name) and is_text(value))
    ]


def _to_sign_in(context: Context) -> web.Response:
    """Redirect to the sign-in page; a request of htmx for a part of a page redirects the whole page."""
    path = f"/sign-in?{urlencode({'next': _back(context.request)})}"
    if "HX-Request" in context.request.headers:
        return web.Response(status=204, headers={**context.headers, "HX-Redirect": path})
    return context.go(path)


def _back(request: web.Request) -> str:
    """Return the path to go to after signing in: the requested page, or `/` after a POST."""
    return request.path_qs if request.method in {"GET", "HEAD"} else "/"
