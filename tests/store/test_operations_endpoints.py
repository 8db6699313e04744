"""Endpoints through the operations, on the real database: made, changed, paused, rotated, tried, deleted."""

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.endpoints import Endpoints, shard_of
from dispatcher.admin.operations.rotation import Rotation
from dispatcher.admin.operations.test_events import EventTester
from dispatcher.admin.resources.endpoint_requests import EndpointsQuery
from dispatcher.admin.resources.serialization import read_cursor
from dispatcher.cli.session import deployment_of, open_http_client
from dispatcher.config.sections import EndpointsSettings
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.errors import (
    ConfigurationError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
)
from dispatcher.dev.receiver import Behaviour, Receiver, ReceiverRoute
from dispatcher.store.pool import Database
from tests.support.endpoints import create_endpoint, update_endpoint

pytestmark = pytest.mark.postgres

KEY = "k1:" + "QUJD" * 10 + "QUI="
SHORT = "short"
ALL = Actor(name="cli:tester")
ACME = Actor(name="cli:acme", tenant="acme")
GOOD = {
    "name": "erp",
    "url": "https://example.com/hooks",
    "event_types": ["order.*"],
    "profile": "standard",
}


def environment(url: str) -> dict[str, str]:
    return {
        "DISPATCHER_DATABASE_URL": url,
        "DISPATCHER_SECRET_KEYS": KEY,
        "DISPATCHER_EGRESS__ALLOW_HTTP": "true",
        "DISPATCHER_EGRESS__ALLOW_NETWORKS": '["127.0.0.1/32"]',
    }


@pytest.fixture
async def deployment(database: str) -> AsyncIterator[Deployment]:
    pool = Database(database, connections_max=3)
    await pool.open()
    yield deployment_of(load_settings(None, environment(database)), pool)
    await pool.close()


@pytest.fixture
async def connection(database: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def audited(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    return [
        row[0] for row in await connection.fetch("SELECT action FROM dispatcher.audit ORDER BY id")
    ]


async def problems_of(work: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as caught:
        await work
    return {one.field: one.code for one in caught.value.problems}


async def test_a_made_endpoint_shows_its_secret_once(deployment: Deployment) -> None:
    made = await create_endpoint(Endpoints(deployment), ALL, GOOD | {"profile": "humansoft"})
    shown = await Endpoints(deployment).show(ALL, made.id)
    assert made.secret is not None
    assert made.secret.startswith("whse")
    assert shown.secret == f"{made.secret[:4]}********{made.secret[-4:]}"
    assert (await Rotation(deployment).reveal(ALL, made.id)).secret == made.secret


async def test_a_secret_lies_sealed_in_the_database(
    deployment: Deployment, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    made = await create_endpoint(Endpoints(deployment), ALL, GOOD)
    (sealed,) = await connection.fetch("SELECT key_id, sealed FROM dispatcher.endpoint_secret")
    assert sealed["key_id"] == "k1"
    assert made.secret is not None
    assert made.secret.encode() not in sealed["sealed"]
    assert await connection.fetchval("SELECT shard FROM dispatcher.endpoint") == shard_of(made.id)


@pytest.mark.parametrize("given", ["no certificate", "-----BEGIN CERTIFICATE-----\nใบรับรอง", "\0"])
async def test_what_is_no_certificate_is_a_fault(deployment: Deployment, given: str) -> None:
    problems = await problems_of(
        create_endpoint(Endpoints(deployment), ALL, GOOD | {"ca_pem": given})
    )
    assert list(problems) == ["ca_pem"]


@pytest.mark.parametrize(
    "rate", [0, 5e-324, 0.000009, 100_001, float("nan"), float("inf"), True, "1"]
)
async def test_a_rate_that_no_lane_can_keep_is_a_fault(
    deployment: Deployment, rate: object
) -> None:
    problems = await problems_of(
        create_endpoint(Endpoints(deployment), ALL, GOOD | {"rate_limit": rate})
    )
    assert list(problems) == ["rate_limit"]


async def test_every_fault_is_told_at_once(deployment: Deployment) -> None:
    fields = {
        "name": " x",
        "url": "http://10.0.0.1/",
        "event_types": ["Order"],
        "headers": {"Host": "a"},
        "labels": {"A": "b"},
        "ca_pem": "no",
        "rate_limit": 0,
        "timeout_seconds": True,
        "max_concurrency": 1.5,
        "retry_schedule_seconds": [1, -1],
        "ordering": "random",
        "secret": SHORT,
        "tenant": "A",
        "state": "active",
        "colour": "red",
        "profile": "wms",
    }
    found = await problems_of(create_endpoint(Endpoints(deployment), ALL, fields))
    expected = {
        "name", "url", "event_types[0]", "headers.Host", "labels", "ca_pem", "rate_limit",
        "timeout_seconds", "max_concurrency", "retry_schedule_seconds[1]", "ordering", "secret",
        "tenant", "state", "colour",
    }  # fmt: skip
    assert set(found) == expected


async def test_humansoft_is_https_only_whatever_the_settings_allow(deployment: Deployment) -> None:
    fields = GOOD | {"profile": "humansoft", "url": "http://127.0.0.1:9000/", "secret": None}
    assert set(await problems_of(create_endpoint(Endpoints(deployment), ALL, fields))) == {
        "url",
        "secret",
    }


async def test_nothing_secret_is_done_without_a_key(deployment: Deployment, database: str) -> None:
    await create_endpoint(Endpoints(deployment), ALL, GOOD)
    settings = load_settings(None, {"DISPATCHER_DATABASE_URL": database})
    keyless = deployment_of(settings, deployment.database)
    with pytest.raises(ConfigurationError):
        await create_endpoint(Endpoints(keyless), ALL, GOOD | {"name": "other"})
    (listed,) = (await Endpoints(keyless).page(ALL)).items
    assert set(listed.secret or "") == {"*"}


async def test_a_name_is_unique_in_its_tenant_and_free_again_once_deleted(
    deployment: Deployment,
) -> None:
    endpoints = Endpoints(deployment)
    made = await create_endpoint(endpoints, ALL, GOOD)
    with pytest.raises(ConflictError, match="erp"):
        await create_endpoint(endpoints, ALL, GOOD)
    await create_endpoint(endpoints, ALL, GOOD | {"tenant": "acme"})
    await endpoints.delete(ALL, made.id)
    await create_endpoint(endpoints, ALL, GOOD)


async def test_another_tenants_things_do_not_exist(deployment: Deployment) -> None:
    endpoints = Endpoints(deployment)
    made = await create_endpoint(endpoints, ALL, GOOD)
    assert (await endpoints.page(ACME)).items == []
    for work in (
        endpoints.show(ACME, made.id),
        update_endpoint(endpoints, ACME, made.id, {"name": "x"}),
        endpoints.pause(ACME, made.id),
        endpoints.resume(ACME, made.id),
        endpoints.delete(ACME, made.id),
        create_endpoint(endpoints, ACME, GOOD | {"tenant": "default"}),
        endpoints.page(ACME, EndpointsQuery.of(tenant="default")),
        Rotation(deployment).reveal(ACME, made.id),
        Rotation(deployment).rotate(ACME, made.id),
    ):
        with pytest.raises(NotFoundError):
            await work
    assert (await create_endpoint(endpoints, ACME, GOOD)).tenant == "acme"


async def test_pages_follow_each_other_without_gap_or_repeat(deployment: Deployment) -> None:
    endpoints = Endpoints(deployment)
    made = [(await create_endpoint(endpoints, ALL, GOOD | {"name": f"e{n}"})).id for n in range(5)]
    seen: list[str] = []
    cursor = None
    while True:
        page = await endpoints.page(ALL, EndpointsQuery.of(limit=2, cursor=cursor))
        seen += [item.id for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == made[::-1]


@pytest.mark.parametrize("text", ["", "x", "MTc5", "ü", "A" * 200])
def test_a_cursor_that_is_not_ours_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        read_cursor(text)


async def test_an_update_changes_what_is_given_and_null_brings_the_default_back(
    deployment: Deployment, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    endpoints = Endpoints(deployment)
    made = await create_endpoint(endpoints, ALL, GOOD | {"rate_limit": 5, "headers": {"X-A": "1"}})
    version = await connection.fetchval("SELECT version FROM dispatcher.routing")
    changed = await update_endpoint(
        endpoints, ALL, made.id, {"rate_limit": None, "event_types": ["no.such"]}
    )
    assert changed.rate_limit is None
    assert changed.headers == {"X-A": "1"}
    assert changed.warnings == [
        "event_types: the catalogue has no no.such. The subscription is kept; check its spelling."
    ]
    assert await connection.fetchval("SELECT version FROM dispatcher.routing") > version


@pytest.mark.parametrize("fields", [{"profile": "wms"}, {"tenant": "acme"}])
async def test_profile_and_tenant_never_change(
    deployment: Deployment, fields: dict[str, str]
) -> None:
    made = await create_endpoint(Endpoints(deployment), ALL, GOOD)
    with pytest.raises(ConflictError):
        await update_endpoint(Endpoints(deployment), ALL, made.id, fields)


async def test_each_change_is_audited_and_what_changes_nothing_is_not(
    deployment: Deployment, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    endpoints = Endpoints(deployment)
    made = await create_endpoint(endpoints, ALL, GOOD)
    await update_endpoint(endpoints, ALL, made.id, {"name": "new"})
    await update_endpoint(endpoints, ALL, made.id, {"name": "new"})
    await endpoints.pause(ALL, made.id)
    await endpoints.pause(ALL, made.id)
    await endpoints.resume(ALL, made.id)
    await Rotation(deployment).reveal(ALL, made.id)
    await endpoints.delete(ALL, made.id)
    assert await audited(connection) == [
        "endpoint.create",
        "endpoint.update",
        "endpoint.pause",
        "endpoint.resume",
        "endpoint.reveal_secret",
        "endpoint.delete",
    ]


async def test_resume_makes_a_disabled_endpoint_active_and_forgets_its_failures(
    deployment: Deployment, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    endpoints = Endpoints(deployment)
    made = await create_endpoint(endpoints, ALL, GOOD)
    await connection.execute("UPDATE dispatcher.endpoint SET state = 'disabled', reason = 'gone'")
    await connection.execute(
        "INSERT INTO dispatcher.endpoint_health VALUES ($1, now(), 30)", made.id
    )
    with pytest.raises(ConflictError):
        await endpoints.pause(ALL, made.id)
    resumed = await endpoints.resume(ALL, made.id)
    assert (resumed.state, resumed.reason) == ("active", None)
    assert await connection.fetchval("SELECT count(*) FROM dispatcher.endpoint_health") == 0


async def test_deleting_destroys_what_was_secret(
    deployment: Deployment, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    made = await create_endpoint(
        Endpoints(deployment), ALL, GOOD | {"headers": {"Authorization": "Bearer x"}}
    )
    await Endpoints(deployment).delete(ALL, made.id)
    row = await connection.fetchrow("SELECT headers, deleted_at FROM dispatcher.endpoint")
    assert row is not None
    assert row["headers"] == "{}"
    assert row["deleted_at"] is not None
    assert await connection.fetchval("SELECT count(*) FROM dispatcher.endpoint_secret") == 0


async def roles(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    return [
        row[0]
        for row in await connection.fetch(
            "SELECT role FROM dispatcher.endpoint_secret ORDER BY role"
        )
    ]


async def test_endpoint_without_a_profile_gets_the_default_of_the_settings(
    deployment: Deployment,
) -> None:
    plain = {name: value for name, value in GOOD.items() if name != "profile"}
    made = await create_endpoint(Endpoints(deployment), ALL, plain)
    assert made.profile == "wms", "the shipped default"
    changed = EndpointsSettings(default_profile="stripe")
    settings = deployment.settings.model_copy(update={"endpoints": changed})
    other = dataclasses.replace(deployment, settings=settings)
    made = await create_endpoint(Endpoints(other), ALL, plain | {"name": "other"})
    assert made.profile == "stripe"


async def test_standard_signs_with_new_and_old_until_the_overlap_ends(
    deployment: Deployment, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    made = await create_endpoint(Endpoints(deployment), ALL, GOOD)
    rotated = await Rotation(deployment).rotate(ALL, made.id, overlap_seconds=60)
    assert rotated.state == "active"
    assert rotated.secret != made.secret
    assert await roles(connection) == ["current", "previous"]
    at_once = await Rotation(deployment).rotate(ALL, made.id, overlap_seconds=0)
    assert at_once.previous_secret_expires_at is None
    assert await roles(connection) == ["current"], "after a leak no old secret signs on"
    for wrong in ({"overlap_seconds": 604_801.0}, {"activate": False}):
        await problems_of(Rotation(deployment).rotate(ALL, made.id, **wrong))


async def test_wms_stages_a_secret_and_switches_on_the_second_call(
    deployment: Deployment, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    rotation = Rotation(deployment)
    made = await create_endpoint(Endpoints(deployment), ALL, GOOD | {"profile": "wms"})
    with pytest.raises(ConflictError):
        await rotation.activate_staged(ALL, made.id)
    assert set(await problems_of(rotation.rotate(ALL, made.id, overlap_seconds=5))) == {
        "overlap_seconds"
    }
    staged = await rotation.rotate(ALL, made.id)
    assert staged.state == "staged"
    assert (await rotation.reveal(ALL, made.id)).secret == made.secret
    switched = await rotation.activate_staged(ALL, made.id)
    assert switched.staged_secret is None
    assert (await rotation.reveal(ALL, made.id)).secret == staged.secret
    assert await roles(connection) == ["current"]
    assert set(await problems_of(rotation.rotate(ALL, made.id, new_secret=staged.secret))) == {
        "secret"
    }


@pytest.mark.parametrize("profile", ["wms", "standard", "github", "stripe"])
async def test_a_test_event_is_signed_sent_and_recorded(
    deployment: Deployment, connection: "asyncpg.Connection[asyncpg.Record]", profile: str
) -> None:
    receiver = Receiver()
    port = await receiver.start()
    try:
        fields = GOOD | {"url": f"http://127.0.0.1:{port}/hook", "profile": profile}
        made = await create_endpoint(Endpoints(deployment), ALL, fields)
        receiver.routes = {"/hook": ReceiverRoute(profile=profile, secrets=[str(made.secret)])}
        await Endpoints(deployment).pause(ALL, made.id)
        async with open_http_client(deployment.settings) as http_client:
            answer = await EventTester(deployment, http_client).send(ALL, made.id)
    finally:
        await receiver.stop()
    assert [one.verdict for one in receiver.received] == ["valid"]
    assert (answer.state, answer.test) == ("succeeded", True)
    assert answer.event_id.startswith("evt_test_")
    assert answer.attempts[0].trigger == "test"
    assert (
        await connection.fetchval("SELECT count(*) FROM words.attempt WHERE trigger = 'test'") == 1
    )
    assert (
        await connection.fetchval("SELECT bytes FROM dispatcher.event") == receiver.received[0].body
    )


async def test_a_test_event_goes_nowhere_that_a_delivery_may_not_and_is_audited(
    deployment: Deployment, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """A24: the row is written by hand, since no operation would have saved such a URL."""
    receiver = Receiver(ReceiverRoute())
    port = await receiver.start()
    try:
        made = await create_endpoint(
            Endpoints(deployment), ALL, GOOD | {"url": f"http://127.0.0.1:{port}/"}
        )
        url = f"http://127.0.0.2:{port}/"
        await connection.execute("UPDATE dispatcher.endpoint SET url = $1", url)
        async with open_http_client(deployment.settings) as http_client:
            answer = await EventTester(deployment, http_client).send(ALL, made.id)
    finally:
        await receiver.stop()
    assert answer.attempts[0].outcome == "blocked_address"
    assert not receiver.received
    assert (await audited(connection))[-1] == "endpoint.test"


async def test_a_failed_test_event_is_an_answer_too(deployment: Deployment) -> None:
    receiver = Receiver(ReceiverRoute(behaviour=Behaviour(status=410)))
    port = await receiver.start()
    try:
        made = await create_endpoint(
            Endpoints(deployment), ALL, GOOD | {"url": f"http://127.0.0.1:{port}/"}
        )
        async with open_http_client(deployment.settings) as http_client:
            answer = await EventTester(deployment, http_client).send(
                ALL, made.id, event_type="order.created", data='{"a": 1}'
            )
            wrong = await problems_of(
                EventTester(deployment, http_client).send(ALL, made.id, data="[1]")
            )
    finally:
        await receiver.stop()
    assert (answer.state, answer.reason) == ("failed", "test_failed")
    assert answer.attempts[0].response_code == 410
    assert answer.attempts[0].response_body == "this receiver answers 410\n"
    headers = {one.name.lower(): one.value for one in answer.attempts[0].response_headers}
    assert headers["content-length"] == "26"
    assert receiver.received[0].body.endswith(b'"data":{"a": 1}}')
    assert (await Endpoints(deployment).show(ALL, made.id)).state == "active"
    assert set(wrong) == {"data"}
