"""The retry timer: when the next attempt of each waiting delivery is due, on a timing wheel.

What is always true: due times arrive as seconds from now and are kept by the monotonic clock;
nothing becomes due before its time. The wheel holds a window (`horizon_seconds` ahead,
`timers_max` entries); what lies beyond stays in Postgres, and its lane knows since when. A crash
loses nothing that a start does not load.
"""

import asyncio

from dispatcher.delivery.inventory import Inventory
from dispatcher.delivery.load_queue import LoadQueue
from dispatcher.delivery.types import WAITING, Entry
from dispatcher.runtime.clock import Clock


class RetryTimer:
    """One timer of the event loop over the inventory's wheel."""

    def __init__(
        self,
        inventory: Inventory,
        load_queue: LoadQueue,
        *,
        clock: Clock,
        horizon_seconds: float,
        timers_max: int,
    ) -> None:
        self._inventory = inventory
        self._load_queue = load_queue
        self._clock = clock
        self.horizon_seconds = horizon_seconds
        self._timers_max = timers_max
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms: int | None = None

    @property
    def room(self) -> int:
        """How many more entries the wheel takes."""
        return max(0, self._timers_max - self._inventory.counts[WAITING])

    def schedule(self, entry: Entry, due_in_seconds: float) -> None:
        """Put an entry on the wheel, or leave it to Postgres: beyond the horizon, or no room."""
        if due_in_seconds > self.horizon_seconds:
            self._inventory.forget(entry)  # the horizon will reach it
        elif not self.room:
            self._inventory.forget(entry)
            entry.lane.turn_away(self._clock.monotonic() + due_in_seconds)
        else:
            # Rounded up: the wheel is never early by its tick, nor may we be.
            due_ms = int((self._clock.monotonic() + due_in_seconds) * 1000) + 1
            self._inventory.wait(entry, due_ms)

    def arm(self) -> None:
        """Set the one timer of the event loop to the wheel's next due time."""
        due_ms = self._inventory.wheel.next_due_ms()
        if due_ms == self._timer_ms:
            return
        self.stop()
        self._timer_ms = due_ms
        if due_ms is not None:
            delay = max(0.0, due_ms / 1000 - self._clock.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self.turn)

    def turn(self) -> None:
        """Pass due retries to the loader."""
        self._timer = self._timer_ms = None
        due = self._inventory.turn(int(self._clock.monotonic() * 1000))
        if due:
            self._load_queue.add_due(due)
        self.arm()

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timer_ms = None
