"""Similar words for mistyped ones."""

import pytest

from dispatcher.core.similar import did_you_mean, similar_words

TYPES = ["order.created", "order.allocated", "order.shipped", "asn.created", "stock.changed"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("order.creatd", ["order.created"]),
        ("ORDER.CREATED", ["order.created"]),
        ("ordre.shipped", ["order.shipped"]),
        ("nothing.like.it", []),
        ("", []),
    ],
)
def test_similar_words_of_a_mistyped_one(word: str, expected: list[str]):
    assert similar_words(word, TYPES) == expected


def test_the_question_names_them_all_or_is_empty():
    assert did_you_mean(["a", "b"]) == "Did you mean a or b?"
    assert did_you_mean([]) == ""
