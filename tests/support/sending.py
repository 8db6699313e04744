"""Sends attempts through real connections and waits for what they come to."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from dispatcher.core.model import HttpResponse
from dispatcher.outbound.dialer import Egress
from dispatcher.outbound.pool import Connections, Exchange, NotAttempted, Target

BODY = b'{"type":"order.created"}'


def spawn(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Makes a task as the product's own maker of tasks would."""
    return asyncio.get_running_loop().create_task(work)


def head_for(target: Target, body: bytes = BODY) -> bytes:
    """Returns a request head with a right Content-Length."""
    return (
        f"POST /hook HTTP/1.1\r\nHost: receiver.test:{target.address.port}\r\n"
        f"Content-Length: {len(body)}\r\nAccept-Encoding: identity\r\n\r\n"
    ).encode("ascii")


class Sender:
    """One pool and its egress, with an awaitable way of sending."""

    def __init__(self, egress: Egress, pool: Connections) -> None:
        self.egress = egress
        self.pool = pool
        self.results: list[HttpResponse | NotAttempted] = []

    def start(
        self, target: Target, *, body: bytes = BODY, timeout_seconds: float = 5.0
    ) -> tuple[Exchange, asyncio.Future[HttpResponse | NotAttempted]]:
        """Starts an attempt; a second `done` for it fails the test by InvalidStateError."""
        future: asyncio.Future[HttpResponse | NotAttempted] = (
            asyncio.get_running_loop().create_future()
        )

        def done(result: HttpResponse | NotAttempted) -> None:
            self.results.append(result)
            future.set_result(result)

        handle = self.pool.send(target, head_for(target, body), body, timeout_seconds, done)
        assert not future.done(), "done must not be called inside send"
        return handle, future

    async def result(
        self, target: Target, *, body: bytes = BODY, timeout_seconds: float = 5.0
    ) -> HttpResponse | NotAttempted:
        """Waits for whatever an attempt comes to."""
        _, future = self.start(target, body=body, timeout_seconds=timeout_seconds)
        return await future

    async def answer(
        self, target: Target, *, body: bytes = BODY, timeout_seconds: float = 5.0
    ) -> HttpResponse:
        """Waits for an attempt's answer."""
        result = await self.result(target, body=body, timeout_seconds=timeout_seconds)
        assert isinstance(result, HttpResponse), result
        return result
