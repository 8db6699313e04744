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


def portal_cookies(peer: Peer) -> tuple[str, str]:
    """Return the names of the portal's session cookie: of an embedded portal, and of one in a tab of its own.

    At most one of them is set in a browser's jar, because opening a portal deletes the other one.
    """
    prefix = "" if is_bare(peer) else "__Host-"
    return f"{prefix}dispatcher_portal_frame", f"{prefix}dispatcher_portal"


def set_portal_session(
    answer: web.Response, peer: Peer, value: str, seconds: float, *, in_frames: bool
) -> None:
    """Set the cookie of a portal session, and delete the one of the other kind.

    A frame on another site receives its cookies only with `SameSite=None; Secure; Partitioned`: they are kept
    apart for each embedding site. Browsers accept `Secure` from this machine without TLS as well. A portal that no
    page may embed has `SameSite=Lax`.
    """
    framed, own = portal_cookies(peer)
    _set_framed(answer, framed, value if in_frames else "", int(seconds) if in_frames else 0)
    answer.set_cookie(
        own,
        "" if in_frames else value,
        path="/",
        httponly=True,
        secure=not is_bare(peer),
        samesite="Lax",
        max_age=0 if in_frames else int(seconds),
    )


def drop_portal_session(answer: web.Response, peer: Peer) -> None:
    """Delete the cookies of a portal session."""
    set_portal_session(answer, peer, "", 0, in_frames=True)


def set_page_cookie(
    answer: web.Response, name: str, value: str, seconds: int, *, in_frames: bool
) -> None:
    """Set a cookie that scripts cannot read, for pages that another site may embed or not; 0 seconds delete it."""
    if in_frames:
        _set_framed(answer, name, value, seconds)
    else:
        answer.set_cookie(name, value, path="/", httponly=True, samesite="Lax", max_age=seconds)


def _set_framed(
    answer: web.Response, name: str, value: str, seconds: int, *, http_only: bool = True
) -> None:
    """Set a cookie of frames on other sites; `http.cookies` knows `Partitioned` from Python 3.14 on only."""
    attributes = [f"{name}={value}", f"Max-Age={seconds}", "Path=/", "Secure", "SameSite=None"]
    attributes += ["Partitioned", *(["HttpOnly"] if http_only else [])]
    answer.headers.add("Set-Cookie", "; ".join(attributes))


def keep(answer: web.Response, name: str, value: str, *, in_frames: bool = False) -> None:
    """Set a preference cookie for a year; an empty value deletes it."""
    seconds = _YEAR_SECONDS if value else 0
    if in_frames:
        _set_framed(answer, name, value, seconds, http_only=False)
    else:
        answer.set_cookie(name, value, path="/", max_age=seconds, samesite="Lax")
