"""What a request's faults are called: in words of ours, whatever is wrong with whatever field."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from dispatcher.admin.api.kinds import NOW, faults_of
from dispatcher.admin.api.requests import DeliveriesQuery, NewEventFields, NewToken
from dispatcher.admin.api.routes import inputs_of
from dispatcher.admin.api.table import ROUTES
from dispatcher.admin.operations.objects import JsonText

VALIDATORS_WORDS = re.compile(
    r"input|string|integer|pattern|dictionary|\{[a-z]|Value error", re.IGNORECASE
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
            told |= {words for _, words in faults_of(error)}
    assert told
    assert [words for words in sorted(told) if VALIDATORS_WORDS.search(words)] == []


@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        (DeliveriesQuery, {"endpoint_id": "x" * 300}, "must have at most 256 characters"),
        (NewEventFields, {"type": "a." + "b" * 300}, "must have at most 128 characters"),
        (NewEventFields, {"id": "x" * 300}, "must be 1 to 64 letters, digits, _ and -"),
        (NewToken, {"name": "x" * 300}, "must be a text of 1 to 128 characters"),
        (NewToken, {"role": "root"}, "must be one of viewer, operator or admin"),
    ],
)
def test_a_bound_that_is_told_is_the_one_that_holds(
    model: type[BaseModel], given: dict[str, str], words: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(given)
    (field,) = given
    assert dict(faults_of(caught.value))[field] == words
