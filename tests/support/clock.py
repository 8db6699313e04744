"""A clock that only a test moves."""

from datetime import UTC, datetime, timedelta


class ManualClock:
    """Both clocks at once; `advance` moves them together, `step_wall` only what people read."""

    def __init__(self, now: datetime = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)) -> None:
        self._now = now
        self._monotonic = 1_000.0

    def monotonic(self) -> float:
        return self._monotonic

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("time does not go back")
        self._monotonic += seconds
        self._now += timedelta(seconds=seconds)

    def step_wall(self, seconds: float) -> None:
        """Moves the wall clock alone, as an operator or NTP may, back too."""
        self._now += timedelta(seconds=seconds)
