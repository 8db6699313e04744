"""What the API says of itself is true: whatever is asked, no answer leaves the document.

And what the document refuses, the API refuses.
"""

import asyncio
import contextlib
import copy
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from openapi_spec_validator import validate
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok

from dispatcher.admin.api.openapi import openapi
from dispatcher.admin.api.route_table import ROUTES
from dispatcher.admin.operations.context import TOKEN_ROLES, Role
from tests.admin.serving import Api

pytestmark = pytest.mark.postgres

load_all_checks()
SOUND = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
    ]
)
DOCUMENT = openapi()


def _asked() -> dict[str, Any]:
    """Returns the document without If-Match: a made-up version is 412, whatever else is wrong."""
    document = copy.deepcopy(DOCUMENT)
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["parameters"] = [
                one for one in operation["parameters"] if one["in"] != "header"
            ]
    return document


SCHEMA = schemathesis.openapi.from_dict(_asked())
OPERATIONS = {
    operation.definition.raw["operationId"]: operation
    for operation in (
        result.ok() for result in SCHEMA.get_all_operations() if isinstance(result, Ok)
    )
}
POSITIVE, NEGATIVE = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
CHANGING_THE_URL = {"change_endpoint", "delete_endpoint"}
"""They get an endpoint that no test event is sent to: nothing may leave this machine."""


@dataclass(frozen=True, slots=True)
class Known:
    """The server's address, a token, and ids that there are, by the path's first word."""

    url: str
    token: str
    ids: dict[str, list[str]]


async def known(api: Api, role: Role) -> Known:
    """Makes something of each kind, so that not every answer is 404."""
    endpoints = []
    for name in ("sent to", "changed"):
        fields = {"name": name, "url": "http://127.0.0.1:65533/", "event_types": ["*"]}
        endpoints.append((await api.ask("POST", "/endpoints", fields)).json["id"])
    sent = await api.ask("POST", f"/endpoints/{endpoints[0]}/test")
    event = await api.ask("POST", "/events", {"type": "order.created", "data": {}})
    job = await api.ask("POST", "/jobs", {"kind": "replay", "filter": {"state": "failed"}})
    notification = await api.ask("POST", "/notifications", {"name": "x", "email": "a@example.com"})
    ids = {
        "endpoints": endpoints,
        "events": [event.json["id"], sent.json["event_id"]],
        "deliveries": [sent.json["id"]],
        "jobs": [job.json["id"]],
        "notifications": [notification.json["id"]],
    }
    return Known(api.url, await api.token_of(role.value), ids)


def test_the_document_is_valid_and_has_every_route():
    validate(DOCUMENT)
    described = {
        (method.upper(), path)
        for path, operations in DOCUMENT["paths"].items()
        for method in operations
    }
    assert described == {(route.method, route.full_path) for route in ROUTES}


def test_each_route_says_what_it_is_and_who_may():
    for operations in DOCUMENT["paths"].values():
        for operation in operations.values():
            assert operation["summary"]
            assert "Needs the role" in operation["description"]


@pytest.mark.slow
@pytest.mark.parametrize("role", TOKEN_ROLES)
async def test_no_answer_leaves_the_document(api: Api, role: Role, long_run: bool):
    there = await known(api, role)
    answered: set[int] = set()
    for name, operation in OPERATIONS.items():
        paths: list[dict[str, Any]] = [{}]
        if "{id}" in operation.path:
            ids = there.ids.get(operation.path.split("/")[3], [])
            if operation.path.startswith("/api/v1/endpoints"):
                ids = ids[1:] if name in CHANGING_THE_URL else ids[:1]
            paths += [{"path_parameters": {"id": one}} for one in ids]
        for mode in (POSITIVE, NEGATIVE):
            for path in paths:
                cases = operation.as_strategy(generation_mode=mode, **path)
                count = 50 if long_run else 3
                await asyncio.to_thread(ask_each, cases, count, there, answered)
    assert {200, 422} <= answered
    assert (403 in answered) == (role is not Role.ADMIN)


def ask_each(cases: Any, count: int, there: Known, answered: set[int]) -> None:
    """Asks each case in turn, and holds its answer against the document."""
    headers = {"Authorization": f"Bearer {there.token}"}

    @settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(case=cases)
    def ask(case: Any) -> None:
        response = case.call(base_url=there.url, headers=headers, timeout=20)
        answered.add(response.status_code)
        case.validate_response(response, checks=SOUND)

    with contextlib.suppress(
        Unsatisfiable
    ):  # A route that takes nothing has nothing wrong to give.
        ask()
