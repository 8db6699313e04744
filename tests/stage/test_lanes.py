"""Lanes under any order of events: never over a limit, fair, nothing twice, every permit comes back."""

import asyncio
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.breaker import Breaker, BreakerState
from dispatcher.core.model import EndpointState, Trigger
from dispatcher.delivery.lanes import Lanes
from tests.support.clock import ManualClock
from tests.support.deliveries import make_delivery, make_endpoint

TOTAL, PER_HOST = 12, 10


class Attempts:
    """Stands for the sender: attempts in flight until the test ends them."""

    def __init__(
        self, *, total: int = TOTAL, per_host: int = PER_HOST, bodies_bytes_max: int = 1_000_000
    ) -> None:
        self.may_send = True
        self.running: list[Any] = []
        self.started: list[Any] = []
        self.clock = ManualClock()
        self.lanes = Lanes(
            start=self._start,
            may_send=lambda: self.may_send,
            make_breaker=Breaker,
            total=total,
            per_host=per_host,
            bodies_bytes_max=bodies_bytes_max,
            clock=self.clock,
        )

    def _start(self, lane: Any, delivery: Any) -> None:
        self.running.append((lane, lane.endpoint, delivery))
        self.started.append((lane.endpoint.id, delivery.id))

    def end(self, index: int = 0, *, succeeded: bool | None = True) -> None:
        lane, endpoint, delivery = self.running.pop(index)
        self.lanes.finished(lane, endpoint, delivery, succeeded)
        if succeeded is not None:  # as the scheduler does once the result is committed
            self.lanes.busy.discard(delivery.id)
            self.lanes.release(delivery.id)
            self.lanes.pump()

    def offer(self, endpoint_id: str, name: str, **how: Any) -> bool:
        taken = self.lanes.offer(endpoint_id, make_delivery(name, **how))  # type: ignore[arg-type]  # a NewType
        self.lanes.pump()
        return taken

    def per_endpoint(self) -> Counter[str]:
        return Counter(str(endpoint.id) for _, endpoint, _ in self.running)


def _follow(attempts: Attempts, *endpoints: Any, tokens: dict[int, int] | None = None) -> list[Any]:
    return attempts.lanes.follow(
        {e.id: e for e in endpoints}, tokens if tokens is not None else {1: 1}
    )


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
            lanes.pump()
        elif operation in {"pause", "resume"}:
            (paused.add if operation == "pause" else paused.discard)(which)
            follow()
        elif operation == "tick":
            lanes.tick()
        _check(attempts)
    attempts.lanes.follow({}, {})
    while attempts.running:
        attempts.end()
    lanes = attempts.lanes
    assert lanes.in_flight == lanes.ready_bytes == 0
    assert not lanes.busy
    assert not lanes.held
    assert not lanes._ready_ids
    assert not lanes._hosts


def _check(attempts: Attempts) -> None:
    lanes = attempts.lanes
    assert lanes.in_flight == len(attempts.running) <= min(TOTAL, PER_HOST)
    for endpoint_id, count in attempts.per_endpoint().items():
        assert count <= int(endpoint_id[2:]) + 1
    ready = [delivery.id for lane in lanes.lanes.values() for delivery in lane.ready]
    running = [delivery.id for _, _, delivery in attempts.running]
    assert len(ready) == len(set(ready))
    assert len(running) == len(set(running))
    assert lanes.ready_bytes == 2 * len(ready)
    # Nobody waits while there is a place for it.
    if lanes.in_flight < min(TOTAL, PER_HOST):
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
    attempts.lanes.pump()
    while attempts.running:
        attempts.end()
    order = [endpoint_id for endpoint_id, _ in attempts.started]
    for start in range(0, 40, 4):
        assert sorted(order[start : start + 4]) == ["ep0", "ep1", "ep2", "ep3"]


async def test_one_endpoint_holds_no_more_than_a_fifth_of_a_host_while_others_wait():
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


async def test_a_delivery_that_fan_out_and_the_scheduler_both_bring_is_sent_once():
    """A second copy in the line would be sent as soon as the first had failed: before its time, and miscounted."""
    attempts = Attempts()
    attempts.may_send = False
    _follow(attempts, make_endpoint(max_concurrency=1))
    lane = attempts.lanes.lanes["ep"]  # type: ignore[index]  # a NewType
    delivery = make_delivery("wh")
    attempts.lanes.hold(delivery.id, lane)
    assert attempts.offer("ep", "wh")
    assert attempts.offer("ep", "wh")
    attempts.may_send = True
    attempts.lanes.pump()
    attempts.running.clear()
    attempts.lanes.busy.discard(delivery.id)  # recorded: it waits on the wheel, still held
    attempts.lanes.finished(lane, lane.endpoint, delivery, succeeded=False)
    assert attempts.started == [("ep", "wh")]
    assert attempts.lanes.in_flight == 0


async def test_a_delivery_that_was_cancelled_while_ready_is_not_sent_and_keeps_no_permit():
    attempts = Attempts()
    attempts.may_send = False
    _follow(attempts, make_endpoint())
    attempts.offer("ep", "wh1")
    attempts.offer("ep", "wh2")
    attempts.lanes.release(make_delivery("wh1").id)
    attempts.may_send = True
    attempts.lanes.pump()
    assert attempts.started == [("ep", "wh2")]
    assert attempts.lanes.in_flight == 1


async def test_a_request_takes_the_place_of_the_scheduled_attempt():
    attempts = Attempts()
    attempts.may_send = False
    _follow(attempts, make_endpoint())
    attempts.offer("ep", "wh")
    assert attempts.lanes.demand("ep", make_delivery("wh", trigger=Trigger.MANUAL))  # type: ignore[arg-type]  # a NewType
    assert not attempts.lanes.demand("ep", make_delivery("wh", trigger=Trigger.MANUAL))  # type: ignore[arg-type]  # a NewType
    attempts.may_send = True
    attempts.lanes.pump()
    assert [delivery.trigger for _, _, delivery in attempts.running] == [Trigger.MANUAL]


async def test_an_open_breaker_takes_one_probe_and_its_success_lets_the_rest_go():
    attempts = Attempts()
    _follow(attempts, make_endpoint(max_concurrency=10))
    for number in range(30):
        attempts.offer("ep", f"wh{number}")
    for _ in range(10):
        attempts.end(succeeded=False)
    lane = attempts.lanes.lanes["ep"]  # type: ignore[index]  # a NewType
    assert attempts.lanes.breakers_open() == 1
    while attempts.running:
        attempts.end(succeeded=False)
    started = len(attempts.started)
    assert started < 30
    probe_at = lane.breaker.probe_at
    assert attempts.lanes.open_breakers() == {lane.endpoint.id: (BreakerState.OPEN, probe_at)}
    assert probe_at is not None
    attempts.clock.advance(probe_at + 0.1 - attempts.clock.monotonic())
    attempts.lanes._ask_again(lane)
    assert len(attempts.running) == 1
    attempts.end(succeeded=True)
    assert len(attempts.running) == 10


async def test_a_persons_request_does_not_wait_for_the_probe():
    attempts = Attempts()
    _follow(attempts, make_endpoint(max_concurrency=10))
    for number in range(30):
        attempts.offer("ep", f"wh{number}")
    while attempts.running:
        attempts.end(succeeded=False)
    assert attempts.lanes.breakers_open() == 1
    assert attempts.lanes.demand("ep", make_delivery("person", trigger=Trigger.MANUAL))  # type: ignore[arg-type]  # a NewType
    attempts.lanes.pump()
    assert attempts.started[-1] == ("ep", "person")


async def test_a_lane_that_lost_its_shard_forgets_what_waits_and_a_new_one_is_loaded():
    attempts = Attempts()
    endpoint = make_endpoint(max_concurrency=1)
    assert _follow(attempts, endpoint) == ["ep"]
    for number in range(3):
        attempts.offer("ep", f"wh{number}")
    assert _follow(attempts, endpoint, tokens={}) == []
    assert not attempts.offer("ep", "wh9")
    assert set(attempts.lanes.held) == {"wh0"}
    assert _follow(attempts, endpoint, tokens={1: 2}) == ["ep"]
    attempts.end()
    assert attempts.lanes.held == {}
    assert attempts.lanes.in_flight == 0


async def test_what_does_not_fit_is_left_to_postgres_and_asked_for_when_the_lane_runs_low():
    wanted: list[str] = []
    attempts = Attempts(bodies_bytes_max=100)
    attempts.lanes.refill_wanted = lambda: wanted.append("refill")
    _follow(attempts, make_endpoint(max_concurrency=1))
    taken = [attempts.offer("ep", f"wh{number}", body=b"x" * 60) for number in range(5)]
    assert taken == [True, True, True, False, False]
    while attempts.running:
        attempts.end()
    assert "refill" in wanted
    assert attempts.lanes.wants_refill == {"ep"}


async def test_an_attempt_that_was_none_gives_everything_back_and_is_loaded_again():
    attempts = Attempts()
    _follow(attempts, make_endpoint())
    attempts.offer("ep", "wh")
    attempts.end(succeeded=None)
    lane = attempts.lanes.lanes["ep"]  # type: ignore[index]  # a NewType
    assert (attempts.lanes.in_flight, lane.held_count, lane.more_at) == (0, 0, 0.0)
    assert not attempts.lanes.busy


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
    assert sorted(name for _, name in attempts.started) == sorted(f"wh{n}" for n in range(400))


@pytest.mark.parametrize("rate", [5e-324, float("nan"), float("inf")])
async def test_a_rate_that_somebody_wrote_by_hand_costs_its_own_lane_only(rate: float):
    """Seen: a rate whose interval is infinite ended the daemon, at each start again."""
    attempts = Attempts()
    _follow(attempts, make_endpoint("odd"), make_endpoint("other"))
    _follow(attempts, make_endpoint("odd", rate_limit=rate), make_endpoint("other"))
    attempts.offer("odd", "wh1")
    attempts.offer("other", "wh2")
    assert ("other", "wh2") in attempts.started


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


async def test_r21_control_one_global_semaphore_lets_the_dead_one_hold_every_permit():
    assert len(await _dead_beside_healthy(dead_limit=10)) == 21
    assert await _dead_beside_healthy(dead_limit=WITHOUT_BOUND) == {"dead": 50}


async def _in_flight_after_an_outage(*, limit: int) -> int:
    attempts = Attempts(total=WITHOUT_BOUND, per_host=WITHOUT_BOUND)
    _follow(attempts, make_endpoint(max_concurrency=limit))
    attempts.may_send = False
    for number in range(300):
        attempts.offer("ep", f"wh{number}")
    attempts.may_send = True
    attempts.lanes.pump()
    return attempts.lanes.in_flight


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
    return attempts.lanes.in_flight


async def test_a25_many_endpoints_at_one_host_get_what_one_host_gets():
    assert await _at_one_victim(per_host=50) == 50


async def test_a25_control_limits_of_endpoints_alone_add_up_at_the_victim():
    assert await _at_one_victim(per_host=WITHOUT_BOUND) == 500
