"""The batcher: order kept, nothing lost, nothing flushed twice, bounded, the last flush done."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.runtime import batcher as module
from dispatcher.runtime.batcher import Batcher
from dispatcher.runtime.tasks import TaskSet

NEVER = 3_600.0


class AwayError(Exception):
    """The store is away for now."""


class Store:
    """Takes batches; fails or waits where told to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.failures: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()
        self.running = 0

    async def flush(self, items: list[int]) -> None:
        self.begun.set()
        self.running += 1
        assert self.running == 1, "two flushes at once"
        try:
            await self.gate.wait()
            if self.failures:
                raise self.failures.pop(0)
            self.batches.append(list(items))
        finally:
            self.running -= 1


def make(
    store: Store, *, rows_max: int = 3, age_seconds: float = NEVER, pending_max: int = 100
) -> Batcher[int]:
    return Batcher(
        store.flush,
        rows_max=rows_max,
        age_seconds=age_seconds,
        pending_max=pending_max,
        passing_errors=(AwayError,),
    )


@given(
    items=st.lists(st.integers(), max_size=40),
    rows_max=st.integers(1, 10),
    pauses=st.sets(st.integers(0, 39)),
    age_seconds=st.sampled_from([0.0, NEVER]),
)
def test_every_item_is_flushed_once_and_in_order(
    items: list[int], rows_max: int, pauses: set[int], age_seconds: float
):
    async def scenario() -> list[list[int]]:
        store = Store()
        batcher = make(store, rows_max=rows_max, age_seconds=age_seconds)
        async with TaskSet("t") as tasks:
            running = tasks.spawn("run", batcher.run())
            for index, item in enumerate(items):
                batcher.add(item)
                if index in pauses:
                    await asyncio.sleep(0)
            batcher.close()
            await running
        return store.batches

    batches = asyncio.run(scenario())
    assert [item for batch in batches for item in batch] == items
    assert all(1 <= len(batch) <= rows_max for batch in batches)


async def test_a_full_batch_does_not_wait_for_its_age():
    store = Store()
    batcher = make(store, rows_max=2)
    async with TaskSet("t") as tasks:
        tasks.spawn("run", batcher.run())
        batcher.add(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not store.begun.is_set()
        batcher.add(2)
        async with asyncio.timeout(5):
            await store.begun.wait()


async def test_an_old_batch_does_not_wait_for_more():
    store = Store()
    batcher = make(store, age_seconds=0.005)
    async with TaskSet("t") as tasks:
        tasks.spawn("run", batcher.run())
        batcher.add(1)
        async with asyncio.timeout(5):
            await store.begun.wait()


async def test_senders_wait_while_it_is_full_and_go_on_after_a_flush():
    store = Store()
    store.gate.clear()
    batcher = make(store, rows_max=2, pending_max=3)
    async with TaskSet("t") as tasks:
        tasks.spawn("run", batcher.run())
        batcher.add(1)
        batcher.add(2)
        await store.begun.wait()
        await batcher.wait_for_room()
        batcher.add(3)
        sender = tasks.spawn("sender", batcher.wait_for_room())
        await asyncio.sleep(0)
        assert not sender.done()
        assert len(batcher) == 3
        store.gate.set()
        async with asyncio.timeout(5):
            await sender


async def test_a_passing_error_is_tried_again_with_the_same_items(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PAUSE_SECONDS_MIN", 0.0001)
    store = Store()
    store.failures = [AwayError(), AwayError()]
    batcher = make(store)
    async with TaskSet("t") as tasks:
        running = tasks.spawn("run", batcher.run())
        batcher.add(1)
        batcher.close()
        await running
    assert store.batches == [[1]]


async def test_any_other_error_ends_the_stage():
    store = Store()
    store.failures = [ZeroDivisionError()]
    batcher = make(store)
    batcher.add(1)
    batcher.close()
    with pytest.raises(ZeroDivisionError):
        await batcher.run()


async def test_cancelled_in_a_flush_it_ends_it_and_flushes_the_rest():
    store = Store()
    store.gate.clear()
    batcher = make(store, rows_max=2)
    async with TaskSet("t") as tasks:
        running = tasks.spawn("run", batcher.run())
        for item in range(5):
            batcher.add(item)
        await store.begun.wait()
        running.cancel()
        await asyncio.sleep(0)
        store.gate.set()
        await asyncio.wait({running})
    assert store.batches == [[0, 1], [2, 3], [4]]
    assert running.cancelled()


async def test_a_closed_batcher_takes_nothing():
    batcher = make(Store())
    batcher.close()
    with pytest.raises(RuntimeError, match="closed"):
        batcher.add(1)
