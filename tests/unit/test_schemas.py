"""Schemas of event types: what differs is named by its path, and what may take long is refused."""

from typing import Any

import orjson
import pytest

from dispatcher.admin.operations.asyncapi import asyncapi
from dispatcher.config.catalogue import Catalogue, EventType, Group, Text
from dispatcher.core.filters import DATA_CHARACTERS_MAX, VALUES_MAX
from dispatcher.core.schemas import SchemaError, SchemaPolicy, compile_schema, fields_of

ORDER: dict[str, Any] = {
    "$defs": {
        "line": {
            "type": "object",
            "required": ["sku"],
            "properties": {"sku": {"type": "string"}, "quantity": {"type": "integer"}},
        }
    },
    "type": "object",
    "required": ["order_id"],
    "properties": {
        "order_id": {"type": "string", "description": "The number"},
        "total": {"type": ["number", "null"], "minimum": 0},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
    },
    "additionalProperties": False,
}


def text(document: object) -> str:
    return orjson.dumps(document).decode()


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        ('{"order_id": "A", "total": 1.5, "lines": [{"sku": "x"}]}', []),
        ('{"order_id": 7}', ["data.order_id"]),
        ("{}", ["data"]),
        ('{"order_id": "A", "lines": [{"sku": "x"}, {"quantity": "2"}]}', ["data.lines[1]", "data.lines[1].quantity"]),
        ('{"order_id": "A", "other": 1}', ["data"]),
        ('{"order_id": "\\ud800"}', ["data"]),
        ('{"order_id": "A", "n": "' + "x" * DATA_CHARACTERS_MAX + '"}', ["data"]),
        ('{"order_id": "A", "lines": [' + "0," * VALUES_MAX + "0]}", ["data"]),
    ],
)  # fmt: skip
def test_mismatches_are_named_by_their_paths(data: str, fields: list[str]) -> None:
    schema = compile_schema(text(ORDER))
    assert sorted(one.field for one in schema.mismatches(data)) == fields


def test_a_mismatch_repeats_no_value_of_the_event() -> None:
    found = compile_schema(text(ORDER)).mismatches('{"order_id": 4711, "total": -4712}')
    assert [one.field for one in found] == ["data.order_id", "data.total"]
    assert not any("471" in one.detail for one in found)


def test_a_large_event_reports_its_first_mismatch_alone() -> None:
    schema = compile_schema(text(ORDER))
    found = schema.mismatches(text({"order_id": "A", "lines": [{}] * 1000}))
    assert [one.field for one in found] == ["data.lines[0]"]


ROOT = {"asyncapi", "id", "info", "servers", "defaultContentType"} | {
    "channels",
    "operations",
    "components",
}
DOUBLING = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(20)}


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"type": "text"}, "is not a valid JSON Schema"),
        ({"$ref": "http://127.0.0.1:1/a"}, "must begin with #/"),
        ({"$ref": "file:///etc/passwd"}, "must begin with #/"),
        ({"$ref": "#/$defs/a"}, "there is no such part"),
        ({"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}, "refers to itself"),
        ({"$id": "http://x/y", "type": "object"}, "$id is not supported"),
        ({"unevaluatedProperties": False}, "not supported"),
        ({"$defs": DOUBLING | {"d20": {}}, "$ref": "#/$defs/d0"}, "has more than"),
        ({"allOf": [{"items": {"type": "string"}}] * 60}, "has more than"),
        ({"properties": {"a": {"pattern": "(?:a{0,1000}){0,1000}"}}}, "is not a valid JSON Schema"),
        ({"properties": {"a": {"pattern": "^(?!a)b"}}}, "is not a valid JSON Schema"),
        ({"description": "x" * 65_536}, "must have at most"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "$schema must be one of"),
    ],
)  # fmt: skip
def test_a_schema_that_may_take_long_is_refused(document: object, problem: str) -> None:
    with pytest.raises(SchemaError, match=problem.replace("$", r"\$")):
        compile_schema(text(document))


def test_fields_are_those_of_the_schema() -> None:
    rows = {one.path: one for one in fields_of(ORDER)}
    assert list(rows) == ["order_id", "total", "lines", "lines[].sku", "lines[].quantity"]
    assert rows["order_id"].is_required
    assert rows["order_id"].description == "The number"
    assert (rows["total"].kind, rows["total"].rules) == ("number | null", "minimum: 0")
    assert rows["lines"].kind == "array of object"


def pointed(document: Any, reference: str) -> Any:
    found = document
    for name in reference.removeprefix("#/").split("/"):
        found = found[name.replace("~1", "/").replace("~0", "~")]
    return found


def references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [one for value in part.values() for one in references(value)]
    return [one for value in part for one in references(value)] if isinstance(part, list) else []


def test_asyncapi_obeys_the_rules_of_version_3() -> None:
    """The rules of https://www.asyncapi.com/docs/reference/specification/v3.0.0 for the objects that it has."""
    plain = EventType(
        name="a.b", group="g", title=Text("ก", "A"), description=Text("ก", "A"), sample="{}"
    )
    order = EventType(
        name="order.created", group="g", title=Text("ก", "Order"), description=Text("ก", "Order"),
        sample='{"order_id":"A"}', schema=compile_schema(text(ORDER), SchemaPolicy.REJECT),
    )  # fmt: skip
    types = {"a.b": plain, "order.created": order}
    document = asyncapi(
        Catalogue(types=types, groups={"g": Group(name="g", title=Text("ก", "G"))}, replaced=())
    )
    assert document["asyncapi"] == "3.0.0"
    assert document.keys() <= ROOT
    assert {"title", "version"} <= document["info"].keys()
    assert all(pointed(document, one) for one in references(document))
    (channel,) = document["channels"].values()
    assert channel["address"] is None
    assert channel["messages"].keys() == types.keys()
    (operation,) = document["operations"].values()
    assert operation["action"] in {"send", "receive"}
    assert pointed(document, operation["channel"]["$ref"]) is channel
    of_channel = {f"{operation['channel']['$ref']}/messages/{name}" for name in channel["messages"]}
    assert {one["$ref"] for one in operation["messages"]} <= of_channel, (
        "of the channel, not of components"
    )
    for name, message in document["components"]["messages"].items():
        assert message["payload"].keys() == {"schemaFormat", "schema"}
        assert message["name"] == name
        # Its example fits its payload, with references resolved in the document.
        for example in message["examples"]:
            inner = message["payload"]["schema"]["properties"]["data"]
            moved = orjson.loads(
                text(inner).replace(
                    f"#/components/messages/{name}/payload/schema/properties/data/", "#/"
                )
            )
            assert not compile_schema(text(moved)).mismatches(text(example["payload"]["data"]))
