"""What a request's faults are called: in words of ours, whatever is wrong with whatever field."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from dispatcher.admin.api.route import inputs_of
from dispatcher.admin.api.route_table import ROUTES
from dispatcher.admin.resources.delivery import DeliveriesQuery
from dispatcher.admin.resources.event import NewEventFields
from dispatcher.admin.resources.serialization import JsonText
from dispatcher.admin.resources.token import NewToken
from dispatcher.admin.resources.validation import NOW, problems_of

VALIDATORS_WORDS = re.compile(
    r"input|integer|pattern|dictionary|\{[a-z]|Value error", re.IGNORECASE
)
NOON = datetime(2026, 5, 29, 12, tzinfo=UTC)
WRONG: list[Any] = [None, 0, -1, 1e400, 1.5, True, "", "\0", "é" * 600, [], [1], [""] * 600]
WRONG += [{}, {"a": 1}, {"A": "x"}, JsonText("[]"), JsonText('{"a":"' + "x" * 1_048_576 + '"}')]


def models() -> list[type[BaseModel]]:
    found = {}
    for route in ROUTES:
        inputs = inputs_of(route.handler)
        for model in (inputs.query, inputs.fields):
            if model is not None:
                found[model.__name__] = model
    return list(found.values())


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_no_fault_is_told_in_the_validators_own_words(model: type[BaseModel]) -> None:
    told = set()
    for wrong in WRONG:
        given = dict.fromkeys(model.model_fields, wrong)
        try:
            model.model_validate(given, context={NOW: NOON})
        except ValidationError as error:
            told |= {one.text for one in problems_of(error)}
    assert told
    assert [words for words in sorted(told) if VALIDATORS_WORDS.search(words)] == []


@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        (DeliveriesQuery, {"endpoint_id": "x" * 300}, "too_long"),
        (NewEventFields, {"type": "a." + "b" * 300}, "too_long"),
        (NewEventFields, {"id": "x" * 300}, "invalid_id"),
        (NewToken, {"name": "x" * 300}, "too_long"),
        (NewToken, {"role": "root"}, "not_one_of"),
    ],
)
def test_a_bound_that_is_told_is_the_one_that_holds(
    model: type[BaseModel], given: dict[str, str], words: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(given)
    (field,) = given
    assert {one.field: one.code for one in problems_of(caught.value)}[field] == words
