"""Whatever changes, reveals or sends leaves one line that says who did it to what; what is refused leaves none."""

from collections.abc import Mapping
from typing import Any

import pytest

from dispatcher.admin.api.route_table import ROUTES
from dispatcher.admin.operations.context import Role
from tests.admin.serving import Api
from tests.admin.test_matrix import make_things

pytestmark = pytest.mark.postgres

READS = {
    f"{route.method} {route.path}"
    for route in ROUTES
    if route.method == "GET" and not route.path.endswith("/secret")
} | {
    "POST /content-filters/test",
    "POST /endpoints/preview",
    "POST /endpoints/{id}/preview",
    "POST /deliveries/{id}/diagnose-signature",
}
UNWRITTEN = {"POST /events", "POST /endpoints/{id}/poll"}
"""Events and attempts are their own records, and there are thousands."""
ELSEWHERE = {"POST /events/{id}/release"}
"""It needs a quarantined event; tests/store/test_quarantine.py shows its line."""
WRITTEN: Mapping[str, tuple[Any, str]] = {
    "POST /endpoints": (
        {"name": "n", "url": "https://example.com/", "event_types": ["*"]},
        "endpoint.create",
    ),
    "PATCH /endpoints/{id}": ({"rate_limit": 5}, "endpoint.update"),
    "POST /endpoints/{id}/test": (None, "endpoint.test"),
    "POST /endpoints/{id}/retry": (None, "endpoint.retry"),
    "POST /endpoints/{id}/pause": (None, "endpoint.pause"),
    "POST /endpoints/{id}/resume": (None, "endpoint.resume"),
    "POST /endpoints/{id}/rotate-secret": (None, "endpoint.rotate_secret"),
    "GET /endpoints/{id}/secret": (None, "endpoint.reveal_secret"),
    "POST /deliveries/{id}/resend": (None, "delivery.resend"),
    "POST /deliveries/{id}/cancel": (None, "delivery.cancel"),
    "POST /schedule/retry": ({"filter": {"event_type": "order.created"}}, "schedule.retry"),
    "POST /schedule/postpone": (
        {"filter": {"event_type": "order.created"}, "by_seconds": 60},
        "schedule.postpone",
    ),
    "POST /schedule/cancel": ({"filter": {"event_type": "order.created"}}, "schedule.cancel"),
    "POST /jobs/{id}/pause": (None, "job.pause"),
    "POST /jobs/{id}/resume": (None, "job.resume"),
    "POST /jobs/{id}/cancel": (None, "job.cancel"),
    "POST /jobs": ({"kind": "resend", "filter": {"event_type": "order.created"}}, "job.create"),
    "POST /endpoints/{id}/recover": ({"since": "2026-01-01T00:00:00Z"}, "job.create"),
    "POST /tokens": ({"name": "n", "role": "viewer"}, "token.create"),
    "POST /portal-links": ({"role": "operator"}, "portal_link.create"),
    "DELETE /portal-links/{id}": (None, "portal_link.revoke"),
    "DELETE /sessions/{id}": (None, "session.end"),
    "DELETE /tokens/{id}": (None, "token.revoke"),
    "POST /notifications": (
        {"name": "n", "email": "ops@example.com"},
        "notification.create",
    ),
    "PATCH /notifications/{id}": ({"quiet_seconds": 60}, "notification.update"),
    "POST /notifications/{id}/test": (None, "notification.test"),
    "DELETE /notifications/{id}": (None, "notification.delete"),
    "DELETE /endpoints/{id}": (None, "endpoint.delete"),
}
"""In an order in which each finds what it needs."""
VALID: Mapping[str, Any] = {
    "POST /endpoints/{id}/poll": {"results": [{"lease_id": "x", "response_code": 200}]},
    "POST /deliveries/{id}/diagnose-signature": {"secret": "whsec_" + "a" * 32},
}
"""Fields of requests that leave no line; without them another tenant would learn of the fields first."""


def test_each_route_that_does_something_is_named():
    routes = {f"{route.method} {route.path}" for route in ROUTES}
    assert routes == {*READS, *UNWRITTEN, *ELSEWHERE, *WRITTEN}


async def lines(api: Api) -> list[dict[str, Any]]:
    page = await api.ask("GET", "/audit?limit=500")
    return list(reversed(page.json["items"]))


async def test_each_act_leaves_one_line_with_who_and_what(api, connection):
    things = await make_things(api, connection, "acme")
    token = await api.token_of("admin", "acme")
    for route, (fields, action) in WRITTEN.items():
        method, path = route.split(" ")
        before = len(await lines(api))
        named = things.id_for(route)
        reply = await api.ask(method, path.replace("{id}", named), fields, token=token)
        assert reply.status < 300, (route, reply.raw)
        new = (await lines(api))[before:]
        assert [line["action"] for line in new] == [action]
        assert (new[0]["actor"], new[0]["tenant"]) == ("token:acme/admin acme", "acme")
        if "{id}" in path and action != "job.create":
            assert new[0]["object"] == named


async def test_what_is_refused_or_only_read_leaves_none(api, connection):
    things = await make_things(api, connection, "acme")
    viewer, stranger = await api.token_of("viewer"), await api.token_of("admin", "other")
    before = await lines(api)
    for route in ROUTES:
        path = route.path.replace("{id}", things.id_for(f"{route.method} {route.path}"))
        name = f"{route.method} {route.path}"
        fields, _ = WRITTEN.get(name, (VALID.get(name), ""))
        if route.role is not Role.VIEWER or route.method == "GET":
            await api.ask(route.method, path, fields, token=viewer)
        if "{id}" in route.path:
            assert (await api.ask(route.method, path, fields, token=stranger)).status == 404
        await api.ask(route.method, path, {"nothing": 1}, token="")
    assert await lines(api) == before


async def test_no_line_holds_a_secret_or_a_token(api):
    fields, _ = WRITTEN["POST /endpoints"]
    made = (await api.ask("POST", "/endpoints", {**fields, "headers": {"X-Key": "hidden-1"}})).json
    rotated = (await api.ask("POST", f"/endpoints/{made['id']}/rotate-secret")).json
    await api.ask("PATCH", f"/endpoints/{made['id']}", {"headers": {"X-Key": "hidden-2"}})
    await api.ask("GET", f"/endpoints/{made['id']}/secret")
    token = (await api.ask("POST", "/tokens", {"name": "n", "role": "viewer"})).json["token"]
    text = str(await lines(api))
    for secret in (made["secret"], rotated["secret"], token, "hidden-1", "hidden-2", api.token):
        assert secret not in text
