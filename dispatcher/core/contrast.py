"""Shades of a color that are readable: WCAG 2.2's contrast, and the nearest shade that reaches it.

Text needs a contrast of 4.5:1 with its background (level AA). A shade is the color mixed with black or
white in steps of 1 %, so the hue stays. Black and white reach the contrast on every background here.
"""

import re
from typing import Final, NamedTuple

COLOR: Final = re.compile(r"#[0-9A-Fa-f]{6}")
TEXT_CONTRAST: Final = 4.5
_TARGET: Final = 4.6
"""Slightly more, because the channels of a shade are rounded."""
_SOFT_PERCENT: Final = 10
"""How much of the accent a soft background has."""
_BLACK: Final = (0.0, 0.0, 0.0)
_WHITE: Final = (255.0, 255.0, 255.0)

_Channels = tuple[float, float, float]


class Accent(NamedTuple):
    """The accent of one theme: for text and backgrounds of buttons, the text on it, and a soft background."""

    accent: str
    ink: str
    soft: str


def contrast(first: str, second: str) -> float:
    """Return the contrast of two colors, from 1 to 21."""
    return _contrast(_channels(first), _channels(second))


def accent_on(color: str, paper: str, raised: str, *, is_dark: bool) -> Accent:
    """Return the accent of a theme with the backgrounds `paper` and `raised`.

    The accent is readable as text on both and on the soft background. Its ink is readable on it.
    """
    towards = _WHITE if is_dark else _BLACK
    given, surfaces = _channels(color), (_channels(paper), _channels(raised))
    shade, soft = given, surfaces[0]
    for percent in range(101):
        shade = _mixed(given, towards, percent)
        soft = _mixed(surfaces[0], shade, _SOFT_PERCENT)
        if min(_contrast(shade, one) for one in (*surfaces, soft)) >= _TARGET:
            break
    ink = max((_BLACK, _WHITE), key=lambda one: _contrast(one, shade))
    return Accent(_text(shade), _text(ink), _text(soft))


def _contrast(first: _Channels, second: _Channels) -> float:
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(channels: _Channels) -> float:
    """Return the relative luminance, from 0 to 1."""
    red, green, blue = (
        one / 255 / 12.92 if one / 255 <= 0.04045 else ((one / 255 + 0.055) / 1.055) ** 2.4  # noqa: PLR2004 -- of the definition
        for one in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _mixed(first: _Channels, second: _Channels, percent: int) -> _Channels:
    red, green, blue = (
        float(round(one + (other - one) * percent / 100))
        for one, other in zip(first, second, strict=True)
    )
    return red, green, blue


def _channels(color: str) -> _Channels:
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return float(red), float(green), float(blue)


def _text(channels: _Channels) -> str:
    return "#" + bytes(int(one) for one in channels).hex()
