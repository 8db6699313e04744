"""A token bucket that answers *when*, so that a lane moves a due time instead of waiting."""

import math


class TokenBucket:
    """Lets through `rate_per_second` on average and `burst` at once; the lane's task owns it.

    The bucket is full at first. Instead of a level it keeps one moment, the earliest at which the
    next token can be taken (the generic cell rate algorithm), so nothing is ever refilled and
    `take(ready_at(now))` is true exactly, with no rounding between the two.
    """

    __slots__ = ("_interval_seconds", "_ready_at", "_window_seconds")

    def __init__(self, rate_per_second: float, burst: int) -> None:
        """Create a full bucket.

        Raises:
            ValueError: the rate is not a finite number above 0, or the burst is below 1.
        """
        if not (0 < rate_per_second < math.inf and math.isfinite(1 / rate_per_second)):
            raise ValueError(f"a rate is a finite number above 0, not {rate_per_second}")
        if burst < 1:
            raise ValueError(f"a burst is at least 1, not {burst}")
        self._interval_seconds = 1 / rate_per_second
        # How far the next token's moment may lie back: an idle bucket saves up no more.
        self._window_seconds = (burst - 1) * self._interval_seconds
        self._ready_at = -math.inf

    def take(self, now: float, count: int = 1) -> bool:
        """Take tokens if there is one; `now` is monotonic seconds.

        With more than one, the bucket may owe tokens: the next one can be taken when all are paid.
        """
        if now < self._ready_at:
            return False
        full_at = max(self._ready_at, now - self._window_seconds)
        self._ready_at = full_at + count * self._interval_seconds
        return True

    def ready_at(self, now: float) -> float:
        """Return the moment of the next token: `now` if there is one already."""
        return max(now, self._ready_at)
