"""OpenAPI 3.1, generated from the table of routes and the models of their requests and responses."""

import re
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Any, Final, get_args

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from dispatcher import __version__
from dispatcher.admin.api import problems
from dispatcher.admin.api.batch_decoder import BATCH_EVENTS_MAX
from dispatcher.admin.api.body import LINES_TYPE
from dispatcher.admin.api.route import Inputs, Route, description_of, inputs_of
from dispatcher.admin.api.route_table import ROUTES
from dispatcher.admin.resources.problem import Problem

ALWAYS: Final = (401, 403, 429, 500, 503)
TITLES: Final = {
    304: "Not changed.",
    400: "The request cannot be read: no JSON, wrong framing.",
    401: "No token, or one that is wrong, expired or revoked.",
    403: "The token's role does not allow this.",
    404: "No such resource exists, or it belongs to another tenant.",
    408: "The body arrived too slowly.",
    409: "The request conflicts with the current state.",
    412: "The resource was changed meanwhile.",
    413: "The body is too large.",
    415: "The body is of another type.",
    422: "Fields or query parameters are invalid; `errors` lists all of them.",
    429: "Too many requests; Retry-After has the seconds until the next one is accepted.",
    500: "An internal error.",
    503: "The database is unavailable or took too long; try again.",
}
DESCRIPTION: Final = """\
Events in, signed webhooks out. Send `Authorization: Bearer <token>`; `dispatcher token create` makes one.

A viewer reads, an operator also tests, resends, cancels, pauses, resumes and publishes, an admin also
changes endpoints, secrets and tokens and reads the audit log. A token for one tenant sees that tenant alone: the
others' things are 404, and `tenant` may be left out.

Lists are pages: `{"items": [...], "next_cursor": null}`, newest first; give `next_cursor` as `cursor`, with the
same filters. Times are RFC 3339. Errors are `application/problem+json`.
"""


def models_to_complete() -> Iterator[type[BaseModel]]:
    """Yield the models that `openapi` would otherwise complete itself; each takes some milliseconds."""
    for route in ROUTES:
        given = inputs_of(route.handler)
        responses = (route.response, *route.also_responses.values())
        described = [one for response in responses if response for one in _models_of(response)]
        for model in (given.query, given.fields, *described):
            if model is not None and issubclass(model, BaseModel):
                yield model


def openapi() -> dict[str, Any]:
    """Return the document. It reads the models and changes none that is complete, so a thread may call it."""
    inputs = [(route, inputs_of(route.handler)) for route in ROUTES]
    models: dict[tuple[type, JsonSchemaMode], None] = {(Problem, "serialization"): None}
    for route, given in inputs:
        if given.fields is not None:
            models[given.fields, "validation"] = None
        for response in (route.response, *route.also_responses.values()):
            if response is not None:
                models.update({(one, "serialization"): None for one in _models_of(response)})
    _, definitions = TypeAdapter.json_schemas(
        [(model, mode, TypeAdapter(model)) for model, mode in models],
        ref_template="#/components/schemas/{model}",
    )
    paths: dict[str, Any] = {}
    for route, given in inputs:
        paths.setdefault(route.full_path, {})[route.method.lower()] = _operation(route, given)
    return {
        "openapi": "3.1.0",
        "info": {"title": "dispatcher", "version": __version__, "description": DESCRIPTION},
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "tags": [{"name": name} for name in dict.fromkeys(_tag(route) for route in ROUTES)],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": definitions["$defs"],
        },
    }


def _operation(route: Route, given: Inputs) -> dict[str, Any]:
    summary, rest = description_of(route.handler)
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "tags": [_tag(route)],
        "summary": summary,
        "description": f"{rest}\n\nNeeds the role {route.role}.".strip(),
        "parameters": _parameters(route, given),
        "responses": _responses(route, given),
    }
    if given.fields is not None:
        schema: dict[str, Any] = _ref(given.fields)
        content = {"application/json": {"schema": schema}}
        if route.batch is not None:
            events = {"type": "array", "items": schema, "maxItems": BATCH_EVENTS_MAX}
            content["application/json"]["schema"] = {"anyOf": [schema, events]}
            content[LINES_TYPE] = {"schema": {"type": "string"}}
        operation["requestBody"] = {"required": given.fields_required, "content": content}
    return operation


def _parameters(route: Route, given: Inputs) -> list[dict[str, Any]]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]
    if given.query is not None:
        schema = given.query.model_json_schema()
        for name, described in schema["properties"].items():
            plain = _without_null(described)
            description = plain.pop("description", None)
            parameter = {"name": name, "in": "query", "required": False, "schema": plain}
            if description is not None:
                parameter["description"] = description
            parameters.append(parameter)
    if 412 in route.problems:  # noqa: PLR2004 -- the status
        parameters.append(
            {
                "name": "If-Match",
                "in": "header",
                "required": False,
                "description": "The ETag of the version that the change was made from.",
                "schema": {"type": "string"},
            }
        )
    return parameters


def _without_null(described: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter's schema without null: a query omits the parameter instead."""
    plain = {key: value for key, value in described.items() if key not in {"title", "default"}}
    kinds = [kind for kind in plain.pop("anyOf", []) if kind.get("type") != "null"]
    return {**plain, **(kinds[0] if kinds else {})}


def _responses(route: Route, given: Inputs) -> dict[str, Any]:
    responses: dict[str, Any] = {str(route.status): _success(route.response, "Done.")}
    if route.text_type is not None:
        responses[str(route.status)]["content"][route.text_type] = {"schema": {"type": "string"}}
    for status, meaning in route.also.items():
        has_body = status != 304  # noqa: PLR2004 -- the status
        response = route.also_responses.get(status, route.response)
        responses[str(status)] = _success(response if has_body else None, meaning)
    statuses = {*ALWAYS, *route.problems, 422}
    if given.fields is not None or route.method != "GET":
        statuses |= {400, 408, 413, 415}
    for status in sorted(statuses):
        responses[str(status)] = {
            "description": TITLES[status],
            "content": {problems.CONTENT_TYPE: {"schema": _ref(Problem)}},
        }
    return dict(sorted(responses.items()))


def _success(response: type | UnionType | None, meaning: str) -> dict[str, Any]:
    if response is None:
        return {"description": meaning}
    refs = [_ref(model) for model in _models_of(response)]
    return {
        "description": meaning,
        "content": {"application/json": {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}},
    }


def _models_of(response: type | UnionType) -> Sequence[type]:
    """Return the model, or the models of a union."""
    return get_args(response) if isinstance(response, UnionType) else [response]


def _ref(model: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _tag(route: Route) -> str:
    return route.path.split("/")[1]
