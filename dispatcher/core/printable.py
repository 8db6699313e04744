r"""Escape characters that steer a terminal or a reader's eye, in text from receivers and other strangers.

A receiver chooses its status text, `Location` and body; a producer chooses labels and data. Escape
sequences recolour or rewrite a terminal, bidirectional overrides make `gnp.exe` read as `exe.png`,
NUL has no place in a Postgres text, and invisible characters make two different texts look equal.
Each is replaced by its escape, as in `\x1b` or `\u202e`. Letters, combining marks, emoji joiners
(U+200B to U+200D, which Thai and emoji use) and ordinary spaces stay.
"""

import re
from typing import Final

_STEERING_RANGES: Final = (
    "\x7f-\x9f\xad\u061c\u180e\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f"
)
STEERING: Final = re.compile(f"[\x00-\x1f{_STEERING_RANGES}]")
"""Every such character, line breaks and tabs included."""
_STEERING_BUT_LAYOUT: Final = re.compile(f"[\x00-\x08\x0b\x0c\x0e-\x1f{_STEERING_RANGES}]")
_STEERING_IN_JSON: Final = re.compile(f"[{_STEERING_RANGES}]")
_NOT_ASCII: Final = re.compile("[\x7f-\U0010ffff]")


def escape(text: str) -> str:
    r"""Return the text on one line, with each steering character as `\x1b` or `\u202e`."""
    return text if text.isascii() and text.isprintable() else STEERING.sub(_escaped, text)


def escape_lines(text: str) -> str:
    """Return the text with its line breaks and tabs, and each other steering character escaped."""
    return (
        text if text.isascii() and text.isprintable() else _STEERING_BUT_LAYOUT.sub(_escaped, text)
    )


def escape_json(text: str, *, ascii_only: bool = False) -> str:
    r"""Return a JSON document with steering characters as `\uXXXX`, which means the same.

    Outside of strings they cannot occur. `ascii_only` escapes every character beyond ASCII, for an
    output that has no room for them.
    """
    pattern = _NOT_ASCII if ascii_only else _STEERING_IN_JSON
    return text if text.isascii() and "\x7f" not in text else pattern.sub(_as_json, text)


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    if number < 0x100:  # noqa: PLR2004 -- two digits suffice
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"  # noqa: PLR2004 -- four


def _as_json(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def is_text(text: str) -> bool:
    """Return whether a Postgres text can hold the string: no NUL, no half of a surrogate pair."""
    return utf8_length(text) is not None


def utf8_length(text: str) -> int | None:
    """Return the number of bytes of a string that a Postgres text can hold; None if it cannot."""
    if "\0" in text:
        return None
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())  # ten times as fast as a search for surrogates
    except UnicodeEncodeError:
        return None
