"""Resources: what is generated from them is what is written, and each setting is defined completely."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone

import pytest

from dispatcher.admin.resources import reference
from dispatcher.admin.resources.endpoint import SETTINGS, Endpoint, EndpointSettings
from dispatcher.admin.resources.endpoint_requests import NewEndpoint
from dispatcher.admin.resources.presentation import Control, Option, metadata_of
from dispatcher.admin.resources.serialization import time_text
from dispatcher.core.problem_codes import SENTENCES
from dispatcher.core.problems import problem, shortened
from dispatcher.store.endpoints import EndpointDetail
from dispatcher.store.statements import statement


@pytest.mark.parametrize("name", reference.TABLES)
def test_a_table_of_the_documentation_is_the_generated_one(name: str):
    document, make = reference.TABLES[name]
    text = (reference.DOCUMENTS / document).read_text(encoding="utf-8")
    assert text == reference.with_table(text, name, make()), (
        "run python -m dispatcher.admin.resources.reference"
    )


def test_a_document_without_the_comments_of_a_table_is_an_error():
    with pytest.raises(ValueError, match="has no <!-- x -->"):
        reference.with_table("text", "x", "|")


def test_every_setting_has_an_option_a_response_and_a_column():
    options, controls = metadata_of(NewEndpoint, Option), metadata_of(NewEndpoint, Control)
    assert options.keys() == NewEndpoint.model_fields.keys()
    assert controls.keys() == NewEndpoint.model_fields.keys()
    assert set(SETTINGS) <= {one.name for one in fields(Endpoint)}
    assert set(SETTINGS) <= set(EndpointDetail._fields)


@pytest.mark.parametrize("name", ["endpoint_insert", "endpoint_update"])
def test_a_statement_stores_the_settings_in_the_order_of_the_model(name: str):
    text = statement(name)
    places = [text.index(f"{setting}", text.index("dispatcher.endpoint")) for setting in SETTINGS]
    assert places == sorted(places)


def test_settings_have_the_same_type_in_a_change_and_in_a_new_endpoint():
    change, new = (
        model.model_json_schema()["properties"] for model in (EndpointSettings, NewEndpoint)
    )
    for name in SETTINGS:
        assert {**change[name], "default": 0} == {**new[name], "default": 0}


@pytest.mark.parametrize("code", SENTENCES)
def test_a_code_is_snake_case_and_has_two_sentences(code: str):
    assert code == code.lower()
    assert code.replace("_", "").isalnum()
    for text in SENTENCES[code]:
        assert text.endswith((".", "?"))


def test_a_value_of_a_problem_is_shortened_and_never_steers_a_format():
    assert shortened("x" * 1000).endswith('x…"')
    assert len(shortened("x" * 1000)) == 48
    assert shortened(10**5000) == "the number"
    assert shortened(["secret"]) == "[]"
    one = problem("a", "not_one_of", value="{allowed}", allowed="b")
    assert one.message.startswith('"{allowed}"')


def test_times_have_four_digits_of_the_year_and_microseconds():
    assert time_text(datetime(6, 10, 28, 10, 21, tzinfo=UTC)) == "0006-10-28T10:21:00.000000Z"
    bangkok = timezone(timedelta(hours=7))
    assert time_text(datetime(2026, 1, 1, 5, tzinfo=bangkok)) == "2025-12-31T22:00:00.000000Z"
    assert time_text(None) is None
