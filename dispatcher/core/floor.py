"""Computes the position from which the outbox is polled when a poll of the whole outbox is expensive.

Claimed rows are dead rows. Every poll of the outbox has to skip them until vacuum may remove them, and one
long transaction anywhere prevents that. Rows of a producer's transaction that has not ended are skipped
too: 600,000 of them cost each poll half a second. In this situation claims begin at a floor, which trails
the claimed positions by some tenths of a second, and so skip the rows that were claimed long ago.

Invariants: the floor is an optimization, and correctness never depends on it. Transactions commit out of
order, so an event can appear below the floor. Therefore the whole outbox is still polled every three to
fifteen seconds, less often the more expensive that is (some 2 % of the time). If a whole poll finds an
event, the next claim has no floor. If a claim fails, the floor is reset. There is no floor until
two whole polls in a row were expensive, or once they are cheap again. The floor does not survive a crash,
and does not have to.
"""

DEAR_SECONDS = 0.003
"""A whole poll that takes longer may be expensive: it skips some thousand dead rows, or more."""
DEAR_CLAIM_SECONDS = 0.05
DEAR_CLAIM_EVENTS_MAX = 100
"""A claim of so few events takes a few milliseconds, unless it has to skip rows."""
DEAD_ROWS_MIN = 5_000
"""With fewer dead rows the machine is slow, and a floor would save nothing."""
DEAR_LOOKS = 2
"""Expensive polls in a row; a single one can be caused by a busy machine."""
WHOLE_SECONDS_MIN = 3.0
WHOLE_SECONDS_MAX = 15.0
WHOLE_COST_SHARE = 0.02
HOPELESS_SECONDS = 2.0
"""A whole poll that takes longer is not followed by a whole claim, which would exceed the statement timeout."""
TRAIL_SECONDS = 0.25
"""The floor is the highest position claimed one to two of these ago: most transactions commit within it."""


class Floor:
    """The floor of one replica; `now` is a monotonic time in seconds."""

    def __init__(self) -> None:
        self._dear_count = 0
        self._claim_is_dear = False
        self._whole_at = float("-inf")
        self._claim_whole = False
        self._floor = 0
        self._next_floor = 0
        self._highest = 0
        self._moved_at = float("-inf")

    def for_poll(self, now: float) -> int:
        """Return the position where a poll begins; 0 for a whole poll, which must be reported to `looked`."""
        return 0 if now >= self._whole_at else self._floor

    def polled(self, now: float, *, seconds: float, dead_rows: int, found: bool) -> None:
        """Record the duration of a whole poll, the dead rows that it may have skipped, and whether an event waited."""
        if not found and seconds <= DEAR_SECONDS:
            self._claim_is_dear = False  # the poll has read the whole outbox
        is_dear = (seconds > DEAR_SECONDS or self._claim_is_dear) and dead_rows >= DEAD_ROWS_MIN
        self._dear_count = self._dear_count + 1 if is_dear else 0
        self._whole_at = now
        if self._is_dear():
            self._claim_whole = found and seconds <= HOPELESS_SECONDS
            self._whole_at += min(
                max(seconds / WHOLE_COST_SHARE, WHOLE_SECONDS_MIN), WHOLE_SECONDS_MAX
            )

    def for_claim(self) -> int:
        """Return the position where a claim begins; 0 for a whole claim."""
        if self._claim_whole or not self._is_dear():
            self._claim_whole = False
            return 0
        return self._floor

    def claimed(self, now: float, position: int) -> None:
        """Record the highest position of a committed claim."""
        self._highest = max(self._highest, position)
        if now - self._moved_at >= TRAIL_SECONDS:
            self._floor, self._next_floor = self._next_floor, self._highest
            self._moved_at = now

    def claimed_whole(self, *, seconds: float, events_count: int) -> None:
        """Record the duration of a whole claim, because a poll stops at the first event and may find it early."""
        if events_count <= DEAR_CLAIM_EVENTS_MAX:
            self._claim_is_dear = seconds > DEAR_CLAIM_SECONDS

    def failed(self) -> None:
        """Reset the floor after a failed claim: after a server crash, claimed events may be waiting below it."""
        self._floor = self._next_floor = self._highest = 0

    def _is_dear(self) -> bool:
        return self._dear_count >= DEAR_LOOKS
