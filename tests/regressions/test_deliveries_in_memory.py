"""Deliveries that memory held wrongly: sent twice, or never again. The simulation found all three.

* Fan-out's COMMIT took effect, its answer came late. The scheduler had found the delivery in Postgres
  meanwhile, sent and recorded it; then fan-out offered its own copy, which was sent as well.
* A shard went and came back while a request of a person waited for its permit: the delivery stayed with the
  lane of before, and its retry was never made.
* The same while an attempt was in flight: its retry went on the wheel, but no lane would send it.
"""

from typing import Any

from dispatcher.core.breaker import Breaker
from dispatcher.core.model import Outcome, Trigger
from dispatcher.delivery.lanes import Lanes
from dispatcher.delivery.scheduler import Scheduler
from tests.support.clock import ManualClock
from tests.support.deliveries import make_delivery, make_endpoint, make_no_bodies, make_result


class Made:
    """Lanes and a scheduler on them; attempts are only noted."""

    def __init__(self, *, may_send: bool = True) -> None:
        self.clock = ManualClock()
        self.started: list[Any] = []
        self.lanes = Lanes(
            start=lambda _, delivery: self.started.append(delivery.id),
            may_send=lambda: may_send,
            make_breaker=Breaker,
            total=10,
            per_host=10,
            bodies_bytes_max=1_000_000,
            clock=self.clock,
        )
        store: Any = None  # nothing here asks it
        self.scheduler = Scheduler(
            store,
            self.lanes,
            shards=lambda: [1],
            make_bodies=make_no_bodies,
            late_by=lambda _: None,
            clock=self.clock,
            horizon_seconds=60.0,
            timers_max=100,
        )
        self.endpoint = make_endpoint("ep")
        self.hold_shard(token=1)

    def hold_shard(self, *, token: int | None) -> None:
        """Follows a change of owner; None: the shard is another's."""
        tokens = {} if token is None else {1: token}
        self.lanes.follow({self.endpoint.id: self.endpoint}, tokens)

    @property
    def lane(self) -> Any:
        return self.lanes.lanes[self.endpoint.id]


async def test_a_copy_of_fan_out_that_comes_late_is_not_sent_again():
    made = Made()
    delivery = make_delivery("wh")
    made.lanes.reserve([(made.endpoint.id, delivery)])
    assert (
        delivery.id in made.lanes.held
    )  # so that what the scheduler reads meanwhile is left alone
    made.hold_shard(token=None)
    made.hold_shard(token=2)  # but here it was loaded, sent and recorded under the new token
    assert not made.lanes.offer_reserved(made.endpoint.id, delivery)
    made.lanes.pump()
    assert made.started == []
    assert made.lane.more_at == 0.0  # Postgres knows, if there is anything to send


async def test_a_copy_of_fan_out_is_sent_once_and_forgotten_where_its_commit_fails():
    made = Made()
    first, second = make_delivery("first"), make_delivery("second")
    made.lanes.reserve([(made.endpoint.id, first), (made.endpoint.id, second)])
    assert made.lanes.offer_reserved(made.endpoint.id, first)
    made.lanes.unreserve([(made.endpoint.id, first), (made.endpoint.id, second)])
    made.lanes.pump()
    assert made.started == ["first"]
    assert set(made.lanes.held) == {"first"}


async def test_a_waiting_request_does_not_keep_a_delivery_from_the_lane_that_comes_after():
    made = Made(may_send=False)
    delivery = make_delivery("wh", trigger=Trigger.MANUAL)
    made.lanes.hold(delivery.id, made.lane)  # it waits on the wheel for its retry
    made.lanes.demand(made.endpoint.id, delivery)
    made.hold_shard(token=None)
    made.hold_shard(token=2)
    assert made.lanes.held == {}


async def test_a_retry_of_an_attempt_that_outlived_its_lane_is_loaded_by_the_next_one():
    made = Made()
    delivery = make_delivery("wh")
    made.lanes.offer(made.endpoint.id, delivery)
    made.lanes.pump()
    lane = made.lane
    made.hold_shard(token=None)
    made.hold_shard(token=1)  # given back and kept after all: the same token
    made.lanes.finished(lane, made.endpoint, delivery, succeeded=False)
    made.scheduler.settled(
        [make_result(delivery, lane, outcome=Outcome.HTTP_ERROR, next_delay_seconds=5.0)],
        frozenset(),
    )
    assert made.lanes.held == {}
    assert made.lane.more_at == 0.0
    assert len(made.scheduler) == 0


async def test_an_attempt_that_was_none_is_loaded_again_by_the_lane_of_now():
    made = Made()
    delivery = make_delivery("wh")
    made.lanes.offer(made.endpoint.id, delivery)
    made.lanes.pump()
    lane = made.lane
    made.hold_shard(token=None)
    made.hold_shard(token=2)
    made.lanes.finished(lane, made.endpoint, delivery, succeeded=None)
    assert made.lane.more_at == 0.0
