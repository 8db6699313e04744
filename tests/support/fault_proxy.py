"""A TCP proxy that does to connections what networks do, by script; it lives in the test's own loop.

It listens on loopback and leads to a Unix socket or a port. Each connection has a `Link`; the test looks at
its first bytes, stalls it (neither side hears of it: half-open), cuts it, or cuts it in the moment in which
some bytes pass. What it decided is kept in `log`.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Self, cast


class Side(asyncio.Protocol):
    """One end of a link: towards the client, or towards the server."""

    def __init__(self, link: "Link") -> None:
        self._link = link
        self.transport: asyncio.Transport | None = None
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._link.made(self)

    def data_received(self, data: bytes) -> None:
        self._link.passed(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.lost.set()
        self._link.ended()

    def reset(self) -> None:
        """Ends it by RST where the kernel knows that."""
        if self.transport is None:
            return
        made = self.transport.get_extra_info("socket")
        if made is not None and made.family != socket.AF_UNIX:
            with contextlib.suppress(OSError, ValueError):  # closed already
                made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class Link:
    """One connection through the proxy."""

    def __init__(self, proxy: "FaultProxy", number: int) -> None:
        self._proxy = proxy
        self.number = number
        self.client = Side(self)
        self.server = Side(self)
        self._early: list[bytes] = []
        self.first_bytes = b""
        """What the client said first: for Postgres its startup message, application name included."""
        self.is_stalled = False
        self._is_cut = False

    def made(self, side: Side) -> None:
        """Called by a side that is connected."""
        if side is self.client:
            self._proxy.lead_on(self)
            return
        for piece in self._early:
            self._forward(self.client, piece)
        self._early.clear()

    def passed(self, side: Side, piece: bytes) -> None:
        """Called with what a side said."""
        if side is self.client:
            self.first_bytes = (self.first_bytes + piece)[:1_024]
            if self.server.transport is None:
                self._early.append(piece)
                return
        self._forward(side, piece)

    def _forward(self, side: Side, piece: bytes) -> None:
        far = self.server if side is self.client else self.client
        if self.is_stalled or self._is_cut or far.transport is None:
            return
        far.transport.write(piece)
        if side is self.client and self._proxy.cut_after(self, piece):
            self._proxy.log.append(f"{self.number}: cut")
            # It is in the server's buffer already; nothing of the answer comes back.
            self._is_cut = True
            self.client.reset()

    def ended(self) -> None:
        """Called when a side is gone: the other goes too, unless nothing passes any more."""
        if self.is_stalled:
            return
        for side in (self.client, self.server):
            if side.transport is not None:
                side.transport.close()

    def stall(self) -> None:
        """Swallows everything from now on, FIN and RST too: neither side hears of it."""
        self._proxy.log.append(f"{self.number}: stalled")
        self.is_stalled = True

    def cut(self) -> None:
        """Resets both sides."""
        self._is_cut = True
        self.client.reset()
        self.server.reset()


class FaultProxy:
    """Listens on a port of its own for as long as the block runs."""

    def __init__(self, *, path: str | None = None, port: int = 0) -> None:
        """Leads to the Unix socket at `path`, else to `port` on loopback."""
        self._path = path
        self._target_port = port
        self.port = 0
        self.links: list[Link] = []
        self.log: list[str] = []
        self.cut_after: Callable[[Link, bytes], bool] = lambda _, __: False
        """Asked about each piece that a client sends: true lets it through and cuts before any answer."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5.0)
        for link in self.links:
            link.cut()
        for side in (side for link in self.links for side in (link.client, link.server)):
            if side.transport is not None:
                await side.lost.wait()

    def _accept(self) -> Side:
        link = Link(self, len(self.links))
        self.links.append(link)
        return link.client

    def lead_on(self, link: Link) -> None:
        """Connects a link's far side."""
        task = asyncio.get_running_loop().create_task(self._connect(link))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        try:
            if self._path is not None:
                await loop.create_unix_connection(lambda: link.server, self._path)
            else:
                await loop.create_connection(lambda: link.server, "127.0.0.1", self._target_port)
        except OSError as error:
            self.log.append(f"{link.number}: {error}")
            link.client.reset()
