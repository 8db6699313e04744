"""The breaker: what opens it, what does not, how it probes, and how it closes."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dispatcher.core import limits
from dispatcher.core.breaker import Breaker, BreakerState

NOW = 5_000.0
TYPE = "order.created"
OTHER = "order.paid"


def permits(
    breaker: Breaker, now: float, delivery_id: str = "wh_probe", event_type: str = TYPE
) -> bool:
    """Asks as the lane does, and begins the probe."""
    if not breaker.defers(event_type):
        return True
    at = breaker.permitted_at(event_type)
    if at is None or now < at:
        return False
    breaker.begin_probe(now, event_type, delivery_id, is_retry=False)
    return True


def fail(breaker: Breaker, count: int, now: float = NOW, prefix: str = "wh_") -> None:
    for number in range(count):
        breaker.record(now, TYPE, f"{prefix}{number}", succeeded=False)


def opened() -> Breaker:
    breaker = Breaker()
    fail(breaker, 10)
    assert breaker.state is BreakerState.OPEN
    return breaker


def half_opened(delivery_id: str = "wh_probe") -> Breaker:
    breaker = opened()
    assert permits(breaker, NOW + 5, delivery_id)
    return breaker


def test_a_new_breaker_is_closed_and_permits():
    breaker = Breaker()
    assert breaker.state is BreakerState.CLOSED
    assert permits(breaker, NOW)
    assert breaker.probe_at is None


def test_ten_failed_deliveries_open_it_and_nine_do_not():
    breaker = Breaker()
    fail(breaker, 9)
    assert permits(breaker, NOW)
    breaker.record(NOW, TYPE, "wh_tenth", succeeded=False)
    assert breaker.state is BreakerState.OPEN
    assert not permits(breaker, NOW)
    assert breaker.probe_at == NOW + 5


def test_one_bad_delivery_closes_no_lane_however_often_it_fails():
    breaker = Breaker()
    for second in range(1_000):
        breaker.record(NOW + second / 100, TYPE, f"wh_{second % 9}", succeeded=False)
    assert breaker.state is BreakerState.CLOSED


def test_failures_spread_over_almost_a_minute_open_it():
    breaker = Breaker()
    for number in range(10):
        breaker.record(NOW + number * 6.6, TYPE, f"wh_{number}", succeeded=False)
    assert breaker.state is BreakerState.OPEN


def test_failures_older_than_a_minute_are_forgotten():
    breaker = Breaker()
    for number in range(100):
        breaker.record(NOW + number * 6.7, TYPE, f"wh_{number}", succeeded=False)
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize(("succeeded_count", "state"), [(2, "open"), (3, "closed")])
def test_the_share_of_failures_must_be_nine_tenths(succeeded_count, state):
    breaker = Breaker()
    for number in range(succeeded_count):
        breaker.record(NOW, TYPE, f"wh_ok_{number}", succeeded=True)
    fail(breaker, 20)
    assert breaker.state == state


def test_successes_count_for_the_share_in_every_slot_of_the_window():
    breaker = Breaker()
    for second in range(50):
        breaker.record(NOW + second, TYPE, f"wh_ok_{second}", succeeded=True)
    fail(breaker, 200, now=NOW + 50)
    assert breaker.state is BreakerState.CLOSED


def test_successes_older_than_the_window_do_not_count():
    breaker = Breaker()
    for number in range(1_000):
        breaker.record(NOW, TYPE, f"wh_ok_{number}", succeeded=True)
    fail(breaker, 10, now=NOW + 66)
    assert breaker.state is BreakerState.OPEN


def test_after_the_cool_down_one_probe_is_let_through():
    breaker = opened()
    assert not permits(breaker, NOW + 4.999)
    assert permits(breaker, NOW + 5)
    assert breaker.state is BreakerState.HALF_OPEN
    assert not permits(breaker, NOW + 5)
    assert not permits(breaker, NOW + 500)
    assert breaker.probe_at is None


def test_a_probe_that_succeeds_closes_it_and_forgets_everything():
    breaker = half_opened()
    breaker.record(NOW + 6, TYPE, "wh_probe", succeeded=True)
    assert breaker.state is BreakerState.CLOSED
    fail(breaker, 9, now=NOW + 7, prefix="wh_new_")
    assert permits(breaker, NOW + 7)


def test_the_cool_down_doubles_to_a_minute_and_starts_anew_after_a_success():
    breaker = opened()
    now = NOW
    cool_downs = []
    for _ in range(9):
        assert breaker.probe_at is not None
        cool_downs.append(breaker.probe_at - now)
        now = breaker.probe_at
        assert permits(breaker, now)
        breaker.record(now, TYPE, "wh_probe", succeeded=False)
    assert cool_downs == [5, 10, 20, 40, 60, 60, 60, 60, 60]
    assert breaker.probe_at is not None
    now = breaker.probe_at
    assert permits(breaker, now)
    breaker.record(now, TYPE, "wh_probe", succeeded=True)
    fail(breaker, 10, now=now)
    assert breaker.probe_at == now + 5


def test_an_abandoned_probe_is_given_out_again_and_doubles_nothing():
    breaker = half_opened()
    breaker.probe_abandoned(NOW + 7, TYPE, "wh_probe")
    assert breaker.state is BreakerState.OPEN
    assert breaker.probe_at == NOW + 7
    assert permits(breaker, NOW + 7)
    breaker.record(NOW + 8, TYPE, "wh_probe", succeeded=False)
    assert breaker.probe_at == NOW + 18


@pytest.mark.parametrize("breaker", [Breaker(), opened()], ids=["closed", "open"])
def test_abandoning_a_probe_that_is_not_out_changes_nothing(breaker):
    before = breaker.state, breaker.probe_at
    breaker.probe_abandoned(NOW + 1, TYPE, "wh_probe")
    assert (breaker.state, breaker.probe_at) == before


def test_late_failures_of_other_attempts_do_not_prolong_it():
    breaker = opened()
    fail(breaker, 50, now=NOW + 1, prefix="wh_late_")
    assert breaker.probe_at == NOW + 5
    assert permits(breaker, NOW + 5, "wh_probe")
    fail(breaker, 50, now=NOW + 6, prefix="wh_late_")
    assert breaker.state is BreakerState.HALF_OPEN
    breaker.record(NOW + 7, TYPE, "wh_probe", succeeded=False)
    assert breaker.probe_at == NOW + 17


def test_a_success_while_open_brings_the_probe_forward():
    breaker = opened()
    breaker.record(NOW + 1, TYPE, "wh_late", succeeded=True)
    assert breaker.state is BreakerState.OPEN
    assert breaker.probe_at == NOW + 1
    assert permits(breaker, NOW + 1)


def test_any_success_while_the_probe_is_out_closes_it():
    breaker = half_opened("wh_probe")
    breaker.record(NOW + 6, TYPE, "wh_other", succeeded=True)
    assert breaker.state is BreakerState.CLOSED


def test_memory_is_bounded_over_a_long_unlucky_life():
    breaker = Breaker()
    for number in range(5_000):
        now = NOW + number / 7
        breaker.record(now, TYPE, f"wh_{number}", succeeded=False)
        for other in range(2):
            breaker.record(now, TYPE, f"wh_ok_{other}", succeeded=True)
        assert len(breaker._failed_at_by_delivery) <= limits.BREAKER_DELIVERIES_MAX
        assert len(breaker._past_slots) <= 13
    assert breaker.state is BreakerState.CLOSED


def mixed(bad_count: int = 30, good_count: int = 2) -> Breaker:
    """One type succeeds, the other fails in nine tenths of all attempts."""
    breaker = Breaker()
    for number in range(good_count):
        breaker.record(NOW, OTHER, f"wh_good_{number}", succeeded=True)
    fail(breaker, bad_count)
    return breaker


def test_a_type_that_fails_is_deferred_and_the_others_are_not():
    breaker = mixed()
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.defers(TYPE)
    assert not breaker.defers(OTHER)
    assert not breaker.defers("never.seen")
    assert not permits(breaker, NOW + 4.9)
    assert permits(breaker, NOW + 5)
    breaker.record(NOW + 5, TYPE, "wh_probe", succeeded=False)
    assert not permits(breaker, NOW + 14.9)
    assert permits(breaker, NOW + 15, "wh_second")
    breaker.record(NOW + 16, TYPE, "wh_second", succeeded=True)
    assert not breaker.is_deferring


def test_late_failures_of_a_deferred_type_do_not_prolong_its_cool_down():
    breaker = mixed()
    assert permits(breaker, NOW + 5)
    fail(breaker, 20, now=NOW + 6, prefix="wh_late_")
    assert breaker.permitted_at(TYPE) is None
    breaker.record(NOW + 7, TYPE, "wh_probe", succeeded=False)
    assert breaker.permitted_at(TYPE) == NOW + 17


def test_an_endpoint_that_fails_for_all_types_opens_although_one_worked():
    breaker = Breaker()
    breaker.record(NOW, TYPE, "wh_good", succeeded=True)
    fail(breaker, 10, now=NOW + 1)
    assert breaker.defers_everything


def test_a_type_that_begins_to_fail_beside_a_deferred_one_opens_it():
    breaker = mixed()
    for number in range(10):
        breaker.record(NOW + 70, OTHER, f"wh_o{number}", succeeded=False)
    assert breaker.defers_everything


def test_a_type_not_known_to_fail_waits_for_the_shortest_cool_down_only():
    breaker = opened()
    for at in (NOW + 5, NOW + 15, NOW + 35):
        assert permits(breaker, at)
        breaker.record(at, TYPE, "wh_probe", succeeded=False)
    assert breaker.permitted_at(TYPE) == NOW + 75
    assert breaker.permitted_at(OTHER) == NOW + 40
    assert min((TYPE, OTHER), key=breaker.turn) == OTHER
    assert permits(breaker, NOW + 40, "wh_other", OTHER)
    breaker.record(NOW + 41, OTHER, "wh_other", succeeded=True)
    assert breaker.defers(TYPE)  # it has not succeeded yet, but its probe is due at once
    assert breaker.permitted_at(TYPE) == NOW + 41


def test_types_that_fail_are_probed_in_turns():
    breaker = opened()
    for number in range(5):
        breaker.record(NOW + 1, OTHER, f"wh_late_{number}", succeeded=False)
    probed = []
    for at in (NOW + 5, NOW + 15, NOW + 35, NOW + 75):
        event_type = min((TYPE, OTHER), key=breaker.turn)
        assert permits(breaker, at, "wh_probe", event_type)
        breaker.record(at, event_type, "wh_probe", succeeded=False)
        probed.append(event_type)
    assert sorted(probed[:2]) == sorted(probed[2:]) == [TYPE, OTHER]


def test_a_successful_resend_closes_for_its_type_and_probes_the_others():
    breaker = opened()
    breaker.record(NOW + 1, OTHER, "wh_late", succeeded=False)
    breaker.resend_succeeded(NOW + 2, TYPE, "wh_resent")
    assert not breaker.defers(TYPE)
    assert breaker.defers(OTHER)
    assert breaker.permitted_at(OTHER) == NOW + 2


@pytest.mark.parametrize("make", [opened, half_opened, mixed])
def test_a_successful_test_event_closes_altogether(make):
    breaker = make()
    before = breaker.changes_count
    breaker.test_succeeded()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.changes_count > before


def test_event_types_are_bounded():
    breaker = Breaker()
    for number in range(10_000):
        breaker.record(NOW, f"type.n{number}", f"wh_{number}", succeeded=bool(number % 3))
    assert len(breaker._types) <= limits.BREAKER_TYPES_MAX


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
            self.breaker.record(self.now, TYPE, f"wh_{number}", succeeded=succeeded)
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
        assert permits(self.breaker, self.now)
        assert not permits(self.breaker, self.now)
        if succeeded is None:
            self.breaker.probe_abandoned(self.now, TYPE, "wh_probe")
        else:
            self.breaker.record(self.now, TYPE, "wh_probe", succeeded=succeeded)
        if succeeded:
            self.results.clear()
            assert self.breaker.state is BreakerState.CLOSED
        else:
            assert self.breaker.state is BreakerState.OPEN

    @invariant()
    def is_never_stuck(self) -> None:
        assert self.breaker.state is not BreakerState.HALF_OPEN
        if self.breaker.probe_at is not None:
            assert self.breaker.probe_at <= self.now + 60


BreakerMachine.TestCase.settings = settings(stateful_step_count=30)
TestBreakerMachine = BreakerMachine.TestCase
