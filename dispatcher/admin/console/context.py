"""The context of one request to the console: actor, language, zone, form, and the responses of pages.

Invariants: every value that a page shows is escaped by its template. A form's fields are strings of
bounded number and size (the server bounds the body). A redirect leads to a page of ours.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from aiohttp import web
from markupsafe import Markup

from dispatcher.admin.console import assets, languages, times
from dispatcher.admin.console.actors import actor_name
from dispatcher.admin.console.cookies import LANGUAGE_COOKIE, set_page_cookie
from dispatcher.admin.console.csrf import page_headers
from dispatcher.admin.console.help_links import help_address
from dispatcher.admin.console.labels import ICONS, TONES, advice, retry_count
from dispatcher.admin.console.languages import Language
from dispatcher.admin.console.navigation import GROUPS, PORTAL_GROUPS, Group, is_current
from dispatcher.admin.console.times import Zone
from dispatcher.admin.operations.context import Actor, Role
from dispatcher.admin.operations.facade import Operations
from dispatcher.admin.portal import Portal
from dispatcher.core.business_key import business_key
from dispatcher.core.errors import DispatcherError, NotFoundError
from dispatcher.core.problems import Problem, problem

if TYPE_CHECKING:
    from dispatcher.admin.console.app import ConsoleApp

THEMES: Final = ("auto", "light", "dark")
NOTE_COOKIE: Final = "dispatcher_note"
_FIELDS_MAX: Final = 500
STRANGERS_BYTES_MAX: Final = 8192
"""Bound of a form without a session, which holds a token or a preference."""
STRANGERS_SECONDS_MAX: Final = 5.0


@dataclass(slots=True, kw_only=True)
class Context:
    """One request; the app creates it before it calls the page's function, its only user."""

    app: "ConsoleApp"
    request: web.Request
    language: Language
    zone: Zone
    theme: str
    base: str = ""
    """The path that the pages are below: that of the portal, or none."""
    portal: Portal | None = None
    """The portal whose session this is; None outside the portal, and without a session."""
    frame_ancestors: tuple[str, ...] = ()
    """The origins that may embed this page."""
    actor: Actor | None = None
    csrf: str = ""
    form: Mapping[str, str] = field(default_factory=dict)
    """The fields of a POST; the last value of each name."""
    lists: Mapping[str, list[str]] = field(default_factory=dict)
    """The fields of a POST; all values of each name."""

    def show_portal(self, portal: Portal) -> None:
        """Give the page the frame of a portal: its name, color and language, and the origins that may embed it."""
        self.portal = portal
        self.frame_ancestors = portal.frame_ancestors
        if portal.language is not None and LANGUAGE_COOKIE not in self.request.cookies:
            self.language = languages.load()[portal.language]

    @property
    def operations(self) -> Operations:
        """The operations, which are the only access to data."""
        return self.app.operations

    @property
    def who(self) -> Actor:
        """The signed-in actor; pages for everybody must not use it."""
        assert self.actor is not None  # noqa: S101 -- the app requires a session
        return self.actor

    def query(self, name: str) -> str | None:
        """Return a query parameter without surrounding spaces; None if it is absent or empty."""
        return self.request.query.get(name, "").strip() or None

    def text(self, key: str, /, **values: object) -> str:
        """Return a message in the viewer's language."""
        return self.language.text(key, **values)

    def problem(self, error: DispatcherError) -> str:
        """Return the message of an error, translated if it has a code of its own."""
        return str(error) if error.problem is None else self.problem_text(error.problem)

    def problem_text(self, problem: Problem) -> str:
        """Return the message of a problem with its fix, in the viewer's language."""
        return self.text(f"invalid.{problem.code}", **problem.values)

    def part(self, name: str) -> str:
        """Return a part of the path.

        Raises:
            NotFoundError: it is too long or not printable, as no id of ours is.
        """
        value = self.request.match_info[name]
        if len(value) > 128 or not value.isprintable():  # noqa: PLR2004 -- longer than any id
            raise NotFoundError(problem("id", "id_not_found"))
        return value

    async def read_form(self) -> None:
        """Read the fields of a form; without a session at most 8 KiB, within 5 s.

        Raises:
            web.HTTPException: the body is too large, too slow, or not a form.
        """
        if self.request.content_type != "application/x-www-form-urlencoded":
            raise web.HTTPUnsupportedMediaType
        if self.actor is not None:
            given = await self.request.post()
        else:
            try:
                async with asyncio.timeout(STRANGERS_SECONDS_MAX):
                    small = self.request.clone(client_max_size=STRANGERS_BYTES_MAX)
                    given = await small.post()
            except TimeoutError:
                raise web.HTTPRequestTimeout from None
        if len(given) > _FIELDS_MAX:
            raise web.HTTPRequestEntityTooLarge(max_size=_FIELDS_MAX, actual_size=len(given))
        texts = [(name, value) for name, value in given.items() if isinstance(value, str)]
        # Postgres keeps no NUL, and a browser cannot type one.
        clean = [(name, value.replace("\0", "")) for name, value in texts]
        self.form = dict(clean)
        lists: dict[str, list[str]] = {}
        for name, value in clean:
            lists.setdefault(name, []).append(value)
        self.lists = lists

    def page(self, template: str, *, status: int = 200, **values: object) -> web.Response:
        """Return a rendered page."""
        note = self.request.cookies.get(NOTE_COOKIE)
        body = self.app.render(template, {**self._context(), "note": note, **values})
        answer = web.Response(text=body, status=status, content_type="text/html", charset="utf-8")
        answer.headers.update(self.headers)
        if note is not None:
            self.set_cookie(answer, NOTE_COOKIE, "", 0)
        return answer

    def go(self, path: str, note: str | None = None) -> web.Response:
        """Return a redirect after a form, with the key of a note for the next page."""
        answer = web.Response(status=303, headers={**self.headers, "Location": self.at(path)})
        if note is not None:
            self.set_cookie(answer, NOTE_COOKIE, note, 60)
        return answer

    def address(self, path: str | None = None, /, **changes: object) -> str:
        """Return the address of this page or of another path with changed parameters; None drops one."""
        parameters = [] if path is not None else list(self.request.query.items())
        kept = [(name, value) for name, value in parameters if name not in changes]
        kept += [(name, str(value)) for name, value in changes.items() if value is not None]
        query = urlencode([(name, value) for name, value in kept if value])
        target = self.request.path if path is None else self.at(path)
        return target + (f"?{query}" if query else "")

    def at(self, path: str) -> str:
        """Return the address of a page: below the portal's path in the portal."""
        is_below = path == self.base or path.startswith((f"{self.base}/", f"{self.base}?"))
        return path if not self.base or is_below else self.base + path

    @property
    def path(self) -> str:
        """The path of the requested page, without the portal's."""
        return self.request.path.removeprefix(self.base) or "/"

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of each page."""
        return page_headers(self.frame_ancestors)

    def set_cookie(self, answer: web.Response, name: str, value: str, seconds: int) -> None:
        """Set a cookie that pages alone read; 0 seconds delete it."""
        set_page_cookie(answer, name, value, seconds, in_frames=bool(self.frame_ancestors))

    def may(self, role: str) -> bool:
        """Return whether the viewer has a role or a higher one."""
        return self.actor is not None and self.actor.may(Role(role))

    def _navigation(self) -> list[Group]:
        """Return the groups with the entries that the viewer may open."""
        allowed = [
            Group(group.key, tuple(entry for entry in group.entries if self.may(entry.role)))
            for group in (PORTAL_GROUPS if self.base else GROUPS)
        ]
        return [group for group in allowed if group.entries]

    def _name(self) -> str:
        """Return the name in the frame: the portal's own, the portal's usual one, or the console's."""
        if not self.base:
            return self.text("app.name")
        return (self.portal and self.portal.name) or self.text("portal.name")

    def _ago(self, seconds: float | None, units: Mapping[str, str]) -> str:
        """Return an instant relative to now, as in `3 min ago`; `seconds` is positive in the future."""
        if seconds is None:
            return times.NOTHING
        if abs(seconds) < 1:
            return self.text("time.now")
        span = times.rough_span(abs(seconds), units)
        return self.text("time.ago", span=span) if seconds < 0 else self.text("time.in", span=span)

    def _marked_text(self, key: str, /, **values: object) -> str:
        """Return the message of a key for a template, with what it quotes in backticks as code."""
        parts = self.language.texts[key].split("`")
        if len(parts) == 1:
            return self.language.text(key, **values)
        code, plain = Markup("<code>{}</code>"), Markup("{}")  # `format` escapes the values
        return Markup("").join(
            (code if number % 2 else plain).format(part.format_map(values))
            for number, part in enumerate(parts)
        )

    def units(self) -> dict[str, str]:
        """Return the units of time in the viewer's language."""
        return {name: self.text(f"unit.{name}") for name in ("d", "h", "m", "s", "ms")}

    def _options(self, group: str, values: Iterable[object]) -> list[tuple[str, str]]:
        """Return the values of a choice with their labels."""
        return [(str(value), self.language.word(group, value)) for value in values]

    def _context(self) -> dict[str, object]:
        units = self.units()

        def span(seconds: float | None) -> str:
            return times.span(seconds, units)

        def until(text: str | None) -> float | None:
            """Return the seconds from now to an instant, which are negative if it has passed."""
            if text is None:
                return None
            now = self.app.now()
            return (datetime.fromisoformat(text) - now).total_seconds()

        return {
            "t": self._marked_text,
            "word": self.language.word,
            "known_texts": self.language.texts,
            "options": self._options,
            "tones": TONES,
            "icons": ICONS,
            "advise": advice,
            "retry_count": retry_count,
            "business_key": business_key,
            "page_at": None,
            "lang": self.language.code,
            "languages": self.app.languages,
            "theme": self.theme,
            "zone": self.zone,
            "moment": lambda text: times.moment(text, self.zone),
            "span": span,
            "until": until,
            "ago_text": lambda text: self._ago(until(text), units),
            "size": times.size,
            "share": times.share,
            "count": times.count,
            "asset": lambda name: assets.load()[name],
            "url": lambda *parts: (
                f"{self.base}/" + "/".join(quote(str(part), safe="") for part in parts)
            ),
            "at": self.at,
            "base": self.base,
            "in_portal": bool(self.base),
            "portal": self.portal,
            "app_name": self._name(),
            "is_framed": bool(self.frame_ancestors),
            "address": self.address,
            "path": self.path,
            "actor_name": partial(actor_name, self.language),
            "help_href": self.at(help_address(self.path, in_portal=bool(self.base))),
            "here": self.request.path_qs,
            "query": self.request.query,
            "actor": self.actor,
            "navigation": self._navigation(),
            "is_current": is_current,
            "may": self.may,
            "csrf": self.csrf,
            "form_id": self.app.forms.new_id(),
            "form": self.form,
            "problems": {},
        }


def local_path(text: str | None) -> str:
    """Return a path of ours; `/` for anything that could lead to another site."""
    if text is None or not text.startswith("/") or text.startswith(("//", "/\\")):
        return "/"
    return text if text.isprintable() and len(text) < 2000 else "/"  # noqa: PLR2004 -- any address of ours
