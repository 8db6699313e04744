"""AsyncAPI 3 of a deployment: the event types of the catalogue as messages that the dispatcher sends.

The payload is the body of the profile `standard`; other profiles embed the same data in another body. Schemas are
copied into their message, with their references moved along.
"""

from typing import Any, Final

import orjson

from dispatcher import __version__
from dispatcher.config.catalogue import Catalogue, EventType

DESCRIPTION: Final = """\
The events of this deployment, as POST requests to webhooks with the profile `standard`. Other profiles send the same
data in another body, and endpoints with `delivery: pull` get the same body from the API.
"""
FORMATS: Final = {
    True: "application/schema+json;version=draft-07",
    False: "application/schema+json;version=draft-2020-12",
}
_CHANNEL: Final = "webhook"


def asyncapi(catalogue: Catalogue) -> dict[str, Any]:
    """Return the document."""
    channel = f"#/channels/{_CHANNEL}"
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "dispatcher", "version": __version__, "description": DESCRIPTION},
        "defaultContentType": "application/json",
        "channels": {
            _CHANNEL: {
                "address": None,
                "description": "The URL of a webhook, which its owner chooses.",
                "messages": {
                    name: {"$ref": f"#/components/messages/{name}"} for name in catalogue.types
                },
            }
        },
        "operations": {
            "deliver": {
                "action": "send",
                "channel": {"$ref": channel},
                "summary": "Deliver an event; a response with a status of 2xx acknowledges it.",
                "bindings": {"http": {"method": "POST", "bindingVersion": "0.3.0"}},
                "messages": [{"$ref": f"{channel}/messages/{name}"} for name in catalogue.types],
            }
        },
        "components": {
            "messages": {name: _message(one) for name, one in catalogue.types.items()},
        },
    }


def _message(event_type: EventType) -> dict[str, Any]:
    name, schema = event_type.name, event_type.schema
    document = {"type": "object"} if schema is None else schema.document
    is_old = "draft-07" in str(document.get("$schema", ""))
    place = f"#/components/messages/{name}/payload/schema/properties/data"
    data = {key: value for key, value in document.items() if key != "$schema"}
    return {
        "name": name,
        "title": event_type.title.en,
        "description": event_type.description.en,
        "contentType": "application/json",
        "payload": {
            "schemaFormat": FORMATS[is_old],
            "schema": {
                "type": "object",
                "required": ["type", "timestamp", "data"],
                "properties": {
                    "type": {"const": name},
                    "timestamp": {"type": "string", "format": "date-time"},
                    "data": _moved(data, place),
                },
            },
        },
        "examples": [
            {
                "payload": {
                    "type": name,
                    "timestamp": "2026-05-29T07:32:11.000000Z",
                    "data": orjson.loads(event_type.sample),
                }
            }
        ],
    }


def _moved(part: Any, place: str) -> Any:  # noqa: ANN401 -- JSON
    """Return a part of a schema whose references lead to the schema's place in the document."""
    if isinstance(part, list):
        return [_moved(one, place) for one in part]
    if not isinstance(part, dict):
        return part
    return {
        key: place + value[1:] if key == "$ref" and isinstance(value, str) else _moved(value, place)
        for key, value in part.items()
    }
