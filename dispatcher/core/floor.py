"""From which position on the outbox is looked at, when looking at all of it has become dear.

Rows that were taken are dead, and stay in the way of every look at the outbox for as long as vacuum
may not clear them: a long transaction somewhere is enough. The rows of a producer's transaction that has
not ended are in the way too: 600,000 of them cost each look half a second. Then claims pass over what was
taken long ago, and begin at a floor, which trails what was claimed by some tenths of a second.

What is always true: the floor is a saving and never the truth. Commits come out of order, so an
event may come to light below it. Therefore the whole outbox is still looked at, each three to
fifteen seconds, the more seldom the dearer it is (some 2 % of the time); a look that finds
something there is followed by a claim without a floor; a claim that failed forgets it. As long as looks
are cheap, and until it has been seen twice that they are not, there is none. Nothing of it survives
a crash, and nothing has to.
"""

DEAR_SECONDS = 0.003
"""A look at everything that takes longer may be dear: some thousand dead rows, or more."""
DEAR_CLAIM_SECONDS = 0.05
DEAR_CLAIM_EVENTS_MAX = 100
"""A claim of so few events takes a few milliseconds, unless rows are in its way."""
DEAD_ROWS_MIN = 5_000
"""With fewer it is the machine that is slow, and a floor would save nothing."""
DEAR_LOOKS = 2
"""In a row: a single one is the machine's doing."""
WHOLE_SECONDS_MIN = 3.0
WHOLE_SECONDS_MAX = 15.0
WHOLE_COST_SHARE = 0.02
HOPELESS_SECONDS = 2.0
"""A look at everything that takes longer is followed by no claim of everything, which Postgres would cut off."""
TRAIL_SECONDS = 0.25
"""The floor is what was claimed one to two of these ago: most transactions commit within it."""


class Floor:
    """What one replica knows; its time is any that only grows."""

    def __init__(self) -> None:
        self._dear_count = 0
        self._claim_is_dear = False
        self._whole_at = float("-inf")
        self._claim_whole = False
        self._floor = 0
        self._next_floor = 0
        self._highest = 0
        self._moved_at = float("-inf")

    def for_look(self, now: float) -> int:
        """Return where a look begins; 0: at everything, which `looked` has to be told of."""
        return 0 if now >= self._whole_at else self._floor

    def looked(self, now: float, *, seconds: float, dead_rows: int, found: bool) -> None:
        """Take how long a look at everything took, what may have been in its way, and whether anything waited."""
        if not found and seconds <= DEAR_SECONDS:
            self._claim_is_dear = False  # it has seen everything
        is_dear = (seconds > DEAR_SECONDS or self._claim_is_dear) and dead_rows >= DEAD_ROWS_MIN
        self._dear_count = self._dear_count + 1 if is_dear else 0
        self._whole_at = now
        if self._is_dear():
            self._claim_whole = found and seconds <= HOPELESS_SECONDS
            self._whole_at += min(
                max(seconds / WHOLE_COST_SHARE, WHOLE_SECONDS_MIN), WHOLE_SECONDS_MAX
            )

    def for_claim(self) -> int:
        """Return where a claim begins."""
        if self._claim_whole or not self._is_dear():
            self._claim_whole = False
            return 0
        return self._floor

    def claimed(self, now: float, position: int) -> None:
        """Take the highest position of a claim that was committed."""
        self._highest = max(self._highest, position)
        if now - self._moved_at >= TRAIL_SECONDS:
            self._floor, self._next_floor = self._next_floor, self._highest
            self._moved_at = now

    def claimed_whole(self, *, seconds: float, events_count: int) -> None:
        """Note what a claim of everything cost: a look stops at the first event, and may find it early."""
        if events_count <= DEAR_CLAIM_EVENTS_MAX:
            self._claim_is_dear = seconds > DEAR_CLAIM_SECONDS

    def failed(self) -> None:
        """Take that a claim came to nothing, perhaps with its server: nothing is known of what lies below."""
        self._floor = self._next_floor = self._highest = 0

    def _is_dear(self) -> bool:
        return self._dear_count >= DEAR_LOOKS
