"""The table `endpoint`, for operations.

Every change takes the connection of the caller's transaction, so that the change and its entry in
the audit log are committed together.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import orjson

from dispatcher.core.codes import outcome_of
from dispatcher.core.errors import ConflictError
from dispatcher.core.failing import (
    FAILED_ATTEMPTS_MIN,
    FAILED_SHARE_MIN,
    RECOVERING_SECONDS_MIN,
    SHARE_SECONDS,
)
from dispatcher.core.model import EndpointId
from dispatcher.core.problems import problem
from dispatcher.runtime.clock import SystemClock
from dispatcher.store.day_walk import PLAN_FOR_VALUES, failed_since
from dispatcher.store.delivery_ids import first_uuid
from dispatcher.store.delivery_requests import notify_dispatchers
from dispatcher.store.job_walk import Target, target_of
from dispatcher.store.pool import Database, columns
from dispatcher.store.secrets import SealedSecret
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
_LOAD = statement("routing_load")
_CHANGES = statement("routing_changes")
_FAILING = statement("endpoint_health_failing")
_DISABLE = statement("endpoint_disable")
_WARN = statement("endpoint_warn")
_FAIL = statement("endpoint_health_fail")
_DOWN = statement("endpoint_list_down")
_CLEAR = statement("endpoint_health_clear")
_EVALUATE = statement("endpoint_status_evaluate")
_WAITING = statement("endpoint_count_waiting")
_FAILURES = statement("endpoint_count_failures")
_ENDPOINT_PROGRESS = statement("endpoint_progress")

_BOUNDED_PLAN = f"{PLAN_FOR_VALUES}; SET LOCAL enable_bitmapscan = off"
"""Before a statement that reads the first rows of an index: a bitmap is made of all of them."""
_NO_CHANGE = "UPDATE 0"

COUNTED_MAX = 1_000
"""Waiting and failed deliveries of an endpoint are counted up to here."""
FAILED_READ_MAX = 50_000
"""Failed deliveries that a list of endpoints by trouble counts: some 0.2 µs each."""
RESPONSES_MAX = 20
"""Different responses that the failures of an endpoint are counted by."""


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
    waiting_count: int
    failed_count: int
    """Failed and not resent with success; like `waiting_count`, `COUNTED_MAX` + 1 where there are more."""


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
    content_filter: str | None = None


class EndpointRow(NamedTuple):
    """An endpoint as saved; NULL in the database (None here) stands for the value of the profile or the settings."""

    id: EndpointId
    number: int
    revision: int
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
    state: str
    reason: str | None
    content_filter: str | None
    delivery: str
    also_sign: list[str]
    include: list[str]
    exclude: list[str]
    oauth_token_url: str | None
    oauth_client_id: str | None
    oauth_scope: str | None
    client_certificate: str | None
    body_key: str
    """Under what its bodies are stored: the profile, or a key of its own if it has or had a mask."""
    shard: int
    secrets: list[SealedSecret]
    ordering: str = "none"
    skip_after_attempts: int | None = None


class RoutingChanges(NamedTuple):
    """Which endpoints may differ from an older version of the routing table, in one snapshot."""

    version: int
    server_started_at: datetime
    """Identifies the server: after a failover the new one may lack changes that the old one had."""
    endpoint_ids: list[EndpointId]


class Health(NamedTuple):
    """Since when an endpoint fails, and the last threshold that was reported."""

    endpoint_id: EndpointId
    failing_seconds: float
    failed_attempts: int
    warned_percent: int


class HealthChange(NamedTuple):
    """A change of an endpoint's health; `was` is None where it was healthy."""

    endpoint_id: EndpointId
    was: str | None
    health: str
    since: datetime
    cause: str | None
    response_code: int | None


class DownEndpoint(NamedTuple):
    """An endpoint that has newly been down for as long as a threshold."""

    id: EndpointId
    down_seconds: int
    first_failure_at: datetime


class WaitingRow(NamedTuple):
    """The waiting deliveries of one endpoint."""

    endpoint_id: str
    waiting_count: int
    retrying_count: int
    oldest_due_at: datetime | None


class FailureRow(NamedTuple):
    """The failed and the retrying deliveries of an endpoint whose last attempt had one response."""

    outcome: str | None
    """None: no attempt was made."""
    response_code: int | None
    failed_count: int
    retrying_count: int


class Progress(NamedTuple):
    """An endpoint's deliveries by state."""

    endpoint_id: str
    delivered: int
    waiting: int
    retrying: int
    failed: int
    cancelled: int
    attempts: int


def routed_row(endpoint: EndpointDetail, sealed: Sequence[SealedSecret]) -> EndpointRow:
    """Return an endpoint as the daemon reads it, without what only a shard's owner needs."""
    own = {
        field: getattr(endpoint, field) for field in EndpointRow._fields if hasattr(endpoint, field)
    }
    return EndpointRow(
        **own,
        number=0,
        revision=0,
        body_key=endpoint.profile,
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
    rows = await page_of_endpoints(connection, [tenant, *(None,) * 5, 1, [endpoint_id], None, None])
    return rows[0] if rows else None


async def endpoint_number(connection: "Reach", endpoint_id: str) -> int:
    """Return the number of an endpoint, by which deliveries refer to it."""
    return int(await connection.fetchval(_ENDPOINT_NUMBER, endpoint_id))


async def page_of_endpoints(connection: "Reach", filters: Sequence[object]) -> list[EndpointDetail]:
    """Return a page; `filters` in the order of the statement, the part of a name last."""
    since = failed_since(SystemClock.now())
    rows = await connection.fetch(_ENDPOINTS_PAGE, *filters, COUNTED_MAX, since)
    return [_endpoint(row) for row in rows]


async def endpoints_by_trouble(
    connection: "Reach", filters: Sequence[object], *, rows_max: int, offset: int
) -> list[str]:
    """Return the ids of endpoints, those in trouble first; `filters` in the order of the statement."""
    since = failed_since(SystemClock.now())
    await connection.execute(_BOUNDED_PLAN)
    rows = await connection.fetch(
        _ENDPOINTS_BY_TROUBLE, *filters, since, FAILED_READ_MAX, rows_max, offset
    )
    return [row["id"] for row in rows]


async def endpoints_with_problems(
    connection: "Reach", tenant: str | None, *, has_failed: bool, failed_max: int, rows_max: int
) -> list[str]:
    """Return the ids of endpoints that have a problem, the worst first."""
    since = failed_since(SystemClock.now())
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


def _json(text: str) -> object:
    return {} if text == "{}" else orjson.loads(text)


def _endpoint_rows(records: "list[asyncpg.Record]") -> list[EndpointRow]:
    return [
        EndpointRow._make(
            (
                *row[:8],  # the statement's order is the type's
                _json(row["labels"]),
                _json(row["headers"]),
                *row[10:28],
                [SealedSecret(*secret) for secret in zip(*row[28:33], strict=True)],
                *row[33:35],
            )
        )
        for row in records
    ]


async def saved_endpoints(connection: "Reach") -> list[EndpointRow]:
    """Return every endpoint, for a check that has a connection of its own."""
    _, _, endpoint_ids = (await connection.fetch(_CHANGES, None))[0]
    return _endpoint_rows(await connection.fetch(_LOAD, endpoint_ids))


class Endpoints:
    """The routing tables, as fan-out and recorder see them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def changes(self, since_version: int | None) -> RoutingChanges:
        """Return the version and the endpoints that changed after another; None: all that are not deleted."""
        return RoutingChanges(*(await self._database.fetch(_CHANGES, since_version))[0])

    async def load(self, endpoint_ids: Sequence[EndpointId]) -> list[EndpointRow]:
        """Return those of these endpoints that are not deleted."""
        return _endpoint_rows(await self._database.fetch(_LOAD, list(endpoint_ids)))

    async def failing(self) -> set[EndpointId]:
        """Return the endpoints whose latest attempts failed."""
        return {row["endpoint_id"] for row in await self._database.fetch(_FAILING)}

    async def disable(self, endpoint_id: EndpointId, reason: str, *, raises_event: bool) -> bool:
        """Disable an active endpoint, and raise an event if requested; return whether it was active."""
        found = await self._database.fetch_value(_DISABLE, endpoint_id, reason, raises_event)
        return found is not None

    async def warn(self, endpoint_id: EndpointId, percent: int) -> bool:
        """Raise the event that an endpoint keeps failing; return whether this threshold was new."""
        return await self._database.fetch_value(_WARN, endpoint_id, percent) is not None

    async def count_failures(
        self, failures: Sequence[tuple[EndpointId, datetime, int, bool]]
    ) -> list[Health]:
        """Add failed attempts (endpoint, first time, count, of a producer's event); return the health since."""
        return [Health(*row) for row in await self._database.fetch(_FAIL, *columns(failures, 4))]

    async def evaluate_health(self, down_after_seconds: int) -> list[HealthChange]:
        """Record the health of endpoints; return the changes."""
        rows = await self._database.fetch(
            _EVALUATE,
            down_after_seconds,
            FAILED_ATTEMPTS_MIN,
            SHARE_SECONDS,
            FAILED_SHARE_MIN,
            RECOVERING_SECONDS_MIN,
        )
        return [HealthChange(*row) for row in rows]

    async def report_down(self, thresholds_seconds: list[int]) -> list[DownEndpoint]:
        """Raise an event for each endpoint that has newly been down for a threshold; return them."""
        rows = await self._database.fetch(_DOWN, thresholds_seconds)
        return [DownEndpoint(*row) for row in rows]

    async def clear_failures(self, endpoint_ids: Sequence[EndpointId]) -> None:
        """Clear the failures of endpoints that have succeeded again; raise an event for those warned of."""
        await self._database.execute(_CLEAR, list(endpoint_ids))


async def read_waiting(
    connection: "Reach", endpoint_ids: Sequence[str], tenant: str | None, count_max: int
) -> list[WaitingRow]:
    """Return the waiting deliveries of those of the endpoints that exist."""
    rows = await connection.fetch(_WAITING, list(endpoint_ids), tenant, count_max)
    return [WaitingRow(*row) for row in rows]


async def count_failures(
    connection: "Reach", endpoint_id: str, tenant: str | None
) -> list[FailureRow]:
    """Count the failed and the retrying deliveries of an endpoint by their last response, the most frequent first.

    At most `COUNTED_MAX` of either kind are read.
    """
    since = failed_since(SystemClock.now())
    await connection.execute(_BOUNDED_PLAN)
    rows = await connection.fetch(_FAILURES, endpoint_id, tenant, since, COUNTED_MAX, RESPONSES_MAX)
    return [FailureRow(None if row[0] is None else outcome_of(row[0]), *row[1:]) for row in rows]


async def read_progress(
    database: "Database", endpoint_ids: Sequence[str], since: datetime
) -> list[Progress]:
    """Return the counts of the deliveries made since then, for endpoints that have any."""
    day = since.astimezone(UTC).date()
    async with database.transaction() as connection:
        await connection.execute(PLAN_FOR_VALUES)
        rows = await connection.fetch(
            _ENDPOINT_PROGRESS, list(endpoint_ids), first_uuid(since), day
        )
    return [Progress(*row) for row in rows]


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
