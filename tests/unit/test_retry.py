"""Delays of the schedules, and what a hostile or odd Retry-After can do to them (R19, T4)."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.core import limits
from dispatcher.core.retry import next_delay, parse_retry_after

WMS = (30, 120, 600, 3_600, 21_600)
HUMANSOFT = (1, 2, 4)
STANDARD = (5, 300, 1_800, 7_200, 18_000, 36_000, 36_000)
STANDARD_JITTER = (0.8, 1.2)

NOW = datetime(2026, 8, 29, 12, 0, 0, tzinfo=UTC)
CAP = limits.RETRY_AFTER_SECONDS_MAX

SCHEDULES = st.lists(st.floats(0.001, 604_800), max_size=12)
JITTERS = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize("schedule", [WMS, HUMANSOFT])
def test_a_schedule_without_jitter_is_followed_to_the_second(schedule):
    positions = range(1, len(schedule) + 2)
    delays = [next_delay(position, schedule, None, 0.7, None) for position in positions]
    assert delays == [*schedule, None]


@pytest.mark.parametrize(
    ("jitter", "expected"),
    [(0.0, [4, 240, 1_440]), (0.5, [5, 300, 1_800]), (0.999999, [6, 360, 2_160])],
)
def test_jitter_picks_a_factor_of_its_range(jitter, expected):
    delays = [
        next_delay(position, STANDARD, STANDARD_JITTER, jitter, None) for position in (1, 2, 3)
    ]
    assert delays == pytest.approx(expected, rel=1e-5)


@given(SCHEDULES, st.integers(1, 1_000_000), JITTERS)
def test_jitter_stays_in_its_bounds_at_any_position(schedule, position, jitter):
    delay = next_delay(position, schedule, STANDARD_JITTER, jitter, None)
    if position > len(schedule):
        assert delay is None
    else:
        assert delay is not None
        assert 0.8 * schedule[position - 1] <= delay * (1 + 1e-12)
        assert delay <= 1.2 * schedule[position - 1] * (1 + 1e-12)


def test_the_millionth_attempt_overflows_nothing():
    assert next_delay(1_000_000, STANDARD, STANDARD_JITTER, 0.5, 1e308) is None
    assert next_delay(10**400, STANDARD, None, 0.5, None) is None


@pytest.mark.parametrize("position", [0, -1])
def test_a_position_before_the_first_is_refused(position):
    with pytest.raises(ValueError, match="counts from 1"):
        next_delay(position, WMS, None, 0.0, None)


@pytest.mark.parametrize(
    ("position", "retry_after_seconds", "expected"),
    [
        (1, None, 30),
        (1, 0, 30),
        (1, 29, 30),
        (1, 31, 31),
        (1, 3_600, 3_600),
        (1, 3_601, 3_600),
        (5, 3_600, 21_600),
        (5, 1e9, 21_600),
        (6, 60, None),
    ],
)
def test_retry_after_postpones_and_never_brings_forward(position, retry_after_seconds, expected):
    assert next_delay(position, WMS, None, 0.0, retry_after_seconds) == expected


@given(
    SCHEDULES,
    st.integers(1, 12),
    JITTERS,
    st.floats(allow_nan=True, allow_infinity=True),
)
def test_no_retry_after_whatever_leads_before_the_schedule_or_past_the_cap(
    schedule, position, jitter, retry_after_seconds
):
    scheduled = next_delay(position, schedule, STANDARD_JITTER, jitter, None)
    postponed = next_delay(position, schedule, STANDARD_JITTER, jitter, retry_after_seconds)
    if scheduled is None:
        assert postponed is None
    else:
        assert postponed is not None
        assert scheduled <= postponed <= max(scheduled, CAP)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("120", 120),
        (" 120\t", 120),
        ("0000000120", 120),
        ("3600", 3_600),
        ("3601", 3_600),
        ("1000000000", 3_600),
        ("9" * 5_000, 3_600),
        ("0" * 5_000 + "7", 7),
        ("-5", None),
        ("+5", None),
        ("1.5", None),
        ("1e9", None),
        ("9e99", None),
        ("NaN", None),
        ("inf", None),
        ("0x10", None),
        ("1_000", None),
        ("", None),
        ("   ", None),
        ("soon", None),
        ("\u0665", None),
        ("\u00b2", None),
        ("x" * 1_000_000, None),
        ("5, 10", None),
    ],
)
def test_seconds_are_whole_and_clamped_and_other_texts_say_nothing(text, expected):
    assert parse_retry_after(text, NOW) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Sat, 29 Aug 2026 12:02:00 GMT", 120),
        ("Saturday, 29-Aug-26 12:02:00 GMT", 120),
        ("Sat Aug 29 12:02:00 2026", 120),
        ("Wed Sep  2 12:00:00 2026", 3_600),
        ("Sat, 29 Aug 2026 12:00:00 GMT", 0),
        ("Sat, 29 Aug 2026 11:59:59 GMT", 0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3_600),
        ("Mon, 01 Jan 0001 00:00:00 GMT", 0),
        ("Sat, 29 Aug 2026 12:00:60 GMT", 59),
        ("Sat, 01 Jan 0000 00:00:00 GMT", None),
        ("Sat, 31 Feb 2026 12:00:00 GMT", None),
        ("Sat, 29 Aug 2026 25:00:00 GMT", None),
        ("Sat, 29 Aug 2026 12:02:00 +0700", None),
        ("Sat, 29 Foo 2026 12:02:00 GMT", None),
        ("2026-08-29T12:02:00Z", None),
        ("Sat, 29 Aug 2026 12:02:00 GMT" + " " * 1_000 + "x", None),
    ],
)
def test_the_three_forms_of_an_http_date_are_read_against_now(text, expected):
    assert parse_retry_after(text, NOW) == expected


def test_a_two_digit_year_is_at_most_fifty_years_ahead():
    late = datetime(2090, 1, 1, tzinfo=UTC)
    assert parse_retry_after("Sunday, 01-Jan-40 00:00:00 GMT", late) == 0
    assert parse_retry_after("Sunday, 01-Jan-91 00:00:00 GMT", late) == CAP


@given(st.integers(-100_000, 100_000))
def test_a_date_is_as_far_away_as_it_says(seconds):
    text = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert parse_retry_after(text, NOW) == min(max(0, seconds), CAP)


@given(st.one_of(st.text(), st.from_regex(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} .*GMT")))
@example("Sat, 99 Aug 2026 99:99:99 GMT")
def test_reading_never_raises_and_stays_in_bounds(text):
    seconds = parse_retry_after(text, NOW)
    assert seconds is None or 0 <= seconds <= CAP
