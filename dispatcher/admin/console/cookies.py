"""The console's cookies: the session, and how things are shown.

The session's cookie goes over TLS alone (`__Host-`: no other host and no other path can set it), but
for a peer on this machine, where there is no TLS. The others are no secrets, and each value is
judged anew whenever it comes: a language, a theme, a zone. The script that finds out the browser's
zone writes the last one, so that one is not HttpOnly.
"""

from typing import Final, NamedTuple

from aiohttp import web

LANGUAGE_COOKIE: Final = "dispatcher_language"
THEME_COOKIE: Final = "dispatcher_theme"
ZONE_COOKIE: Final = "dispatcher_zone"
_YEAR_SECONDS: Final = 365 * 86_400


class Peer(NamedTuple):
    """Who is at the other end of a request."""

    address: str
    is_encrypted: bool
    is_loopback: bool


def is_bare(peer: Peer) -> bool:
    """Tells whether a session's cookie may go without TLS."""
    return peer.is_loopback and not peer.is_encrypted


def session_cookie(peer: Peer) -> str:
    """Returns the name of the session's cookie."""
    return "dispatcher_session" if is_bare(peer) else "__Host-dispatcher_session"


def set_session(answer: web.Response, peer: Peer, value: str, seconds: float) -> None:
    """Gives the browser a session."""
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
    """Takes the session from the browser."""
    answer.del_cookie(
        session_cookie(peer), path="/", httponly=True, secure=not is_bare(peer), samesite="Lax"
    )


def keep(answer: web.Response, name: str, value: str) -> None:
    """Sets one of the others for a year."""
    answer.set_cookie(name, value, path="/", max_age=_YEAR_SECONDS, samesite="Lax")
