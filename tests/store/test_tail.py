"""The live tail: what is recorded reaches each viewer of its tenant once, within bounds."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from dispatcher.admin.operations import tail as module
from dispatcher.admin.operations.context import Deployment
from dispatcher.admin.operations.tail import Tail
from dispatcher.admin.resources.delivery import DeliveriesQuery
from dispatcher.core.errors import NotFoundError, TooManyError
from dispatcher.runtime import probe
from dispatcher.runtime.tasks import TaskSet
from tests.support.story import ACME, ALL, Story

pytestmark = pytest.mark.postgres


@pytest.fixture
async def tail(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Tail]:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)
    made = Tail(deployment)
    async with TaskSet("test") as tasks:
        tasks.spawn("tail", made.run())
        yield made


async def record(connection: Any, delivery_id: str, number: int = 1) -> None:
    await connection.execute(
        "INSERT INTO words.attempt (day, delivery_id, attempt_number, trigger, outcome, attempted_at,"
        " latency_seconds, reused, url, response_code)"
        " SELECT day, id, $2, 'scheduled', 'http_error', now(), 0.5, true, 'https://x.test/', 503"
        " FROM dispatcher.delivery WHERE id = $1",
        delivery_id,
        number,
    )


async def polled(heard: Any, times: int = 2) -> None:
    """Waits until a poll has begun and ended after what was just done."""
    await heard.wait("tail.polled", count=len(heard.of("tail.polled")) + times)


async def test_new_attempts_are_seen_once_and_old_ones_not(
    tail: Tail, story: Story, connection: Any
) -> None:
    endpoint = await story.endpoint()
    old, new = await story.delivery(endpoint, "e1"), await story.delivery(endpoint, "e2")
    await record(connection, old)
    with probe.listen() as heard:
        async with tail.watch(ALL) as viewer:
            await polled(heard)
            assert (await viewer.next(0.0)).items == [], "that was before"
            await record(connection, new)
            await polled(heard)
            batch = await viewer.next(5.0)
            (item,) = batch.items
            assert (item.delivery.id, item.attempt.response_code) == (new, 503)
            assert (batch.dropped_count, batch.is_sample) == (0, False)
            await record(connection, new, 2)
            await polled(heard)
            (item,) = (await viewer.next(5.0)).items
            assert item.attempt.attempt_number == 2
            await polled(heard)
            assert (await viewer.next(0.0)).items == []


async def test_a_viewer_sees_its_own_tenant_and_the_endpoint_it_asked_for(
    tail: Tail, story: Story, connection: Any
) -> None:
    first, second = await story.endpoint(), await story.endpoint("other")
    one, two = await story.delivery(first, "e1"), await story.delivery(second, "e1")
    with probe.listen() as heard:
        async with (
            tail.watch(ALL, DeliveriesQuery(endpoint_id=first)) as mine,
            tail.watch(ALL) as everything,
            tail.watch(ACME) as theirs,
        ):
            await polled(heard)
            for viewer in (mine, everything, theirs):
                await viewer.next(0.0)
            await record(connection, one)
            await record(connection, two)
            await polled(heard)
            seen = [
                {item.delivery.id for item in (await viewer.next(0.1)).items}
                for viewer in (mine, everything, theirs)
            ]
    assert seen == [{one}, {one, two}, set()]
    with pytest.raises(NotFoundError):
        async with tail.watch(ACME, DeliveriesQuery(tenant="default")):
            pass


async def test_a_viewer_that_takes_nothing_loses_the_oldest_and_is_told(
    tail: Tail, story: Story, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE_MAX", 2)
    delivery = await story.delivery(await story.endpoint(), "e1")
    with probe.listen() as heard:
        async with tail.watch(ALL) as viewer:
            await polled(heard)
            await viewer.next(0.0)
            for number in range(1, 6):
                await record(connection, delivery, number)
                await polled(heard)
            batch = await viewer.next(0.0)
    assert [item.attempt.attempt_number for item in batch.items] == [4, 5]
    assert batch.dropped_count == 3


async def test_only_so_many_watch(tail: Tail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VIEWERS_MAX", 1)
    async with tail.watch(ALL):
        with pytest.raises(TooManyError):
            async with tail.watch(ALL):
                pass
    async with tail.watch(ALL):
        pass


async def test_the_end_of_a_partition_is_read_by_place(connection: Any) -> None:
    """Guards the plan: a tail reads the last pages, whatever the day's length."""
    await connection.execute(
        "INSERT INTO dispatcher.attempt (day, event_id, endpoint_no, delivery_id, attempt_number, trigger, outcome,"
        " attempted_at, latency_seconds, reused, revision) SELECT current_date, 'e' || n, 1, gen_random_uuid(), 2, 1,"
        " 5, now(), 1, true, 1 FROM generate_series(1, 20000) AS n"
    )
    await connection.execute(
        "INSERT INTO dispatcher.delivery_done (id, day, event_id, endpoint_no, event_type_code, state, attempt_count,"
        " schedule_position, attempted_at, latency_seconds, revision, trigger, outcome, reused, response_code)"
        " SELECT gen_random_uuid(), current_date, 'e' || n, 1, 1, 3, 1, 1, now(), 1, 1, 1, 1, true, 200"
        " FROM generate_series(1, 20000) AS n"
    )
    from dispatcher.store.statements import statement  # noqa: PLC0415 -- this test alone reads SQL

    await connection.execute("SET plan_cache_mode = force_custom_plan")
    await connection.execute("ANALYZE dispatcher.attempt; ANALYZE dispatcher.delivery_done")
    for name, table in (("attempt_tail", "attempt"), ("delivery_done_tail", "delivery_done")):
        rows = await connection.fetch(
            "EXPLAIN (ANALYZE, BUFFERS OFF, TIMING OFF) " + statement(name),
            await connection.fetchval("SELECT current_date"),
            "(200,0)",
            await connection.fetchval("SELECT now() - interval '1 hour'"),
            200,
        )
        plan = "\n".join(row[0] for row in rows)
        assert f"Tid Range Scan on {table}_" in plan, plan
        assert f"Seq Scan on {table}_" not in plan, plan


async def test_viewer_of_a_filter_gets_what_fits_and_what_leaves_it(
    tail: Tail, story: Story, connection: Any
) -> None:
    endpoint = await story.endpoint()
    await story.event("e1", labels='{"order_id": "7"}')
    one, other = (
        await story.delivery(endpoint, "e1", "retrying"),
        await story.delivery(endpoint, "e2"),
    )
    wanted = {
        "state": "retrying",
        "event_type": "order.*",
        "label": ["order_id=7"],
        "response": "5xx",
    }
    left = {"state": "failed", "label": ["order_id=7"]}
    with probe.listen() as heard:
        async with (
            tail.watch(ALL, DeliveriesQuery.of(**wanted)) as fits,
            tail.watch(ALL, DeliveriesQuery.of(**left)) as leaves,
            tail.watch(ALL, DeliveriesQuery.of(event_type="stock.*")) as nothing,
        ):
            await polled(heard)
            await record(connection, one)
            await record(connection, other)
            await polled(heard)
            seen = [
                [(item.delivery.id, item.fits) for item in (await viewer.next(0.1)).items]
                for viewer in (fits, leaves, nothing)
            ]
    assert seen == [[(one, True)], [(one, False)], []]
