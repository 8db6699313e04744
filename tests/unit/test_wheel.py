"""The wheel against a sorted list (T1), with known-bad wheels that the same machine must refuse."""

import random
from unittest import mock

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dispatcher.core import wheel as wheel_module
from dispatcher.core.wheel import Wheel

DAY_MS = 86_400_000
TURNS_MS = (16, 1_024, 1_048_576)
# A wall clock and zero: the first makes every number large, the second starts on every boundary.
STARTS_MS = (0, 1_790_000_000_123)

KEYS = st.sampled_from([f"wh_{number}" for number in range(6)])
AROUND_A_TURN_MS = st.builds(
    lambda turn_ms, turns, off_by: turn_ms * turns + off_by,
    st.sampled_from(TURNS_MS),
    st.integers(1, 3),
    st.integers(-1, 1),
)
DELAYS_MS = st.one_of(
    st.integers(-20, 40),
    st.integers(0, 3_000),
    AROUND_A_TURN_MS,
    st.integers(0, 7 * DAY_MS),
    st.just(400 * DAY_MS),
)


class WheelMachine(RuleBasedStateMachine):
    """Does the same to a wheel and to a dict that is searched in full."""

    wheel_type: type[Wheel[str]] = Wheel
    start_ms = STARTS_MS[0]

    def __init__(self) -> None:
        super().__init__()
        # Stale entries are dropped early, so that short runs meet it.
        self.patch = mock.patch.object(wheel_module, "_STALE_ENTRIES_MAX", 3)
        self.patch.start()
        self.now_ms = self.start_ms
        self.wheel = self.wheel_type(self.now_ms)
        self.model: dict[str, int] = {}

    def teardown(self) -> None:
        self.advance_to(self.now_ms + 800 * DAY_MS)
        assert not self.model
        self.patch.stop()

    def advance_to(self, now_ms: int) -> None:
        fired = self.wheel.advance(now_ms)
        due = {key: due_ms for key, due_ms in self.model.items() if due_ms <= now_ms}
        assert sorted(fired) == sorted(due)
        assert [due[key] for key in fired] == sorted(due.values())
        for key in due:
            del self.model[key]
        self.now_ms = max(self.now_ms, now_ms)

    @rule(key=KEYS, delay_ms=DELAYS_MS)
    def schedule_or_move(self, key: str, delay_ms: int) -> None:
        self.wheel.schedule(key, self.now_ms + delay_ms)
        self.model[key] = self.now_ms + delay_ms

    @rule(
        key=KEYS,
        turn_ms=st.sampled_from(TURNS_MS),
        turns=st.integers(1, 3),
        off_by_ms=st.integers(-1, 1),
    )
    def schedule_around_a_boundary(
        self, key: str, turn_ms: int, turns: int, off_by_ms: int
    ) -> None:
        due_ms = (self.now_ms // turn_ms + turns) * turn_ms + off_by_ms
        self.wheel.schedule(key, due_ms)
        self.model[key] = due_ms

    @precondition(lambda self: self.model)
    @rule(
        key=KEYS,
        off_by_ms=st.integers(-1, 2),
        before_ms=st.sampled_from((1, 100, 1_000)),
        advances=st.booleans(),
    )
    def come_near_the_next_key_and_schedule_beside_it(
        self, key: str, off_by_ms: int, before_ms: int, advances: bool
    ) -> None:
        next_ms = min(self.model.values())
        self.advance_to(max(self.now_ms, next_ms - before_ms))
        self.wheel.schedule(key, next_ms + off_by_ms)
        self.model[key] = next_ms + off_by_ms
        if advances:
            self.advance_to(max(self.now_ms, next_ms))

    @rule(key=KEYS)
    def cancel(self, key: str) -> None:
        assert self.wheel.cancel(key) is (self.model.pop(key, None) is not None)

    @rule()
    def cancel_all(self) -> None:
        for key in list(self.model):
            assert self.wheel.cancel(key)
        self.model.clear()

    @rule(elapsed_ms=st.one_of(st.sampled_from((0, 1)), st.integers(0, 40), AROUND_A_TURN_MS))
    def advance(self, elapsed_ms: int) -> None:
        self.advance_to(self.now_ms + elapsed_ms)

    @rule(turn_ms=st.sampled_from(TURNS_MS))
    def advance_to_a_boundary(self, turn_ms: int) -> None:
        self.advance_to((self.now_ms // turn_ms + 1) * turn_ms)

    @rule()
    def advance_to_the_bound(self) -> None:
        bound_ms = self.wheel.next_due_ms()
        if bound_ms is None:
            return
        count = len(self.model)
        self.advance_to(bound_ms)
        after_ms = self.wheel.next_due_ms()
        assert after_ms is None or after_ms > bound_ms or len(self.model) < count

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert len(self.wheel) == len(self.model)
        for key, due_ms in self.model.items():
            assert key in self.wheel
            assert self.wheel._due_by_key[key] == due_ms

    @invariant()
    def the_bound_is_never_late(self) -> None:
        bound_ms = self.wheel.next_due_ms()
        if self.model:
            assert bound_ms is not None
            assert bound_ms <= min(self.model.values())
        else:
            assert bound_ms is None


class LosesExactMultiples(Wheel[str]):
    """Known bad: what is due at the very start of a bucket falls between two turns."""

    def _spread(self, opened, starts_ms):
        pairs = zip(opened[::2], opened[1::2], strict=True)
        kept = [pair for pair in pairs if pair[1] != starts_ms]
        super()._spread([part for pair in kept for part in pair], starts_ms)


class LateAtExactMultiples(Wheel[str]):
    """Known bad: at the last tick of a turn the wheel believes that it is not over yet."""

    def advance(self, now_ms):
        return super().advance(now_ms - (now_ms % 1_024 == 0))


class EarlyByATick(Wheel[str]):
    """Known bad: a tick counts as over when it begins."""

    def advance(self, now_ms):
        return super().advance(now_ms + 1)


class OpensLowerLevelsFirst(Wheel[str]):
    """Known bad: the slice is taken before the level above has handed down what belongs to it."""

    def _open(self, starts_ms):
        if self._near_numbers and self._near_numbers[0] << 4 == starts_ms:
            self._start_slice(self._near.pop(self._near_numbers.pop(0)), starts_ms)
            self._near_numbers.sort()
            return True
        return super()._open(starts_ms)


class BelievesItsEntries(Wheel[str]):
    """Known bad: moving a key does not outdate where it stood before."""

    def schedule(self, key, due_ms):
        super().schedule(key, min(due_ms, self._due_by_key.get(key, due_ms)))


# One budget for the wheel and for the known-bad ones: what passes here would have been caught.
EXAMPLES, EXAMPLES_LONG = 15, 2_000


def check(wheel_type: type[Wheel[str]], start_ms: int, examples: int = EXAMPLES) -> None:
    machine = type("Machine", (WheelMachine,), {"wheel_type": wheel_type, "start_ms": start_ms})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            report_multiple_bugs=False,
        ),
    )


@pytest.mark.parametrize("start_ms", STARTS_MS)
def test_fires_each_key_as_a_sorted_list_would(start_ms, long_run):
    check(Wheel, start_ms, EXAMPLES_LONG if long_run else EXAMPLES)


@pytest.mark.parametrize(
    "wheel_type",
    [
        LosesExactMultiples,
        LateAtExactMultiples,
        EarlyByATick,
        OpensLowerLevelsFirst,
        BelievesItsEntries,
    ],
)
def test_the_machine_refuses_a_known_bad_wheel(wheel_type):
    with pytest.raises(AssertionError):
        check(wheel_type, STARTS_MS[0])


def test_many_keys_fire_at_their_tick_when_each_tick_is_advanced():
    chance = random.Random(4711)  # noqa: S311 -- a seeded walk, no secret
    start_ms = STARTS_MS[1]
    wheel = Wheel[str](start_ms)
    due_by_key = {f"wh_{number}": start_ms + chance.randrange(5_000) for number in range(5_000)}
    for key, due_ms in due_by_key.items():
        wheel.schedule(key, due_ms)
    fired_at = {}
    for now_ms in range(start_ms, start_ms + 5_000):
        for key in wheel.advance(now_ms):
            assert key not in fired_at
            fired_at[key] = now_ms
    assert fired_at == due_by_key


def test_an_empty_week_is_jumped_over_without_stepping_through_it():
    wheel = Wheel[str](0)
    wheel.schedule("wh_a", 7 * DAY_MS)
    opened_at = []
    with mock.patch.object(Wheel, "_open", autospec=True, side_effect=Wheel._open) as opened:
        assert wheel.advance(7 * DAY_MS - 1) == []
        assert wheel.advance(9_000 * DAY_MS) == ["wh_a"]
        opened_at = [call.args[1] for call in opened.call_args_list]
    assert len(opened_at) <= 3


def test_a_sleeper_wakes_at_most_four_times_for_one_key():
    wheel = Wheel[str](5)
    wheel.schedule("wh_a", 7 * DAY_MS + 4_321)
    wakes = 0
    fired: list[str] = []
    while (bound_ms := wheel.next_due_ms()) is not None:
        wakes += 1
        assert wakes <= 4
        fired = wheel.advance(bound_ms)
    assert fired == ["wh_a"]


def test_a_past_tick_fires_at_the_next_advance_in_the_order_of_ticks():
    wheel = Wheel[str](1_000)
    wheel.schedule("wh_now", 1_000)
    wheel.schedule("wh_late", -5)
    wheel.schedule("wh_soon", 1_001)
    assert wheel.next_due_ms() == -5
    assert wheel.advance(1_000) == ["wh_late", "wh_now"]
    assert wheel.advance(1_001) == ["wh_soon"]


def test_keys_of_one_tick_fire_in_the_order_they_were_scheduled():
    wheel = Wheel[str](0)
    keys = [f"wh_{number}" for number in range(50)]
    for key in keys:
        wheel.schedule(key, 5_000)
    assert wheel.advance(5_000) == keys


def test_a_clock_that_goes_back_fires_nothing_early_and_loses_nothing():
    wheel = Wheel[str](10_000)
    wheel.schedule("wh_a", 9_990)
    wheel.schedule("wh_b", 10_003)
    wheel.schedule("wh_c", 30_000)
    assert wheel.advance(5_000) == []
    assert wheel.advance(10_000) == ["wh_a"]
    assert wheel.advance(9_000) == []
    assert wheel.advance(30_000) == ["wh_b", "wh_c"]


def test_moving_one_key_for_ever_takes_no_memory():
    wheel = Wheel[str](0)
    for number in range(20_000):
        wheel.schedule("wh_a", DAY_MS + number)
    assert wheel._entry_count < 2_000
    assert wheel.advance(DAY_MS + 19_998) == []
    assert wheel.advance(DAY_MS + 19_999) == ["wh_a"]


def test_cancelling_many_keys_gives_their_memory_back():
    wheel = Wheel[str](0)
    for number in range(10_000):
        wheel.schedule(f"wh_{number}", DAY_MS + number)
    for number in range(1, 10_000):
        assert wheel.cancel(f"wh_{number}")
    assert wheel.advance(1) == []
    assert wheel._entry_count < 2_000
    assert wheel.advance(8 * DAY_MS) == ["wh_0"]
    assert wheel._entry_count == 0


def test_any_hashable_value_is_a_key():
    wheel = Wheel[tuple[str, int]](0)
    wheel.schedule(("shard", 7), 50)
    assert ("shard", 7) in wheel
    assert ("shard", 8) not in wheel
    assert wheel.advance(50) == [("shard", 7)]
