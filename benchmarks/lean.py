"""A bare exchange client to compare with: keep-alive, N in flight, and nothing that makes it safe.

No address policy, no caps, no probe, no deadline, no retry, no record: what a request costs when
only writing it and parsing its answer are left. Needs uvloop and httptools, as the product does.
"""

import asyncio
from typing import cast

from httptools import HttpResponseParser


class _Lane(asyncio.Protocol):
    """One connection that sends the same request as long as there are some left."""

    def __init__(self, run: "_Run") -> None:
        self._run = run

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = HttpResponseParser(self)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() != 200:
            self._run.fail(RuntimeError(f"status {self._parser.get_status_code()}"))
        self._run.finished()
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.fail(exc or ConnectionResetError("the receiver closed the connection"))

    def _send(self) -> None:
        if self._run.take():
            self._transport.write(self._run.request)


class _Run:
    def __init__(self, request: bytes, requests: int) -> None:
        self.request = request
        self._unsent_count = self._unfinished_count = requests
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self) -> bool:
        self._unsent_count -= 1
        return self._unsent_count >= 0

    def finished(self) -> None:
        self._unfinished_count -= 1
        if not self._unfinished_count and not self.done.done():
            self.done.set_result(None)

    def fail(self, fault: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(fault)


async def run(
    host: str, port: int, path: str, requests: int, in_flight: int, body: bytes
) -> None:
    """Posts `body` to http://host:port/path `requests` times, `in_flight` at once.

    Raises:
        RuntimeError: an answer was not 200.
        OSError: the receiver closed a connection or refused one.
    """
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode("ascii")
    state = _Run(head + body, requests)
    loop = asyncio.get_running_loop()
    transports = [
        (await loop.create_connection(lambda: _Lane(state), host, port))[0]
        for _ in range(min(in_flight, requests))
    ]
    try:
        await state.done
    finally:
        for transport in transports:
            transport.abort()
