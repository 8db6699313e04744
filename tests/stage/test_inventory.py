"""The register of deliveries in memory: what forgetting a lane costs."""

from collections.abc import Iterable

from dispatcher.core.model import DeliveryId
from dispatcher.core.wheel import Wheel
from dispatcher.delivery.types import DUE, Entry
from tests.support.deliveries import make_endpoint
from tests.support.stages import Stages

LANES, RETRIES_PER_LANE = 200, 40


class CountingWheel(Wheel[Entry]):
    """Counts what is taken off."""

    __slots__ = ("cancelled_count",)

    def __init__(self, now_ms: int) -> None:
        super().__init__(now_ms)
        self.cancelled_count = 0

    def cancel_all(self, keys: Iterable[Entry]) -> None:
        keys = list(keys)
        self.cancelled_count += len(keys)
        super().cancel_all(keys)


async def test_forgetting_a_lane_touches_its_own_entries_alone():
    """It scanned the whole wheel and every container: a second for 2,000 lanes of 40 retries."""
    wheel = CountingWheel(0)
    stages = Stages(timers_max=LANES * RETRIES_PER_LANE)
    stages.inventory.wheel = wheel
    endpoints = [make_endpoint(f"ep{number}") for number in range(LANES)]
    stages.follow(*endpoints)
    for number in range(LANES * RETRIES_PER_LANE):
        lane = stages.lane(f"ep{number % LANES}")
        entry = stages.inventory.add(lane, DeliveryId(f"wh{number}"), DUE, None)
        stages.timer.schedule(entry, 1.0 + number % 500)
    stages.follow(*endpoints[1:])
    assert wheel.cancelled_count == RETRIES_PER_LANE
    assert len(stages.inventory) == len(wheel) == (LANES - 1) * RETRIES_PER_LANE
    stages.follow()
    assert wheel.cancelled_count == LANES * RETRIES_PER_LANE
    assert len(stages.inventory) == len(wheel) == 0
    assert sum(stages.inventory.counts) == 0
