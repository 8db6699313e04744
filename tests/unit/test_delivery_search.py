"""A search looks at the newest events first, and never parts those of one millisecond."""

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.admin.operations.delivery_filter import EVENTS_FIRST, in_two_parts
from dispatcher.store.events import EventKey

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)


@given(st.lists(st.integers(0, 6), max_size=3 * EVENTS_FIRST))
def test_queue_parts_make_the_whole_and_the_second_is_older(moments: list[int]):
    found = [
        EventKey(date(2026, 11, 23), f"e{number}", AT - timedelta(milliseconds=moment))
        for number, moment in enumerate(sorted(moments))
    ]
    parts = list(in_two_parts(found[::-1] if len(moments) % 2 else found))
    assert sorted(key for part in parts for key in part) == sorted(found)
    assert len(parts) <= 2
    assert all(parts)
    if len(parts) == 2:
        assert len(parts[0]) >= EVENTS_FIRST
        assert max(key.unix_ms for key in parts[1]) < min(key.unix_ms for key in parts[0])
