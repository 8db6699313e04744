"""`/asyncapi.json` under the official JSON Schema of AsyncAPI 3.0.0 (the package @asyncapi/specs, Apache-2.0)."""

from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest

from dispatcher.admin.operations.asyncapi import asyncapi
from dispatcher.config.catalogue import Catalogue, EventType, Group, Text
from dispatcher.config.loading import load_configuration
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.schemas import compile_schema

OFFICIAL = Path(__file__).parent / "vendor" / "asyncapi-3.0.0.json"
DRAFTS = {
    "order.created": "https://json-schema.org/draft/2020-12/schema",
    "stock.changed": "http://json-schema.org/draft-07/schema#",
}


@pytest.fixture(scope="module")
def official() -> Any:
    return jsonschema_rs.validator_for(orjson.loads(OFFICIAL.read_bytes()), offline=True)


def problems(official: Any, document: object) -> list[str]:
    return [
        f"{list(one.instance_path)}: {one.message}"[:300] for one in official.iter_errors(document)
    ]


@pytest.fixture
def with_schemas() -> dict[str, Any]:
    types = {}
    for name, draft in DRAFTS.items():
        schema = {
            "$schema": draft, "type": "object", "required": ["id"],
            "properties": {"id": {"type": "string", "minLength": 1}, "next": {"$ref": "#/definitions/one"}},
            "definitions": {"one": {"type": ["object", "null"], "additionalProperties": False}},
        }  # fmt: skip
        types[name] = EventType(
            name=name, group="g", title=Text("ก", "A"), description=Text("ก", "A"),
            sample='{"id":"A"}', schema=compile_schema(orjson.dumps(schema).decode()),
        )  # fmt: skip
    groups = {"g": Group(name="g", title=Text("ก", "G"))}
    return asyncapi(Catalogue(types=types, groups=groups, replaced=()))


def test_asyncapi_of_the_shipped_types_fits_the_official_schema(official: Any) -> None:
    configuration = load_configuration(load_settings(None, {}), needs_keys=False)
    document = asyncapi(configuration.catalogue)
    assert len(document["components"]["messages"]) == len(configuration.catalogue.types) > 0
    assert problems(official, document) == []


def test_asyncapi_of_types_with_schemas_fits_the_official_schema(
    official: Any, with_schemas: dict[str, Any]
) -> None:
    assert set(with_schemas["components"]["messages"]) == set(DRAFTS)
    assert problems(official, with_schemas) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("operations", "deliver", "action"), "sent"),
        (("channels", "webhook", "messagez"), {}),
        (("components", "messages", "order.created", "payload", "schemaFormat"), 7),
        (("info", "version"), None),
    ],
)
def test_control_the_official_schema_rejects_a_wrong_document(
    official: Any, with_schemas: dict[str, Any], path: tuple[str, ...], value: object
) -> None:
    part = with_schemas
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    assert problems(official, with_schemas) != []
