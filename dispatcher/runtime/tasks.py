"""The only maker of tasks: each has a name, an owner that waits for it, and no silent end.

A `TaskSet` owns tasks that come and go while a stage runs. What is always true of it:

* A task that ends with an error is logged once, by name, and its error is kept: `failure()` raises
  it to the supervisor of the set, so that a dead stage ends the daemon and its supervisor starts
  it again. A daemon that lives on with a dead part would look healthy and deliver nothing.
* A cancelled task is not a failure.
* Leaving the set's `async with` block cancels what still runs and waits for it, up to a bound. What
  does not end in that time is named in the log and left: shutdown must end.
"""

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

CANCEL_SECONDS_MAX = 5.0
"""How long a cancelled task may clean up before it is given up."""

Result = TypeVar("Result")
_log = structlog.get_logger("dispatcher.runtime.tasks")


async def cancel_and_wait(
    tasks: set[asyncio.Task[Any]], timeout_seconds: float = CANCEL_SECONDS_MAX
) -> list[str]:
    """Cancels tasks, waits for them, and returns the names of those that would not end in time."""
    for task in tasks:
        task.cancel()
    if not tasks:
        return []
    _, stubborn = await asyncio.wait(tasks, timeout=timeout_seconds)
    names = sorted(task.get_name() for task in stubborn)
    if names:
        _log.error("task.cancellation_ignored", tasks=names, timeout_seconds=timeout_seconds)
    return names


class TaskSet:
    """The tasks of one owner.

    `tasks` is written by `spawn` and by each task's end, both on the event loop; others only read.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.tasks: set[asyncio.Task[Any]] = set()
        self._failed: asyncio.Future[None] | None = None
        self._error: BaseException | None = None

    def __len__(self) -> int:
        return len(self.tasks)

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """Starts a task of this set; `name` describes it in logs and task dumps."""
        task = asyncio.get_running_loop().create_task(coroutine, name=f"{self.name}.{name}")
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        _log.error("task.died", task=task.get_name(), exc_info=error)
        if self._error is None:
            self._error = error
            if self._failed is not None and not self._failed.done():
                self._failed.set_exception(error)

    async def failure(self) -> None:
        """Wait until a task of the set fails, and raise its error."""
        if self._error is not None:
            raise self._error
        if self._failed is None:
            self._failed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._failed)

    async def join(self) -> None:
        """Wait until no task is left, including those started meanwhile; errors stay in the set."""
        while self.tasks:
            await asyncio.wait(self.tasks)

    async def cancel(self, timeout_seconds: float = CANCEL_SECONDS_MAX) -> list[str]:
        """Cancels every task and waits; return the names of those that would not end in time."""
        return await cancel_and_wait(set(self.tasks), timeout_seconds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.cancel()
        if self._failed is not None and self._failed.done() and not self._failed.cancelled():
            self._failed.exception()  # Seen: the event loop need not report it once more.
        if error is None and self._error is not None:
            raise self._error
