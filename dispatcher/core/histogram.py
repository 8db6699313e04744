"""Latencies as counts: sixty-six integers that can be added up, and percentiles read from them.

The bounds grow by the fourth root of two from one millisecond to 65 seconds, so a percentile is
right to within a fifth of itself, whatever its size, and a count costs one binary search. Counts of
different replicas, hours and endpoints are added element by element.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

BOUNDS: Final = tuple(0.001 * 2 ** (step / 4) for step in range(65))
"""Upper bounds in seconds, each included; what is longer than the last one has a count of its own."""
COUNTS: Final = len(BOUNDS) + 1


def place(seconds: float) -> int:
    """Return which count a latency belongs to."""
    return bisect_left(BOUNDS, seconds)


def add_up(many: Iterable[Sequence[int]]) -> list[int]:
    """Return the sum of histograms; of none it is all zeros."""
    total = [0] * COUNTS
    for counts in many:
        for index, count in enumerate(counts):
            if count:
                total[index] += count
    return total


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Return the latency that this share (0 to 1) of all lie below; None where nothing was counted.

    Within a count latencies are taken as evenly spread. Those beyond the last bound are reported as
    as long as it.
    """
    total = sum(counts)
    if not total:
        return None
    wanted = share * total
    before = 0
    for index, count in enumerate(counts):
        if count and before + count >= wanted:
            if index == len(BOUNDS):
                break
            low = BOUNDS[index - 1] if index else 0.0
            return low + (BOUNDS[index] - low) * (wanted - before) / count
        before += count
    return BOUNDS[-1]
