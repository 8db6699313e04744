"""Loads open deliveries, records their attempts, and ends them.

An attempt, the delivery's new state and its next due time commit together, under the token that the
endpoint's shard has at that moment. A batch moves its deliveries in one statement and commits in one
transaction; repeated after an unknown commit, it changes nothing. A delivery that the statement does not
move is either fenced (another replica owns the shard) or late (it ended meanwhile). Late attempts are
recorded one by one for the ended delivery.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, cast

import asyncpg
import structlog
from asyncpg.pgproto.pgproto import UUID

from dispatcher.core import codes
from dispatcher.core.errors import DataFaultError, StoreUnavailableError
from dispatcher.core.model import DeliveryId, DeliveryState, EndpointId
from dispatcher.core.order import Place
from dispatcher.store.attempts import ATTEMPT_COLUMNS, AttemptRow, attempt_values
from dispatcher.store.day_walk import PLAN_FOR_VALUES
from dispatcher.store.delivery_ids import delivery_ids_of, first_uuid, uuid_of, uuids_of
from dispatcher.store.kept_plans import fetch_of_each_day
from dispatcher.store.pool import Database, columns, data_faults, is_about_rows
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.pool import Reach

_log = structlog.get_logger("dispatcher.store.deliveries")

_RECORD = statement("delivery_record")
_RECORD_FIRST = statement("delivery_record_first")
_RECORD_LATE = statement("delivery_record_late")
_SAY_FAILED = statement("outbox_insert_failed")
_SETTLE = statement("delivery_request_settle")
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


class MoveRow(NamedTuple):
    """The new state of a delivery after an attempt, in the order of the statement's parameters."""

    shard: int
    delivery_id: DeliveryId
    attempt_number: int
    state: str
    reason: str | None
    schedule_position: int
    due_in_seconds: float | None


_DONE_COLUMNS = (
    *("id", "day", "event_id", "endpoint_no", "event_type_code", "state", "reason"),
    *("attempt_count", "schedule_position", "warnings"),
)
_DONE_WITH_ATTEMPT_COLUMNS = (
    *_DONE_COLUMNS,
    *("trigger", "outcome", "flags", "attempted_at", "latency_seconds", "dns_seconds"),
    *("connect_seconds", "wait_seconds", "read_seconds", "reused", "peer", "revision"),
    "response_code",
)
_NO_ATTEMPT = (None,) * (len(_DONE_WITH_ATTEMPT_COLUMNS) - len(_DONE_COLUMNS))
_ENDS = frozenset({DeliveryState.SUCCEEDED, DeliveryState.FAILED})


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


class Recorded(NamedTuple):
    """The deliveries of a recorded batch that were not moved."""

    fenced: frozenset[DeliveryId]
    """Not recorded, because the shard has another owner now."""
    late: frozenset[DeliveryId]
    """Those of a delivery that had ended meanwhile, or had gone on."""
    superseded: frozenset[DeliveryId] = frozenset()
    """The late ones whose attempt was not recorded: another one of its number had been."""


class Deliveries:
    """The statements on open deliveries of recorder, loader and maintenance."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unreadable: set[DeliveryId] = set()
        """Deliveries whose requests cannot be read; they are skipped until the next start."""

    async def record(
        self, moves: Sequence[MoveRow], attempts: Sequence[AttemptRow], tokens: dict[int, int]
    ) -> Recorded:
        """Record attempts and the new states of their deliveries, element by element.

        `tokens` has the token under which each shard of the batch was held.

        Raises:
            StoreUnavailableError: the batch may or may not be recorded; retry it unchanged.
            asyncpg.PostgresError: one of the rows is invalid.
        """
        try:
            if not self._database.is_distributed and all(map(_is_plain, moves, attempts)):
                return await self._record_first(moves, attempts, tokens)
            return await self._record(moves, attempts, tokens)
        except asyncpg.PostgresError as error:
            if is_about_rows(error):
                raise
            raise StoreUnavailableError(f"results cannot be recorded: {error}") from error

    async def _record_first(
        self, moves: Sequence[MoveRow], attempts: Sequence[AttemptRow], tokens: dict[int, int]
    ) -> Recorded:
        """Record successful first attempts in one statement, and in a transaction those that it leaves."""
        code = codes.event_type_code
        async with self._database.connection() as connection:
            left = await connection.fetch(
                _RECORD_FIRST,
                list(tokens),
                list(tokens.values()),
                [
                    (
                        move.shard, uuid_of(move.delivery_id), attempt.day, attempt.event_id,
                        attempt.endpoint_no, code(attempt.event_type), move.schedule_position,
                        codes.TRIGGER_CODES[attempt.trigger],
                        codes.OUTCOME_CODES[attempt.outcome], *attempt[9:19],
                    )
                    for move, attempt in zip(moves, attempts, strict=True)
                ],
            )  # fmt: skip
        if not left:
            return Recorded(frozenset(), frozenset())
        ids = delivery_ids_of([row["delivery_id"] for row in left])
        fenced = frozenset(i for i, row in zip(ids, left, strict=True) if row["fenced"])
        rest = set(ids) - fenced
        if not rest:
            return Recorded(fenced, frozenset())
        pairs = [p for p in zip(moves, attempts, strict=True) if p[0].delivery_id in rest]
        recorded = await self._record([p[0] for p in pairs], [p[1] for p in pairs], tokens)
        return recorded._replace(fenced=fenced | recorded.fenced)

    @staticmethod
    async def _record_late(
        connection: "Reach", pairs: Sequence[tuple[MoveRow, AttemptRow]], tokens: dict[int, int]
    ) -> frozenset[DeliveryId]:
        """Record attempts on deliveries that had ended; return those that were not recorded."""
        superseded: set[DeliveryId] = set()
        await connection.execute(PLAN_FOR_VALUES)
        for move, attempt in pairs:
            is_recorded = await connection.fetchval(
                _RECORD_LATE,
                move.shard,
                tokens[move.shard],
                *attempt_values(attempt, uuid_of(move.delivery_id)),
            )
            if not is_recorded:
                superseded.add(move.delivery_id)
        return frozenset(superseded)

    async def _record(
        self, moves: Sequence[MoveRow], attempts: Sequence[AttemptRow], tokens: dict[int, int]
    ) -> Recorded:
        ids = uuids_of([move.delivery_id for move in moves])
        async with self._database.transaction() as connection:
            left = await connection.fetch(
                _RECORD,
                list(tokens),
                list(tokens.values()),
                [move.shard for move in moves],
                ids,
                [move.attempt_number for move in moves],
                [move.state in _ENDS for move in moves],
                [move.schedule_position for move in moves],
                [move.due_in_seconds for move in moves],
            )
            fenced: set[UUID] = set()
            late: set[UUID] = set()
            warnings: dict[UUID, list[str]] = {}
            for row in left:
                if row["is_moved"]:
                    warnings[row["delivery_id"]] = row["warnings"]
                elif row["fenced"]:
                    fenced.add(row["delivery_id"])
                else:
                    late.add(row["delivery_id"])
            done: list[tuple[object, ...]] = []
            apart: list[tuple[object, ...]] = []
            failed: list[tuple[object, ...]] = []
            for move, attempt, uuid in zip(moves, attempts, ids, strict=True):
                if left and (uuid in fenced or uuid in late):
                    continue
                in_done = False
                if move.state in _ENDS:
                    in_done = _fits_its_delivery(attempt)
                    done.append(_done(move, attempt, uuid, warnings.get(uuid), in_done=in_done))
                    if move.state == DeliveryState.FAILED:
                        failed.append(_failure(move, attempt))
                if not in_done:
                    apart.append(attempt_values(attempt, uuid))
            if done:
                await connection.copy_records_to_table(
                    "delivery_done",
                    schema_name="dispatcher",
                    columns=_DONE_WITH_ATTEMPT_COLUMNS,
                    records=done,
                )
            if apart:
                await connection.copy_records_to_table(
                    "attempt", schema_name="dispatcher", columns=ATTEMPT_COLUMNS, records=apart
                )
            if failed:
                await connection.execute(_SAY_FAILED, *columns(failed, 8))
            superseded: frozenset[DeliveryId] = frozenset()
            if late:
                rows = zip(moves, attempts, ids, strict=True)
                pairs = [(move, attempt) for move, attempt, uuid in rows if uuid in late]
                superseded = await self._record_late(connection, pairs, tokens)
            return Recorded(
                frozenset(delivery_ids_of(list(fenced))),
                frozenset(delivery_ids_of(list(late))),
                superseded,
            )

    async def settle_requests(self, attempts: Sequence[tuple[DeliveryId, datetime, bool]]) -> None:
        """Delete the resend requests that these attempts (id, attempted at, succeeded) have carried out."""
        ids, attempted_at, succeeded = columns(attempts, 3)
        await self._database.execute(
            _SETTLE, uuids_of(cast("list[str]", ids)), attempted_at, succeeded
        )

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


def _fits_its_delivery(attempt: AttemptRow) -> bool:
    """Return whether the attempt is part of its delivery's row rather than a row of its own."""
    return (
        attempt.attempt_number == 1
        and attempt.response_body is None
        and attempt.response_headers is None
        and attempt.error is None
    )


def _is_plain(move: MoveRow, attempt: AttemptRow) -> bool:
    """Return whether the result is a success without anything unusual."""
    return (
        move.state == DeliveryState.SUCCEEDED
        and attempt.flags is None
        and _fits_its_delivery(attempt)
    )


def _done(
    move: MoveRow,
    attempt: AttemptRow,
    uuid: UUID,
    warnings: list[str] | None,
    *,
    in_done: bool,
) -> tuple[object, ...]:
    """Return the row of a delivery that ended, with its attempt if `in_done`, without it otherwise."""
    return (
        uuid,
        attempt.day,
        attempt.event_id,
        attempt.endpoint_no,
        codes.event_type_code(attempt.event_type),
        codes.STATE_CODES[move.state],
        codes.reason_code(move.reason),
        attempt.attempt_number,
        move.schedule_position,
        warnings,
        *(
            (
                codes.TRIGGER_CODES[attempt.trigger],
                codes.OUTCOME_CODES[attempt.outcome],
                *attempt[8:19],
            )
            if in_done
            else _NO_ATTEMPT
        ),
    )


def _failure(move: MoveRow, attempt: AttemptRow) -> tuple[object, ...]:
    """Return the facts for the event about a failed delivery, in the order of the statement's parameters."""
    return (
        attempt.delivery_id,
        attempt.event_id,
        attempt.event_type,
        attempt.endpoint_no,
        move.reason,
        attempt.attempt_number,
        attempt.outcome,
        attempt.response_code,
    )


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
