"""Origins of pages that may embed ours: their form, and whether a list of patterns allows one.

A pattern is an origin, or an https origin whose first label is `*`, as in the `frame-ancestors` of a
Content-Security-Policy: `https://*.example.com` allows every host below example.com, and not example.com.
Plain http is for this machine only, where it is not readable on a network.
"""

import re
from collections.abc import Iterable
from typing import Final

_HOST: Final = r"[a-z0-9](?:[a-z0-9-]{0,62}(?<!-))?(?:\.[a-z0-9](?:[a-z0-9-]{0,62}(?<!-))?)*"
PATTERN: Final = (
    rf"https://(?:\*\.)?{_HOST}(?::[0-9]{{1,5}})?"
    r"|http://(?:localhost|127\.0\.0\.1)(?::[0-9]{1,5})?"
)
ORIGIN_CHARACTERS_MAX: Final = 255
ORIGINS_MAX: Final = 20
_FORM: Final = re.compile(PATTERN)
_WILDCARD: Final = "https://*."


def is_origin_pattern(text: str) -> bool:
    """Return whether a text is an origin or a pattern of origins, in lower case and without a path."""
    return len(text) <= ORIGIN_CHARACTERS_MAX and _FORM.fullmatch(text) is not None


def allows(patterns: Iterable[str], origin: str) -> bool:
    """Return whether one of the patterns is the origin (or the same pattern), or matches it."""
    return any(pattern == origin or _matches(pattern, origin) for pattern in patterns)


def _matches(pattern: str, origin: str) -> bool:
    if not pattern.startswith(_WILDCARD) or not origin.startswith("https://"):
        return False
    host, _, port = pattern.removeprefix(_WILDCARD).partition(":")
    their_host, _, their_port = origin.removeprefix("https://").partition(":")
    return port == their_port and their_host.endswith(f".{host}")
