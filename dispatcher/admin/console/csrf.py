"""Protects the console from other sites: response headers, the origin of forms, and repeated forms.

Invariants: a change is a POST that carries the CSRF token of its session and comes from a page of ours.
No inline script or style runs, no cache keeps a page, and no page is
framed except those of a portal, by the origins of its link. A form that this process has
already handled is refused, so that going back and submitting it again creates no second token, secret or
test event. The number of remembered forms is bounded, and a restart clears them.
"""

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors "
)
POLICY: Final = f"{_POLICY}'none'"
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
_FRAME_OPTIONS: Final = "X-Frame-Options"
FORMS_REMEMBERED_MAX: Final = 10_000


def page_headers(frame_ancestors: Sequence[str] = ()) -> Mapping[str, str]:
    """Return the headers of a page that these origins may embed; without origins, no page may.

    `X-Frame-Options` cannot name origins, so a page that may be embedded has the policy alone.
    """
    if not frame_ancestors:
        return PAGE_HEADERS
    headers = {name: value for name, value in PAGE_HEADERS.items() if name != _FRAME_OPTIONS}
    return {**headers, "Content-Security-Policy": _POLICY + " ".join(frame_ancestors)}


def comes_from_us(headers: Mapping[str, str]) -> bool:
    """Return whether the browser's headers show that a page of this listener sent the form.

    `Sec-Fetch-Site` decides if it is present. The `Origin` of an older browser must name the requested
    host; the scheme is not compared, because a proxy may terminate TLS. A client that sends neither
    header is not a browser that another site could misuse.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = headers.get("Origin")
    if origin is None:
        return True
    # An origin has no path. urlsplit() raises for brackets without an address, but only on newer Pythons.
    return origin.partition("://")[2].lower() == headers.get("Host", "").lower() != ""


def same_token(given: object, expected: str) -> bool:
    """Compare a form's token with the session's, in constant time."""
    return isinstance(given, str) and hmac.compare_digest(given.encode(), expected.encode())


class Forms:
    """The forms that were already handled; written by the handlers of one event loop."""

    def __init__(self) -> None:
        self._answered: OrderedDict[str, None] = OrderedDict()

    @staticmethod
    def new_id() -> str:
        """Return an id for a new form."""
        return secrets.token_urlsafe(16)

    def take(self, form_id: str) -> bool:
        """Record a form; return whether it was submitted for the first time."""
        if form_id in self._answered:
            return False
        self._answered[form_id] = None
        if len(self._answered) > FORMS_REMEMBERED_MAX:
            self._answered.popitem(last=False)
        return True

    def forget(self, form_id: str) -> None:
        """Allow a form to be submitted again, because it was refused and will be corrected."""
        self._answered.pop(form_id, None)
