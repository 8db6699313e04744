"""The table `endpoint`, for operations.

Every change takes the connection of the caller's transaction, so that the change and its entry in
the audit log are committed together.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import orjson

from dispatcher.core.errors import ConflictError
from dispatcher.core.problems import problem
from dispatcher.runtime.clock import SystemClock
from dispatcher.store.columns import failed_since
from dispatcher.store.routing import EndpointRow, SealedSecret
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.pool import Reach

_ENDPOINT_LOCK = statement("endpoint_lock")
_ENDPOINTS_PAGE = statement("endpoint_page")
_ENDPOINT_INSERT = statement("endpoint_insert")
_ENDPOINTS_COUNT = statement("endpoint_count")
_ENDPOINT_UPDATE = statement("endpoint_update")
_ENDPOINT_PAUSE = statement("endpoint_pause")
_ENDPOINT_TOUCH = statement("endpoint_touch")
_ENDPOINT_RESUME = statement("endpoint_resume")
_ENDPOINT_DELETE = statement("endpoint_delete")
_ENDPOINTS_OF_TENANT = statement("endpoint_list")
_ENDPOINT_NAMES = statement("endpoint_names")

_NO_CHANGE = "UPDATE 0"

COUNTED_MAX = 1_000
"""Waiting and failed deliveries of an endpoint are counted up to here."""


class EndpointDetail(NamedTuple):
    """An endpoint as people see it; None means the value of the profile or the settings."""

    id: str
    tenant: str
    name: str
    url: str
    profile: str
    event_types: list[str]
    labels: dict[str, str | list[str]]
    headers: dict[str, str]
    ca_pem: str | None
    max_concurrency: int | None
    rate_limit: float | None
    timeout_seconds: float | None
    retry_schedule_seconds: list[float] | None
    ordering: str
    state: str
    reason: str | None
    created_at: datetime
    updated_at: datetime
    health: str
    health_since: datetime | None
    health_cause: str | None
    health_response_code: int | None
    waiting_count: int
    failed_count: int
    """Failed and not resent with success; like `waiting_count`, `COUNTED_MAX` + 1 where there are more."""


class EndpointName(NamedTuple):
    """The name of an endpoint."""

    id: str
    name: str
    is_deleted: bool


class RoutedEndpoint(NamedTuple):
    """What decides whether an endpoint gets an event, and what follows."""

    id: str
    name: str
    event_types: list[str]
    labels: dict[str, str | list[str]]
    state: str
    reason: str | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    rate_limit: float | None


def routed_row(endpoint: EndpointDetail, sealed: Sequence[SealedSecret]) -> EndpointRow:
    """Return an endpoint as the daemon reads it, without what only a shard's owner needs."""
    own = {
        field: getattr(endpoint, field) for field in EndpointRow._fields if hasattr(endpoint, field)
    }
    return EndpointRow(
        **own,
        number=0,
        revision=0,
        shard=0,
        secrets=list(sealed),
    )


def _endpoint(row: "Record") -> EndpointDetail:
    values = {**row, "labels": orjson.loads(row["labels"]), "headers": orjson.loads(row["headers"])}
    return EndpointDetail(**values)


async def load_endpoint(
    connection: "Reach", endpoint_id: str, tenant: str | None, *, lock: bool = False
) -> EndpointDetail | None:
    """Return an endpoint that is not deleted, on request locked for a change; None: there is none."""
    if lock and await connection.fetchval(_ENDPOINT_LOCK, endpoint_id, tenant) is None:
        return None
    rows = await page_of_endpoints(connection, [tenant, *(None,) * 5, 1, endpoint_id, None])
    return rows[0] if rows else None


async def page_of_endpoints(connection: "Reach", filters: Sequence[object]) -> list[EndpointDetail]:
    """Return a page; `filters` in the order of the statement, the health last."""
    since = failed_since(SystemClock.now())
    rows = await connection.fetch(_ENDPOINTS_PAGE, *filters, COUNTED_MAX, since)
    return [_endpoint(row) for row in rows]


async def insert_endpoint(connection: "Reach", endpoint: Sequence[object], name: str) -> None:
    """Insert an endpoint; the values are in the order of the statement.

    Raises:
        ConflictError: the tenant has one of that name.
    """
    try:
        await connection.execute(_ENDPOINT_INSERT, *endpoint)
    except asyncpg.UniqueViolationError as error:
        raise ConflictError(problem("name", "name_in_use", value=name)) from error


async def count_endpoints(connection: "Reach", tenant: str, count_max: int) -> int:
    """Count a tenant's endpoints, up to `count_max`; exact after an insert in the same transaction."""
    return int(await connection.fetchval(_ENDPOINTS_COUNT, tenant, count_max))


async def update_endpoint(connection: "Reach", endpoint: Sequence[object], name: str) -> None:
    """Update an endpoint; the values are in the order of the statement.

    Raises:
        ConflictError: the tenant has another one of that name.
    """
    try:
        await connection.execute(_ENDPOINT_UPDATE, *endpoint)
    except asyncpg.UniqueViolationError as error:
        raise ConflictError(problem("name", "name_in_use", value=name)) from error


async def pause_endpoint(connection: "Reach", endpoint_id: str) -> bool:
    """Pause an active endpoint; return whether it was active."""
    return await connection.execute(_ENDPOINT_PAUSE, endpoint_id) != _NO_CHANGE


async def resume_endpoint(connection: "Reach", endpoint_id: str) -> bool:
    """Activate an endpoint; return whether that changed it."""
    return await connection.execute(_ENDPOINT_RESUME, endpoint_id) != _NO_CHANGE


async def touch_endpoint(connection: "Reach", endpoint_id: str) -> datetime:
    """Give an endpoint a new version, for a change of its secrets; return `updated_at`."""
    at: datetime = await connection.fetchval(_ENDPOINT_TOUCH, endpoint_id)
    return at


async def delete_endpoint(connection: "Reach", endpoint_id: str) -> None:
    """Delete an endpoint, its secrets and the requests of its deliveries."""
    await connection.execute(_ENDPOINT_DELETE, endpoint_id)


async def endpoints_of_tenant(connection: "Reach", tenant: str) -> list[RoutedEndpoint]:
    """Return every endpoint of a tenant, deleted ones included, oldest first."""
    rows = await connection.fetch(_ENDPOINTS_OF_TENANT, tenant)
    return [RoutedEndpoint(**{**row, "labels": orjson.loads(row["labels"])}) for row in rows]


async def read_names(
    connection: "Reach", endpoint_ids: Sequence[str], tenant: str | None
) -> list[EndpointName]:
    """Return the names of those endpoints that the tenant has, deleted ones included."""
    rows = await connection.fetch(_ENDPOINT_NAMES, list(endpoint_ids), tenant)
    return [EndpointName(*row) for row in rows]
