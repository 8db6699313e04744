"""The console's cookies: the session, and the display preferences.

The session cookie is sent over TLS only (`__Host-`: no other host and no other path can set it), except
for a peer on this machine without TLS. The preferences (language, theme, time zone) are not secret, and
each value is validated on every request. The script that detects the browser's zone writes the zone
cookie, which is therefore not HttpOnly.
"""

from typing import Final, NamedTuple

from aiohttp import web

LANGUAGE_COOKIE: Final = "dispatcher_language"
THEME_COOKIE: Final = "dispatcher_theme"
ZONE_COOKIE: Final = "dispatcher_zone"
_YEAR_SECONDS: Final = 365 * 86_400


class Peer(NamedTuple):
    """The client of a request."""

    address: str
    is_encrypted: bool
    is_loopback: bool


def is_bare(peer: Peer) -> bool:
    """Return whether the session cookie may be sent without TLS."""
    return peer.is_loopback and not peer.is_encrypted


def session_cookie(peer: Peer) -> str:
    """Return the name of the session cookie."""
    return "dispatcher_session" if is_bare(peer) else "__Host-dispatcher_session"


def set_session(answer: web.Response, peer: Peer, value: str, seconds: float) -> None:
    """Set the session cookie."""
    answer.set_cookie(
        session_cookie(peer),
        value,
        path="/",
        httponly=True,
        secure=not is_bare(peer),
        samesite="Lax",
        max_age=int(seconds),
    )


def drop_session(answer: web.Response, peer: Peer) -> None:
    """Delete the session cookie."""
    answer.del_cookie(
        session_cookie(peer), path="/", httponly=True, secure=not is_bare(peer), samesite="Lax"
    )


def flow_cookie(peer: Peer) -> str:
    """Return the name of the cookie of a sign-in through the OpenID provider."""
    return "dispatcher_flow" if is_bare(peer) else "__Host-dispatcher_flow"


def set_flow(answer: web.Response, peer: Peer, value: str, seconds: int) -> None:
    """Set the cookie of a sign-in. `Lax`: the provider's redirect is a navigation from another site."""
    answer.set_cookie(
        flow_cookie(peer),
        value,
        path="/",
        httponly=True,
        secure=not is_bare(peer),
        samesite="Lax",
        max_age=seconds,
    )


def drop_flow(answer: web.Response, peer: Peer) -> None:
    """Delete the cookie of a sign-in."""
    answer.del_cookie(
        flow_cookie(peer), path="/", httponly=True, secure=not is_bare(peer), samesite="Lax"
    )


def keep(answer: web.Response, name: str, value: str) -> None:
    """Set a preference cookie for a year."""
    answer.set_cookie(name, value, path="/", max_age=_YEAR_SECONDS, samesite="Lax")
