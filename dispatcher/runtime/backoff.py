"""Backoff: the pauses between repeated attempts at something that is unavailable just now.

Each pause is twice as long as the one before, up to a bound, and shortened by a random part so that
replicas which lost Postgres together do not return together.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

Value = TypeVar("Value")

FIRST_SECONDS = 0.05
SECONDS_MAX = 2.0
JITTER_MIN = 0.5
"""The smallest share of a pause that is left after jitter."""


class Backoff:
    """The next pause of one loop; `reset` after each success."""

    __slots__ = ("_first_seconds", "_seconds", "_seconds_max")

    def __init__(
        self, first_seconds: float = FIRST_SECONDS, seconds_max: float = SECONDS_MAX
    ) -> None:
        self._first_seconds = first_seconds
        self._seconds_max = seconds_max
        self._seconds = first_seconds

    def reset(self) -> None:
        """Start again with the shortest pause."""
        self._seconds = self._first_seconds

    def next_seconds(self) -> float:
        """Return the next pause in seconds, jitter included."""
        seconds = self._seconds * random.uniform(JITTER_MIN, 1.0)  # noqa: S311 -- spreads load, guards nothing
        self._seconds = min(2 * self._seconds, self._seconds_max)
        return seconds

    async def pause(self, wake: asyncio.Event | None = None) -> None:
        """Sleep for the next pause, or until `wake` is set."""
        seconds = self.next_seconds()
        if wake is None:
            await asyncio.sleep(seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await wake.wait()
        except TimeoutError:
            return


async def retry(
    action: Callable[[], Awaitable[Value]],
    *,
    on: type[Exception],
    failed: Callable[[Exception], None],
) -> Value:
    """Repeat an idempotent action, with backoff, until it no longer raises `on`; return its result.

    `failed` is called with each error, for the log.
    """
    backoff = Backoff()
    while True:
        try:
            return await action()
        except on as error:
            failed(error)
            await backoff.pause()
