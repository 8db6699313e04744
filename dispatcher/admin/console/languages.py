"""The console's words in Thai and English: flat catalogues, one JSON file each, with equal keys.

A text may hold `{names}` that are filled with values; what comes out is text and is escaped where it
is written. A key that is not there is an error, never a blank: tests ask for every key.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import orjson

from dispatcher.core.problems import SENTENCES

_FOLDER: Final = Path(__file__).parent / "text"
NAMES: Final[Mapping[str, str]] = {"en": "English", "th": "ไทย"}
DEFAULT: Final = "en"


class Language:
    """One language's catalogue."""

    def __init__(self, code: str, texts: Mapping[str, str]) -> None:
        self.code = code
        self.texts = texts

    def text(self, key: str, /, **values: object) -> str:
        """Returns the text of a key, its names filled.

        Raises:
            KeyError: there is no such key, or a name has no value.
        """
        found = self.texts[key]
        return found.format_map(values) if values else found

    def word(self, group: str, value: object) -> str:
        """Returns the word for a value of a closed set, and the value itself where it is not of it."""
        return self.texts.get(f"{group}.{value}", str(value))


@cache
def load() -> Mapping[str, Language]:
    """Returns the languages by code."""
    texts = {code: orjson.loads((_FOLDER / f"{code}.json").read_bytes()) for code in NAMES}
    # The English sentences of a problem's code are those of the API.
    texts["en"] |= {f"invalid.{code}": " ".join(both) for code, both in SENTENCES.items()}
    return {code: Language(code, found) for code, found in texts.items()}


def choose(chosen: str | None, accepted: str | None) -> Language:
    """Returns the language that was chosen, else the one that the browser likes best, else English."""
    languages = load()
    if chosen is not None and chosen in languages:
        return languages[chosen]
    wishes: list[tuple[float, int, str]] = []
    for index, part in enumerate((accepted or "")[:500].split(",")):
        tag, _, parameters = part.strip().partition(";")
        code = tag.split("-")[0].strip().lower()
        if code in languages:
            wishes.append((-_weight(parameters), index, code))
    return languages[min(wishes)[2]] if wishes else languages[DEFAULT]


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
