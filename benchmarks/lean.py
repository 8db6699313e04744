"""A bare exchange client to compare with: keep-alive, N in flight, and nothing that makes it safe.

What stays is what any sender does: a head with a fresh signature, one deadline per request, a look
whether the pooled connection is still quiet before it is used again, an awaited answer read to its
end. What is left out is what the product adds: address policy, caps, retries, limits, breakers,
metrics, log, and recording anything.
"""

import asyncio
import select
import ssl
from collections.abc import Callable
from typing import cast

from httptools import HttpResponseParser

DEADLINE_SECONDS = 15.0


class Connection(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the connection."""
        self.transport = cast("asyncio.Transport", transport)
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._parser = HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        """Parses."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Ends the exchange."""
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(self._parser.get_status_code())

    def connection_lost(self, exc: Exception | None) -> None:
        """Fails the exchange under way."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(
                exc or ConnectionResetError("the receiver closed the connection")
            )

    async def exchange(self, request: bytes) -> int:
        """Sends one request and returns the status of its answer.

        Raises:
            OSError: the connection ended, or was not quiet.
        """
        if self._poll.poll(0):
            raise ConnectionResetError("bytes nobody asked for")
        self._answer = answer = self._loop.create_future()
        deadline = self._loop.call_later(DEADLINE_SECONDS, self.transport.abort)
        self.transport.write(request)
        try:
            return await answer
        finally:
            deadline.cancel()


async def run(
    host: str,
    port: int,
    tls: ssl.SSLContext | None,
    make_request: Callable[[], bytes],
    requests: int,
    in_flight: int,
) -> None:
    """Writes what `make_request` gives, head and body, `requests` times, `in_flight` at once.

    Raises:
        ExceptionGroup: an answer was not 200, or a connection ended.
    """
    loop = asyncio.get_running_loop()
    left = requests

    async def work() -> None:
        nonlocal left
        _, connection = await loop.create_connection(Connection, host, port, ssl=tls)
        try:
            while left > 0:
                left -= 1
                status = await connection.exchange(make_request())
                if status != 200:
                    raise RuntimeError(f"status {status}")
        finally:
            connection.transport.abort()

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(work())
