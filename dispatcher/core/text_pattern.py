r"""Patterns that find a text in JSON, whatever its case and however the writer escaped it.

A JSON writer may write `é` as it is or as `\u00e9`, `/` as `\/`, and `<` as `\u003c`. Three patterns
of rising cost decide, and each is evaluated only where the one before matches:

* `run`: the longest part of the text without letters that have a case, as bytes. Postgres finds
  bytes in bytes in 1 µs for 500 bytes, and most searches are for order numbers.
* `likes`: patterns for LIKE on the JSON in lower case (of ASCII). Characters with several spellings
  are `%`.
* `regex`: the exact pattern, for the few rows that are left.
"""

import re
from typing import Final, NamedTuple

RUN_CHARACTERS_MIN: Final = 3
"""A shorter run is in most payloads, so that looking for it costs more than it saves."""
_ESCAPES: Final = {'"': '"', "/": "/", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
_OFTEN_ESCAPED: Final = frozenset("\"\\/<>&'+=`\x7f")
"""ASCII characters that some JSON writers escape; so are control characters."""
_HEX_LETTER: Final = re.compile("[a-f]")
_RUN_OF_THREE: Final = re.compile(r"[^\W_]{3}")
_ASCII_MAX: Final = 0x7F
_CONTROLS_MAX: Final = 0x1F


class TextPattern(NamedTuple):
    """The patterns of a text."""

    run: bytes | None
    run_may_be_escaped: bool
    """Whether JSON may contain the run as escapes alone."""
    likes: list[str]
    """One of them matches the lower-case JSON wherever the text is."""
    regex: str
    """For the operator `~` of Postgres."""

    @property
    def has_trigrams(self) -> bool:
        """Whether an index of trigrams helps: each pattern for LIKE has three letters or digits in a row."""
        return all(_RUN_OF_THREE.search(like) is not None for like in self.likes)


def text_pattern(text: str) -> TextPattern:
    """Return the patterns that find a text of at least one character."""
    run = _longest_run(text)
    raw = _like(text, escaped=False)
    likes = [raw]
    if not text.isascii():
        escaped = _like(text, escaped=True)
        likes += [] if escaped == raw else [escaped]
    return TextPattern(
        run=None if run is None else run.encode(),
        run_may_be_escaped=run is not None and not run.isascii(),
        likes=likes,
        regex="".join(map(_regex, text)),
    )


def _has_several_spellings(character: str) -> bool:
    """Return whether JSON may write an ASCII character in several ways."""
    return character in _OFTEN_ESCAPED or ord(character) <= _CONTROLS_MAX


def _cases(character: str) -> list[str]:
    """Return the character in each case; those that a change of case makes several characters stay."""
    cases = {character, character.lower(), character.upper()}
    return sorted(one for one in cases if len(one) == 1)


def _longest_run(text: str) -> str | None:
    runs, current = [], ""
    for character in text:
        if _has_several_spellings(character) or len(_cases(character)) > 1:
            runs.append(current)
            current = ""
        else:
            current += character
    longest = max([*runs, current], key=len)
    return longest if len(longest) >= RUN_CHARACTERS_MIN else None


def _like(text: str, *, escaped: bool) -> str:
    """Return a pattern for LIKE on lower-case JSON, with characters beyond ASCII as escapes or as they are."""
    parts = ["%"]
    for character in text:
        if ord(character) > _ASCII_MAX:
            if len(_cases(character)) > 1:
                parts.append("%")
            else:
                parts.append(_units(character).replace("\\", "\\\\") if escaped else character)
        elif _has_several_spellings(character):
            parts.append("%")
        else:
            parts.append(re.sub(r"([%_\\])", r"\\\1", character.lower()))
    return re.sub(r"(?<!\\)%{2,}", "%", "".join([*parts, "%"]))


def _units(character: str) -> str:
    r"""Return the JSON escape of a character: one `\uXXXX`, or two for a surrogate pair."""
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _regex(character: str) -> str:
    if character.isascii() and character.isalnum():
        cases = _cases(character)
        return f"[{''.join(cases)}]" if len(cases) > 1 else character
    plain = _quoted(character)
    if not _has_several_spellings(character) and ord(character) <= _ASCII_MAX:
        return plain
    spellings = [_quoted(one) for one in _cases(character)]
    spellings += [_escape_regex(_units(one)) for one in _cases(character)]
    if character == "\\":
        spellings.append(r"\\\\")
    elif character in _ESCAPES:
        spellings.append(rf"\\{_quoted(_ESCAPES[character])}")
    return f"(?:{'|'.join(spellings)})"


def _escape_regex(units: str) -> str:
    """Return the regex of escapes, whose digits may be of either case."""
    digits = _HEX_LETTER.sub(lambda found: f"[{found[0]}{found[0].upper()}]", units)
    return digits.replace("\\u", r"\\u")


def _quoted(character: str) -> str:
    """Return a character that means itself in a regular expression of Postgres."""
    return f"\\{character}" if character.isascii() and not character.isalnum() else character
