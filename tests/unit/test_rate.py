"""The token bucket against a plain count of what any window may let through."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.rate import TokenBucket


def test_a_burst_passes_at_once_and_then_the_rate_rules():
    bucket = TokenBucket(rate_per_second=2, burst=3)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.ready_at(100.0) == 100.5
    assert not bucket.take(100.49)
    assert bucket.take(100.5)
    assert bucket.ready_at(100.5) == 101.0


def test_an_idle_bucket_saves_up_no_more_than_its_burst():
    bucket = TokenBucket(rate_per_second=10, burst=2)
    assert [bucket.take(1_000_000.0) for _ in range(3)] == [True, True, False]
    assert [bucket.take(2_000_000.0) for _ in range(3)] == [True, True, False]


def test_a_free_token_is_ready_now():
    assert TokenBucket(rate_per_second=1, burst=1).ready_at(7.0) == 7.0


@pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf, 5e-324])
def test_a_rate_that_lets_nothing_or_everything_through_is_refused(rate):
    with pytest.raises(ValueError, match="rate"):
        TokenBucket(rate, 1)


def test_a_burst_below_one_is_refused():
    with pytest.raises(ValueError, match="burst"):
        TokenBucket(1, 0)


@given(st.floats(0.01, 10_000), st.integers(1, 50), st.lists(st.floats(0, 5), max_size=40))
def test_waiting_until_ready_always_yields_a_token(rate, burst, pauses):
    bucket = TokenBucket(rate, burst)
    now = 1_000.0
    for pause in pauses:
        now += pause
        ready_at = bucket.ready_at(now)
        assert ready_at >= now
        assert bucket.take(now) is (ready_at == now)
        now = bucket.ready_at(now)
        assert bucket.take(now)


@given(st.floats(0.1, 100), st.integers(1, 20), st.lists(st.floats(0, 1), max_size=60))
def test_no_window_lets_through_more_than_burst_and_rate(rate, burst, pauses):
    bucket = TokenBucket(rate, burst)
    now = 0.0
    taken_at = []
    for pause in pauses:
        now += pause
        while bucket.take(now):
            taken_at.append(now)
    for first in range(len(taken_at)):
        for last in range(first, len(taken_at)):
            elapsed = taken_at[last] - taken_at[first]
            assert last - first + 1 <= burst + elapsed * rate + 1e-6
