"""When intake looks: woken, polled, busy or asleep; never in a busy loop, and through every outage."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dispatcher.core.errors import StoreUnavailableError
from dispatcher.delivery import intake
from dispatcher.delivery.fanout import Overtaken, TakenThrough
from dispatcher.delivery.intake import BACKLOG_CLAIMS, Intake
from dispatcher.delivery.load_queue import LoadQueue
from dispatcher.runtime import probe
from dispatcher.runtime.clock import SystemClock
from dispatcher.store.outbox import FEW_EVENTS_MAX, Poll
from tests.support.stores import FakeSignal


class FakeFanout:
    """Takes events from the world's outbox."""

    def __init__(self, world: "World") -> None:
        self._world = world

    async def __call__(self, events_max: int, *, few: bool = False) -> TakenThrough:
        world = self._world
        world.fews.append(few)
        if few:
            events_max = min(events_max, world.few_max)
        if world.outages:
            world.outages -= 1
            raise StoreUnavailableError("away")
        count = min(events_max, world.waiting)
        world.waiting -= count
        world.claims.append(count)
        return TakenThrough(count, count == events_max)

    async def overtake(self, events_max: int) -> Overtaken:
        world = self._world
        count = min(events_max, world.behind)
        world.behind -= count
        world.overtakes.append(count)
        return Overtaken(count, count)

    def is_unsure(self) -> bool:
        return False

    def expected_deliveries(self, events_max: int) -> float:
        return float(events_max)


class World:
    """An outbox of so many events, and an intake on it."""

    def __init__(self, *, poll_seconds: float = 30.0) -> None:
        self.waiting = 0
        self.claims: list[int] = []
        self.fews: list[bool] = []
        self.few_max = FEW_EVENTS_MAX
        self.polls = 0
        self.outages = 0
        self.woken_by: list[str] = []
        self.alarm = FakeSignal()
        self.room = asyncio.Event()
        self.room.set()
        fake: Any = self  # stands for the other stages
        self.intake = Intake(
            fake,
            fake.fan_out,
            self.alarm,
            fake,
            fake,
            fake,
            LoadQueue(),
            fake,
            metrics=fake,
            clock=SystemClock(),
            batch_events_max=100,
            poll_seconds=poll_seconds,
        )
        self.behind = 0
        self.company = False
        self.notify_waiters_count = 0
        self.overtakes: list[int] = []

    @property
    def fan_out(self) -> Any:
        return FakeFanout(self)

    async def poll(self, *, counts_waiters: bool = False) -> Poll:
        self.polls += 1
        waiters_count = self.notify_waiters_count if counts_waiters else 0
        return Poll(1, self.waiting > 0, requests_waiting=False, notify_waiters_count=waiters_count)

    # Routing table, shards, lanes and metrics.

    def is_stale(self, version: int) -> bool:
        return version != 1

    def has_company(self) -> bool:
        return self.company

    def pump(self) -> None:
        """Starts nothing."""

    @property
    def intake_wakeups(self) -> Any:
        return SimpleNamespace(
            labels=lambda cause: SimpleNamespace(inc=lambda: self.woken_by.append(cause))
        )

    def commit(self, count: int = 1) -> None:
        """Commits events; whoever sleeps is told."""
        self.waiting += count
        if self.alarm.is_asleep:
            self.alarm.woken.set()


@pytest.fixture
async def start():
    """Starts an intake and ends it with the test."""
    running: list[tuple[World, Any]] = []

    async def begin(world: World) -> World:
        running.append((world, asyncio.get_running_loop().create_task(world.intake.run())))
        return world

    yield begin
    for world, task in running:
        world.intake.stop()
        async with asyncio.timeout(5):
            await task


async def test_asleep_it_is_woken_by_a_commit_and_takes_it(start):
    with probe.listen() as heard:
        world = await start(World())
        await heard.wait("intake.asleep")
        assert world.alarm.is_asleep
        claims = len(world.claims)
        world.commit()
        await heard.wait("intake.asleep", count=2)
    assert world.waiting == 0
    assert world.woken_by == ["notify"]
    assert len(world.claims) <= claims + 3


async def test_a_commit_between_the_last_look_and_the_lock_is_found_at_once(start):
    world = World()
    sleep = world.alarm.sleep

    async def late_commit() -> bool:
        if not world.alarm.is_asleep:
            world.waiting += 1  # committed in silence: nobody held the lock yet
        return await sleep()

    world.alarm.sleep = late_commit  # type: ignore[method-assign]  # the hole that is to be covered
    with probe.listen() as heard:
        await start(world)
        await heard.wait("intake.asleep")
    assert world.waiting == 0


async def test_without_a_listener_the_poll_finds_what_was_committed(start):
    world = World(poll_seconds=0.02)
    world.alarm.works = False
    with probe.listen() as heard:
        await start(world)
        await heard.wait("intake.asleep")
        world.commit()
        await heard.wait("intake.asleep", count=4)
    assert world.waiting == 0
    assert "poll" in world.woken_by


async def test_control_without_a_poll_what_a_dead_listener_missed_is_not_found(start):
    """P3: as the test before, for twenty times its poll."""
    world = World(poll_seconds=3_600.0)
    world.alarm.works = False
    with probe.listen() as heard:
        await start(world)
        await heard.wait("intake.asleep")
        world.commit()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(20 * 0.02):
                await heard.wait("intake.asleep", count=2)
    assert world.waiting == 1


async def test_idle_it_asks_once_a_poll_and_no_more(start):
    world = World(poll_seconds=0.02)
    with probe.listen() as heard:
        await start(world)
        await heard.wait("intake.asleep", count=5)
    assert world.polls <= 7
    assert len(world.claims) <= 4


async def test_intake_many_events_are_claimed_in_batches_without_notify(start):
    world = World()
    world.waiting = 50_000
    with probe.listen() as heard:
        await start(world)
        await heard.wait("intake.asleep")
    assert sum(world.claims) == 50_000
    assert max(world.claims) <= 100
    assert world.alarm.is_asleep


async def test_an_outage_is_asked_through_with_backoff(start):
    world = World()
    world.waiting = 10
    world.outages = 3
    with probe.listen() as heard:
        await start(world)
        await heard.wait("intake.asleep")
    assert world.waiting == 0


async def test_crowded_lanes_hold_it_up_for_a_moment_only(start):
    world = World()
    world.room.clear()
    world.waiting = 10
    with probe.listen() as heard:
        await start(world)
        await heard.wait("intake.asleep")
    assert world.waiting == 0


async def test_look_now_polls_at_once(start):
    with probe.listen() as heard:
        world = await start(World())
        await heard.wait("intake.asleep")
        polls = world.polls
        world.intake.poll_now()
        await heard.wait("intake.asleep", count=2)
    assert world.polls == polls + 1


async def test_stopping_wakes_it_and_claims_nothing_more(start):
    with probe.listen() as heard:
        world = await start(World())
        await heard.wait("intake.asleep")
    world.waiting = 5
    world.intake.stop()
    claims = len(world.claims)
    await asyncio.sleep(0)
    assert len(world.claims) == claims


async def test_intake_polls_while_commits_wait_for_a_notify(start, monkeypatch):
    monkeypatch.setattr(intake, "CONTENTION_EVENTS_PER_SECOND", -1.0)
    monkeypatch.setattr(intake, "SILENT_SECONDS", 0.1)
    world = World(poll_seconds=0.02)
    world.notify_waiters_count = intake.CONTENDED_COMMITS
    with probe.listen() as heard:
        await start(world)
        await heard.wait("intake.silenced")
        world.notify_waiters_count = 0
        assert not world.alarm.is_asleep, "producers send none"
        world.commit(3)
        await heard.wait("intake.asleep", count=2)
    assert sum(world.claims) == 3
    assert "notify" not in world.woken_by


async def test_intake_without_contention_goes_on_to_be_notified(start, monkeypatch):
    monkeypatch.setattr(intake, "CONTENTION_EVENTS_PER_SECOND", -1.0)
    world = World(poll_seconds=0.02)
    world.notify_waiters_count = intake.CONTENDED_COMMITS - 1
    with probe.listen() as heard:
        await start(world)
        await heard.wait("intake.asleep", count=3)
        assert world.alarm.is_asleep
    assert world.alarm.wakes == 0


@pytest.mark.parametrize("company", [False, True])
async def test_intake_that_ends_alone_lets_producers_commit_silently(company):
    world = World()
    world.company = company
    with probe.listen() as heard:
        task = asyncio.get_running_loop().create_task(world.intake.run())
        await heard.wait("intake.asleep")
        world.intake.stop()
        async with asyncio.timeout(5):
            await task
    assert world.alarm.wakes == (0 if company else 1), "another replica may sleep by the same sign"


async def test_a_claim_that_never_ends_stops_what_the_watchdog_looks_at(start):
    """F6: hung within, it is seen by the time at which it last went round; refused again and again, by another."""
    world = World()
    hung, let_go = asyncio.Event(), asyncio.Event()

    class Hangs(FakeFanout):
        async def __call__(self, events_max: int, *, few: bool = False) -> TakenThrough:
            del events_max, few
            hung.set()
            await let_go.wait()
            return TakenThrough(0, more=False)

    hangs: Any = Hangs(world)
    world.intake._fanout = hangs
    world.waiting = 1
    await start(world)
    await hung.wait()
    turned_at, looked_at = world.intake.turned_at, world.intake.looked_at
    await asyncio.sleep(0.05)
    assert world.intake.turned_at == turned_at
    assert world.intake.looked_at == looked_at
    let_go.set()


async def test_what_is_refused_again_and_again_turns_and_takes_nothing_in(start):
    world = World(poll_seconds=0.0)
    polled = asyncio.Event()

    async def refuse(**_: object) -> Poll:
        if world.polls:
            polled.set()
        world.polls += 1
        raise StoreUnavailableError("locked")

    world.poll = refuse  # type: ignore[method-assign]  # the outbox is locked
    looked_at, turned_at = world.intake.looked_at, world.intake.turned_at
    await start(world)
    await polled.wait()
    assert world.intake.looked_at == looked_at
    assert world.intake.turned_at > turned_at


async def test_without_a_backlog_no_tenant_is_asked_for(start):
    with probe.listen() as heard:
        world = await start(World())
        await heard.wait("intake.asleep")
        world.commit(100)
        await heard.wait("intake.asleep", count=2)
        assert world.overtakes == []


async def test_in_a_backlog_other_tenants_come_first_and_share_the_batch(start):
    with probe.listen() as heard:
        world = World()
        world.waiting, world.behind = 1_000, 60
        await start(world)
        await heard.wait("intake.asleep")
        assert world.claims[: 1 + BACKLOG_CLAIMS] == [FEW_EVENTS_MAX, 100, 100]
        assert world.overtakes[0] == 50, "half of a batch"
        assert world.claims[1 + BACKLOG_CLAIMS] == 50, "as much as the other tenant got"
        assert sum(world.claims) == 1_000


async def test_intake_after_a_small_claim_expects_a_few_events_again(start):
    with probe.listen() as heard:
        world = await start(World())
        await heard.wait("intake.asleep")
        world.commit(3)
        await heard.wait("intake.asleep", count=2)
        world.commit(300)
        await heard.wait("intake.asleep", count=3)
    assert all(few for few, count in zip(world.fews, world.claims, strict=True) if count <= 3)
    large = [few for few, count in zip(world.fews, world.claims, strict=True) if count == 100]
    assert large
    assert not any(large), "a transaction for many"


async def test_large_events_that_wait_behind_each_other_are_a_backlog(start):
    """The bytes of one event fill a claim of a few, which is not taken for the end of a backlog."""
    world = World()
    world.few_max = 1
    world.waiting, world.behind = 300, 10
    with probe.listen() as heard:
        await start(world)
        await heard.wait("intake.asleep")
    assert world.claims[: 1 + BACKLOG_CLAIMS] == [1, 100, 100]
    assert world.overtakes[0] == 10


async def test_intake_with_another_replica_locks_what_it_claims(start):
    world = World()
    world.company = True
    with probe.listen() as heard:
        await start(world)
        await heard.wait("intake.asleep")
        world.commit(3)
        await heard.wait("intake.asleep", count=2)
    assert world.claims
    assert not any(world.fews)
