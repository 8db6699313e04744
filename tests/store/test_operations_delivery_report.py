"""One delivery looked at closely, and what explains it: breaker, pause, rate, deletion, nobody running."""

from typing import Any

import pytest

from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.operations.deliveries import DeliveryOperations
from dispatcher.admin.operations.delivery_report import DeliveryReports
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.operations.explain import Explainer
from dispatcher.admin.operations.schedule import Schedule
from dispatcher.admin.resources.delivery import NextStep
from dispatcher.admin.resources.schedule import ScheduleQuery
from dispatcher.core.errors import NotFoundError
from dispatcher.store.leases import Leases
from dispatcher.store.statistics import BreakerRow, Statistics
from tests.support.story import ALL, Story

pytestmark = pytest.mark.postgres

VIEWER = Actor(name="viewer", role=Role.VIEWER)
OPERATOR = Actor(name="operator", role=Role.OPERATOR)


async def attempt(connection: Any, delivery_id: str, code: int, number: int = 1) -> None:
    await connection.execute(
        "INSERT INTO words.attempt (day, delivery_id, attempt_number, trigger, outcome, attempted_at,"
        " latency_seconds, dns_seconds, connect_seconds, wait_seconds, reused, peer, url, response_code, response_body)"
        " SELECT day, id, $3, 'scheduled', CASE WHEN $2 = 200 THEN 'ok' ELSE 'http_error' END, now(), 0.5, 0.1,"
        " 0.2, 0.2, false, '192.0.2.7', 'https://example.com/hook', $2, 'no'"
        " FROM dispatcher.delivery WHERE id = $1",
        delivery_id,
        code,
        number,
    )


async def test_a_delivery_shows_what_was_sent_and_why_it_failed(
    deployment: Deployment,
    story: Story,
    connection: Any,
) -> None:
    endpoint = await story.endpoint(headers={"X-Api-Key": "very secret"})
    await story.event("e1")
    await story.body("e1", "standard")
    delivery = await story.delivery(endpoint, "e1", "failed")
    await attempt(connection, delivery, 401)
    shown = await DeliveryReports(deployment).delivery(ALL, delivery)
    assert shown.delivery.attempts[0].why.code == "unauthorized"
    assert shown.delivery.attempts[0].connect_seconds == pytest.approx(0.2)
    assert shown.why.code == "schedule_spent"
    assert "secret" in shown.why.advice
    assert shown.next == NextStep(
        code="nothing", text="nothing, unless you request a resend", at=None
    )
    assert shown.resend.code == "allowed"
    assert shown.body == "{}"
    assert shown.event is not None
    assert shown.request is not None
    assert shown.event.id == "e1"
    headers = dict(shown.request.headers)
    assert headers["webhook-id"] == "e1"
    assert headers["webhook-signature"].startswith("v1,")
    assert headers["X-Api-Key"] == "very secret"
    assert headers["Host"] == "example.com"
    assert shown.request.signed_content == f"e1.{shown.request.timestamp}.{{}}"


async def test_request_of_a_fetched_delivery_has_its_own_headers_alone(
    deployment: Deployment, story: Story, connection: Any
) -> None:
    endpoint = await story.endpoint()
    await story.event("e1")
    await story.body("e1", "standard")
    delivery = await story.delivery(endpoint, "e1", "failed")
    await attempt(connection, delivery, 500)

    async def names() -> dict[str, str]:
        shown = await DeliveryReports(deployment).delivery(ALL, delivery)
        assert shown.request is not None
        return dict(shown.request.headers)

    assert "Authorization" not in await names()
    await connection.execute(
        "UPDATE dispatcher.endpoint SET oauth_token_url = 'https://auth.example.com/', oauth_client_id = 'x'"
    )
    assert (await names())["Authorization"] == "Bearer ********"
    await connection.execute("UPDATE dispatcher.endpoint SET delivery = 'pull'")
    found = await names()
    assert "webhook-signature" in found
    assert not {"Host", "Content-Length", "Authorization"} & set(found)
    shown = await DeliveryReports(deployment).delivery(ALL, delivery)
    assert shown.endpoint is not None
    assert shown.endpoint.delivery == "pull"


async def test_failed_test_event_offers_no_resend(
    deployment: Deployment, story: Story, connection: Any
) -> None:
    delivery = await story.delivery(await story.endpoint(), "e1", "failed")
    await connection.execute("UPDATE dispatcher.delivery_done SET test = true")
    shown = await DeliveryReports(deployment).delivery(ALL, delivery)
    assert shown.resend.code == "test"
    assert shown.next.code == "nothing"
    assert "resend" not in shown.next.text


async def test_who_may_less_sees_less_of_the_request(
    deployment: Deployment,
    story: Story,
    connection: Any,
) -> None:
    endpoint = await story.endpoint(headers={"X-Api-Key": "very secret"})
    await story.event("e1")
    await story.body("e1", "standard")
    delivery = await story.delivery(endpoint, "e1", "failed")
    await attempt(connection, delivery, 500)
    as_operator = await DeliveryReports(deployment).delivery(OPERATOR, delivery)
    assert as_operator.request is not None
    headers = dict(as_operator.request.headers)
    assert headers["X-Api-Key"] == "********"
    assert headers["webhook-signature"].startswith("v1,")
    assert as_operator.delivery.attempts[0].response_body == "no"
    as_viewer = await DeliveryReports(deployment).delivery(VIEWER, delivery)
    assert as_viewer.request is not None
    assert dict(as_viewer.request.headers)["webhook-signature"] == "********"
    assert as_viewer.delivery.attempts[0].response_body is None
    assert as_viewer.delivery.attempts[0].peer is None
    # Addresses of names may be internal: those who see one tenant do not see them, whatever their role.
    for_all = await DeliveryReports(deployment).delivery(ALL, delivery)
    assert for_all.delivery.attempts[0].peer is not None
    for role in Role:
        shown = await DeliveryReports(deployment).delivery(
            Actor(name="x", tenant="default", role=role), delivery
        )
        assert shown.delivery.attempts[0].peer is None
    with pytest.raises(NotFoundError):
        await DeliveryReports(deployment).delivery(Actor(name="x", tenant="acme"), delivery)
    with pytest.raises(NotFoundError):
        await DeliveryReports(deployment).delivery(ALL, delivery, attempt_number=9)


async def test_what_comes_next_names_what_holds_it_up(
    deployment: Deployment,
    story: Story,
    connection: Any,
) -> None:
    endpoint = await story.endpoint(rate_limit=5)
    await story.event("e1")
    delivery = await story.delivery(endpoint, "e1")

    async def next_code() -> str:
        shown = await DeliveryReports(deployment).delivery(ALL, delivery)
        (explained,) = (await Explainer(deployment).explain(ALL, "e1")).endpoints
        if shown.next.code != "resend_waiting":
            assert explained.next_code == shown.next.code
            assert explained.next == shown.next.text
        return str(shown.next.code)

    assert await next_code() == "no_dispatcher"
    await Leases(deployment.database).join("alive", "one", "1.0", 60.0)
    assert await next_code() == "waits_its_turn"
    await connection.execute("UPDATE dispatcher.endpoint SET rate_limit = NULL")
    assert await next_code() == "due"
    await connection.execute("UPDATE dispatcher.endpoint SET delivery = 'pull'")
    assert await next_code() == "waits_for_poll"
    (scheduled,) = (await Schedule(deployment).page(ALL, ScheduleQuery.of())).items
    assert scheduled.waits_for.code == "waits_for_poll"
    await connection.execute("UPDATE dispatcher.endpoint SET delivery = 'push'")
    await connection.execute(
        "UPDATE dispatcher.delivery_open SET next_attempt_at = now() + interval '1 hour'"
    )
    assert await next_code() == "scheduled"
    statistics = Statistics(deployment.database)
    await statistics.publish_breakers("alive", [BreakerRow(endpoint, "open", 7200.0)])
    shown = await DeliveryReports(deployment).delivery(ALL, delivery)
    assert shown.next.code == "breaker_open"
    assert (shown.next.at or "") > (shown.delivery.next_attempt_at or ""), "the later of both"
    assert await next_code() == "breaker_open"
    await DeliveryOperations(deployment).resend(ALL, delivery)
    assert await next_code() == "resend_waiting"
    await connection.execute("DELETE FROM dispatcher.delivery_request")
    await Endpoints(deployment).pause(ALL, endpoint)
    assert await next_code() == "endpoint_paused"
    await connection.execute(
        "UPDATE dispatcher.endpoint SET state = 'disabled', reason = 'gone', paused_at = NULL"
    )
    assert await next_code() == "endpoint_disabled"
    await connection.execute("UPDATE dispatcher.endpoint SET deleted_at = now()")
    assert await next_code() == "endpoint_deleted"
