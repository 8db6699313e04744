"""A receiver on loopback that writes exact bytes: one script for each connection, no framework.

A framework repairs what these tests must see broken. The receiver keeps what cannot be argued with:
every connection, every request as it came, when the peer went away.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import NamedTuple, Self, cast

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Request(NamedTuple):
    """One request as it arrived; the head with its blank line."""

    head: bytes
    body: bytes


class Wire(asyncio.Protocol):
    """One accepted connection, as its script sees it."""

    def __init__(self, receiver: "RawReceiver") -> None:
        self._receiver = receiver
        self._bytes = bytearray()
        self._more = asyncio.Event()
        self.gone = asyncio.Event()
        self._is_lost = asyncio.Event()
        self.received_count = 0
        self._is_writable = asyncio.Event()
        self._is_writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._receiver.accepted(self)

    def data_received(self, data: bytes) -> None:
        self.received_count += len(data)
        self._bytes += data
        self._more.set()

    def eof_received(self) -> bool:
        self.gone.set()
        self._more.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's name
        self._is_lost.set()
        self.gone.set()
        self._more.set()
        self._is_writable.set()

    def pause_writing(self) -> None:
        self._is_writable.clear()

    def resume_writing(self) -> None:
        self._is_writable.set()

    async def request(self) -> Request | None:
        """Waits for one whole request; None when the peer went away instead."""
        while True:
            head, blank, rest = bytes(self._bytes).partition(b"\r\n\r\n")
            if blank:
                length = _content_length(head)
                if len(rest) >= length:
                    request = Request(head + blank, rest[:length])
                    del self._bytes[: len(head) + 4 + length]
                    self._receiver.requested(request)
                    return request
            if self.gone.is_set():
                return None
            self._more.clear()
            await self._more.wait()

    async def head_began(self) -> None:
        """Waits for the first byte."""
        while not self._bytes and not self.gone.is_set():
            self._more.clear()
            await self._more.wait()

    async def received(self, count: int) -> None:
        """Waits until so many bytes have arrived, whatever they are."""
        while self.received_count < count and not self.gone.is_set():
            self._more.clear()
            await self._more.wait()

    def send(self, data: bytes) -> None:
        """Writes exactly these bytes."""
        self._transport.write(data)

    async def drain(self) -> bool:
        """Waits until more can be written; False when the peer went away."""
        await self._is_writable.wait()
        # One turn of the loop: a transport that is gone already never asks for a pause.
        await asyncio.sleep(0)
        return not self.gone.is_set()

    def stop_reading(self) -> None:
        """Lets the receive window fill."""
        self._transport.pause_reading()

    def close(self) -> None:
        """Writes what is left, then FIN."""
        self._transport.close()

    def reset(self) -> None:
        """Sends RST."""
        made = self._transport.get_extra_info("socket")
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


Script = Callable[[Wire], Awaitable[None]]


class RawReceiver:
    """Listens on a port of its own; the nth connection runs the nth script, or the last one."""

    def __init__(
        self,
        *scripts: Script,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        receive_buffer_bytes: int | None = None,
    ) -> None:
        self._scripts: Sequence[Script] = scripts
        self._host = host
        self._tls = tls
        self._receive_buffer_bytes = receive_buffer_bytes
        self.wires: list[Wire] = []
        self.requests: list[Request] = []
        self.port = 0
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        listener = socket.create_server((self._host, 0), family=_family(self._host), backlog=1024)
        if self._receive_buffer_bytes is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer_bytes)
        self.port = listener.getsockname()[1]
        self._server = await loop.create_server(
            lambda: Wire(self), sock=listener, ssl=self._tls, backlog=1024
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        results = []
        if self._tasks:
            done, _ = await asyncio.wait(self._tasks)
            results = [task.exception() for task in done if not task.cancelled()]
        for wire in self.wires:
            wire._transport.abort()
        for wire in self.wires:
            await wire._is_lost.wait()
        faults = [result for result in results if result is not None]
        if faults and fault is None:
            raise faults[0]

    @property
    def connection_count(self) -> int:
        return len(self.wires)

    async def connected(self, count: int) -> None:
        """Waits until so many connections have been accepted."""
        while len(self.wires) < count:
            self._changed.clear()
            await self._changed.wait()

    async def asked(self, count: int) -> None:
        """Waits until so many requests have arrived whole."""
        while len(self.requests) < count:
            self._changed.clear()
            await self._changed.wait()

    def requested(self, request: Request) -> None:
        """Called by the wire that read it."""
        self.requests.append(request)
        self._changed.set()

    def accepted(self, wire: Wire) -> None:
        """Starts the script of a new connection."""
        script = self._scripts[min(len(self.wires), len(self._scripts) - 1)]
        self.wires.append(wire)
        self._changed.set()
        task = asyncio.get_running_loop().create_task(_run(script, wire))
        self._tasks.add(task)


async def _run(script: Script, wire: Wire) -> None:
    await script(wire)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def answering(*answers: bytes) -> Script:
    """Answers each request with the next of these bytes, the last one for ever."""

    async def script(wire: Wire) -> None:
        turn = 0
        while await wire.request() is not None:
            wire.send(answers[min(turn, len(answers) - 1)])
            turn += 1

    return script


def answering_once(answer: bytes) -> Script:
    """Answers one request with these bytes, then closes."""

    async def script(wire: Wire) -> None:
        if await wire.request() is not None:
            wire.send(answer)
            wire.close()

    return script


def flooding(start: bytes, piece: bytes) -> Script:
    """Answers one request with `start` and then `piece` for as long as anyone reads."""

    async def script(wire: Wire) -> None:
        await wire.request()
        wire.send(start)
        while await wire.drain():
            wire.send(piece)

    return script


def stalling(start: bytes) -> Script:
    """Answers one request with `start` and then nothing, with the connection open."""

    async def script(wire: Wire) -> None:
        await wire.request()
        wire.send(start)
        await wire.gone.wait()

    return script


def dripping(start: bytes, piece: bytes) -> Script:
    """Answers one request with `start` and then `piece` every 50 ms."""

    async def script(wire: Wire) -> None:
        await wire.request()
        wire.send(start)
        while not wire.gone.is_set():
            wire.send(piece)
            # Time is what is tested: a deadline that each byte renews would never come.
            await asyncio.sleep(0.05)

    return script
