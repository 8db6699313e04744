"""Problems of input: one stable code each, with what is wrong and how to fix it.

A problem names the field, a code, and the values that its sentences hold. The English sentences are
here; the API and the command line return them, and the console translates by the code. A value that
may be a secret (a URL, a header, a certificate, a secret) is never part of a problem.
"""

import json  # noqa: TID251 -- orjson writes neither NaN nor a number of more than 64 bits
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from dispatcher.core.printable import escape_json
from dispatcher.core.problem_codes import SENTENCES

PROBLEMS_MAX: Final = 100
"""How many entries of a map that is too long anyway are checked: a body can hold a hundred thousand."""
VALUE_CHARACTERS_MAX: Final = 48
"""How much of a rejected value a message repeats."""


class Problem(NamedTuple):
    """One problem of one field; its sentences are made when they are read.

    A hostile body has a hundred thousand problems, of which a hundred are shown.
    """

    field: str
    """The path, as in `event_types[2]` or `labels.branch`."""
    code: str
    given: Mapping[str, Any]
    """The values of the sentences; `value` is the rejected value itself."""

    @property
    def values(self) -> Mapping[str, Any]:
        """The values of the sentences, for translations."""
        if "value" not in self.given:
            return self.given
        return {**self.given, "value": shortened(self.given["value"])}

    @property
    def message(self) -> str:
        """What is wrong, a sentence."""
        return SENTENCES[self.code][0].format_map(self.values)

    @property
    def fix(self) -> str:
        """How to fix it, a sentence."""
        return SENTENCES[self.code][1].format_map(self.values)

    @property
    def text(self) -> str:
        """The two sentences."""
        return f"{self.message} {self.fix}"

    def at(self, field: str) -> "Problem":
        """Return the same problem of another field."""
        return Problem(field, self.code, self.given)


def problem(field: str, code: str, **values: object) -> Problem:
    """Return the problem of a code; `values` fill its sentences.

    Raises:
        KeyError: there is no such code.
    """
    if code not in SENTENCES:
        raise KeyError(code)
    return Problem(field, code, values)


def shortened(value: object) -> str:
    """Return a rejected value as a message repeats it: as JSON, of bounded length."""
    if isinstance(value, str | list | dict):
        value = value[: VALUE_CHARACTERS_MAX + 1] if isinstance(value, str) else type(value)()
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:  # an integer of more digits than Python converts
        text = "the number"
    text = escape_json(text.encode("utf-8", "replace").decode())
    if len(text) <= VALUE_CHARACTERS_MAX:
        return text
    quote = '"' if text.startswith('"') else ""
    return f"{text[: VALUE_CHARACTERS_MAX - 1 - len(quote)]}…{quote}"


def number_text(value: float) -> str:
    """Return a bound without an exponent: `0.00001`, `604800`."""
    return f"{value:.5f}".rstrip("0").rstrip(".")
