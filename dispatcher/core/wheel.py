"""A hierarchical timing wheel: keys by the millisecond at which they are due, and the next time to advance.

A *tick* is one millisecond. Each *level* is a wheel of *buckets*. A bucket is opened once, when the
clock reaches its start, and its entries move to the levels below::

    far      buckets of 17.5 min     delays from 17.5 min, without an end
    middle   buckets of 1.024 s      delays from 1.024 s
    near     buckets of 16 ms        delays under 1.024 s
    slice    the 16 ms around now    sorted by tick; due keys are removed from its front

A timer therefore costs one append when it is scheduled, and one more per level that it descends,
regardless of the number of timers. Only the slice is sorted, a few keys at a time.

Buckets are found by their *absolute* number (tick // width), not by a position on a ring, and each
level has a heap of the numbers in use, like Kafka's queue of buckets. Nothing wraps around, no delay is
too long, and a jump over an empty day costs nothing. The known bugs of timing wheels at exact multiples
of a revolution (akka issues 869 and 1016) therefore cannot occur.

Invariants:

* `_due_by_key` is authoritative, and an entry in a list is only a hint that is checked against it.
  Cancelling and moving leave an old entry behind, which is dropped when it reaches the slice. If such
  *stale* entries outnumber the live ones, all buckets are rebuilt, so that their memory is bounded. This
  is checked whenever a key is scheduled and whenever the clock advances.
* A live key has an entry in the unopened bucket, or in the slice, whose span contains its tick. It may
  have several such entries: the first one reached fires the key, and the others are stale.
* Of the buckets that start at one tick, the higher level is opened first, so that a bucket is complete
  when it becomes the slice. All waiting keys that are due before `_slice_end_ms` are in the slice.
* No key fires before its tick, and no key is skipped. The wheel's time never goes back.

A crash loses nothing, because the wheel is a cache of due times that are in Postgres. A slow Postgres or
receiver does not affect it. Opening a bucket is one uninterrupted step of some 0.2 µs per key. The
middle level is as wide as it is so that a window of ten minutes is never in one bucket.

Cost at a million timers: `benchmarks/wheel.py`. Memory per timer: 31 bytes of dict, 32 of the tick's
integer and 18 of bucket, in addition to its key.
"""

from collections.abc import Hashable, Iterable
from heapq import heappop, heappush
from typing import Any, Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

_NEAR_BITS: Final = 4
_MIDDLE_BITS: Final = 10
_FAR_BITS: Final = 20
_MIDDLE_WIDTH_MS: Final = 1 << _MIDDLE_BITS
_FAR_WIDTH_MS: Final = 1 << _FAR_BITS

# Fewer stale entries than this are not worth a rebuild of the buckets.
_STALE_ENTRIES_MAX: Final = 1024


class Wheel(Generic[Key]):
    """Holds keys until their tick; the caller supplies the time. One task uses it."""

    __slots__ = (
        "_due_by_key",
        "_entry_count",
        "_far",
        "_far_numbers",
        "_middle",
        "_middle_numbers",
        "_near",
        "_near_numbers",
        "_now_ms",
        "_slice",
        "_slice_end_ms",
        "_slice_first_ms",
        "_slice_is_sorted",
    )

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._due_by_key: dict[Key, int] = {}
        self._clear_buckets()

    def _clear_buckets(self) -> None:
        """Clear every list and set the slice around now."""
        # The number of live and stale entries in all the lists below.
        self._entry_count = 0
        # Each level: buckets by absolute number, and a heap of those numbers. A bucket of the upper
        # two alternates keys and ticks, therefore Any. This costs eight bytes more per entry, but a
        # look-up by key misses the processor's caches and took longer than the rest of the move. Two
        # parallel lists were slower by a sixth.
        self._far: dict[int, list[Any]] = {}
        self._far_numbers: list[int] = []
        self._middle: dict[int, list[Any]] = {}
        self._middle_numbers: list[int] = []
        self._near: dict[int, list[Key]] = {}
        self._near_numbers: list[int] = []
        self._slice: list[Key] = []
        self._slice_is_sorted = True
        self._slice_end_ms = ((self._now_ms >> _NEAR_BITS) + 1) << _NEAR_BITS
        # No later than the first live tick of the slice; meaningless while the slice is empty.
        self._slice_first_ms = self._slice_end_ms

    def __len__(self) -> int:
        return len(self._due_by_key)

    def __contains__(self, key: object) -> bool:
        return key in self._due_by_key

    def schedule(self, key: Key, due_ms: int) -> None:
        """Set the tick at which the key fires; move the key if it is already waiting.

        A tick in the past fires at the next `advance`.
        """
        self._due_by_key[key] = due_ms
        self._place(key, due_ms)
        if self._entry_count > 2 * len(self._due_by_key) + _STALE_ENTRIES_MAX:
            self._rebuild()

    def cancel(self, key: Key) -> bool:
        """Remove the key, so that it never fires; return whether it was waiting."""
        # The stale entry stays. It adds no memory, and `schedule`, which adds some, checks the bound.
        return self._due_by_key.pop(key, None) is not None

    def cancel_all(self, keys: Iterable[Key]) -> None:
        """Remove all of these keys that are waiting; 40 % cheaper than one call per key."""
        pop = self._due_by_key.pop
        for key in keys:
            pop(key, None)

    def next_due_ms(self) -> int | None:
        """Return a tick no later than that of the next key, or None if no key is waiting.

        Advancing to it fires a key, opens a bucket or drops stale entries. A caller that sleeps until it
        and advances therefore wakes at most four times for one key.
        """
        if not self._due_by_key:
            return None
        # The keys of the slice are due before those of every bucket.
        if self._slice:
            return self._slice_first_ms
        return self._next_opening_ms()

    def advance(self, now_ms: int) -> list[Key]:
        """Remove and return every key that is due by now, in the order of their ticks.

        A `now_ms` before an earlier one does not move the time back and fires nothing early.
        """
        fired: list[Key] = []
        if self._slice:
            self._fire(now_ms, fired)
        if now_ms > self._now_ms:
            while (opens_at_ms := self._next_opening_ms()) is not None and opens_at_ms <= now_ms:
                if self._open(opens_at_ms):
                    self._fire(now_ms, fired)
            self._now_ms = now_ms
            if now_ms >= self._slice_end_ms:
                self._start_slice([], now_ms)
        if self._entry_count > 2 * len(self._due_by_key) + _STALE_ENTRIES_MAX:
            self._rebuild()
        return fired

    def _place(self, key: Key, due_ms: int) -> None:
        """Add an entry at the level of its delay; the chosen bucket is always unopened."""
        self._entry_count += 1
        delay_ms = due_ms - self._now_ms
        if delay_ms >= _FAR_WIDTH_MS:
            number = due_ms >> _FAR_BITS
            bucket = self._far.get(number)
            if bucket is None:
                self._far[number] = [key, due_ms]
                heappush(self._far_numbers, number)
            else:
                bucket += (key, due_ms)
        elif delay_ms >= _MIDDLE_WIDTH_MS:
            number = due_ms >> _MIDDLE_BITS
            bucket = self._middle.get(number)
            if bucket is None:
                self._middle[number] = [key, due_ms]
                heappush(self._middle_numbers, number)
            else:
                bucket += (key, due_ms)
        elif due_ms >= self._slice_end_ms:
            number = due_ms >> _NEAR_BITS
            keys = self._near.get(number)
            if keys is None:
                self._near[number] = [key]
                heappush(self._near_numbers, number)
            else:
                keys.append(key)
        else:
            if not self._slice or due_ms < self._slice_first_ms:
                self._slice_first_ms = due_ms
            self._slice.append(key)
            self._slice_is_sorted = False

    def _next_opening_ms(self) -> int | None:
        """Return the tick at which the first bucket in use starts, or None if there is none."""
        starts_ms = None
        if self._near_numbers:
            starts_ms = self._near_numbers[0] << _NEAR_BITS
        if self._middle_numbers:
            middle_ms = self._middle_numbers[0] << _MIDDLE_BITS
            if starts_ms is None or middle_ms < starts_ms:
                starts_ms = middle_ms
        if self._far_numbers:
            far_ms = self._far_numbers[0] << _FAR_BITS
            if starts_ms is None or far_ms < starts_ms:
                starts_ms = far_ms
        return starts_ms

    def _open(self, starts_ms: int) -> bool:
        """Open the buckets that start at a tick, the highest first; return whether there is a new slice."""
        if self._far_numbers and self._far_numbers[0] << _FAR_BITS == starts_ms:
            self._spread(self._far.pop(heappop(self._far_numbers)), starts_ms)
        if self._middle_numbers and self._middle_numbers[0] << _MIDDLE_BITS == starts_ms:
            self._spread(self._middle.pop(heappop(self._middle_numbers)), starts_ms)
        if self._near_numbers and self._near_numbers[0] << _NEAR_BITS == starts_ms:
            self._start_slice(self._near.pop(heappop(self._near_numbers)), starts_ms)
            return True
        return False

    def _spread(self, opened: list[Any], starts_ms: int) -> None:
        """Move the entries of an opened bucket, including the stale ones, one or two levels down."""
        near, near_numbers = self._near, self._near_numbers
        middle, middle_numbers = self._middle, self._middle_numbers
        near_end_ms = starts_ms + _MIDDLE_WIDTH_MS
        alternating = iter(opened)
        for key, due_ms in zip(alternating, alternating, strict=True):
            if due_ms < near_end_ms:
                number = due_ms >> _NEAR_BITS
                keys = near.get(number)
                if keys is None:
                    near[number] = [key]
                    heappush(near_numbers, number)
                else:
                    keys.append(key)
            else:
                number = due_ms >> _MIDDLE_BITS
                bucket = middle.get(number)
                if bucket is None:
                    middle[number] = [key, due_ms]
                    heappush(middle_numbers, number)
                else:
                    bucket += (key, due_ms)

    def _start_slice(self, keys: list[Key], within_ms: int) -> None:
        """Replace the slice with these keys; the entries that the old slice still has are stale."""
        self._entry_count -= len(self._slice)
        self._slice = keys
        self._slice_is_sorted = False
        self._slice_end_ms = ((within_ms >> _NEAR_BITS) + 1) << _NEAR_BITS

    def _fire(self, now_ms: int, fired: list[Key]) -> None:
        """Move the due keys of the slice to `fired`."""
        due_by_key = self._due_by_key
        keys = self._slice
        if not self._slice_is_sorted:
            self._entry_count -= len(keys)
            keys = self._slice = [key for key in keys if key in due_by_key]
            keys.sort(key=due_by_key.__getitem__)
            self._slice_is_sorted = True
            self._entry_count += len(keys)
        slice_end_ms = self._slice_end_ms
        taken_count = 0
        for key in keys:
            due_ms = due_by_key.get(key)
            # A key that was moved behind the slice since the sort has another entry elsewhere.
            if due_ms is not None and due_ms < slice_end_ms:
                if due_ms > now_ms:
                    self._slice_first_ms = due_ms
                    break
                del due_by_key[key]
                fired.append(key)
            taken_count += 1
        del keys[:taken_count]
        self._entry_count -= taken_count

    def _rebuild(self) -> None:
        """Rebuild all buckets from `_due_by_key`, without the stale entries."""
        self._clear_buckets()
        for key, due_ms in self._due_by_key.items():
            self._place(key, due_ms)
