"""A text means the same in a list, a count, a job and a change of the schedule, whatever it is made of."""

from datetime import datetime
from typing import Any

import orjson
import pytest

from dispatcher.admin.operations import delivery_search, jobs
from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.deliveries import DeliveryOperations
from dispatcher.admin.operations.jobs import JobOperations
from dispatcher.admin.operations.schedule import Change, Schedule
from dispatcher.admin.resources.delivery import DeliveriesQuery
from dispatcher.admin.resources.job import JobFilter, NewJob
from dispatcher.admin.resources.schedule import ScheduleQuery, SelectionFilter
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.printable import is_text
from dispatcher.store.delivery_ids import delivery_ids_of
from dispatcher.store.job_walk import JobWalk
from tests.store.test_search import HOSTILE, store
from tests.support.story import ACME, ALL, Story

pytestmark = pytest.mark.postgres

FAILED, WAITING = "failed", "pending,retrying"


class Ways:
    """Every way to select deliveries by a text."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment

    async def listed(self, text: str, state: str, actor: Actor = ALL) -> set[str]:
        """Return what a list finds, page by page."""
        found: list[str] = []
        cursor = None
        while True:
            query = DeliveriesQuery.of(q=text, state=state, limit=100, cursor=cursor)
            page = await DeliveryOperations(self.deployment).page(actor, query)
            found += [one.id for one in page.items]
            cursor = page.next_cursor
            if cursor is None:
                assert len(found) == len(set(found))
                return set(found)

    async def picked(self, text: str, actor: Actor = ALL, to: str | None = None) -> set[str]:
        """Return what a job would resend, or the events that it would send to another endpoint."""
        state = None if to else FAILED
        new = NewJob.of(
            kind="replay" if to else "resend", filter=JobFilter.of(q=text, state=state), to=to
        )
        operations = JobOperations(self.deployment)
        async with self.deployment.database.reading() as connection:
            plan = await operations._plan(connection, actor, new)
        walk = JobWalk(new.kind, plan.criteria, plan.target)
        found: list[Any] = []
        batch = await walk.next(self.deployment.database, None)
        found += batch.candidates
        while not batch.is_end:
            batch = await walk.next(self.deployment.database, batch.cursor)
            found += batch.candidates
        counted = await operations.count(actor, new)
        assert (counted.count, counted.is_complete, counted.counted_until) == (
            len(found),
            True,
            None,
        )
        return (
            {one.event_id for one in found}
            if to
            else set(delivery_ids_of([one.id for one in found]))
        )

    async def scheduled(self, text: str, actor: Actor = ALL) -> set[str]:
        """Return the schedule of a text; a change counts as many."""
        operations = Schedule(self.deployment)
        found: set[str] = set()
        cursor = None
        while True:
            query = ScheduleQuery.of(q=text, limit=100, cursor=cursor)
            page = await operations.page(actor, query)
            found |= {one.id for one in page.items}
            cursor = page.next_cursor
            if cursor is None:
                break
        counted = await operations.change(
            actor, Change.CANCEL, SelectionFilter.of(q=text), dry_run=True
        )
        assert counted.count == len(found)
        return found


@pytest.fixture
async def ways(deployment: Deployment) -> Ways:
    return Ways(deployment)


async def deliver(story: Story, endpoints: tuple[str, str], event_id: str) -> tuple[str, str]:
    """Give an event a waiting delivery of one endpoint, and a failed one of another."""
    waiting, failed = endpoints
    return await story.delivery(waiting, event_id), await story.delivery(failed, event_id, "failed")


async def test_text_selects_the_same_everywhere(ways: Ways, story: Story) -> None:
    endpoints = await story.endpoint("ERP Bangkok"), await story.endpoint("chat-room")
    target = await story.endpoint("new", event_types=["*"])
    payloads = {
        "a1": '{"order_id": "ORD-2026-1234", "discount": "50%_\\\\x"}',
        "a2": '{"name": "สมชาย ใจดี", "note": "bangkok"}',
        "a3": '{"ref": "wh_unknown", "kind": "x=y"}',
    }
    failed, waiting = {}, {}
    for event_id, data in payloads.items():
        await store(story, event_id, data)
        waiting[event_id], failed[event_id] = await deliver(story, endpoints, event_id)
    await store(story, "a4", "{}", labels={"customer": "Éclair GmbH", "kind": "x"})
    waiting["a4"], failed["a4"] = await deliver(story, endpoints, "a4")
    everything = set(payloads) | {"a4"}
    for text, by_payload, by_list in (
        ("ord-2026-1234", {"a1"}, {"a1"}),
        ("50%_", {"a1"}, {"a1"}),
        ("สมชาย", {"a2"}, {"a2"}),
        ("customer=Éclair GmbH", {"a4"}, {"a4"}),
        ("éclair", {"a4"}, {"a4"}),
        ("kind=x", {"a4"}, {"a4"}),
        ("x=y", {"a3"}, {"a3"}),
        ("A3", {"a3"}, {"a3"}),
        ("order.created", everything, everything),
        ("nothing of it", set(), set()),
        ("bangkok", {"a2"}, {"a2"}),
        ("CHAT-ROOM", set(), everything),
        (endpoints[1], set(), everything),
        (failed["a2"], set(), {"a2"}),
    ):
        assert await ways.listed(text, FAILED) == {failed[one] for one in by_list}, text
        assert await ways.picked(text) == {failed[one] for one in by_list}, text
        assert await ways.listed(text, WAITING) == await ways.scheduled(text), text
        if text != failed["a2"]:
            assert await ways.picked(text, to=target) == by_payload, text
        assert await ways.picked(text, ACME) == await ways.scheduled(text, ACME) == set()
    assert await ways.scheduled("bangkok") == set(waiting.values()), "the name of the endpoint"
    assert await ways.scheduled(waiting["a2"]) == {waiting["a2"]}


async def test_hostile_text_selects_the_same_everywhere(
    ways: Ways, story: Story, connection: Any, long_run: bool
) -> None:
    """All texts are stored; each of them is searched for with `--long`, and otherwise every tenth."""
    endpoints = await story.endpoint("one"), await story.endpoint("two")
    texts = [one for one in orjson.loads(HOSTILE.read_bytes()) if is_text(one) and one.strip()]
    failed = {}
    story._count -= 2 * len(texts)  # a job covers what was created before it
    for number, text in enumerate(texts):
        await store(story, f"h{number}", orjson.dumps({"remark": text}).decode())
        _, failed[number] = await deliver(story, endpoints, f"h{number}")
    await connection.execute("ANALYZE dispatcher.event, dispatcher.delivery_done")
    for number, text in list(enumerate(texts))[:: 1 if long_run else 10]:
        if len(text) > 256:
            continue
        found = await ways.listed(text, FAILED)
        assert failed[number] in found, text
        assert await ways.picked(text) == found, text
        assert await ways.scheduled(text) == await ways.listed(text, WAITING), text


async def test_names_of_many_endpoints_are_listed_in_parts(
    ways: Ways, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_search, "NAMED_AT_ONCE", 2)
    expected = set()
    for number in range(5):
        endpoint = await story.endpoint(f"depot {number}")
        for event in range(3):
            expected.add(await story.delivery(endpoint, f"e{event}", "failed"))
    query = DeliveriesQuery.of(q="depot", limit=4)
    found: list[str] = []
    while True:
        page = await DeliveryOperations(ways.deployment).page(ALL, query)
        found += [one.id for one in page.items]
        if page.next_cursor is None:
            break
        query = query.model_copy(update={"cursor": page.next_cursor})
    assert found == sorted(expected, reverse=True)
    assert await ways.picked("depot") == expected


async def test_count_that_takes_too_long_returns_how_far_it_got(
    ways: Ways, story: Story, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = await story.endpoint()
    ids = [await story.delivery(endpoint, f"e{number}", "failed") for number in range(3)]
    monkeypatch.setattr("dispatcher.store.job_walk.PICKED_MAX", 2)
    monkeypatch.setattr(jobs, "COUNT_SECONDS_MAX", -1.0)
    new = NewJob.of(kind="resend", filter=JobFilter.of(state="failed"))
    counted = await JobOperations(ways.deployment).count(ALL, new)
    second = await connection.fetchval(
        "SELECT created_at FROM dispatcher.delivery WHERE id = $1", ids[1]
    )
    assert (counted.count, counted.is_complete) == (2, False)
    assert counted.counted_until is not None
    assert datetime.fromisoformat(counted.counted_until) == second
    target = await story.endpoint("new")
    new = NewJob.of(kind="replay", filter=JobFilter.of(q="order"), to=target)
    counted = await JobOperations(ways.deployment).count(ALL, new)
    assert counted.counted_until is not None
    assert datetime.fromisoformat(counted.counted_until) <= story.now


@pytest.mark.parametrize("text", [" ", "\t\n", "\u3000"])
def test_blank_text_is_no_condition(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        NewJob.of(kind="resend", filter=JobFilter.of(q=text))
