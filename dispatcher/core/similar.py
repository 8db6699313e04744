"""Similar words: what a person meant who mistyped a name."""

from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Final

_SIMILARITY_MIN: Final = 0.65
"""Of difflib's ratio: one wrong letter in three."""
_DISTANCE_MAX: Final = 0.08
"""Words that are less similar than the most similar one by more than this are left out."""
_COUNT_MAX: Final = 3


def similar_words(word: str, known: Iterable[str]) -> list[str]:
    """Return at most three of the known words that are similar to one, whatever their case, the most similar first."""
    matcher = SequenceMatcher(b=word.lower(), autojunk=False)
    found: list[tuple[float, str]] = []
    for one in known:
        matcher.set_seq1(one.lower())
        if matcher.quick_ratio() >= _SIMILARITY_MIN and matcher.ratio() >= _SIMILARITY_MIN:
            found.append((matcher.ratio(), one))
    found.sort(key=lambda one: -one[0])
    return [one for ratio, one in found if ratio >= found[0][0] - _DISTANCE_MAX][:_COUNT_MAX]


def did_you_mean(similar: Iterable[str]) -> str:
    """Return the question that names similar words; an empty text if there are none."""
    words = " or ".join(similar)
    return f"Did you mean {words}?" if words else ""
