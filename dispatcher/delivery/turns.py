"""The order in which claims that overlap place their deliveries in lines: by their first event.

Two claims are fanned out at once, and the one with the later events may commit first. A claim that fails or ends
gives up its turn; one that takes too long is not waited for, and the database decides the places then.
"""

import asyncio
from collections.abc import Sequence

from dispatcher.core.model import Event

TURN_SECONDS = 1.0
"""How long a claim waits for those with earlier events before its deliveries are placed in their lines."""


class Turn:
    """A claim that is not placed yet."""

    __slots__ = ("position",)

    def __init__(self, position: int) -> None:
        self.position = position


class Turns:
    """The claims of this process that are open, by their first event."""

    def __init__(self) -> None:
        self._open: set[Turn] = set()
        self._ended = asyncio.Event()

    def begin(self, events: Sequence[Event]) -> Turn:
        """Note a claim that has read its events."""
        turn = Turn(min(event.position or 0 for event in events))
        self._open.add(turn)
        return turn

    async def wait(self, turn: Turn) -> None:
        """Wait until no claim with an earlier event is open, or `TURN_SECONDS` are over."""
        try:
            async with asyncio.timeout(TURN_SECONDS):
                while any(other.position < turn.position for other in self._open):
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            return

    def end(self, turn: Turn) -> None:
        """Note that a claim is placed, or has failed."""
        self._open.discard(turn)
        self._ended.set()
