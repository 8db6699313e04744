"""Results on their way to Postgres: committed before anything learns of them, kept through outages, in order."""

import asyncio
from typing import Any

import pytest

from dispatcher.core.model import DeliveryId, DeliveryState, Outcome, Reason, Trigger
from dispatcher.delivery.endpoint_health import EndpointHealth
from dispatcher.delivery.inventory import Inventory
from dispatcher.delivery.load_queue import LoadQueue
from dispatcher.delivery.recorder import BATCHES_AT_ONCE, Recorder, rows_worth_a_commit
from dispatcher.delivery.retry_timer import RetryTimer
from dispatcher.delivery.types import ABSENT, READY, Delivery, Entry
from dispatcher.runtime import probe
from dispatcher.store.routing import Health
from tests.support.clock import ManualClock
from tests.support.deliveries import make_delivery, make_endpoint, make_lane, make_result
from tests.support.stores import FakeDeliveries, FakeEndpoints


class Made:
    """A recorder on a fake store; `told` is what memory learnt, in order."""

    def __init__(
        self,
        *,
        batch_rows_max: int = 100,
        unrecorded_max: int = 1_000,
        flush_seconds: float = 0.001,
    ) -> None:
        self.store = FakeDeliveries(ManualClock())
        self.endpoints = FakeEndpoints()
        self.told: list[str] = []
        self.fenced: list[str] = []
        self.lane = make_lane()
        self.inventory = Inventory(ManualClock())
        queue = LoadQueue()
        reporting: Any = self
        self.tokens: dict[int, int] = {}
        self.recorder = Recorder(
            self.store,
            EndpointHealth(self.endpoints, self, failing_seconds_max=100.0, failed_attempts_min=3),
            self.inventory,
            RetryTimer(
                self.inventory, queue, clock=ManualClock(), horizon_seconds=60.0, timers_max=9
            ),
            queue,
            reporting,
            clock=ManualClock(),
            batch_rows_max=batch_rows_max,
            unrecorded_max=unrecorded_max,
            flush_seconds=flush_seconds,
        )

    def flushed(self, rows_count: int, seconds: float) -> None:
        """Stands for reporting."""

    def recorded(self, results: Any, fenced: Any) -> None:
        committed = {name for batch in self.store.batches for name in batch}
        for result in results:
            assert result.delivery.id in committed or result.delivery.id in fenced
            assert result.entry.phase == ABSENT
        self.told += [result.delivery.id for result in results]
        self.fenced += fenced

    def add(self, *names: str, **how: Any) -> None:
        for name in names:
            self.add_result(
                make_delivery(name, trigger=how.pop("trigger", Trigger.SCHEDULED)), **how
            )

    def start(self, name: str) -> Entry:
        """Sends a delivery whose result does not come."""
        delivery = make_delivery(name)
        entry = self.inventory.add(self.lane, delivery.id, READY, delivery)
        self.inventory.start(entry)
        return entry

    def add_result(self, delivery: Delivery, **how: Any) -> None:
        entry = self.inventory.add(self.lane, delivery.id, READY, delivery)
        self.inventory.start(entry)
        self.recorder.add(make_result(delivery, entry=entry, **how))

    async def run(self) -> None:
        """Records what was added, as at the end of a drain."""
        self.recorder.stop()
        async with asyncio.timeout(10):
            await self.recorder.run()


async def test_batches_keep_the_order_and_their_bound():
    made = Made(batch_rows_max=1)
    names = [f"wh{n}" for n in range(3 * BATCHES_AT_ONCE + 1)]
    made.add(*names)
    await made.run()
    assert [len(batch) for batch in made.store.batches] == [BATCHES_AT_ONCE] * 3 + [1]
    assert [name for batch in made.store.batches for name in batch] == names
    assert made.told == names
    assert made.recorder.empty.is_set()


async def test_an_outage_keeps_the_batch_and_sends_the_same_again():
    made = Made()
    made.store.outages = 3
    made.add("wh1", "wh2")
    await made.run()
    assert made.store.batches == [["wh1", "wh2"]]
    assert made.told == ["wh1", "wh2"]


async def test_refused_row_is_found_and_recorded_without_the_response():
    made = Made()
    made.store.poison = "wh5"
    names = [f"wh{n}" for n in range(9)]
    made.add(*names)
    await made.run()
    assert [name for batch in made.store.batches for name in batch] == names
    assert made.store.poison_errors == ["the receiver's response cannot be stored: ValueError"]
    assert made.told == names
    assert made.fenced == []


async def test_a_row_that_is_refused_in_every_form_stops_nobody_else():
    made = Made()
    made.store.poison = "wh5"
    made.store.refuse_all = True
    names = [f"wh{n}" for n in range(9)]
    made.add(*names)
    await made.run()
    assert [name for batch in made.store.batches for name in batch] == [
        n for n in names if n != "wh5"
    ]
    assert made.told == [n for n in names if n != "wh5"]
    assert made.fenced == [], "it would be loaded and sent again at once"


async def test_nothing_in_memory_learns_of_a_result_before_it_is_committed():
    made = Made()
    made.store.gate.clear()
    task = asyncio.get_running_loop().create_task(made.recorder.run())
    made.add("wh1")
    made.recorder.stop()
    await asyncio.sleep(0)
    assert made.told == []
    assert len(made.recorder) == 1
    assert not made.recorder.empty.is_set()
    made.store.gate.set()
    async with asyncio.timeout(5):
        await task
    assert made.told == ["wh1"]


async def test_recorder_full_counts_in_flight_and_permits_no_attempt():
    made = Made(unrecorded_max=3)
    made.store.gate.clear()
    made.add("wh1", "wh2", "wh3")
    task = asyncio.get_running_loop().create_task(made.recorder.run())
    assert not made.recorder.has_room()
    made.add("wh4")
    with probe.listen() as heard:
        made.store.gate.set()
        await heard.wait("recorder.flushed")
    made.recorder.stop()
    async with asyncio.timeout(5):
        await task
    assert made.recorder.has_room()
    assert made.told == ["wh1", "wh2", "wh3", "wh4"]


async def test_the_first_batch_is_the_bound_less_what_is_in_flight():
    made = Made(unrecorded_max=40, flush_seconds=60.0)
    in_flight = [made.start(f"flying{number}") for number in range(12)]
    task = asyncio.get_running_loop().create_task(made.recorder.run())
    made.add(*(f"wh{number}" for number in range(27)))
    for _ in range(20):  # turns of the loop, in which a flush would begin
        await asyncio.sleep(0)
    assert made.store.batches == []
    with probe.listen() as heard:
        made.add("wh27")
        await heard.wait("recorder.flushed")
    assert [len(batch) for batch in made.store.batches] == [40 - len(in_flight)]
    made.recorder.stop()
    async with asyncio.timeout(5):
        await task


@pytest.mark.parametrize(
    ("during_commit", "rows"), [(0.0, 236.0), (40.0, 176.0), (78.7, 118.0), (1_000.0, 118.0)]
)
def test_a_batch_leaves_room_for_what_is_sent_during_its_commit(during_commit, rows):
    assert rows_worth_a_commit(236, during_commit) == pytest.approx(rows, abs=0.1)


async def test_results_under_two_tokens_of_one_shard_are_recorded_apart():
    made = Made()
    made.add("old1", token=1)
    made.add("new1", token=2)
    made.add("old2", token=1)
    await made.run()
    assert made.store.batches == [["old1", "old2"], ["new1"]]
    assert made.store.tokens == [{1: 1}, {1: 2}]


async def test_fenced_results_are_passed_on_as_such_and_disable_nobody():
    made = Made()
    made.store.fenced = frozenset({DeliveryId("wh1")})
    made.add(
        "wh1",
        outcome=Outcome.GONE,
        state=DeliveryState.FAILED,
        reason=Reason.GONE,
        disables_endpoint=True,
    )
    await made.run()
    assert made.fenced == ["wh1"]
    assert made.endpoints.disabled == []


async def test_gone_disables_the_endpoint():
    made = Made()
    made.add(
        "wh1",
        outcome=Outcome.GONE,
        state=DeliveryState.FAILED,
        reason=Reason.GONE,
        disables_endpoint=True,
    )
    await made.run()
    assert made.endpoints.disabled == [("ep", Reason.GONE)]


@pytest.mark.parametrize(
    ("seconds", "count", "is_disabled"), [(100.0, 3, True), (99.0, 3, False), (100.0, 2, False)]
)
async def test_failing_too_long_and_too_often_disables(seconds, count, is_disabled):
    made = Made()
    made.endpoints.health = [Health("ep", seconds, count, 0)]  # type: ignore[arg-type]  # a NewType
    made.add("wh1", outcome=Outcome.TIMEOUT)
    await made.run()
    assert bool(made.endpoints.disabled) is is_disabled


@pytest.mark.parametrize(
    ("seconds", "count", "warned", "raised"),
    [
        (49.9, 9, 0, []),
        (50.0, 2, 0, ["failing 50"]),
        (69.0, 9, 50, []),
        (95.0, 9, 50, ["failing 90"]),
        (500.0, 2, 70, ["failing 90"]),
        (500.0, 3, 90, ["disabled"]),
    ],
)
async def test_each_threshold_of_the_time_of_failing_is_told_once(seconds, count, warned, raised):
    made = Made()
    made.endpoints.health = [Health("ep", seconds, count, warned)]  # type: ignore[arg-type]  # a NewType
    made.add("wh1", outcome=Outcome.TIMEOUT)
    await made.run()
    assert made.endpoints.raised == raised


@pytest.mark.parametrize(("seconds", "count"), [(95.0, 9), (500.0, 9)])
async def test_deliveries_of_operational_events_count_and_raise_none(seconds, count):
    made = Made()
    made.endpoints.health = [Health("ep", seconds, count, 0)]  # type: ignore[arg-type]  # a NewType
    delivery = make_delivery("wh1")._replace(event_type="dispatcher.endpoint.failing")
    made.add_result(delivery, outcome=Outcome.TIMEOUT)
    await made.run()
    assert len(made.endpoints.failures) == 1
    assert bool(made.endpoints.disabled) is (seconds >= 100.0)
    assert made.endpoints.raised == []


async def test_failures_are_counted_by_endpoint_and_a_success_clears_them():
    made = Made()
    one, two = make_endpoint("one"), make_endpoint("two")
    made.add("wh1", "wh2", outcome=Outcome.TIMEOUT, endpoint=one)
    made.add("wh3", outcome=Outcome.TIMEOUT, endpoint=two)
    await made.run()
    assert [(f[0], f[2]) for f in made.endpoints.failures] == [("one", 2), ("two", 1)]
    assert made.endpoints.cleared == []
    made.add("wh4", endpoint=one)
    await made.run()
    assert made.endpoints.cleared == ["one"]


async def test_a_success_clears_failures_that_another_replica_counted():
    """They were read with the routing table alone: after a change of shards they stayed until an endpoint changed."""
    made = Made()
    made.add("wh1")
    await made.run()
    assert made.endpoints.cleared == []
    made.endpoints.fails = {made.lane.endpoint.id}
    made.tokens = {1: 2}
    made.add("wh2")
    await made.run()
    assert made.endpoints.cleared == [made.lane.endpoint.id]
    made.add("wh3")
    await made.run()
    assert made.endpoints.cleared == [made.lane.endpoint.id], "once"


async def test_only_resends_settle_requests():
    made = Made()
    made.add("wh1")
    made.add_result(make_delivery("wh2", trigger=Trigger.MANUAL))
    await made.run()
    assert [(row[0], row[2]) for row in made.store.settled_requests] == [("wh2", True)]
