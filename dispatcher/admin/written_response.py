"""Responses whose head and body are written to the connection as one text.

aiohttp builds a response from objects: a multidict of headers, signals, a writer. For a publish that takes
as long as the publish itself. `write_response` writes the same bytes at once, with the headers of every
response (`PROTECTION`), if nothing about the request is unusual.
"""

from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

PROTECTION: Final[Mapping[str, str]] = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
}
"""Headers of every response: no type sniffing, no caching, no referrer."""
SERVER: Final = "dispatcher"
_FIXED: Final = "".join(f"{name}: {value}\r\n" for name, value in PROTECTION.items())


class _Sent(web.StreamResponse):
    """A response that has been written; its connection stays open for the next request."""

    @property
    def keep_alive(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002 -- aiohttp's signature
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        pass


SENT: Final = _Sent()


def write_response(
    request: web.BaseRequest,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    unix_seconds: int,
) -> bool:
    """Write a JSON response of that time, and return True; the handler then returns `SENT`.

    False: aiohttp must write it, because the connection is closed after it or has earlier bytes to send.
    """
    transport = request.transport
    if (
        transport is None
        or transport.is_closing()
        or transport.get_write_buffer_size()
        or request.version != HttpVersion11
        or not request.keep_alive
    ):
        return False
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{more}{_FIXED}Date: {_date(unix_seconds)}\r\n"
        f"Server: {SERVER}\r\n\r\n"
    )
    transport.write(head.encode() + body)
    return True


@lru_cache(maxsize=1)
def _date(unix_seconds: int) -> str:
    return formatdate(unix_seconds, usegmt=True)
