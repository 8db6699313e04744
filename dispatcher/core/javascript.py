r"""JSON text to exactly the bytes of JavaScript's `JSON.stringify(JSON.parse(text))`.

The Humansoft document asks receivers to verify a signature over `JSON.stringify(req.body)`, that
is over a body which JavaScript has parsed and written again. Such a receiver agrees with us only
about bodies that this round trip leaves as they are, so bodies under that profile are put through
it here, once, before they are signed.

What always holds:

* The result is a fixed point: JavaScript gives the same bytes for it again.
* The bytes are valid UTF-8; a lone surrogate is written as an escape (`\ud800`), as there.
* Object members stand in JavaScript's order: canonical array indexes ascending, then the rest as
  first seen; the last of duplicate keys gives the value, the first the place.
* A number is what ECMAScript's Number::toString gives for the nearest double. `number_changed`
  reports whether that differs in value from the original: `12.0` to `12` does not,
  `12345678901234567890` does, and so does `1e400`, which becomes `null`.

There are two ways. The general one reads the text token by token without recursion, so depth costs
no stack; its only bounds are `DEPTH_MAX` and the text's own length. The fast one is orjson there
and back. It is taken only where the two provably agree: a pattern first proves that no number, key
or escape of the text is of a kind in which orjson and JavaScript differ, and whatever orjson
refuses goes the general way. Both are compared with a real JavaScript engine by the tests.
"""

import json
import json.encoder
import re
from collections.abc import Callable
from typing import NamedTuple

import orjson

from dispatcher.core.errors import EncodingError

DEPTH_MAX = 5_000
"""Arrays and objects within each other; JavaScript's own parser gives up at a few thousand."""


class Rewritten(NamedTuple):
    """The bytes JavaScript would write, and whether a number lost its value on the way."""

    body: bytes
    number_changed: bool


def stringify(text: str) -> Rewritten:
    """Return `text` as `JSON.stringify(JSON.parse(text))` writes it, in UTF-8.

    Raises:
        EncodingError: `text` is no JSON, is nested deeper than `DEPTH_MAX`, or is no Unicode.

    Source: ECMAScript 2024, 25.5.1, 25.5.2 and 6.1.6.1.20.
    """
    if not _is_odd(text):
        try:
            return Rewritten(orjson.dumps(orjson.loads(text)), number_changed=False)
        except (orjson.JSONDecodeError, orjson.JSONEncodeError):
            # Faulty, or deeper than orjson goes. The general parser finds out which.
            pass
    rewritten, number_changed = _rewrite(text)
    try:
        return Rewritten(rewritten.encode(), number_changed)
    except UnicodeEncodeError as error:
        raise EncodingError(f"the text holds half a character: {error}") from error


quote: Callable[[str], str] = json.encoder.encode_basestring
"""Return a text as a JSON string, quotes included; what is not ASCII stays as it is."""


_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"

# A number that everyone writes the same: at most 15 digits, so that decimal to double and back is
# the identity; no trailing zero, no exponent, no minus zero, not below 1e-4 (orjson turns to
# exponents before JavaScript does).
_PLAIN_NUMBER = (
    r"(?:0|-?[1-9][0-9]{0,14}"
    r"|-?(?!0\.0000)(?![0-9.]{17})(?:0|[1-9][0-9]*)\.[0-9]*[1-9])"
)

# What orjson and JavaScript might write differently, wherever it stands: a match inside a string
# only costs time. A number always stands between a comma, colon, opening bracket, white space or
# the beginning, and a comma, closing bracket or brace, white space or the end. Three patterns, each
# of which begins with few characters, take 6 us for 434 characters; one for all took 21.
_ODD_NUMBER = re.compile(
    r"[:,\[ \t\n\r](?=[-0-9])"
    rf"(?!{_PLAIN_NUMBER}(?:[ \t\n\r,\]}}]|$))-?[0-9][0-9.eE+-]*(?:[ \t\n\r,\]}}]|$)"
)
_ODD_BEGINNING = frozenset("-0123456789")
_ODD_KEY = re.compile(r'"[0-9]+"[ \t\n\r]*:')
_ODD_ESCAPE = re.compile(r"\\u(?:003|[dD])")  # a digit, which may make such a key; a surrogate


def _is_odd(text: str) -> bool:
    return (
        text[:1] in _ODD_BEGINNING
        or _ODD_NUMBER.search(text) is not None
        or _ODD_KEY.search(text) is not None
        or _ODD_ESCAPE.search(text) is not None
    )


_STRING = r'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"'
_SPACE = r"[ \t\n\r]*"
_VALUE = re.compile(
    rf"{_SPACE}(?:(?P<string>{_STRING})|(?P<number>{_NUMBER})|(?P<literal>true|false|null)"
    rf"|(?P<empty>\{{{_SPACE}\}}|\[{_SPACE}\])|\{{{_SPACE}(?P<key>{_STRING}){_SPACE}:"
    r"|(?P<array>\[))"
)
_AFTER_ELEMENT = re.compile(rf"{_SPACE}(?:(?P<more>,)|\])")
_AFTER_MEMBER = re.compile(rf"{_SPACE}(?:,{_SPACE}(?P<key>{_STRING}){_SPACE}:|\}})")
_AFTER_ALL = re.compile(rf"{_SPACE}\Z")

_PLAIN = re.compile(_PLAIN_NUMBER)
_INDEX = re.compile(r'"(?:0|[1-9][0-9]{0,9})"')
_INDEX_MAX = 2**32 - 2
_SURROGATE = re.compile("[\ud800-\udfff]")


class _Members:
    """An object that is being read: its members so far, and the key whose value comes next."""

    __slots__ = ("key", "values")

    def __init__(self, key: str) -> None:
        self.key = key
        self.values: dict[str, str] = {}

    def written(self) -> str:
        values = self.values
        indexes = [key for key in values if _is_index(key)]
        if indexes:
            indexes.sort(key=lambda key: int(key[1:-1]))
            values = {key: values[key] for key in [*indexes, *values]}
        return "{" + ",".join([f"{key}:{value}" for key, value in values.items()]) + "}"


def _rewrite(text: str) -> tuple[str, bool]:
    """Reads value after value; each one read closes as many open containers as end behind it."""
    number_changed = False
    containers: list[list[str] | _Members] = []
    position = 0
    while True:
        token = _VALUE.match(text, position)
        if token is None:
            raise _not_json(position)
        position = token.end()
        kind = token.lastgroup
        value = token[kind or 0]
        if kind in {"key", "array"}:
            if len(containers) == DEPTH_MAX:
                raise EncodingError(f"nested deeper than {DEPTH_MAX} arrays and objects")
            containers.append(_Members(_string(value, position)) if kind == "key" else [])
            continue
        if kind == "string":
            value = _string(value, position)
        elif kind == "number":
            value, changed = _number(value)
            number_changed = number_changed or changed
        elif kind == "empty":
            value = value[0] + value[-1]
        while containers:
            container = containers[-1]
            if isinstance(container, _Members):
                container.values[container.key] = value
                token = _AFTER_MEMBER.match(text, position)
                if token is not None and token["key"] is not None:
                    container.key = _string(token["key"], token.end())
            else:
                container.append(value)
                token = _AFTER_ELEMENT.match(text, position)
            if token is None:
                raise _not_json(position)
            position = token.end()
            if token.lastgroup is not None:
                break
            containers.pop()
            value = (
                container.written()
                if isinstance(container, _Members)
                else "[" + ",".join(container) + "]"
            )
        else:
            if _AFTER_ALL.match(text, position) is None:
                raise _not_json(position)
            return value, number_changed


def _not_json(position: int) -> EncodingError:
    return EncodingError(f"not JSON at character {position}")


def _string(token: str, end: int) -> str:
    """Return a string token as JavaScript writes it; without an escape it is that already."""
    if "\\" not in token:
        return token
    try:
        decoded: str = json.loads(token)
    except json.JSONDecodeError as error:
        raise _not_json(end - len(token) + error.pos) from error
    return _SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", quote(decoded))


def _is_index(key: str) -> bool:
    return _INDEX.fullmatch(key) is not None and int(key[1:-1]) <= _INDEX_MAX


def _number(token: str) -> tuple[str, bool]:
    """Return the number as JavaScript writes it, and whether it has another value than written."""
    if _PLAIN.fullmatch(token) is not None:
        return token, False
    # float() rounds correctly and takes any number of digits; what is too large becomes infinity.
    value = float(token)
    if value in {float("inf"), float("-inf")}:
        return "null", True
    mantissa = token.lower().partition("e")[0]
    if value == 0:
        return "0", mantissa.strip("-0.") != ""
    written = _digits_and_point(repr(value))
    sign = "-" if value < 0 else ""
    return sign + _number_to_string(*written), written != _digits_and_point(token)


def _digits_and_point(number: str) -> tuple[str, int]:
    """Return the significant digits of a number other than 0, and where its point stands.

    `(digits, point)` means 0.digits times 10 to the power of point: equal values, equal pairs.
    """
    mantissa, _, exponent = number.lower().lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) - (len(whole) + len(fraction) - len(digits))
    # Zeros before the exponent's digits go first: int() refuses texts of some thousand digits.
    negative = exponent.startswith("-")
    shift = int(exponent.lstrip("+-").lstrip("0") or "0")
    return digits.rstrip("0"), point + (-shift if negative else shift)


_POINT_MAX = 21
_POINT_MIN = -5


def _number_to_string(digits: str, point: int) -> str:
    """Number::toString of ECMAScript for radix 10: its k is `len(digits)`, its n is `point`."""
    count = len(digits)
    if count <= point <= _POINT_MAX:
        return digits + "0" * (point - count)
    if 0 < point <= _POINT_MAX:
        return f"{digits[:point]}.{digits[point:]}"
    if _POINT_MIN <= point <= 0:
        return f"0.{'0' * -point}{digits}"
    exponent = f"e+{point - 1}" if point > 0 else f"e-{1 - point}"
    return f"{digits[0]}.{digits[1:]}{exponent}" if count > 1 else digits + exponent
