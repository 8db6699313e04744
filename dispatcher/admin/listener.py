"""Listens, and bounds what strangers can hold: connections, the time for headers, bytes in flight.

What is always true:

* There are `connections_max` connections at most, each a file descriptor that deliveries cannot
  have. From one address (of IPv6: one /64) come three quarters of them at most, so that a flood
  from one place leaves room for probes and for people. What is beyond gets 503 and is closed.
* Headers must be complete `HEADERS_SECONDS_MAX` after a connection was opened, or after the answer
  before; otherwise it is closed. A client that drips bytes wins nothing: bytes do not start the
  time anew. A proxy in front must keep idle connections for less than that.
* A body is never decompressed: a bomb would be, before anybody has looked at its size.
* What is no HTTP is answered with 400 and leaves no line in the log, which strangers could fill. The
  answer is a problem like any other of the API, and says nothing of what serves.
"""

import asyncio
import logging
import socket
from http import HTTPStatus
from typing import Final, cast

from aiohttp import web
from aiohttp.http import HttpProcessingError

from dispatcher.admin.api.problems import problem
from dispatcher.admin.peers import UNKNOWN, counted_address

HEADERS_SECONDS_MAX: Final = 10.0
LINGERING_SECONDS_MAX: Final = 2.0
"""How long the rest of a refused body is read and thrown away, so that the client sees the answer."""
SHUTDOWN_SECONDS_MAX: Final = 1.0
BACKLOG: Final = 256
REFUSED: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)


class _OursAlone(logging.Filter):
    """Lets faults of ours into the log, and leaves those of whoever sent a request out."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tells whether the record is to be written."""
        return not _is_theirs(record.exc_info[1] if record.exc_info else None)


def _logger() -> logging.Logger:
    logger = logging.getLogger("dispatcher.admin.listener")
    if not logger.filters:
        logger.addFilter(_OursAlone())
    return logger


UNREADABLE: Final = "the request cannot be read as HTTP/1.1; the connection is closed"
UNFORESEEN: Final = "something unforeseen went wrong; the log says what"


class _Connection(web.RequestHandler):
    """One connection, as aiohttp serves it; only what it says of errors that reach no handler is ours."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers with a problem and ends the connection; aiohttp's own answer repeats what was sent and names it."""
        super().handle_error(request, status, exc, message)  # logs it, and raises where it is late
        answer = problem(status, UNREADABLE if _is_theirs(exc) else UNFORESEEN)
        answer.headers["Server"] = "dispatcher"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Cache-Control"] = "no-store"
        answer.force_close()
        return answer


def _is_theirs(error: BaseException | None) -> bool:
    return isinstance(error, HttpProcessingError)


class Listener:
    """Serves an application; `start` binds, `stop` ends it."""

    def __init__(self, application: web.Application, connections_max: int) -> None:
        self._connections_max = connections_max
        self._runner = web.AppRunner(
            application, handle_signals=False, shutdown_timeout=SHUTDOWN_SECONDS_MAX
        )
        self._listening: asyncio.Server | None = None

    async def start(self, host: str, port: int, bound: socket.socket | None = None) -> int:
        """Binds and serves; returns the port, which is chosen by the system where it was 0.

        `bound` is served in place of the address where it is given.

        Raises:
            OSError: the address is not to be had.
        """
        await self._runner.setup()
        loop = asyncio.get_running_loop()

        def doorkeeper() -> _Doorkeeper:
            return _Doorkeeper(self._runner, self._connections_max)

        if bound is not None:
            self._listening = await loop.create_server(doorkeeper, sock=bound, backlog=BACKLOG)
        else:
            self._listening = await loop.create_server(
                doorkeeper, host, port, reuse_address=True, backlog=BACKLOG
            )
        return int(self._listening.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stops serving; what is being answered has a moment to end."""
        if self._listening is not None:
            self._listening.close()
        await self._runner.cleanup()


class _Doorkeeper(asyncio.Protocol):
    """Looks at a new connection once: hands it on, or refuses it."""

    def __init__(self, runner: web.AppRunner, connections_max: int) -> None:
        self._runner = runner
        self._connections_max = connections_max

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Lets the connection in where there is room."""
        stream = cast("asyncio.Transport", transport)  # uvloop's is one in all but its base
        server = self._runner.server
        if server is None or not self._has_room(server, stream):
            stream.write(REFUSED)
            stream.close()
            return
        inside = _Connection(
            server,
            loop=asyncio.get_running_loop(),
            logger=_logger(),
            access_log=None,  # type: ignore[arg-type]  # none is written; None is what it tests for
            auto_decompress=False,
            keepalive_timeout=HEADERS_SECONDS_MAX,
            lingering_time=LINGERING_SECONDS_MAX,
        )
        stream.set_protocol(inside)
        inside.connection_made(stream)

    def _has_room(self, server: web.Server, stream: asyncio.Transport) -> bool:
        count = len(server.connections)
        if count < self._connections_max // 2:
            return True
        host = _host(stream.get_extra_info("peername"))
        from_there = sum(_host(one.peername) == host for one in server.connections)
        return count < self._connections_max and from_there < self._connections_max * 3 // 4


def _host(peername: object) -> str:
    return counted_address(str(peername[0])) if isinstance(peername, tuple) else UNKNOWN
