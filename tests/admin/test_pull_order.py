"""Pulled deliveries with an order, in the health of their endpoint, and results that are not the receiver's to give."""

import asyncio

import asyncpg
import pytest

from dispatcher.admin.resources.pull import BATCH_MAX
from dispatcher.runtime import probe
from tests.admin.serving import Api
from tests.support.pulled import Pulled, done, pulled_endpoint

pytestmark = pytest.mark.postgres


@pytest.fixture
async def ordered(api: Api, connection: asyncpg.Connection) -> Pulled:
    return await pulled_endpoint(api, connection, ordering="key")


async def _ids(pulled: Pulled, query: str = "limit=100") -> list[str]:
    return [item["delivery_id"] for item in await pulled.poll(query)]


async def test_a_line_is_leased_one_at_a_time_across_retries(ordered: Pulled) -> None:
    a1, a2, a3 = await ordered.add(3, key="a")
    (b1,) = await ordered.add(key="b")
    (free,) = await ordered.add()
    items = {item["delivery_id"]: item for item in await ordered.poll("limit=100")}
    assert set(items) == {a1, b1, free}
    assert await _ids(ordered) == []
    assert await ordered.settle(done(items[a1], 503)) == ["recorded"]
    assert await _ids(ordered) == [], (
        "the retry of the first is due later, and the others wait for it"
    )
    await ordered.make_due()
    (again,) = await ordered.poll("limit=100")
    assert again["delivery_id"] == a1
    await ordered.end_leases()
    assert (await ordered.shown(a1))["state"] == "failed", "an expired lease is a failed attempt"
    for expected in (a2, a3):
        (item,) = await ordered.poll("limit=100")
        assert item["delivery_id"] == expected
        assert await ordered.settle(done(item)) == ["recorded"]
    assert await _ids(ordered) == []


async def test_concurrent_polls_never_lease_two_of_a_line(ordered: Pulled) -> None:
    expected = {key: await ordered.add(6, key=key) for key in "abcdefgh"}
    seen: dict[str, list[str]] = {key: [] for key in expected}
    key_of = {one: key for key, ids in expected.items() for one in ids}
    out: set[str] = set()

    async def client() -> None:
        while sum(map(len, seen.values())) < len(key_of):
            for item in await ordered.poll("limit=3&wait_seconds=1"):
                key = key_of[item["delivery_id"]]
                assert key not in out, "another delivery of the line is leased"
                out.add(key)
                seen[key].append(item["delivery_id"])
                await asyncio.sleep(0)
                out.discard(key)
                assert await ordered.settle(done(item)) == ["recorded"]

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for _ in range(6):
            tasks.create_task(client())
    assert seen == expected


async def test_a_delivery_waits_for_an_earlier_event_in_the_outbox(ordered: Pulled) -> None:
    (late,) = await ordered.add(key="a")
    position = await ordered.sql.fetchval(
        "INSERT INTO dispatcher.outbox (type, tenant, data, ordering_key)"
        " VALUES ('order.created', 'acme', '{}', 'a') RETURNING position"
    )
    await ordered.place(late, "a", position + 1)
    assert await _ids(ordered) == []
    await ordered.sql.execute("UPDATE dispatcher.outbox SET ordering_key = 'b'")
    assert await _ids(ordered) == [late]


async def test_shelved_deliveries_are_found_after_a_lost_wake_up(ordered: Pulled) -> None:
    first, second = await ordered.add(2, key="a")
    assert await _ids(ordered) == [first]
    # The process that recorded the first one died before it woke the line.
    await ordered.sql.execute("DELETE FROM dispatcher.pull_lease")
    await ordered.sql.execute(
        "DELETE FROM dispatcher.delivery_open WHERE next_attempt_at < '9999-01-01'"
    )
    assert await ordered.sql.fetchval("SELECT count(*) FROM dispatcher.delivery_open") == 1
    assert await _ids(ordered) == [second]


async def test_a_resend_behind_others_waits_for_its_turn(ordered: Pulled) -> None:
    first, second = await ordered.add(2, key="a")
    assert (await ordered.api.ask("POST", f"/deliveries/{second}/resend")).status == 202
    (item,) = await ordered.poll("limit=100")
    assert item["delivery_id"] == first
    await ordered.settle(done(item))
    (item,) = await ordered.poll("limit=100")
    assert item["delivery_id"] == second
    await ordered.settle(done(item))
    # One that has ended is returned at once, in no order.
    (third,) = await ordered.add(key="a")
    assert (await ordered.api.ask("POST", f"/deliveries/{first}/resend")).status == 202
    assert set(await _ids(ordered)) == {first, third}


async def test_skip_after_attempts_lets_a_pulled_line_go_on(
    api: Api, connection: asyncpg.Connection
) -> None:
    pulled = await pulled_endpoint(api, connection, ordering="key", skip_after_attempts=1)
    first, second = await pulled.add(2, key="a")
    (item,) = await pulled.poll("limit=100")
    await pulled.settle(done(item, 500))
    shown = await pulled.shown(first)
    assert (shown["state"], shown["reason"]) == ("failed", "skipped")
    assert await _ids(pulled) == [second]


async def test_the_end_of_a_line_wakes_a_waiting_poll(ordered: Pulled) -> None:
    await ordered.add(2, key="a")
    (item,) = await ordered.poll("limit=100")
    with probe.listen() as heard:
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(ordered.poll("wait_seconds=30"))
            await heard.wait("pull.claimed")
            await ordered.settle(done(item))
            ordered.api.operations.pull.wake("")  # as the notification of the commit does
    assert len(waiting.result()) == 1


async def test_many_behind_one_line_are_read_once(ordered: Pulled) -> None:
    made = await ordered.add(450, key="a")
    (other,) = await ordered.add(key="b")
    assert set(await _ids(ordered)) == {made[0], other}
    shelved = "SELECT count(*) FROM dispatcher.delivery_open WHERE next_attempt_at >= '9999-01-01'"
    assert await ordered.sql.fetchval(shelved) == 449


async def test_pulled_failures_count_in_the_health_of_the_endpoint(pulled: Pulled) -> None:
    await pulled.add(3)
    items = await pulled.poll()
    await pulled.settle(done(items[0], 500), done(items[1], 503))
    await pulled.end_leases()  # of the third
    health = "SELECT failed_attempts FROM dispatcher.endpoint_health WHERE endpoint_id = $1"
    recent = (
        "SELECT sum(ok_count), sum(failed_count) FROM dispatcher.endpoint_recent"
        " WHERE endpoint_id = $1"
    )
    assert await pulled.sql.fetchval(health, pulled.id) == 3
    assert tuple(await pulled.sql.fetchrow(recent, pulled.id) or ()) == (0, 3)
    (item, *_) = await pulled.poll()
    await pulled.settle(done(item))
    assert await pulled.sql.fetchval(health, pulled.id) is None
    assert tuple(await pulled.sql.fetchrow(recent, pulled.id) or ()) == (1, 3)


async def test_gone_disables_a_pulled_endpoint(pulled: Pulled) -> None:
    await pulled.add()
    (item,) = await pulled.poll()
    await pulled.settle(done(item, 410))
    shown = (await pulled.api.ask("GET", f"/endpoints/{pulled.id}")).json
    assert (shown["state"], shown["reason"]) == ("disabled", "gone")


async def test_results_of_other_leases_change_nothing(
    pulled: Pulled, api: Api, connection: asyncpg.Connection
) -> None:
    (delivery,) = await pulled.add()
    (item,) = await pulled.poll()
    other = await pulled_endpoint(api, connection, name="other")
    assert await other.settle(done(item)) == ["expired"]
    assert await other.settle({"lease_id": "no-uuid", "response_code": 200}) == ["expired"]
    assert await pulled.settle(done(item), done(item, 500)) == ["recorded", "recorded"]
    shown = await pulled.shown(delivery)
    assert (shown["attempt_count"], shown["attempts"][0]["response_code"]) == (1, 500)
    many = [done(item)] * (BATCH_MAX + 1)
    assert (await api.ask("POST", pulled.path, {"results": many})).status == 422
    assert (await api.ask("POST", pulled.path, {"results": []})).status == 422


@pytest.fixture
async def pulled(api: Api, connection: asyncpg.Connection) -> Pulled:
    return await pulled_endpoint(api, connection)
