"""A name server on loopback that answers by script: turns, TTLs, silence, refusals.

Speaks just enough DNS over UDP for c-ares: one question, A or AAAA or CNAME answers.
"""

import asyncio
import ipaddress
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Final, NamedTuple, Self

A: Final = 1
CNAME: Final = 5
AAAA: Final = 28
SERVFAIL: Final = 2
NXDOMAIN: Final = 3


class Reply(NamedTuple):
    """What the server says to one question; addresses of the other family are left out."""

    addresses: tuple[str, ...] = ()
    ttl: int = 60
    code: int = 0
    alias: str | None = None
    """A CNAME that the name points to, ahead of the addresses."""
    delay_seconds: float = 0.0
    """How long the server takes for each query."""


Answerer = Callable[[str, int], Reply | None]
"""Takes the name and the type asked for; None is silence."""


class FakeDns(asyncio.DatagramProtocol):
    """Listens on a port of its own and keeps every question."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer
        self.questions: list[tuple[str, int]] = []
        self.address = ""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=("127.0.0.1", 0)
        )
        self._transport = transport
        host, port = transport.get_extra_info("sockname")
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._transport.close()

    def asked_count(self, name: str) -> int:
        """Questions for one name, A and AAAA together."""
        return sum(asked == name for asked, _ in self.questions)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        number, _, _, _, _, _ = struct.unpack("!6H", data[:12])
        name, end = _name_at(data, 12)
        (kind,) = struct.unpack("!H", data[end : end + 2])
        self.questions.append((name, kind))
        reply = self._answerer(name, kind)
        if reply is None:
            return
        records = b""
        count = 0
        owner = b"\xc0\x0c"
        if reply.alias is not None:
            target = _encoded(reply.alias)
            records += owner + struct.pack("!HHIH", CNAME, 1, reply.ttl, len(target)) + target
            owner = target
            count += 1
        for text in reply.addresses:
            address = ipaddress.ip_address(text)
            if (AAAA if address.version == 6 else A) == kind:
                packed = address.packed
                records += owner + struct.pack("!HHIH", kind, 1, reply.ttl, len(packed)) + packed
                count += 1
        head = struct.pack("!6H", number, 0x8180 | reply.code, 1, count, 0, 0)
        packet = head + data[12 : end + 4] + records
        if reply.delay_seconds:
            asyncio.get_running_loop().call_later(
                reply.delay_seconds, self._send_late, packet, addr
            )
        else:
            self._transport.sendto(packet, addr)

    def _send_late(self, packet: bytes, addr: tuple[str, int]) -> None:
        if not self._transport.is_closing():
            self._transport.sendto(packet, addr)


def _name_at(data: bytes, start: int) -> tuple[str, int]:
    labels = []
    while data[start]:
        labels.append(data[start + 1 : start + 1 + data[start]].decode("ascii"))
        start += 1 + data[start]
    # c-ares may mix the case of what it asks (0x20).
    return ".".join(labels).lower(), start + 1


def _encoded(name: str) -> bytes:
    labels = name.encode("ascii").split(b".")
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
