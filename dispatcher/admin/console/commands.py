"""A request as commands that can be copied: to send it again, and to check its signature.

Whatever a header or a body holds stays a single argument of a POSIX shell.
"""

import shlex
from typing import Final

from dispatcher.admin.resources.delivery_report import SentRequest

_FRAMING: Final = frozenset({"host", "content-length"})
"""Headers that curl writes itself."""
_OF_EVERY_REQUEST: Final = frozenset({"content-type", "user-agent", "accept-encoding"})


def as_curl(request: SentRequest, body: str) -> str:
    """Return a command that sends the same bytes with the same signature."""
    parts = ["curl", "--request", request.method]
    for name, value in request.headers:
        if name.lower() not in _FRAMING:
            parts += ["--header", f"{name}: {value}"]
    return " ".join(shlex.quote(part) for part in [*parts, "--data-binary", body, request.url])


def as_verify(request: SentRequest, profile: str) -> str:
    """Return a command that checks the signature; the body comes from a file, the secret from a variable."""
    headers = [
        f"--header {shlex.quote(f'{name}: {value}')}"
        for name, value in request.headers
        if name.lower() not in _FRAMING | _OF_EVERY_REQUEST
    ]
    words = ["dispatcher verify", f"--profile {profile}", "--secret env:SECRET", *headers]
    return " ".join([*words, "--body body.json"])
