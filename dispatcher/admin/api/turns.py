"""Large bodies take turns, so that they hold a share of the memory and of the event loop, and no more.

The loop that reads a body also delivers. Reading JSON of a mebibyte holds it for 25 ms, the most
hostile one for a quarter of a second, and whoever has a token of an operator may send a hundred a
second. What is always true: `PLACES` large bodies are in memory at most; they are parsed one after
the other, and after each comes a rest of `REST` times as long, so that parsing takes a quarter of
the loop's time at most. Small bodies wait for nobody. Who finds no place in time gets 503.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from dispatcher.admin.api.problems import ProblemError

LARGE_BYTES: Final = 64 * 1024
"""JSON of that size takes about a millisecond."""
PLACES: Final = 16
WAIT_SECONDS_MAX: Final = 10.0
REST: Final = 3.0

Result = TypeVar("Result")


class Turns:
    """The places and the turn of all routes; on the event loop alone."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._places = asyncio.Semaphore(PLACES)
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def place(self, length: int | None) -> AsyncIterator[None]:
        """Holds a place for a body of this length, None where it is not announced.

        Raises:
            ProblemError: none became free in time.
        """
        if length is not None and length <= LARGE_BYTES:
            yield
            return
        try:
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                await self._places.acquire()
        except TimeoutError:
            raise ProblemError(
                503, "too many large bodies at once", headers={"Retry-After": "1"}, close=True
            ) from None
        try:
            yield
        finally:
            self._places.release()

    async def run(self, raw: bytes, work: Callable[[bytes], Result]) -> Result:
        """Returns what `work` makes of the body, when it is its turn."""
        if len(raw) <= LARGE_BYTES:
            return work(raw)
        await self._turn.acquire()
        began_at = self._monotonic()
        try:
            return work(raw)
        finally:
            rest_seconds = (self._monotonic() - began_at) * REST
            asyncio.get_running_loop().call_later(rest_seconds, self._turn.release)
