"""Bounds on time that hold on a slow and busy machine: each is relative to a control measured in the same moment.

* `within` for code of this event loop: the bound is a timer of the same loop, so a process that gets
  no CPU delays both.
* `in_time` for other processes: the bound grows with how much longer fixed work takes now than on an
  idle machine, which is measured only if the bound was missed.
* `cpu_cost` for computations: CPU time in passes of plain Python over as many bytes.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

T = TypeVar("T")

TURNS = 20
TURN_SECONDS = 0.001
_LOOPS = 400_000
_IDLE_SECONDS = 0.045
"""Wall time of so many loops on an idle 2.5 GHz core."""
SLOWNESS_MAX = 4.0


async def within(seconds: float, work: Awaitable[T]) -> T:
    """Return what `work` returns; fail the test if a timer that starts now fires first.

    After the timer has fired, the work may use a few more turns of the event loop. On a process that
    got no CPU for a while, the timer and the deadline under test fire in the same turn.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    fired: asyncio.Future[T] = loop.create_future()
    timer = loop.call_later(seconds, fired.cancel)
    try:
        await asyncio.wait({task, fired}, return_when=asyncio.FIRST_COMPLETED)
        for _ in range(TURNS):
            if task.done():
                break
            await asyncio.sleep(TURN_SECONDS)
        else:
            pytest.fail(f"not within {seconds} s")
        return await task
    finally:
        timer.cancel()
        task.cancel()
        await asyncio.wait({task})


def slowness() -> float:
    """Return how much slower this machine runs plain Python now than an idle one: 1 to `SLOWNESS_MAX`."""
    began = time.perf_counter()
    _loop(_LOOPS)
    return min(max((time.perf_counter() - began) / _IDLE_SECONDS, 1.0), SLOWNESS_MAX)


def in_time(seconds: float, seconds_max: float) -> bool:
    """Return whether so many seconds are within the bound on an idle machine, or on this one now."""
    return seconds <= seconds_max or seconds <= seconds_max * slowness()


def _loop(count: int) -> int:
    total = 0
    for number in range(count):
        total += number & 7
    return total


class Cost:
    """The CPU time of a block, once it has ended."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def passes(self, size: int) -> float:
        """Return the cost in passes of plain Python over `size` bytes, measured now."""
        data = bytes(size)
        best = float("inf")
        with _untraced():
            for _ in range(3):
                began = time.thread_time()
                _one_pass(data)
                best = min(best, time.thread_time() - began)
        return self.seconds / best


def _one_pass(data: bytes) -> int:
    total = 0
    for number in data:
        total += number
    return total


@contextmanager
def cpu_cost() -> Iterator[Cost]:
    """Measure the CPU time of a block, without what the coverage tracer would add to it."""
    cost = Cost()
    with _untraced():
        began = time.process_time()
        try:
            yield cost
        finally:
            cost.seconds = time.process_time() - began


@contextmanager
def _untraced() -> Iterator[None]:
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)
