"""The supervisor asks the processes of a service for their probes and metrics."""

import asyncio
import time

from dispatcher import supervisor
from dispatcher.supervisor import Child, ask_all


async def test_children_that_hang_take_one_time_limit_together(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "PROBE_SECONDS_MAX", 0.5)
    released = asyncio.Event()

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.close()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\na 1\n")
        writer.close()

    children = [Child(number, [], str(tmp_path / f"{number}.sock")) for number in range(4)]
    servers = [
        await asyncio.start_unix_server(one, child.probe_path)
        for one, child in zip((hang, hang, respond), children, strict=False)
    ]
    began = time.monotonic()
    answers = await ask_all(children, "/metrics")
    took = time.monotonic() - began
    released.set()
    for server in servers:
        server.close()
    hung, absent = (0, b""), (0, b"")
    assert answers == list(zip(children, [hung, hung, (200, b"a 1\n"), absent], strict=True))
    assert took < 2 * 0.5
