"""Tasks: no silent end, no orphan, no shutdown that waits for ever; and the test signals."""

import asyncio
from typing import NoReturn

import pytest
from structlog.testing import capture_logs

from dispatcher.runtime import probe
from dispatcher.runtime.tasks import TaskSet, cancel_and_wait


class StageError(Exception):
    """What a stage dies of."""


async def die(text: str = "dead") -> NoReturn:
    raise StageError(text)


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


async def test_a_dead_task_reaches_whoever_supervises():
    tasks = TaskSet("sender")
    with capture_logs() as lines:
        tasks.spawn("attempt", die())
        with pytest.raises(StageError):
            await tasks.failure()
    assert [(line["event"], line["task"]) for line in lines] == [("task.died", "sender.attempt")]


async def test_a_death_before_anybody_looked_is_not_lost():
    tasks = TaskSet("sender")
    tasks.spawn("a", die("first"))
    tasks.spawn("b", die("second"))
    await tasks.join()
    for _ in range(2):
        with pytest.raises(StageError, match="first"):
            await tasks.failure()


async def test_leaving_the_block_raises_the_death_and_cancels_the_others():
    tasks = TaskSet("sender")
    others = []

    async def block() -> None:
        async with tasks:
            others.append(tasks.spawn("other", wait_for_ever()))
            tasks.spawn("attempt", die())
            await asyncio.sleep(0)

    with pytest.raises(StageError):
        await block()
    assert others[0].cancelled()
    assert len(tasks) == 0


async def test_the_error_of_the_block_itself_goes_first():
    async def block() -> None:
        async with TaskSet("sender") as tasks:
            tasks.spawn("attempt", die())
            await tasks.join()
            raise KeyError

    with pytest.raises(KeyError):
        await block()


async def test_a_cancelled_task_is_no_failure():
    async with TaskSet("sender") as tasks:
        task = tasks.spawn("attempt", wait_for_ever())
        await asyncio.sleep(0)
        task.cancel()
        await tasks.join()


async def test_a_watcher_of_failures_ends_by_cancellation_alone():
    async with TaskSet("sender") as tasks, TaskSet("supervisor") as supervisor:
        watcher = supervisor.spawn("watch", tasks.failure())
        await asyncio.sleep(0)
        tasks.spawn("attempt", asyncio.sleep(0))
        await tasks.join()
        assert not watcher.done()


async def test_join_also_waits_for_tasks_that_tasks_start():
    ended = []
    async with TaskSet("sender") as tasks:

        async def child() -> None:
            await asyncio.sleep(0)
            ended.append("child")

        async def parent() -> None:
            await asyncio.sleep(0)
            tasks.spawn("child", child())

        tasks.spawn("parent", parent())
        await tasks.join()
    assert ended == ["child"]


async def test_a_task_that_will_not_end_is_named_and_given_up():
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    tasks = TaskSet("sender")
    tasks.spawn("stubborn", stubborn())
    tasks.spawn("polite", wait_for_ever())
    await asyncio.sleep(0)
    with capture_logs() as lines:
        assert await tasks.cancel(timeout_seconds=0.01) == ["sender.stubborn"]
    assert lines[0]["event"] == "task.cancellation_ignored"
    release.set()
    await tasks.join()


async def test_cancelling_nothing_returns_at_once():
    assert await cancel_and_wait(set()) == []


async def test_a_signal_heard_before_the_wait_is_not_missed():
    with probe.listen() as heard:
        probe.hit("recorder.flushed", rows=1)
        probe.hit("recorder.flushed", rows=2)
        assert await heard.wait("recorder.flushed", rows=2) == {"rows": 2}
        assert await heard.wait("recorder.flushed", count=2) == {"rows": 2}
    probe.hit("recorder.flushed", rows=3)
    assert len(heard.of("recorder.flushed")) == 2


async def test_a_signal_wakes_who_waits():
    async with TaskSet("t") as tasks:
        with probe.listen() as heard:
            waiting = tasks.spawn("wait", heard.wait("a.b", n=1))
            await asyncio.sleep(0)
            probe.hit("a.b", n=0)
            await asyncio.sleep(0)
            assert not waiting.done()
            probe.hit("a.b", n=1)
            assert await waiting == {"n": 1}


async def test_a_signal_that_does_not_come_tells_what_was_heard():
    with probe.listen() as heard:
        probe.hit("other.thing")
        with pytest.raises(TimeoutError, match=r"a\.b.*other\.thing"):
            await heard.wait("a.b", timeout_seconds=0.01)
