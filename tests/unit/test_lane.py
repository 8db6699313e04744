"""One lane: never over its limit, never past its breaker or rate, and it knows what it left to Postgres."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dispatcher.core.breaker import Breaker, BreakerState
from dispatcher.core.lane import PROBES_READY_MAX, WINDOW_MAX, WINDOW_MIN, Lane
from dispatcher.core.rate import TokenBucket


class Wh(str):
    """A delivery that is its id."""

    __slots__ = ()
    event_type = "order.created"
    is_retry = False

    @property
    def id(self) -> str:
        return self


class Paid(Wh):
    """A delivery of another event type."""

    __slots__ = ()
    event_type = "order.paid"


class RetriedWh(Wh):
    """A delivery that was attempted before."""

    __slots__ = ()
    is_retry = True


def _lane(limit=2, bucket=None, *, is_open=True) -> Lane[Wh]:
    return Lane(limit=limit, breaker=Breaker(), bucket=bucket, is_open=is_open)


def _open_breaker(lane: Lane[Wh], now: float = 0.0) -> None:
    for number in range(10):
        lane.breaker.record(now, Wh.event_type, f"wh{number}", succeeded=False)
    assert lane.breaker.state is BreakerState.OPEN
    assert not lane.sort_again()


class LaneMachine(RuleBasedStateMachine):
    """Any order of offers, requests, takes, ends and clock ticks keeps the lane's promises."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.lane = _lane(limit=3, bucket=TokenBucket(10.0, 5))
        self.in_flight: list[Wh] = []
        self.next = 0
        self.taken: list[str] = []

    @rule()
    def offer(self):
        if self.lane.has_room(Wh.event_type):
            self.lane.line_up(Wh(f"wh{self.next}"))
            self.next += 1

    @rule()
    def ask(self):
        self.lane.urgent.append(Wh(f"person{self.next}"))
        self.next += 1

    @rule()
    def take(self):
        wanted = self.lane.wants_permit()
        has_urgent = bool(self.lane.urgent)
        work = self.lane.take(self.now)
        if work is None:
            assert not has_urgent or self.lane.in_flight >= self.lane.limit
            return
        assert wanted
        assert work.startswith("person") is has_urgent
        self.in_flight.append(work)
        self.taken.append(work)

    @precondition(lambda self: self.in_flight)
    @rule(succeeded=st.booleans())
    def finish(self, succeeded):
        work = self.in_flight.pop(0)
        self.lane.breaker.record(self.now, Wh.event_type, work, succeeded=succeeded)
        self.lane.sort_again()
        self.lane.finish()

    @rule(seconds=st.floats(min_value=0.0, max_value=40.0))
    def wait(self, seconds):
        self.now += seconds

    @rule(is_open=st.booleans())
    def pause(self, is_open):
        self.lane.is_open = is_open

    @invariant()
    def holds_its_limits(self):
        assert self.lane.in_flight == len(self.in_flight) <= self.lane.limit
        assert len(self.lane.ready) <= self.lane.window + PROBES_READY_MAX
        ordered = [work for work in self.taken if work.startswith("wh")]
        assert ordered == sorted(ordered, key=lambda work: int(work[2:]))

    @invariant()
    def says_when_to_ask_again(self):
        lane = self.lane
        if (
            (lane.ready or lane.deferred)
            and lane.is_open
            and not lane.urgent
            and lane.in_flight < lane.limit
        ):
            # Either it gives something now, or it names a moment, or its probe is out and will end.
            assert (
                lane.waits_until(self.now) is not None
                or lane.breaker.state is BreakerState.HALF_OPEN
                or lane.bucket is None
            )


TestLaneMachine = LaneMachine.TestCase


def test_an_open_breaker_lets_only_its_probe_through_and_a_person():
    lane = _lane(limit=5)
    lane.ready.extend(map(Wh, "abc"))
    _open_breaker(lane)
    assert lane.take(1.0) is None
    assert lane.waits_until(1.0) == 5.0
    lane.urgent.append(Wh("person"))
    assert lane.take(1.0) == "person"
    assert lane.take(5.0) == "a"
    assert lane.take(5.0) is None
    assert lane.waits_until(5.0) is None


def test_a_probe_that_the_rate_refuses_is_not_lost():
    bucket = TokenBucket(1.0, 1)
    lane = _lane(limit=5, bucket=bucket)
    lane.ready.append(Wh("a"))
    _open_breaker(lane)
    assert bucket.take(5.0)
    assert lane.take(5.0) is None
    assert lane.waits_until(5.0) == 6.0
    assert lane.take(6.0) == "a"


def test_a_closed_lane_gives_only_what_a_person_asked_for():
    lane = _lane(is_open=False)
    lane.ready.append(Wh("a"))
    assert not lane.has_room(Wh.event_type)
    assert not lane.wants_permit()
    assert lane.take(0.0) is None
    lane.urgent.append(Wh("b"))
    assert lane.wants_permit()
    assert lane.take(0.0) == "b"


def test_a_rate_spreads_what_is_taken():
    lane = _lane(limit=10, bucket=TokenBucket(2.0, 1))
    lane.ready.extend(map(Wh, "abc"))
    assert lane.take(0.0) == "a"
    assert lane.take(0.0) is None
    assert lane.waits_until(0.0) == 0.5
    assert lane.take(0.5) == "b"


@given(
    finished=st.integers(min_value=0, max_value=3_000),
    ready=st.integers(min_value=1, max_value=WINDOW_MAX),
)
def test_the_window_follows_the_pace_and_gives_back_from_the_end(finished, ready):
    lane = _lane()
    lane.ready.extend(Wh(number) for number in range(ready))
    lane.finished_count = finished
    given_back = list(lane.fit_window(1.0, most_finished=10_000))
    assert WINDOW_MIN <= lane.window <= WINDOW_MAX
    assert lane.window == min(WINDOW_MAX, max(WINDOW_MIN, 2 * finished))
    assert list(lane.ready) == [str(number) for number in range(min(ready, lane.window))]
    assert len(given_back) == max(0, ready - lane.window)
    assert (lane.more_at is not None) == bool(given_back)


@pytest.mark.parametrize("starved", [True, False])
def test_a_lane_that_ran_dry_gets_its_whole_window_back(starved):
    lane = _lane()
    lane.ready.extend(map(Wh, "abc"))
    list(lane.fit_window(1.0, most_finished=0))
    assert lane.window == WINDOW_MIN
    assert lane.slow
    lane.starved = starved
    lane.finished_count = 50
    list(lane.fit_window(1.0, most_finished=1_000))
    assert lane.window == (WINDOW_MAX if starved else 100)


@pytest.mark.parametrize(
    ("finished", "most_finished", "slow"),
    [(50, 50, False), (50, 100, False), (50, 101, True), (19, 19, True), (999, 2_000, True)],
)
def test_a_lane_is_slow_compared_with_the_fastest_only(finished, most_finished, slow):
    lane = _lane()
    lane.ready.extend(map(Wh, "x" * 1_800))
    lane.finished_count = finished
    given_back = list(lane.fit_window(1.0, most_finished))
    assert lane.slow is slow
    assert bool(given_back) is (slow and lane.window < 1_800)


def test_what_was_turned_away_is_wanted_once_it_is_due_and_there_is_room():
    lane = _lane()
    assert not lane.runs_low(0.0)
    lane.turn_away(10.0)
    lane.turn_away(20.0)
    assert (lane.more_at, lane.overflows) == (10.0, 2)
    assert not lane.runs_low(9.9)
    assert lane.runs_low(10.0)
    lane.ready.extend(map(Wh, "x" * (lane.window // 4 + 1)))
    assert not lane.runs_low(10.0)
    lane.ready.clear()
    lane.is_open = False
    assert not lane.runs_low(10.0)


def test_an_open_breaker_keeps_a_few_of_each_type_and_probes_them_in_turns():
    lane = _lane(limit=50)
    lane.ready.extend(Wh(number) for number in range(20))
    lane.ready.append(Paid("paid"))
    for number in range(10):
        lane.breaker.record(0.0, Wh.event_type, f"wh{number}", succeeded=False)
    assert [int(work) for work in lane.sort_again()] == list(range(8, 20))
    assert not lane.has_room(Wh.event_type)
    assert lane.has_room(Paid.event_type)
    assert lane.take(5.0) == "paid"  # the type that is not known to fail
    lane.breaker.record(5.0, Paid.event_type, "paid", succeeded=False)
    assert lane.take(15.0) == "0"


def test_probes_of_one_type_take_first_attempts_and_retries_in_turns():
    lane = _lane(limit=50)
    lane.ready.extend([Wh("first"), Wh("second"), RetriedWh("retried")])
    _open_breaker(lane)
    probes = []
    for now in (5.0, 15.0, 35.0):
        work = lane.take(now)
        assert work is not None
        probes.append(str(work))
        lane.breaker.record(now, work.event_type, work.id, succeeded=False)
    assert probes == ["first", "retried", "second"]


def test_a_deferred_type_does_not_stand_before_the_others():
    lane = _lane(limit=50)
    lane.ready.extend(Wh(number) for number in range(20))
    lane.breaker.record(0.0, Paid.event_type, "paid0", succeeded=True)
    for number in range(10):
        lane.breaker.record(0.0, Wh.event_type, f"wh{number}", succeeded=False)
    assert len(lane.sort_again()) == 20 - PROBES_READY_MAX
    lane.line_up(Paid("paid"))
    assert lane.take(1.0) == "paid"
    assert lane.take(1.0) is None
    assert lane.waits_until(1.0) == 5.0
