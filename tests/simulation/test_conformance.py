"""The database in memory and Postgres give the same answers to all that the stages ask, test by test.

Without this the simulation would prove something about itself. What differs is not tested here because the
stages never see it: ids of rows, texts of errors, plans and locks.
"""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from dispatcher.core.model import DeliveryId, EndpointId
from dispatcher.core.order import STRICT_KEY, Place, order_key
from dispatcher.delivery import ports
from dispatcher.runtime.clock import SystemClock
from dispatcher.store.claims import BodyRow, CancelledRow, DeliveryRow
from dispatcher.store.deliveries import Deliveries
from dispatcher.store.delivery_ids import uuid_of
from dispatcher.store.delivery_requests import DeliveryRequests
from dispatcher.store.leases import Leases
from dispatcher.store.outbox import Outbox
from dispatcher.store.pool import Database
from dispatcher.store.results import MoveRow, Recorded, Results
from dispatcher.store.routing import EndpointRow, Endpoints
from dispatcher.store.statements import statement
from tests.simulation import stores
from tests.simulation.database import MemoryDatabase, as_event
from tests.support.words import attempt_row, wh

EP, SHARD = EndpointId("ep"), 5
ALL_MOVED = Recorded(frozenset(), frozenset())


def _seconds() -> float:
    return SystemClock.now().timestamp()


class Memory:
    """The tables in memory, without distance."""

    def __init__(self) -> None:
        self.tables = MemoryDatabase(_seconds)
        reach = stores.Direct(self.tables)
        self.outbox: ports.OutboxStore = stores.MemoryOutbox(reach)
        self.deliveries: ports.DeliveryStore = stores.MemoryDeliveries(reach)
        self.requests: ports.RequestStore = stores.MemoryRequests(reach)
        self.results: ports.ResultStore = stores.MemoryResults(reach)
        self.routing: ports.EndpointStore = stores.MemoryRouting(reach)
        self.leases: ports.LeaseStore = stores.MemoryLeases(reach)

    async def insert(self, event_id: str, ordering_key: str | None = None) -> None:
        self.tables.insert(
            as_event(event_id, _seconds(), event_type="a.b", ordering_key=ordering_key)
        )

    async def save_endpoint(self) -> None:
        self.tables.save_endpoint(
            EndpointRow(
                EP, 1, 1, "default", "ep", "https://x.test/", "wms", ["*"], {}, {}, None, None, None, None,
                None, "active", None, None, "push", [], [], [], None, None, None, None, "wms", SHARD, [],
            )
        )  # fmt: skip

    async def end_lease(self, incarnation: str) -> None:
        self.tables.replicas[incarnation].expires_at = _seconds() - 1

    async def cancel(self, delivery_id: DeliveryId) -> None:
        self.tables.cancel(delivery_id)

    async def resend(self, delivery_id: DeliveryId) -> None:
        self.tables.resend(delivery_id)

    async def close(self) -> None:
        """Has nothing open."""


class Real:
    """The store on Postgres."""

    def __init__(self, database: Database, sql: asyncpg.Connection) -> None:
        self._database = database
        self._sql = sql
        self.outbox: ports.OutboxStore = Outbox(database)
        self.deliveries: ports.DeliveryStore = Deliveries(database)
        self.requests: ports.RequestStore = DeliveryRequests(database)
        self.results: ports.ResultStore = Results(database)
        self.routing: ports.EndpointStore = Endpoints(database)
        self.leases: ports.LeaseStore = Leases(database, frozenset({"k1"}))

    async def insert(self, event_id: str, ordering_key: str | None = None) -> None:
        await self._sql.execute(
            "INSERT INTO dispatcher.outbox (type, data, id, ordering_key) VALUES ('a.b', '{}', $1, $2)",
            event_id,
            ordering_key,
        )

    async def save_endpoint(self) -> None:
        await self._sql.execute(
            "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)"
            " VALUES ($1, 'default', 'ep', 'https://x.test/', 'wms', '{*}', $2)",
            EP,
            SHARD,
        )

    async def end_lease(self, incarnation: str) -> None:
        await self._sql.execute(
            "UPDATE dispatcher.replica SET expires_at = clock_timestamp() - interval '1 s'"
            " WHERE incarnation = $1",
            incarnation,
        )

    async def cancel(self, delivery_id: DeliveryId) -> None:
        await self._sql.fetchval(statement("delivery_cancel"), uuid_of(delivery_id), "test")

    async def resend(self, delivery_id: DeliveryId) -> None:
        row = await self._sql.fetchrow(
            "SELECT day, event_id FROM dispatcher.delivery WHERE id = $1", delivery_id
        )
        assert row is not None
        await self._sql.fetchval(
            statement("delivery_resend"),
            uuid_of(delivery_id),
            row["day"],
            EP,
            "test",
            row["event_id"],
        )

    async def close(self) -> None:
        await self._sql.close()
        await self._database.close()


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Memory | Real]:
    made: Memory | Real
    if request.param == "memory":
        made = Memory()
    else:
        url = request.getfixturevalue("database")
        database = Database(url, connections_max=3)
        await database.open()
        made = Real(database, await asyncpg.connect(url))
    await made.save_endpoint()
    yield made
    await made.close()


def _id(event_id: str) -> DeliveryId:
    """Returns the id of an event's delivery; that of `e2` sorts after that of `e1`."""
    return wh(ord(event_id[-1]), event_id=event_id, endpoint_id=EP)


async def _fan_out(store: Memory | Real, *ids: str, key: int | None = None) -> None:
    """Takes events through; each becomes one delivery, with a `key` in that line."""
    for event_id in ids:
        await store.insert(event_id)
    async with store.outbox.claim(100, 1_000_000) as claim:
        await claim.write(
            [BodyRow(claim.day, event.id, "wms", b"{}") for event in claim.events],
            [
                DeliveryRow(
                    _id(event.id), claim.day, event.id, EP, 1, "a.b", "default", "wms", None,
                    None if key is None else Place(key, event.position or 0),
                )
                for event in claim.events
            ],
            [],
        )  # fmt: skip


async def _take(store: Memory | Real, incarnation: str = "me") -> int:
    """Takes every shard; returns the token of the one that matters."""
    await store.leases.join(incarnation, "name", "1", 60.0)
    taken: dict[int, int] = await store.leases.take(incarnation, 64)
    return taken[SHARD]


async def _record(
    store: Memory | Real,
    token: int,
    name: str,
    number: int,
    state: str,
    *,
    due: float | None = None,
    outcome: str = "http_error",
    trigger: str = "scheduled",
) -> Recorded:
    delivery_id = _id(name)
    reason = "schedule_spent" if state == "failed" else None
    today = SystemClock.now().date()
    attempt = attempt_row(
        today,
        delivery_id,
        name,
        attempt_number=number,
        trigger=trigger,
        outcome=outcome,
        response_code=200 if outcome == "ok" else 500,
    )
    position = number if trigger == "scheduled" else number - 1
    move = MoveRow(SHARD, delivery_id, number, state, reason, position, due)
    recorded: Recorded = await store.results.record([move], [attempt], {SHARD: token})
    return recorded


async def test_a_claim_takes_the_oldest_and_holds_them(store):
    for name in ("e1", "e2", "e3"):
        await store.insert(name)
    assert (await store.outbox.poll()).outbox_waiting
    async with store.outbox.claim(2, 1_000_000) as first:
        assert [event.id for event in first.events] == ["e1", "e2"]
        async with store.outbox.claim(10, 1_000_000) as second:
            assert [event.id for event in second.events] == ["e3"]
            await second.write([], [], [])
        await first.write([], [], [])
    async with store.outbox.claim(10, 1_000_000) as third:
        assert third.events == []
    assert not (await store.outbox.poll()).outbox_waiting


async def test_a_claim_that_fails_leaves_its_events(store):
    await store.insert("e1")
    with pytest.raises(RuntimeError):
        async with store.outbox.claim(10, 1_000_000):
            raise RuntimeError
    assert await store.outbox.oldest() == "e1"
    async with store.outbox.claim(10, 1_000_000, "e1") as claim:
        assert [event.id for event in claim.events] == ["e1"]
        await claim.write([], [], [])
    assert await store.outbox.oldest() is None


async def test_a_claim_is_bounded_in_bytes_and_takes_one_whatever_its_size(store):
    for name in ("e1", "e2", "e3"):
        await store.insert(name)
    async with store.outbox.claim(10, 3) as claim:
        assert [event.id for event in claim.events] == ["e1", "e2"]
        await claim.write([], [], [])


async def test_an_event_set_aside_waits_no_longer(store):
    await store.insert("e1")
    assert await store.outbox.quarantine("e1")
    assert not await store.outbox.quarantine("e1")
    assert await store.outbox.oldest() is None


async def test_the_routing_version_moves_with_an_endpoint_and_a_claim_reads_it(store):
    version, started_at, endpoint_ids = await store.routing.changes(None)
    assert endpoint_ids == [EP]
    assert [row.id for row in await store.routing.load(["none", EP])] == [EP]
    assert await store.routing.changes(version) == (version, started_at, [])
    assert (await store.outbox.poll()).routing_version == version
    await store.insert("e1")
    async with store.outbox.claim(10, 1_000_000) as claim:
        assert claim.routing_version == version
        await claim.write([], [], [])
    assert await store.routing.disable(EP, "gone", raises_event=False)
    assert not await store.routing.disable(EP, "gone", raises_event=False)
    changed_version, _, changed_ids = await store.routing.changes(version)
    assert (await store.outbox.poll()).routing_version == changed_version > version
    assert changed_ids == [EP]


async def test_a_new_delivery_is_due_at_once_and_loads_with_its_body(store):
    await _fan_out(store, "e1", "e2")
    window = await store.deliveries.window([EP], 10, 60.0)
    assert [row.id for row in window] == [_id("e1"), _id("e2")]
    assert all(row.due_in_seconds <= 0 for row in window)
    assert [row.id for row in await store.deliveries.arrivals([EP], 10, 30.0)] == [
        _id("e1"),
        _id("e2"),
    ]
    assert [row.id for row in await store.deliveries.window([EP], 1, 60.0)] == [_id("e1")]
    (row,) = await store.deliveries.load([_id("e2"), _id("none")])
    assert (row.body, row.state, row.attempt_count, row.event_id) == (b"{}", "pending", 0, "e2")


async def test_place_in_a_line_names_its_neighbours(store):
    await _fan_out(store, "e1", "e2", key=7)
    await _fan_out(store, "e3")
    await _fan_out(store, "e4", key=7)
    ids = [_id(f"e{number}") for number in (1, 2, 3, 4)]
    rows = {row.id: row for row in await store.deliveries.place([*ids, _id("e5")])}
    assert [(rows[i].previous_id, rows[i].next_id) for i in ids] == [
        (None, ids[1]),
        (ids[0], ids[3]),
        (None, None),
        (ids[1], None),
    ]
    assert len(rows) == 4
    assert (rows[ids[0]].place.key, rows[ids[2]].place) == (7, None)
    assert not any(row.is_held for row in rows.values())


@pytest.mark.parametrize(
    ("waiting_key", "key", "is_held"),
    [("a", order_key("a"), True), ("b", order_key("a"), False), (None, STRICT_KEY, True)],
)
async def test_earlier_event_in_the_outbox_holds_its_line(store, waiting_key, key, is_held):
    await store.insert("e1", waiting_key)
    async with store.outbox.claim(1, 1_000_000) as earlier:  # not committed yet
        await _fan_out(store, "e2", key=key)
        await store.insert("e3", waiting_key)  # a later one holds nothing
        (row,) = await store.deliveries.place([_id("e2")])
        assert row.is_held is is_held
        await earlier.write([], [], [])
    (row,) = await store.deliveries.place([_id("e2")])
    assert not row.is_held


async def test_set_aside_ones_return_with_their_line(store):
    token = await _take(store)
    await _fan_out(store, "e1", "e2", "e3", key=7)
    await store.deliveries.shelve([_id("e2"), _id("e3")])
    assert [row.id for row in await store.deliveries.window([EP], 10, 600.0)] == [_id("e1")]
    assert (await store.deliveries.sweep(1, -(2**63), 10)).woken_count == 0
    assert [row.id for row in await store.deliveries.wake(1, [7, 8], 1)] == [_id("e1")]
    await _record(store, token, "e1", 1, "succeeded", outcome="ok")
    (row,) = await store.deliveries.wake(1, [7], 1)
    assert (row.id, row.due_in_seconds <= 0) == (_id("e2"), True)
    assert [row.id for row in await store.deliveries.window([EP], 10, 600.0)] == [_id("e2")]


async def test_sweep_finds_set_aside_firsts_slice_by_slice(store):
    token = await _take(store)
    for number, key in ((1, 5), (2, 5), (3, 6), (4, 9), (5, 9)):
        await _fan_out(store, f"e{number}", key=key)
    await store.deliveries.shelve([_id("e2"), _id("e5")])
    await _record(store, token, "e1", 1, "succeeded", outcome="ok")
    await store.cancel(_id("e4"))
    first = await store.deliveries.sweep(1, -(2**63), 2)
    assert first == (6, 1)
    assert await store.deliveries.sweep(1, first.last_key, 2) == (None, 1)
    window = await store.deliveries.window([EP], 10, 600.0)
    assert {row.id for row in window} == {_id("e2"), _id("e3"), _id("e5")}


async def test_a_retry_moves_its_due_time_and_a_success_ends_it(store):
    token = await _take(store)
    await _fan_out(store, "e1")
    assert await _record(store, token, "e1", 1, "retrying", due=30.0) == ALL_MOVED
    (row,) = await store.deliveries.window([EP], 10, 60.0)
    assert 28.0 < row.due_in_seconds <= 30.0
    assert await store.deliveries.window([EP], 10, 10.0) == []
    assert await store.deliveries.arrivals([EP], 10, 30.0) == []
    assert await _record(store, token, "e1", 2, "succeeded", outcome="ok") == ALL_MOVED
    assert await store.deliveries.load([_id("e1")]) == []


async def test_a_batch_sent_again_changes_nothing(store):
    token = await _take(store)
    await _fan_out(store, "e1")
    await _record(store, token, "e1", 1, "retrying", due=30.0)
    again = await _record(store, token, "e1", 1, "retrying", due=60.0)
    assert again.fenced == frozenset()
    (row,) = await store.deliveries.window([EP], 10, 40.0)
    assert row.due_in_seconds <= 30.0
    await _record(store, token, "e1", 2, "failed")
    assert (await _record(store, token, "e1", 2, "failed")).late == {_id("e1")}


async def test_a_result_under_an_old_token_is_fenced(store):
    token = await _take(store)
    await _fan_out(store, "e1")
    await store.end_lease("me")
    newer = await _take(store, "other")
    assert newer > token
    assert (await _record(store, token, "e1", 1, "succeeded", outcome="ok")).fenced == {_id("e1")}
    assert [row.id for row in await store.deliveries.load([_id("e1")])] == [_id("e1")]
    assert not (await _record(store, newer, "e1", 1, "succeeded", outcome="ok")).fenced


async def test_an_attempt_on_a_cancelled_delivery_is_late_and_its_success_counts(store):
    token = await _take(store)
    await _fan_out(store, "e1")
    await store.cancel(_id("e1"))
    (request,) = await store.requests.of_deliveries([SHARD], 10, [])
    assert (request.kind, request.id) == ("cancel", _id("e1"))
    await store.requests.forget([(_id("e1"), "cancel")])
    assert await store.requests.of_deliveries([SHARD], 10, []) == []
    assert (await _record(store, token, "e1", 1, "succeeded", outcome="ok")).late == {_id("e1")}
    await store.resend(_id("e1"))
    (request,) = await store.requests.of_deliveries([SHARD], 10, [])
    assert (request.state, request.reason, request.attempt_count) == ("succeeded", None, 1)


async def test_a_resend_waits_until_an_attempt_after_it_settles_it(store):
    token = await _take(store)
    await _fan_out(store, "e1")
    delivery_id = _id("e1")
    before = SystemClock.now()
    await asyncio.sleep(0.002)
    await store.resend(delivery_id)
    assert (await store.outbox.poll()).requests_waiting
    assert await store.requests.of_deliveries([SHARD], 10, [delivery_id]) == []
    assert await store.requests.of_deliveries([SHARD + 1], 10, []) == []
    (request,) = await store.requests.of_deliveries([SHARD], 10, [])
    assert (request.kind, request.body, request.answered) == ("resend", b"{}", False)
    await store.results.settle_requests([(delivery_id, before, False)])
    assert await store.requests.of_deliveries([SHARD], 10, []) != []
    await store.results.settle_requests([(delivery_id, before, True)])
    assert await store.requests.of_deliveries([SHARD], 10, []) == []
    # A resend that fails leaves the place in the schedule and the due time.
    await _record(store, token, "e1", 1, "pending", trigger="manual")
    (row,) = await store.deliveries.load([delivery_id])
    assert (row.state, row.attempt_count, row.schedule_position) == ("pending", 1, 0)


@pytest.mark.parametrize(("outcome", "answered"), [("ok", True), ("http_error", False)])
async def test_scheduled_success_after_a_resend_request_settles_it(store, outcome, answered):
    """Else a person who asked a moment before the schedule's own success would see one attempt too many."""
    token = await _take(store)
    await _fan_out(store, "e1")
    await store.resend(_id("e1"))
    state = "succeeded" if answered else "retrying"
    await _record(store, token, "e1", 1, state, outcome=outcome)
    (request,) = await store.requests.of_deliveries([SHARD], 10, [])
    assert request.answered is answered


async def test_leases_are_joined_renewed_taken_released_and_buried(store):
    number = await store.leases.join("a", "name", "1", 60.0)
    assert await store.leases.join("b", "name", "1", 60.0) == number + 1
    assert await store.leases.join("a", "name", "1", 60.0) == number, "its response was lost"
    assert len(await store.leases.take("a", 40)) == 40
    assert len(await store.leases.take("b", 64)) == 24
    renewal = await store.leases.renew("a", 60.0)
    assert (renewal.others_count, len(renewal.tokens), renewal.free_count) == (1, 40, 0)
    await store.leases.release("a", list(renewal.tokens)[:10])
    await store.leases.release("b", list(renewal.tokens)[10:20])  # not b's to give back
    assert (await store.leases.renew("a", 60.0)).free_count == 10
    ((namesake, renewed_at),) = await store.leases.namesakes("name", "b")
    assert namesake == "a"
    await store.leases.renew("a", 60.0)
    assert not await store.leases.expire("a", renewed_at)
    ((_, renewed_at),) = await store.leases.namesakes("name", "b")
    assert await store.leases.expire("a", renewed_at)
    assert await store.leases.renew("a", 60.0) is None
    await store.leases.leave("b")
    assert await store.leases.renew("b", 60.0) is None


async def test_lease_that_ended_untaken_is_renewed_with_its_tokens(store):
    token = await _take(store)
    await store.end_lease("me")
    assert (await store.leases.renew("me", 60.0)).tokens[SHARD] == token


async def test_failures_are_counted_and_forgotten(store):
    at = SystemClock.now()
    await store.routing.count_failures([(EP, at, 2, True)])
    (health,) = await store.routing.count_failures([(EP, at, 3, True)])
    assert (health.endpoint_id, health.failed_attempts) == (EP, 5)
    await store.routing.clear_failures([EP])
    (health,) = await store.routing.count_failures([(EP, at, 1, True)])
    assert health.failed_attempts == 1


async def test_what_will_not_be_sent_is_ended_from_the_start(store):
    await store.insert("e1")
    async with store.outbox.claim(10, 1_000_000) as claim:
        ended = CancelledRow(
            _id("e1"),
            claim.events[0].id,
            EP,
            1,
            "a.b",
            "default",
            "wms",
            "endpoint_disabled",
        )
        await claim.write([BodyRow(claim.day, claim.events[0].id, "wms", b"{}")], [], [ended])
    assert await store.deliveries.load([_id("e1")]) == []
    await store.resend(_id("e1"))
    (request,) = await store.requests.of_deliveries([SHARD], 10, [])
    assert (request.state, request.reason) == ("cancelled", "endpoint_disabled")
