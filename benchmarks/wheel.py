"""The wheel against heapq and loop.call_later: time and memory of a million timers, and lateness.

`python -m benchmarks wheel [--short] [--timers N] [--rounds N] [--json PATH]`. Every round does the same work
on each contender in turn, so that only ratios within one run are compared: schedule all timers,
cancel one in ten in random order, schedule those again, fire everything. The wheel and the heap
fire in steps of 1 ms over a span in which 10,000 are due each second; the event loops, which
follow the real clock, fire after all is due, in one go. Times are CPU time of this thread. Memory
is what tracemalloc counts beside the keys, in a pass of its own. Lateness is that of a uvloop
that sleeps by `next_due_ms`, with 10,000 timers due each second.
"""

import asyncio
import gc
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Protocol

import uvloop

from benchmarks.harness import Goal, arguments, write_results
from dispatcher.core.wheel import Wheel

DUE_PER_SECOND = 10_000
CANCELLED_SHARE = 0.1
LATENESS_SECONDS = 5
START_MS = 1_790_000_000_123
GOAL_MICROSECONDS = 1.5
GOAL_BYTES = 100
GOAL_LATENESS_SECONDS = 0.05


class Contender(Protocol):
    """What is compared; ticks count from the start of the round."""

    def schedule(self, key: str, delay_ms: int) -> None:
        """Adds a timer."""

    def cancel(self, key: str) -> object:
        """Takes it away."""

    def fire_all(self, span_ms: int) -> int:
        """Fires all timers and returns how many there were."""

    def close(self) -> None:
        """Gives back what it holds."""


class _WheelContender:
    """Ours."""

    def __init__(self) -> None:
        self.wheel = Wheel[str](START_MS)
        self.cancel = self.wheel.cancel

    def schedule(self, key: str, delay_ms: int) -> None:
        self.wheel.schedule(key, START_MS + delay_ms)

    def fire_all(self, span_ms: int) -> int:
        advance = self.wheel.advance
        return sum(len(advance(START_MS + elapsed_ms)) for elapsed_ms in range(span_ms + 1))

    def close(self) -> None:
        pass


class _HeapContender:
    """A heap of (due, key), and a dict of what is live: the usual way to cancel in a heap."""

    def __init__(self) -> None:
        self.heap: list[tuple[int, str]] = []
        self.due_by_key: dict[str, int] = {}

    def schedule(self, key: str, delay_ms: int) -> None:
        due_ms = START_MS + delay_ms
        self.due_by_key[key] = due_ms
        heappush(self.heap, (due_ms, key))

    def cancel(self, key: str) -> None:
        self.due_by_key.pop(key, None)

    def fire_all(self, span_ms: int) -> int:
        heap, due_by_key = self.heap, self.due_by_key
        fired_count = 0
        for elapsed_ms in range(span_ms + 1):
            now_ms = START_MS + elapsed_ms
            fired = []
            while heap and heap[0][0] <= now_ms:
                due_ms, key = heappop(heap)
                if due_by_key.get(key) == due_ms:
                    del due_by_key[key]
                    fired.append(key)
            fired_count += len(fired)
        return fired_count

    def close(self) -> None:
        pass


class _LoopContender:
    """`call_later` of an event loop, with a handle kept for each key as a canceller needs it."""

    def __init__(self, make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.loop = make_loop()
        self.handles: dict[str, asyncio.TimerHandle] = {}
        self.fired_count = 0

    def schedule(self, key: str, delay_ms: int) -> None:
        # A thousandth of the span, or firing would have to wait for the real clock.
        self.handles[key] = self.loop.call_later(delay_ms / 1e6, self._fire, key)

    def _fire(self, key: str) -> None:
        del self.handles[key]
        self.fired_count += 1
        if not self.handles:
            self.loop.stop()

    def cancel(self, key: str) -> None:
        self.handles.pop(key).cancel()

    def fire_all(self, span_ms: int) -> int:
        del span_ms
        self.loop.run_forever()
        return self.fired_count

    def close(self) -> None:
        self.loop.close()


CONTENDERS: dict[str, Callable[[], Contender]] = {
    "wheel": _WheelContender,
    "heapq": _HeapContender,
    "asyncio.call_later": lambda: _LoopContender(asyncio.SelectorEventLoop),
    "uvloop.call_later": lambda: _LoopContender(uvloop.new_event_loop),
}


def measure_round(
    make: Callable[[], Contender], keys: list[str], delays_ms: list[int], cancelled: list[int]
) -> dict[str, float]:
    """Returns microseconds of schedule, cancel and fire for one contender."""
    gc.collect()
    contender = make()
    span_ms = max(delays_ms)
    begun = time.thread_time()
    for key, delay_ms in zip(keys, delays_ms, strict=True):
        contender.schedule(key, delay_ms)
    scheduled = time.thread_time()
    for number in cancelled:
        contender.cancel(keys[number])
    cancelled_at = time.thread_time()
    for number in cancelled:
        contender.schedule(keys[number], delays_ms[number])
    # An event loop has by now more than a thousandth of the span behind it: all is due.
    ready = time.thread_time()
    fired_count = contender.fire_all(span_ms)
    fired = time.thread_time()
    contender.close()
    if fired_count != len(keys):
        raise RuntimeError(f"{fired_count} of {len(keys)} timers fired")
    return {
        "schedule": (scheduled - begun) / len(keys) * 1e6,
        "cancel": (cancelled_at - scheduled) / len(cancelled) * 1e6,
        "fire": (fired - ready) / len(keys) * 1e6,
    }


def measure_bytes(make: Callable[[], Contender], keys: list[str], delays_ms: list[int]) -> float:
    """Returns the bytes that one timer takes beside its key."""
    gc.collect()
    contender = make()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for key, delay_ms in zip(keys, delays_ms, strict=True):
        contender.schedule(key, delay_ms)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for key in keys:
        contender.cancel(key)
    contender.close()
    return (after - before) / len(keys)


def measure_lateness(seconds: int) -> dict[str, float]:
    """Returns percentiles of how late timers fire on a uvloop that sleeps by the wheel's bound."""
    chance = random.Random(7)  # noqa: S311 -- a seeded load, no secret
    count = seconds * DUE_PER_SECOND
    late_seconds: list[float] = []

    async def drive() -> None:
        loop = asyncio.get_running_loop()
        wheel = Wheel[str](0)
        begun = loop.time() + 0.2
        due_ms_by_key = {
            f"wh_{number:026d}": chance.randrange(seconds * 1_000) for number in range(count)
        }
        for key, due_ms in due_ms_by_key.items():
            wheel.schedule(key, due_ms)
        while (bound_ms := wheel.next_due_ms()) is not None:
            await asyncio.sleep(max(0.0, begun + bound_ms / 1_000 - loop.time()))
            now = loop.time() - begun
            late_seconds.extend(
                now - due_ms_by_key[key] / 1_000 for key in wheel.advance(int(now * 1_000))
            )

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(drive())
    if len(late_seconds) != count or min(late_seconds) < -1e-6:  # seconds as floats
        raise RuntimeError("a timer was lost or early")
    cuts = statistics.quantiles(late_seconds, n=100)
    return {"p50": cuts[49], "p99": cuts[98], "max": max(late_seconds)}


def summarise(rounds: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, list[float]]]:
    """Returns [median, least, greatest] by contender and operation."""
    return {
        name: {
            operation: [
                statistics.median(each[operation] for each in results),
                min(each[operation] for each in results),
                max(each[operation] for each in results),
            ]
            for operation in ("schedule", "cancel", "fire")
        }
        for name, results in rounds.items()
    }


def main() -> None:
    """Measures, prints a table, and writes it as JSON where asked."""
    options = arguments(
        "wheel",
        __doc__,
        short={"timers": 200_000, "rounds": 3},
        full={"timers": 1_000_000, "rounds": 5},
    )

    # First: a million keys make every garbage collection of what comes after them slow.
    lateness_seconds = measure_lateness(LATENESS_SECONDS)

    chance = random.Random(1)  # noqa: S311 -- a seeded load, no secret
    count = options.timers
    keys = [f"wh_{number:026d}" for number in range(count)]
    span_ms = max(1, count * 1_000 // DUE_PER_SECOND)
    delays_ms = [chance.randint(1, span_ms) for _ in keys]
    cancelled = chance.sample(range(count), max(1, int(count * CANCELLED_SHARE)))

    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(options.rounds):
        for name, make in CONTENDERS.items():
            rounds[name].append(measure_round(make, keys, delays_ms, cancelled))
    microseconds = summarise(rounds)
    bytes_each = {name: measure_bytes(make, keys, delays_ms) for name, make in CONTENDERS.items()}

    print(f"{count:,} timers, {options.rounds} rounds, medians, us (ratio to the wheel)")
    print(f"{'':20}{'schedule':>16}{'cancel':>16}{'fire':>16}{'bytes':>10}")
    for name, operations in microseconds.items():
        cells = [
            f"{figures[0]:8.2f} ({figures[0] / microseconds['wheel'][operation][0]:4.1f})"
            for operation, figures in operations.items()
        ]
        print(f"{name:20}{''.join(f'{cell:>16}' for cell in cells)}{bytes_each[name]:10.0f}")
    print(f"goal{'':16}{3 * f'{GOAL_MICROSECONDS:>16}'}{GOAL_BYTES:>10}")
    print(
        f"lateness at {DUE_PER_SECOND:,} due/s:"
        f" p50 {lateness_seconds['p50'] * 1e3:.2f} ms, p99 {lateness_seconds['p99'] * 1e3:.2f} ms,"
        f" max {lateness_seconds['max'] * 1e3:.2f} ms (goal: p99 {GOAL_LATENESS_SECONDS * 1e3:.0f})"
    )
    ours = rounds["wheel"]
    goals = [
        *(
            Goal(
                7, f"{operation}, µs per timer of {count:,}", GOAL_MICROSECONDS,
                [one[operation] for one in ours], at_least=False,
            )
            for operation in ("schedule", "cancel", "fire")
        ),
        Goal(7, "bytes per timer", GOAL_BYTES, [bytes_each["wheel"]], at_least=False),
        Goal(
            7, f"lateness p99 at {DUE_PER_SECOND:,} due/s, ms", GOAL_LATENESS_SECONDS * 1e3,
            [lateness_seconds["p99"] * 1e3], at_least=False,
        ),
    ]  # fmt: skip
    figures: dict[str, object] = {
        "timers": count,
        "microseconds_median_min_max": microseconds,
        "bytes_per_timer": bytes_each,
        "lateness_seconds": lateness_seconds,
    }
    write_results("wheel", figures, options.json, goals)


if __name__ == "__main__":
    main()
