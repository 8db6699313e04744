"""The console's own files: styles, scripts, the icon, and the one library that is vendored.

Each is served under a name that holds its hash, so that browsers keep it for ever and never mix two
versions. They are read once at start; no path of a request ever reaches the file system.
"""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

_FOLDER: Final = Path(__file__).parent / "static"
_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Asset(NamedTuple):
    """One file as it is served."""

    path: str
    content_type: str
    body: bytes
    integrity: str


@cache
def load() -> Mapping[str, Asset]:
    """Return the files by their plain names."""
    found = {}
    for file in sorted(_FOLDER.iterdir()):
        if file.suffix in _TYPES:
            body = file.read_bytes()
            digest = hashlib.sha384(body).digest()
            name = f"{file.stem}.{digest.hex()[:12]}{file.suffix}"
            integrity = "sha384-" + base64.b64encode(digest).decode("ascii")
            found[file.name] = Asset(f"/static/{name}", _TYPES[file.suffix], body, integrity)
    return found
