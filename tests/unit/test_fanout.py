"""Fan-out: what a claim becomes, what is offered only after its commit, and what one bad event or endpoint costs."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

from dispatcher.core import ids
from dispatcher.core.census import Pick
from dispatcher.core.errors import BatchRefusedError, StoreUnavailableError
from dispatcher.core.model import EndpointState, Event, EventId, Reason
from dispatcher.delivery.fanout import Fanout
from dispatcher.telemetry.metrics import Metrics
from tests.support.clock import ManualClock
from tests.support.deliveries import AT, make_endpoint
from tests.wire.vectors import PROFILES

STANDARD, WMS = PROFILES["standard"], PROFILES["wms"]


def make_event(name: str, data: str = '{"a": 1}', at: datetime = AT) -> Event:
    return Event(EventId(name), "order.created", data, "default", at, at, {}, None)


class FakeClaim:
    """A claim that keeps what is written to it."""

    def __init__(self, events: list[Event], routing_version: int) -> None:
        self.events = events
        self.routing_version = routing_version
        self.accepted_at = AT
        self.day = AT.date()
        self.announced_by: str | None = None

    async def write(self, bodies: Any, deliveries: Any, cancelled: Any) -> None:
        self.bodies, self.deliveries, self.cancelled = bodies, deliveries, cancelled

    async def announce(self, incarnation: str) -> None:
        self.announced_by = incarnation


class World:
    """An outbox, a routing table and lanes, all in memory."""

    def __init__(self, *endpoints: Any) -> None:
        self.endpoints = list(endpoints)
        self.waiting: list[Event] = []
        self.behind: dict[int, Event] = {}
        """What waits behind another tenant's backlog, by position."""
        self.left: list[int] = []
        self.version = 1
        self.table_version = 1
        self.refreshes = 0
        self.claims: list[FakeClaim] = []
        self.committed = 0
        self.offered: list[tuple[str, str]] = []
        self.reserved: list[str] = []
        self.fail_commit = False
        self.poison = ""
        self.aside: list[str] = []
        self.theirs: set[str] = set()
        self.unmatched: list[str] = []
        fake: Any = self
        self.fanout = Fanout(
            fake,
            fake,
            fake,
            fake,
            clock=ManualClock(),
            incarnation="ours",
            batch_bytes_max=1_000_000,
        )

    # The routing table.
    async def refresh(self) -> None:
        self.refreshes += 1
        self.table_version = self.version

    def route(self, event: Event) -> Sequence[Any]:
        del event
        return self.endpoints if self.table_version == self.version else []

    # The outbox.
    @asynccontextmanager
    async def claim(
        self,
        events_max: int,
        bytes_max: int,
        event_id: str | None = None,
        tenants: dict[int, str] | None = None,
    ) -> AsyncIterator[FakeClaim]:
        del bytes_max
        assert event_id in {None, self.waiting[0].id if self.waiting else None}
        events = self.waiting[:events_max]
        if tenants is not None:
            events = [self.behind[p] for p in tenants if p in self.behind]
        claim = FakeClaim(events, self.version)
        yield claim
        if self.fail_commit:
            raise StoreUnavailableError("away")
        if any(event.id == self.poison for event in claim.events):
            raise BatchRefusedError("refused")
        if tenants is None:
            self.waiting = self.waiting[events_max:]
        self.behind = {p: e for p, e in self.behind.items() if p not in (tenants or {})}
        self.claims.append(claim)
        self.committed += len(claim.events)

    async def pick(self, events_max: int) -> Pick:
        tenants = {p: "other" for p in [*self.behind][:events_max] if p not in self.left}
        return Pick(tenants, len(tenants))

    def leave(self, position: int) -> None:
        self.left.append(position)

    async def oldest(self) -> str | None:
        return self.waiting[0].id if self.waiting else None

    async def renumber(self, event_ids: Sequence[str]) -> dict[str, str]:
        del event_ids  # ids are unique here
        return {}

    async def quarantine(self, event_id: str) -> bool:
        self.waiting = [event for event in self.waiting if event.id != event_id]
        self.aside.append(event_id)
        return True

    # Lanes.
    def reserve(self, deliveries: Sequence[Any]) -> Any:
        self.reserved += [delivery.id for _, delivery in deliveries]
        return deliveries

    def are_all_ours(self, reserved: Sequence[Any]) -> bool:
        return self.theirs.isdisjoint(endpoint_id for endpoint_id, _ in reserved)

    def unreserve(self, reserved: Sequence[Any]) -> None:
        for _, delivery in reserved:
            self.reserved.remove(delivery.id)

    def offer_reserved(self, reserved: Sequence[Any]) -> None:
        assert self.committed, "nothing is offered before the commit"
        for endpoint_id, delivery in reserved:
            self.reserved.remove(delivery.id)
            self.offered.append((endpoint_id, delivery.event_id))

    def pump(self) -> None:
        """Starts nothing."""

    # Reporting.
    metrics = Metrics(version="1", profiles=[])

    def fanned_out(self, events: Any, unmatched: Any) -> None:
        del events
        self.unmatched = list(unmatched)


class Routing(World):
    """The same with the table's version where fan-out looks for it."""

    @property
    def version(self) -> int:
        return self.table_version

    @version.setter
    def version(self, value: int) -> None:
        self.table_version = value


@pytest.fixture
def world() -> Routing:
    return Routing(
        make_endpoint("std1", profile=STANDARD),
        make_endpoint("std2", profile=STANDARD),
        make_endpoint("wms", profile=WMS, profile_name="wms"),
    )


async def test_every_event_becomes_a_delivery_an_endpoint_and_one_body_a_profile(world):
    world.waiting = [make_event("e1"), make_event("e2", at=AT + timedelta(milliseconds=1))]
    taken = await world.fanout(100)
    assert (taken.events_count, taken.more) == (2, False)
    claim = world.claims[0]
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


async def test_events_that_no_endpoint_takes_are_reported_by_type():
    world = Routing()
    own = make_event("e2")._replace(type="dispatcher.endpoint.failing")
    world.waiting = [make_event("e1"), own]
    await world.fanout(100)
    assert world.unmatched == ["order.created"]


async def test_what_is_for_another_replica_is_announced_within_its_commit(world):
    world.waiting = [make_event("e1"), make_event("e2")]
    await world.fanout(1)
    world.theirs = {"wms"}
    await world.fanout(1)
    assert [claim.announced_by for claim in world.claims] == [None, "ours"]


async def test_nothing_is_offered_when_the_commit_fails(world):
    world.waiting = [make_event("e1")]
    world.fail_commit = True
    with pytest.raises(StoreUnavailableError):
        await world.fanout(100)
    assert world.offered == []
    assert world.reserved == []
    assert len(world.waiting) == 1


async def test_an_empty_outbox_costs_no_write(world):
    assert (await world.fanout(100)).events_count == 0
    assert not hasattr(world.claims[0], "deliveries")


async def test_a_newer_routing_version_is_loaded_before_matching(world, monkeypatch):
    world.waiting = [make_event("e1")]

    @asynccontextmanager
    async def newer(
        events_max: int, bytes_max: int, event_id: str | None = None, tenants: Any = None
    ) -> AsyncIterator[FakeClaim]:
        del events_max, bytes_max, event_id, tenants
        world.claims.append(FakeClaim(world.waiting, 2))
        yield world.claims[-1]
        world.committed = 1

    async def refresh() -> None:
        world.refreshes += 1
        world.table_version = 2

    monkeypatch.setattr(world, "claim", newer)
    monkeypatch.setattr(world, "refresh", refresh)
    await world.fanout(100)
    assert world.refreshes == 1
    assert len(world.claims[0].deliveries) == 3
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
    world.waiting = [make_event("e1")]
    await world.fanout(100)
    claim = world.claims[0]
    assert [(row.endpoint_id, row.reason) for row in claim.cancelled] == [
        ("off", Reason.ENDPOINT_DISABLED),
    ]
    assert [row.endpoint_id for row in claim.deliveries] == ["odd", "bad", "paused", "good"]
    assert [body.profile for body in claim.bodies] == ["standard"], "none for the missing profile"
    assert world.offered == [("good", "e1")]


async def test_an_event_that_matches_nobody_is_taken_and_makes_no_delivery(world):
    world.endpoints = []
    world.waiting = [make_event("e1")]
    assert (await world.fanout(100)).events_count == 1
    assert world.claims[0].deliveries == []


async def test_a_refused_batch_shrinks_until_the_one_at_fault_is_set_aside_alone(world):
    world.waiting = [make_event(f"e{n}") for n in range(30)]
    world.poison = "e17"
    for _ in range(200):
        await world.fanout(20)
        if not world.waiting:
            break
    assert world.aside == ["e17"]
    assert world.committed == 29


async def test_control_unchanged_batch_retried_blocks_its_neighbours_forever(world):
    """F10, A26: lost by one bad row are all that share its batch, and all behind it."""
    world.waiting = [make_event(f"e{n}") for n in range(30)]
    world.poison = "e17"
    for _ in range(200):
        with contextlib.suppress(BatchRefusedError):
            await world.fanout._through(10)
    assert world.aside == []
    assert (world.committed, len(world.waiting)) == (10, 20)


@pytest.mark.parametrize(("count", "more"), [(3, True), (2, False)])
async def test_a_batch_that_was_cut_says_so(world, count, more):
    world.waiting = [make_event(f"e{n}") for n in range(count)]
    assert (await world.fanout(3)).more is more


async def test_fanout_repeated_makes_the_same_delivery_ids(world):
    for _ in range(2):
        world.waiting = [make_event("e1"), make_event("e2", at=AT - timedelta(days=3))]
        await world.fanout(100)
    first, second = world.claims
    assert [row.id for row in first.deliveries] == [row.id for row in second.deliveries]
    assert {ids.day_of(row.id) for row in first.deliveries} == {AT.date()}


async def test_events_behind_a_backlog_are_fanned_out_before_it():
    world = Routing(make_endpoint("ep_1", profile=STANDARD))
    world.waiting = [make_event("first")]
    world.behind = {7: make_event("seventh"), 9: make_event("ninth")}
    assert await world.fanout.overtake(10) == (2, 2)
    assert [e.id for e in world.claims[0].events] == ["seventh", "ninth"]
    assert [e.id for e in world.waiting] == ["first"]


async def test_a_refused_event_behind_a_backlog_costs_its_neighbours_nothing():
    world = Routing(make_endpoint("ep_1", profile=STANDARD))
    world.behind = {number: make_event(f"e{number}") for number in range(8)}
    world.poison = "e5"
    taken = await world.fanout.overtake(10)
    assert taken.events_count == 7
    assert world.left == [5], "it is set aside when it is the oldest"
    assert not world.aside
