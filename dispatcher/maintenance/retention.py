"""Retention: history ends by the day, a whole partition at a time; nothing undelivered ends with it.

    partitions ── which are past their days? ── is anything of that day still waiting? ── drop, oldest first

What is always true: a day whose deliveries are not all final stays whole, in every table, and
a log line and a metric report it. A day's deliveries go first; attempts, bodies and events of the day only
after them, so that nothing kept points at nothing. Attempts with fewer days than deliveries are emptied
and keep their partition, since a resend has to write somewhere. A partition that another object refers to,
as a view of any role can, is emptied and dropped once that object is gone.

Dropping needs the strongest lock on a table, for milliseconds. It is waited for 200 ms and
then tried again: statements that queue behind it wait no longer than that. After each drop every session plans its
statements again and the files of the table are deleted, so a daemon rests between two of them: deliveries come first.
A crash between two steps leaves days for the next round; with several replicas one is at it, and the others find
nothing left.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from enum import StrEnum
from typing import NamedTuple

import structlog

from dispatcher.config.sections import RetentionSettings
from dispatcher.core.errors import StoreUnavailableError
from dispatcher.runtime import probe
from dispatcher.runtime.clock import Clock
from dispatcher.store.partitions import Partition, Partitions

_log = structlog.get_logger("dispatcher.maintenance.retention")

SECONDS_BETWEEN = 600.0
TRIES = 20
TRY_SECONDS_MIN, TRY_SECONDS_MAX = 0.1, 0.5
"""Between two tries, so that what queued behind the last one gets through."""
REST_SECONDS = 2.0
"""Between two drops of a daemon."""
REST_SECONDS_TOTAL = 30.0
"""Of all the drops of a round, since other upkeep waits for its end."""
AUDIT_ROWS_MAX = 1000


class Action(StrEnum):
    """What retention does to one day of one table."""

    DROP = "drop"
    EMPTY = "empty"
    KEEP = "keep"
    """It is past its days, and deliveries of it still wait."""


class Days(NamedTuple):
    """For how many whole days history is kept."""

    events: int
    deliveries: int
    attempts: int
    audit: int


def days_of(settings: RetentionSettings) -> Days:
    """Return the days that the settings ask for."""
    return Days(
        settings.events_days, settings.deliveries_days, settings.attempts_days, settings.audit_days
    )


class PartitionStep(NamedTuple):
    """One day of one table that is past its days."""

    table: str
    day: date
    action: Action
    bytes: int
    rows: int
    """As the planner estimates."""
    unfinished: int
    """Deliveries of that day that still wait."""


Figures = Callable[[Sequence[Partition], date, int], None]
"""Receives the partitions, the day, and the number of days that waiting deliveries keep."""
_ORDER = ("delivery_done", "attempt", "body", "event")
"""Within a day: deliveries first, since they are what the others are kept for."""


def steps(
    partitions: Sequence[Partition], unfinished: Mapping[date, int], today: date, days: Days
) -> list[PartitionStep]:
    """Return what is past its days, in the order in which it is to go."""
    last_day = {
        "event": today - timedelta(days=days.events),
        "body": today - timedelta(days=days.deliveries),
        "delivery_done": today - timedelta(days=days.deliveries),
        "attempt": today - timedelta(days=days.deliveries),
    }
    attempts_last_day = today - timedelta(days=days.attempts)
    found = []
    for one in sorted(partitions, key=lambda p: (p.day, _ORDER.index(p.table))):
        waiting = unfinished.get(one.day, 0)
        if one.day < last_day[one.table]:
            action = Action.KEEP if waiting else Action.DROP
        elif one.table == "attempt" and one.day < attempts_last_day and not one.is_emptied:
            action = Action.KEEP if waiting else Action.EMPTY
        else:
            continue
        found.append(PartitionStep(one.table, one.day, action, one.bytes, one.rows, waiting))
    return found


async def planned(history: Partitions, days: Days) -> list[PartitionStep]:
    """Return what a round would do now.

    Raises:
        StoreUnavailableError: not known just now.
    """
    today, partitions = await history.partitions()
    return [] if today is None else await _evaluated(history, partitions, today, days)


async def _evaluated(
    history: Partitions, partitions: Sequence[Partition], today: date, days: Days
) -> list[PartitionStep]:
    """Reads the waiting deliveries only where a day has come of age: it reads every open delivery."""
    aged = steps(partitions, {}, today, days)
    if not aged:
        return []
    unfinished = await history.unfinished(max(step.day for step in aged) + timedelta(days=1))
    return steps(partitions, unfinished, today, days)


class Retention:
    """Ends what is past its days, now and then; one task calls `round`."""

    def __init__(
        self,
        history: Partitions,
        days: Days,
        *,
        clock: Clock,
        figures: Figures | None = None,
        unknown: Callable[[], None] = lambda: None,
        rest_seconds: float = 0.0,
    ) -> None:
        self._history = history
        self._days = days
        self._clock = clock
        self._figures = figures
        self._unknown = unknown
        self._rest_seconds = rest_seconds
        self._next_at = float("-inf")
        self._told: set[date] = set()
        self._referenced: set[tuple[str, date]] = set()
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Stop the round after its present step."""
        self._stop.set()

    async def round_if_due(self) -> None:
        """Run a round if one is due; a failed step is repeated in the next round.

        Raises:
            StoreUnavailableError: not now.
        """
        if self._clock.monotonic() < self._next_at:
            return
        try:
            await self.round()
        except StoreUnavailableError:
            self._unknown()  # a made-up figure could silence an alert
            raise
        self._next_at = self._clock.monotonic() + SECONDS_BETWEEN

    async def round(self) -> list[tuple[PartitionStep, str]]:
        """Delete everything that is older than its setting; return each step with its outcome.

        Raises:
            StoreUnavailableError: the database is away; what was done is done.
        """
        today, partitions = await self._history.partitions()
        done: list[tuple[PartitionStep, str]] = []
        if today is not None:
            steps = await _evaluated(self._history, partitions, today, self._days)
            rest_seconds = min(self._rest_seconds, REST_SECONDS_TOTAL / max(1, len(steps)))
            for step in steps:
                if done and step.action is not Action.KEEP:
                    await self._rest(rest_seconds)
                if self._stop.is_set():
                    break
                done.append((step, await self._take(step)))
            kept = {step.day for step in steps if step.action is Action.KEEP}
            self._report_kept(steps, kept)
            if self._figures is not None:
                ended = {(step.table, step.day) for step, became in done if became == "dropped"}
                left = [one for one in partitions if (one.table, one.day) not in ended]
                self._figures(left, today, len(kept))
        await self._forget_audit()
        probe.hit("retention.done", steps=len(done))
        return done

    async def _rest(self, seconds: float) -> None:
        """Wait; at most until the round is to stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    async def _take(self, step: PartitionStep) -> str:
        if step.action is Action.KEEP:
            return "unfinished"
        for number in range(TRIES):
            try:
                if step.action is Action.DROP:
                    became = await self._history.drop(step.table, step.day)
                else:
                    became = await self._history.empty_attempts(step.day)
            except StoreUnavailableError:
                if number == TRIES - 1 or self._stop.is_set():
                    raise
                probe.hit("retention.lock_missed")
                pause = random.uniform(TRY_SECONDS_MIN, TRY_SECONDS_MAX)  # noqa: S311 -- keeps replicas apart
                await self._rest(pause)
            else:
                if step.action is Action.DROP and became == "emptied":
                    self._report_referenced(step)
                elif became in {"dropped", "emptied"}:
                    _log.info(
                        f"partition.{became}", table=step.table, day=str(step.day), bytes=step.bytes
                    )
                return became
        raise AssertionError("the last try raises")

    def _report_referenced(self, step: PartitionStep) -> None:
        """Log once for each partition that an object of another role keeps it from being dropped."""
        if (step.table, step.day) not in self._referenced:
            self._referenced.add((step.table, step.day))
            _log.warning(
                "partition.referenced", table=step.table, day=str(step.day), bytes=step.bytes
            )

    def _report_kept(self, steps: Sequence[PartitionStep], kept: set[date]) -> None:
        """Logs once for each day that it is kept for waiting deliveries."""
        for step in steps:
            if step.day in kept - self._told:
                self._told.add(step.day)
                _log.warning("history.kept", day=str(step.day), unfinished=step.unfinished)
        self._told &= kept

    async def _forget_audit(self) -> None:
        total = 0
        while not self._stop.is_set():
            count = await self._history.forget_audit(self._days.audit, AUDIT_ROWS_MAX)
            total += count
            if count < AUDIT_ROWS_MAX:
                break
        if total:
            _log.info("audit.deleted", count=total)
