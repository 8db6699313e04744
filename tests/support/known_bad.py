"""Known-bad clients: each is wrong in the one way that a control needs, and sound in everything else.

They stand for what a careful programmer writes at first. The product has nothing of them; a control
sends one against the very receiver that our own sender meets, and must see the row's figure broken.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import httptools

REQUEST = b"POST /hook HTTP/1.1\r\nHost: receiver.test\r\nContent-Length: %d\r\n\r\n%b"
_PIECE_BYTES = 65_536


class Streams(NamedTuple):
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@asynccontextmanager
async def connected(port: int, host: str = "127.0.0.1") -> AsyncIterator[Streams]:
    """Opens a connection, and aborts it at the end."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield Streams(reader, writer)
    finally:
        writer.transport.abort()


class Seen:
    """What an answer looked like to a parser without any bound."""

    def __init__(self) -> None:
        self.raw_bytes = 0
        self.body_bytes = 0
        self.interim_count = 0
        self.status: int | None = None
        self._parser = httptools.HttpResponseParser(self)

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self.interim_count += 1
        else:
            self.status = status

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)

    def take(self, data: bytes) -> None:
        self.raw_bytes += len(data)
        self._parser.feed_data(data)


async def reads_on(
    port: int, wants_more: Callable[[Seen], bool], *, raw_bytes_max: int = 8_388_608
) -> Seen:
    """Posts, and reads for as long as `wants_more`; `raw_bytes_max` keeps the test itself bounded."""
    seen = Seen()
    async with connected(port) as (reader, writer):
        writer.write(REQUEST % (2, b"{}"))
        while seen.raw_bytes < raw_bytes_max and wants_more(seen):
            data = await reader.read(_PIECE_BYTES)
            if not data:
                break
            seen.take(data)
    return seen


async def status_by_its_number(port: int) -> int | None:
    """Posts, and believes the second word of the first line, whatever stands around it."""
    async with connected(port) as (reader, writer):
        writer.write(REQUEST % (2, b"{}"))
        line = await reader.readline()
    found = re.match(rb"HTTP/\S+ (\d+)", line)
    return int(found[1]) if found else None
