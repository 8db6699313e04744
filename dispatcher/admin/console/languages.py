"""The console's messages in Thai and English: flat catalogues, one JSON file each, with equal keys.

A message may contain `{names}`, which are replaced by values. The result is plain text, and templates
escape it. A missing key is an error and never an empty string; tests request every key.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import orjson

from dispatcher.core.diagnosis.mistakes import MESSAGES
from dispatcher.core.problem_codes import SENTENCES

_FOLDER: Final = Path(__file__).parent / "text"
NAMES: Final[Mapping[str, str]] = {"en": "English", "th": "ไทย"}
DEFAULT: Final = "en"


class Language:
    """One language's catalogue."""

    def __init__(self, code: str, texts: Mapping[str, str]) -> None:
        self.code = code
        self.texts = texts

    def text(self, key: str, /, **values: object) -> str:
        """Return the message of a key, with its names replaced.

        Raises:
            KeyError: the key does not exist, or a name has no value.
        """
        found = self.texts[key]
        return found.format_map(values) if values else found

    def word(self, group: str, value: object) -> str:
        """Return the label of a value of a closed set; the value itself if it has no label."""
        return self.texts.get(f"{group}.{value}", str(value))


@cache
def load() -> Mapping[str, Language]:
    """Return the languages by code."""
    texts = {code: orjson.loads((_FOLDER / f"{code}.json").read_bytes()) for code in NAMES}
    # The English messages of problem codes are those of the API.
    texts["en"] |= {f"invalid.{code}": " ".join(both) for code, both in SENTENCES.items()}
    # Those of findings are the API's and the command line's.
    texts["en"] |= {f"finding.{code}": both[0] for code, both in MESSAGES.items()}
    texts["en"] |= {f"finding_fix.{code}": both[1] for code, both in MESSAGES.items()}
    return {code: Language(code, found) for code, found in texts.items()}


def choose(chosen: str | None, accepted: str | None) -> Language:
    """Return the chosen language, otherwise the one that the browser prefers, otherwise English."""
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
