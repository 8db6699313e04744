"""Loads open deliveries and people's requests about them, keeps lines in order, and cancels."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import structlog
from asyncpg.pgproto.pgproto import UUID

from dispatcher.core import codes
from dispatcher.core.errors import DataFaultError
from dispatcher.core.model import DeliveryId, DeliveryState, EndpointId
from dispatcher.core.order import Place
from dispatcher.store.day_walk import PLAN_FOR_VALUES
from dispatcher.store.delivery_ids import delivery_ids_of, first_uuid, uuids_of
from dispatcher.store.kept_plans import fetch_of_each_day
from dispatcher.store.pool import Database, columns, data_faults
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.pool import Reach

_log = structlog.get_logger("dispatcher.store.deliveries")

_WINDOW = statement("delivery_open_window")
_ARRIVED = statement("delivery_open_arrived")
_LOAD = statement("delivery_open_load")
_LOAD_EVENTS = statement("event_load")
_REQUESTS = statement("delivery_request_load")
_REQUESTS_DAYS = statement("delivery_request_days")
_REQUEST_IDS = statement("delivery_request_waiting")
_FORGET = statement("delivery_request_forget")
_ENDPOINT_REQUESTS = statement("endpoint_request_load")
_ENDPOINT_OUTCOME = statement("endpoint_request_outcome")
_ENDPOINT_FORGET = statement("endpoint_request_forget")
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
DAYS_AT_ONCE = 16
"""Days of history that one statement reads; it locks only their partitions (store/day_walk.py)."""


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


class RequestRow(NamedTuple):
    """A person's request; for a resend with the facts that an attempt needs, None if retention deleted them."""

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


class EndpointRequestRow(NamedTuple):
    """A person's request about an endpoint."""

    endpoint_id: EndpointId
    endpoint_no: int
    kind: str
    """`retry`: send all that waits once one attempt has succeeded. `reload`: the schedule was changed."""
    requested_at: datetime
    succeeded: bool | None
    """Whether the attempt of a retry succeeded; None: it is still to be made or recorded."""


class RetryRequest(NamedTuple):
    """A request to retry an endpoint, with the delivery that is sent first."""

    endpoint_no: int
    requested_at: datetime
    delivery_uuid: UUID
    day: date
    event_id: str
    event_type_code: int = 0
    """0: not known; only the process that made the request needs it."""

    @property
    def delivery_id(self) -> DeliveryId:
        """The id of the delivery that is sent first."""
        return delivery_ids_of([self.delivery_uuid])[0]


class RetryOutcome(NamedTuple):
    """What has become of the attempt that a retry of an endpoint began with."""

    attempt_number: int | None
    """The latest attempt that ended since the request; None: there is none."""
    succeeded: bool
    is_resend_waiting: bool
    is_retry_waiting: bool
    dispatchers_alive: int


class Deliveries:
    """The statements on open deliveries of fan-out, loader and maintenance."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unreadable: set[DeliveryId] = set()
        """Deliveries whose requests cannot be read; they are skipped until the next start."""

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
        events = await self.events_of(rows)
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

    async def requests(
        self, shards: Sequence[int], rows_max: int, in_flight: Sequence[DeliveryId]
    ) -> list[RequestRow]:
        """Return people's requests for deliveries in these shards.

        A request that cannot be read is logged with its delivery, and the others are returned.
        """
        aside = [*in_flight, *self._unreadable]
        try:
            return await self._load_requests(shards, rows_max, aside)
        except DataFaultError as error:
            return await self._readable_requests(shards, aside, error)

    async def _load_requests(
        self, shards: Sequence[int], rows_max: int, aside: Sequence[DeliveryId]
    ) -> list[RequestRow]:
        ours, busy = list(shards), uuids_of(aside)
        with data_faults():
            async with self._database.transaction() as connection:
                await connection.execute(PLAN_FOR_VALUES)
                found = await connection.fetch(_REQUESTS_DAYS, ours, busy, DAYS_AT_ONCE)
                if not found:
                    return []
                days = [row["day"] for row in found]
                rows = await connection.fetch(_REQUESTS, ours, rows_max, busy, days)
        events = await self.events_of([row for row in rows if row["day"] is not None])
        requests: list[RequestRow] = []
        for row, delivery_id in zip(rows, delivery_ids_of([row[1] for row in rows]), strict=True):
            event = event_of(events, row)
            requests.append(
                RequestRow(
                    row["kind"],
                    delivery_id,
                    row["day"],
                    row["event_id"],
                    None if event is None else event["type"],
                    row["endpoint_id"]
                    if row["kind"] == "cancel" or row["day"] is not None
                    else None,
                    row["attempt_count"],
                    row["schedule_position"],
                    None if row["day"] is None else codes.state_of(row["state"]),
                    codes.reason_of(row["reason"]),
                    None if event is None else event["bytes"],
                    None if event is None else event["inserted_at"],
                    None if event is None else event["traceparent"],
                    row["answered"],
                )
            )
        return requests

    async def _readable_requests(
        self, shards: Sequence[int], aside: Sequence[DeliveryId], error: DataFaultError
    ) -> list[RequestRow]:
        """Read requests one by one, and skip those that cannot be read until the next start."""
        waiting = await self._database.fetch(_REQUEST_IDS, list(shards), uuids_of(aside))
        ids = delivery_ids_of([row["delivery_id"] for row in waiting])
        found: list[RequestRow] = []
        for delivery_id in ids:
            others = [*aside, *(one for one in ids if one != delivery_id)]
            try:
                found += await self._load_requests(shards, 2, others)
            except DataFaultError:
                self._unreadable.add(delivery_id)
                _log.error("request.load_failed", delivery_id=delivery_id, error=str(error))
        return found

    async def forget_requests(self, requests: Sequence[tuple[DeliveryId, str]]) -> None:
        """Delete requests (id, kind) that have been carried out."""
        ids, kinds = [request[0] for request in requests], [request[1] for request in requests]
        await self._database.execute(_FORGET, uuids_of(ids), kinds)

    async def endpoint_requests(
        self, tokens: Mapping[int, int], rows_max: int
    ) -> list[EndpointRequestRow]:
        """Return people's requests about endpoints of the shards that are held under these tokens."""
        rows = await self._rows(_ENDPOINT_REQUESTS, list(tokens), list(tokens.values()), rows_max)
        requests: list[EndpointRequestRow] = []
        for row in rows:
            succeeded = None
            if row["kind"] == "retry":
                request = RetryRequest(row["endpoint_no"], *row[3:])
                async with self._database.transaction() as connection:
                    outcome = await retry_outcome(connection, request)
                if outcome.succeeded or not outcome.is_resend_waiting:
                    succeeded = outcome.succeeded
            requests.append(
                EndpointRequestRow(
                    row["endpoint_id"],
                    row["endpoint_no"],
                    row["kind"],
                    row["requested_at"],
                    succeeded,
                )
            )
        return requests

    async def forget_endpoint_requests(self, requests: Sequence[EndpointRequestRow]) -> None:
        """Delete requests that have been carried out; one that was made again meanwhile stays."""
        await self._database.execute(
            _ENDPOINT_FORGET,
            [request.endpoint_no for request in requests],
            [request.kind for request in requests],
            [request.requested_at for request in requests],
        )

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

    async def events_of(self, rows: "Sequence[Record]") -> "dict[tuple[date, str, str], Record]":
        """Return the events of these rows by day, id and body key."""
        keys = dict.fromkeys((row["day"], row["event_id"], row["profile"]) for row in rows)
        for row in rows:
            if row["earlier_profile"] is not None:
                keys[row["day"], row["event_id"], row["earlier_profile"]] = None
        return await self.events_by_key(list(keys))

    async def events_by_key(
        self, keys: Sequence[tuple[date, str, str]]
    ) -> "dict[tuple[date, str, str], Record]":
        """Return events by day, id and body key, from `DAYS_AT_ONCE` days at a time."""
        days = sorted({key[0] for key in keys})
        events: dict[tuple[date, str, str], Record] = {}
        for first in range(0, len(days), DAYS_AT_ONCE):
            some = set(days[first : first + DAYS_AT_ONCE])
            wanted = columns([key for key in keys if key[0] in some], 3)
            with data_faults():
                async with self._database.transaction() as connection:
                    for row in await fetch_of_each_day(
                        connection, _LOAD_EVENTS, *wanted, days=sorted(some)
                    ):
                        events[row["day"], row["event_id"], row["profile"]] = row
        return events

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


async def drop_resends(connection: "Reach", ids: Sequence[UUID]) -> None:
    """Delete the requested resends of these deliveries."""
    await connection.execute(_FORGET, list(ids), ["resend"] * len(ids))


async def retry_outcome(connection: "Reach", request: RetryRequest) -> RetryOutcome:
    """Return what has become of a retry so far."""
    await connection.execute(PLAN_FOR_VALUES)
    row = await connection.fetchrow(
        _ENDPOINT_OUTCOME,
        request.day,
        request.event_id,
        request.endpoint_no,
        request.delivery_uuid,
        request.requested_at,
    )
    assert row is not None  # noqa: S101 -- a SELECT of subqueries has one row
    return RetryOutcome(*row)


def _optional_id(uuid: UUID | None) -> DeliveryId | None:
    return None if uuid is None else delivery_ids_of([uuid])[0]


def event_of(events: "dict[tuple[date, str, str], Record]", row: "Record") -> "Record | None":
    """Return the event of a delivery with its body: its own, or the one that its attempts sent before it had a mask."""
    event = events.get((row["day"], row["event_id"], row["profile"]))
    if row["earlier_profile"] is None or event is None or event["bytes"] is not None:
        return event
    return events.get((row["day"], row["event_id"], row["earlier_profile"]), event)


def _window(rows: "Sequence[Record]") -> list[WindowRow]:
    ids = delivery_ids_of([row[0] for row in rows])
    return [WindowRow(i, row[1], row[2]) for i, row in zip(ids, rows, strict=True)]
