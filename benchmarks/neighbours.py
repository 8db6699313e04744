"""Noisy neighbours: processes that keep a processor busy while something else is measured."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.harness import pinned

_LOOP = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(1_000_000):
        pass
"""
"""It ends by itself a moment after its parent, which may have been killed."""


@contextmanager
def neighbours(count: int) -> Iterator[list[int]]:
    """Runs so many busy loops until the block ends, one per processor in turn; yields their process ids.

    Each has a session of its own, as another service has: Linux shares the processors between sessions first if
    `kernel.sched_autogroup_enabled` is 1. Their priority is that of this process.
    """
    command = [sys.executable, "-I", "-S", "-c", _LOOP, str(os.getpid())]
    with ExitStack() as stack:
        processes = []
        for number in range(count):
            process = subprocess.Popen(
                pinned(number % (os.cpu_count() or 1), command), start_new_session=True
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process.pid)
        yield processes
