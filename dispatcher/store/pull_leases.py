"""Leases of deliveries that receivers fetch: claimed, ended, and recorded like the attempts of a push.

    claim ──▶ pull_lease ── settled by the receiver, or expired ──▶ take (deleted) ──▶ Deliveries.record

Invariants: a delivery has one lease at a time, and while it has one no other receiver gets it. The process that
deletes a lease records its attempt. A crash in between leaves no attempt, and the delivery is due again at the end of
its lease. The attempt is recorded under the present token of the endpoint's shard, as every attempt is.
"""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import structlog

from dispatcher.config.database_url import UrlSource
from dispatcher.core import codes
from dispatcher.core.model import DeliveryId, DeliveryState, Reason, Trigger
from dispatcher.runtime.backoff import Backoff
from dispatcher.store.attempts import AttemptRow
from dispatcher.store.connector import Connector
from dispatcher.store.day_walk import PLAN_FOR_VALUES
from dispatcher.store.deliveries import DAYS_AT_ONCE, Deliveries, MoveRow, event_of
from dispatcher.store.delivery_ids import delivery_ids_of, uuids_of
from dispatcher.store.pool import Database
from dispatcher.store.session import pin_session
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

_log = structlog.get_logger("dispatcher.store.pull_leases")

_CLAIM = statement("pull_lease_claim")
_CLAIM_RESENDS = statement("pull_lease_claim_resends")
_RESEND_DAYS = statement("pull_lease_resend_days")
_TAKE = statement("pull_lease_take")
_TAKE_EXPIRED = statement("pull_lease_take_expired")
_NEXT_DUE = statement("pull_lease_next_due")
_ENDPOINTS = statement("pull_lease_endpoints")
_EVENT_TYPES = statement("pull_lease_event_types")
_STILL_OPEN = statement("pull_lease_still_open")

CHANNEL_PULLED = "dispatcher_pulled"
FENCED_TRIES = 3
"""How often a batch is recorded again because a shard was taken over in the same moment."""
PROVE_SECONDS = 5.0
CONNECT_SECONDS_MAX = 5.0
RESPONSE_SECONDS_MAX = 2.0


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


class PulledEndpoint(NamedTuple):
    """What the attempts of an endpoint are decided and recorded with."""

    number: int
    id: str
    tenant: str
    profile: str
    retry_schedule_seconds: list[float] | None
    shard: int


class PullLeases:
    """The leases of all endpoints."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._deliveries = Deliveries(database)

    async def claim(self, endpoint_no: int, rows_max: int, seconds: float) -> list[LeasedRow]:
        """Lease up to `rows_max` deliveries of an endpoint: those that people resend first, then due ones."""
        rows: list[Record] = []
        async with self._database.transaction() as connection:
            days = [
                row["day"]
                for row in await connection.fetch(_RESEND_DAYS, endpoint_no, DAYS_AT_ONCE)
            ]
            if days:
                await connection.execute(PLAN_FOR_VALUES)
                ids = [uuid.uuid4() for _ in range(rows_max)]
                rows += await connection.fetch(
                    _CLAIM_RESENDS, endpoint_no, rows_max, seconds, ids, days
                )
        if len(rows) < rows_max:
            left = rows_max - len(rows)
            ids = [uuid.uuid4() for _ in range(left)]
            async with self._database.transaction() as connection:
                rows += await connection.fetch(_CLAIM, endpoint_no, left, seconds, ids)
        return await self.load(rows)

    async def load(self, rows: "Sequence[Record]") -> list[LeasedRow]:
        """Return claimed rows with their events; an event that is gone has no body."""
        if not rows:
            return []
        events = await self._deliveries.events_of(rows)
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
        events = await self._deliveries.events_by_key([(row.day, row.event_id, row.body_key)])
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
        """End leases that have expired; who calls this records their attempts."""
        return _taken(await self._database.fetch(_TAKE_EXPIRED, rows_max))

    async def still_open(self, leases: Sequence[TakenLease]) -> frozenset[DeliveryId]:
        """Return the deliveries of these leases that have not ended."""
        rows = await self._database.fetch(
            _STILL_OPEN, uuids_of([one.delivery_id for one in leases])
        )
        return frozenset(delivery_ids_of([row["id"] for row in rows]))

    async def endpoints(self, numbers: Sequence[int]) -> dict[int, PulledEndpoint]:
        """Return endpoints by their number, deleted ones included."""
        rows = await self._database.fetch(_ENDPOINTS, list(set(numbers)))
        return {row["number"]: PulledEndpoint(*tuple(row)[:6]) for row in rows}

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

    async def record(self, moves: Sequence[MoveRow], attempts: Sequence[AttemptRow]) -> None:
        """Record attempts under the present tokens of their shards.

        Raises:
            StoreUnavailableError: not recorded; the deliveries are due again at the end of their leases.
        """
        for _ in range(FENCED_TRIES):
            if not moves:
                break
            rows = await self._database.fetch(
                _ENDPOINTS, list({one.endpoint_no for one in attempts})
            )
            tokens = {row["shard"]: row["token"] for row in rows}
            recorded = await self._deliveries.record(moves, attempts, tokens)
            pairs = [
                (move, attempt)
                for move, attempt in zip(moves, attempts, strict=True)
                if move.delivery_id in recorded.fenced
            ]
            moves, attempts = [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    async def settle_resends(self, attempts: Sequence[tuple[DeliveryId, datetime, bool]]) -> None:
        """Delete the requests that these attempts (id, attempted at, succeeded) have carried out."""
        await self._deliveries.settle_requests(attempts)


def _taken(rows: "Sequence[Record]") -> list[TakenLease]:
    ids = delivery_ids_of([row["delivery_id"] for row in rows])
    return [
        TakenLease(
            str(row["lease_id"]), row["leased_at"], delivery_id, row["day"], row["endpoint_no"],
            row["attempt_count"], row["schedule_position"], row["revision"],
            DeliveryState(codes.state_of(row["state"])),
            None if row["reason"] is None else Reason(codes.reason_of(row["reason"]) or ""),
            Trigger(codes.TRIGGERS[row["trigger"] - 1]), row["event_id"],
        )
        for row, delivery_id in zip(rows, ids, strict=True)
    ]  # fmt: skip


class PulledListener:
    """Receives notifications of deliveries that polls wait for, as prompts: without one they read every second."""

    def __init__(self, url: str | UrlSource, arrived: Callable[[str], None]) -> None:
        """`arrived` is called with the numbers of the endpoints, joined by commas; empty: any."""
        self._connector = Connector(url)
        self._arrived = arrived
        self.is_up = False

    async def run(self) -> None:
        """Listen, and connect again with backoff after a failure, until cancelled."""
        backoff = Backoff(0.1, 5.0)
        while True:
            try:
                await self._listen()
                backoff.reset()
            except (
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,
                OSError,
            ) as error:
                _log.info("pull_listener.disconnected", error=str(error) or type(error).__name__)
            await backoff.pause()

    async def _listen(self) -> None:
        connection = await self._connector.connect(
            seconds=CONNECT_SECONDS_MAX, purpose="listen", command_timeout=RESPONSE_SECONDS_MAX,
            statement_cache_size=0,
        )  # fmt: skip
        try:
            if not await pin_session(connection):
                raise ConnectionError("a pooler stands before Postgres")
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(
                CHANNEL_PULLED, lambda *heard: self._arrived(str(heard[-1]))
            )
            self.is_up = True
            self._arrived("")
            while not lost.is_set():
                # A half-open connection is detected by a round trip.
                await connection.fetchval("SELECT 1")
                try:
                    async with asyncio.timeout(PROVE_SECONDS):
                        await lost.wait()
                except TimeoutError:
                    continue
        finally:
            self.is_up = False
            connection.terminate()
