"""The breaker: what opens it, what does not, how it probes, and how it closes."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dispatcher.core import limits
from dispatcher.core.breaker import Breaker, BreakerState

NOW = 5_000.0


def fail(breaker: Breaker, count: int, now: float = NOW, prefix: str = "wh_") -> None:
    for number in range(count):
        breaker.record(now, f"{prefix}{number}", succeeded=False)


def opened() -> Breaker:
    breaker = Breaker()
    fail(breaker, 10)
    assert breaker.state is BreakerState.OPEN
    return breaker


def half_opened(delivery_id: str | None = None) -> Breaker:
    breaker = opened()
    assert breaker.permits(NOW + 5, delivery_id)
    return breaker


def test_a_new_breaker_is_closed_and_permits():
    breaker = Breaker()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.permits(NOW)
    assert breaker.probe_at is None


def test_ten_failed_deliveries_open_it_and_nine_do_not():
    breaker = Breaker()
    fail(breaker, 9)
    assert breaker.permits(NOW)
    breaker.record(NOW, "wh_tenth", succeeded=False)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.permits(NOW)
    assert breaker.probe_at == NOW + 5


def test_one_bad_delivery_closes_no_lane_however_often_it_fails():
    breaker = Breaker()
    for second in range(1_000):
        breaker.record(NOW + second / 100, f"wh_{second % 9}", succeeded=False)
    assert breaker.state is BreakerState.CLOSED


def test_failures_spread_over_almost_a_minute_open_it():
    breaker = Breaker()
    for number in range(10):
        breaker.record(NOW + number * 6.6, f"wh_{number}", succeeded=False)
    assert breaker.state is BreakerState.OPEN


def test_failures_older_than_a_minute_are_forgotten():
    breaker = Breaker()
    for number in range(100):
        breaker.record(NOW + number * 6.7, f"wh_{number}", succeeded=False)
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize(("succeeded_count", "state"), [(2, "open"), (3, "closed")])
def test_the_share_of_failures_must_be_nine_tenths(succeeded_count, state):
    breaker = Breaker()
    for number in range(succeeded_count):
        breaker.record(NOW, f"wh_ok_{number}", succeeded=True)
    fail(breaker, 20)
    assert breaker.state == state


def test_successes_count_for_the_share_in_every_slot_of_the_window():
    breaker = Breaker()
    for second in range(50):
        breaker.record(NOW + second, f"wh_ok_{second}", succeeded=True)
    fail(breaker, 200, now=NOW + 50)
    assert breaker.state is BreakerState.CLOSED


def test_successes_older_than_the_window_do_not_count():
    breaker = Breaker()
    for number in range(1_000):
        breaker.record(NOW, f"wh_ok_{number}", succeeded=True)
    fail(breaker, 10, now=NOW + 66)
    assert breaker.state is BreakerState.OPEN


def test_after_the_cool_down_one_probe_is_let_through():
    breaker = opened()
    assert not breaker.permits(NOW + 4.999)
    assert breaker.permits(NOW + 5)
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.permits(NOW + 5)
    assert not breaker.permits(NOW + 500)
    assert breaker.probe_at is None


def test_a_probe_that_succeeds_closes_it_and_forgets_everything():
    breaker = half_opened()
    breaker.record(NOW + 6, "wh_probe", succeeded=True)
    assert breaker.state is BreakerState.CLOSED
    fail(breaker, 9, now=NOW + 7, prefix="wh_new_")
    assert breaker.permits(NOW + 7)


def test_the_cool_down_doubles_to_five_minutes_and_starts_anew_after_a_success():
    breaker = opened()
    now = NOW
    cool_downs = []
    for _ in range(9):
        assert breaker.probe_at is not None
        cool_downs.append(breaker.probe_at - now)
        now = breaker.probe_at
        assert breaker.permits(now)
        breaker.record(now, "wh_probe", succeeded=False)
    assert cool_downs == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert breaker.probe_at is not None
    now = breaker.probe_at
    assert breaker.permits(now)
    breaker.record(now, "wh_probe", succeeded=True)
    fail(breaker, 10, now=now)
    assert breaker.probe_at == now + 5


def test_an_abandoned_probe_is_given_out_again_and_doubles_nothing():
    breaker = half_opened()
    breaker.probe_abandoned(NOW + 7)
    assert breaker.state is BreakerState.OPEN
    assert breaker.probe_at == NOW + 7
    assert breaker.permits(NOW + 7)
    breaker.record(NOW + 8, "wh_probe", succeeded=False)
    assert breaker.probe_at == NOW + 18


@pytest.mark.parametrize("breaker", [Breaker(), opened()], ids=["closed", "open"])
def test_abandoning_a_probe_that_is_not_out_changes_nothing(breaker):
    before = breaker.state, breaker.probe_at
    breaker.probe_abandoned(NOW + 1)
    assert (breaker.state, breaker.probe_at) == before


def test_late_failures_of_other_attempts_do_not_prolong_it():
    breaker = opened()
    fail(breaker, 50, now=NOW + 1, prefix="wh_late_")
    assert breaker.probe_at == NOW + 5
    assert breaker.permits(NOW + 5, "wh_probe")
    fail(breaker, 50, now=NOW + 6, prefix="wh_late_")
    assert breaker.state is BreakerState.HALF_OPEN
    breaker.record(NOW + 7, "wh_probe", succeeded=False)
    assert breaker.probe_at == NOW + 17


def test_a_success_while_open_brings_the_probe_forward():
    breaker = opened()
    breaker.record(NOW + 1, "wh_late", succeeded=True)
    assert breaker.state is BreakerState.OPEN
    assert breaker.probe_at == NOW + 1
    assert breaker.permits(NOW + 1)


def test_any_success_while_the_probe_is_out_closes_it():
    breaker = half_opened("wh_probe")
    breaker.record(NOW + 6, "wh_other", succeeded=True)
    assert breaker.state is BreakerState.CLOSED


def test_memory_is_bounded_over_a_long_unlucky_life():
    breaker = Breaker()
    for number in range(5_000):
        now = NOW + number / 7
        breaker.record(now, f"wh_{number}", succeeded=False)
        for other in range(2):
            breaker.record(now, f"wh_ok_{other}", succeeded=True)
        assert len(breaker._failed_at_by_delivery) <= limits.BREAKER_DELIVERIES_MAX
        assert len(breaker._past_slots) <= 13
    assert breaker.state is BreakerState.CLOSED


class BreakerMachine(RuleBasedStateMachine):
    """Compares with a full list of results."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker()
        self.now = NOW
        self.results: list[tuple[float, str, bool]] = []

    @rule(seconds=st.sampled_from((0.0, 1.0, 4.0, 20.0, 400.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.breaker.state is BreakerState.CLOSED)
    @rule(
        count=st.integers(1, 12),
        first=st.integers(0, 30),
        succeeded=st.sampled_from((False, False, True)),
    )
    def record_while_closed(self, count: int, first: int, succeeded: bool) -> None:
        for number in range(first, first + count):
            if self.breaker.state is not BreakerState.CLOSED:
                return
            self.breaker.record(self.now, f"wh_{number}", succeeded)
            self.results.append((self.now, f"wh_{number}", succeeded))
            if not succeeded:
                self.check_opening()

    def check_opening(self) -> None:
        recent = [result for result in self.results if result[0] > self.now - 60]
        failed = {delivery_id for _, delivery_id, succeeded in recent if not succeeded}
        # Results between 60 and 65 s old may count in the share or not, the older ones first not.
        windows = [recent] + [
            [result for result in self.results if result[0] >= since]
            for since in {result[0] for result in self.results}
            if self.now - 65 <= since <= self.now - 60
        ]
        shares = [
            sum(not succeeded for *_, succeeded in window) / len(window) for window in windows
        ]
        if self.breaker.state is BreakerState.OPEN:
            assert len(failed) >= 10
            assert max(shares) >= 0.9
        else:
            assert len(failed) < 10 or min(shares) < 0.9

    @precondition(lambda self: self.breaker.state is BreakerState.OPEN)
    @rule(succeeded=st.sampled_from((True, False, None)))
    def probe(self, succeeded: bool | None) -> None:
        assert self.breaker.probe_at is not None
        self.now = max(self.now, self.breaker.probe_at)
        assert self.breaker.permits(self.now)
        assert not self.breaker.permits(self.now)
        if succeeded is None:
            self.breaker.probe_abandoned(self.now)
        else:
            self.breaker.record(self.now, "wh_probe", succeeded)
        if succeeded:
            self.results.clear()
            assert self.breaker.state is BreakerState.CLOSED
        else:
            assert self.breaker.state is BreakerState.OPEN

    @invariant()
    def is_never_stuck(self) -> None:
        assert self.breaker.state is not BreakerState.HALF_OPEN
        if self.breaker.probe_at is not None:
            assert self.breaker.probe_at <= self.now + 300


BreakerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestBreakerMachine = BreakerMachine.TestCase
