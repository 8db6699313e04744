"""Clients that request a list of deliveries again and again: `python -m benchmarks.list_clients PORT`.

`CONNECTIONS` connections, each of which sends its next request when the response before is complete. In production
these clients are other machines, so they run at the lowest priority here: they saturate the API with the CPU that the
servers leave. At SIGTERM the program prints the requests per second that were answered with 200.
"""

import asyncio
import os
import signal
import sys
import time

import uvloop

from benchmarks.harness import TOKEN

CONNECTIONS = 16
_NICE = 19
_REQUEST = (
    f"GET /api/v1/deliveries?limit=50 HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
).encode()


async def _request(port: int, counts: dict[str, int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        writer.write(_REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
        if head[9:12] != b"200":
            raise SystemExit(f"not answered: {head!r}")
        counts["answered"] += 1


async def _run(port: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    counts = {"answered": 0}
    tasks = [asyncio.ensure_future(_request(port, counts)) for _ in range(CONNECTIONS)]
    began = time.monotonic()
    stopped = asyncio.ensure_future(stop.wait())
    done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in done - {stopped}:
        task.result()
    print(counts["answered"] / (time.monotonic() - began))


if __name__ == "__main__":
    os.nice(_NICE)
    uvloop.run(_run(int(sys.argv[1])))
