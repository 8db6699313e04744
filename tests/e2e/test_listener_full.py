"""A23: probes and metrics of a daemon whose listener strangers have filled with half-sent sign-in forms."""

import asyncio
import contextlib
import socket
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.daemon import Daemon, free_port
from tests.support.pace import in_time

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

CONNECTIONS_MAX = 64
FORM = (
    b"POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: 4000\r\n\r\na"
)
PROBES = ("/livez", "/readyz", "/metrics")
FORM_SECONDS_MAX = 5.0
LINGERING_SECONDS_MAX = 2.0


@asynccontextmanager
async def filled(daemon: Daemon) -> AsyncIterator[list[socket.socket]]:
    """Hold more half-sent forms than the listener has places, from as many addresses as that takes."""
    loop = asyncio.get_running_loop()
    held: list[socket.socket] = []
    try:
        for host in range(2, 9):
            for _ in range(CONNECTIONS_MAX // 4):
                one = socket.socket()
                held.append(one)
                one.setblocking(False)
                one.bind((f"127.0.0.{host}", 0))
                await loop.sock_connect(one, ("127.0.0.1", daemon.port))
                await loop.sock_sendall(one, FORM)
        yield held
    finally:
        for one in held:
            one.close()


async def test_probes_answer_while_half_sent_forms_fill_the_listener(bench):
    daemon = await bench.daemon(HTTP__CONNECTIONS_MAX=str(CONNECTIONS_MAX)).started()
    async with filled(daemon):
        assert [(await daemon.get(path))[0] for path in PROBES] == [200, 200, 200]
        assert (await daemon.get("/sign-in"))[0] == 503, "the listener was not full"


async def test_probes_have_a_port_of_their_own(bench):
    probe_port = free_port()
    daemon = await bench.daemon(
        HTTP__CONNECTIONS_MAX=str(CONNECTIONS_MAX), HTTP__PROBE_PORT=str(probe_port)
    ).started()
    assert [(await daemon.get(path))[0] for path in PROBES] == [404, 404, 404]
    async with filled(daemon):
        daemon.port, port = probe_port, daemon.port
        assert [(await daemon.get(path))[0] for path in PROBES] == [200, 200, 200]
        assert (await daemon.get("/sign-in"))[0] == 503
        daemon.port = port


@asynccontextmanager
async def connected(daemon: Daemon) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    """Hold one connection; a test that fails must not leave it to the next one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
    with contextlib.closing(writer):
        yield reader, writer


async def test_a_half_sent_form_is_ended_within_its_time(bench):
    daemon = await bench.daemon(HTTP__CONNECTIONS_MAX=str(CONNECTIONS_MAX)).started()
    async with connected(daemon) as (reader, writer), asyncio.timeout(60):
        began = time.monotonic()
        writer.write(FORM)
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        assert in_time(time.monotonic() - began, FORM_SECONDS_MAX + 1)
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        assert in_time(time.monotonic() - began, FORM_SECONDS_MAX + LINGERING_SECONDS_MAX + 2)


async def test_a_form_of_a_stranger_has_8_kib(bench):
    daemon = await bench.daemon().started()
    async with connected(daemon) as (reader, writer), asyncio.timeout(60):
        writer.write(FORM.replace(b"4000", b"9000") + b"a" * 8999)
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
