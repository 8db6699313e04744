"""Which lanes are crowded: they are quick, and have much in memory, so fan-out waits a moment.

Invariant: `room` is set exactly while no lane is crowded. A slow receiver's lane does not count, because waiting for it
would delay all others. What does not fit into its lane stays in Postgres.
"""

import asyncio

from dispatcher.delivery.types import EndpointLane


class Crowding:
    """Counts crowded lanes; used on the event loop's thread only."""

    def __init__(self) -> None:
        self._count = 0
        self.room = asyncio.Event()
        """Clear while a lane is crowded."""
        self.room.set()

    def crowd(self, lane: EndpointLane) -> None:
        """Note that a lane is crowded; it was not before."""
        lane.crowded = True
        self._count += 1
        self.room.clear()

    def relieve(self, lane: EndpointLane) -> None:
        """Note that a lane is crowded no longer, if it was."""
        if lane.crowded:
            lane.crowded = False
            self._count -= 1
            if not self._count:
                self.room.set()
