"""The producer: commits events in a process of its own and writes down what it meant and what it knows.

`python -m tests.support.ledger LOG PLAN` does what the plan (JSON: `Plan`) says and then ends. Each event has a marker,
which also stands in its data. A line with the marker and the id goes to the log before COMMIT, and one with the outcome
after it: `committed`, `rolled_back`, or `unknown` where the connection died at COMMIT.
"""

import asyncio
import os
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncpg
import orjson

FAULTS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
GIVE_UP_SECONDS = 150.0
"""Longer than any outage of a test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to commit."""

    url: str
    events_count: int
    prefix: str = "m"
    writers: int = 1
    events_per_second: float = 0.0
    """By schedule, over all writers; 0: as fast as it goes."""
    delay_seconds_max: float = 0.0
    """Between INSERT and COMMIT, uniform from 0."""
    rolled_back_share: float = 0.0
    own_id_share: float = 0.0
    """Of events with an id that the producer gives."""
    event_type: str = "order.created"
    data_bytes: int = 100
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Intent:
    """One event as its producer knows it."""

    marker: str
    event_id: str
    event_type: str
    outcome: str
    """`committed`, `rolled_back` or `unknown`."""


def read(path: Path) -> list[Intent]:
    """Returns what the log says; an intent without an outcome is unknown."""
    found: dict[str, Intent] = {}
    # The producer may be writing its last line at this very moment.
    for line in path.read_bytes().rpartition(b"\n")[0].splitlines():
        entry = orjson.loads(line)
        found[entry["marker"]] = Intent(
            entry["marker"], entry["event_id"], entry["event_type"], entry["outcome"]
        )
    return list(found.values())


async def settle(intents: list[Intent], connection: asyncpg.Connection) -> tuple[list[Intent], int]:
    """Asks the database about what is unknown; returns the intents without unknown ones, and how many there were.

    An id does not tell whether an event was committed: after a crash PostgreSQL draws numbers again whose transactions
    were lost, so the id may be that of a later event.
    """
    unknown = [intent.event_id for intent in intents if intent.outcome == "unknown"]
    rows = await connection.fetch(
        "SELECT id, data ->> 'marker' AS marker FROM dispatcher.event_all WHERE id = ANY ($1::text[])",
        unknown,
    )
    there = {(row["id"], row["marker"]) for row in rows}
    return [
        intent
        if intent.outcome != "unknown"
        else Intent(
            intent.marker,
            intent.event_id,
            intent.event_type,
            "committed" if (intent.event_id, intent.marker) in there else "rolled_back",
        )
        for intent in intents
    ], len(unknown)


class Producer:
    """All writers of one plan."""

    def __init__(self, plan: Plan, log: Path) -> None:
        self._plan = plan
        self._descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        self._random = random.Random(plan.seed)  # noqa: S311 -- a repeatable load, no secret
        self._next = 0
        self._started = time.monotonic()

    def _write(self, marker: str, event_id: str, outcome: str) -> None:
        line = {
            "marker": marker,
            "event_id": event_id,
            "event_type": self._plan.event_type,
            "outcome": outcome,
        }
        os.write(self._descriptor, orjson.dumps(line) + b"\n")

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._plan.writers):
                group.create_task(self._writer())

    async def _writer(self) -> None:
        connection: asyncpg.Connection | None = None
        while (number := self._next) < self._plan.events_count:
            self._next += 1
            if self._plan.events_per_second:
                due = self._started + number / self._plan.events_per_second
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            connection = await self._produce(number, connection)
        if connection is not None:
            connection.terminate()

    async def _produce(
        self, number: int, connection: asyncpg.Connection | None
    ) -> asyncpg.Connection:
        """Commits one event; an INSERT that did not get through is made again, a COMMIT never is."""
        plan = self._plan
        marker = f"{plan.prefix}-{number}"
        own_id = f"own-{marker}" if self._random.random() < plan.own_id_share else None
        rolls_back = self._random.random() < plan.rolled_back_share
        delay = self._random.uniform(0.0, plan.delay_seconds_max)
        data = orjson.dumps({"marker": marker, "pad": "x" * plan.data_bytes}).decode()
        give_up_at = time.monotonic() + GIVE_UP_SECONDS
        while True:
            try:
                if connection is None or connection.is_closed():
                    connection = await asyncpg.connect(plan.url, timeout=5.0, command_timeout=30.0)
                await connection.execute("BEGIN")
                event_id = await connection.fetchval(
                    "INSERT INTO dispatcher.outbox (type, data, id) VALUES ($1, $2, $3) RETURNING id",
                    plan.event_type,
                    data,
                    own_id,
                )
                await asyncio.sleep(delay)
            except FAULTS:
                if connection is not None:
                    connection.terminate()
                    connection = None
                if time.monotonic() > give_up_at:
                    raise
                await asyncio.sleep(0.02)
                continue
            self._write(marker, event_id, "unknown")
            try:
                await connection.execute("ROLLBACK" if rolls_back else "COMMIT")
            except FAULTS:
                connection.terminate()
            else:
                self._write(marker, event_id, "rolled_back" if rolls_back else "committed")
            return connection


def plan_text(plan: Plan) -> str:
    """Returns the plan as the command line takes it."""
    return orjson.dumps(asdict(plan)).decode()


def main() -> None:
    """Produce as the plan of the command line asks."""
    asyncio.run(Producer(Plan(**orjson.loads(sys.argv[2])), Path(sys.argv[1])).run())


if __name__ == "__main__":
    main()
