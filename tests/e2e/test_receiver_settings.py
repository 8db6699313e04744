"""Endpoints with settings for demanding receivers, from the outbox to a real receiver, by one daemon."""

import base64
import ssl
from typing import Any

import pytest
from aiohttp import web

from dispatcher.admin.operations.context import Actor
from dispatcher.admin.operations.deliveries import DeliveryOperations
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.operations.jobs import JobOperations
from dispatcher.admin.operations.pull import Pull
from dispatcher.admin.resources.endpoint import ChangedEndpoint
from dispatcher.admin.resources.job import JobFilter, NewJob
from dispatcher.admin.resources.pull import LeaseResult, LeaseResults, PollQuery
from dispatcher.cli.session import deployment_of
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.masks import Mask
from dispatcher.store.pool import Database
from dispatcher.verify import verify
from tests.support.certificates import Authority
from tests.support.daemon import KEY, WMS_SECRET, add_endpoint, quiet
from tests.support.endpoints import create_endpoint, update_endpoint
from tests.support.raw_receiver import OK, RawReceiver, answering

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

DATA = '{"marker":"m1","customer":{"name":"A","email":"x@y"},"n":1.0}'
ALL = Actor(name="cli:tester")


def masked(*, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> str:
    return Mask(include, exclude).apply(DATA)


async def test_masks_and_signatures_reach_receivers_and_resends_repeat_bytes(bench, sql):
    receiver = bench.receiver
    paths = ["whole", "signed", "without", "only", "later"]
    receiver.behave(
        **{path: {"keep_request": True, "secret": WMS_SECRET} for path in paths[:4]},
        later={"keep_request": True, "secret": WMS_SECRET, "statuses": [500, 200]},
    )
    columns: dict[str, Any] = {
        "signed": {"also_sign": ["standard"]},
        "without": {"exclude": ["customer.email"], "own_bodies": True},
        "only": {"include": ["marker", "n"], "own_bodies": True},
        "later": {"retry_schedule_seconds": [1.0]},
    }
    for number, path in enumerate(paths):
        await add_endpoint(
            sql,
            f"ep_{path}",
            receiver.url(f"/{path}"),
            profile="wms",
            shard=number,
            **columns.get(path, {}),
        )
    await bench.daemon().started()
    await sql.execute("INSERT INTO dispatcher.outbox (type, data) VALUES ('a.b', $1)", DATA)
    (first,) = await receiver.received(1, kind="request", path="/later")
    await sql.execute(
        "UPDATE dispatcher.endpoint SET exclude = '{customer}', own_bodies = true WHERE id = 'ep_later'"
    )
    await receiver.received(2, kind="request", path="/later")
    await quiet(bench.url, seconds=15)
    await sql.execute("UPDATE dispatcher.endpoint SET exclude = '{n}' WHERE id = 'ep_without'")
    database = Database(bench.url, connections_max=2)
    await database.open()
    environment = {
        "DISPATCHER_DATABASE_URL": bench.url,
        "DISPATCHER_SECRET_KEYS": "k1:" + base64.b64encode(KEY).decode(),
    }
    deliveries = DeliveryOperations(deployment_of(load_settings(None, environment), database))
    for path in ("without", "later"):
        delivery_id = await sql.fetchval(
            "SELECT id FROM dispatcher.delivery WHERE endpoint_id = $1", f"ep_{path}"
        )
        await deliveries.resend(ALL, delivery_id)
    await receiver.received(2, kind="request", path="/without")
    await receiver.received(3, kind="request", path="/later")
    await database.close()
    bodies = {
        path: [
            base64.b64decode(one["body"]).decode()
            for one in receiver.entries("request", f"/{path}")
        ]
        for path in paths
    }
    kept = {path: {body[body.index('"data":') + 7 : -1] for body in bodies[path]} for path in paths}
    assert kept == {
        "whole": {DATA},
        "signed": {DATA},
        "without": {masked(exclude=("customer.email",))},
        "only": {masked(include=("marker", "n"))},
        "later": {DATA},
    }
    assert {len(set(texts)) for texts in bodies.values()} == {1}
    assert all(
        one["signature"] == "good"
        for path in paths
        for one in receiver.entries("request", f"/{path}")
    )
    (signed,) = receiver.entries("request", "/signed")
    assert signed["headers"]["webhook-id"] == signed["event_id"]
    assert signed["headers"]["webhook-signature"].startswith("v1,")
    assert "webhook-signature" not in first["headers"]


async def test_token_and_certificate_reach_receivers_that_require_them(bench, sql, tmp_path):
    authority = Authority(tmp_path)
    tls = authority.server_context("127.0.0.1")
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(cadata=authority.pem)
    certificate, key = authority.client_pair()
    asked: list[str] = []

    async def token(request: web.Request) -> web.Response:
        asked.append(request.headers["Authorization"])
        return web.json_response({"access_token": "abc", "expires_in": 3600})

    application = web.Application()
    application.router.add_post("/token", token)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    token_url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    database = Database(bench.url, connections_max=2)
    await database.open()
    environment = {
        "DISPATCHER_DATABASE_URL": bench.url,
        "DISPATCHER_SECRET_KEYS": "k1:" + base64.b64encode(KEY).decode(),
        "DISPATCHER_EGRESS__ALLOW_HTTP": "true",
        "DISPATCHER_EGRESS__ALLOW_NETWORKS": '["127.0.0.0/8"]',
    }
    endpoints = Endpoints(deployment_of(load_settings(None, environment), database))
    bench.receiver.behave(oauth={"keep_request": True})
    async with RawReceiver(answering(OK), tls=tls) as required:
        common = {"event_types": ["*"], "profile": "wms"}
        await create_endpoint(
            endpoints,
            ALL,
            {
                **common,
                "name": "oauth",
                "url": bench.receiver.url("/oauth"),
                "oauth_token_url": token_url,
                "oauth_client_id": "client",
                "oauth_client_secret": WMS_SECRET,
            },
        )
        await create_endpoint(
            endpoints,
            ALL,
            {
                **common,
                "name": "mtls",
                "url": f"https://127.0.0.1:{required.port}/",
                "ca_pem": authority.pem,
                "client_certificate": certificate,
                "client_key": key,
            },
        )
        daemon = await bench.daemon().started()
        await sql.executemany(
            "INSERT INTO dispatcher.outbox (type, data) VALUES ('a.b', $1)", [[DATA]] * 20
        )
        await quiet(bench.url, seconds=15)
        received = bench.receiver.entries("request", "/oauth")
        assert {one["headers"]["authorization"] for one in received} == {"Bearer abc"}
        assert (len(received), len(asked), len(required.requests)) == (20, 1, 20)
        log = daemon.log_path.read_text()
    assert WMS_SECRET not in log
    assert "PRIVATE KEY" not in log
    rows = await sql.fetch("SELECT sealed FROM dispatcher.endpoint_secret")
    assert not any(b"PRIVATE KEY" in row["sealed"] for row in rows)
    await database.close()
    await runner.cleanup()


async def test_masked_bodies_are_pulled_replayed_and_made_again_for_another(bench, sql):
    """A replay keeps the bytes; one to an endpoint with another mask is made from the event for that endpoint."""
    receiver = bench.receiver
    receiver.behave(**{path: {"keep_request": True} for path in ("first", "other", "whole")})
    database = Database(bench.url, connections_max=4)
    await database.open()
    environment = {
        "DISPATCHER_DATABASE_URL": bench.url,
        "DISPATCHER_SECRET_KEYS": "k1:" + base64.b64encode(KEY).decode(),
        "DISPATCHER_EGRESS__ALLOW_HTTP": "true",
        "DISPATCHER_EGRESS__ALLOW_NETWORKS": '["127.0.0.0/8"]',
    }
    deployment = deployment_of(load_settings(None, environment), database)
    endpoints, jobs, pull = Endpoints(deployment), JobOperations(deployment), Pull(deployment)
    common: dict[str, Any] = {
        "event_types": ["*"],
        "profile": "wms",
        "retry_schedule_seconds": [0.1],
    }

    async def create(name: str, **fields: Any) -> ChangedEndpoint:
        target = {} if fields.get("delivery") else {"url": receiver.url(f"/{name}")}
        return await create_endpoint(endpoints, ALL, {**common, **target, "name": name, **fields})

    first = await create("first", exclude=["customer.email"])
    pulled = await create("pulled", delivery="pull", include=["customer.name"])
    await bench.daemon().started()
    await sql.execute("INSERT INTO dispatcher.outbox (type, data) VALUES ('a.b', $1)", DATA)
    await receiver.received(1, kind="request", path="/first")

    # Pulled: the mask of its endpoint, and the same bytes after a rejection and a change of the mask.
    bodies: list[str] = []
    for code in (500, 200):
        page = await pull.poll(ALL, pulled.id, PollQuery.of(wait_seconds="20"))
        (item,) = page.items
        verify(item.headers, item.body.encode(), str(pulled.secret), profile="wms")
        bodies.append(item.body)
        await update_endpoint(endpoints, ALL, pulled.id, {"include": ["marker"]})
        result = LeaseResult.of(lease_id=item.lease_id, response_code=code)
        await pull.settle(ALL, pulled.id, LeaseResults.of(results=[result]))
    assert [_data(body) for body in bodies] == [masked(include=("customer.name",))] * 2
    assert bodies[0] == bodies[1]

    await quiet(bench.url, seconds=20)
    await update_endpoint(endpoints, ALL, first.id, {"exclude": ["n"]})
    other = await create("other", include=["customer.email"])
    whole = await create("whole")
    for target in (None, other, whole):
        chosen = JobFilter.of(endpoint_id=first.id)
        to = None if target is None else target.id
        await jobs.create(ALL, NewJob.of(kind="replay", filter=chosen, to=to))
    await receiver.received(2, kind="request", path="/first", seconds=30)
    await receiver.received(1, kind="request", path="/other", seconds=30)
    await receiver.received(1, kind="request", path="/whole", seconds=30)
    await database.close()
    sent = {
        path: {
            _data(base64.b64decode(one["body"]).decode())
            for one in receiver.entries("request", f"/{path}")
        }
        for path in ("first", "other", "whole")
    }
    assert sent == {
        "first": {masked(exclude=("customer.email",))},
        "other": {masked(include=("customer.email",))},
        "whole": {DATA},
    }


def _data(body: str) -> str:
    return body[body.index('"data":') + 7 : -1]
