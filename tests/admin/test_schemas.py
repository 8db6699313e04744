"""Schemas over HTTP: a publish is refused or marked, an event inserted by SQL is marked, and pages show both."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from dispatcher.admin.operations.context import Deployment, Role
from dispatcher.core.schemas import SchemaPolicy, compile_schema
from tests.admin.serving import Api, served

pytestmark = pytest.mark.postgres

SCHEMA = """{"type": "object", "required": ["order_id"], "properties": {"order_id": {"type": "string"},
 "lines": {"type": "array", "items": {"type": "object", "required": ["sku"]}}}}"""


def with_schema(deployment: Deployment, policy: SchemaPolicy) -> Deployment:
    catalogue = deployment.catalogue
    known = replace(catalogue.types["order.created"], schema=compile_schema(SCHEMA, policy))
    changed = replace(catalogue, types={**catalogue.types, "order.created": known})
    return replace(deployment, catalogue=changed)


@pytest.fixture
async def rejecting(deployment: Deployment) -> AsyncIterator[Api]:
    async with served(with_schema(deployment, SchemaPolicy.REJECT)) as api:
        yield api


async def test_reject_refuses_http_alone_and_marks_sql(rejecting: Api, connection) -> None:
    api = rejecting
    bad = {"type": "order.created", "data": {"order_id": 1, "lines": [{}]}}
    good = {"type": "order.created", "data": {"order_id": "A"}}
    refused = await api.ask("POST", "/events", bad)
    assert (refused.status, sorted(refused.faults)) == (422, ["data.lines[0]", "data.order_id"])
    assert {one["code"] for one in refused.json["errors"]} == {"schema_mismatch"}
    batch = await api.ask("POST", "/events", [good, bad, {**bad, "type": "order.other"}])
    assert [one["status"] for one in batch.json["results"]] == ["created", "rejected", "created"]
    inserted = await connection.fetchval(
        "INSERT INTO dispatcher.outbox (type, data) VALUES ('order.created', '{}') RETURNING id"
    )
    shown = (await api.ask("GET", f"/events/{inserted}")).json
    assert [one["field"] for one in shown["schema_mismatches"]] == ["data"]
    marks = {
        one["id"]: bool(one["schema_mismatches"])
        for one in (await api.ask("GET", "/events")).json["items"]
    }
    assert sorted(marks.values()) == [False, False, True]
    assert marks[inserted]
    checked = (await api.ask("GET", "/event-types/order.created")).json
    assert (checked["checked_count"], checked["mismatch_count"]) == (2, 1)
    assert [one["id"] for one in checked["mismatching"]] == [inserted]
    assert (await api.ask("GET", "/event-types/order.none")).status == 404


async def test_marks_are_those_of_ones_own_tenant_for_each_role(rejecting: Api, connection) -> None:
    """The page of a type names events, so a tenant sees its own alone; the catalogue is the same for all."""
    for tenant in ("acme", "other"):
        await connection.execute(
            "INSERT INTO dispatcher.outbox (tenant, type, data) VALUES ($1, 'order.created', '{}')",
            tenant,
        )
    own = await connection.fetchval("SELECT id FROM dispatcher.outbox WHERE tenant = 'acme'")
    for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN):
        token = await rejecting.token_of(role, "acme")
        shown = (await rejecting.ask("GET", "/event-types/order.created", token=token)).json
        assert (shown["checked_count"], shown["mismatch_count"]) == (1, 1)
        assert [one["id"] for one in shown["mismatching"]] == [own]
        assert shown["schema"]["required"] == ["order_id"]
        assert (await rejecting.ask("GET", "//asyncapi.json", token=token)).status == 200
    everybodys = await rejecting.ask("GET", "/event-types/order.created")
    assert everybodys.json["mismatch_count"] == 2


async def test_warn_publishes_and_marks(deployment: Deployment) -> None:
    async with served(with_schema(deployment, SchemaPolicy.WARN)) as api:
        reply = await api.ask("POST", "/events", {"type": "order.created", "data": {}})
        assert reply.status == 201
        assert [one["field"] for one in reply.json["schema_mismatches"]] == ["data"]
        async with api.session.get(f"{api.url}/asyncapi.json") as without:
            assert without.status == 401
        document = (await api.ask("GET", "//asyncapi.json")).json
        payload = document["components"]["messages"]["order.created"]["payload"]["schema"]
        assert payload["properties"]["data"]["required"] == ["order_id"]
