"""`GET /deliveries/export`: the filters of the list, a bound, and a file that is whole or visibly not."""

import csv
import io
from typing import Any

import aiohttp
import asyncpg
import pytest

from dispatcher.admin.operations import deliveries as operations
from dispatcher.admin.operations.context import Deployment
from tests.admin.serving import Api
from tests.support.story import Story

pytestmark = pytest.mark.postgres


@pytest.fixture
async def story(deployment: Deployment, connection: "asyncpg.Connection[Any]") -> Story:
    return Story(deployment, connection)


async def test_export_has_the_rows_of_the_list_with_its_filters(api: Api, story: Story) -> None:
    erp, hr = await story.endpoint("erp"), await story.endpoint("hr")
    await story.event("e1", labels='{"order_id": "ORD-1"}')
    first = await story.delivery(erp, "e1", "failed")
    second = await story.delivery(erp, "e2", "failed")
    await story.delivery(hr, "e1", "succeeded")
    filters = (
        "", "endpoint_id=erp", "state=failed", "state=failed,succeeded", "label=order_id=ORD-1", "q=ORD-1",
        "event_type=order.*", "since=2020-01-01T00:00:00Z", "test=false", "event_id=e1", "until=2020-01-01T00:00:00Z",
    )  # fmt: skip
    for text in filters:
        listed = await api.ask("GET", f"/deliveries?{text}")
        exported = await api.ask("GET", f"/deliveries/export?{text}&format=json")
        ids = [one["id"] for one in listed.json["items"]]
        assert [one["id"] for one in exported.json["items"]] == ids, text
        assert exported.json["is_complete"] is True
    reply = await api.ask("GET", "/deliveries/export?state=failed")
    assert reply.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert reply.headers["Content-Disposition"].startswith('attachment; filename="deliveries-')
    assert reply.headers["Cache-Control"] == "no-store"
    rows = list(csv.DictReader(io.StringIO(reply.raw.decode("utf-8-sig"))))
    assert [row["id"] for row in rows] == [second, first]
    assert (rows[1]["key"], rows[1]["endpoint_name"]) == ("ORD-1", "erp")
    head = await api.ask("HEAD", "/deliveries/export")
    assert (head.status, head.raw) == (200, b"")


async def test_export_of_a_tenant_has_its_own_deliveries_alone(api: Api, story: Story) -> None:
    await story.delivery(await story.endpoint(), "e1", "failed")
    token = await api.token_of("viewer", "acme")
    own = await api.ask("GET", "/deliveries/export?format=json", token=token)
    assert own.json == {"items": [], "is_complete": True}
    others = await api.ask("GET", "/deliveries/export?tenant=default", token=token)
    assert others.status == 404


async def test_export_refuses_wrong_filters_together_and_too_many(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = await api.ask("GET", "/deliveries/export?state=lost&format=xls&cursor=x")
    assert (wrong.status, sorted(wrong.faults)) == (422, ["cursor", "format", "state"])
    monkeypatch.setattr(operations, "EXPORTS_MAX", 0)
    assert (await api.ask("GET", "/deliveries/export")).status == 429


async def test_export_that_fails_midway_is_not_a_short_file(
    api: Api, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = await story.endpoint()
    for number in range(3):
        await story.delivery(endpoint, f"e{number}", "failed")
    monkeypatch.setattr(operations, "EXPORT_BATCH", 1)
    found, calls = operations.DeliveryOperations.last_attempts, []

    async def failing(self: Any, *arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise RuntimeError("the second page")
        return await found(self, *arguments)

    monkeypatch.setattr(operations.DeliveryOperations, "last_attempts", failing)
    with pytest.raises(aiohttp.ClientPayloadError):
        await api.ask("GET", "/deliveries/export")
    whole = await api.ask("GET", "/deliveries/export?format=json")
    assert len(whole.json["items"]) == 3, "and its place is free again"
