"""What operations ask of the database about endpoints, and who did what; history is in `history.py`.

Every change takes the connection of the caller's transaction, so that the change and its line in
the audit log commit together. Reads are planned for their own filters (`reading`), because a plan
made for all filters fits none.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import orjson

from dispatcher.core.errors import ConflictError
from dispatcher.core.problems import problem
from dispatcher.store.pool import Database
from dispatcher.store.routing import EndpointRow, SealedSecret
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.pool import Reach

_READING_PLAN = statement("connection_plan")
_AUDIT_WRITE = statement("audit_write")
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
_SECRETS_LOAD = statement("endpoint_secret_load")
_SECRET_INSERT = statement("endpoint_secret_insert")
_SECRET_RETIRE = statement("endpoint_secret_retire")
_SECRET_FORGET = statement("endpoint_secret_forget")
_SECRET_ACTIVATE = statement("endpoint_secret_activate")
_REPLICAS_ALIVE = statement("replica_count")

_NO_CHANGE = "UPDATE 0"


class EndpointDetail(NamedTuple):
    """An endpoint as people see it; None means: as the profile or the settings say."""

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
        first_failure_at=None,
        failed_attempts=None,
        secrets=list(sealed),
    )


@asynccontextmanager
async def reading(database: Database) -> "AsyncIterator[Reach]":
    """Yields a connection whose questions are planned for the values that they are asked with."""
    async with database.transaction() as connection:
        await connection.execute(_READING_PLAN)
        yield connection


async def write_audit(
    connection: "Reach",
    actor: str,
    tenant: str,
    action: str,
    subject: str,
    detail: Mapping[str, object],
) -> None:
    """Writes down who did what to which thing."""
    text = orjson.dumps(dict(detail)).decode()
    await connection.execute(_AUDIT_WRITE, actor, tenant, action, subject, text)


# Endpoints


def _endpoint(row: "Record") -> EndpointDetail:
    values = {**row, "labels": orjson.loads(row["labels"]), "headers": orjson.loads(row["headers"])}
    return EndpointDetail(**values)


async def load_endpoint(
    connection: "Reach", endpoint_id: str, tenant: str | None, *, lock: bool = False
) -> EndpointDetail | None:
    """Returns an endpoint that is not deleted, locked for a change where asked; None: there is none."""
    if lock and await connection.fetchval(_ENDPOINT_LOCK, endpoint_id, tenant) is None:
        return None
    rows = await page_of_endpoints(connection, [tenant, *(None,) * 5, 1, endpoint_id])
    return rows[0] if rows else None


async def page_of_endpoints(connection: "Reach", filters: Sequence[object]) -> list[EndpointDetail]:
    """Return a page; `filters` in the order of the statement, the id last."""
    return [_endpoint(row) for row in await connection.fetch(_ENDPOINTS_PAGE, *filters)]


async def insert_endpoint(connection: "Reach", endpoint: Sequence[object], name: str) -> None:
    """Makes an endpoint from values in the order of the statement.

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
    """Changes an endpoint to values in the order of the statement.

    Raises:
        ConflictError: the tenant has another one of that name.
    """
    try:
        await connection.execute(_ENDPOINT_UPDATE, *endpoint)
    except asyncpg.UniqueViolationError as error:
        raise ConflictError(problem("name", "name_in_use", value=name)) from error


async def pause_endpoint(connection: "Reach", endpoint_id: str) -> bool:
    """Pauses an active endpoint; returns whether it was one."""
    return await connection.execute(_ENDPOINT_PAUSE, endpoint_id) != _NO_CHANGE


async def resume_endpoint(connection: "Reach", endpoint_id: str) -> bool:
    """Makes an endpoint active; returns whether it was not."""
    return await connection.execute(_ENDPOINT_RESUME, endpoint_id) != _NO_CHANGE


async def touch_endpoint(connection: "Reach", endpoint_id: str) -> datetime:
    """Gives an endpoint a new version, for a change of its secrets; returns `updated_at`."""
    at: datetime = await connection.fetchval(_ENDPOINT_TOUCH, endpoint_id)
    return at


async def delete_endpoint(connection: "Reach", endpoint_id: str) -> None:
    """Deletes an endpoint, its secrets and what was asked of its deliveries."""
    await connection.execute(_ENDPOINT_DELETE, endpoint_id)


async def endpoints_of_tenant(connection: "Reach", tenant: str) -> list[RoutedEndpoint]:
    """Returns every endpoint of a tenant, deleted ones included, oldest first."""
    rows = await connection.fetch(_ENDPOINTS_OF_TENANT, tenant)
    return [RoutedEndpoint(**{**row, "labels": orjson.loads(row["labels"])}) for row in rows]


async def load_secrets(
    connection: "Reach", endpoint_ids: Sequence[str]
) -> dict[str, list[SealedSecret]]:
    """Returns the sealed secrets of each endpoint, oldest first."""
    secrets: dict[str, list[SealedSecret]] = {endpoint_id: [] for endpoint_id in endpoint_ids}
    for row in await connection.fetch(_SECRETS_LOAD, list(endpoint_ids)):
        secrets[row[0]].append(SealedSecret(*row[1:6]))
    return secrets


async def insert_secret(
    connection: "Reach", endpoint_id: str, role: str, key_id: str, sealed: bytes
) -> None:
    """Adds a sealed secret in a role that nothing has."""
    await connection.execute(_SECRET_INSERT, endpoint_id, role, key_id, sealed)


async def retire_secret(connection: "Reach", endpoint_id: str, seconds: float) -> None:
    """Lets the current secret sign on for so long."""
    await connection.execute(_SECRET_RETIRE, endpoint_id, seconds)


async def forget_secret(connection: "Reach", endpoint_id: str, role: str) -> None:
    """Destroys the secret in this role; `previous` are all of the old ones."""
    await connection.execute(_SECRET_FORGET, endpoint_id, role)


async def activate_secret(connection: "Reach", endpoint_id: str) -> None:
    """Makes the staged secret the current one."""
    await connection.execute(_SECRET_ACTIVATE, endpoint_id)


async def replicas_alive(connection: "Reach") -> int:
    """Returns how many dispatchers hold a lease."""
    return int(await connection.fetchval(_REPLICAS_ALIVE))
