"""Large bodies: few at once, one after the other, with rests in between; small ones never wait."""

import asyncio
import itertools
from contextlib import AsyncExitStack

import pytest

from dispatcher.admin.api import body as module
from dispatcher.admin.api.body import LARGE_BYTES, PLACES, BodyReader
from dispatcher.admin.api.decoder import Steps
from dispatcher.admin.api.problems import ProblemError
from tests.support.clock import ManualClock

WORK_SECONDS = 0.005


async def test_a_large_body_rests_between_its_steps():
    clock, loop = ManualClock(), asyncio.get_running_loop()
    reader = BodyReader(monotonic=clock.monotonic)
    ended: list[tuple[int, float]] = []

    def work(number: int) -> Steps[int]:
        for _ in range(3):
            clock.advance(WORK_SECONDS)
            ended.append((number, loop.time()))
            yield
        return number

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(reader.run(work(n), LARGE_BYTES + 1)) for n in range(3)]
    assert [task.result() for task in tasks] == [0, 1, 2]
    assert [number for number, _ in ended] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    rests = [later[1] - earlier[1] for earlier, later in itertools.pairwise(ended)]
    assert min(rests) >= 0.9 * WORK_SECONDS * module.REST


async def test_a_small_body_waits_for_no_large_one():
    clock = ManualClock()
    reader = BodyReader(monotonic=clock.monotonic)
    held = asyncio.Event()

    def endless() -> Steps[None]:
        while True:
            held.set()
            clock.advance(WORK_SECONDS)
            yield

    def work() -> Steps[int]:
        clock.advance(WORK_SECONDS)
        yield
        return 7

    large = asyncio.ensure_future(reader.run(endless(), LARGE_BYTES + 1))
    await held.wait()
    try:
        async with asyncio.timeout(5):
            assert await reader.run(work(), LARGE_BYTES) == 7
    finally:
        large.cancel()
        await asyncio.wait([large])


async def test_other_tasks_run_between_two_steps():
    clock = ManualClock()
    reader = BodyReader(monotonic=clock.monotonic)
    turns: list[str] = []

    def work() -> Steps[None]:
        for _ in range(3):
            clock.advance(WORK_SECONDS)
            turns.append("step")
            yield

    async def other() -> None:
        for _ in range(3):
            turns.append("other")
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(reader.run(work(), LARGE_BYTES))
        group.create_task(other())
    assert turns == ["step", "other"] * 3


async def test_a_rejected_body_releases_its_turn():
    reader = BodyReader()

    def reject() -> Steps[None]:
        yield
        raise ProblemError(400, "not JSON")

    for _ in range(2):
        with pytest.raises(ProblemError):
            async with asyncio.timeout(5):
                await reader.run(reject(), LARGE_BYTES + 1)


@pytest.mark.parametrize("length", [LARGE_BYTES + 1, None])
async def test_a_body_without_a_place_is_rejected(monkeypatch, length):
    monkeypatch.setattr(module, "WAIT_SECONDS_MAX", 0.01)
    reader = BodyReader()
    async with AsyncExitStack() as held:
        for _ in range(PLACES):
            await held.enter_async_context(reader.place(length))
        async with reader.place(LARGE_BYTES):
            pass
        with pytest.raises(ProblemError) as caught:
            async with reader.place(length):
                pass
        assert caught.value.status == 503
    async with reader.place(length):
        pass
