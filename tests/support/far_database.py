"""A way to the database over a link that can be set down, as when a cable is pulled: no FIN, no RST, no error.

    this namespace ── veth ──▶ relay in a namespace of its own ── Unix socket ──▶ Postgres

`python -m tests.support.far_database SOCKET` is the relay. Its end takes the namespace and the link along.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemon import Process
from tests.support.servers import socket_of

NEAR = "198.18.77.1"
FAR = "198.18.77.2"
"""Of the range that is set apart for tests of networks: RFC 2544."""
PORT = 5432
PIECE_BYTES = 65_536


class FarDatabase:
    """The URL of the database by way of the link, and the link."""

    def __init__(self, relay: Process, name: str) -> None:
        self.url = f"postgresql://dispatcher@{FAR}:{PORT}/{name}"
        self._pid = str(relay.child.pid)

    def inside(self, *command: str) -> None:
        """Runs `ip` in the relay's namespace."""
        _run("nsenter", "--target", self._pid, "--net", "ip", *command)

    def set_link(self, state: str) -> None:
        """Sets the far end `up` or `down`: this side keeps its address and its route."""
        self.inside("link", "set", "far", state)


@contextmanager
def far_database(url: str, folder: Path) -> Iterator[FarDatabase]:
    """Yields the way; skips where there can be no network namespace."""
    missing = [name for name in ("ip", "unshare", "nsenter") if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip("a network namespace needs root, ip, unshare and nsenter")
    host, name = socket_of(url)
    relay = Process(
        "tests.support.far_database",
        f"{host}/.s.PGSQL.5432",
        environ={},
        log=folder / "relay.log",
        cwd=folder,
        prefix=[str(shutil.which("unshare")), "--net"],
    )
    near = f"dv{relay.child.pid}"
    try:
        assert relay.child.stdout is not None
        if relay.child.stdout.readline() != b"ready\n":
            pytest.skip("network namespaces are not allowed here")
        pid = str(relay.child.pid)
        _run("ip", "link", "add", near, "type", "veth", "peer", "name", "far", "netns", pid)
        _run("ip", "address", "add", f"{NEAR}/30", "dev", near)
        _run("ip", "link", "set", near, "up")
        found = FarDatabase(relay, name)
        found.inside("address", "add", f"{FAR}/30", "dev", "far")
        found.set_link("up")
        yield found
    finally:
        # The kernel takes a namespace down some seconds after its last process; till then its route would stay.
        subprocess.run(["ip", "link", "delete", near], check=False, capture_output=True, timeout=10)  # noqa: S607 -- found above
        relay.stop()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=10)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
    writer.close()


async def _relay(socket: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_unix_connection(socket)
        async with asyncio.TaskGroup() as both:
            both.create_task(_pump(reader, forth))
            both.create_task(_pump(back, writer))

    server = await asyncio.start_server(serve, "0.0.0.0", PORT)  # noqa: S104 -- its namespace has the one link
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_relay(sys.argv[1]))
