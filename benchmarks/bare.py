"""The loops that the drain is compared with, each in a process of its own.

`python -m benchmarks.bare KIND URL REQUESTS IN_FLIGHT [CA_FILE]`. `session` posts with a tuned aiohttp
ClientSession (bytes body, prebuilt URL, no cookies, one total
timeout), signing as the dispatcher does and doing nothing else; `lean` is the bare exchange of
`benchmarks/lean.py`. Prints one line of JSON: seconds, and seconds of CPU.
"""

import asyncio
import base64
import hmac
import resource
import ssl
import sys
import time

import aiohttp
import orjson
import uvloop
from yarl import URL

from benchmarks import lean
from benchmarks.harness import BODY_DATA

_BODY = (
    b'{"type":"order.created","timestamp":"2026-01-01T00:00:00.000000Z","data":'
    + BODY_DATA.encode()
    + b"}"
)


async def _session(url: URL, tls: ssl.SSLContext | None, requests: int, in_flight: int) -> None:
    connector = aiohttp.TCPConnector(limit=0, ssl=tls or True)
    left = requests
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=15),
    ) as session:

        async def work() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                timestamp = str(int(time.time()))
                signed = b"evt_1." + timestamp.encode() + b"." + _BODY
                signature = base64.b64encode(hmac.digest(b"k" * 32, signed, "sha256")).decode()
                headers = {
                    "Content-Type": "application/json",
                    "webhook-id": "evt_1",
                    "webhook-timestamp": timestamp,
                    "webhook-signature": f"v1,{signature}",
                }
                async with session.post(url, data=_BODY, headers=headers) as answer:
                    await answer.read()

        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(work())


def _request(url: URL) -> bytes:
    """Makes head and body of a signed request, as the dispatcher signs it."""
    timestamp = b"%d" % time.time()
    signature = base64.b64encode(
        hmac.digest(b"k" * 32, b"evt_1.%b.%b" % (timestamp, _BODY), "sha256")
    )
    return (
        b"POST /hook HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
        b"User-Agent: bare\r\nContent-Length: %d\r\nwebhook-id: evt_1\r\nwebhook-timestamp: %b\r\n"
        b"webhook-signature: v1,%b\r\n\r\n%b" % (url.port, len(_BODY), timestamp, signature, _BODY)
    )


async def _main(kind: str, url: URL, requests: int, in_flight: int, ca_file: str | None) -> None:
    tls = ssl.create_default_context(cafile=ca_file) if url.scheme == "https" else None

    async def run(count: int) -> None:
        if kind == "session":
            await _session(url, tls, count, in_flight)
        else:
            await lean.run(
                url.host or "", url.port or 80, tls, lambda: _request(url), count, in_flight
            )

    await run(in_flight * 4)  # warm
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    await run(requests)
    elapsed, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(orjson.dumps({"seconds": elapsed, "cpu_seconds": cpu}).decode())


if __name__ == "__main__":
    uvloop.run(
        _main(
            sys.argv[1],
            URL(sys.argv[2]),
            int(sys.argv[3]),
            int(sys.argv[4]),
            sys.argv[5] if len(sys.argv) > 5 else None,
        )
    )
