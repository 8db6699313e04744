"""The table `delivery_open`: due deliveries, what an attempt needs of them, lines in their order, and cancellations."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import structlog
from asyncpg.pgproto.pgproto import UUID

from dispatcher.core import codes
from dispatcher.core.errors import DataFaultError
from dispatcher.core.model import DeliveryId, DeliveryState, EndpointId
from dispatcher.core.order import Place
from dispatcher.store.delivery_ids import delivery_ids_of, first_uuid, uuids_of
from dispatcher.store.event_bodies import event_of, events_of
from dispatcher.store.pool import Database, data_faults
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.pool import Reach

_log = structlog.get_logger("dispatcher.store.deliveries")

_WINDOW = statement("delivery_open_window")
_ARRIVED = statement("delivery_open_arrived")
_LOAD = statement("delivery_open_load")
_RELEASE = statement("delivery_open_release")
_PLACE = statement("delivery_open_place")
_SHELVE = statement("delivery_open_shelve")
_WAKE = statement("delivery_open_wake")
_SWEEP = statement("delivery_open_sweep")
_CANCEL_OF_ENDPOINTS = statement("delivery_open_cancel_of_endpoints")
_CANCEL_HELD = statement("delivery_open_cancel_held")
_NOTHING_TO_SEND = statement("endpoint_list_idle")
_GAUGES = statement("deployment_gauges")
_NOW = statement("server_now")

EARLIER_EVENTS_MAX = 5_000
"""Events of the outbox that are read for the order of waiting deliveries: some 5 ms."""


class WindowRow(NamedTuple):
    """A waiting delivery, with only the facts that the wheel needs."""

    id: DeliveryId
    endpoint_id: EndpointId
    due_in_seconds: float


class PlacedRow(NamedTuple):
    """Where an open delivery stands in its line."""

    id: DeliveryId
    place: Place | None
    """None: it is in no line."""
    previous_id: DeliveryId | None
    """The open delivery that comes immediately before it in its line."""
    next_id: DeliveryId | None
    is_held: bool
    """An earlier event of its line is still in the outbox."""
    joins_count: int
    """How often replicas have joined, counted after the rest was read."""


class Swept(NamedTuple):
    """A slice of the lines of an endpoint."""

    last_key: int | None
    """None: there are no more lines."""
    woken_count: int


class LoadedRow(NamedTuple):
    """An open delivery with all the facts that an attempt needs."""

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
    is_replay: bool = False
    """A job started its schedule again."""


class Deliveries:
    """The statements on open deliveries of fan-out, loader and maintenance."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def window(
        self, endpoint_ids: Sequence[EndpointId], rows_max: int, horizon_seconds: float
    ) -> list[WindowRow]:
        """Return the next due deliveries of each endpoint, earliest first, at most `rows_max` of each."""
        return _window(await self._rows(_WINDOW, list(endpoint_ids), rows_max, horizon_seconds))

    async def arrivals(
        self, endpoint_ids: Sequence[EndpointId], rows_max: int, back_seconds: float
    ) -> list[WindowRow]:
        """Return deliveries that became due within `back_seconds`, at most `rows_max` of an endpoint."""
        return _window(await self._rows(_ARRIVED, list(endpoint_ids), rows_max, back_seconds))

    async def load(self, ids: Sequence[DeliveryId]) -> list[LoadedRow]:
        """Return the deliveries that are still open.

        A row that cannot be read is logged, and the others are returned.
        """
        try:
            with data_faults():
                return await self._load(ids)
        except DataFaultError as error:
            if len(ids) == 1:
                _log.error("delivery.load_failed", delivery_id=ids[0], error=str(error))
                return []
        half = len(ids) // 2
        return [*await self.load(ids[:half]), *await self.load(ids[half:])]

    async def _load(self, ids: Sequence[DeliveryId]) -> list[LoadedRow]:
        rows = await self._rows(_LOAD, uuids_of(ids))
        events = await events_of(self._database, rows)
        loaded: list[LoadedRow] = []
        for row, delivery_id in zip(rows, delivery_ids_of([row[0] for row in rows]), strict=True):
            event = event_of(events, row)
            if event is not None:
                loaded.append(
                    LoadedRow(
                        delivery_id,
                        row["day"],
                        row["event_id"],
                        event["type"],
                        row["endpoint_id"],
                        row["attempt_count"],
                        row["schedule_position"],
                        DeliveryState.RETRYING
                        if row["schedule_position"]
                        else DeliveryState.PENDING,
                        event["bytes"],
                        event["inserted_at"],
                        event["traceparent"],
                        row["due_in_seconds"],
                        row["is_replay"],
                    )
                )
        return loaded

    async def release(self, endpoint_no: int, rows_max: int) -> int:
        """Make up to `rows_max` scheduled deliveries of an endpoint due now; return how many there were."""
        return await self._value(_RELEASE, endpoint_no, rows_max, False)

    async def place(self, ids: Sequence[DeliveryId]) -> list[PlacedRow]:
        """Return where those of these deliveries that are open stand in their lines."""
        with data_faults():
            async with self._database.transaction() as connection:
                return await places(connection, uuids_of(ids))

    async def shelve(self, ids: Sequence[DeliveryId]) -> None:
        """Take deliveries that stand behind others out of the window, until their line is woken."""
        async with self._database.transaction() as connection:
            await shelve(connection, uuids_of(ids))

    async def wake(self, endpoint_no: int, keys: Sequence[int], rows_max: int) -> list[WindowRow]:
        """Return the first deliveries of each of these lines; those that were shelved are due now."""
        return _window(await self._rows(_WAKE, endpoint_no, list(keys), rows_max))

    async def sweep(self, endpoint_no: int, after_key: int, keys_max: int) -> Swept:
        """Make the first deliveries of some lines due where they were shelved."""
        (row,) = await self._rows(_SWEEP, endpoint_no, after_key, keys_max)
        return Swept(row["last_key"], row["woken_count"])

    async def bring_back(self, endpoint_no: int, rows_max: int) -> int:
        """Make deliveries due that were shelved, of an endpoint that has no order now; return how many."""
        return await self._value(_RELEASE, endpoint_no, rows_max, True)

    async def endpoints_with_nothing_to_send(self) -> list[tuple[EndpointId, str]]:
        """Return the endpoints whose waiting deliveries must be cancelled, with the reason."""
        return [(row["id"], row["reason"]) for row in await self._database.fetch(_NOTHING_TO_SEND)]

    async def cancel_of_endpoints(
        self, endpoints: Sequence[tuple[EndpointId, str]], rows_max: int
    ) -> int:
        """Cancel up to `rows_max` waiting deliveries of these endpoints; return the count."""
        ids = [endpoint_id for endpoint_id, _ in endpoints]
        reasons = [codes.REASON_CODES[reason] for _, reason in endpoints]
        return int(await self._value(_CANCEL_OF_ENDPOINTS, ids, reasons, rows_max))

    async def cancel_held(self, hold_seconds: float, rows_max: int) -> int:
        """Cancel deliveries that paused endpoints have put on hold for longer; return the count."""
        async with self._database.transaction() as connection:
            now = await connection.fetchval(_NOW)
            created_before = first_uuid(now - timedelta(seconds=hold_seconds))
            return int(
                await connection.fetchval(_CANCEL_HELD, hold_seconds, rows_max, created_before)
            )

    async def gauges(self, down_endpoints_max: int = 0) -> "asyncpg.Record":
        """Return the figures of the whole database that /metrics shows; name so many endpoints that are down."""
        row = await self._database.fetch_row(_GAUGES, down_endpoints_max)
        assert row is not None  # noqa: S101 -- a SELECT of subqueries has one row
        return row

    async def _rows(self, sql: str, *parameters: object) -> "list[asyncpg.Record]":
        """Query within a transaction, whose settings prevent sequential scans of the hot tables."""
        with data_faults():
            async with self._database.transaction() as connection:
                return await connection.fetch(sql, *parameters)

    async def _value(self, sql: str, *parameters: object) -> int:
        with data_faults():
            async with self._database.transaction() as connection:
                return int(await connection.fetchval(sql, *parameters))


async def places(connection: "Reach", ids: Sequence[UUID]) -> list[PlacedRow]:
    """Return where those of these deliveries that are open stand in their lines."""
    rows = await connection.fetch(_PLACE, list(ids), EARLIER_EVENTS_MAX)
    return [
        PlacedRow(
            one,
            None if row["order_key"] is None else Place(row["order_key"], row["position"]),
            _optional_id(row["previous_id"]),
            _optional_id(row["next_id"]),
            row["is_held"],
            row["joins_count"],
        )
        for one, row in zip(delivery_ids_of([row["id"] for row in rows]), rows, strict=True)
    ]


async def shelve(connection: "Reach", ids: Sequence[UUID]) -> None:
    """Take deliveries that stand behind others out of the window, until their line is woken."""
    await connection.execute(_SHELVE, list(ids))


def _optional_id(uuid: UUID | None) -> DeliveryId | None:
    return None if uuid is None else delivery_ids_of([uuid])[0]


def _window(rows: "Sequence[Record]") -> list[WindowRow]:
    ids = delivery_ids_of([row[0] for row in rows])
    return [WindowRow(i, row[1], row[2]) for i, row in zip(ids, rows, strict=True)]
