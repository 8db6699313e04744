"""Traffic counts: what they add up, what it keeps while Postgres is away, and what it publishes when."""

import sys

import pytest

from dispatcher.core import histogram
from dispatcher.core.breaker import BreakerState
from dispatcher.core.errors import StoreUnavailableError
from dispatcher.core.failing import SHARE_SECONDS
from dispatcher.core.model import DeliveryState, EndpointId, Outcome
from dispatcher.delivery.reporting import traffic_counts as module
from dispatcher.delivery.reporting.traffic_counts import OpenBreakers, TrafficCounts
from dispatcher.runtime import probe
from dispatcher.runtime.tasks import TaskSet
from dispatcher.store.statistics import BreakerRow, RecentRow, TrafficRow
from tests.support.clock import ManualClock
from tests.support.deliveries import make_delivery, make_endpoint, make_result
from tests.support.stores import FakeStatistics


class World:
    """A traffic with everything around it in the test's hand."""

    def __init__(self) -> None:
        self.store, self.clock = FakeStatistics("one"), ManualClock()
        self.breakers: OpenBreakers = {}
        self.figures: dict[str, object] = {"lanes_count": 1}
        self.tested: list[EndpointId] = []
        self.traffic = TrafficCounts(
            self.store,
            incarnation="one",
            breakers=lambda: self.breakers,
            figures=lambda: self.figures,
            clock=self.clock,
        )
        self.traffic.tested = self.tested.append

    def attempt(self, endpoint: str = "a", outcome: Outcome = Outcome.OK, **changes: str) -> None:
        made = make_endpoint(endpoint, tenant=changes.get("tenant", "default"))
        self.traffic.add_all([make_result(make_delivery("d"), endpoint=made, outcome=outcome)])

    def subject(self, name: str) -> TrafficRow:
        (row,) = [row for row in self.store.added if row.subject == name]
        return row


@pytest.fixture
async def world() -> World:
    return World()


async def test_attempts_are_added_up_for_endpoint_tenant_and_all(world: World) -> None:
    world.attempt("a")
    world.attempt("a", Outcome.HTTP_ERROR)
    world.attempt("b", Outcome.TIMEOUT, tenant="acme")
    await world.traffic.flush()
    assert [row.subject for row in world.store.added] == sorted(
        ["a", "b", "tenant/default", "tenant/acme", "all"]
    )
    ours = world.subject("a")
    assert (ours.ok_count, ours.refused_count, ours.timeout_count) == (1, 1, 0)
    assert (ours.succeeded_count, ours.failed_count) == (1, 0), "a retry has not ended"
    assert (ours.last_outcome, ours.last_response_code) == ("http_error", 500)
    everything = world.subject("all")
    assert (everything.ok_count, everything.refused_count, everything.timeout_count) == (1, 1, 1)
    counts = [int(one) for one in everything.latency_counts.strip("{}").split(",")]
    assert len(counts) == histogram.COUNTS
    assert counts[histogram.place(0.1)] == 3


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_every_outcome_is_counted_once(world: World, outcome: Outcome) -> None:
    world.attempt("a", outcome)
    await world.traffic.flush()
    row = world.subject("a")
    assert row.ok_count + row.refused_count + row.timeout_count + row.unreachable_count == 1


async def test_a_resend_that_changes_nothing_ends_nothing(world: World) -> None:
    delivery = make_delivery("d")._replace(state=DeliveryState.FAILED)
    world.traffic.add_all(
        [
            make_result(
                delivery,
                endpoint=make_endpoint("a"),
                outcome=Outcome.HTTP_ERROR,
                state=DeliveryState.FAILED,
            )
        ]
    )
    await world.traffic.flush()
    assert world.subject("a").failed_count == 0


async def test_nothing_counted_is_nothing_asked(world: World) -> None:
    await world.traffic.flush()
    assert world.store.added == []
    assert world.store.breakers == []
    assert len(world.store.figures) == 1
    await world.traffic.flush()
    assert len(world.store.figures) == 1, "nothing changed"
    world.clock.advance(module.FIGURES_SECONDS_MAX)
    await world.traffic.flush()
    assert len(world.store.figures) == 2, "it still lives"


async def test_counts_are_kept_while_postgres_is_away(world: World) -> None:
    world.attempt("a")
    world.store.is_away = True
    with pytest.raises(StoreUnavailableError):
        await world.traffic.flush()
    world.attempt("a")
    world.attempt("b")
    world.store.is_away = False
    await world.traffic.flush()
    assert world.subject("a").ok_count == 2
    assert world.subject("b").ok_count == 1


async def test_counts_that_postgres_refuses_end_nothing_and_are_not_sent_again(
    world: World,
) -> None:
    world.store.refuses = True
    async with TaskSet("test") as tasks:
        with probe.listen() as heard:
            world.attempt("a")
            world.traffic.stop()
            running = tasks.spawn("traffic", world.traffic.run())
            await running
            assert heard.of("traffic.flushed") == []
    world.store.refuses = False
    world.attempt("b")
    await world.traffic.flush()
    assert [row.subject for row in world.store.added] == ["all", "b", "tenant/default"]


async def test_a_breaker_is_published_when_it_changes(world: World) -> None:
    endpoint = EndpointId("a")
    world.breakers = {endpoint: (BreakerState.OPEN, world.clock.monotonic() + 5.0)}
    await world.traffic.flush()
    await world.traffic.flush()
    assert world.store.breakers == [[BreakerRow("a", "open", 5.0)]]
    world.breakers = {endpoint: (BreakerState.HALF_OPEN, None)}
    await world.traffic.flush()
    world.breakers = {}
    await world.traffic.flush()
    assert world.store.breakers[1:] == [[BreakerRow("a", "half_open", None)], []]


async def test_the_last_counts_are_written_on_the_way_down(world: World) -> None:
    async with TaskSet("test") as tasks:
        with probe.listen() as heard:
            tasks.spawn("traffic", world.traffic.run())
            world.attempt("a")
            world.traffic.stop()
            await heard.wait("traffic.flushed")
            await world.traffic.ended.wait()
    assert world.subject("a").ok_count == 1


async def test_what_a_receiver_said_is_cut_and_fit_for_postgres(world: World) -> None:
    result = make_result(
        make_delivery("d"), endpoint=make_endpoint("a"), outcome=Outcome.PROTOCOL_ERROR
    )
    world.traffic.add_all(
        [result._replace(response=result.response._replace(error="\0\ud800" + "x" * 9_000))]
    )
    await world.traffic.flush()
    error = world.subject("a").last_error
    assert error is not None
    assert "\0" not in error
    assert error.encode()
    assert len(error) <= module.ERROR_CHARACTERS_MAX


async def test_no_body_is_kept_until_the_flush(world: World) -> None:
    """One of a mebibyte for each of a thousand endpoints would be a gigabyte."""
    body = bytearray(b"{}")
    delivery = make_delivery("d", body=body)  # type: ignore[arg-type]  # bytes have no references to count
    result = make_result(delivery, endpoint=make_endpoint("a"))
    del delivery
    before = sys.getrefcount(body)
    world.traffic.add_all([result])
    del result
    assert sys.getrefcount(body) < before


async def test_a_test_event_that_succeeded_closes_a_published_breaker_once(world: World) -> None:
    endpoint = EndpointId("a")
    world.store.tested = [endpoint]
    await world.traffic.flush()
    assert world.tested == []  # none is open
    world.breakers = {endpoint: (BreakerState.OPEN, world.clock.monotonic() + 5.0)}
    await world.traffic.flush()
    await world.traffic.flush()
    await world.traffic.flush()
    assert world.tested == [endpoint]


async def test_minutes_are_written_only_of_endpoints_that_failed_lately(world: World) -> None:
    world.attempt("a")
    await world.traffic.flush()
    assert world.store.recent == []
    world.attempt("a")
    world.attempt("b")
    world.attempt("a", Outcome.HTTP_ERROR)
    world.attempt("a")
    await world.traffic.flush()
    assert world.store.recent == [[RecentRow(EndpointId("a"), 2, 1, "http_error", 500)]]
    world.clock.advance(SHARE_SECONDS - 1)
    world.attempt("a")
    await world.traffic.flush()
    assert world.store.recent[1:] == [[RecentRow(EndpointId("a"), 1, 0, None, None)]]
    world.clock.advance(1)
    world.attempt("a")
    await world.traffic.flush()
    assert len(world.store.recent) == 2, (
        "it has not failed for as long as the share is computed over"
    )
