"""The table `endpoint`, for operations.

Every change takes the connection of the caller's transaction, so that the change and its entry in
the audit log are committed together.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import orjson

from dispatcher.core.errors import ConflictError, NotFoundError
from dispatcher.core.problems import problem
from dispatcher.runtime.clock import SystemClock
from dispatcher.store.day_walk import month_ago
from dispatcher.store.delivery_requests import notify_dispatchers
from dispatcher.store.job_walk import Target, target_of
from dispatcher.store.kept_plans import fetch_since
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.pool import Reach

_ENDPOINT_NUMBER = statement("endpoint_number")
_ENDPOINT_LOCK = statement("endpoint_lock")
_ENDPOINTS_PAGE = statement("endpoint_page")
_ENDPOINTS_BY_TROUBLE = statement("endpoint_list_by_trouble")
_ENDPOINTS_WITH_PROBLEMS = statement("endpoint_list_with_problems")
_ENDPOINT_INSERT = statement("endpoint_insert")
_ENDPOINTS_COUNT = statement("endpoint_count")
_ENDPOINT_UPDATE = statement("endpoint_update")
_RELOAD = statement("endpoint_request_reload")
_ENDPOINT_PAUSE = statement("endpoint_pause")
_ENDPOINT_TOUCH = statement("endpoint_touch")
_ENDPOINT_RESUME = statement("endpoint_resume")
_ENDPOINT_DELETE = statement("endpoint_delete")
_ENDPOINTS_OF_TENANT = statement("endpoint_list")
_ENDPOINT_NAMES = statement("endpoint_names")
_SUBSCRIPTIONS = statement("endpoint_subscriptions")
_ENDPOINT_TARGET = statement("endpoint_find_target")

_NO_CHANGE = "UPDATE 0"

FAILED_READ_MAX = 50_000
"""Failed deliveries that a list of endpoints by trouble counts: some 0.2 µs each."""


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
    content_filter: str | None
    skip_after_attempts: int | None
    delivery: str
    also_sign: list[str]
    include: list[str]
    exclude: list[str]
    oauth_token_url: str | None
    oauth_client_id: str | None
    oauth_scope: str | None
    client_certificate: str | None
    state: str
    reason: str | None
    created_at: datetime
    updated_at: datetime
    health: str
    health_since: datetime | None
    health_cause: str | None
    health_response_code: int | None


class EndpointName(NamedTuple):
    """The name of an endpoint."""

    id: str
    name: str
    is_deleted: bool


class TargetRow(NamedTuple):
    """An endpoint as a job sends to it."""

    target: Target
    name: str
    state: str
    """`deleted` where it is."""


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
    is_pulled: bool
    content_filter: str | None = None


def _endpoint(row: "Record") -> EndpointDetail:
    values = {**row, "labels": orjson.loads(row["labels"]), "headers": orjson.loads(row["headers"])}
    return EndpointDetail(**values)


async def load_endpoint(
    connection: "Reach", endpoint_id: str, tenant: str | None, *, lock: bool = False
) -> EndpointDetail:
    """Return an endpoint that is not deleted, on request locked for a change.

    Raises:
        NotFoundError: the tenant has none of that id, or it is deleted.
    """
    endpoint = await find_endpoint(connection, endpoint_id, tenant, lock=lock)
    if endpoint is None:
        raise NotFoundError(problem("id", "endpoint_not_found", value=endpoint_id))
    return endpoint


async def find_endpoint(
    connection: "Reach", endpoint_id: str, tenant: str | None, *, lock: bool = False
) -> EndpointDetail | None:
    """Return an endpoint that is not deleted, on request locked for a change; None: there is none."""
    if lock and await connection.fetchval(_ENDPOINT_LOCK, endpoint_id, tenant) is None:
        return None
    rows = await page_of_endpoints(connection, [tenant, *(None,) * 5, 1, [endpoint_id], None, None])
    return rows[0] if rows else None


async def endpoint_number(connection: "Reach", endpoint_id: str) -> int:
    """Return the number of an endpoint, by which deliveries refer to it."""
    return int(await connection.fetchval(_ENDPOINT_NUMBER, endpoint_id))


async def page_of_endpoints(connection: "Reach", filters: Sequence[object]) -> list[EndpointDetail]:
    """Return a page; `filters` in the order of the statement, the part of a name last."""
    rows = await connection.fetch(_ENDPOINTS_PAGE, *filters)
    return [_endpoint(row) for row in rows]


async def endpoints_by_trouble(
    connection: "Reach", filters: Sequence[object], *, rows_max: int, offset: int
) -> list[str]:
    """Return the ids of endpoints, those in trouble first; `filters` in the order of the statement."""
    since = month_ago(SystemClock.now())
    rows = await fetch_since(
        connection, _ENDPOINTS_BY_TROUBLE, *filters, FAILED_READ_MAX, rows_max, offset, days=[since]
    )
    return [row["id"] for row in rows]


async def endpoints_with_problems(
    connection: "Reach", tenant: str | None, *, has_failed: bool, failed_max: int, rows_max: int
) -> list[str]:
    """Return the ids of endpoints that have a problem, the worst first."""
    since = month_ago(SystemClock.now())
    rows = await connection.fetch(
        _ENDPOINTS_WITH_PROBLEMS, tenant, has_failed, since, failed_max, rows_max
    )
    return [row["id"] for row in rows]


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


async def request_reload(connection: "Reach", endpoint_id: str, who: str) -> None:
    """Request that the schedule of an endpoint is read again."""
    await connection.execute(_RELOAD, endpoint_id, who)
    await notify_dispatchers(connection)


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


async def read_subscriptions(
    connection: "Reach", tenant: str | None, rows_max: int
) -> list[tuple[list[str], int]]:
    """Return what endpoints subscribe to, each with how many do; those of most endpoints first."""
    rows = await connection.fetch(_SUBSCRIPTIONS, tenant, rows_max)
    return [(row["event_types"], row["endpoints_count"]) for row in rows]


async def find_targets(
    connection: "Reach", id_or_name: str, tenant: str | None, rows_max: int
) -> list[TargetRow]:
    """Return the endpoints of an id, deleted ones included, or of a name; the one of the id first."""
    rows = await connection.fetch(_ENDPOINT_TARGET, id_or_name, tenant, rows_max)
    return [
        TargetRow(
            target_of(
                row["id"],
                row["number"],
                row["tenant"],
                row["event_types"],
                orjson.loads(row["labels"]),
                row["content_filter"],
            ),
            row["name"],
            "deleted" if row["is_deleted"] else row["state"],
        )
        for row in rows
    ]


async def find_target(connection: "Reach", endpoint_id: str) -> TargetRow | None:
    """Return the endpoint of an id, deleted or not."""
    rows = await find_targets(connection, endpoint_id, None, 1)
    return rows[0] if rows else None
