"""When the next attempt is due: the schedule, its jitter, and what Retry-After may do to it."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from dispatcher.core import limits

_MONTHS: Final = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_MONTH: Final = rf"(?P<month>{_MONTHS})"
_TIME: Final = r"(?P<hour>\d{2}):(?P<minute>\d{2}):(?P<second>\d{2})"
# The three forms that RFC 9110, 5.6.7, asks a recipient to accept. Read by hand: strptime follows
# the locale, and email.utils takes much that is no HTTP date.
_DATE_FORMS: Final = tuple(
    re.compile(form, re.ASCII)
    for form in (
        rf"[A-Z][a-z]{{2}}, (?P<day>\d{{2}}) {_MONTH} (?P<year>\d{{4}}) {_TIME} GMT",
        rf"[A-Z][a-z]{{5,8}}, (?P<day>\d{{2}})-{_MONTH}-(?P<year>\d{{2}}) {_TIME} GMT",
        rf"[A-Z][a-z]{{2}} {_MONTH} (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})",
    )
)
_FUTURE_YEARS_MAX: Final = 50


def next_delay(
    schedule_position: int,
    schedule: Sequence[float],
    jitter_range: tuple[float, float] | None,
    jitter: float,
    retry_after_seconds: float | None,
) -> float | None:
    """Return the seconds from the end of an attempt to the next, or None when none is left.

    `schedule_position` is that of the scheduled attempt which failed, the first one being 1, and
    `schedule` holds the seconds before each retry. `jitter_range` is the lowest and the highest
    factor by which a delay is multiplied, and `jitter`, in [0, 1), picks one between them; without
    a range the delays are exact. `retry_after_seconds` makes a shorter delay longer, at
    most to `limits.RETRY_AFTER_SECONDS_MAX`; a longer one it leaves alone.

    Raises:
        ValueError: `schedule_position` is below 1.

    Source: WMS document, retry policy; Humansoft document, retries; Standard Webhooks 1.0,
    retry schedule; RFC 9110, 10.2.3.
    """
    if schedule_position < 1:
        raise ValueError(f"a schedule position counts from 1, so {schedule_position} is none")
    if schedule_position > len(schedule):
        return None
    delay_seconds = float(schedule[schedule_position - 1])
    if jitter_range is not None:
        low, high = jitter_range
        delay_seconds *= low + (high - low) * jitter
    if retry_after_seconds is None:
        return delay_seconds
    # The delay comes first: max() then keeps it when the other is not a number.
    return max(delay_seconds, min(retry_after_seconds, limits.RETRY_AFTER_SECONDS_MAX))


def parse_retry_after(text: str, now: datetime) -> float | None:
    """Return how many seconds a Retry-After header asks for, or None when it has no usable value.

    Takes whole seconds and the three forms of an HTTP date, read against `now` (aware). The result
    is in [0, `limits.RETRY_AFTER_SECONDS_MAX`]: a date that has passed is 0. Signs, fractions,
    exponents and all other texts are None. Never raises.

    Source: RFC 9110, 10.2.3 and 5.6.7.
    """
    text = text.strip(" \t")
    if text.isascii() and text.isdigit():
        # Digits beyond the cap's own are not converted: int() refuses texts of 4,300 and more.
        significant = text.lstrip("0")
        if len(significant) > len(str(int(limits.RETRY_AFTER_SECONDS_MAX))):
            return limits.RETRY_AFTER_SECONDS_MAX
        return min(float(significant or "0"), limits.RETRY_AFTER_SECONDS_MAX)
    if len(text) > limits.RETRY_AFTER_DATE_CHARACTERS_MAX:
        return None
    moment = _parse_http_date(text, now.year)
    if moment is None:
        return None
    seconds = (moment - now).total_seconds()
    return min(max(0.0, seconds), limits.RETRY_AFTER_SECONDS_MAX)


def _parse_http_date(text: str, year_now: int) -> datetime | None:
    """Return the moment of an HTTP date, or None when the text is none."""
    for form in _DATE_FORMS:
        match = form.fullmatch(text)
        if match is not None:
            break
    else:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:  # noqa: PLR2004 -- RFC 850 writes two digits
        year += year_now - year_now % 100
        # Of two possible centuries the RFC rules out one more than fifty years ahead.
        if year > year_now + _FUTURE_YEARS_MAX:
            year -= 100
    try:
        return datetime(
            year,
            _MONTHS.index(match["month"]) // len("Jan|") + 1,
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            # A leap second is a valid second in HTTP and none in Python.
            min(int(match["second"]), 59),
            tzinfo=UTC,
        )
    except ValueError:
        return None
