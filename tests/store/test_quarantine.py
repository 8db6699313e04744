"""Quarantined events are found by id, listed, explained and released."""

import pytest

from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.operations.events import Events
from dispatcher.admin.operations.explain import Explainer
from dispatcher.admin.resources.event import EventsQuery
from dispatcher.core.errors import ConflictError, ForbiddenError, NotFoundError
from dispatcher.store.outbox import Outbox

pytestmark = pytest.mark.postgres

QUARANTINED = EventsQuery(quarantined=True)

ALL = Actor(name="tester")


async def quarantine(
    deployment: Deployment, event_id: str = "own-1", tenant: str = "default"
) -> None:
    await deployment.database.execute(
        "INSERT INTO dispatcher.outbox (id, type, data, tenant) VALUES ($1, 'a.b', '{}', $2)",
        event_id,
        tenant,
    )
    assert await Outbox(deployment.database).quarantine(event_id)


async def test_quarantined_event_is_found_listed_and_explained(deployment):
    await quarantine(deployment)
    events = Events(deployment)
    assert (await events.show(ALL, "own-1")).quarantined_at is not None
    listed = await events.page(ALL, QUARANTINED)
    assert [item.id for item in listed.items] == ["own-1"]
    assert [item.id for item in (await events.page(ALL)).items] == ["own-1"]
    explained = await Explainer(deployment).explain(ALL, "own-1")
    assert "dispatcher event release own-1" in explained.summary


async def test_quarantined_events_are_paged(deployment):
    for number in range(3):
        await quarantine(deployment, f"own-{number}")
    events = Events(deployment)
    first = await events.page(ALL, EventsQuery(quarantined=True, limit=2))
    second = await events.page(
        ALL, EventsQuery(quarantined=True, limit=2, cursor=first.next_cursor)
    )
    ids = [item.id for page in (first, second) for item in page.items]
    assert sorted(ids) == ["own-0", "own-1", "own-2"]
    assert second.next_cursor is None


async def test_released_event_waits_again(deployment):
    await quarantine(deployment)
    released = await Events(deployment).release(ALL, "own-1")
    assert released.quarantined_at is None
    async with Outbox(deployment.database).claim(10, 1_000_000) as claim:
        assert [event.id for event in claim.events] == ["own-1"]
    audited = await deployment.database.fetch_value(
        "SELECT count(*) FROM dispatcher.audit WHERE action = 'event.release' AND object = 'own-1'"
    )
    assert audited == 1


async def test_release_is_refused_where_nothing_is_quarantined(deployment):
    await quarantine(deployment, tenant="acme")
    events = Events(deployment)
    with pytest.raises(NotFoundError):
        await events.release(Actor(name="other", tenant="other"), "own-1")
    with pytest.raises(NotFoundError):
        await events.release(ALL, "none-such")
    with pytest.raises(ForbiddenError):
        await events.release(Actor(name="viewer", role=Role.VIEWER), "own-1")
    await events.release(ALL, "own-1")
    with pytest.raises(ConflictError):
        await events.release(ALL, "own-1")


async def test_released_event_whose_id_is_taken_gets_a_new_one(deployment):
    outbox = Outbox(deployment.database)
    insert = "INSERT INTO dispatcher.outbox (type, data) VALUES ('a.b', '{}') RETURNING id"
    taken = await deployment.database.fetch_value(insert)
    async with outbox.claim(10, 1_000_000) as claim:
        assert len(claim.events) == 1
    await deployment.database.execute("ALTER SEQUENCE dispatcher.event_number RESTART WITH 1")
    assert await deployment.database.fetch_value(insert) == taken
    assert await outbox.quarantine(taken)
    released = await Events(deployment).release(ALL, taken)
    assert released.id != taken
    assert released.accepted_at is None
