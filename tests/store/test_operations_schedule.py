"""The schedule through the operations, on the real database."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher.admin.operations import schedule as operations
from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.operations.recovery import Recovery
from dispatcher.admin.operations.schedule import Change, Schedule
from dispatcher.admin.resources.delivery import IDS_MAX
from dispatcher.admin.resources.schedule import (
    Postponement,
    ScheduleQuery,
    SelectionFilter,
)
from dispatcher.core.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
)
from dispatcher.store import schedule as store
from dispatcher.store.leases import Leases
from tests.support.daemon import until
from tests.support.story import ACME, ALL, Story

pytestmark = pytest.mark.postgres


async def _due(connection: Any, delivery_id: str, seconds: float) -> None:
    await connection.execute(
        "UPDATE dispatcher.delivery_open SET next_attempt_at = now() + make_interval(secs => $2)"
        " WHERE id = (SELECT uuid FROM dispatcher.delivery WHERE id = $1)",
        delivery_id,
        seconds,
    )


async def _waits(connection: Any, delivery_id: str) -> float:
    """Returns the seconds until a delivery is due."""
    value = await connection.fetchval(
        "SELECT extract(epoch FROM next_attempt_at - now())::float8 FROM dispatcher.delivery WHERE id = $1",
        delivery_id,
    )
    return float(value)


async def _listed(deployment: Deployment, actor: Actor = ALL, **wanted: Any) -> list[str]:
    page = await Schedule(deployment).page(actor, ScheduleQuery.of(**wanted))
    return [one.id for one in page.items]


async def _changed(
    deployment: Deployment, change: Change, *, dry: bool = False, **given: Any
) -> int:
    more = {name: given.pop(name) for name in ("by_seconds", "due_at") if name in given}
    wanted = SelectionFilter.of(**given)
    answer = await Schedule(deployment).change(ALL, change, wanted, dry_run=dry, **more)
    assert answer.dry_run is dry
    return answer.count


async def test_schedule_is_in_order_of_due_time_page_by_page(deployment, story: Story, connection):
    first, second = await story.endpoint(), await story.endpoint("other")
    made = [
        await story.delivery(first if number % 2 else second, f"e{number}", "retrying")
        for number in range(5)
    ]
    await story.delivery(first, "done", "failed")
    for number, delivery_id in enumerate(made):
        await _due(connection, delivery_id, 500 - 100 * number)
    seen: list[str] = []
    cursor = None
    while True:
        page = await Schedule(deployment).page(ALL, ScheduleQuery(limit=2, cursor=cursor))
        seen += [one.id for one in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == made[::-1]
    (one,) = (await Schedule(deployment).page(ALL, ScheduleQuery(limit=1))).items
    assert (one.endpoint_name, one.event_type, one.attempt_number) == ("other", "order.created", 2)
    assert one.waits_for.code == "no_dispatcher"


async def test_schedule_filter_keeps_what_matches(
    deployment, story: Story, connection, monkeypatch
):
    """Conditions on events are compared slice by slice; a page that meets its bound goes on."""
    first, second = await story.endpoint(), await story.endpoint("other")
    await story.event("e1", labels='{"customer": "acme"}')
    await story.event("e2", event_type="order.shipped")
    pending = await story.delivery(first, "e1")
    shipped = await story.delivery(second, "e2", "retrying")
    await connection.execute("UPDATE dispatcher.delivery_open SET event_type_code = 0")
    await _due(connection, pending, 100)
    await _due(connection, shipped, 50)
    assert await _listed(deployment) == [shipped, pending]
    assert await _listed(deployment, endpoint_id=first) == [pending]
    assert await _listed(deployment, state="retrying") == [shipped]
    assert await _listed(deployment, state="failed") == []
    assert await _listed(deployment, event_id="e1") == [pending]
    assert await _listed(deployment, q="acme") == [pending]
    assert await _listed(deployment, due_since=story.now + timedelta(seconds=75)) == [pending]
    assert await _listed(deployment, due_until=story.now + timedelta(seconds=75)) == [shipped]
    assert await _listed(deployment, since=story.now) == []
    assert await _listed(deployment, ACME) == []
    with pytest.raises(NotFoundError):
        await _listed(deployment, ACME, tenant="default")
    monkeypatch.setattr(operations, "SLICE_ROWS", 1)
    assert await _listed(deployment, label=["customer=acme"]) == [pending]
    assert await _listed(deployment, label=["customer=other"]) == []
    monkeypatch.setattr(operations, "EXAMINED_MAX", 1)
    page = await Schedule(deployment).page(ALL, ScheduleQuery.of(label=["customer=acme"], limit=1))
    assert page.items == []
    assert page.next_cursor is not None, "one was examined, and more may match"
    query = ScheduleQuery.of(label=["customer=acme"], limit=1, cursor=page.next_cursor)
    assert [one.id for one in (await Schedule(deployment).page(ALL, query)).items] == [pending]


async def test_schedule_change_counts_first_then_moves_exactly_those(deployment, story, connection):
    endpoint = await story.endpoint()
    near, far = [await story.delivery(endpoint, f"e{n}", "retrying") for n in range(2)]
    await _due(connection, near, 100)
    await _due(connection, far, 1000)
    only = {"due_until": story.now + timedelta(seconds=500)}
    assert await _changed(deployment, Change.POSTPONE, dry=True, by_seconds=60.0, **only) == 1
    assert 90 < await _waits(connection, near) < 110, "a count changes nothing"
    assert await _changed(deployment, Change.POSTPONE, by_seconds=60.0, **only) == 1
    assert 150 < await _waits(connection, near) < 170
    at = story.now + timedelta(seconds=300)
    assert await _changed(deployment, Change.POSTPONE, due_at=at, endpoint_id=endpoint) == 1
    assert 290 < await _waits(connection, near) < 310
    assert await _waits(connection, far) > 900, "it is never made due earlier by a postponement"
    assert await _changed(deployment, Change.RETRY, ids=[far, "wh_x", endpoint]) == 1
    assert await _waits(connection, far) <= 0
    assert await _changed(deployment, Change.RETRY, ids=[far]) == 0, "it is due already"
    assert await _changed(deployment, Change.CANCEL, endpoint_id=endpoint) == 2
    states = await connection.fetch("SELECT state, reason FROM dispatcher.delivery")
    assert {tuple(row) for row in states} == {("cancelled", "cancelled_by_person")}
    requests = await connection.fetch("SELECT kind FROM dispatcher.endpoint_request")
    assert [row[0] for row in requests] == ["reload"], "the dispatcher reads the schedule again"
    actions = await connection.fetch("SELECT action, detail FROM dispatcher.audit ORDER BY id")
    assert [row["action"] for row in actions][-4:] == [
        "schedule.postpone", "schedule.retry", "schedule.retry", "schedule.cancel",
    ]  # fmt: skip
    assert '"count": 2' in actions[-1]["detail"]


async def test_schedule_change_of_what_a_recorder_holds_is_tried_again(
    deployment, story, connection, monkeypatch
):
    endpoint = await story.endpoint()
    held, free = [await story.delivery(endpoint, f"e{n}", "retrying") for n in range(2)]
    calls = []
    real = store.cancel_deliveries

    async def counted(*given: Any, **how: Any) -> set[str]:
        calls.append(given[1])
        if len(calls) == 2:
            await transaction.rollback()
        return await real(*given, **how)

    monkeypatch.setattr(store, "cancel_deliveries", counted)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(
        "SELECT FROM dispatcher.delivery_open WHERE event_id = 'e0' FOR UPDATE"
    )
    assert await _changed(deployment, Change.CANCEL, endpoint_id=endpoint) == 2
    assert [len(one) for one in calls] == [2, 1]
    assert set(calls[0]) == {held, free}


async def test_schedule_change_rejects_what_it_cannot_do(deployment, story, monkeypatch):
    schedule = Schedule(deployment)
    viewer = Actor(name="v", role=Role.VIEWER)
    some = SelectionFilter.of(event_type="order.created")
    with pytest.raises(ForbiddenError):
        await schedule.change(viewer, Change.CANCEL, some, dry_run=True)
    with pytest.raises(InvalidRequestError, match="empty"):
        await schedule.change(ALL, Change.CANCEL, SelectionFilter(), dry_run=True)
    with pytest.raises(InvalidRequestError):
        await schedule.change(ALL, Change.POSTPONE, some, dry_run=True)
    foreign = SelectionFilter.of(tenant="default")
    with pytest.raises(NotFoundError):
        await schedule.change(ACME, Change.CANCEL, foreign, dry_run=True)
    endpoint = await story.endpoint()
    for number in range(3):
        await story.delivery(endpoint, f"e{number}")
    monkeypatch.setattr(operations, "CHANGED_MAX", 2)
    with pytest.raises(InvalidRequestError, match="More than 2"):
        await schedule.change(ALL, Change.POSTPONE, some, dry_run=False, by_seconds=60.0)
    capped = await schedule.change(ALL, Change.CANCEL, some, dry_run=False)
    assert (capped.count, capped.capped) == (2, True)
    rest = await schedule.change(ALL, Change.CANCEL, some, dry_run=False)
    assert (rest.count, rest.capped) == (1, False)


def test_postponement_rejects_times_and_durations_out_of_range():
    now = datetime(2026, 5, 29, tzinfo=UTC)
    given = {"filter": {"event_type": "a.b"}}
    wrongs: tuple[dict[str, Any], ...] = (
        {"by_seconds": 0},
        {"by_seconds": 31 * 86_400},
        {"by_seconds": float("nan")},
        {"due_at": now - timedelta(seconds=1)},
        {"due_at": now + timedelta(days=31)},
        {"by_seconds": 60, "due_at": now + timedelta(days=1)},
        {"filter": {"ids": ["x"] * (IDS_MAX + 1)}},
        {"filter": {}},
    )
    for wrong in wrongs:
        with pytest.raises(InvalidRequestError):
            Postponement.of(now, **(given | wrong))


async def test_retry_of_an_endpoint_asks_for_its_oldest_due_delivery(deployment, story, connection):
    """Without a dispatcher it returns at once; the request is two rows, and a second one replaces it."""
    endpoint = await story.endpoint()
    recovery = Recovery(deployment)
    assert (await recovery.retry(ALL, endpoint)).state == "nothing_waiting"
    late, early = [await story.delivery(endpoint, f"e{n}", "retrying") for n in range(2)]
    await _due(connection, late, 100)
    await _due(connection, early, 50)
    for _ in range(2):
        answer = await recovery.retry(ALL, endpoint)
        assert (answer.state, answer.delivery_id, answer.waiting_count) == ("requested", early, 2)
    rows = await connection.fetch(
        "SELECT r.kind, q.kind FROM dispatcher.endpoint_request AS r"
        " JOIN dispatcher.delivery_request AS q USING (endpoint_no, delivery_id)"
    )
    assert [tuple(row) for row in rows] == [("retry", "resend")]
    with pytest.raises(NotFoundError):
        await recovery.retry(ACME, endpoint)
    with pytest.raises(ForbiddenError):
        await recovery.retry(Actor(name="v", role=Role.VIEWER), endpoint)
    await connection.execute(
        "UPDATE dispatcher.endpoint SET state = 'paused', paused_at = now() WHERE id = $1", endpoint
    )
    with pytest.raises(ConflictError, match="paused"):
        await recovery.retry(ALL, endpoint)


async def test_retry_shows_the_attempt_before_its_resend_is_settled(deployment, story, connection):
    """The owner may release the retry between the commit of the result and the end of the resend."""
    endpoint = await story.endpoint()
    await _due(connection, await story.delivery(endpoint, "e0", "retrying"), 50)
    await Leases(deployment.database).join("r1", "one", "1.0", 60.0)
    async with asyncio.TaskGroup() as group:
        retry = group.create_task(Recovery(deployment).retry(ALL, endpoint))
        await until(
            lambda: connection.fetchval("SELECT count(*) = 1 FROM dispatcher.endpoint_request"),
            seconds=10,
            what="the request",
        )
        async with connection.transaction():
            await connection.execute(
                """WITH ended AS (DELETE FROM dispatcher.delivery_open RETURNING *), done AS (
                     INSERT INTO dispatcher.delivery_done
                       (id, day, event_id, endpoint_no, event_type_code, state, attempt_count, schedule_position)
                     SELECT id, day, event_id, endpoint_no, event_type_code, 3, attempt_count + 1, schedule_position
                     FROM ended)
                   INSERT INTO dispatcher.attempt
                     (day, event_id, endpoint_no, delivery_id, attempt_number, trigger, outcome, attempted_at,
                      latency_seconds, reused, revision, response_code)
                   SELECT day, event_id, endpoint_no, id, attempt_count + 1, 2, 1, now(), 0.1, false, 1, 200
                   FROM ended"""
            )
            await connection.execute("DELETE FROM dispatcher.endpoint_request")
    answer = retry.result()
    assert (answer.state, answer.attempt and answer.attempt.outcome) == ("released", "ok")
