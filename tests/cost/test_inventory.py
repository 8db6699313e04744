"""The register of deliveries in memory: what forgetting lanes costs, and that no step of it is long."""

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from dispatcher.core.model import DeliveryId, EndpointState, Trigger
from dispatcher.core.wheel import Wheel
from dispatcher.delivery.lane_follower import FOLLOWED_PER_STEP, RECLAIMED_PER_STEP
from dispatcher.delivery.types import DUE, RESERVED, EndpointLane, Entry
from tests.support.deliveries import make_delivery, make_endpoint
from tests.support.stages import Stages

LANES, RETRIES_PER_LANE = 200, 40


class CountingWheel(Wheel[Entry]):
    """Counts what is taken off, and how much of it since the event loop last ran anything else."""

    __slots__ = ("cancelled_count", "step_counts")

    def __init__(self, now_ms: int) -> None:
        super().__init__(now_ms)
        self.cancelled_count = 0
        self.step_counts = [0]

    def cancel_all(self, keys: Iterable[Entry]) -> None:
        keys = list(keys)
        self.cancelled_count += len(keys)
        self.step_counts[-1] += len(keys)
        super().cancel_all(keys)


def _waiting(lanes: int) -> tuple[Stages, CountingWheel, list[Any]]:
    """Lanes with retries on a wheel that counts."""
    wheel = CountingWheel(0)
    stages = Stages(timers_max=lanes * RETRIES_PER_LANE)
    stages.inventory.wheel = wheel
    endpoints = [make_endpoint(f"ep{number}") for number in range(lanes)]
    stages.follow(*endpoints)
    for number in range(lanes * RETRIES_PER_LANE):
        lane = stages.lane(f"ep{number % lanes}")
        entry = stages.inventory.add(lane, DeliveryId(f"wh{number}"), DUE, None)
        stages.timer.schedule(entry, 1.0 + number % 500)
    return stages, wheel, endpoints


async def _in_steps(wheel: CountingWheel) -> None:
    """Let everything run that is ready, and count the wheel's work apart for each turn of the event loop."""
    before = -1
    while before != wheel.cancelled_count:
        before = wheel.cancelled_count
        wheel.step_counts.append(0)
        await asyncio.sleep(0)


async def test_forgetting_a_lane_touches_its_own_entries_alone():
    """It scanned the whole wheel and every container: a second for 2,000 lanes of 40 retries."""
    stages, wheel, endpoints = _waiting(LANES)
    stages.follow(*endpoints[1:])
    assert wheel.cancelled_count == RETRIES_PER_LANE
    assert len(stages.inventory) == len(wheel) == (LANES - 1) * RETRIES_PER_LANE
    stages.follow()
    assert not stages.inventory.lanes
    await _in_steps(wheel)
    assert wheel.cancelled_count == LANES * RETRIES_PER_LANE
    assert len(stages.inventory) == len(wheel) == 0
    assert sum(stages.inventory.counts) == 0


@pytest.mark.parametrize("lanes", [250, 500])
async def test_forgetting_lanes_drops_a_bounded_number_per_step(lanes):
    """All lanes of a lost lease were forgotten in one step of the event loop, which grew with their retries."""
    stages, wheel, _ = _waiting(lanes)
    stages.follow()
    await _in_steps(wheel)
    assert wheel.cancelled_count == lanes * RETRIES_PER_LANE
    assert max(wheel.step_counts) <= RECLAIMED_PER_STEP
    assert (
        sum(count > 0 for count in wheel.step_counts)
        <= 2 + wheel.cancelled_count // RECLAIMED_PER_STEP
    )


async def test_control_without_steps_a_lost_lease_is_one_long_step(monkeypatch):
    monkeypatch.setattr("dispatcher.delivery.lane_follower.RECLAIMED_PER_STEP", 1_000_000)
    stages, wheel, _ = _waiting(250)
    stages.follow()
    assert wheel.step_counts == [250 * RETRIES_PER_LANE]


async def test_forgetting_one_long_lane_is_cut_into_steps_too():
    stages, wheel, _ = _waiting(1)
    lane = stages.lane("ep0")
    stages.timer._timers_max = 3 * RECLAIMED_PER_STEP
    for number in range(2 * RECLAIMED_PER_STEP):
        entry = stages.inventory.add(lane, DeliveryId(f"more{number}"), DUE, None)
        stages.timer.schedule(entry, 10.0)
    stages.follow()
    assert len(stages.inventory) > 0
    await _in_steps(wheel)
    assert max(wheel.step_counts) <= RECLAIMED_PER_STEP
    assert len(stages.inventory) == len(wheel) == 0


async def test_lanes_are_made_a_bounded_number_per_step():
    """At 20,000 endpoints the lanes of a lease that was just taken were made in one step of 100 ms."""
    stages = Stages()
    endpoints = [make_endpoint(f"ep{number}") for number in range(2 * FOLLOWED_PER_STEP + 1)]
    stages.follow(*endpoints)
    counts = [len(stages.inventory.lanes)]
    while counts[-1] < len(endpoints):
        await asyncio.sleep(0)
        counts.append(len(stages.inventory.lanes))
    assert counts == [FOLLOWED_PER_STEP, 2 * FOLLOWED_PER_STEP, len(endpoints)]
    assert len(stages.queue.windows) == len(endpoints)


async def test_a_lane_that_is_being_forgotten_sends_nothing_more():
    """What is sent for a shard after it was released is sent twice."""
    stages, wheel, endpoints = _waiting(LANES)
    stages.may_send = False
    for number in range(LANES):
        stages.offer(f"ep{number}", f"ready{number}")
        stages.lanes.demand(
            stages.lane(f"ep{number}").endpoint.id,
            make_delivery(f"asked{number}", trigger=Trigger.MANUAL),
        )
    stages.may_send = True
    stages.follow(*endpoints, tokens={})
    assert len(stages.inventory) > 0, "some entries are still to be dropped"
    stages.permits.pump()
    assert stages.started == []
    assert stages.inventory.is_quiet(1)
    assert stages.inventory.busy_ids() == []
    stages.follow(*endpoints, tokens={1: 2})
    await _in_steps(wheel)
    assert len(stages.inventory) == stages.inventory.ready_bytes == 0
    assert stages.started == []
    assert len(stages.inventory.lanes) == LANES


async def test_a_reservation_in_a_forgotten_lane_is_loaded_by_the_next_one():
    """The fan-out of a lane that lost its shard before the commit: the new lane has to know of the delivery."""
    stages, wheel, endpoints = _waiting(2 * LANES)
    endpoint_id = stages.lane(f"ep{2 * LANES - 1}").endpoint.id
    reserved = stages.lanes.reserve([(endpoint_id, make_delivery("new"))])
    stages.follow(*endpoints, tokens={})
    stages.follow(*endpoints, tokens={1: 2})
    await asyncio.sleep(0)
    lane = stages.lane(endpoint_id)
    assert reserved[0].entry is not None
    assert reserved[0].entry.phase == RESERVED, "the old lane's entries are not all dropped yet"
    assert reserved[0].entry.lane is not lane
    stages.lanes.offer_reserved(reserved)
    assert stages.started == []
    assert lane.more_at == 0.0
    await _in_steps(wheel)
    assert len(stages.inventory) == 0


class WatchedLanes(dict[EndpointLane, None]):
    """Records the lanes that are visited."""

    def __init__(self) -> None:
        super().__init__()
        self.visited: set[str] = set()

    def __iter__(self) -> Iterator[EndpointLane]:
        for lane in super().__iter__():
            self.visited.add(lane.endpoint.id)
            yield lane


async def test_a_tick_visits_only_lanes_with_work():
    """Four times a second it visited every lane: 2 % of a core at 20,000 idle endpoints."""
    stages = Stages()
    active = stages.inventory.active = WatchedLanes()
    stages.follow(*(make_endpoint(f"ep{number}") for number in range(LANES)))
    stages.lanes.tick()
    active.visited.clear()
    stages.lanes.tick()
    stages.inventory.figures()
    assert active.visited == set()
    stages.offer("ep7", "wh1")
    stages.lane("ep8").turn_away(1e9)
    stages.lanes.tick()
    assert active.visited == {"ep7", "ep8"}
    stages.end()
    stages.lanes.tick()
    stages.lanes.tick()
    assert [lane.endpoint.id for lane in active] == ["ep8"]


async def test_a_paused_lane_with_a_backlog_is_visited_when_it_opens_again():
    stages = Stages()
    stages.follow(make_endpoint("ep"))
    stages.lane().turn_away(0.0)
    stages.follow(make_endpoint("ep", state=EndpointState.PAUSED))
    stages.lanes.tick()
    assert not stages.inventory.active
    stages.queue.windows.clear()
    assert stages.follow(make_endpoint("ep")) == {"ep"}
    stages.queue.windows.clear()
    stages.lanes.tick()
    assert stages.queue.windows == {"ep"}
