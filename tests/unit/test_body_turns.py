"""Large bodies: few at once, one after the other, with a rest in between; small ones wait for nobody."""

import asyncio
import itertools
from contextlib import AsyncExitStack

import pytest

from dispatcher.admin.api import turns as module
from dispatcher.admin.api.problems import ProblemError
from dispatcher.admin.api.turns import LARGE_BYTES, PLACES, Turns
from tests.support.clock import ManualClock

LARGE, SMALL = b"x" * (LARGE_BYTES + 1), b"x" * LARGE_BYTES
WORK_SECONDS = 0.02


async def test_after_a_large_body_comes_a_rest():
    clock, loop = ManualClock(), asyncio.get_running_loop()
    turns = Turns(monotonic=clock.monotonic)
    ended: list[float] = []

    def work(_: bytes) -> None:
        clock.advance(WORK_SECONDS)
        ended.append(loop.time())

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(turns.run(LARGE, work))
    rests = [later - earlier for earlier, later in itertools.pairwise(ended)]
    assert min(rests) >= 0.9 * WORK_SECONDS * module.REST
    assert await turns.run(SMALL, len) == len(SMALL)


async def test_a_body_that_is_refused_gives_its_turn_on():
    turns = Turns()

    def refuse(_: bytes) -> None:
        raise ProblemError(400, "no JSON")

    for _ in range(2):
        with pytest.raises(ProblemError):
            async with asyncio.timeout(5):
                await turns.run(LARGE, refuse)


@pytest.mark.parametrize("length", [LARGE_BYTES + 1, None])
async def test_there_are_so_many_places_and_who_gets_none_is_told(monkeypatch, length):
    monkeypatch.setattr(module, "WAIT_SECONDS_MAX", 0.01)
    turns = Turns()
    async with AsyncExitStack() as held:
        for _ in range(PLACES):
            await held.enter_async_context(turns.place(length))
        async with turns.place(LARGE_BYTES):
            pass
        with pytest.raises(ProblemError) as caught:
            async with turns.place(length):
                pass
        assert caught.value.status == 503
    async with turns.place(length):
        pass
