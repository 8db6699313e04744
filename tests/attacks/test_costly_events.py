"""Events whose data are slow to rewrite for JavaScript: a producer inserts them, and the others' events go on."""

import asyncio
import contextlib
import time

import pytest

from dispatcher.delivery import batch, fanout
from dispatcher.delivery.batch import Batch
from dispatcher.runtime.clock import SystemClock
from tests.support.deliveries import make_endpoint
from tests.support.pace import in_time
from tests.support.stores import FakeClaim
from tests.unit.test_fanout import World, make_event
from tests.wire.vectors import PROFILES

COSTLY = '{"a":[' + ",".join(f"{number}e99" for number in range(7_000)) + "]}"
"""54,897 characters; some 130 ms on a quiet machine. 400 of them stopped the process for 56 s."""
LOOP_SECONDS_MAX = 1.0
CLAIM_SECONDS_MAX = 5.0
"""Below the 10 s after which Postgres ends an idle transaction, on a busy machine too."""


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("tests.unit.test_fanout.ManualClock", SystemClock)
    return World(make_endpoint("js", profile=PROFILES["humansoft"], profile_name="humansoft"))


async def _beat(gaps: list[float]) -> None:
    """Notes for how long the event loop kept this task waiting beyond its sleep."""
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.001)
        gaps.append(time.monotonic() - before)


async def test_costly_events_leave_the_loop_and_the_claim_short(world: World) -> None:
    world.outbox.waiting = [make_event(f"e{number}", COSTLY) for number in range(60)]
    gaps: list[float] = []
    beat = asyncio.get_running_loop().create_task(_beat(gaps))
    claims: list[float] = []
    try:
        while world.outbox.committed_count < 4:
            began = time.monotonic()
            taken = await world.fanout(1_200)
            claims.append(time.monotonic() - began)
            assert taken.more
    finally:
        beat.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beat
    assert in_time(max(gaps, default=float("inf")), LOOP_SECONDS_MAX)
    assert in_time(max(claims), CLAIM_SECONDS_MAX)
    assert world.outbox.quarantined == []


async def test_cheap_events_after_costly_ones_come_in_full_batches_again(world: World) -> None:
    world.outbox.waiting = [make_event(f"c{number}", COSTLY) for number in range(30)]
    while world.outbox.waiting:
        await world.fanout(1_200)
    world.outbox.waiting = [make_event(f"e{number}") for number in range(2_000)]
    sizes = []
    while world.outbox.waiting:
        sizes.append((await world.fanout(400)).events_count)
    assert sizes[-2] == 400


async def test_an_event_that_takes_long_keeps_its_claim_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "KEEP_SECONDS", 0.01)
    claim = FakeClaim([make_event("e1", COSTLY)], 1)
    made = Batch(claim)
    await made.encode_apart(claim.events[0], world.endpoints)
    assert claim.kept_open_count > 0


async def test_picked_costly_events_are_cut_and_none_is_left_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "ENCODING_SECONDS_MAX", 0.0)
    world.outbox.behind = {number: make_event(f"p{number}", COSTLY) for number in range(8)}
    while world.outbox.behind:
        assert (await world.fanout.overtake(100)).events_count > 0
    assert world.outbox.left == []


async def test_control_one_batch_of_costly_events_holds_the_loop(world: World) -> None:
    claim = FakeClaim([make_event(f"e{number}", COSTLY) for number in range(90)], 1)
    made = Batch(claim)
    began = time.monotonic()
    for event in claim.events:
        made.add(event, world.endpoints[0])
    assert time.monotonic() - began > LOOP_SECONDS_MAX
