"""The lease: trusted by monotonic time alone, shared fairly, given back when quiet, kept when the others go."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from dispatcher.core.limits import SHARDS_COUNT
from dispatcher.delivery.shards import Replica, Shards
from dispatcher.runtime import probe
from tests.support.clock import ManualClock
from tests.support.stores import FakeLeases


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class Told:
    """What the shards told the others."""

    def __init__(self) -> None:
        self.changes: list[int] = []
        self.lost: list[int] = []
        self.busy: set[int] = set()

    def is_quiet(self, shard: int) -> bool:
        return shard not in self.busy

    @property
    def leases_lost(self) -> Any:
        return SimpleNamespace(inc=self.lost.append)


@pytest.fixture
def made(clock: ManualClock) -> tuple[Shards, FakeLeases, Told]:
    told, leases = Told(), FakeLeases()
    inventory: Any = told
    metrics: Any = told
    shards: Shards = Shards(
        leases,
        inventory,
        Replica("me", "me", "1"),
        metrics=metrics,
        clock=clock,
        lease_seconds=10.0,
        renew_seconds=2.0,
    )
    shards.changed = lambda: told.changes.append(len(shards.held()))
    return shards, leases, told


async def test_a_lease_is_trusted_for_its_seconds_from_before_the_renewal(made, clock):
    shards, _, told = made
    assert not shards.is_trusted()
    assert await shards._renew()
    assert told.changes == [SHARDS_COUNT]
    clock.advance(7.9)
    assert shards.is_trusted()
    clock.advance(0.2)
    assert not shards.is_trusted()
    clock.step_wall(-3_600)
    assert not shards.is_trusted()


async def test_a_call_makes_it_renew_at_once(made):
    """Another replica left: its shards are taken without waiting for the next renewal, 2 s away."""
    shards, leases, told = made
    leases.others = 1
    leases.others_shards = set(range(32))
    with probe.listen() as heard:
        async with asyncio.TaskGroup() as group:
            group.create_task(shards.run())
            await heard.wait("shards.changed", count=1)
            assert len(shards.held()) == 32
            leases.others, leases.others_shards = 0, set()
            shards.poll_now()
            await heard.wait("shards.changed", count=2, timeout_seconds=1.0)
            shards.stop()
    assert told.changes == [32, SHARDS_COUNT]


async def test_a_takeover_is_counted_and_followed(made):
    shards, leases, told = made
    await shards._renew()
    leases.others_shards = set(range(SHARDS_COUNT))
    leases.mine = {}
    await shards._renew()
    assert told.lost == [SHARDS_COUNT]
    assert shards.held() == {}
    assert told.changes[-1] == 0


async def test_a_buried_incarnation_stops_sending_and_joins_again(made):
    shards, leases, told = made
    await shards._renew()
    leases.expired = True
    assert not await shards._renew()
    assert shards.held() == {}
    assert told.lost == [SHARDS_COUNT]


async def test_a_second_replica_is_given_half_once_it_is_quiet(made):
    shards, leases, told = made
    await shards._renew()
    leases.others = 1
    told.busy = {63}
    await shards._renew()
    assert len(shards.held()) == SHARDS_COUNT // 2
    assert 63 in leases.mine
    assert len(leases.mine) == SHARDS_COUNT // 2 + 1
    told.busy = set()
    await shards._renew()
    assert len(leases.mine) == SHARDS_COUNT // 2
    assert told.lost == []


async def test_shards_that_were_to_be_given_back_are_kept_when_the_other_goes(made):
    shards, leases, told = made
    await shards._renew()
    leases.others = 1
    told.busy = set(range(SHARDS_COUNT))
    await shards._renew()
    assert len(shards.held()) == SHARDS_COUNT // 2
    leases.others = 0
    await shards._renew()
    assert len(shards.held()) == SHARDS_COUNT
    assert told.changes[-1] == SHARDS_COUNT, "lanes have to be told, or these shards stand still"


async def test_company_is_remembered_for_a_while(made, clock):
    shards, leases, _ = made
    assert not shards.has_company()
    leases.others = 1
    await shards._renew()
    leases.others = 0
    await shards._renew()
    clock.advance(29)
    assert shards.has_company()
    clock.advance(2)
    assert not shards.has_company()


async def test_company_is_noticed_by_a_join_before_its_lease_is_seen(made, clock):
    shards, leases, _ = made
    leases.join_number = 7
    await shards._join()
    shards.follow_joins(7)
    assert not shards.has_company(), "its own join"
    shards.follow_joins(8)
    assert shards.has_company()
    clock.advance(31)
    shards.follow_joins(8)
    assert not shards.has_company(), "noticed before"
    leases.join_number = 9
    await shards._join()
    assert not shards.has_company(), "it joined again, alone"
    leases.join_number = 11
    await shards._join()
    assert shards.has_company(), "another one joined before it joined again"


async def test_leaving_gives_everything_back_and_ends_trust(made):
    shards, leases, _ = made
    await shards._renew()
    await shards.leave()
    assert leases.mine == {}
    assert not shards.is_trusted()
    assert shards.held() == {}
