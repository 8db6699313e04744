"""Test signals: code reports what just happened, and tests wait for that instead of sleeping.

`hit` costs one look at an empty dictionary while no test listens, so it may stand in hot code. A
test opens `listen()` *before* it causes anything, so that no signal can be missed:

```python
with probe.listen() as signals:
    recorder.add(result)
    facts = await signals.wait("recorder.flushed", rows=1)
```

Everything happens on one event loop; signals are no part of the program's behaviour.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_listeners: list["ProbeLog"] = []


def hit(name: str, **facts: Any) -> None:  # noqa: ANN401 -- facts are whatever the test wants to see
    """Report to every listener that `name` has just happened."""
    if _listeners:
        for listener in _listeners:
            listener.hear(name, facts)


class ProbeLog:
    """The signals received since `listen` was entered, and the wait for more."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self._changed = asyncio.Event()

    def hear(self, name: str, facts: dict[str, Any]) -> None:
        """Record a signal and wake the tasks that wait for it."""
        self.heard.append((name, facts))
        self._changed.set()

    def of(self, name: str, **wanted: Any) -> list[dict[str, Any]]:  # noqa: ANN401 -- as in hit
        """Return the facts of each signal received so far with this name and these facts."""
        return [
            facts
            for heard, facts in self.heard
            if heard == name and all(facts.get(key) == value for key, value in wanted.items())
        ]

    async def wait(
        self,
        name: str,
        *,
        count: int = 1,
        timeout_seconds: float = 10.0,
        **wanted: Any,  # noqa: ANN401 -- as in hit
    ) -> dict[str, Any]:
        """Return the facts of the `count`-th such signal, waiting for it where it has not come.

        Raises:
            TimeoutError: it did not arrive in time; the message lists the signals that did.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                while len(found := self.of(name, **wanted)) < count:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            names = sorted({heard for heard, _ in self.heard})
            raise TimeoutError(f"{name} {wanted or ''} did not come; received: {names}") from None
        return found[count - 1]


@contextmanager
def listen() -> Iterator[ProbeLog]:
    """Collects signals for as long as the block runs."""
    listener = ProbeLog()
    _listeners.append(listener)
    try:
        yield listener
    finally:
        _listeners.remove(listener)
