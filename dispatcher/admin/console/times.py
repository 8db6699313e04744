"""Formats instants, durations, sizes and shares for people.

Dates are Gregorian in every language and written as in ISO 8601. Neither the era (2026 or 2569) nor the
order of day and month is ambiguous. An instant is shown in the viewer's zone, with UTC on hover and for
copying.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from functools import cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

UTC_NAME: Final = "UTC"
NOTHING: Final = "\N{EN DASH}"
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400
_STEP: Final = 1024


class Zone(NamedTuple):
    """The viewer's zone and its source: `set` by the viewer, `auto` by the browser, or `none`."""

    name: str
    source: str

    @property
    def info(self) -> tzinfo:
        """The zone's rules."""
        return UTC if self.name == UTC_NAME else ZoneInfo(self.name)


@cache
def zone_names() -> tuple[str, ...]:
    """Return the zones that a viewer can choose."""
    names = (name for name in available_timezones() if "/" in name and not name.startswith("Etc/"))
    return (UTC_NAME, *sorted(names))


def read_zone(cookie: str | None) -> Zone:
    """Return the zone of a cookie such as `auto:Asia/Bangkok`; UTC for any other value."""
    source, _, name = (cookie or "").partition(":")
    if source in {"auto", "set"} and (name == UTC_NAME or name in available_names()):
        return Zone(name, source)
    return Zone(UTC_NAME, "none")


@cache
def available_names() -> frozenset[str]:
    """Return every zone of this system's database."""
    return frozenset(available_timezones())


class Moment(NamedTuple):
    """One instant, in three forms."""

    machine: str
    local: str
    utc: str


def moment(text: str | None, zone: Zone) -> Moment | None:
    """Return the forms of an instant; one that is out of range in the zone keeps its own offset."""
    if text is None:
        return None
    at = datetime.fromisoformat(text)
    try:
        local = at.astimezone(zone.info)
    except OverflowError:
        local = at
    return Moment(
        text, local.strftime("%Y-%m-%d %H:%M:%S"), f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
    )


def span(seconds: float | None, units: Mapping[str, str]) -> str:
    """Return a duration with at most two units, as in `1 h 5 m`; `units` has `d h m s ms`."""
    if seconds is None:
        return NOTHING
    if seconds < 1:
        return f"{round(seconds * 1000)} {units['ms']}"
    if seconds < _MINUTE:
        text = f"{seconds:.1f}".removesuffix(".0")
        return f"{text} {units['s']}"
    whole = int(seconds)
    for size, name, next_size, next_name in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "m"),
        (_MINUTE, "m", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // next_size
            first = f"{whole // size} {units[name]}"
            return f"{first} {rest} {units[next_name]}" if rest else first
    return f"{whole} {units['s']}"


def rough_span(seconds: float, units: Mapping[str, str]) -> str:
    """Return a duration of at least a second with its largest unit alone, as in `5 min`."""
    whole = int(seconds)
    for unit_seconds, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if whole >= unit_seconds:
            return f"{whole // unit_seconds} {units[name]}"
    return f"{whole} {units['s']}"


def size(count: float | None) -> str:
    """Return a number of bytes with a binary unit."""
    if count is None:
        return NOTHING
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < _STEP:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= _STEP
    return f"{value:.1f} TiB"


def share(value: float | None) -> str:
    """Return a share of 1 in percent; only exactly 1 is shown as 100 %, and only 0 as 0 %."""
    if value is None:
        return NOTHING
    percent = value * 100
    if 0 < percent < 0.1:  # noqa: PLR2004 -- the last digit shown
        return "< 0.1 %"
    if 99.9 < percent < 100:  # noqa: PLR2004 -- the same at the other end
        return "99.9 %"
    return f"{percent:.1f}".removesuffix(".0") + " %"


def count(value: float | None) -> str:
    """Return a number with spaces between thousands, which have one meaning in every language."""
    return NOTHING if value is None else f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
