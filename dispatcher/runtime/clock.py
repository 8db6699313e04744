"""The two clocks: a monotonic one for durations and leases, a wall clock for what people read."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What stages ask for the time; tests hand in one that is moved by hand."""

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences mean anything."""
        ...

    def now(self) -> datetime:
        """Return the wall clock's time: aware, UTC; it can jump."""
        ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ()

    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def now() -> datetime:
        """Return the wall clock's time: aware, UTC."""
        return datetime.now(UTC)
