"""How often somebody may do something, counted by key in bounded memory."""

import pytest

from dispatcher.admin.rate_limits import SENDS_BURST, Buckets, SendLimits
from dispatcher.core.errors import TooManyError


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_key_has_a_burst_and_then_its_rate():
    time = Time()
    buckets = Buckets(2.0, 3, monotonic=time)
    assert [buckets.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert buckets.take("b") == 0.0
    assert buckets.wait_seconds("a") == 0.5
    assert buckets.wait_seconds("c") == 0.0
    time.now = 0.5
    assert [buckets.take("a") for _ in range(2)] == [0.0, 0.5]


def test_the_key_that_was_not_used_for_longest_is_forgotten():
    buckets = Buckets(1.0, 1, monotonic=Time(), keys_max=2)
    for key in ("a", "b", "a", "c"):
        buckets.take(key)
    assert buckets.wait_seconds("b") == 0.0
    assert buckets.wait_seconds("a") == 1.0
    assert buckets.wait_seconds("c") == 1.0


def test_sends_are_counted_by_person_and_endpoint():
    allowance = SendLimits(monotonic=Time())
    for _ in range(SENDS_BURST):
        allowance.take_send("anna", "ep_1")
    with pytest.raises(TooManyError) as caught:
        allowance.take_send("anna", "ep_1")
    assert caught.value.retry_after_seconds == 1.0
    allowance.take_send("anna", "ep_2")
    allowance.take_send("bert", "ep_1")
