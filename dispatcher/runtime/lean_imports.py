"""Imports two libraries without work of theirs that no part of the dispatcher needs.

Import this module before any that imports aiohttp or structlog; otherwise it has no effect. It saves a third of a
second of CPU time and some memory at each start of the daemon and of each command that uses the database.

* aiohttp loads the certificate authorities of the system twice, for requests that name no TLS context. Every request
  of the dispatcher has its own (`outbound/tls.py`). Without authorities, a request that has none fails.
* structlog imports rich, and with it pygments, for a renderer that the dispatcher does not use.
"""

import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _without_authorities() -> Iterator[None]:
    """Load no certificate authority into a new TLS context meanwhile."""
    inherited = "set_default_verify_paths" not in vars(ssl.SSLContext)
    ssl.SSLContext.set_default_verify_paths = lambda _: None  # type: ignore[method-assign, assignment]  # undone below
    try:
        yield
    finally:
        if inherited:
            del ssl.SSLContext.set_default_verify_paths


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Let the import of a library fail meanwhile, unless it has been imported."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # the import system's mark of an absent module
    try:
        yield
    finally:
        del sys.modules[name]


if "aiohttp" not in sys.modules:
    with _without_authorities():
        import aiohttp  # noqa: F401 -- later imports find it
with _without("rich"):
    import structlog  # noqa: F401 -- later imports find it
