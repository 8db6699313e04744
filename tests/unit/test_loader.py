"""The loader with a clock that is moved by hand: due times, re-reading, windows, arrivals and requests."""

from types import SimpleNamespace
from typing import Any

import pytest

from dispatcher.core.errors import StoreUnavailableError
from dispatcher.core.model import DeliveryState, Outcome, Trigger
from dispatcher.delivery.loader import ARRIVAL_SECONDS, ARRIVALS_APART_SECONDS, Loader
from dispatcher.delivery.request_loader import RequestLoader
from dispatcher.store.deliveries import LoadedRow
from dispatcher.store.delivery_requests import EndpointRequestRow
from tests.support.clock import ManualClock
from tests.support.deliveries import AT, NoLateBodies, make_endpoint
from tests.support.stages import Stages
from tests.support.stores import FakeDeliveries

HORIZON = 600.0


class Made(Stages):
    """A loader on real lanes whose attempts are only noted."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.store = FakeDeliveries(self.clock)
        self.late: list[float] = []
        metrics: Any = SimpleNamespace(retry_lateness=SimpleNamespace(observe=self.late.append))
        shards: Any = SimpleNamespace(held=lambda: {1: 1})
        self.loader = Loader(
            self.store,
            self.inventory,
            self.queue,
            self.timer,
            self.lanes,
            self.permits,
            NoLateBodies(),
            RequestLoader(
                self.store,
                self.store,
                self.inventory,
                self.queue,
                self.lanes,
                self.permits,
                NoLateBodies(),
                shards,
            ),
            metrics=metrics,
            clock=self.clock,
        )
        self.follow(make_endpoint("ep", max_concurrency=50))

    async def work(self) -> list[str]:
        """Does what is to be done at this moment; returns what was started by it."""
        before = len(self.started)
        self.timer.turn()
        await self.loader._work()
        return [delivery.id for delivery in self.started[before:]]

    def finish(self, name: str, *, delay: float | None = None, **how: Any) -> None:
        """Ends a started attempt and commits its result."""
        running = next(one for one in reversed(self.running) if one.entry.id == name)
        if delay is not None:
            self.store.put(name, delay, running.delivery.attempt_count + 1)
            how.setdefault("outcome", Outcome.HTTP_ERROR)
        else:
            self.store.open.pop(name, None)
        self.commit(running, next_delay_seconds=delay, **how)


@pytest.fixture
async def made():
    one = Made()
    yield one
    one.loader.stop()


async def test_boot_sends_overdue_oldest_first_and_keeps_those_due_soon(made):
    made.store.put("late", -1.0)
    made.store.put("later", -5.0)
    made.store.put("soon", 10.0)
    made.store.put("far", HORIZON + 1)
    assert await made.work() == ["later", "late"]
    assert len(made.inventory.wheel) == 1
    made.clock.advance(9.9)
    assert await made.work() == []
    made.clock.advance(0.2)
    assert await made.work() == ["soon"]


async def test_retry_is_sent_at_its_time_with_the_databases_row(made):
    made.store.put("wh")
    assert await made.work() == ["wh"]
    made.finish("wh", delay=30.0)
    for _ in range(30):
        made.clock.advance(0.99)
        assert await made.work() == []
    made.clock.advance(0.31)
    assert await made.work() == ["wh"]
    assert made.started[-1].attempt_count == 1
    assert made.started[-1].state is DeliveryState.RETRYING
    assert 0 <= made.late[0] < 1


@pytest.mark.parametrize("retries", [[30.0, 120.0, 600.0, 3600.0, 21600.0], [1.0, 2.0, 4.0]])
async def test_a_whole_schedule_is_kept_to(made, retries):
    """Six attempts for `wms`, four for `humansoft`; delays beyond the horizon wait in the database."""
    made.store.put("wh")
    sent_at = []
    due = made.clock.monotonic()
    for delay in [*retries, None]:
        while not await made.work():
            made.clock.advance(30.0 if due - made.clock.monotonic() > 60.0 else 0.5)
        sent_at.append((made.clock.monotonic(), due))
        made.finish("wh", delay=delay)
        due = made.clock.monotonic() + (delay or 0)
    assert len(sent_at) == len(retries) + 1
    for at, wanted in sent_at:
        assert wanted <= at <= wanted + 0.6
    assert made.in_memory() == set()


async def test_what_was_cancelled_or_moved_meanwhile_is_not_sent(made):
    made.store.put("cancelled", 5.0)
    made.store.put("moved", 5.0)
    await made.work()
    del made.store.open["cancelled"]
    made.store.put("moved", 60.0, 1)
    made.clock.advance(6.0)
    assert await made.work() == []
    assert made.in_memory() == {"moved"}
    made.clock.advance(60.0)
    assert await made.work() == ["moved"]


async def test_full_wheel_leaves_the_rest_to_the_database_and_returns():
    made = Made(timers_max=2)
    for number in range(5):
        made.store.put(f"wh{number}", 10.0 + number)
    await made.work()
    assert len(made.inventory.wheel) == 2
    sent: list[str] = []
    for _ in range(40):
        made.clock.advance(0.5)
        sent += await made.work()
        made.lanes.tick()
    assert sent == [f"wh{number}" for number in range(5)]
    made.loader.stop()


async def test_a_result_that_was_fenced_is_forgotten(made):
    made.store.put("wh")
    await made.work()
    made.commit(made.running[0], fenced=True)
    assert not made.in_memory()
    assert made.inventory.unrecorded == 0


async def test_arrivals_of_other_replicas_are_sent_and_looked_for_without_a_gap(made):
    await made.work()
    made.store.put("theirs", -0.5)
    assert await made.work() == []
    made.queue.add_arrivals()
    assert await made.work() == ["theirs"]
    made.clock.advance(100.0)
    made.queue.add_arrivals()
    await made.work()
    back = [call[1] for call in made.store.calls if call[0] == "arrivals"]
    assert back[-1] >= 130.0


async def test_arrivals_from_before_an_outage_are_found_for_a_while_after_it(made):
    """A server that was frozen commits a fan-out from before, a moment after the first look at arrivals."""
    await made.work()
    made.queue.add_arrivals()
    await made.work()
    made.clock.advance(120.0)
    made.queue.add_arrivals()
    await made.work()
    made.clock.advance(1.0)
    made.store.put("late", -119.0)
    made.queue.add_arrivals()
    assert await made.work() == ["late"]
    for seconds in (ARRIVAL_SECONDS, 1.0):
        made.clock.advance(seconds)
        made.queue.add_arrivals()
        await made.work()
    back = [call[1] for call in made.store.calls if call[0] == "arrivals"]
    assert back[-1] == ARRIVAL_SECONDS + 1.0, "the others are not read again and again"


async def test_announced_arrivals_are_looked_for_apart_and_none_is_forgotten(made):
    await made.work()
    made.store.put("first", -0.5)
    made.queue.add_arrivals()
    assert await made.work() == ["first"]
    made.store.put("second", 0.0)
    made.queue.add_arrivals()
    assert await made.work() == []
    made.clock.advance(ARRIVALS_APART_SECONDS)
    assert await made.work() == ["second"]


async def test_arrivals_that_could_not_be_read_are_read_again(made, monkeypatch):
    await made.work()
    made.store.put("theirs", -0.5)
    made.queue.add_arrivals()

    async def away(*_: object) -> None:
        raise StoreUnavailableError("away")

    with monkeypatch.context() as patched:
        patched.setattr(made.store, "arrivals", away)
        with pytest.raises(StoreUnavailableError):
            await made.work()
    made.clock.advance(ARRIVALS_APART_SECONDS)
    assert await made.work() == ["theirs"]


async def test_a_lane_with_plenty_comes_to_its_arrivals_later(made):
    await made.work()
    made.lane().window = 4
    made.may_send = False
    for n in range(2):
        made.offer("ep", f"wh{n}")
    made.store.put("theirs", -0.5)
    made.queue.add_arrivals()
    await made.work()
    assert [call[0] for call in made.store.calls].count("arrivals") == 0
    assert made.lane().more_at == 0.0, "it is refilled when it runs low"


async def test_a_delivery_in_the_line_twice_is_offered_once():
    made = Made(may_send=False)
    made.store.put("wh", -1.0)
    await made.work()
    made.queue.add_windows([made.lane().endpoint.id])
    await made.work()
    assert [entry.id for entry in made.lane().ready] == ["wh"]
    made.loader.stop()


async def test_resend_is_sent_now_and_its_failure_keeps_the_retry(made):
    made.store.put("wh", 50.0, 1)
    await made.work()
    made.store.requested = [("resend", "wh")]
    made.queue.add_requests()
    assert await made.work() == ["wh"]
    assert made.started[-1].trigger is Trigger.MANUAL
    assert await made.work() == [], "one request, one attempt"
    made.store.requested = []
    due = made.store.open["wh"][0]
    made.commit(made.running[-1], outcome=Outcome.HTTP_ERROR)
    assert await made.work() == []
    made.clock.advance(due - made.clock.monotonic() + 0.1)
    assert await made.work() == ["wh"]


async def test_a_request_that_an_attempt_in_flight_has_answered_is_forgotten(made):
    made.store.put("wh", 50.0, 1)
    made.store.requested = [("resend", "wh")]
    made.store.answered = {"wh"}
    made.queue.add_requests()
    assert await made.work() == []
    assert made.store.forgotten == [("wh", "resend")]


async def test_a_cancellation_takes_the_delivery_out_of_memory(made):
    made.store.put("wh", 50.0)
    await made.work()
    made.store.requested = [("cancel", "wh")]
    made.queue.add_requests()
    await made.work()
    assert made.store.forgotten == [("wh", "cancel")]
    assert not made.in_memory()
    assert len(made.inventory.wheel) == 0


async def test_a_delivery_without_its_body_is_left_alone(made, monkeypatch):
    made.store.put("wh", -1.0)
    load = made.store.load

    async def bodiless(ids: Any) -> list[LoadedRow]:
        return [row._replace(body=None) for row in await load(ids)]

    monkeypatch.setattr(made.store, "load", bodiless)
    assert await made.work() == []
    assert not made.in_memory()


async def test_offering_from_fan_out_meanwhile_is_no_second_attempt(made):
    made.may_send = False
    made.store.put("wh", -1.0)
    await made.work()
    made.offer("ep", "wh")
    made.may_send = True
    made.permits.pump()
    assert [delivery.id for delivery in made.started] == ["wh"]


class WallClock(ManualClock):
    """Known-bad: takes what people read for the time that passes."""

    def monotonic(self) -> float:
        return self.now().timestamp()


@pytest.mark.parametrize("kind", [ManualClock, WallClock])
async def test_p16_wall_clock_set_back_delays_a_retry_in_the_control_alone(kind):
    clock = kind()
    made = Made(clock=clock)
    made.store.put("wh", due_in=2.0, attempt_count=1)
    assert await made.work() == []
    clock.step_wall(-3_600.0)
    for one in (clock, made.clock):
        one.advance(2.1)
    assert await made.work() == ([] if kind is WallClock else ["wh"])


@pytest.mark.parametrize(
    "bounds",
    [{}, {"timers_max": 10**9, "horizon_seconds": 10**6}],
    ids=["ours", "known-bad"],
)
async def test_p17_start_loads_its_window_and_the_control_everything(
    bounds: dict[str, Any],
):
    """Retries of a day, one a minute; the known-bad start loads whatever there is."""
    made = Made(**bounds)
    for number in range(1_440):
        made.store.put(f"wh{number}", due_in=60.0 * (number + 1), attempt_count=1)
    await made.work()
    held = len(made.in_memory())
    if bounds:
        assert held == 1_440
    else:
        assert held <= HORIZON / 60.0


def _request(kind: str, *, succeeded: bool | None = None) -> EndpointRequestRow:
    return EndpointRequestRow("ep", 1, kind, AT, succeeded)  # type: ignore[arg-type]  # NewTypes


async def test_reload_of_an_endpoint_follows_due_times_that_were_moved(made):
    made.store.put("sooner", 60.0)
    made.store.put("gone", 60.0)
    assert await made.work() == []
    made.store.put("sooner", 0.0)
    del made.store.open["gone"]
    made.store.about_endpoints = [_request("reload")]
    made.queue.add_requests()
    assert await made.work() == ["sooner"]
    assert made.store.about_endpoints == []
    assert len(made.inventory) == 1, "the cancelled one is not in memory"


async def test_control_due_time_moved_without_a_request_goes_unseen(made):
    made.store.put("sooner", 60.0)
    assert await made.work() == []
    made.store.put("sooner", 0.0)
    made.queue.add_requests()
    assert await made.work() == [], "memory has the due time of before"


async def test_retry_of_an_endpoint_waits_for_its_attempt_then_releases(made, monkeypatch):
    monkeypatch.setattr("dispatcher.delivery.request_loader.RELEASED_ROWS_MAX", 2)
    for number in range(5):
        made.store.put(f"wh{number}", HORIZON + number, 1)
    made.store.about_endpoints = [_request("retry")]
    made.queue.add_requests()
    assert await made.work() == []
    assert len(made.store.about_endpoints) == 1, "its attempt is not recorded yet"
    made.store.about_endpoints = [_request("retry", succeeded=True)]
    made.queue.add_requests()
    assert await made.work() == []
    assert len(made.store.about_endpoints) == 1, "a slice is released, and the request stays"
    await made.work()
    assert await made.work() == [f"wh{number}" for number in range(5)]
    assert made.store.about_endpoints == []


async def test_retry_of_an_endpoint_that_failed_releases_nothing(made):
    made.store.put("wh", 60.0, 1)
    made.store.about_endpoints = [_request("retry", succeeded=False)]
    made.queue.add_requests()
    assert await made.work() == []
    assert made.store.about_endpoints == []
    assert made.store.open["wh"][0] > made.clock.monotonic()
