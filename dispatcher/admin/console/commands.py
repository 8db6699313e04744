"""A request as commands that can be copied: to send it again, and to check its signature.

Whatever a header or a body holds stays a single argument of a POSIX shell.
"""

import shlex
from typing import Final

from dispatcher.admin.resources.delivery_report import SentRequest

_FRAMING: Final = frozenset({"host", "content-length"})
"""Headers that curl writes itself."""
ARGUMENT_BYTES_MAX: Final = 65_536
_OF_EVERY_REQUEST: Final = frozenset({"content-type", "user-agent", "accept-encoding"})


def as_curl(request: SentRequest, body: str) -> str:
    """Return a command that sends the same bytes with the same signature.

    A large body comes from a file: Linux allows 128 KiB for one argument (MAX_ARG_STRLEN), and a page
    that repeats a body of 1 MiB blocks the event loop for 0.3 s.
    """
    data = body if len(body.encode()) <= ARGUMENT_BYTES_MAX else "@body.json"
    parts = ["curl", "--request", request.method]
    for name, value in request.headers:
        if name.lower() not in _FRAMING:
            parts += ["--header", f"{name}: {value}"]
    return " ".join(shlex.quote(part) for part in [*parts, "--data-binary", data, request.url])


def as_verify(request: SentRequest, profile: str) -> str:
    """Return a command that checks the signature; the body comes from a file, the secret from a variable."""
    headers = [
        f"--header {shlex.quote(f'{name}: {value}')}"
        for name, value in request.headers
        if name.lower() not in _FRAMING | _OF_EVERY_REQUEST
    ]
    words = ["dispatcher verify", f"--profile {profile}", "--secret env:SECRET", *headers]
    return " ".join([*words, "--body body.json"])
