"""What can be measured without a quiet machine: bytes of a timer, and the hot path beside plain Python in one run."""

import asyncio
import os
import time
import tracemalloc

import pytest

from benchmarks import stages
from dispatcher.core.wheel import Wheel
from dispatcher.telemetry import logs

TIMERS = 20_000
TIMER_BYTES_MAX = 100
# 5.5 when it was written; twice that is a gross regression, whatever the machine.
STAGES_OVER_PLAIN_MAX = 11.0


def test_a_timer_takes_at_most_100_bytes_beside_its_key():
    keys = [f"wh_{number:026d}" for number in range(TIMERS)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        wheel = Wheel[str](0)
        for number, key in enumerate(keys):
            wheel.schedule(key, 1 + number * 7_919 % 60_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Times kept beside the keys are ours to pay as well.
    assert (after - before) / TIMERS <= TIMER_BYTES_MAX


class Plain:
    """Calls, attributes, tuples and a dictionary: what the interpreter's speed is made of."""

    __slots__ = ("seen", "total")

    def __init__(self) -> None:
        self.seen: dict[int, tuple[int, int]] = {}
        self.total = 0

    def take(self, number: int) -> int:
        pair = (number, number + 1)
        self.seen[number & 1023] = pair
        self.total += pair[1]
        return self.total


def plain_us(calls: int) -> float:
    """Returns µs of CPU for forty such calls."""
    plain = Plain()
    started = time.thread_time()
    for number in range(calls):
        plain.take(number)
    return (time.thread_time() - started) / calls * 40 * 1e6


@pytest.mark.slow
def test_the_hot_path_costs_no_more_than_its_multiple_of_plain_python():
    nowhere = os.open(os.devnull, os.O_WRONLY)
    logs.configure(form="json", level="info", version="1", descriptor=nowhere)
    try:
        ratios = []
        for _ in range(5):
            plain = plain_us(20_000)
            figures = asyncio.run(stages.measure(8))
            ratios.append(sum(map(min, figures.values())) / plain)
    finally:
        logs.shut_down()
        os.close(nowhere)
    assert min(ratios) < STAGES_OVER_PLAIN_MAX
