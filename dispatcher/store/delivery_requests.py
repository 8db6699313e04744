"""The tables `delivery_request` and `endpoint_request`: people's requests for resends, cancellations and retries.

A request is made on the connection of the caller's transaction, at whose commit the dispatchers are notified. The
dispatcher that holds the shard reads it, carries it out and deletes it.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, NamedTuple

import structlog
from asyncpg.pgproto.pgproto import UUID

from dispatcher.core import codes
from dispatcher.core.errors import DataFaultError
from dispatcher.core.model import DeliveryId, EndpointId
from dispatcher.store.day_walk import PLAN_FOR_VALUES
from dispatcher.store.delivery_ids import delivery_ids_of, uuid_of, uuids_of
from dispatcher.store.event_bodies import DAYS_AT_ONCE, event_of, events_of
from dispatcher.store.pool import Database, data_faults
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.delivery_details import DeliveryDetail
    from dispatcher.store.pool import Reach

_log = structlog.get_logger("dispatcher.store.delivery_requests")

_REQUESTS = statement("delivery_request_load")
_REQUESTS_DAYS = statement("delivery_request_days")
_REQUEST_IDS = statement("delivery_request_waiting")
_FORGET = statement("delivery_request_forget")
_ENDPOINT_REQUESTS = statement("endpoint_request_load")
_ENDPOINT_OUTCOME = statement("endpoint_request_outcome")
_ENDPOINT_FORGET = statement("endpoint_request_forget")
_CONTROL_NOTIFY = statement("delivery_request_notify")
_DELIVERY_RESEND = statement("delivery_resend")
_DELIVERY_CANCEL = statement("delivery_cancel")
_ENDPOINT_RETRY = statement("endpoint_request_retry")


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


class DeliveryRequests:
    """The statements by which a dispatcher reads requests, and deletes those that it has carried out."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unreadable: set[DeliveryId] = set()
        """Deliveries whose requests cannot be read; they are skipped until the next start."""

    async def of_deliveries(
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
        events = await events_of(self._database, [row for row in rows if row["day"] is not None])
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

    async def forget(self, requests: Sequence[tuple[DeliveryId, str]]) -> None:
        """Delete requests (id, kind) that have been carried out."""
        ids, kinds = [request[0] for request in requests], [request[1] for request in requests]
        await self._database.execute(_FORGET, uuids_of(ids), kinds)

    async def of_endpoints(
        self, tokens: Mapping[int, int], rows_max: int
    ) -> list[EndpointRequestRow]:
        """Return people's requests about endpoints of the shards that are held under these tokens."""
        with data_faults():
            async with self._database.transaction() as connection:
                rows = await connection.fetch(
                    _ENDPOINT_REQUESTS, list(tokens), list(tokens.values()), rows_max
                )
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

    async def forget_of_endpoints(self, requests: Sequence[EndpointRequestRow]) -> None:
        """Delete requests that have been carried out; one that was made again meanwhile stays."""
        await self._database.execute(
            _ENDPOINT_FORGET,
            [request.endpoint_no for request in requests],
            [request.kind for request in requests],
            [request.requested_at for request in requests],
        )


async def notify_dispatchers(connection: "Reach") -> None:
    """Notify the dispatchers of people's requests, once the transaction has committed."""
    await connection.execute(_CONTROL_NOTIFY)


async def request_resend(connection: "Reach", delivery: "DeliveryDetail", actor: str) -> bool:
    """Request one more attempt; return whether the endpoint still exists."""
    asked = await connection.fetchval(
        _DELIVERY_RESEND,
        uuid_of(delivery.id),
        delivery.day,
        delivery.endpoint_id,
        actor,
        delivery.event_id,
    )
    await notify_dispatchers(connection)
    return asked is not None


async def request_retry(
    connection: "Reach", endpoint_id: str, actor: str, failed_types: Sequence[int] = ()
) -> RetryRequest | None:
    """Request a retry of an endpoint; return the request, None if no delivery of another type waits."""
    row = await connection.fetchrow(_ENDPOINT_RETRY, endpoint_id, actor, list(failed_types))
    await notify_dispatchers(connection)
    return None if row is None else RetryRequest(*row)


async def cancel_delivery(connection: "Reach", delivery_id: str, actor: str) -> bool:
    """Cancel an open delivery; return whether it was open."""
    ended = await connection.fetchval(_DELIVERY_CANCEL, uuid_of(delivery_id), actor)
    await notify_dispatchers(connection)
    return ended is not None


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
