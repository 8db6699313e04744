"""One sign-in through the provider, from leaving to returning; pure.

A flow is one secret in a cookie: 256 random bits, the time of the start, and the path to return to. State,
nonce and code verifier are derived from the whole of it by HMAC-SHA256, so none reveals another, and a
cookie whose time or path was changed no longer matches the state at the provider. Nothing is stored until
the sign-in is complete, so that strangers cannot fill a table.
"""

import base64
import hashlib
import hmac
import secrets
from typing import Final, NamedTuple

FLOW_SECONDS: Final = 600
"""How long a person may take at the provider."""
SKEW_SECONDS: Final = 60
COOKIE_CHARACTERS_MAX: Final = 3_500
_SECRET_BYTES: Final = 32


class Flow(NamedTuple):
    """A sign-in that was started."""

    cookie: str
    started_at: int
    """Unix seconds."""
    next_path: str

    @property
    def state(self) -> str:
        """The value that the provider returns, which binds the response to this browser."""
        return self._derived("state")

    @property
    def nonce(self) -> str:
        """The value that the ID token must contain, which binds it to this sign-in."""
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        """The code verifier of PKCE (RFC 7636): 43 characters."""
        return self._derived("verifier")

    @property
    def challenge(self) -> str:
        """The code challenge of PKCE, by S256."""
        return _encoded(hashlib.sha256(self.verifier.encode("ascii")).digest())

    def _derived(self, label: str) -> str:
        return _encoded(hmac.digest(self.cookie.encode(), label.encode(), "sha256"))


def start_flow(now_s: float, next_path: str) -> Flow:
    """Return a new flow that leads to a path of the console."""
    path = base64.urlsafe_b64encode(next_path.encode()).decode()
    cookie = f"{secrets.token_urlsafe(_SECRET_BYTES)}.{int(now_s)}.{path}"
    if len(cookie) > COOKIE_CHARACTERS_MAX:
        return start_flow(now_s, "/")
    return Flow(cookie, int(now_s), next_path)


def read_flow(cookie: str, state: str, now_s: float) -> Flow | None:
    """Return the flow of a cookie; None if it does not belong to the state, or is too old."""
    secret, _, rest = cookie.partition(".")
    started, _, path = rest.partition(".")
    if len(cookie) > COOKIE_CHARACTERS_MAX or not (started.isascii() and started.isdigit()):
        return None
    try:
        next_path = base64.b64decode(path, altchars=b"-_", validate=True).decode()
        flow = Flow(cookie, int(started), next_path)
        expected = flow.state.encode()
    except ValueError:  # not base64, not UTF-8, too many digits
        return None
    if not secret or not hmac.compare_digest(expected, state.encode("utf-8", "replace")):
        return None
    age = now_s - flow.started_at
    return flow if -SKEW_SECONDS <= age <= FLOW_SECONDS else None


def _encoded(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")
