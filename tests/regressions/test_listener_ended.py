"""A LISTEN connection that ends in the middle of a question ended the daemon.

Postgres ends the backend, asyncpg is between two steps of an operation and raises its InternalClientError,
which is neither of its other two kinds. It was seen once in thirty kills, under load.
"""

from typing import Any

import asyncpg

from dispatcher.store.listener import NotifyListener


class Ended:
    """A connection in that state."""

    def __init__(self) -> None:
        self.is_terminated = False

    async def fetchval(self, sql: str, *_: float) -> bool:
        raise asyncpg.InternalClientError(f"cannot switch to state 12 for {sql[:6]}")

    def terminate(self) -> None:
        self.is_terminated = True


async def test_a_question_that_asyncpg_cannot_ask_any_more_is_answered_no():
    listener = NotifyListener(
        "postgresql://unused/", control=lambda _: None, arrived=lambda: None, name="test"
    )
    connection: Any = Ended()
    listener._connection = connection
    listener.is_up = True
    assert not await listener.sleep()
    assert connection.is_terminated
    assert not listener.is_asleep
