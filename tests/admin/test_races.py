"""Many at once ask for what only one can have: one gets it, the others are told, nothing is there twice."""

import asyncio
from collections import Counter

import pytest

from tests.admin.serving import Api, Reply

pytestmark = pytest.mark.postgres

AT_ONCE = 8
GOOD = {"name": "ERP", "url": "https://example.com/hooks", "event_types": ["*"]}


async def together(api: Api, method: str, path: str, fields: object, **more: object) -> list[Reply]:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(api.ask(method, path, fields, **more))  # type: ignore[arg-type]  # headers
            for _ in range(AT_ONCE)
        ]
    return [task.result() for task in tasks]


def statuses(replies: list[Reply]) -> Counter[int]:
    return Counter(reply.status for reply in replies)


async def test_one_endpoint_gets_a_name(api, connection):
    replies = await together(api, "POST", "/endpoints", GOOD)
    assert statuses(replies) == {201: 1, 409: AT_ONCE - 1}
    assert await connection.fetchval("SELECT count(*) FROM dispatcher.endpoint_secret") == 1


async def test_one_token_gets_a_name(api, connection):
    replies = await together(api, "POST", "/tokens", {"name": "erp", "role": "viewer"})
    assert statuses(replies) == {201: 1, 409: AT_ONCE - 1}
    assert await connection.fetchval("SELECT count(*) FROM dispatcher.token") == 1


async def test_an_id_is_published_once_and_everybody_gets_the_same_event(api, connection):
    event = {"type": "order.created", "id": "order-1", "data": {"total": 1}}
    replies = await together(api, "POST", "/events", event)
    assert statuses(replies) == {201: 1, 200: AT_ONCE - 1}
    assert len({reply.raw for reply in replies}) == 1
    assert await connection.fetchval("SELECT count(*) FROM dispatcher.outbox") == 1


async def test_one_change_is_made_of_a_version(api):
    made = await api.ask("POST", "/endpoints", GOOD)
    path, headers = f"/endpoints/{made.json['id']}", {"If-Match": made.headers["ETag"]}
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(api.ask("PATCH", path, {"rate_limit": number + 1}, headers=headers))
            for number in range(AT_ONCE)
        ]
    replies = [task.result() for task in tasks]
    assert statuses(replies) == {200: 1, 412: AT_ONCE - 1}
    (winner,) = (reply for reply in replies if reply.status == 200)
    assert (await api.ask("GET", path)).json["rate_limit"] == winner.json["rate_limit"]


async def test_a_change_and_a_deletion_of_one_version_exclude_each_other(api):
    made = await api.ask("POST", "/endpoints", GOOD)
    path, headers = f"/endpoints/{made.json['id']}", {"If-Match": made.headers["ETag"]}
    async with asyncio.TaskGroup() as group:
        changed = group.create_task(api.ask("PATCH", path, {"rate_limit": 1}, headers=headers))
        deleted = group.create_task(api.ask("DELETE", path, headers=headers))
    assert (changed.result().status, deleted.result().status) in {(200, 412), (404, 204)}


async def test_an_endpoint_is_deleted_once(api, connection):
    made = await api.ask("POST", "/endpoints", GOOD)
    replies = await together(api, "DELETE", f"/endpoints/{made.json['id']}", None)
    assert statuses(replies) == {204: 1, 404: AT_ONCE - 1}
    assert await connection.fetchval("SELECT count(*) FROM dispatcher.endpoint_secret") == 0


async def test_a_staged_secret_is_switched_to_once(api, connection):
    made = await api.ask("POST", "/endpoints", GOOD | {"profile": "wms"})
    path = f"/endpoints/{made.json['id']}/rotate-secret"
    staged = await api.ask("POST", path)
    replies = await together(api, "POST", path, {"activate_staged": True})
    assert statuses(replies) == {200: 1, 409: AT_ONCE - 1}
    roles = await connection.fetch("SELECT role FROM dispatcher.endpoint_secret")
    assert [row["role"] for row in roles] == ["current"]
    shown = await api.ask("GET", f"/endpoints/{made.json['id']}/secret")
    assert shown.json["secret"] == staged.json["secret"]


async def test_a_token_that_is_revoked_meanwhile_is_refused_from_then_on(api):
    text = await api.token_of("viewer")
    (token,) = (await api.ask("GET", "/tokens")).json["items"]
    assert (await api.ask("GET", "/endpoints", token=text)).status == 200
    assert (await api.ask("DELETE", f"/tokens/{token['id']}")).status == 204
    replies = [await api.ask("GET", "/endpoints", token=text) for _ in range(3)]
    assert statuses(replies) == {401: 3}
