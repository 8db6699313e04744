"""Runs the collector of reference cycles less often than Python does, and never for long.

Neither imports nor deliveries create many cycles: with the default thresholds, the collector took a tenth of the CPU
time of a start and a twelfth of that of a drain. What it does at once holds up every delivery, and freeing 100,000
objects takes 0.1 s. So a daemon collects after a number that takes some milliseconds, and the oldest objects, the
deliveries in memory among them, hardly ever. Requests leave no cycles (`tests/admin/test_garbage.py`); pages do.
"""

import gc
from typing import Final

_STARTING: Final = (100_000, 20, 100)
_RUNNING: Final = (5_000, 10, 4_000)
"""New objects until a collection, and how many collections of a generation there are until one of the next."""


def collect_rarely() -> None:
    """Collect after 100,000 new objects instead of 700."""
    gc.set_threshold(*_STARTING)


def exclude_the_start() -> None:
    """Collect often enough that no collection takes long, and exclude all present objects.

    It does not collect first. That took 0.1 s of CPU time at each start and found 159 objects.
    """
    gc.freeze()
    gc.set_threshold(*_RUNNING)
