"""Deliveries that memory held wrongly: sent twice, or never again. The simulation found all three.

* Fan-out's COMMIT took effect, its answer came late. The loader had found the delivery in Postgres
  meanwhile, sent and recorded it; then fan-out offered its own copy, which was sent as well.
* A shard went and came back while a request of a person waited for its permit: the delivery stayed with the
  lane of before, and its retry was never made.
* The same while an attempt was in flight: its retry went on the wheel, but no lane would send it.
"""

from dispatcher.core.model import Outcome, Trigger
from dispatcher.delivery.types import WAITING
from tests.support.deliveries import make_delivery, make_endpoint
from tests.support.stages import Stages


class Made(Stages):
    """The stages, with one endpoint whose shard goes and comes."""

    def __init__(self, *, may_send: bool = True) -> None:
        super().__init__(may_send=may_send)
        self.endpoint = make_endpoint("ep")
        self.hold_shard(token=1)

    def hold_shard(self, *, token: int | None) -> None:
        """Follows a change of owner; None: the shard is another's."""
        self.follow(self.endpoint, tokens={} if token is None else {1: token})


async def test_a_copy_of_fan_out_that_comes_late_is_not_sent_again():
    made = Made()
    delivery = make_delivery("wh")
    reserved = made.lanes.reserve([(made.endpoint.id, delivery)])
    assert made.in_memory() == {"wh"}  # so that what the loader reads meanwhile is left alone
    made.hold_shard(token=None)
    made.hold_shard(token=2)  # but here it was loaded, sent and recorded under the new token
    made.lanes.offer_reserved(reserved)
    made.permits.pump()
    assert made.started == []
    assert made.lane().more_at == 0.0  # Postgres knows, if there is anything to send


async def test_reserved_copy_is_sent_once_and_dropped_if_its_commit_fails():
    made = Made()
    first, second = make_delivery("first"), make_delivery("second")
    reserved = made.lanes.reserve([(made.endpoint.id, first), (made.endpoint.id, second)])
    made.lanes.offer_reserved(reserved[:1])
    made.lanes.unreserve(reserved)
    made.permits.pump()
    assert [delivery.id for delivery in made.started] == ["first"]
    assert made.in_memory() == {"first"}


async def test_waiting_request_does_not_keep_a_delivery_from_the_next_lane():
    made = Made(may_send=False)
    delivery = make_delivery("wh", trigger=Trigger.MANUAL)
    entry = made.inventory.add(made.lane(), delivery.id, WAITING, None)
    made.inventory.wheel.schedule(entry, 2_000_000)  # it waits for its retry
    made.lanes.demand(made.endpoint.id, delivery)
    made.hold_shard(token=None)
    made.hold_shard(token=2)
    assert made.in_memory() == set()


async def test_retry_of_an_attempt_that_outlived_its_lane_is_loaded_again():
    made = Made()
    made.offer("ep", "wh")
    made.hold_shard(token=None)
    made.hold_shard(token=1)  # given back and kept after all: the same token
    made.commit(made.running[0], outcome=Outcome.HTTP_ERROR, next_delay_seconds=5.0)
    assert made.in_memory() == set()
    assert made.lane().more_at == 0.0
    assert len(made.inventory.wheel) == 0


async def test_an_attempt_that_was_none_is_loaded_again_by_the_lane_of_now():
    made = Made()
    made.offer("ep", "wh")
    made.hold_shard(token=None)
    made.hold_shard(token=2)
    made.end(succeeded=None)
    assert made.lane().more_at == 0.0
