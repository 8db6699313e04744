"""Percentiles from counts: near the truth, whatever the size; counts add up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core import histogram

latencies = st.lists(st.floats(0.002, 60.0), min_size=1, max_size=200)


def counts_of(values: list[float]) -> list[int]:
    counts = [0] * histogram.COUNTS
    for value in values:
        counts[histogram.place(value)] += 1
    return counts


@given(latencies, st.sampled_from([0.01, 0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_within_a_fifth_of_the_true_one(values, share):
    counts = counts_of(values)
    found = histogram.quantile(counts, share)
    rank = max(1, -int(-share * len(values) // 1))
    true = sorted(values)[rank - 1]
    assert found is not None
    assert true / 1.2 <= found <= true * 1.2


@given(latencies, latencies)
def test_counts_of_two_replicas_add_up_to_those_of_one(ours, theirs):
    both = histogram.add_up([counts_of(ours), counts_of(theirs)])
    assert both == counts_of(ours + theirs)


def test_nothing_counted_has_no_percentile():
    assert histogram.quantile([0] * histogram.COUNTS, 0.95) is None
    assert histogram.quantile(histogram.add_up([]), 0.5) is None


@pytest.mark.parametrize("seconds", [0.0, 0.001, 65.536, 1e9])
def test_every_latency_has_a_count(seconds):
    assert 0 <= histogram.place(seconds) < histogram.COUNTS
    assert histogram.quantile(counts_of([seconds]), 0.5) is not None
