"""Claims committed events and writes their bodies and deliveries, in one transaction.

    BEGIN ── claim: outbox rows become `event` rows ── (fan-out matches and encodes) ── write ── COMMIT
    peek: a few rows, no lock ── (fan-out matches and encodes) ── claim and write in one statement

A transaction takes five round trips. At low rates, when a claim has a few events, two statements do the same.

Invariants: an event leaves the outbox in the transaction that creates its bodies and deliveries. After a
crash or an outage before COMMIT, the event is in the outbox for the next claim. After COMMIT, the
deliveries are in the database for the replica that owns their endpoints. If COMMIT itself is cut off,
either is possible, and state in memory is not used until the database confirms it. While polls have to skip
dead rows that vacuum may not remove, they begin at a floor (`core/floor.py`), and the whole outbox is
polled every few seconds.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import orjson

from dispatcher.core.census import Census, Pick
from dispatcher.core.errors import BatchRefusedError, DataFaultError, StoreUnavailableError
from dispatcher.core.floor import DEAD_ROWS_MIN, HOPELESS_SECONDS, Floor
from dispatcher.core.model import Event
from dispatcher.store.claims import Claim, FewClaim
from dispatcher.store.delivery_requests import notify_dispatchers
from dispatcher.store.event_numbers import EventNumbers, SuspectNumbersError
from dispatcher.store.events import EventDetail, event_detail
from dispatcher.store.pool import Database, is_about_rows
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.pool import Reach

_CLAIM = statement("outbox_claim")
_CLAIM_POSITIONS = statement("outbox_claim_positions")
_PEEK = statement("outbox_peek")
_TENANTS = statement("outbox_tenants")
_POLL = statement("outbox_poll")
_OLDEST = statement("outbox_oldest")
_QUARANTINE = statement("outbox_quarantine")
_FORGET = statement("outbox_forget_tombstones")
_EVENTS_QUARANTINED = statement("outbox_page_quarantined")
_RELEASE = statement("outbox_release")
_ERASE_WAITING = statement("outbox_erase")

SCAN_POSITIONS = 100_000
"""Positions that one statement scans for tenants; some 20 ms each."""
SCAN_EVENTS_MAX = 10_000
"""Events of other tenants that one statement returns; some 20 ms as well."""
FEW_EVENTS_MAX = 16
"""Events of a claim that takes two statements instead of a transaction."""
FEW_BYTES_MAX = 262_144
"""Bytes of data of such a claim, which has one event of any size at least."""
SCANS_MAX = 8
"""Statements of one scan; the scan of a longer backlog continues at the next claim."""


class Poll(NamedTuple):
    """The changes that a poll found."""

    routing_version: int
    outbox_waiting: bool
    requests_waiting: bool
    notify_waiters_count: int = 0
    """Commits that wait for the lock of another commit's NOTIFY, if they were to be counted."""


class Outbox:
    """The statements of intake and fan-out on the outbox."""

    def __init__(self, database: Database, *, synchronous_commit: bool = False) -> None:
        """`synchronous_commit`: whether the commit of a claim waits until it is on disk."""
        self._database = database
        self._waits_for_disk = synchronous_commit
        self._floor = Floor()
        self._census = Census()
        self._numbers = EventNumbers(database)

    async def poll(self, *, counts_waiters: bool = False) -> Poll:
        """Poll for waiting events, waiting requests, changes of endpoints, and commits that wait for a NOTIFY."""
        await self._numbers.verify_if_due()
        began = time.monotonic()
        floor = self._floor.for_poll(began)
        try:
            row = await self._database.fetch_row(_POLL, floor, counts_waiters)
        except StoreUnavailableError:
            seconds = time.monotonic() - began
            if floor == 0 and seconds > HOPELESS_SECONDS:
                self._floor.polled(
                    began + seconds, seconds=seconds, dead_rows=DEAD_ROWS_MIN, found=False
                )
            raise
        assert row is not None  # noqa: S101 -- a SELECT of subqueries has one row
        poll = Poll(row[0], row[1], row[2], row[3])
        if floor == 0:
            self._floor.polled(
                time.monotonic(), seconds=row[4], dead_rows=row[5], found=poll.outbox_waiting
            )
        return poll

    @asynccontextmanager
    async def claim(
        self,
        events_max: int,
        bytes_max: int,
        event_id: str | None = None,
        tenants: dict[int, str] | None = None,
    ) -> AsyncIterator[Claim]:
        """Yield a claim on the oldest waiting events, on a given one, or on picked ones; it may be empty.

        Raises:
            BatchRefusedError: a statement was refused for the contents of these events.
            StoreUnavailableError: Postgres is unavailable; retry later.
        """
        try:
            async with self._claim(events_max, bytes_max, event_id, tenants) as claim:
                yield claim
        except SuspectNumbersError as suspects:
            await self.renumber(suspects.event_ids)
            raise StoreUnavailableError("event numbers were verified; claim again") from None
        except asyncpg.PostgresError as error:
            if is_about_rows(error):
                raise BatchRefusedError(str(error)) from error
            # A missing partition, privilege or column is not caused by an event, and a person fixes it.
            raise StoreUnavailableError(f"events cannot be ingested: {error}") from error

    def claim_few(self, events_max: int) -> "AbstractAsyncContextManager[Claim]":
        """Return a context with a claim on a few of the oldest waiting events, which it claims at its end.

        If another replica claims one meanwhile, it is in the claim's `lost`, and nothing is written for it.

        Raises:
            BatchRefusedError: the statement was refused for the contents of these events.
            StoreUnavailableError: Postgres is unavailable; retry later.
        """
        if self._database.is_distributed:
            return self.claim(min(events_max, FEW_EVENTS_MAX), FEW_BYTES_MAX)
        return _Few(self, min(events_max, FEW_EVENTS_MAX))

    async def read_few(self, events_max: int) -> FewClaim:
        """Read events for `claim_few`."""
        floor = self._floor.for_claim()
        try:
            began = time.monotonic()
            rows = await self._database.fetch(_PEEK, events_max, FEW_BYTES_MAX, floor)
            if floor == 0:
                self._floor.claimed_whole(seconds=time.monotonic() - began, events_count=len(rows))
            self._numbers.require_new(rows)
            return FewClaim(rows, _events(rows))
        except SuspectNumbersError as suspects:
            self._forget()
            await self.renumber(suspects.event_ids)
            raise StoreUnavailableError("event numbers were verified; claim again") from None
        except BaseException as error:
            self._refuse(error)
            raise

    async def end_few(self, claim: FewClaim, error: BaseException | None) -> None:
        """Claim the events of `claim_few` and write their rows, unless its block failed."""
        if error is not None:
            self._refuse(error)
        elif claim.events:
            try:
                await claim.commit(self._database, waits_for_disk=self._waits_for_disk)
            except BaseException as refusal:
                self._refuse(refusal)
                raise
            if not claim.lost:
                self._claimed(claim.events[0].tenant, claim.last_position)

    def _refuse(self, error: BaseException) -> None:
        self._forget()
        if isinstance(error, DataFaultError | asyncpg.PostgresError):
            raise BatchRefusedError(str(error)) from error

    async def oldest(self) -> str | None:
        """Return the id of the oldest waiting event."""
        value: str | None = await self._database.fetch_value(_OLDEST)
        return value

    async def quarantine(self, event_id: str) -> bool:
        """Quarantine a waiting event, which keeps its data; return whether it was still waiting."""
        return await self._database.fetch_value(_QUARANTINE, event_id) is not None

    async def renumber(self, event_ids: Sequence[str]) -> dict[str, str]:
        """Assign new ids to waiting events whose ids earlier events have; return the new ids by the old.

        Raises:
            StoreUnavailableError: Postgres is unavailable; retry later.
        """
        return await self._numbers.renumber(event_ids)

    @asynccontextmanager
    async def _claim(
        self, events_max: int, bytes_max: int, event_id: str | None, tenants: dict[int, str] | None
    ) -> AsyncIterator[Claim]:
        floor = self._floor.for_claim() if event_id is None and tenants is None else 0
        try:
            async with self._database.transaction(
                waits_for_disk=self._waits_for_disk
            ) as connection:
                if tenants is None:
                    began = time.monotonic()
                    rows = await connection.fetch(_CLAIM, events_max, bytes_max, event_id, floor)
                    if floor == 0 and event_id is None:
                        self._floor.claimed_whole(
                            seconds=time.monotonic() - began, events_count=len(rows)
                        )
                else:
                    rows = await connection.fetch(_CLAIM_POSITIONS, list(tenants), bytes_max)
                self._numbers.require_new(rows)
                events = _events(rows)
                if rows:
                    claim = Claim(connection, events, rows)
                    yield claim
                    if not claim.is_written:  # an event that leaves the outbox must be in history
                        await claim.write([], [], [])
                else:
                    yield Claim(connection, events)
        except BaseException:
            self._forget()
            raise
        if tenants is not None:
            if sum(len(event.data) for event in events) > bytes_max // 4:
                claimed = {row["position"] for row in rows}
                self._census.put_back({p: t for p, t in tenants.items() if p not in claimed})
        elif rows and event_id is None:
            self._claimed(events[0].tenant, rows[-1]["position"])

    def _claimed(self, oldest_tenant: str, last_position: int) -> None:
        self._floor.claimed(time.monotonic(), last_position)
        self._census.claimed(oldest_tenant, last_position)

    def _forget(self) -> None:
        """Forget what was claimed, after a claim of unknown outcome."""
        self._floor.failed()
        self._census.forget()

    async def pick(self, events_max: int) -> Pick:
        """Return events of tenants that wait behind another tenant's backlog, in turns.

        Raises:
            StoreUnavailableError: Postgres is unavailable; retry later.
        """
        after = self._census.scan_from(time.monotonic())
        for _ in range(SCANS_MAX):
            began = time.monotonic()
            async with self._database.transaction() as connection:
                rows = await connection.fetch(
                    _TENANTS,
                    after,
                    after + SCAN_POSITIONS,
                    self._census.left_out(),
                    SCAN_EVENTS_MAX,
                )
            found: dict[str, list[int]] = {row[0]: row[1] for row in rows if row[0] is not None}
            next_position, last_position = rows[0][2], rows[0][3]
            if sum(map(len, found.values())) >= SCAN_EVENTS_MAX:
                after = max(positions[-1] for positions in found.values())
            elif next_position is not None:
                after = next_position - 1
            else:
                after = max(after, last_position or 0)
            self._census.scanned(found, after, time.monotonic() - began)
            if after >= (last_position or 0):
                break
        return self._census.pick(events_max)

    def leave(self, position: int) -> None:
        """Leave an event that Postgres refused to the claim by position, which can quarantine it."""
        self._census.leave(position)

    async def forget_tombstones(self, days: int, rows_max: int) -> int:
        """Delete up to `rows_max` ids that producers set more than `days` ago; return the count."""
        async with self._database.transaction() as connection:
            return int(await connection.fetchval(_FORGET, days, rows_max))


class _Few:
    """The context of `claim_few`. A generator as a context costs a dozen calls more, for each event at low rates."""

    __slots__ = ("_claim", "_events_max", "_outbox")

    def __init__(self, outbox: Outbox, events_max: int) -> None:
        self._outbox = outbox
        self._events_max = events_max

    async def __aenter__(self) -> Claim:
        self._claim = await self._outbox.read_few(self._events_max)
        return self._claim

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._outbox.end_few(self._claim, error)


def _events(rows: "Sequence[Record]") -> list[Event]:
    return [
        Event(
            r[0],
            r[1],
            r[2],
            r[3],
            r[4],
            r[5],
            orjson.loads(r[6]) if r[6] else {},
            r[7],
            r[8],
            r[11],
        )
        for r in rows
    ]


async def page_of_quarantined_events(
    connection: "Reach", filters: Sequence[object]
) -> list[EventDetail]:
    """Return a page; `filters` in the order of the statement."""
    return [event_detail(row) for row in await connection.fetch(_EVENTS_QUARANTINED, *filters)]


async def release_event(connection: "Reach", event_id: str, tenant: str | None) -> str | None:
    """Return a quarantined event to the queue; return its tenant, None where it is not quarantined."""
    found: str | None = await connection.fetchval(_RELEASE, event_id, tenant)
    if found is not None:
        await notify_dispatchers(connection)
    return found


async def erase_waiting_event(connection: "Reach", event_id: str, tenant: str | None) -> int:
    """Move a waiting event from the outbox to history, without its contents; return the count."""
    return int(await connection.fetchval(_ERASE_WAITING, event_id, tenant))
