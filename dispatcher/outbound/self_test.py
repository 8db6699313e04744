"""Checks at each start that the installed aiohttp opens connections as `dialer.py` expects."""

import asyncio
from collections.abc import Callable
from typing import Final, cast

import aiohttp
from aiohttp import http_parser

from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.errors import DispatcherError
from dispatcher.outbound.dialer import Address, Dial, Egress

_SELF_TEST_SECONDS: Final = 5.0


class SelfTestError(DispatcherError):
    """An installed library is not compatible with this program."""


async def self_test() -> None:
    """Check that `Egress.open` works with the installed aiohttp.

    Raises:
        SelfTestError: its C parser is missing, or a loopback connection did not open as expected.
    """
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise SelfTestError("aiohttp is installed without its C parser; install a wheel of it")
    try:
        async with asyncio.timeout(_SELF_TEST_SECONDS):
            await _open_one()
    except Exception as fault:
        raise SelfTestError(
            f"aiohttp {aiohttp.__version__} does not open connections as expected: {fault!r}"
        ) from fault


async def _open_one() -> None:
    """Open, use and close a loopback connection, as the pool does."""
    server = await asyncio.get_running_loop().create_server(_Echo, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    policy = AddressPolicy.parse(allow_networks=[f"{host}/32"], allow_ports=[port])
    egress = Egress(policy, resolver=None)
    try:
        opened = await egress.open(Address(host=host, port=port), Dial(0.0, is_tls=False))
        taker = _Taker(opened.release)
        opened.transport.set_protocol(taker)
        opened.transport.write(b"ping")
        await taker.heard
        opened.transport.abort()
        await taker.lost
    finally:
        server.close()
        await egress.aclose()


class _Echo(asyncio.Protocol):
    """Send received bytes back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class _Taker(asyncio.Protocol):
    """Takes over a connection in the way of `Connection`."""

    def __init__(self, release: Callable[[Exception | None], None]) -> None:
        loop = asyncio.get_running_loop()
        self.heard: asyncio.Future[bytes] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        self._release = release

    def data_received(self, data: bytes) -> None:
        self.heard.set_result(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._release(exc)
        self.lost.set_result(None)
