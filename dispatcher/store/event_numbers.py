"""Keeps the sequence that numbers events ahead of every number that an event has had.

Rows travel with logical replication and with dumps, sequences do not always; a person can restart
an identity. Producers would then get numbers, and so ids, that earlier events have. A mark (one row)
remembers the highest number and when it was read; it travels with the other rows.

    at start, then every `VERIFY_SECONDS`: sequence behind mark, outbox or newest history? ─▶ move it forward
    at each claim: inserted after the mark was read, yet numbered below it? ─▶ is the id taken? ─▶ renumber

Invariants: the sequence only moves forward; the mark is updated under its row lock, so two replicas
never move the sequence to the same number twice; an event gets a new number only if an earlier event
has its id, and both ids are in the audit log. A crash loses nothing: the next start verifies again.
Without the right to move the sequence the daemon does not start and names the statement to run.
"""

import time
from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import asyncpg
import structlog

from dispatcher.core.errors import ConfigurationError, StoreUnavailableError
from dispatcher.store.audit import write_audit
from dispatcher.store.day_walk import PLAN_FOR_VALUES, newest_first
from dispatcher.store.pool import Database
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.pool import Reach

_log = structlog.get_logger("dispatcher.store.event_numbers")

_MARK_LOCK = statement("event_number_lock_mark")
_DRAWN = statement("event_number_drawn")
_HIGHEST = statement("event_number_highest")
_DAYS = statement("event_number_days")
_ON_DAY = statement("event_number_on_day")
_MOVE = statement("event_number_move")
_MARK = statement("event_number_mark")
_KNOWN = statement("event_list_known")
_RENUMBER = statement("outbox_renumber")

VERIFY_SECONDS: Final = 30.0
MARGIN: Final = 1_000
"""Numbers skipped when the sequence is moved: those that were drawn and are not visible yet."""
_SLACK = timedelta(seconds=1)
"""Between a row's number and its `inserted_at`, which are two expressions of one INSERT."""
_CLEARED_MAX: Final = 10_000


class Numbers(NamedTuple):
    """Where the sequence and the events are."""

    drawn: int
    """The last number that the sequence gave."""
    highest: int
    """The highest number that an event has or had."""

    @property
    def is_behind(self) -> bool:
        """Return whether the sequence would give numbers that events have had."""
        return self.drawn < self.highest

    @property
    def problem(self) -> str:
        """Return the problem and the statement that fixes it."""
        return (
            f"the sequence dispatcher.event_number is at {self.drawn}, but events reach {self.highest}: new "
            "events would get ids that earlier events have. Run as its owner: "
            f"SELECT setval('dispatcher.event_number', {self.highest + MARGIN});"
        )


async def read_numbers(connection: "Reach", *, with_history: bool = True) -> Numbers:
    """Return the sequence's last number and the highest one among mark, outbox and newest history.

    The connection is in a transaction, whose plans this makes for the values at hand. Reading history
    takes some 50 ms, and much longer on a busy server.
    """
    await connection.execute(PLAN_FOR_VALUES)
    found = [await connection.fetchval(_HIGHEST) or 0]
    days: list[date] = []
    if with_history:
        days = [row[0] for row in await connection.fetch(_DAYS)]
    for day in days:
        number = await connection.fetchval(_ON_DAY, day)
        if number is not None:
            found.append(number)
            break
    # Last: producers draw numbers meanwhile, and the sequence would seem to be behind what they have just inserted.
    drawn = await connection.fetchval(_DRAWN)
    return Numbers(int(drawn), max(found))


class SuspectNumbersError(Exception):
    """Claimed events have numbers that the sequence had given before; the claim is to be rolled back."""

    def __init__(self, event_ids: list[str]) -> None:
        super().__init__(f"{len(event_ids)} events")
        self.event_ids = event_ids


class EventNumbers:
    """The mark as one process last read it, and what follows from it for claimed events."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._number = 0
        self._marked_at: datetime | None = None
        self._verify_at = 0.0
        self._cleared: set[str] = set()
        """Suspect ids that no earlier event has: they are claimed as they are."""

    async def verify(self, *, with_history: bool = True) -> Numbers:
        """Move the sequence forward if it is behind, and read the mark again.

        Once history was verified, the mark is beyond it, and later numbers came from the sequence.

        Raises:
            ConfigurationError: it is behind, and this role may not move it.
            StoreUnavailableError: not now; the sequence is as it was.
        """
        self._verify_at = time.monotonic() + VERIFY_SECONDS
        async with self._database.transaction() as connection:
            await connection.execute(_MARK_LOCK)
            numbers = await read_numbers(connection, with_history=with_history)
            highest = numbers.drawn
            if numbers.is_behind:
                highest = await self._move(connection, numbers)
            marked_at = await connection.fetchval(_MARK, highest)
        self._number, self._marked_at = highest, marked_at
        if numbers.is_behind:
            _log.warning("event_number.moved", was=numbers.drawn, to=highest)
        return numbers

    @staticmethod
    async def _move(connection: "Reach", numbers: Numbers) -> int:
        """Move the sequence, and return where it is now."""
        try:
            return int(await connection.fetchval(_MOVE, numbers.highest, MARGIN))
        except asyncpg.InsufficientPrivilegeError:
            raise ConfigurationError([numbers.problem]) from None

    async def verify_if_due(self) -> None:
        """Verify every `VERIFY_SECONDS`; a refusal is left to the next time."""
        if time.monotonic() >= self._verify_at:
            try:
                await self.verify(with_history=self._marked_at is None)
            except (ConfigurationError, StoreUnavailableError) as error:
                _log.warning("event_number.verification_failed", error=str(error))

    def require_new(self, rows: "Sequence[Record]") -> None:
        """Return if no claimed event has a number that the sequence had given before.

        `rows` have `position`, `inserted_at` and `id`, in the order of their positions.

        Raises:
            SuspectNumbersError: some have.
        """
        if self._marked_at is None or not rows or rows[0]["position"] > self._number:
            return
        after = self._marked_at + _SLACK
        suspects = [
            row["id"]
            for row in rows
            if row["position"] <= self._number
            and row["inserted_at"] > after
            and row["id"] not in self._cleared
        ]
        if suspects:
            raise SuspectNumbersError(suspects)

    async def renumber(self, event_ids: Collection[str]) -> dict[str, str]:
        """Give waiting events a new number and id if an earlier event has theirs; return new ids by old.

        Raises:
            StoreUnavailableError: not now.
        """
        await self.verify()
        async with self._database.transaction() as connection:
            known = {
                row[0]
                for row in await newest_first(
                    connection, _KNOWN, list(event_ids), enough=lambda _: False
                )
            }
            changed = await connection.fetch(_RENUMBER, list(known)) if known else []
            for old, new, tenant in changed:
                await write_audit(
                    connection, "dispatcher", tenant, "event.renumber", new, {"was": old}
                )
        for old, new, _ in changed:
            _log.warning("event.renumbered", event_id=new, was=old)
        if len(self._cleared) > _CLEARED_MAX:
            self._cleared.clear()
        self._cleared.update(set(event_ids) - known)
        return {old: new for old, new, _ in changed}
