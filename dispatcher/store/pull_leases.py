"""Leases of deliveries that receivers fetch: claimed, ended, and recorded like the attempts of a push.

    claim ──▶ pull_lease ─┬ settled by the receiver: take (deleted) ──▶ Results.record ──▶ wake
                          └ expired: take over ──▶ Results.record ──▶ end (deleted) ──▶ wake

Invariants: a delivery has one lease at a time, and while it has one no other receiver gets it. With an order, so has
a line: only its first delivery is leased. Those behind it are shelved, and brought back when it has been recorded;
what a crash or a race leaves on the shelf, a sweep by the next poll without a result finds. The process that takes a
lease records its attempt, under the present token of the endpoint's shard, as every attempt is. A settled lease is
deleted first: a crash in between leaves no attempt, and the delivery is due again at the end of its lease. An expired
one is kept until its attempt is recorded, because its delivery is due already and another poll would get it; after a
crash another process takes it over.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, NamedTuple

from asyncpg.pgproto.pgproto import UUID

from dispatcher.core import codes
from dispatcher.core.model import DeliveryId, DeliveryState, EndpointId, Reason, Trigger
from dispatcher.store.attempts import AttemptRow
from dispatcher.store.claims import announce_pulled
from dispatcher.store.day_walk import PLAN_FOR_VALUES
from dispatcher.store.deliveries import Deliveries, Swept, places, shelve
from dispatcher.store.delivery_ids import delivery_ids_of, uuid_of, uuids_of
from dispatcher.store.delivery_requests import drop_resends
from dispatcher.store.event_bodies import DAYS_AT_ONCE, event_of, events_by_key, events_of
from dispatcher.store.pool import Database, columns
from dispatcher.store.results import MoveRow, Results
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.pool import Reach

_DUE = statement("pull_lease_due")
_RESENDS = statement("pull_lease_resends")
_INSERT = statement("pull_lease_insert")
_RESEND_DAYS = statement("pull_lease_resend_days")
_TAKE = statement("pull_lease_take")
_TAKE_EXPIRED = statement("pull_lease_take_expired")
_END = statement("pull_lease_end")
_NEXT_END = statement("pull_lease_next_end")
_NEXT_DUE = statement("pull_lease_next_due")
_ENDPOINTS = statement("pull_lease_endpoints")
_EVENT_TYPES = statement("pull_lease_event_types")
_STILL_OPEN = statement("pull_lease_still_open")

TAKEN_OVER_SECONDS = 10.0
"""How long recording an expired lease may take before another process takes it over."""
FENCED_TRIES = 3
"""How often a batch is recorded again because a shard was taken over in the same moment."""
ORDERED_ROWS_MAX = 200
"""Due deliveries of an endpoint with an order that one claim reads: many of them may stand behind others."""
FIRST_KEY = -(2**63)
"""A sweep begins after it."""
SWEPT_LINES_MAX = 1000
"""Lines that one statement of a sweep reads: some 10 ms."""


class LeasedRow(NamedTuple):
    """A leased delivery with what its request needs; without a body it has to be made first."""

    lease_id: str
    leased_until: datetime
    delivery_id: DeliveryId
    day: date
    event_id: str
    body_key: str
    """Under what its body is stored, see `EndpointRow`."""
    event_type: str
    attempt_number: int
    body: bytes | None
    traceparent: str | None


class Claimed(NamedTuple):
    """What a claim has leased."""

    leases: list[LeasedRow]
    has_more: bool
    """Others may be due."""
    is_held: bool = False
    """A due delivery waits for an earlier event of its line that is still in the outbox."""


class LineUp(NamedTuple):
    """Where candidates of a claim stand in their lines."""

    first: dict[UUID, int | None]
    """Those that may be leased, with the key of their line; None: they are in none."""
    behind: frozenset[UUID]
    is_held: bool


class TakenLease(NamedTuple):
    """A lease that has ended, with the delivery as it was when it was leased."""

    lease_id: str
    leased_at: datetime
    delivery_id: DeliveryId
    day: date
    endpoint_no: int
    attempt_count: int
    schedule_position: int
    revision: int
    state: DeliveryState
    reason: Reason | None
    trigger: Trigger
    event_id: str
    order_key: int | None
    """The delivery's line; None: it was leased in no order."""


class Unrecorded(NamedTuple):
    """The deliveries whose attempts were not recorded."""

    fenced: frozenset[DeliveryId]
    """Their shard was taken over at each of the tries."""
    superseded: frozenset[DeliveryId]
    """Another attempt of that number was recorded before."""


class PulledEndpoint(NamedTuple):
    """What the attempts of an endpoint are decided and recorded with."""

    number: int
    id: EndpointId
    tenant: str
    profile: str
    retry_schedule_seconds: list[float] | None
    skip_after_attempts: int | None
    shard: int
    is_failing: bool
    """Failures since its last success are counted."""
    failed_lately: bool


class PullLeases:
    """The leases of all endpoints."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._deliveries, self._results = Deliveries(database), Results(database)

    async def claim(
        self, endpoint_no: int, rows_max: int, seconds: float, *, is_ordered: bool = False
    ) -> Claimed:
        """Lease up to `rows_max` deliveries of an endpoint: those that people resend first, then due ones.

        With an order, at most the first delivery of each line is leased.
        """
        rows: list[Record] = []
        async with self._database.transaction() as connection:
            resends: list[Record] = []
            days = [
                row["day"]
                for row in await connection.fetch(_RESEND_DAYS, endpoint_no, DAYS_AT_ONCE)
            ]
            if days:
                await connection.execute(PLAN_FOR_VALUES)
                resends = await connection.fetch(_RESENDS, endpoint_no, rows_max, days)
            due: list[Record] = []
            due_max = rows_max - len(resends)
            if due_max:
                due_max = max(due_max, ORDERED_ROWS_MAX) if is_ordered else due_max
                due = await connection.fetch(_DUE, endpoint_no, due_max)
            line_up = LineUp({}, frozenset(), is_held=False)
            candidates = [*resends, *due]
            if is_ordered and candidates:
                line_up = await self._line_up(connection, resends, due)
                candidates = [row for row in candidates if row["id"] in line_up.first][:rows_max]
            if candidates:
                values = _columns(candidates, line_up.first)
                rows = await connection.fetch(_INSERT, endpoint_no, seconds, *values)
            if is_ordered and len(rows) < len(candidates):
                # Another delivery of its line is leased, and the end of that lease brings it back.
                leased = {row["delivery_id"] for row in rows}
                left = [row["id"] for row in candidates if row["id"] not in leased]
                await shelve(connection, left)
        has_more = bool(rows or line_up.behind) and len(due) == due_max
        return Claimed(await self.load(rows), has_more, line_up.is_held)

    @staticmethod
    async def _line_up(
        connection: "Reach", resends: "Sequence[Record]", due: "Sequence[Record]"
    ) -> LineUp:
        """Find the deliveries that are first in their lines, and shelve those that stand behind others.

        A requested resend of an open delivery that is not first is dropped: it is sent in its turn.
        """
        first: dict[UUID, int | None] = {row["id"]: None for row in resends if not row["is_open"]}
        waiting = [row["id"] for row in (*resends, *due) if row["id"] not in first]
        behind: set[UUID] = set()
        is_held = False
        for row in await places(connection, waiting):
            uuid = uuid_of(row.id)
            if row.previous_id is not None:
                behind.add(uuid)
            elif row.is_held:
                is_held = True
            else:
                first[uuid] = None if row.place is None else row.place.key
        if behind:
            await shelve(connection, list(behind))
        dropped = [row["id"] for row in resends if row["id"] not in first]
        if dropped:
            await drop_resends(connection, dropped)
        return LineUp(first, frozenset(behind), is_held)

    async def bring_back(self, leases: "Sequence[TakenLease]") -> None:
        """Make the deliveries due that stood behind these ones in their lines, and wake polls for them.

        If this fails, a sweep finds them.
        """
        keys: dict[int, set[int]] = {}
        for one in leases:
            if one.order_key is not None:
                keys.setdefault(one.endpoint_no, set()).add(one.order_key)
        for endpoint_no in sorted(keys):
            await self._deliveries.wake(endpoint_no, sorted(keys[endpoint_no]), 1)
        if keys:
            async with self._database.transaction() as connection:
                await announce_pulled(connection, sorted(keys))

    async def sweep(self, endpoint_no: int, after_key: int) -> Swept:
        """Make the first deliveries of some lines due where they were shelved."""
        return await self._deliveries.sweep(endpoint_no, after_key, SWEPT_LINES_MAX)

    async def load(self, rows: "Sequence[Record]") -> list[LeasedRow]:
        """Return claimed rows with their events; an event that is gone has no body."""
        if not rows:
            return []
        events = await events_of(self._database, rows)
        leased: list[LeasedRow] = []
        ids = delivery_ids_of([row["delivery_id"] for row in rows])
        for row, delivery_id in zip(rows, ids, strict=True):
            event = event_of(events, row)
            leased.append(
                LeasedRow(
                    str(row["lease_id"]), row["leased_until"], delivery_id, row["day"], row["event_id"], row["profile"],
                    "" if event is None else event["type"], row["attempt_count"] + 1,
                    None if event is None else event["bytes"],
                    None if event is None else event["traceparent"],
                )
            )  # fmt: skip
        return leased

    async def body_of(self, row: LeasedRow) -> bytes | None:
        """Return the body of a delivery whose body was made late."""
        events = await events_by_key(self._database, [(row.day, row.event_id, row.body_key)])
        event = events.get((row.day, row.event_id, row.body_key))
        return None if event is None else event["bytes"]

    async def next_due(self, endpoint_no: int) -> float | None:
        """Return the seconds until the next delivery of an endpoint is due; None: none waits."""
        async with self._database.transaction() as connection:
            seconds: float | None = await connection.fetchval(_NEXT_DUE, endpoint_no)
            return seconds

    async def take(self, endpoint_no: int, lease_ids: Sequence[str]) -> list[TakenLease]:
        """End leases that have not expired; who calls this records their attempts."""
        rows = await self._database.fetch(_TAKE, endpoint_no, [uuid.UUID(one) for one in lease_ids])
        return _taken(rows)

    async def take_expired(self, rows_max: int) -> list[TakenLease]:
        """Take over leases that have expired; who calls this records their attempts, and then calls `end`."""
        return _taken(await self._database.fetch(_TAKE_EXPIRED, rows_max, TAKEN_OVER_SECONDS))

    async def end(self, leases: Sequence[TakenLease]) -> None:
        """End leases that were taken over."""
        if leases:
            await self._database.execute(_END, [uuid.UUID(one.lease_id) for one in leases])

    async def next_end_seconds(self) -> float | None:
        """Return the seconds until the first lease ends, negative if it has ended; None: there is no lease."""
        seconds: float | None = await self._database.fetch_value(_NEXT_END)
        return seconds

    async def still_open(self, leases: Sequence[TakenLease]) -> frozenset[DeliveryId]:
        """Return the deliveries of these leases that have not ended."""
        rows = await self._database.fetch(
            _STILL_OPEN, uuids_of([one.delivery_id for one in leases])
        )
        return frozenset(delivery_ids_of([row["id"] for row in rows]))

    async def endpoints(self, numbers: Sequence[int]) -> dict[int, PulledEndpoint]:
        """Return endpoints by their number, deleted ones included."""
        rows = await self._database.fetch(_ENDPOINTS, list(set(numbers)))
        return {row["number"]: PulledEndpoint(*tuple(row)[:-1]) for row in rows}

    async def event_types(self, leases: Sequence[TakenLease]) -> dict[tuple[date, str], str]:
        """Return the types of the events of these leases, by day and event id."""
        keys = list({(one.day, one.event_id) for one in leases})
        days = sorted({day for day, _ in keys})
        types: dict[tuple[date, str], str] = {}
        for first in range(0, len(days), DAYS_AT_ONCE):
            some = [key for key in keys if key[0] in set(days[first : first + DAYS_AT_ONCE])]
            async with self._database.transaction() as connection:
                await connection.execute(PLAN_FOR_VALUES)
                found = await connection.fetch(
                    _EVENT_TYPES, [day for day, _ in some], [event_id for _, event_id in some]
                )
            types |= {(row["day"], row["id"]): row["type"] for row in found}
        return types

    async def record(self, moves: Sequence[MoveRow], attempts: Sequence[AttemptRow]) -> Unrecorded:
        """Record attempts under the present tokens of their shards; return those that were not recorded.

        A shard that is taken over at each of the tries leaves its attempts out, as a crash would.

        Raises:
            StoreUnavailableError: not recorded; the deliveries are due again at the end of their leases.
        """
        superseded: set[DeliveryId] = set()
        for _ in range(FENCED_TRIES):
            if not moves:
                break
            rows = await self._database.fetch(
                _ENDPOINTS, list({one.endpoint_no for one in attempts})
            )
            tokens = {row["shard"]: row["token"] for row in rows}
            recorded = await self._results.record(moves, attempts, tokens)
            superseded |= recorded.superseded
            pairs = [
                (move, attempt)
                for move, attempt in zip(moves, attempts, strict=True)
                if move.delivery_id in recorded.fenced
            ]
            moves, attempts = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return Unrecorded(frozenset(move.delivery_id for move in moves), frozenset(superseded))

    async def settle_resends(self, attempts: Sequence[tuple[DeliveryId, datetime, bool]]) -> None:
        """Delete the requests that these attempts (id, attempted at, succeeded) have carried out."""
        await self._results.settle_requests(attempts)


def _columns(
    candidates: "Sequence[Record]", lines: Mapping[UUID, int | None]
) -> list[list[object]]:
    """Return the candidates of a claim as parameters, in an order in which no two claims deadlock."""
    rows = [
        (
            uuid.uuid4(), row["id"], row["day"], row["event_id"], row["attempt_count"],
            row["schedule_position"], row["state"], row["reason"], row["trigger"],
            lines.get(row["id"]),
        )
        for row in {row["id"]: row for row in reversed(candidates)}.values()
    ]  # fmt: skip
    rows.sort(key=lambda row: (row[-1] is None, row[-1] or 0, row[1]))
    return columns(rows, 10)


def _taken(rows: "Sequence[Record]") -> list[TakenLease]:
    ids = delivery_ids_of([row["delivery_id"] for row in rows])
    return [
        TakenLease(
            str(row["lease_id"]), row["leased_at"], delivery_id, row["day"], row["endpoint_no"],
            row["attempt_count"], row["schedule_position"], row["revision"],
            DeliveryState(codes.state_of(row["state"])),
            None if row["reason"] is None else Reason(codes.reason_of(row["reason"]) or ""),
            Trigger(codes.TRIGGERS[row["trigger"] - 1]), row["event_id"], row["order_key"],
        )
        for row, delivery_id in zip(rows, ids, strict=True)
    ]  # fmt: skip
