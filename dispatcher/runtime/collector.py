"""Runs the collector of reference cycles less often than Python does.

Neither imports nor deliveries create many cycles: with the default thresholds, the collector took a tenth of the CPU
time of a start and a twelfth of that of a drain. The next collection of the thresholds below removes what there is.
"""

import gc


def collect_rarely() -> None:
    """Collect after 100,000 new objects instead of 700."""
    gc.set_threshold(100_000, 20, 100)


def exclude_the_start() -> None:
    """Collect rarely, and exclude all present objects.

    It does not collect first. That took 0.1 s of CPU time at each start and found 159 objects.
    """
    collect_rarely()
    gc.freeze()
