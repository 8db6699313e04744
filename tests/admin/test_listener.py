"""A23: what a stranger can hold of the listener, and for how long; on real sockets."""

import asyncio
import contextlib
import gzip
import resource
import socket
import time
from ipaddress import ip_network
from typing import Self

import orjson
import pytest
from aiohttp import web

from dispatcher.admin import listener as module
from dispatcher.admin.listener import HttpListener, ProbeListener
from dispatcher.config.sections import RESERVED_SEATS
from tests.support.pace import in_time, within

MIB = 1024 * 1024
SHORT_SECONDS = 0.3
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


class Client:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, request: bytes) -> bytes:
        """Sends bytes and returns the answer's status line, empty where the connection was closed."""
        self.writer.write(request)
        async with asyncio.timeout(10):
            return await self.reader.readline()

    async def closed(self) -> float:
        """Returns how long it took until the other side closed."""
        began = time.monotonic()
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                while await self.reader.read(65_536):
                    pass
        return time.monotonic() - began

    async def close(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Served:
    """A listener whose application greets, and returns the size of a body of up to 1 MiB."""

    def __init__(
        self,
        connections_max: int = 16,
        *,
        host: str = "127.0.0.1",
        trusted: str = "",
        probe_port: bool = False,
    ) -> None:
        probes = web.Application()
        probes.router.add_get("/livez", self._greet)
        application = web.Application(client_max_size=MIB)
        application.router.add_get("/livez", self._greet)
        application.router.add_get("/", self._greet)
        application.router.add_post("/", self._measure)
        application.router.add_get("/broken", self._break)
        application.router.add_get("/large", self._large)
        self._listener: HttpListener | ProbeListener = HttpListener(
            application,
            connections_max,
            probes=probes,
            trusted=[ip_network(trusted)] if trusted else [],
        )
        if probe_port:
            self._listener = ProbeListener(probes)
        self._clients: list[Client] = []
        self._host = host
        self.port = 0
        self.large_ended = asyncio.Event()

    async def _large(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * MIB)
        finally:
            self.large_ended.set()

    async def _greet(self, _: web.Request) -> web.Response:
        return web.Response(text="here")

    async def _break(self, _: web.Request) -> web.Response:
        raise ValueError("of the test")

    async def _measure(self, request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    async def client(self, source: str = "127.0.0.1") -> Client:
        streams = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0))
        client = Client(*streams)
        self._clients.append(client)
        return client

    async def __aenter__(self) -> Self:
        self.port = await self._listener.start(self._host, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            await client.close()
        await self._listener.stop()


async def held(served: Served, count: int, source: str = "127.0.0.1") -> list[Client]:
    """Returns so many connections that were let in, each proven by an answer."""
    clients = []
    for _ in range(count):
        client = await served.client(source)
        assert await client.ask(GET) == b"HTTP/1.1 200 OK\r\n"
        clients.append(client)
    return clients


async def test_one_address_holds_a_quarter_and_leaves_the_rest_to_others():
    async with Served(connections_max=16) as served:
        await held(served, 4)
        refused = await served.client()
        assert await refused.ask(GET) == UNAVAILABLE
        for number in range(2, 5):
            await held(served, 4, source=f"127.0.0.{number}")
        full = await served.client("127.0.0.5")
        assert await full.ask(GET) == UNAVAILABLE


async def test_a_trusted_proxy_may_hold_every_connection():
    async with Served(connections_max=16, trusted="127.0.0.2/32") as served:
        await held(served, 16, source="127.0.0.2")
        full = await served.client("127.0.0.2")
        assert await full.ask(GET) == UNAVAILABLE


@pytest.mark.parametrize("probe_port", [False, True])
async def test_a_probe_gets_in_whatever_strangers_hold(probe_port):
    """More than all seats are held by half-sent requests, of which the oldest goes for a newcomer."""
    async with Served(connections_max=16, probe_port=probe_port) as served:
        if not probe_port:
            for number in range(1, 5):
                await held(served, 4, source=f"127.0.0.{number}")
        for _ in range(2 * RESERVED_SEATS):
            stranger = await served.client("127.0.0.6")
            stranger.writer.write(POST % 100_000 if probe_port else b"GET /livez HTTP/1.1\r\n")
        for _ in range(3):
            probe = await served.client("127.0.0.7")
            assert await probe.ask(LIVEZ) == b"HTTP/1.1 200 OK\r\n"


async def test_a23_control_without_seats_a_full_listener_keeps_probes_out(monkeypatch):
    monkeypatch.setattr(module, "PROBE_PATHS", frozenset())
    async with Served(connections_max=16) as served:
        for number in range(1, 5):
            await held(served, 4, source=f"127.0.0.{number}")
        probe = await served.client("127.0.0.7")
        assert await probe.ask(LIVEZ) == UNAVAILABLE


@pytest.mark.parametrize(
    "request_bytes",
    [GET, POST % 10 + b"x", b"POST /livez HTTP/1.1\r\n\r\n", b"x" * 9_000, b"\0\r\n\r\n"],
)
async def test_a_seat_serves_nothing_but_probes(request_bytes):
    async with Served(probe_port=True) as served:
        client = await served.client()
        assert await client.ask(request_bytes) == UNAVAILABLE
        assert in_time(await client.closed(), 1)


async def test_a_seat_is_given_up_after_its_request_or_its_time(monkeypatch):
    monkeypatch.setattr(module, "SEAT_SECONDS_MAX", SHORT_SECONDS)
    async with Served(probe_port=True) as served:
        silent = await served.client()
        assert await silent.ask(b"GET /livez") == UNAVAILABLE
        assert in_time(await silent.closed(), SHORT_SECONDS * 5)


async def test_a_client_that_does_not_read_is_disconnected(monkeypatch):
    monkeypatch.setattr(module, "UNREAD_SECONDS_MAX", 1.0)
    async with Served() as served:
        with socket.socket() as unread:
            unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            unread.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(unread, ("127.0.0.1", served.port))
            await loop.sock_sendall(unread, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            async with asyncio.timeout(20):
                assert await served.large_ended.wait()


async def test_two_colons_serve_both_families():
    async with Served(host="::") as served:
        for host in ("127.0.0.1", "::1"):
            streams = await asyncio.open_connection(host, served.port)
            client = Client(*streams)
            assert await client.ask(GET) == b"HTTP/1.1 200 OK\r\n"
            await client.close()


async def test_a_place_is_free_again_once_its_connection_is_gone():
    async with Served(connections_max=16) as served:
        clients = await held(served, 4)
        for client in clients[:2]:
            client.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await client.closed()
        await held(served, 2)


async def test_headers_that_drip_are_cut_off(monkeypatch):
    monkeypatch.setattr(module, "HEADERS_SECONDS_MAX", SHORT_SECONDS)
    async with Served() as served:
        client = await served.client()
        closed = asyncio.ensure_future(client.closed())
        client.writer.write(b"GET / HTTP/1.1\r\n")
        while not closed.done():
            with contextlib.suppress(OSError):
                client.writer.write(b"X-A: b\r\n")
            await asyncio.wait({closed}, timeout=SHORT_SECONDS / 10)
        assert await closed >= SHORT_SECONDS / 2
        assert in_time(await closed, SHORT_SECONDS * 5)


@pytest.mark.parametrize("begun", [b"", GET, GET + b"GET / HT"])
async def test_a_connection_that_says_no_more_is_closed(monkeypatch, begun):
    monkeypatch.setattr(module, "HEADERS_SECONDS_MAX", SHORT_SECONDS)
    async with Served() as served:
        client = await served.client()
        client.writer.write(begun)
        assert in_time(await client.closed(), SHORT_SECONDS * 5)


async def test_a_body_of_a_gigabyte_is_refused_without_being_taken():
    async with Served() as served:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        client = await served.client()
        client.writer.write(POST % 2**30)
        answer = asyncio.ensure_future(client.ask(b""))
        sent = 0
        with contextlib.suppress(OSError):
            while not answer.done() and sent < 64 * MIB:
                client.writer.write(b"x" * 65_536)
                await client.writer.drain()
                sent += 65_536
        assert (await answer).startswith(b"HTTP/1.1 413 ")
        assert in_time(await client.closed(), module.LINGERING_SECONDS_MAX + 1)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


UNREADABLE = {
    "no method": b"\x1b[31mno http\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a space in a name": b"GET / HTTP/1.1\r\nA b: c\r\n\r\n",
    "two framings": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "no such length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: two\r\n\r\n",
    "a long line": b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n\r\n",
    "no such version": b"GET / HTTP/9.9\r\n\r\n",
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_listener_malformed_request_gets_a_bare_problem_and_no_log_line(caplog, name):
    async with Served() as served:
        client = await served.client()
        assert b" 400 Bad Request" in await client.ask(UNREADABLE[name])
        async with asyncio.timeout(10):
            answer = await client.reader.read()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Type: application/problem+json" in head
    assert b"Server: dispatcher\r\n" in head + b"\r\n"
    assert b"aiohttp" not in answer
    assert b"Python" not in answer
    assert orjson.loads(body) == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "code": "malformed_request",
        "detail": module.UNREADABLE,
    }
    assert caplog.records == []


async def test_what_nobody_foresaw_is_a_problem_too_and_is_logged(caplog):
    async with Served() as served:
        client = await served.client()
        assert await client.ask(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n") == (
            b"HTTP/1.1 500 Internal Server Error\r\n"
        )
        async with asyncio.timeout(10):
            answer = await client.reader.read()
    assert b"application/problem+json" in answer
    assert b"aiohttp" not in answer
    assert b"of the test" not in answer
    assert "of the test" in str(caplog.records[0].exc_info)


async def test_a_bomb_is_not_decompressed():
    bomb = gzip.compress(b"\0" * 64 * MIB)
    async with Served() as served:
        client = await served.client()
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
        assert await client.ask(head % len(bomb) + bomb) == b"HTTP/1.1 200 OK\r\n"
        answer = await client.reader.readuntil(b"\r\n\r\n")
        assert await client.reader.readexactly(len(str(len(bomb)))) == str(len(bomb)).encode()
        assert b"Content-Length" in answer


@pytest.mark.slow
async def test_a_flood_of_connections_is_turned_away(long_run):
    """10,000 in the long form: each is answered, and the listener serves at once when it is over."""
    count = 10_000 if long_run else 500
    async with Served(connections_max=64) as served:
        await held(served, 16)
        refused = 0
        for _ in range(count // 50):
            clients = [await served.client() for _ in range(50)]
            for client in clients:
                refused += await client.ask(GET) == UNAVAILABLE
                await client.close()
        assert refused == count
        await within(1.0, held(served, 1, source="127.0.0.2"))
