"""Receivers that send without end, or nothing at all, as scripts for the raw receiver."""

import gzip
from collections.abc import Callable

from tests.support.raw_receiver import Script, Wire

HEAD = b"HTTP/1.1 200 OK\r\n"


def endless(start: bytes, piece: bytes) -> Script:
    """Sends `start` and then `piece` for as long as anyone takes it."""

    async def script(wire: Wire) -> None:
        if await wire.request() is None:
            return
        wire.send(start)
        while await wire.drain():
            wire.send(piece)

    return script


def silent(start: bytes = b"") -> Script:
    """Sends `start` and nothing more."""

    async def script(wire: Wire) -> None:
        if await wire.request() is not None:
            wire.send(start)
            await wire.gone.wait()

    return script


HOSTILE: dict[str, Callable[[], Script]] = {
    "never answers": silent,
    "endless head": lambda: endless(HEAD, b"X: " + b"y" * 1_000 + b"\r\n"),
    "one endless line": lambda: endless(HEAD + b"X: ", b"y" * 65_536),
    "endless body": lambda: endless(HEAD + b"\r\n", b"z" * 65_536),
    "endless chunk extension": lambda: endless(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;", b"e" * 65_536
    ),
    "endless chunks of one byte": lambda: endless(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 1_000
    ),
    "endless trailers": lambda: endless(
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"T: v\r\n" * 1_000
    ),
    "interim answers": lambda: endless(b"", b"HTTP/1.1 103 Early\r\n\r\n" * 100),
    "a body that never comes": lambda: silent(HEAD + b"Content-Length: 999999999\r\n\r\n"),
    "a gzip bomb": lambda: endless(
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: 300000\r\n\r\n",
        gzip.compress(b"\0" * 50_000_000),
    ),
}
