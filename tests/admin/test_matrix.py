"""A20: tenant x id x route, role x route, no token x route; the routes are found by walking the router."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import asyncpg
import pytest
from aiohttp import web

from dispatcher.admin.api.handler import add_api
from dispatcher.admin.operations.context import TOKEN_ROLES, Actor, Deployment, Role
from dispatcher.admin.operations.tokens import digest_of
from dispatcher.admin.resources.job import JobFilter, NewJob
from dispatcher.admin.resources.notification import NewNotification
from dispatcher.admin.resources.portal_link import NewPortalLink
from dispatcher.admin.resources.token import NewToken
from dispatcher.core import ids
from tests.admin.serving import Api, Reply
from tests.support.endpoints import create_endpoint

pytestmark = pytest.mark.postgres

NEEDS = {
    "GET /endpoints": Role.VIEWER,
    "POST /endpoints": Role.ADMIN,
    "POST /endpoints/preview": Role.ADMIN,
    "POST /endpoints/{id}/preview": Role.ADMIN,
    "GET /endpoints/{id}": Role.VIEWER,
    "PATCH /endpoints/{id}": Role.ADMIN,
    "DELETE /endpoints/{id}": Role.ADMIN,
    "POST /endpoints/{id}/test": Role.OPERATOR,
    "GET /endpoints/{id}/poll": Role.OPERATOR,
    "POST /endpoints/{id}/poll": Role.OPERATOR,
    "GET /endpoints/{id}/failures": Role.VIEWER,
    "POST /endpoints/{id}/retry": Role.OPERATOR,
    "POST /endpoints/{id}/pause": Role.OPERATOR,
    "POST /endpoints/{id}/resume": Role.OPERATOR,
    "POST /endpoints/{id}/recover": Role.OPERATOR,
    "POST /endpoints/{id}/rotate-secret": Role.ADMIN,
    "GET /endpoints/{id}/secret": Role.ADMIN,
    "GET /event-types": Role.VIEWER,
    "GET /event-types/usage": Role.VIEWER,
    "GET /event-types/{name}": Role.VIEWER,
    "GET /events": Role.VIEWER,
    "POST /events": Role.OPERATOR,
    "GET /events/{id}": Role.VIEWER,
    "GET /events/{id}/explain": Role.VIEWER,
    "POST /events/{id}/release": Role.OPERATOR,
    "POST /content-filters/test": Role.VIEWER,
    "GET /deliveries": Role.VIEWER,
    "GET /deliveries/export": Role.VIEWER,
    "GET /deliveries/{id}": Role.VIEWER,
    "POST /deliveries/{id}/resend": Role.OPERATOR,
    "POST /deliveries/{id}/cancel": Role.OPERATOR,
    "POST /deliveries/{id}/diagnose-signature": Role.OPERATOR,
    "GET /schedule": Role.VIEWER,
    "POST /schedule/retry": Role.OPERATOR,
    "POST /schedule/postpone": Role.OPERATOR,
    "POST /schedule/cancel": Role.OPERATOR,
    "GET /notifications": Role.ADMIN,
    "POST /notifications": Role.ADMIN,
    "GET /notifications/{id}": Role.ADMIN,
    "PATCH /notifications/{id}": Role.ADMIN,
    "POST /notifications/{id}/test": Role.ADMIN,
    "DELETE /notifications/{id}": Role.ADMIN,
    "GET /jobs": Role.VIEWER,
    "POST /jobs": Role.OPERATOR,
    "GET /jobs/{id}": Role.VIEWER,
    "POST /jobs/{id}/pause": Role.OPERATOR,
    "POST /jobs/{id}/resume": Role.OPERATOR,
    "POST /jobs/{id}/cancel": Role.OPERATOR,
    "GET /tokens": Role.ADMIN,
    "POST /tokens": Role.ADMIN,
    "DELETE /tokens/{id}": Role.ADMIN,
    "GET /sessions": Role.ADMIN,
    "DELETE /sessions/{id}": Role.ADMIN,
    "GET /portal-links": Role.OPERATOR,
    "POST /portal-links": Role.OPERATOR,
    "DELETE /portal-links/{id}": Role.OPERATOR,
    "GET /people": Role.ADMIN,
    "GET /audit": Role.ADMIN,
    "GET /system": Role.VIEWER,
}
"""What each route needs, written down a second time: a route whose role slips is found."""
BODIES: dict[str, Any] = {
    "POST /endpoints": {"name": "new", "url": "https://example.com/a", "event_types": ["*"]},
    "POST /endpoints/preview": {"name": "new", "url": "https://x.example/a", "event_types": ["*"]},
    "POST /endpoints/{id}/preview": {"max_concurrency": 3},
    "PATCH /endpoints/{id}": {"max_concurrency": 3},
    "POST /events": {"type": "order.created", "data": {}},
    "POST /endpoints/{id}/recover": {"since": "2026-01-01T00:00:00Z"},
    "POST /deliveries/{id}/diagnose-signature": {"secret": "of-the-receiver"},
    "POST /endpoints/{id}/poll": {"results": [{"lease_id": "none", "response_code": 200}]},
    "POST /content-filters/test": {"content_filter": "data.total > 1"},
    "POST /jobs": {"kind": "resend", "filter": {"state": "pending"}},
    "POST /schedule/retry": {"filter": {"event_type": "order.created"}},
    "POST /schedule/postpone": {"filter": {"event_type": "order.created"}, "by_seconds": 60},
    "POST /schedule/cancel": {"filter": {"event_type": "order.created"}},
    "PATCH /notifications/{id}": {"quiet_seconds": 60},
    "POST /notifications": {"name": "new", "email": "ops@example.com"},
    "POST /portal-links": {"role": "operator"},
    "POST /tokens": {"name": "new", "role": "viewer"},
}
TABLES = (
    "notification",
    "endpoint",
    "endpoint_secret",
    "token",
    "session",
    "person",
    "portal_link",
    "outbox",
    "delivery_request",
    "endpoint_request",
    "job",
    "audit",
)


class Things(NamedTuple):
    """The ids of what one tenant has."""

    tenant: str
    endpoint: str
    event: str
    delivery: str
    token: str
    notification: str
    job: str
    session: str
    portal_link: str

    def id_for(self, route: str) -> str:
        """Returns the id of this tenant that the route's path is about."""
        kind = (
            route.split("/")[1].removesuffix("s").replace("deliverie", "delivery").replace("-", "_")
        )
        return str(getattr(self, kind, "none"))


async def make_things(api: Api, sql: asyncpg.Connection, tenant: str) -> Things:
    actor = Actor(name="cli:test", tenant=tenant)
    endpoint = await create_endpoint(
        api.operations.endpoints,
        actor,
        {
            "name": "erp",
            "url": "https://example.com/a",
            "event_types": ["*"],
            "profile": "standard",
        },
    )
    token = await api.operations.tokens.create(actor, NewToken.of(name="theirs", role="viewer"))
    notification = await api.operations.notifications.create(
        actor, NewNotification.of(name="theirs", to_endpoint_id=endpoint.id)
    )
    now = datetime.now(UTC)  # noqa: TID251 -- rows of today have a partition
    event = f"evt-{tenant}"
    delivery = ids.delivery_id(ids.delivery_unix_ms(now, now.date()), event, endpoint.id)
    await sql.execute(
        "INSERT INTO dispatcher.event (day, id, type, tenant, data, occurred_at, labels, inserted_at, accepted_at)"
        " VALUES ($1, $2, 'order.created', $3, '{}', $4, '{}', $4, $4)",
        now.date(),
        event,
        tenant,
        now,
    )
    await sql.execute(
        "INSERT INTO words.delivery_open (id, day, event_id, endpoint_id, event_type, tenant, profile)"
        " VALUES ($1, $2, $3, $4, 'order.created', $5, 'standard')",
        delivery,
        now.date(),
        event,
        endpoint.id,
        tenant,
    )
    await sql.execute(
        "INSERT INTO dispatcher.body (day, event_id, profile, bytes) VALUES ($1, $2, 'standard', '{}')",
        now.date(),
        event,
    )
    job = await api.operations.jobs.create(
        actor, NewJob.of(kind="replay", filter=JobFilter.of(state="failed"))
    )
    signed_in = await api.auth.sign_in(token.token, "192.0.2.1")
    assert signed_in is not None
    session = await sql.fetchval(
        "SELECT id FROM dispatcher.session WHERE hash = $1", digest_of(signed_in.cookie)
    )
    link = await api.operations.portal_links.create(actor, NewPortalLink.of())
    await sql.execute(
        "INSERT INTO dispatcher.person (id, issuer, subject, name, role, tenant)"
        " VALUES ($1, 'https://login.example.com', $2, 'Ada', 'viewer', $2)",
        f"per_{tenant}",
        tenant,
    )
    return Things(
        tenant, endpoint.id, event, delivery, token.id, notification.id, job.id, session, link.id
    )


@pytest.fixture
def routes(deployment: Deployment, api: Api) -> list[str]:
    """Every route as `METHOD /path`, as the router has it."""
    application = web.Application()
    add_api(application, api.operations, api.auth, deployment.settings)
    found = [
        f"{route.method} {route.resource.canonical.removeprefix('/api/v1')}"
        for route in application.router.routes()
        if route.resource is not None and route.resource.canonical.startswith("/api/v1")
    ]
    return [route for route in found if not route.startswith("HEAD ")]


async def ask(api: Api, route: str, named: str, token: str) -> Reply:
    method, path = route.split(" ")
    path = path.replace("{id}", named).replace("{name}", "order.created")
    return await api.ask(method, path, BODIES.get(route), token=token)


async def state_of(sql: asyncpg.Connection, but: Iterable[str] = ()) -> dict[str, Any]:
    return {
        table: [
            tuple(row) for row in await sql.fetch(f"SELECT * FROM dispatcher.{table} ORDER BY 1")
        ]
        for table in TABLES
        if table not in but
    }


def test_each_route_is_in_the_matrix(routes):
    assert sorted(routes) == sorted(NEEDS)


async def test_without_a_token_no_route_answers(api, routes):
    unlike = {}
    for route in [*routes, "GET /nothing", "POST /endpoints/x/y", "DELETE /audit"]:
        for token in ("", "wrong"):
            api.auth._wrong._buckets.clear()  # The limit on wrong tokens has tests of its own.
            reply = await ask(api, route, "x", token)
            if reply.status != 401 or not reply.headers["WWW-Authenticate"].startswith("Bearer"):
                unlike[route, token] = reply.status
    assert unlike == {}


async def test_a_smaller_role_is_refused_and_changes_nothing(api, routes, connection):
    things = await make_things(api, connection, "acme")
    tokens = {role: await api.token_of(role) for role in TOKEN_ROLES}
    before = await state_of(connection)
    unlike = {}
    for route in routes:
        for role in TOKEN_ROLES:
            if tuple(Role).index(role) < tuple(Role).index(NEEDS[route]):
                reply = await ask(api, route, things.id_for(route), tokens[role])
                if reply.status != 403 or NEEDS[route] not in reply.json["detail"]:
                    unlike[route, role] = reply.status
    assert unlike == {}
    assert await state_of(connection) == before


async def test_the_role_that_a_route_needs_is_enough(api, routes):
    unlike = {}
    for route in routes:
        token = await api.token_of(NEEDS[route], f"t-{routes.index(route)}")
        reply = await ask(api, route, "unknown", token)
        if reply.status in {401, 403} or reply.status >= 500:
            unlike[route] = reply.status
    assert unlike == {}


async def test_what_is_anothers_does_not_exist(api, routes, connection):
    """As an unknown id to a byte, and nothing is changed; the same ids exist for who may see them."""
    other = await make_things(api, connection, "other")
    token = await api.token_of("admin", "acme")
    everybodys = await api.token_of("admin")
    before = await state_of(connection)
    named = [route for route in routes if "{id}" in route]
    assert len(named) == 32
    unlike = {}
    for route in named:
        real = other.id_for(route)
        made_up = real[:-1] + ("a" if real[-1] != "a" else "e")
        reply = await ask(api, route, real, token)
        unknown = await ask(api, route, made_up, token)
        if reply.status != 404 or reply.raw.replace(real.encode(), made_up.encode()) != unknown.raw:
            unlike[route] = (reply.status, reply.raw)
    assert unlike == {}
    assert await state_of(connection) == before
    for route in named:
        if route.startswith("GET "):
            pushed = route.endswith("/poll")  # the endpoint is not pulled
            reply = await ask(api, route, other.id_for(route), everybodys)
            assert reply.status == (409 if pushed else 200)


async def test_a_token_for_one_endpoint_reaches_its_polls_alone(api, routes, connection):
    own = await make_things(api, connection, "acme")
    other = await make_things(api, connection, "other")
    new = NewToken.of(name="pull", role="operator", endpoint_id=own.endpoint)
    token = await api.operations.tokens.create(Actor(name="cli:test"), new)
    assert token.tenant == "acme"
    before = await state_of(connection, but=("token",))
    unlike = {}
    for route in routes:
        reply = await ask(api, route, own.id_for(route), token.token)
        wanted = 403
        if route.endswith("/poll"):
            wanted = 409 if route.startswith("GET") else 200
            assert (await ask(api, route, other.endpoint, token.token)).status == 404
        if reply.status != wanted:
            unlike[route] = reply.status
    assert unlike == {}
    assert (await api.ask("GET", "//asyncapi.json", token=token.token)).status == 403
    assert await api.auth.sign_in(token.token, "192.0.2.1") is None
    assert await state_of(connection, but=("token",)) == before


async def test_lists_hold_ones_own_alone(api, routes, connection):
    own = await make_things(api, connection, "acme")
    other = await make_things(api, connection, "other")
    token = await api.token_of("admin", "acme")
    lists = [route for route in routes if route.startswith("GET ") and "{id}" not in route]
    for route in lists:
        if route.startswith("GET /event-types") or route == "GET /deliveries/export":
            continue  # the first has no tenants, the second is a file: tests/admin/test_export.py
        if route == "GET /system":
            status = (await api.ask("GET", "/system", token=token)).json
            assert (status["postgres"], status["partitions"], status["hot_tables"]) == (
                None,
                [],
                [],
            )
            continue
        path = route.removeprefix("GET ")
        page = await api.ask("GET", path, token=token)
        tenants = {item["tenant"] for item in page.json["items"]}
        assert (path, tenants) == (path, {own.tenant})
        assert not any(text.encode() in page.raw for text in other)
        assert (await api.ask("GET", f"{path}?tenant=other", token=token)).status == 404
        assert (await api.ask("GET", f"{path}?tenant=acme", token=token)).raw == page.raw
    for query in (f"endpoint_id={other.endpoint}", f"event_id={other.event}"):
        page = await api.ask("GET", f"/deliveries?{query}", token=token)
        assert page.json == {"items": [], "next_cursor": None, "searched_back_to": None}
    for path in ("/deliveries", "/events"):
        for text in (other.event, other.delivery, other.endpoint, "other", "OTHER"):
            page = await api.ask("GET", f"{path}?q={text}", token=token)
            assert (page.status, page.json["items"]) == (200, []), (path, text)


async def test_nothing_is_made_for_another_tenant(api, connection):
    other = await make_things(api, connection, "other")
    token = await api.token_of("admin", "acme")
    before = await state_of(connection)
    for route in (
        "POST /endpoints",
        "POST /events",
        "POST /notifications",
        "POST /tokens",
        "POST /portal-links",
    ):
        path = route.removeprefix("POST ")
        reply = await api.ask("POST", path, BODIES[route] | {"tenant": "other"}, token=token)
        assert (route, reply.status) == (route, 404)
    for filter_ in (
        {"tenant": "other", "state": "pending"},
        {"event_id": "evt-other"},
        {"endpoint_id": other.endpoint},
    ):
        fields = {"kind": "resend", "filter": filter_, "dry_run": True}
        reply = await api.ask("POST", "/jobs", fields, token=token)
        assert reply.status == 404 or reply.json["count"] == 0
        for change in ("retry", "postpone", "cancel"):
            body = BODIES[f"POST /schedule/{change}"] | {"filter": filter_, "dry_run": True}
            reply = await api.ask("POST", f"/schedule/{change}", body, token=token)
            assert reply.status == 404 or reply.json["count"] == 0
    fields = {"kind": "replay", "filter": {"state": "pending"}, "to": other.endpoint}
    assert (await api.ask("POST", "/jobs", fields, token=token)).status == 404
    assert await state_of(connection) == before


async def test_an_id_that_another_tenant_published_tells_nothing_of_its_event(api):
    await api.ask(
        "POST", "/events", {"type": "a.b", "data": {"secret": 1}, "id": "x-1", "tenant": "other"}
    )
    reply = await api.ask(
        "POST",
        "/events",
        {"type": "a.b", "data": {}, "id": "x-1"},
        token=await api.token_of("operator", "acme"),
    )
    assert reply.status == 409
    assert b"secret" not in reply.raw


async def test_a_viewer_sees_neither_answers_nor_header_values(api, connection):
    made = await api.ask(
        "POST",
        "/endpoints",
        BODIES["POST /endpoints"] | {"headers": {"Authorization": "Basic c2VjcmV0"}},
    )
    viewer = await api.token_of("viewer")
    for path in ("/endpoints", f"/endpoints/{made.json['id']}"):
        reply = await api.ask("GET", path, token=viewer)
        assert b"c2VjcmV0" not in reply.raw
        assert b"********" in reply.raw
    things = await make_things(api, connection, "acme")
    await connection.execute(
        "INSERT INTO words.attempt (day, delivery_id, attempt_number, trigger, outcome, attempted_at,"
        " latency_seconds, reused, url, response_code, response_body)"
        " SELECT day, id, 1, 'scheduled', 'http_error', now(), 0.1, false, 'https://example.com', 500, 'internal'"
        " FROM words.delivery_open WHERE id = $1",
        things.delivery,
    )
    path = f"/deliveries/{things.delivery}"
    assert b"internal" not in (await api.ask("GET", path, token=viewer)).raw
    operator = await api.token_of("operator")
    assert b'"internal"' in (await api.ask("GET", path, token=operator)).raw
