"""YAML of the API's objects: block style, strings quoted wherever a reader of YAML could take them for another type.

The text is made from the object's JSON, so that both have the same names, order and digits. A quoted string is JSON's,
which YAML reads alike.
"""

import json  # noqa: TID251 -- orjson does not keep the digits of a number
import re
from collections.abc import Iterator
from typing import Any, Final

from dispatcher.core.printable import escape_json

_PLAIN: Final = re.compile(
    r"[A-Za-z_/][A-Za-z0-9_./*@+-]*(?: [A-Za-z0-9_./*@+(-][A-Za-z0-9_./*@+()-]*)*"
)
"""Strings that need no quotes, unless they are a word of `_WORDS`."""
_WORDS: Final = frozenset(
    {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity"}
)
_STEP: Final = "  "


class _Digits(str):
    """A number as the JSON has it."""

    __slots__ = ()


def write_yaml(text: str) -> str:
    """Return a JSON text as a YAML document."""
    value = json.loads(text, parse_int=_Digits, parse_float=_Digits, parse_constant=_Digits)
    return "".join(f"{line}\n" for line in _lines(value))


def _lines(value: Any) -> Iterator[str]:  # noqa: ANN401 -- as JSON has it
    match value:
        case dict() if value:
            for name, one in value.items():
                yield from _entry(f"{_scalar(name)}:", one)
        case list() if value:
            for one in value:
                if isinstance(one, dict | list) and one:
                    first, *rest = _lines(one)
                    yield f"- {first}"
                    yield from (_STEP + line for line in rest)
                else:
                    yield f"- {_scalar(one)}"
        case _:
            yield _scalar(value)


def _entry(head: str, value: Any) -> Iterator[str]:  # noqa: ANN401 -- as JSON has it
    if isinstance(value, dict | list) and value:
        yield head
        yield from (_STEP + line for line in _lines(value))
    else:
        yield f"{head} {_scalar(value)}"


def _scalar(value: Any) -> str:  # noqa: ANN401 -- as JSON has it
    match value:
        case _Digits():
            return str(value)
        case str() if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
            return value
        case _:
            return escape_json(json.dumps(value, ensure_ascii=False))
