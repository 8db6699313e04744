"""What every Python peer does for a job: sign the body as the dispatcher does, POST it, read the answer."""

import asyncio
import base64
import hmac
import json
import sys
import time
from collections.abc import Awaitable, Callable

import aiohttp
from yarl import URL

BODY = (
    b'{"type":"order.created","timestamp":"2026-01-01T00:00:00.000000Z","data":{"order_id":"ORD-2026-1234",'
    b'"note":"' + b"x" * 440 + b'"}}'
)
DATABASE_URL, TARGET_URL, JOBS = sys.argv[1], URL(sys.argv[2]), int(sys.argv[3])


class Poster:
    """Posts, and knows when everything has been posted."""

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self._left = JOBS
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=15),
        )

    async def post(self) -> None:
        """Posts once.

        Raises:
            RuntimeError: the answer was not 200.
        """
        timestamp = str(int(time.time()))
        signed = b"evt_1." + timestamp.encode() + b"." + BODY
        signature = base64.b64encode(hmac.digest(b"k" * 32, signed, "sha256")).decode()
        headers = {
            "Content-Type": "application/json",
            "webhook-id": "evt_1",
            "webhook-timestamp": timestamp,
            "webhook-signature": f"v1,{signature}",
        }
        async with self._session.post(TARGET_URL, data=BODY, headers=headers) as answer:
            await answer.read()
            if answer.status != 200:
                raise RuntimeError(f"status {answer.status}")
        self._left -= 1
        if not self._left:
            self.done.set()

    async def measure(self, start: Callable[[], Awaitable[object]]) -> None:
        """Says "ready", waits to be told to go, lets `start` run, and says how long it took."""
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        started = time.perf_counter()
        running = asyncio.ensure_future(start())
        await self.done.wait()
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        running.cancel()
