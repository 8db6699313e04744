"""Runs inside a network namespace of its own: forbidden addresses on `lo`, a listener on each, every spelling.

`python -m tests.attacks.namespace_probe` prints one JSON object: how many connections the listeners accepted,
with the shipped policy and (the control) with one that allows everything; and the outcomes.
"""

import asyncio
import subprocess
import sys
import time
from collections import Counter

import orjson

from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.url import canonical_url
from dispatcher.outbound.dialer import Egress
from dispatcher.outbound.pool import Connections, Target
from dispatcher.outbound.resolver import AresLookup, Resolver
from tests.support.sending import Sender, spawn

PORT = 8080
V4 = (
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.9",
    "192.168.7.7",
    "169.254.169.254",
    "100.64.0.1",
    "168.63.129.16",
)
V6 = ("::1", "fd00:ec2::254", "fe80::1", "fec0::1", "64:ff9b::a01:203", "2002:a01:203::1")


def spellings(address: str) -> list[str]:
    """Returns the ways in which people hide an IPv4 address."""
    parts = [int(part) for part in address.split(".")]
    number = int.from_bytes(bytes(parts), "big")
    return [
        address, address + ".", str(number), hex(number), oct(number).replace("0o", "0"),
        ".".join(hex(part) for part in parts), ".".join(f"0{part:o}" for part in parts),
        f"{parts[0]}.{number & 0xFFFFFF}", f"{parts[0]}.{parts[1]}.{number & 0xFFFF}",
        address.translate({ord(str(digit)): 0xFF10 + digit for digit in range(10)}),
        address.replace(".", "\N{IDEOGRAPHIC FULL STOP}"), f"[::ffff:{address}]", f"[::{address}]",
        f"[::ffff:0:{address}]", f"[64:ff9b::{address}]", f"[64:ff9b:1::{address}]",
    ]  # fmt: skip


async def _try_all(policy: AddressPolicy, hosts: list[str]) -> Counter[str]:
    resolver = Resolver(AresLookup(["127.0.0.1:9"]), spawn=spawn, monotonic=time.monotonic)
    egress = Egress(policy, resolver)
    pool = Connections(egress, spawn=spawn)
    sender = Sender(egress, pool)
    outcomes: Counter[str] = Counter()
    for written in hosts:
        # Refused on save or not, it is sent to: a row may hold what nobody could have saved.
        hosts_of = {written.strip("[]")}
        try:
            hosts_of.add(canonical_url(f"http://{written}:{PORT}/", https_only=False).host)
        except InvalidRequestError:
            outcomes["refused"] += 1
        for host in sorted(hosts_of):
            answer = await sender.answer(Target("http", host, PORT), timeout_seconds=2.0)
            outcomes[str(answer.outcome)] += 1
    await pool.aclose()
    await egress.aclose()
    return outcomes


async def main() -> None:
    """Listens on every address, tries every spelling under both policies."""
    accepted = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        await reader.read(1)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    servers = [
        await asyncio.start_server(answer, f"{host}%lo" if host.startswith("fe80") else host, PORT)
        for host in (*V4, *V6)
    ]
    hosts = [spelling for host in V4 for spelling in spellings(host)] + [f"[{host}]" for host in V6]
    outcomes = await _try_all(AddressPolicy.parse(allow_networks=[]), hosts)
    by_default = accepted
    everything = AddressPolicy.parse(
        allow_networks=["0.0.0.0/0", "::/0"], allow_ports=["1-65535"], allow_metadata=True
    )
    await _try_all(everything, hosts)
    sys.stdout.write(
        orjson.dumps(
            {
                "addresses": len(V4) + len(V6),
                "spellings": len(hosts),
                "accepted": by_default,
                "accepted_when_allowed": accepted - by_default,
                "outcomes": dict(outcomes),
            }
        ).decode()
    )
    for server in servers:
        server.close()


def prepare() -> None:
    """Brings `lo` up with every forbidden address."""
    ip = "/sbin/ip"
    subprocess.run([ip, "link", "set", "lo", "up"], check=True)
    for host in (*V4, *V6):
        length = 32 if "." in host and ":" not in host else 128
        subprocess.run(
            [ip, "addr", "add", f"{host}/{length}", "dev", "lo"],
            check=False,
            stderr=subprocess.DEVNULL,
        )


if __name__ == "__main__":
    prepare()
    asyncio.run(main())
