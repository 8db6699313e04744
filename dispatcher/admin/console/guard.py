"""Keeps other sites out of the console: headers of every answer, where a form may come from, forms sent twice.

What always holds: a change is a POST that carries its session's token and comes from a page of ours;
nothing inline runs, nothing is framed, nothing is kept by a cache. A form that was answered by this
process once is refused when it comes again, so that going back and sending it again makes no second
token, secret or test event; the memory of forms is bounded, and a restart forgets them.
"""

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`: browsers then send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
FORMS_REMEMBERED_MAX: Final = 10_000


def comes_from_us(headers: Mapping[str, str]) -> bool:
    """Tells whether a form was sent by a page of this listener, as far as the browser says.

    `Sec-Fetch-Site` decides where it is sent. An older browser's `Origin` must name the host that
    was asked; the scheme is not compared, since TLS may end before us. A client that sends neither
    is no browser that another site could misuse.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = headers.get("Origin")
    if origin is None:
        return True
    # An origin has no path. urlsplit() raises for brackets that hold no address, on newer Pythons alone.
    return origin.partition("://")[2].lower() == headers.get("Host", "").lower() != ""


def same_token(given: object, expected: str) -> bool:
    """Compares a form's token with the session's, in the same time whatever they are."""
    return isinstance(given, str) and hmac.compare_digest(given.encode(), expected.encode())


class Forms:
    """The forms that were answered already; written by the handlers of one event loop."""

    def __init__(self) -> None:
        self._answered: OrderedDict[str, None] = OrderedDict()

    @staticmethod
    def new_id() -> str:
        """Returns the id of a form that is about to be shown."""
        return secrets.token_urlsafe(16)

    def take(self, form_id: str) -> bool:
        """Notes a form; returns whether it came for the first time."""
        if form_id in self._answered:
            return False
        self._answered[form_id] = None
        if len(self._answered) > FORMS_REMEMBERED_MAX:
            self._answered.popitem(last=False)
        return True

    def forget(self, form_id: str) -> None:
        """Lets a form come again: it was refused, and is corrected."""
        self._answered.pop(form_id, None)
