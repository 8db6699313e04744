"""Fan-out: what a claim becomes, what is offered only after its commit, and what one bad event or endpoint costs."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from dispatcher.core import ids
from dispatcher.core.errors import BatchRefusedError, StoreUnavailableError
from dispatcher.core.filters import compile_filter
from dispatcher.core.model import EndpointState, Event, EventId, Reason
from dispatcher.core.schemas import compile_schema
from dispatcher.delivery.fanout import UNSURE_SECONDS, Fanout
from dispatcher.delivery.lanes import Reserved
from dispatcher.telemetry.metrics import Metrics
from tests.support.clock import ManualClock
from tests.support.deliveries import AT, make_endpoint
from tests.support.stores import FakeOutbox
from tests.wire.vectors import PROFILES

STANDARD, WMS = PROFILES["standard"], PROFILES["wms"]


def make_event(name: str, data: str = '{"a": 1}', at: datetime = AT) -> Event:
    return Event(EventId(name), "order.created", data, "default", at, at, {}, None)


class World:
    """An outbox, and what stands for the routing table and the lanes."""

    def __init__(self, *endpoints: Any) -> None:
        self.endpoints = list(endpoints)
        self.outbox = FakeOutbox()
        self.version = 1
        self.refreshes = 0
        self.offered: list[tuple[str, str]] = []
        self.reserved: list[str] = []
        self.theirs: set[str] = set()
        self.unmatched: list[str] = []
        self.clock = ManualClock()
        fake: Any = self
        self.fanout = Fanout(
            self.outbox,
            fake,
            fake,
            fake,
            fake,
            fake,
            clock=self.clock,
            incarnation="ours",
            batch_bytes_max=1_000_000,
        )

    # The routing table, whose version is `version`.
    async def refresh(self) -> None:
        self.refreshes += 1
        self.version = self.outbox.routing_version

    def has_order(self) -> bool:
        return False

    def has_filters(self) -> bool:
        return any(one.content_filter for one in self.endpoints)

    def route(self, event: Event) -> Sequence[Any]:
        del event
        return self.endpoints if self.version == self.outbox.routing_version else []

    # Lanes.
    def reserve(self, deliveries: Sequence[Any]) -> Any:
        self.reserved += [delivery.id for _, delivery in deliveries]
        return [Reserved(endpoint_id, delivery, None) for endpoint_id, delivery in deliveries]

    def are_all_ours(self, reserved: Sequence[Any]) -> bool:
        return self.theirs.isdisjoint(one.endpoint_id for one in reserved)

    def unreserve(self, reserved: Sequence[Any]) -> None:
        for _, delivery, _ in reserved:
            self.reserved.remove(delivery.id)

    def offer_reserved(self, reserved: Sequence[Any]) -> None:
        assert self.outbox.committed_count, "nothing is offered before the commit"
        for endpoint_id, delivery, _ in reserved:
            self.reserved.remove(delivery.id)
            self.offered.append((endpoint_id, delivery.event_id))

    def pump(self) -> None:
        """Starts nothing."""

    # Reporting.
    metrics = Metrics(version="1", profiles=[])

    def fanned_out(self, events: Any, unmatched: Any) -> None:
        del events
        self.unmatched = list(unmatched)


@pytest.fixture
def world() -> World:
    return World(
        make_endpoint("std1", profile=STANDARD),
        make_endpoint("std2", profile=STANDARD),
        make_endpoint("wms", profile=WMS, profile_name="wms"),
    )


async def test_deliveries_that_are_pulled_stay_in_postgres(world):
    pulled = make_endpoint("pulled", profile=STANDARD, number=7, is_pulled=True)
    world.endpoints = [make_endpoint("pushed", profile=STANDARD), pulled]
    world.outbox.waiting = [make_event("e1"), make_event("e2")]
    await world.fanout(100)
    claim = world.outbox.claims[0]
    assert [row.endpoint_id for row in claim.deliveries] == ["pushed", "pulled"] * 2
    assert claim.pulled == [7]
    assert [endpoint_id for endpoint_id, _ in world.offered] == ["pushed", "pushed"]


async def test_an_event_unlike_its_schema_is_counted_and_delivered(world):
    world.fanout._schemas = {"order.created": compile_schema('{"required": ["order_id"]}')}
    world.outbox.waiting = [make_event("e1"), make_event("e2", '{"order_id": 1}')]
    before = world.metrics.schema_mismatches._value.get()
    with capture_logs() as logs:
        await world.fanout(100)
    assert world.metrics.schema_mismatches._value.get() == before + 1
    (line,) = logs
    assert (line["event"], line["event_id"]) == ("event.schema_mismatched", "e1")
    assert line["errors"] == ['data: "order_id" is a required property']
    assert len(world.outbox.claims[0].deliveries) == 6


async def test_every_event_becomes_a_delivery_an_endpoint_and_one_body_a_profile(world):
    world.outbox.waiting = [make_event("e1"), make_event("e2", at=AT + timedelta(milliseconds=1))]
    taken = await world.fanout(100)
    assert (taken.events_count, taken.more) == (2, False)
    claim = world.outbox.claims[0]
    assert len(claim.deliveries) == 6
    assert [(body.event_id, body.profile) for body in claim.bodies] == [
        ("e1", "standard"),
        ("e1", "wms"),
        ("e2", "standard"),
        ("e2", "wms"),
    ]
    assert world.offered == [(e, n) for n in ("e1", "e2") for e in ("std1", "std2", "wms")]
    made = [row.id for row in claim.deliveries]
    assert [made.index(i) // 3 for i in sorted(made)] == [0, 0, 0, 1, 1, 1], (
        "in the order of events"
    )
    assert len(set(made)) == 6


async def test_fanout_leaves_out_endpoints_whose_filter_does_not_match(world):
    large = make_endpoint(
        "large", profile=STANDARD, content_filter=compile_filter("data.total > 10")
    )
    world.endpoints = [make_endpoint("every", profile=STANDARD), large]
    world.outbox.waiting = [
        make_event("e1", data='{"total": 11}'),
        make_event("e2", data='{"total": 9}'),
        make_event("e3", data="{}"),
    ]
    count = world.metrics.registry.get_sample_value
    names = ("dispatcher_events_filtered_total", "dispatcher_filter_errors_total")
    before = [count(name) for name in names]
    with capture_logs() as logs:
        await world.fanout(100)
    assert world.offered == [("every", "e1"), ("large", "e1"), ("every", "e2"), ("every", "e3")]
    assert world.unmatched == []
    assert [count(name) for name in names] == [one + 1 for one in before]
    (logged,) = [one for one in logs if one["event"] == "filter.evaluation_failed"]
    assert (logged["endpoint_id"], logged["event_id"]) == ("large", "e3")
    assert logged["error"] == "there is no 'total'"


async def test_fanout_of_a_few_drops_what_another_replica_claims(world):
    world.outbox.waiting = [make_event("e1"), make_event("e2")]
    world.outbox.lost = frozenset({EventId("e1")})
    await world.fanout(100, few=True)
    assert {event_id for _, event_id in world.offered} == {"e2"}
    assert world.reserved == []
    assert world.fanout.is_unsure(), "the loader looks for what was announced meanwhile"


async def test_lost_commit_is_searched_for_once_postgres_responds(world):
    """A server that was frozen commits when it goes on, long after the statement was given up."""
    world.outbox.waiting = [make_event("e1")]
    world.outbox.fails_to_commit = True
    with pytest.raises(StoreUnavailableError):
        await world.fanout(100)
    world.clock.advance(600.0)
    assert world.fanout.is_unsure(), "the first time that Postgres responds"
    world.clock.advance(UNSURE_SECONDS - 1.0)
    assert world.fanout.is_unsure()
    world.clock.advance(2.0)
    assert not world.fanout.is_unsure()


async def test_events_that_no_endpoint_takes_are_reported_by_type():
    world = World()
    own = make_event("e2")._replace(type="dispatcher.endpoint.failing")
    world.outbox.waiting = [make_event("e1"), own]
    await world.fanout(100)
    assert world.unmatched == ["order.created"]


async def test_what_is_for_another_replica_is_announced_within_its_commit(world):
    world.outbox.waiting = [make_event("e1"), make_event("e2")]
    await world.fanout(1)
    world.theirs = {"wms"}
    await world.fanout(1)
    assert [claim.announced_by for claim in world.outbox.claims] == [None, "ours"]


async def test_nothing_is_offered_when_the_commit_fails(world):
    world.outbox.waiting = [make_event("e1")]
    world.outbox.fails_to_commit = True
    with pytest.raises(StoreUnavailableError):
        await world.fanout(100)
    assert world.offered == []
    assert world.reserved == []
    assert len(world.outbox.waiting) == 1


async def test_an_empty_outbox_costs_no_write(world):
    assert (await world.fanout(100)).events_count == 0
    assert not world.outbox.claims[0].is_written


async def test_a_newer_routing_version_is_loaded_before_matching(world):
    world.outbox.waiting = [make_event("e1")]
    world.outbox.routing_version = 2
    await world.fanout(100)
    assert world.refreshes == 1
    assert len(world.outbox.claims[0].deliveries) == 3
    await world.fanout(100)
    assert world.refreshes == 1


async def test_only_a_disabled_endpoint_cancels_and_unusable_ones_wait(world):
    world.endpoints = [
        make_endpoint("off", profile=STANDARD, state=EndpointState.DISABLED),
        make_endpoint("odd", profile=None, problem=Reason.UNKNOWN_PROFILE, profile_name="nobody"),
        make_endpoint("bad", profile=STANDARD, problem=Reason.SECRET_UNREADABLE),
        make_endpoint("paused", profile=STANDARD, state=EndpointState.PAUSED),
        make_endpoint("good", profile=STANDARD),
    ]
    world.outbox.waiting = [make_event("e1")]
    await world.fanout(100)
    claim = world.outbox.claims[0]
    assert [(row.endpoint_id, row.reason) for row in claim.cancelled] == [
        ("off", Reason.ENDPOINT_DISABLED),
    ]
    assert [row.endpoint_id for row in claim.deliveries] == ["odd", "bad", "paused", "good"]
    assert [body.profile for body in claim.bodies] == ["standard"], "none for the missing profile"
    assert world.offered == [("good", "e1")]


async def test_an_event_that_matches_nobody_is_taken_and_makes_no_delivery(world):
    world.endpoints = []
    world.outbox.waiting = [make_event("e1")]
    assert (await world.fanout(100)).events_count == 1
    assert world.outbox.claims[0].deliveries == []


async def test_a_refused_batch_shrinks_until_the_one_at_fault_is_set_aside_alone(world):
    world.outbox.waiting = [make_event(f"e{n}") for n in range(30)]
    world.outbox.poison = "e17"
    for _ in range(200):
        await world.fanout(20)
        if not world.outbox.waiting:
            break
    assert world.outbox.quarantined == ["e17"]
    assert world.outbox.committed_count == 29


async def test_control_unchanged_batch_retried_blocks_its_neighbours_forever(world):
    """F10, A26: lost by one bad row are all that share its batch, and all behind it."""
    world.outbox.waiting = [make_event(f"e{n}") for n in range(30)]
    world.outbox.poison = "e17"
    for _ in range(200):
        with contextlib.suppress(BatchRefusedError):
            await world.fanout._through(10)
    assert world.outbox.quarantined == []
    assert (world.outbox.committed_count, len(world.outbox.waiting)) == (10, 20)


@pytest.mark.parametrize(("count", "more"), [(3, True), (2, False)])
async def test_a_batch_that_was_cut_says_so(world, count, more):
    world.outbox.waiting = [make_event(f"e{n}") for n in range(count)]
    assert (await world.fanout(3)).more is more


async def test_fanout_repeated_makes_the_same_delivery_ids(world):
    for _ in range(2):
        world.outbox.waiting = [make_event("e1"), make_event("e2", at=AT - timedelta(days=3))]
        await world.fanout(100)
    first, second = world.outbox.claims
    assert [row.id for row in first.deliveries] == [row.id for row in second.deliveries]
    assert {ids.day_of(row.id) for row in first.deliveries} == {AT.date()}


async def test_events_behind_a_backlog_are_fanned_out_before_it():
    world = World(make_endpoint("ep_1", profile=STANDARD))
    world.outbox.waiting = [make_event("first")]
    world.outbox.behind = {7: make_event("seventh"), 9: make_event("ninth")}
    assert await world.fanout.overtake(10) == (2, 2)
    assert [e.id for e in world.outbox.claims[0].events] == ["seventh", "ninth"]
    assert [e.id for e in world.outbox.waiting] == ["first"]


async def test_a_refused_event_behind_a_backlog_costs_its_neighbours_nothing():
    world = World(make_endpoint("ep_1", profile=STANDARD))
    world.outbox.behind = {number: make_event(f"e{number}") for number in range(8)}
    world.outbox.poison = "e5"
    taken = await world.fanout.overtake(10)
    assert taken.events_count == 7
    assert world.outbox.left == [5], "it is shelved when it is the oldest"
    assert not world.outbox.quarantined


class SlowByBytes(FakeOutbox):
    """Claims within their bound of bytes, which take their time."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.bounds: list[int] = []
        self.clock = clock
        self.seconds_min = 0.0
        self.bytes_per_second = 2e6

    @contextlib.asynccontextmanager
    async def claim(self, events_max: int, bytes_max: int, *others: Any) -> AsyncIterator[Any]:
        self.bounds.append(bytes_max)
        fitting = bytes_max // max(1, len(self.waiting[0].data))
        async with super().claim(max(1, min(events_max, fitting)), bytes_max, *others) as claim:
            yield claim
            bytes_count = sum(len(event.data) for event in claim.events)
            self.clock.advance(max(self.seconds_min, bytes_count / self.bytes_per_second))


def make_slow(world: World) -> SlowByBytes:
    """Return an outbox whose batches are slow by their bytes, which `world` fans out."""
    clock = ManualClock()
    outbox = world.outbox = SlowByBytes(clock)
    fake: Any = world
    world.fanout = Fanout(
        outbox, fake, fake, fake, fake, fake,
        clock=clock, incarnation="ours", batch_bytes_max=16_000_000,
    )  # fmt: skip
    return outbox


async def test_a_batch_that_is_slow_by_its_bytes_makes_the_next_smaller(world):
    outbox = make_slow(world)
    outbox.waiting = [make_event(f"e{n}", f'"{"x" * 500_000}"') for n in range(80)]
    for _ in range(4):
        await world.fanout(1_000)
    assert outbox.bounds[0] == 16_000_000
    assert all(1_000_000 <= bound <= 1_100_000 for bound in outbox.bounds[1:])
    outbox.waiting = [make_event(f"f{n}", f'"{"x" * 60_000}"') for n in range(2_000)]
    before = len(outbox.bounds)
    outbox.bytes_per_second = 1e9
    for _ in range(6):
        await world.fanout(1_000)
    assert outbox.bounds[before:][-1] == 16_000_000


async def test_a_distant_postgres_makes_no_batch_of_small_events_smaller(world):
    outbox = make_slow(world)
    outbox.seconds_min = 5.0
    outbox.waiting = [make_event(f"e{n}") for n in range(3_000)]
    for _ in range(3):
        await world.fanout(1_000)
    assert outbox.bounds == [16_000_000] * 3
