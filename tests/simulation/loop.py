"""An event loop whose time is the simulation's and which is turned one callback at a time.

A replica lives on a loop of its own. The world turns the loops in the order of their next moment, so
that a killed process is a loop that is never turned again (no `finally` runs, as in a real kill), and a
frozen one is a loop that is left alone for a while, with its timers late and what came in waiting.
"""

import asyncio
import asyncio.events
from collections.abc import Callable
from heapq import heappop
from typing import Any

_FAR = float("inf")


class VirtualLoop(asyncio.BaseEventLoop):
    """Reads the world's clock; nothing in it waits."""

    _ready: Any
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self._now = now
        self.problems: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.problems.append(context))

    def time(self) -> float:
        return self._now()

    def _write_to_self(self) -> None:
        """Has nobody to wake: the world turns it."""

    def next_moment(self) -> float:
        """Returns when there is something to do: now, at a timer, or never."""
        if self._ready:
            return self._now()
        while self._scheduled and self._scheduled[0].cancelled():
            handle = heappop(self._scheduled)
            handle._scheduled = False  # type: ignore[attr-defined]  # as asyncio's own loop does
        return self._scheduled[0].when() if self._scheduled else _FAR

    def turn(self) -> None:
        """Runs one callback: the next that is ready, or the timer that is due."""
        if not self._ready:
            handle = heappop(self._scheduled)
            handle._scheduled = False  # type: ignore[attr-defined]  # as asyncio's own loop does
        else:
            handle = self._ready.popleft()
        if handle.cancelled():
            return
        asyncio.events._set_running_loop(self)
        try:
            handle._run()
        finally:
            asyncio.events._set_running_loop(None)
