"""Lanes under any order of events: never over a limit, fair, nothing twice, every permit comes back."""

import asyncio
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.breaker import BreakerState
from dispatcher.core.model import EndpointId, EndpointState, Outcome, Trigger
from dispatcher.delivery.types import IN_FLIGHT, READY
from tests.support.deliveries import make_delivery, make_endpoint
from tests.support.stages import Stages

TOTAL, PER_HOST = 12, 10


class Attempts(Stages):
    """Lanes whose attempts are in flight until the test ends them."""

    def __init__(self, *, total: int = TOTAL, per_host: int = PER_HOST, **how: Any) -> None:
        super().__init__(total=total, per_host=per_host, **how)

    def per_endpoint(self) -> Counter[str]:
        return Counter(str(one.endpoint.id) for one in self.running)

    def started_names(self) -> list[str]:
        return [str(delivery.id) for delivery in self.started]


def _follow(attempts: Attempts, *endpoints: Any, tokens: dict[int, int] | None = None) -> set[Any]:
    return set(attempts.follow(*endpoints, tokens=tokens))


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "offer",
                "offer",
                "offer",
                "end",
                "end",
                "fail",
                "none",
                "demand",
                "pause",
                "resume",
                "tick",
                "again",
            ]
        ),
        st.integers(min_value=0, max_value=5),
    ),
    max_size=150,
)


@given(OPERATIONS)
def test_whatever_happens_limits_hold_and_nothing_is_in_memory_twice(operations):
    asyncio.run(_play(operations))


async def _play(operations: list[tuple[str, int]]) -> None:
    attempts = Attempts()
    endpoints = [
        make_endpoint(f"ep{n}", max_concurrency=n + 1, host_key=("one.test", 443)) for n in range(6)
    ]
    paused: set[int] = set()

    def follow() -> None:
        now = []
        for n, endpoint in enumerate(endpoints):
            state = EndpointState.PAUSED if n in paused else EndpointState.ACTIVE
            now.append(replace(endpoint, state=state) if endpoint.state is not state else endpoint)
        _follow(attempts, *now)

    follow()
    offered: list[tuple[int, str]] = []
    for number, (operation, which) in enumerate(operations):
        lanes = attempts.lanes
        if operation == "offer":
            if attempts.offer(f"ep{which}", f"wh{number}"):
                offered.append((which, f"wh{number}"))
        elif operation == "again" and offered:
            attempts.offer(f"ep{offered[-1][0]}", offered[-1][1])
        elif operation in {"end", "fail", "none"} and attempts.running:
            result = {"end": True, "fail": False, "none": None}[operation]
            attempts.end(which % len(attempts.running), succeeded=result)
        elif operation == "demand":
            lanes.demand(f"ep{which}", make_delivery(f"person{number}", trigger=Trigger.MANUAL))  # type: ignore[arg-type]  # a NewType
            attempts.permits.pump()
        elif operation in {"pause", "resume"}:
            (paused.add if operation == "pause" else paused.discard)(which)
            follow()
        elif operation == "tick":
            lanes.tick()
        _check(attempts)
    attempts.follow()
    assert not attempts.inventory.active
    while attempts.running:
        attempts.end()
    assert attempts.permits.in_flight == attempts.inventory.ready_bytes == 0
    assert len(attempts.inventory) == 0
    assert set(attempts.inventory.counts) == {0}
    assert not attempts.in_memory()
    assert not attempts.permits._hosts


def _check(attempts: Attempts) -> None:
    lanes, permits = attempts.lanes, attempts.permits
    assert permits.in_flight == len(attempts.running) <= min(TOTAL, PER_HOST)
    for endpoint_id, count in attempts.per_endpoint().items():
        assert count <= int(endpoint_id[2:]) + 1
    ready = [e.id for lane in lanes.lanes.values() for e in (*lane.ready, *lane.urgent)]
    running = [one.entry.id for one in attempts.running]
    assert len(ready) == len(set(ready)) == attempts.inventory.counts[READY]
    assert len(running) == len(set(running)) == attempts.inventory.counts[IN_FLIGHT]
    assert attempts.inventory.ready_bytes == 2 * len(ready)
    # Nobody waits while there is a place for it.
    if permits.in_flight < min(TOTAL, PER_HOST):
        for lane in lanes.lanes.values():
            if lane.wants_permit() and lane.breaker.state is BreakerState.CLOSED:
                assert lane.in_flight >= PER_HOST // 5, (lane.endpoint.id, lane.in_flight)


async def test_free_permits_go_round_between_endpoints():
    attempts = Attempts(total=2)
    _follow(attempts, *(make_endpoint(f"ep{n}") for n in range(4)))
    attempts.may_send = False
    for number in range(40):
        attempts.offer(f"ep{number // 10}", f"wh{number}")
    attempts.may_send = True
    attempts.permits.pump()
    while attempts.running:
        attempts.end()
    order = [int(name[2:]) // 10 for name in attempts.started_names()]
    for start in range(0, 40, 4):
        assert sorted(order[start : start + 4]) == [0, 1, 2, 3]


async def test_lanes_one_endpoint_has_at_most_a_fifth_of_a_busy_host():
    attempts = Attempts(total=100, per_host=10)
    _follow(
        attempts,
        *(
            make_endpoint(f"ep{n}", max_concurrency=10, host_key=("one.test", 443))
            for n in range(5)
        ),
    )
    for number in range(30):
        attempts.offer("ep0", f"greedy{number}")
    assert attempts.per_endpoint() == {"ep0": 10}
    for n in range(1, 5):
        for number in range(30):
            attempts.offer(f"ep{n}", f"wh{n}-{number}")
    for _ in range(30):
        attempts.end()
    assert attempts.per_endpoint() == {f"ep{n}": 2 for n in range(5)}


async def test_a_waiting_lane_that_closed_does_not_keep_the_others_waiting():
    attempts = Attempts(total=100, per_host=1)
    endpoints = [make_endpoint(f"ep{n}", host_key=("one.test", 443)) for n in range(3)]
    _follow(attempts, *endpoints)
    for n in range(3):
        attempts.offer(f"ep{n}", f"wh{n}")
    _follow(
        attempts,
        endpoints[0],
        make_endpoint("ep1", host_key=("one.test", 443), state=EndpointState.PAUSED),
        endpoints[2],
    )
    attempts.end()
    assert attempts.per_endpoint() == {"ep2": 1}


async def test_another_host_is_not_held_up():
    attempts = Attempts(total=100, per_host=1)
    _follow(attempts, make_endpoint("ep1"), make_endpoint("ep2"))
    for number in range(3):
        attempts.offer("ep1", f"a{number}")
    attempts.offer("ep2", "b")
    assert attempts.per_endpoint() == {"ep1": 1, "ep2": 1}


async def test_offer_of_what_is_in_memory_already_is_sent_once():
    """A second copy in the line would be sent as soon as the first had failed: before its time, and miscounted."""
    attempts = Attempts(may_send=False)
    _follow(attempts, make_endpoint(max_concurrency=1))
    assert attempts.offer("ep", "wh")
    assert attempts.offer("ep", "wh")
    attempts.may_send = True
    attempts.permits.pump()
    attempts.commit(attempts.running[0], outcome=Outcome.HTTP_ERROR, next_delay_seconds=5.0)
    attempts.permits.pump()
    assert attempts.started_names() == ["wh"]
    assert attempts.permits.in_flight == 0


async def test_cancel_of_a_ready_delivery_sends_nothing_and_keeps_no_permit():
    attempts = Attempts(may_send=False)
    _follow(attempts, make_endpoint())
    attempts.offer("ep", "wh1")
    attempts.offer("ep", "wh2")
    attempts.lanes.cancel(attempts.lane().endpoint.id, "wh1")
    attempts.may_send = True
    attempts.permits.pump()
    assert attempts.started_names() == ["wh2"]
    assert attempts.permits.in_flight == 1


async def test_a_request_takes_the_place_of_the_scheduled_attempt():
    attempts = Attempts()
    attempts.may_send = False
    _follow(attempts, make_endpoint())
    attempts.offer("ep", "wh")
    assert attempts.lanes.demand("ep", make_delivery("wh", trigger=Trigger.MANUAL))  # type: ignore[arg-type]  # a NewType
    assert not attempts.lanes.demand("ep", make_delivery("wh", trigger=Trigger.MANUAL))  # type: ignore[arg-type]  # a NewType
    attempts.may_send = True
    attempts.permits.pump()
    assert [one.delivery.trigger for one in attempts.running] == [Trigger.MANUAL]


async def test_an_open_breaker_takes_one_probe_and_its_success_lets_the_rest_go():
    attempts = Attempts()
    _follow(attempts, make_endpoint(max_concurrency=10))
    for number in range(30):
        attempts.offer("ep", f"wh{number}")
    for _ in range(10):
        attempts.end(succeeded=False)
    lane = attempts.lane()
    assert len(attempts.inventory.open_breakers()) == 1
    while attempts.running:
        attempts.end(succeeded=False)
    started = len(attempts.started)
    assert started < 30
    probe_at = lane.breaker.probe_at
    assert attempts.inventory.open_breakers() == {lane.endpoint.id: (BreakerState.OPEN, probe_at)}
    assert probe_at is not None
    attempts.clock.advance(probe_at + 0.1 - attempts.clock.monotonic())
    attempts.permits._ask_again(lane)
    assert len(attempts.running) == 1
    attempts.queue.windows.clear()
    attempts.end(succeeded=True)
    assert len(attempts.running) == 7  # the rest was left to Postgres, and is loaded at once
    assert attempts.queue.windows == {"ep"}


async def test_a_persons_request_does_not_wait_for_the_probe():
    attempts = Attempts()
    _follow(attempts, make_endpoint(max_concurrency=10))
    for number in range(30):
        attempts.offer("ep", f"wh{number}")
    while attempts.running:
        attempts.end(succeeded=False)
    assert len(attempts.inventory.open_breakers()) == 1
    assert attempts.lanes.demand("ep", make_delivery("person", trigger=Trigger.MANUAL))  # type: ignore[arg-type]  # a NewType
    attempts.permits.pump()
    assert attempts.started_names()[-1] == "person"


async def test_lane_that_lost_its_shard_forgets_and_the_next_is_loaded():
    attempts = Attempts()
    endpoint = make_endpoint(max_concurrency=1)
    assert _follow(attempts, endpoint) == {"ep"}
    attempts.queue.windows.clear()
    for number in range(3):
        attempts.offer("ep", f"wh{number}")
    assert _follow(attempts, endpoint, tokens={}) == set()
    assert not attempts.offer("ep", "wh9")
    assert attempts.in_memory() == {"wh0"}
    assert _follow(attempts, endpoint, tokens={1: 2}) == {"ep"}
    assert attempts.inventory.find(attempts.lane(), make_delivery("wh0").id) is not None
    attempts.end()
    assert attempts.in_memory() == set()
    assert attempts.permits.in_flight == 0


async def test_lane_overflow_stays_in_postgres_until_the_lane_runs_low():
    attempts = Attempts(bodies_bytes_max=100)
    _follow(attempts, make_endpoint(max_concurrency=1))
    attempts.queue.windows.clear()
    attempts.queue.woken.clear()
    taken = [attempts.offer("ep", f"wh{number}", body=b"x" * 60) for number in range(5)]
    assert taken == [True, True, True, False, False]
    while attempts.running:
        attempts.end()
    assert attempts.queue.woken.is_set()
    assert attempts.queue.windows == {"ep"}


async def test_attempt_not_made_releases_everything_and_is_loaded_again():
    attempts = Attempts()
    _follow(attempts, make_endpoint())
    attempts.offer("ep", "wh")
    attempts.end(succeeded=None)
    lane = attempts.lane()
    assert (attempts.permits.in_flight, len(lane.entries), lane.more_at) == (0, 0, 0.0)
    assert len(attempts.inventory) == 0


@pytest.mark.parametrize("seed", range(3))
async def test_a_random_load_is_sent_whole_and_once(seed):
    chance = random.Random(seed)  # noqa: S311 -- a repeatable load, no secret
    attempts = Attempts(total=20, per_host=7)
    hosts = [("one.test", 443), ("two.test", 443)]
    _follow(
        attempts,
        *(make_endpoint(f"ep{n}", max_concurrency=1 + n, host_key=hosts[n % 2]) for n in range(8)),
    )
    offers = [f"wh{number}" for number in range(400)]
    while offers or attempts.running:
        if offers and (not attempts.running or chance.random() < 0.5):
            attempts.offer(f"ep{chance.randrange(8)}", offers.pop())
        else:
            attempts.end(chance.randrange(len(attempts.running)))
    assert sorted(attempts.started_names()) == sorted(f"wh{n}" for n in range(400))


@pytest.mark.parametrize("rate", [5e-324, float("nan"), float("inf")])
async def test_a_rate_that_somebody_wrote_by_hand_costs_its_own_lane_only(rate: float):
    """Seen: a rate whose interval is infinite ended the daemon, at each start again."""
    attempts = Attempts()
    _follow(attempts, make_endpoint("odd"), make_endpoint("other"))
    _follow(attempts, make_endpoint("odd", rate_limit=rate), make_endpoint("other"))
    attempts.offer("odd", "wh1")
    attempts.offer("other", "wh2")
    assert "wh2" in attempts.started_names()


# --- Controls ------------------------------------------------------------------------------------

WITHOUT_BOUND = 1_000_000


async def _dead_beside_healthy(*, dead_limit: int) -> Counter[str]:
    """A dead endpoint with a backlog ahead of twenty healthy ones; returns who holds the permits."""
    attempts = Attempts(total=50, per_host=50)
    healthy = [make_endpoint(f"ep{n}") for n in range(20)]
    _follow(attempts, make_endpoint("dead", max_concurrency=dead_limit), *healthy)
    for number in range(100):
        attempts.offer("dead", f"backlog{number}")
    for n in range(20):
        attempts.offer(f"ep{n}", f"wh{n}")
    return attempts.per_endpoint()


async def test_r21_control_global_semaphore_gives_a_dead_one_every_permit():
    assert len(await _dead_beside_healthy(dead_limit=10)) == 21
    assert await _dead_beside_healthy(dead_limit=WITHOUT_BOUND) == {"dead": 50}


async def _in_flight_after_an_outage(*, limit: int) -> int:
    attempts = Attempts(total=WITHOUT_BOUND, per_host=WITHOUT_BOUND)
    _follow(attempts, make_endpoint(max_concurrency=limit))
    attempts.may_send = False
    for number in range(300):
        attempts.offer("ep", f"wh{number}")
    attempts.may_send = True
    attempts.permits.pump()
    return attempts.permits.in_flight


async def test_r22_control_releasing_all_that_is_overdue_is_a_flood():
    assert await _in_flight_after_an_outage(limit=10) == 10
    assert await _in_flight_after_an_outage(limit=WITHOUT_BOUND) >= 200


async def _at_one_victim(*, per_host: int) -> int:
    attempts = Attempts(total=500, per_host=per_host)
    endpoints = [
        make_endpoint(f"ep{n}", max_concurrency=10, host_key=("victim.test", 443))
        for n in range(100)
    ]
    _follow(attempts, *endpoints)
    for n in range(1_000):
        attempts.offer(f"ep{n % 100}", f"wh{n}")
    return attempts.permits.in_flight


async def test_a25_many_endpoints_at_one_host_get_what_one_host_gets():
    assert await _at_one_victim(per_host=50) == 50


async def test_a25_control_limits_of_endpoints_alone_add_up_at_the_victim():
    assert await _at_one_victim(per_host=WITHOUT_BOUND) == 500


async def test_a_fan_out_repeated_after_a_lost_claim_sends_no_second_copy():
    """Postgres crashed, lost the claim and has the event again, while the first copy is in memory."""
    attempts = Attempts()
    _follow(attempts, make_endpoint("a", max_concurrency=1))
    endpoint = EndpointId("a")
    first = [(endpoint, make_delivery("d1")), (endpoint, make_delivery("d2"))]
    for _ in range(2):
        attempts.lanes.offer_reserved(attempts.lanes.reserve(first))
        attempts.permits.pump()
    assert [delivery.id for delivery in attempts.started] == ["d1"]
    attempts.end()
    attempts.end()
    assert [delivery.id for delivery in attempts.started] == ["d1", "d2"]
    assert attempts.running == []
    assert len(attempts.inventory) == 0


async def test_a_late_result_makes_its_lane_look_for_more():
    """Fan-out repeated a lost claim while the result was being recorded: the delivery is open, and not in memory."""
    attempts = Attempts()
    _follow(attempts, make_endpoint("a"))
    endpoint = EndpointId("a")
    (lane,) = attempts.lanes.lanes.values()
    for late in (False, True):
        attempts.lanes.offer_reserved(attempts.lanes.reserve([(endpoint, make_delivery("d"))]))
        attempts.permits.pump()
        (running,) = attempts.running
        attempts.commit(running, late=late)
        assert len(attempts.inventory) == 0
        assert (lane.more_at is not None) is late


async def test_no_attempt_starts_at_the_bound_of_unrecorded_ones():
    attempts = Attempts(unrecorded_max=3)
    _follow(attempts, make_endpoint(max_concurrency=10))
    for number in range(10):
        attempts.offer("ep", f"wh{number}")
    assert len(attempts.running) == 3
    running = attempts.running.pop(0)
    attempts.inventory.finish(running.entry)
    running.ended(running.entry, running.endpoint, succeeded=True)
    assert attempts.permits.in_flight == 2  # its result waits for the commit, and counts
    attempts.inventory.forget(running.entry)
    attempts.permits.pump()
    assert attempts.permits.in_flight == 3


async def test_receivers_that_do_not_respond_leave_the_bound_to_others():
    attempts = Attempts(unrecorded_max=3)
    _follow(attempts, make_endpoint("dead", max_concurrency=3), make_endpoint("well"))
    for number in range(3):
        attempts.offer("dead", f"d{number}")
    attempts.offer("well", "w")
    assert len(attempts.running) == 3
    attempts.lanes.tick()
    assert len(attempts.running) == 3, "one tick can begin right after the attempts"
    attempts.lanes.tick()
    assert [str(delivery.id) for delivery in attempts.started][3:] == ["w"]
