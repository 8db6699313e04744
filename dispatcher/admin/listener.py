"""HTTP listeners, and the bounds on what a client without a token can hold: connections, time, bytes.

Invariants:

* `HttpListener` serves at most `connections_max` connections, each a file descriptor that deliveries
  cannot use. One address (of IPv6: one /64) holds a quarter of them at most. A trusted proxy, which
  carries the connections of many clients, is bounded by the whole alone.
* A connection beyond these bounds gets one of `RESERVED_SEATS` seats instead. A seat serves one request
  for a probe path (`/livez`, `/readyz`, `/metrics`) and closes; any other request gets 503. When all
  seats are taken, the oldest one is closed for the newcomer, so that half-sent requests cannot keep
  a probe out. `ProbeListener` is a port that consists of such seats.
* Headers must be complete `HEADERS_SECONDS_MAX` after a connection was opened, or after the response
  before; otherwise it is closed. Bytes that drip do not restart the time. A proxy in front must keep
  idle connections for less than that.
* A client that does not read its response for `UNREAD_SECONDS_MAX` is disconnected by the kernel.
* A body is never decompressed: a bomb would be, before its size is checked.
* Bytes that are not HTTP get 400 and leave no line in the log, which strangers could fill. The response
  is a problem like any other of the API and does not name the server software.
"""

import asyncio
import logging
import socket
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Final, cast

from aiohttp import web
from aiohttp.http import HttpProcessingError

from dispatcher.admin.api.problems import problem
from dispatcher.admin.client_address import UNKNOWN, counted_address, is_trusted_address
from dispatcher.config.sections import RESERVED_SEATS, Network

HEADERS_SECONDS_MAX: Final = 10.0
LINGERING_SECONDS_MAX: Final = 2.0
"""How long the rest of a refused body is read and discarded, so that the client receives the response."""
UNREAD_SECONDS_MAX: Final = 20.0
"""How long response bytes may stay unacknowledged or unsent because the client does not read."""
SHUTDOWN_SECONDS_MAX: Final = 1.0
ADDRESS_SHARE: Final = 4
"""One address may hold a quarter of the connections, so that only four addresses together fill the listener."""
SEAT_SECONDS_MAX: Final = 5.0
"""How long a seat waits for a complete request line and headers; the kubelet gives a probe 5 s."""
SEAT_BYTES_MAX: Final = 8192
PROBE_PATHS: Final = frozenset({b"/livez", b"/readyz", b"/metrics"})
BACKLOG: Final = 256
REFUSED: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)


class _OursAlone(logging.Filter):
    """A log filter that drops the records of errors that a client caused."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to log the record."""
        return not _is_theirs(record.exc_info[1] if record.exc_info else None)


def _logger() -> logging.Logger:
    logger = logging.getLogger("dispatcher.admin.listener")
    if not logger.filters:
        logger.addFilter(_OursAlone())
    return logger


UNREADABLE: Final = "the request cannot be read as HTTP/1.1; the connection is closed"
UNFORESEEN: Final = "an internal error; the dispatcher's log has the details"


class _Connection(web.RequestHandler):
    """One connection of aiohttp, with our response to errors that reach no handler."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return a problem and close the connection; aiohttp's own response repeats the request and names aiohttp."""
        super().handle_error(
            request, status, exc, message
        )  # logs it; raises if a response has begun
        answer = problem(status, UNREADABLE if _is_theirs(exc) else UNFORESEEN)
        answer.headers["Server"] = "dispatcher"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Cache-Control"] = "no-store"
        answer.force_close()
        return answer


def _is_theirs(error: BaseException | None) -> bool:
    return isinstance(error, HttpProcessingError)


DirectHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Factory = Callable[[], asyncio.Protocol]


class _Server:
    """A bound port, which both listeners share."""

    def __init__(self) -> None:
        self._listening: asyncio.Server | None = None

    async def _bind(
        self, factory: Factory, host: str, port: int, bound: socket.socket | None
    ) -> int:
        loop = asyncio.get_running_loop()
        if bound is None and host == "::":
            bound = dual_stack_socket(port)
        if bound is not None:
            self._listening = await loop.create_server(factory, sock=bound, backlog=BACKLOG)
        else:
            self._listening = await loop.create_server(
                factory, host, port, reuse_address=True, backlog=BACKLOG
            )
        return int(self._listening.sockets[0].getsockname()[1])

    def _close(self) -> None:
        if self._listening is not None:
            self._listening.close()


def dual_stack_socket(port: int) -> socket.socket:
    """Return a socket bound to `::` that also accepts IPv4, for any value of `net.ipv6.bindv6only`.

    Raises:
        OSError: the port is in use, or the machine has no IPv6.
    """
    bound = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("::", port))
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


class HttpListener(_Server):
    """A listener that serves an application; `start` binds the port, and `stop` closes it.

    Reserved seats serve the application `probes`. Without it, a connection beyond the bounds gets 503
    for any request.
    """

    def __init__(
        self,
        application: web.Application,
        connections_max: int,
        *,
        probes: web.Application | None = None,
        trusted: Sequence[Network] = (),
        direct: Mapping[tuple[str, str], DirectHandler] | None = None,
    ) -> None:
        """Requests of the methods and paths in `direct` go to their handlers, and not through the application."""
        super().__init__()
        self._connections_max = connections_max
        self._trusted = trusted
        self._direct = direct or {}
        self._runner = _runner(application)
        self._seats = _Seats(probes)

    async def start(self, host: str, port: int, bound: socket.socket | None = None) -> int:
        """Bind and serve; return the port, which the system chooses if it was 0.

        `bound`, if given, is served in place of the address.

        Raises:
            OSError: the address is not available.
        """
        await self._runner.setup()
        await self._seats.setup()
        server = self._runner.server
        assert server is not None, "setup() has made it"  # noqa: S101 -- aiohttp's promise
        server.request_handler = self._routed(server.request_handler)
        return await self._bind(lambda: _Entrance(self._admit), host, port, bound)

    def _routed(self, routed: DirectHandler) -> DirectHandler:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            handler = self._direct.get((request.method, request.path), routed)
            return await handler(request)

        return handle

    async def stop(self) -> None:
        """Stop serving; requests under way have `SHUTDOWN_SECONDS_MAX` to end."""
        self._close()
        await self._seats.close()
        await self._runner.cleanup()

    def _admit(self, stream: asyncio.Transport) -> None:
        server = self._runner.server
        if server is None or not self._has_room(server, stream):
            self._seats.admit(stream)
            return
        _serve(server, stream)

    def _has_room(self, server: web.Server, stream: asyncio.Transport) -> bool:
        count, share = len(server.connections), self._connections_max // ADDRESS_SHARE
        if count < share:
            return True
        if count >= self._connections_max:
            return False
        peername = stream.get_extra_info("peername")
        host = _host(peername)
        if isinstance(peername, tuple) and is_trusted_address(str(peername[0]), self._trusted):
            return True
        return sum(_host(one.peername) == host for one in server.connections) < share


class ProbeListener(_Server):
    """A listener that serves the probes on a separate port; each connection is a seat for one request."""

    def __init__(self, probes: web.Application) -> None:
        super().__init__()
        self._seats = _Seats(probes)

    async def start(self, host: str, port: int) -> int:
        """Bind and serve; return the port.

        Raises:
            OSError: the address is not available.
        """
        await self._seats.setup()
        return await self._bind(lambda: _Entrance(self._seats.admit), host, port, None)

    async def start_at(self, path: str) -> None:
        """Serve a Unix socket, which the caller's folder protects.

        Raises:
            OSError: the path is not available.
        """
        await self._seats.setup()
        self._listening = await asyncio.get_running_loop().create_unix_server(
            lambda: _Entrance(self._seats.admit), path, backlog=BACKLOG
        )

    async def stop(self) -> None:
        """Stop serving."""
        self._close()
        await self._seats.close()


class _Entrance(asyncio.Protocol):
    """A new connection, until it has been admitted."""

    def __init__(self, admit: Callable[[asyncio.Transport], None]) -> None:
        self._admit = admit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(
            "asyncio.Transport", transport
        )  # uvloop's has the methods, but not the base class
        _bound_unread(stream)
        self._admit(stream)


class _Seats:
    """The seats of one port, at most `RESERVED_SEATS`; used on the event loop only."""

    def __init__(self, probes: web.Application | None) -> None:
        self._runner = None if probes is None else _runner(probes)
        self._taken: OrderedDict[_Seat, None] = OrderedDict()

    async def setup(self) -> None:
        if self._runner is not None:
            await self._runner.setup()

    async def close(self) -> None:
        for seat in list(self._taken):
            seat.refuse()
        if self._runner is not None:
            await self._runner.cleanup()

    def admit(self, stream: asyncio.Transport) -> None:
        """Assign a seat to the connection; if all are taken, close the oldest one."""
        server = None if self._runner is None else self._runner.server
        if server is None:
            stream.write(REFUSED)
            stream.close()
            return
        if len(self._taken) >= RESERVED_SEATS:
            waiting = (seat for seat in self._taken if not seat.is_served)
            next(waiting, next(iter(self._taken))).refuse()
        seat = _Seat(server, self._leave)
        self._taken[seat] = None
        stream.set_protocol(seat)
        seat.connection_made(stream)

    def _leave(self, seat: "_Seat") -> None:
        self._taken.pop(seat, None)


class _Seat(asyncio.Protocol):
    """A connection that may make one request, for a probe; any other request gets 503."""

    def __init__(self, server: web.Server, leave: Callable[["_Seat"], None]) -> None:
        self._server = server
        self._leave = leave
        self._received = b""
        self._handler: _Connection | None = None

    @property
    def is_served(self) -> bool:
        """Whether a complete request for a probe has arrived."""
        return self._handler is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._stream = cast("asyncio.Transport", transport)
        self._timer = asyncio.get_running_loop().call_later(SEAT_SECONDS_MAX, self.refuse)

    def data_received(self, data: bytes) -> None:
        if self._handler is not None:
            self._handler.data_received(data)
            return
        self._received += data
        complete = b"\r\n\r\n" in self._received
        if not complete and len(self._received) <= SEAT_BYTES_MAX:
            return
        method, _, rest = self._received.partition(b"\r\n")[0].partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if not complete or method not in {b"GET", b"HEAD"} or path not in PROBE_PATHS:
            self.refuse()
            return
        self._handler = _connection(self._server)
        self._handler.connection_made(self._stream)
        self._handler.data_received(self._received)
        self._received = b""

    def eof_received(self) -> bool | None:
        if self._handler is not None:
            self._handler.eof_received()
        return None

    def pause_writing(self) -> None:
        if self._handler is not None:
            self._handler.pause_writing()

    def resume_writing(self) -> None:
        if self._handler is not None:
            self._handler.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._timer.cancel()
        self._leave(self)
        if self._handler is not None:
            self._handler.connection_lost(exc)

    def refuse(self) -> None:
        """Close the connection; one that has no response yet gets 503."""
        self._leave(self)
        self._timer.cancel()
        if self._stream.is_closing():
            return
        if self._handler is None:
            self._stream.write(REFUSED)
            self._stream.close()
        else:
            self._stream.abort()


def _runner(application: web.Application) -> web.AppRunner:
    return web.AppRunner(application, handle_signals=False, shutdown_timeout=SHUTDOWN_SECONDS_MAX)


def _connection(server: web.Server) -> _Connection:
    return _Connection(
        server,
        loop=asyncio.get_running_loop(),
        logger=_logger(),
        access_log=None,  # type: ignore[arg-type]  # none is written; None is what it tests for
        auto_decompress=False,
        keepalive_timeout=HEADERS_SECONDS_MAX,
        lingering_time=LINGERING_SECONDS_MAX,
    )


def _serve(server: web.Server, stream: asyncio.Transport) -> None:
    inside = _connection(server)
    stream.set_protocol(inside)
    inside.connection_made(stream)


def _bound_unread(stream: asyncio.Transport) -> None:
    """Configure the kernel to close a connection whose client stops reading; only Linux has the option."""
    connection = stream.get_extra_info("socket")
    is_local = connection is None or connection.family == socket.AF_UNIX
    if sys.platform == "linux" and not is_local:
        milliseconds = int(UNREAD_SECONDS_MAX * 1000)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def _host(peername: object) -> str:
    return counted_address(str(peername[0])) if isinstance(peername, tuple) else UNKNOWN
