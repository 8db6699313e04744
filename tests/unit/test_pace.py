"""The controls that bounds on time are relative to: they follow the machine, and a late result still fails."""

import asyncio
import time

import pytest

from tests.support import pace


async def test_within_a_process_that_got_no_cpu_passes():
    async def work() -> str:
        await asyncio.sleep(0.02)
        await asyncio.sleep(0)
        return "done"

    loop = asyncio.get_running_loop()
    # The loop stands still until both the work's timer and the bound's are overdue.
    loop.call_later(0.005, time.sleep, 0.2)
    assert await pace.within(0.1, work()) == "done"


async def test_within_work_that_is_late_fails():
    with pytest.raises(pytest.fail.Exception, match=r"not within 0\.02 s"):
        await pace.within(0.02, asyncio.sleep(1.0))


async def test_within_work_that_raises_raises_its_error():
    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await pace.within(1.0, work())


def test_in_time_grows_at_most_by_the_slowness(monkeypatch):
    monkeypatch.setattr(pace, "slowness", lambda: 2.0)
    assert [pace.in_time(seconds, 1.0) for seconds in (0.9, 1.9, 2.1)] == [True, True, False]


def test_slowness_is_between_one_and_its_maximum(monkeypatch):
    assert 1.0 <= pace.slowness() <= pace.SLOWNESS_MAX
    monkeypatch.setattr(pace, "_IDLE_SECONDS", 1e-9)
    assert pace.slowness() == pace.SLOWNESS_MAX


def test_cpu_cost_of_a_quadratic_scan_is_beyond_forty_passes():
    data = bytes(5_000)
    with pace.cpu_cost() as cost:
        for end in range(0, len(data), 20):
            sum(data[:end])
            for _ in data[:end]:
                pass
    assert cost.passes(len(data)) > 40


def test_cpu_cost_of_one_pass_is_a_few_passes():
    data = bytes(500_000)
    with pace.cpu_cost() as cost:
        total = 0
        for number in data:
            total += number
    assert 0.2 < cost.passes(len(data)) < 5
