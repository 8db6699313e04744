"""Deliveries that wait: loading them, recording what became of them, ending them.

Recording is the heart of it: the attempt, the delivery's new state and its next due time commit
together, under the token that the endpoint's shard has at that moment. A batch is one statement;
sent again after an unknown commit it changes nothing. What it leaves over is either fenced (another
replica owns the shard) or late (the delivery ended meanwhile), and late ones are recorded one by
one against the ended delivery.
"""

from collections.abc import Sequence
from datetime import date, datetime
from typing import NamedTuple

import asyncpg
import structlog

from dispatcher.core.errors import DataFaultError, StoreUnavailableError
from dispatcher.core.failing import DOWN_ATTEMPTS_MIN, DOWN_SECONDS
from dispatcher.core.model import DeliveryId, DeliveryState, EndpointId
from dispatcher.store.day_walk import PLAN_FOR_VALUES
from dispatcher.store.pool import Database, columns, data_faults, is_about_rows
from dispatcher.store.statements import statement

_log = structlog.get_logger("dispatcher.store.deliveries")

_RECORD = statement("results_record")
_RECORD_LATE = statement("results_record_late")
_SAY_FAILED = statement("deliveries_say_failed")
_SETTLE = statement("requests_settle")
_WINDOW = statement("deliveries_window")
_ARRIVED = statement("deliveries_arrived")
_LOAD = statement("deliveries_load")
_DAYS = statement("deliveries_days")
_REQUESTS = statement("requests_load")
_REQUESTS_DAYS = statement("requests_days")
_REQUEST_IDS = statement("requests_waiting")
_FORGET = statement("requests_forget")
_CANCEL_OF_ENDPOINTS = statement("deliveries_cancel_of_endpoints")
_CANCEL_HELD = statement("deliveries_cancel_held")
_NOTHING_TO_SEND = statement("endpoints_with_nothing_to_send")
_GAUGES = statement("gauges")


DAYS_AT_ONCE = 16
"""Days of history that one statement reads: the partitions of the others are not locked (store/day_walk.py)."""


class MoveRow(NamedTuple):
    """What an attempt makes of its delivery, in the order of the statement's parameters."""

    shard: int
    delivery_id: DeliveryId
    attempt_number: int
    state: str
    reason: str | None
    schedule_position: int
    due_in_seconds: float | None


class AttemptRow(NamedTuple):
    """One attempt, in the order in which its columns are copied."""

    day: date
    delivery_id: DeliveryId
    attempt_number: int
    trigger: str
    outcome: str
    flags: tuple[str, ...] | None
    attempted_at: datetime
    latency_seconds: float
    dns_seconds: float | None
    connect_seconds: float | None
    wait_seconds: float | None
    read_seconds: float | None
    reused: bool
    peer: str | None
    url: str
    response_code: int | None
    response_body: bytes | None
    error: str | None


class WindowRow(NamedTuple):
    """A waiting delivery: only what the wheel needs."""

    id: DeliveryId
    endpoint_id: EndpointId
    due_in_seconds: float


class LoadedRow(NamedTuple):
    """An open delivery with all that an attempt needs."""

    id: DeliveryId
    day: date
    event_id: str
    event_type: str
    endpoint_id: EndpointId
    attempt_count: int
    schedule_position: int
    state: str
    body: bytes | None
    inserted_at: datetime
    traceparent: str | None
    due_in_seconds: float


class RequestRow(NamedTuple):
    """What a person asked; for a resend all that an attempt needs, or None where retention has taken it."""

    kind: str
    id: DeliveryId
    day: date | None
    event_id: str | None
    event_type: str | None
    endpoint_id: EndpointId | None
    attempt_count: int | None
    schedule_position: int | None
    state: str | None
    reason: str | None
    body: bytes | None
    inserted_at: datetime | None
    traceparent: str | None
    answered: bool


class Recorded(NamedTuple):
    """What recording a batch came to."""

    fenced: frozenset[DeliveryId]
    """Not recorded: the shard has another owner now."""
    late: frozenset[DeliveryId]
    """Recorded against a delivery that had ended meanwhile."""


class Deliveries:
    """Waiting deliveries, as recorder, loader and maintenance see them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unreadable: set[DeliveryId] = set()
        """Deliveries whose requests cannot be read, until the next start."""

    async def record(
        self, moves: Sequence[MoveRow], attempts: Sequence[AttemptRow], tokens: dict[int, int]
    ) -> Recorded:
        """Records attempts and what they make of their deliveries, element by element.

        `tokens` has the token under which each shard of the batch was held.

        Raises:
            StoreUnavailableError: perhaps recorded, perhaps not; send the same batch again.
            asyncpg.PostgresError: one of the rows is at fault.
        """
        try:
            return await self._record(moves, attempts, tokens)
        except asyncpg.PostgresError as error:
            if is_about_rows(error):
                raise
            raise StoreUnavailableError(f"results cannot be recorded: {error}") from error

    async def _record(
        self, moves: Sequence[MoveRow], attempts: Sequence[AttemptRow], tokens: dict[int, int]
    ) -> Recorded:
        async with self._database.transaction() as connection:
            left = await connection.fetch(
                _RECORD, list(tokens), list(tokens.values()), *columns(moves, 7)
            )
            fenced = frozenset(row["delivery_id"] for row in left if row["fenced"])
            late = frozenset(row["delivery_id"] for row in left) - fenced
            if left:
                recorded = [
                    attempt for attempt in attempts if attempt.delivery_id not in fenced | late
                ]
            else:
                recorded = list(attempts)
            if recorded:
                await connection.copy_records_to_table(
                    "attempt",
                    schema_name="dispatcher",
                    columns=AttemptRow._fields,
                    records=recorded,
                )
            failed = [
                (attempt.day, attempt.delivery_id, attempt.outcome, attempt.response_code)
                for move, attempt in zip(moves, attempts, strict=True)
                if move.state == DeliveryState.FAILED and move.delivery_id not in fenced | late
            ]
            if failed or late:
                await connection.execute(PLAN_FOR_VALUES)
            if failed:
                await connection.execute(_SAY_FAILED, *columns(failed, 4))
            for move, attempt in zip(moves, attempts, strict=True):
                if move.delivery_id in late:
                    await connection.execute(_RECORD_LATE, move.shard, tokens[move.shard], *attempt)
            return Recorded(fenced, late)

    async def settle_requests(self, attempts: Sequence[tuple[DeliveryId, datetime, bool]]) -> None:
        """Takes away the resend requests that these attempts (id, attempted at, succeeded) have answered."""
        await self._database.execute(_SETTLE, *columns(attempts, 3))

    async def window(
        self, endpoint_ids: Sequence[EndpointId], rows_max: int, horizon_seconds: float
    ) -> list[WindowRow]:
        """Returns the next due deliveries of each endpoint, nearest first, at most `rows_max` of each."""
        rows = await self._rows(_WINDOW, list(endpoint_ids), rows_max, horizon_seconds)
        return [WindowRow(*row) for row in rows]

    async def arrivals(
        self, endpoint_ids: Sequence[EndpointId], rows_max: int, back_seconds: float
    ) -> list[WindowRow]:
        """Returns deliveries that became due within `back_seconds`, at most `rows_max` of an endpoint."""
        rows = await self._rows(_ARRIVED, list(endpoint_ids), rows_max, back_seconds)
        return [WindowRow(*row) for row in rows]

    async def load(self, ids: Sequence[DeliveryId]) -> list[LoadedRow]:
        """Returns those of the deliveries that are still open.

        If one row cannot be read, the others are returned, and the log names it.
        """
        try:
            with data_faults():
                return await self._load(ids)
        except DataFaultError as error:
            if len(ids) == 1:
                _log.error("delivery.unreadable", delivery_id=ids[0], error=str(error))
                return []
        half = len(ids) // 2
        return [*await self.load(ids[:half]), *await self.load(ids[half:])]

    async def _load(self, ids: Sequence[DeliveryId]) -> list[LoadedRow]:
        days = [row["day"] for row in await self._rows(_DAYS, list(ids))]
        loaded: list[LoadedRow] = []
        for first in range(0, len(days), DAYS_AT_ONCE):
            async with self._database.transaction() as connection:
                await connection.execute(PLAN_FOR_VALUES)
                some = days[first : first + DAYS_AT_ONCE]
                loaded += [
                    LoadedRow(*row) for row in await connection.fetch(_LOAD, list(ids), some)
                ]
        return loaded

    async def requests(
        self, shards: Sequence[int], rows_max: int, in_flight: Sequence[DeliveryId]
    ) -> list[RequestRow]:
        """Returns what people asked of deliveries in these shards.

        If one request cannot be read, the others are returned, and the log names its delivery.
        """
        aside = [*in_flight, *self._unreadable]
        try:
            return await self._load_requests(shards, rows_max, aside)
        except DataFaultError as error:
            return await self._readable_requests(shards, aside, error)

    async def _load_requests(
        self, shards: Sequence[int], rows_max: int, aside: Sequence[DeliveryId]
    ) -> list[RequestRow]:
        ours, busy = list(shards), list(aside)
        with data_faults():
            async with self._database.transaction() as connection:
                await connection.execute(PLAN_FOR_VALUES)
                found = await connection.fetch(_REQUESTS_DAYS, ours, busy, DAYS_AT_ONCE)
                days = [row["day"] for row in found]
                if not days:
                    return []
                rows = await connection.fetch(_REQUESTS, ours, rows_max, busy, days)
        return [RequestRow(*row) for row in rows]

    async def _readable_requests(
        self, shards: Sequence[int], aside: Sequence[DeliveryId], error: DataFaultError
    ) -> list[RequestRow]:
        """Reads requests one by one, and sets aside those that fail alone."""
        waiting = await self._database.fetch(_REQUEST_IDS, list(shards), list(aside))
        ids = [row["delivery_id"] for row in waiting]
        found: list[RequestRow] = []
        for delivery_id in ids:
            others = [*aside, *(one for one in ids if one != delivery_id)]
            try:
                found += await self._load_requests(shards, 2, others)
            except DataFaultError:
                self._unreadable.add(delivery_id)
                _log.error("request.unreadable", delivery_id=delivery_id, error=str(error))
        return found

    async def forget_requests(self, requests: Sequence[tuple[DeliveryId, str]]) -> None:
        """Takes away requests (id, kind) that have been acted on."""
        await self._database.execute(_FORGET, *columns(requests, 2))

    async def endpoints_with_nothing_to_send(self) -> list[tuple[EndpointId, str]]:
        """Returns endpoints whose waiting deliveries are to be cancelled, with the reason."""
        return [(row["id"], row["reason"]) for row in await self._database.fetch(_NOTHING_TO_SEND)]

    async def cancel_of_endpoints(
        self, endpoints: Sequence[tuple[EndpointId, str]], rows_max: int
    ) -> int:
        """Cancels up to `rows_max` waiting deliveries of these endpoints; returns how many."""
        return int(await self._value(_CANCEL_OF_ENDPOINTS, *columns(endpoints, 2), rows_max))

    async def cancel_held(self, hold_seconds: float, rows_max: int) -> int:
        """Cancels deliveries that paused endpoints have held longer than that; returns how many."""
        return int(await self._value(_CANCEL_HELD, hold_seconds, rows_max))

    async def gauges(self) -> "asyncpg.Record":
        """Returns the figures of the whole database that /metrics shows."""
        row = await self._database.fetch_row(_GAUGES, list(DOWN_SECONDS), DOWN_ATTEMPTS_MIN)
        assert row is not None  # noqa: S101 -- a SELECT of subqueries has one row
        return row

    async def _rows(self, sql: str, *parameters: object) -> "list[asyncpg.Record]":
        """Reads within a transaction: its settings keep the planner from reading a hot table whole."""
        with data_faults():
            async with self._database.transaction() as connection:
                return await connection.fetch(sql, *parameters)

    async def _value(self, sql: str, *parameters: object) -> int:
        with data_faults():
            async with self._database.transaction() as connection:
                return int(await connection.fetchval(sql, *parameters))
