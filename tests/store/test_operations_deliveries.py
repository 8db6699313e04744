"""Events and deliveries through the operations, on the real database."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import asyncpg
import pytest

from dispatcher.admin.operations.deliveries import DeliveryFilter, DeliveryOperations
from dispatcher.admin.operations.deployment import Actor, Deployment
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.operations.events import Events, NewEvent
from dispatcher.admin.operations.explain import Explanation
from dispatcher.admin.operations.objects import write_json
from dispatcher.cli.session import deployment_of
from dispatcher.config.settings import load_settings
from dispatcher.core import ids
from dispatcher.core.errors import ConflictError, InvalidRequestError, NotFoundError
from dispatcher.store.pool import Database

pytestmark = pytest.mark.postgres

ALL = Actor(name="cli:tester")
ACME = Actor(name="cli:acme", tenant="acme")
KEY = "k1:" + "QUJD" * 10 + "QUI="


@pytest.fixture
async def deployment(database: str) -> AsyncIterator[Deployment]:
    pool = Database(database, connections_max=3)
    await pool.open()
    environment = {"DISPATCHER_DATABASE_URL": database, "DISPATCHER_SECRET_KEYS": KEY}
    yield deployment_of(load_settings(None, environment), pool)
    await pool.close()


@pytest.fixture
async def connection(database: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


class Story:
    """Makes deliveries as fan-out and recorder would, each a second younger than the one before."""

    def __init__(self, deployment: Deployment, connection: Any) -> None:
        self._deployment = deployment
        self._connection = connection
        self._count = 0
        self.now = datetime.now(UTC)  # noqa: TID251 -- partitions are those of today

    async def endpoint(self, name: str = "erp", **fields: Any) -> str:
        given = {"name": name, "url": "https://example.com/", "event_types": ["order.*"]} | fields
        return str((await Endpoints(self._deployment).create(ALL, given))["id"])

    async def event(
        self, event_id: str, *, labels: str = "{}", event_type: str = "order.created"
    ) -> None:
        await self._connection.execute(
            "INSERT INTO dispatcher.event VALUES ($1, $2, $3, 'default', '{}', $4, NULL, $5, NULL, $4, $4)",
            self.now.date(),
            event_id,
            event_type,
            self.now,
            labels,
        )  # fmt: skip -- the table's order

    async def delivery(self, endpoint_id: str, event_id: str, state: str = "pending") -> str:
        self._count += 1
        at = self.now - timedelta(seconds=100 - self._count)
        delivery_id = ids.delivery_ids(
            int(at.timestamp() * 1000), self._count.to_bytes(10, "big"), 1
        )[0]
        values = [delivery_id, self.now.date(), event_id, endpoint_id, state, at]
        if state in {"pending", "retrying"}:
            await self._connection.execute(
                "INSERT INTO dispatcher.delivery_open (id, day, event_id, endpoint_id, event_type, tenant, profile,"
                " state, attempt_count, schedule_position, next_attempt_at, created_at) VALUES"
                " ($1, $2, $3, $4, 'order.created', 'default', 'standard', $5, $7, $7, $6, $6)",
                *values,
                int(state == "retrying"),
            )  # fmt: skip -- the statement's order
        else:
            await self._connection.execute(
                "INSERT INTO dispatcher.delivery_done (id, day, event_id, endpoint_id, event_type, tenant, profile,"
                " state, reason, attempt_count, schedule_position, created_at, finished_at) VALUES"
                " ($1, $2, $3, $4, 'order.created', 'default', 'standard', $5, $7, 1, 1, $6, $6)",
                *values,
                None if state == "succeeded" else "schedule_spent",
            )  # fmt: skip -- the statement's order
        return str(delivery_id)


@pytest.fixture
async def story(deployment: Deployment, connection: Any) -> Story:
    return Story(deployment, connection)


async def found(deployment: Deployment, actor: Actor = ALL, **wanted: Any) -> list[str]:
    page = await DeliveryOperations(deployment).page(actor, DeliveryFilter(**wanted))
    return [item["id"] for item in page["items"]]


async def test_open_and_ended_deliveries_are_one_list_newest_first(
    deployment: Deployment, story: Story
) -> None:
    endpoint = await story.endpoint()
    states = ["succeeded", "pending", "failed", "retrying", "cancelled"]
    made = [await story.delivery(endpoint, f"e{n}", state) for n, state in enumerate(states)]
    seen: list[str] = []
    cursor = None
    while True:
        page = await DeliveryOperations(deployment).page(
            ALL, DeliveryFilter(), limit=2, cursor=cursor
        )
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]


async def test_each_filter_keeps_what_it_says(deployment: Deployment, story: Story) -> None:
    first, second = await story.endpoint(), await story.endpoint("other")
    await story.event("e1", labels='{"customer": "acme"}')
    await story.event("e2")
    done = await story.delivery(first, "e1", "failed")
    waiting = await story.delivery(second, "e2")
    assert await found(deployment, endpoint_id=first) == [done]
    assert await found(deployment, event_id="e2") == [waiting]
    assert await found(deployment, state="failed") == [done]
    assert await found(deployment, state="pending") == [waiting]
    assert await found(deployment, event_type="order.shipped") == []
    assert await found(deployment, labels={"customer": "acme"}) == [done]
    assert await found(deployment, request_id=f"req_{sha256(b'e2').hexdigest()[:16]}") == [waiting]
    assert await found(deployment, tenant="acme") == []
    assert await found(deployment, test=True) == []
    assert await found(deployment, test=False) == [waiting, done]
    made_at = story.now - timedelta(seconds=98)
    assert await found(deployment, since=made_at) == [waiting]
    assert await found(deployment, until=made_at) == [done], "until is not included"
    assert await found(deployment, ACME) == []


async def test_wrong_filters_are_told_at_once(deployment: Deployment) -> None:
    no_zone = datetime.fromisoformat("2026-01-01")
    wanted = DeliveryFilter(state="lost", request_id="x", labels={"A": "b"}, since=no_zone)
    with pytest.raises(InvalidRequestError) as caught:
        await DeliveryOperations(deployment).page(ALL, wanted, limit=0)
    assert {field for field, _ in caught.value.problems} == {
        "state",
        "request_id",
        "label",
        "since",
        "limit",
    }


async def test_history_is_read_by_index(connection: Any) -> None:
    """Guards the plan: failed ones are found without reading the many that succeeded."""
    await connection.execute(
        "INSERT INTO dispatcher.delivery_done SELECT 'wh_' || n, current_date, 'e' || n, 'ep_1', 'order.created',"
        " 'default', 'standard', CASE WHEN n % 5000 = 0 THEN 'failed' ELSE 'succeeded' END,"
        " CASE WHEN n % 5000 = 0 THEN 'schedule_spent' END, false, 1, 1, now() - n * interval '1 ms', now()"
        " FROM generate_series(1, 20000) AS n"
    )
    await connection.execute("ANALYZE dispatcher.delivery_done")
    from dispatcher.store.statements import statement  # noqa: PLC0415 -- this test alone reads SQL

    await connection.execute("SET plan_cache_mode = force_custom_plan")
    today = await connection.fetchval("SELECT to_char(current_date, 'YYYYMMDD')")
    none: list[Any] = [None] * 12
    for place, value in ((4, "failed"), (1, "ep_1"), (2, "e77")):
        filters = list(none)
        filters[place] = value
        rows = await connection.fetch(
            "EXPLAIN (ANALYZE, BUFFERS OFF) " + statement("deliveries_page"), *filters, 51
        )
        plan = "\n".join(row[0] for row in rows)
        assert f"Seq Scan on delivery_done_{today}" not in plan, plan
        assert "Rows Removed by Filter" not in plan, plan


async def test_a_resend_is_one_request_that_waits(
    deployment: Deployment, story: Story, connection: Any
) -> None:
    delivery = await story.delivery(await story.endpoint(), "e1", "failed")
    await DeliveryOperations(deployment).resend(ALL, delivery)
    before = await connection.fetchval("SELECT requested_at FROM dispatcher.delivery_request")
    await DeliveryOperations(deployment).resend(ALL, delivery)
    (row,) = await connection.fetch(
        "SELECT kind, requested_by, requested_at FROM dispatcher.delivery_request"
    )
    assert (row["kind"], row["requested_by"]) == ("resend", "cli:tester")
    assert row["requested_at"] > before, (
        "an attempt in flight since the first is not the answer to the second"
    )


async def test_a_deleted_endpoint_ends_what_waits_and_takes_no_resend(
    deployment: Deployment, story: Story, connection: Any
) -> None:
    endpoint = await story.endpoint()
    waiting = await story.delivery(endpoint, "e1")
    await DeliveryOperations(deployment).resend(ALL, waiting)
    await Endpoints(deployment).delete(ALL, endpoint)
    shown = await DeliveryOperations(deployment).show(ALL, waiting)
    assert (shown["state"], shown["reason"]) == ("cancelled", "endpoint_deleted")
    assert await connection.fetchval("SELECT count(*) FROM dispatcher.delivery_request") == 0
    with pytest.raises(ConflictError):
        await DeliveryOperations(deployment).resend(ALL, waiting)


async def test_a_cancelled_delivery_is_final_and_its_resend_forgotten(
    deployment: Deployment, story: Story, connection: Any
) -> None:
    delivery = await story.delivery(await story.endpoint(), "e1", "retrying")
    await DeliveryOperations(deployment).resend(ALL, delivery)
    cancelled = await DeliveryOperations(deployment).cancel(ALL, delivery)
    assert (cancelled["state"], cancelled["reason"]) == ("cancelled", "cancelled_by_person")
    assert cancelled["next_attempt_at"] is None
    assert [
        row[0] for row in await connection.fetch("SELECT kind FROM dispatcher.delivery_request")
    ] == ["cancel"]
    with pytest.raises(ConflictError, match="cancelled"):
        await DeliveryOperations(deployment).cancel(ALL, delivery)


async def test_another_tenants_delivery_does_not_exist(
    deployment: Deployment, story: Story
) -> None:
    delivery = await story.delivery(await story.endpoint(), "e1")
    operations = DeliveryOperations(deployment)
    for work in (operations.show, operations.resend, operations.cancel):
        with pytest.raises(NotFoundError):
            await work(ACME, delivery)
        with pytest.raises(NotFoundError):
            await work(ALL, "wh_nonsense")


async def test_a_published_event_keeps_its_bytes(deployment: Deployment) -> None:
    data = '{"b": 1.0, "a" :"ไทย", "big": 12345678901234567890}'
    answer, is_new = await Events(deployment).publish(
        ALL, NewEvent(type="order.created", data=data)
    )
    assert is_new
    assert answer["id"].startswith("evt_")
    assert data.encode() in write_json(answer)
    assert (await Events(deployment).page(ALL))["items"][0]["id"] == answer["id"]


async def test_a_known_id_answers_the_first_event(deployment: Deployment) -> None:
    first, _ = await Events(deployment).publish(
        ALL, NewEvent(type="order.created", data="{}", id="a-1")
    )
    again, is_new = await Events(deployment).publish(
        ALL, NewEvent(type="order.shipped", data="{}", id="a-1")
    )
    assert not is_new
    assert again["type"] == first["type"] == "order.created"
    with pytest.raises(ConflictError):
        await Events(deployment).publish(ACME, NewEvent(type="order.created", data="{}", id="a-1"))


@pytest.mark.parametrize(
    "data",
    ["[1]", "nonsense", '{"a": "\0"}', '{"a": "\ud800"}', '{"a": "' + "x" * 1_048_576 + '"}'],
)
async def test_every_fault_of_an_event_is_told_at_once(deployment: Deployment, data: str) -> None:
    event = NewEvent(
        type="dispatcher.own",
        data=data,
        id="evt_2026_000001",
        tenant="A",
        occurred_at=datetime(1960, 1, 1, tzinfo=UTC),
        ordering_key="x" * 257,
        labels={"A": "b"},
        traceparent="x" * 257,
    )
    with pytest.raises(InvalidRequestError) as caught:
        await Events(deployment).publish(ALL, event)
    assert {field for field, _ in caught.value.problems} == {
        "type", "data", "id", "tenant", "occurred_at", "ordering_key", "labels", "traceparent",
    }  # fmt: skip


async def test_explain_tells_why_each_endpoint_got_it_or_not(
    deployment: Deployment, story: Story, connection: Any
) -> None:
    takes = await story.endpoint("takes")
    await story.endpoint("other type", event_types=["stock.*"])
    await story.endpoint("other labels", labels={"customer": "acme"})
    fails = await story.endpoint("fails")
    paused = await story.endpoint("paused")
    await story.endpoint("changed")
    await connection.execute(
        "UPDATE dispatcher.endpoint SET created_at = now() - interval '1 hour'"
    )
    await story.event("e1")
    await story.endpoint("later")
    await connection.execute(
        "UPDATE dispatcher.endpoint SET created_at = now() + interval '1 hour' WHERE name = 'later'"
    )
    await story.delivery(takes, "e1", "succeeded")
    await story.delivery(fails, "e1", "failed")
    await story.delivery(paused, "e1", "retrying")
    await Endpoints(deployment).pause(ALL, paused)
    answer = await Explanation(deployment).explain(ALL, "e1")
    verdicts = {one["endpoint_name"]: (one["gets_it"], one["why"]) for one in answer["endpoints"]}
    assert verdicts == {
        "takes": (True, "succeeded"),
        "other type": (False, "not_subscribed"),
        "other labels": (False, "labels_differ"),
        "fails": (True, "failed"),
        "paused": (True, "retrying"),
        "changed": (False, "changed_later"),
        "later": (False, "created_later"),
    }
    waits = next(one["next"] for one in answer["endpoints"] if one["endpoint_name"] == "paused")
    assert waits == "it waits until the endpoint is resumed"
    assert "no dispatcher runs" in answer["summary"]


async def test_explain_foretells_what_becomes_of_a_waiting_event(
    deployment: Deployment, story: Story
) -> None:
    await story.endpoint()
    event, _ = await Events(deployment).publish(ALL, NewEvent(type="order.created", data="{}"))
    (verdict,) = (await Explanation(deployment).explain(ALL, event["id"]))["endpoints"]
    assert (verdict["gets_it"], verdict["why"]) == (True, "waiting_in_outbox")
    with pytest.raises(NotFoundError):
        await Explanation(deployment).explain(ACME, event["id"])
