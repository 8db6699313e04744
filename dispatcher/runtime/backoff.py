"""Backoff: the pauses between repeated attempts at something that is unavailable just now.

Each pause is twice as long as the one before, up to a bound, and shortened by a random part so that
replicas which lost Postgres together do not return together.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

Value = TypeVar("Value")

FIRST_SECONDS = 0.05
SECONDS_MAX = 2.0
JITTER_MIN = 0.5
"""The smallest share of a pause that is left after jitter."""


class Logger(Protocol):
    """A structured logger."""

    def warning(self, event: str, **facts: object) -> object:
        """Log a warning."""
        ...

    def info(self, event: str, **facts: object) -> object:
        """Log information."""
        ...


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
    unless: type[Exception] | tuple[()] = (),
) -> Value:
    """Repeat an idempotent action, with backoff, until it no longer raises `on`; return its result.

    `failed` is called with each error, for the log. `unless` names errors that repeating does not
    help with; they are raised.
    """
    backoff = Backoff()
    while True:
        try:
            return await action()
        except unless:
            raise
        except on as error:
            failed(error)
            await backoff.pause()


class Outage:
    """Logs one line when a loop begins to wait for something, and one when it goes on."""

    __slots__ = ("_causes", "_log", "_resumed", "event", "since")

    def __init__(self, log: Logger, event: str, resumed: str) -> None:
        """`event` is logged as a warning, `resumed` as information with the seconds in between."""
        self._log = log
        self.event = event
        self._resumed = resumed
        self._causes: set[str] = set()
        self.since: float | None = None
        """When the wait began, by the monotonic clock; None: not waiting."""

    def began(self, error: Exception, **facts: object) -> None:
        """Note a failure; it is logged if it is the first one, or the first of its kind in this outage."""
        if self.since is None:
            self.since = time.monotonic()
        cause = type(error.__cause__ or error).__name__
        if cause not in self._causes:
            self._causes.add(cause)
            self._log.warning(self.event, error=str(error), **facts)

    def ended(self) -> None:
        """Note a success."""
        if self.since is not None:
            self._log.info(self._resumed, waited_seconds=round(time.monotonic() - self.since, 3))
            self.since = None
            self._causes.clear()
