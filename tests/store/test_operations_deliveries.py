"""Events and deliveries through the operations, on the real database."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import pytest

from dispatcher.admin.operations import deliveries, event_types
from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.deliveries import DeliveryOperations
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.operations.event_types import EventTypes
from dispatcher.admin.operations.events import Events
from dispatcher.admin.operations.explain import Explainer
from dispatcher.admin.operations.jobs import JobOperations
from dispatcher.admin.operations.new_event import NewEvent
from dispatcher.admin.resources.delivery import DeliveriesQuery
from dispatcher.admin.resources.event import EventsQuery
from dispatcher.admin.resources.job import JobFilter, NewJob
from dispatcher.admin.resources.serialization import time_text, write_json
from dispatcher.core import codes
from dispatcher.core.errors import ConflictError, InvalidRequestError, NotFoundError, TooManyError
from tests.support.story import ACME, ALL, Story

pytestmark = pytest.mark.postgres

NAMESAKE = "zz.cqf5ac4y"
"""Has the CRC-32 of `order.created`. A producer can find such a name for any type in seconds."""


async def found(deployment: Deployment, actor: Actor = ALL, **wanted: Any) -> list[str]:
    page = await DeliveryOperations(deployment).page(actor, DeliveriesQuery.of(**wanted))
    return [item.id for item in page.items]


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
            ALL, DeliveriesQuery(limit=2, cursor=cursor)
        )
        seen += [item.id for item in page.items]
        cursor = page.next_cursor
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
    assert await found(deployment, label=["customer=acme"]) == [done]
    assert await found(deployment, tenant="acme") == []
    assert await found(deployment, test=True) == []
    assert await found(deployment, test=False) == [waiting, done]
    made_at = story.now - timedelta(seconds=98)
    assert await found(deployment, since=made_at) == [waiting]
    assert await found(deployment, until=made_at) == [done], "until is not included"
    assert await found(deployment, ACME) == []


def test_wrong_filters_are_told_at_once() -> None:
    no_zone = datetime.fromisoformat("2026-01-01")
    with pytest.raises(InvalidRequestError) as caught:
        DeliveriesQuery.of(state="lost", request_id="x", label=["A=b"], since=no_zone, limit=0)
    assert {field for field, *_ in caught.value.problems} == {
        "state",
        "request_id",
        "label",
        "since",
        "limit",
    }


async def test_a_request_id_finds_what_was_sent_under_it(
    deployment: Deployment, story: Story
) -> None:
    """Of the same event only the delivery whose body has the id: other profiles send none."""
    first = await story.endpoint(profile="humansoft")
    second = await story.endpoint("other", profile="standard")
    await story.body("e1", "humansoft")
    await story.body("e1", "standard")
    sent = await story.delivery(first, "e1", "failed", "humansoft")
    await story.delivery(second, "e1", "failed", "standard")
    digits = sha256(b"e1").hexdigest()[:16]
    assert await found(deployment, request_id=f"req_{digits}") == [sent]
    assert await found(deployment, request_id=digits) == [sent]
    assert await found(deployment, q=f"req_{digits}") == [sent]
    assert await found(deployment, request_id=f"req_{digits}", state="pending") == []
    assert await found(deployment, request_id=f"req_{digits}", test=True) == []
    assert await found(deployment, request_id=f"test_{digits}") == [], "no test has these digits"
    assert await found(deployment, request_id=f"other_{digits}") == [], "no profile writes it so"
    assert await found(deployment, ACME, request_id=f"req_{digits}") == []


async def test_a_search_finds_by_id_label_and_business_key(
    deployment: Deployment, story: Story
) -> None:
    endpoint = await story.endpoint()
    await story.event("e1", labels='{"order": "ORD-1", "note": "a \\"quoted\\" text"}')
    await story.event("e2", labels='{"order": "ORD-2"}')
    first = await story.delivery(endpoint, "e1", "failed")
    second = await story.delivery(endpoint, "e2")
    for text, wanted in {
        "e1": [first],
        f" {second} ": [second],
        "order=ORD-1": [first],
        "ORD-2": [second],
        'a "quoted" text': [first],
        "ORD": [second, first],
        "order=ORD": [],
        "' OR true --": [],
        '") || true': [],
    }.items():
        assert await found(deployment, q=text) == wanted, text
        assert await found(deployment, ACME, q=text) == [], text
    assert await found(deployment, q="ORD-1", state="pending") == []
    events = Events(deployment)
    for text, ids_wanted in {"e2": ["e2"], "ORD-1": ["e1"], "order=ORD-2": ["e2"]}.items():
        page = await events.page(ALL, EventsQuery.of(q=text))
        assert [item.id for item in page.items] == ids_wanted
        assert (await events.page(ACME, EventsQuery.of(q=text))).items == []


async def test_an_event_that_waits_in_the_outbox_is_found_by_its_label(
    deployment: Deployment,
) -> None:
    events = Events(deployment)
    await events.publish(ALL, NewEvent(type="a.b", data="{}", id="w1", labels={"order": "X"}))
    await events.publish(ALL, NewEvent(type="a.b", data="{}", id="w2"))
    assert [i.id for i in (await events.page(ALL, EventsQuery.of(q="X"))).items] == ["w1"]
    assert [i.id for i in (await events.page(ALL, EventsQuery.of(label=["order=X"]))).items] == [
        "w1"
    ]


async def test_a_cursor_is_of_its_filter_and_its_tenant(
    deployment: Deployment, story: Story
) -> None:
    endpoint = await story.endpoint()
    for number in range(3):
        await story.delivery(endpoint, f"e{number}", "failed")
    deliveries = DeliveryOperations(deployment)
    wanted = DeliveriesQuery.of(state="failed")
    cursor = (await deliveries.page(ALL, DeliveriesQuery(state="failed", limit=1))).next_cursor
    assert cursor is not None
    assert (
        await deliveries.page(ALL, DeliveriesQuery(state="failed", limit=2, cursor=cursor))
    ).items
    for actor, other in (
        (ALL, DeliveriesQuery.of()),
        (ALL, DeliveriesQuery.of(state="failed", tenant="default")),
        (ACME, wanted),
    ):
        with pytest.raises(InvalidRequestError, match="another filter"):
            await deliveries.page(actor, other.model_copy(update={"cursor": cursor}))
    with pytest.raises(InvalidRequestError, match="cursor"):
        await Events(deployment).page(ALL, EventsQuery.of(cursor=cursor))


async def test_a_resend_is_one_request_that_waits(
    deployment: Deployment, story: Story, connection: Any
) -> None:
    delivery = await story.delivery(await story.endpoint(), "e1", "failed")
    await DeliveryOperations(deployment).resend(ALL, delivery)
    before = await connection.fetchval("SELECT requested_at FROM words.delivery_request")
    await DeliveryOperations(deployment).resend(ALL, delivery)
    (row,) = await connection.fetch(
        "SELECT kind, requested_by, requested_at FROM words.delivery_request"
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
    assert (shown.state, shown.reason) == ("cancelled", "endpoint_deleted")
    assert await connection.fetchval("SELECT count(*) FROM words.delivery_request") == 0
    with pytest.raises(ConflictError):
        await DeliveryOperations(deployment).resend(ALL, waiting)


async def test_a_cancelled_delivery_is_final_and_its_resend_forgotten(
    deployment: Deployment, story: Story, connection: Any
) -> None:
    delivery = await story.delivery(await story.endpoint(), "e1", "retrying")
    await DeliveryOperations(deployment).resend(ALL, delivery)
    cancelled = await DeliveryOperations(deployment).cancel(ALL, delivery)
    assert (cancelled.state, cancelled.reason) == ("cancelled", "cancelled_by_person")
    assert cancelled.next_attempt_at is None
    assert [
        row[0] for row in await connection.fetch("SELECT kind FROM words.delivery_request")
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
    assert answer.id.startswith("evt_")
    assert data.encode() in write_json(answer)
    assert (await Events(deployment).page(ALL)).items[0].id == answer.id


async def test_a_known_id_answers_the_first_event(deployment: Deployment) -> None:
    first, _ = await Events(deployment).publish(
        ALL, NewEvent(type="order.created", data="{}", id="a-1")
    )
    again, is_new = await Events(deployment).publish(
        ALL, NewEvent(type="order.shipped", data="{}", id="a-1")
    )
    assert not is_new
    assert again.type == first.type == "order.created"
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
    assert {field for field, *_ in caught.value.problems} == {
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
    answer = await Explainer(deployment).explain(ALL, "e1")
    verdicts = {one.endpoint_name: (one.gets_it, one.why) for one in answer.endpoints}
    assert verdicts == {
        "takes": (True, "succeeded"),
        "other type": (False, "not_subscribed"),
        "other labels": (False, "labels_differ"),
        "fails": (True, "failed"),
        "paused": (True, "retrying"),
        "changed": (False, "changed_later"),
        "later": (False, "created_later"),
    }
    waits = next(one.next for one in answer.endpoints if one.endpoint_name == "paused")
    assert waits == "it waits until the endpoint is resumed"
    assert "no dispatcher runs" in answer.summary


async def test_explain_foretells_what_becomes_of_a_waiting_event(
    deployment: Deployment, story: Story
) -> None:
    await story.endpoint()
    event, _ = await Events(deployment).publish(ALL, NewEvent(type="order.created", data="{}"))
    (verdict,) = (await Explainer(deployment).explain(ALL, event.id)).endpoints
    assert (verdict.gets_it, verdict.why) == (True, "waiting_in_outbox")
    with pytest.raises(NotFoundError):
        await Explainer(deployment).explain(ACME, event.id)


async def test_explain_checks_only_endpoints_that_still_have_to_be_sent_to(
    deployment: Deployment, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deployment may have 20,000 endpoints: reading all of them to explain one event took seconds."""
    done, waits = await story.endpoint("done"), await story.endpoint("waits")
    await story.endpoint("neither")
    await story.delivery(done, "e1", "succeeded")
    await story.delivery(waits, "e1", "pending")
    checked: list[str] = []

    def unusable(_: Deployment, row: Any) -> SimpleNamespace:
        checked.append(str(row.id))
        return SimpleNamespace(detail="it is broken")

    monkeypatch.setattr(Deployment, "problem_of", unusable)
    answer = await Explainer(deployment).explain(ALL, "e1")
    assert checked == [waits]
    assert {one.endpoint_name: one.next_code for one in answer.endpoints}[
        "waits"
    ] == "endpoint_unusable"


async def attempted(connection: Any, delivery_id: str, code: int | None, outcome: str) -> None:
    """Record an attempt of a delivery, as the recorder does of one with a response or an error."""
    await connection.execute(
        "INSERT INTO words.attempt (day, delivery_id, attempt_number, trigger, outcome, attempted_at,"
        " latency_seconds, reused, url, response_code, error)"
        " SELECT day, id, 1, 'scheduled', $2, now(), 0.1, false, 'https://x.test', $3, 'error'"
        " FROM dispatcher.delivery WHERE id = $1",
        delivery_id,
        outcome,
        code,
    )


async def test_filter_of_several_states_and_types_finds_each(
    deployment: Deployment, story: Story, connection: Any
) -> None:
    endpoint = await story.endpoint()
    failed = await story.delivery(endpoint, "e1", "failed")
    waiting = await story.delivery(endpoint, "e2", "retrying")
    done = await story.delivery(endpoint, "e3", "succeeded")
    cancelled = await story.delivery(endpoint, "e4", "cancelled")
    await story.event("e3", event_type="order_item.created")
    await connection.execute(
        "UPDATE dispatcher.delivery_done SET event_type_code = $1 WHERE event_id = 'e3'",
        codes.event_type_code("order_item.created"),
    )
    assert await found(deployment, state="failed,retrying") == [waiting, failed]
    assert await found(deployment, state="retrying, cancelled") == [cancelled, waiting]
    assert await found(deployment, event_type="order.*") == [cancelled, waiting, failed]
    assert await found(deployment, event_type="order_item.*") == [done]
    assert await found(deployment, event_type="*", state="succeeded,failed") == [done, failed]
    assert await found(deployment, event_type="order.*", q="e2") == [waiting]
    assert await found(deployment, event_type="other.*", q="e2") == []
    assert await found(deployment, endpoint_id="erp", state="failed") == [failed]
    with pytest.raises(NotFoundError):
        await found(deployment, endpoint_id="epr")


async def test_filter_of_response_classes_compares_the_last_attempt(
    deployment: Deployment, story: Story, connection: Any
) -> None:
    endpoint = await story.endpoint()
    names = ("refused", "broken", "slow", "down", "waiting", "fresh", "done")
    states = ("failed", "failed", "failed", "cancelled", "retrying", "pending", "succeeded")
    ids = {
        name: await story.delivery(endpoint, f"e-{name}", state)
        for name, state in zip(names, states, strict=True)
    }
    await attempted(connection, ids["refused"], 404, "http_error")
    await attempted(connection, ids["slow"], None, "timeout")
    await attempted(connection, ids["down"], None, "dns_error")
    await attempted(connection, ids["waiting"], 503, "http_error")
    # The first attempt of a delivery that ended, with neither a body nor an error, is in the delivery's own row.
    await connection.execute(
        "UPDATE dispatcher.delivery_done SET attempted_at = now(), latency_seconds = 1, trigger = 1, outcome = 2,"
        " response_code = 500, reused = false, revision = 1 WHERE event_id = 'e-broken'"
    )

    async def classes(response: str, **more: Any) -> set[str]:
        return {
            name
            for name, one in ids.items()
            if one in await found(deployment, response=response, **more)
        }

    assert await classes("4xx") == {"refused"}
    assert await classes("5xx") == {"broken", "waiting"}
    assert await classes("timeout,connection") == {"slow", "down"}
    assert await classes("2xx") == {"done"}
    assert await classes("503") == {"waiting"}
    assert await classes("500, 404") == {"broken", "refused"}
    assert await classes("404,timeout", q="e-refused") == {"refused"}
    assert await classes("500", endpoint_id="erp", event_type="order.*") == {"broken"}
    assert await classes("2xx,4xx", state="failed,succeeded") == {"refused", "done"}
    assert await classes("5xx", q="e-waiting") == {"waiting"}
    assert await classes("5xx", endpoint_id="erp", event_type="order.*") == {"broken", "waiting"}
    counted = await JobOperations(deployment).count(
        ALL, NewJob.of(kind="resend", filter=JobFilter.of(response="5xx,timeout"))
    )
    assert (counted.count, counted.skipped) == (3, {})
    counted = await JobOperations(deployment).count(
        ALL, NewJob.of(kind="resend", filter=JobFilter.of(response="500"))
    )
    assert counted.count == 1
    with pytest.raises(InvalidRequestError):
        DeliveriesQuery.of(response="204")


async def test_job_of_named_deliveries_walks_these_alone(
    deployment: Deployment, story: Story
) -> None:
    endpoint = await story.endpoint()
    made = [await story.delivery(endpoint, f"e{n}", "failed") for n in range(4)]
    jobs = JobOperations(deployment)
    chosen = {"ids": [made[1], made[3], "wh_nothing"]}
    counted = await jobs.count(ALL, NewJob.of(kind="replay", filter=JobFilter.of(**chosen)))
    assert (counted.count, counted.is_complete) == (2, True)
    none = {"ids": ["wh_nothing"]}
    assert (await jobs.count(ALL, NewJob.of(kind="replay", filter=JobFilter.of(**none)))).count == 0


async def test_outcomes_count_the_deliveries_of_each_event(
    deployment: Deployment, story: Story
) -> None:
    first, second = await story.endpoint(), await story.endpoint("other")
    await story.delivery(first, "e1", "succeeded")
    await story.delivery(second, "e1", "failed")
    await story.delivery(first, "e2", "retrying")
    await story.event("e3")
    events = Events(deployment)
    page = await events.page(ALL)
    outcomes = await events.outcomes(page.items)
    counts = {
        name: (one.succeeded_count, one.failed_count, one.cancelled_count, one.waiting_count)
        for name, one in outcomes.items()
    }
    assert counts == {"e1": (1, 1, 0, 0), "e2": (0, 0, 0, 1), "e3": (0, 0, 0, 0)}
    assert not outcomes["e1"].capped


async def test_a_type_with_the_code_of_another_hides_no_delivery(
    deployment: Deployment, story: Story
) -> None:
    endpoint = await story.endpoint()
    await story.event("e1", event_type="order.created")
    await story.event("e2", event_type=NAMESAKE)
    await story.delivery(endpoint, "e1", "failed")
    await story.delivery(endpoint, "e2", "failed")  # both have the same code
    for wanted, event_id in (
        ("order.*", "e1"),
        ("order.created", "e1"),
        ("zz.*", "e2"),
        (NAMESAKE, "e2"),
    ):
        page = await DeliveryOperations(deployment).page(ALL, DeliveriesQuery.of(event_type=wanted))
        assert [one.event_id for one in page.items] == [event_id], wanted


def test_control_codes_of_all_other_types_hide_a_delivery():
    assert codes.event_type_code(NAMESAKE) == codes.event_type_code("order.created")


async def test_usage_lists_known_types_and_those_of_recent_events(
    deployment: Deployment, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    await story.endpoint(event_types=["order.*"])
    await story.endpoint("other", event_types=["*"])
    await story.event("e1", event_type="order.created")
    await story.event("e2", event_type="parcel.lost")
    await story.event("e3", event_type="parcel.lost")
    usage = {one.name: one for one in (await EventTypes(deployment).usage(ALL)).items}
    created, lost = usage["order.created"], usage["parcel.lost"]
    assert (created.in_catalogue, created.subscriber_count, created.event_count) == (True, 2, 1)
    assert (lost.in_catalogue, lost.subscriber_count, lost.event_count) == (False, 1, 2)
    assert lost.last_event_at is not None
    theirs = await EventTypes(deployment).usage(ACME)
    assert all(one.event_count == one.subscriber_count == 0 for one in theirs.items)
    monkeypatch.setattr(event_types, "EVENTS_READ_MAX", 1)
    capped = await EventTypes(deployment).usage(ALL)
    assert capped.counted_since == time_text(story.now), (
        "counted from the oldest event that was read"
    )


async def test_system_events_are_left_out_of_a_page_where_asked(
    deployment: Deployment, story: Story
) -> None:
    await story.event("e1")
    await story.event("e2", event_type="dispatcher.endpoint.down")
    events = Events(deployment)

    async def listed(**wanted: Any) -> list[str]:
        return sorted(one.id for one in (await events.page(ALL, EventsQuery.of(**wanted))).items)

    assert await listed() == ["e1", "e2"]
    assert await listed(system=False) == ["e1"]
    assert await listed(system=True, type="dispatcher.*") == ["e2"]
    assert await listed(system=False, q="e2") == []


async def test_export_reads_page_after_page_up_to_its_bound(
    deployment: Deployment, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = await story.endpoint()
    made = [await story.delivery(endpoint, f"e{n}", "failed") for n in range(5)]
    monkeypatch.setattr(deliveries, "EXPORT_BATCH", 2)
    operations = DeliveryOperations(deployment)

    async def exported() -> list[str]:
        query = DeliveriesQuery(state="failed")
        pages = [page async for page in operations.export(ALL, query)]
        ends.append(pages[-1].is_end)
        return [one.id for page in pages for one, _ in page.rows]

    ends: list[bool] = []
    assert await exported() == made[::-1]
    monkeypatch.setattr(deliveries, "EXPORT_ROWS_MAX", 3)
    assert await exported() == made[:1:-1]
    assert ends == [True, False]
    monkeypatch.setattr(deliveries, "EXPORTS_MAX", 0)
    with pytest.raises(TooManyError):
        await exported()
