"""The queries of the health pages: the overview, the system, the waiting deliveries of endpoints."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from dispatcher.runtime.clock import SystemClock
from dispatcher.store.columns import failed_since, first_uuid
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_OVERVIEW_NOW = statement("deployment_backlog")
_IN_TROUBLE = statement("endpoint_list_in_trouble")
_WAITING = statement("endpoint_count_waiting")
_SYSTEM_REPLICAS = statement("replica_list")
_SYSTEM_TABLES = statement("partition_sizes")
_SYSTEM_POSTGRES = statement("server_status")


class NowRow(NamedTuple):
    """The backlog and the replicas of this moment; counts end at one more than the limit."""

    dispatchers_alive: int
    active_count: int
    paused_count: int
    disabled_count: int
    down_count: int
    degraded_count: int
    recovering_count: int
    outbox_count: int
    outbox_seconds: float | None
    pending_count: int
    held_count: int
    cancelled_count: int
    failed_count: int
    oldest_due_seconds: float | None


class TroubledRow(NamedTuple):
    """An endpoint that needs attention."""

    id: str
    name: str
    tenant: str
    url: str
    state: str
    reason: str | None
    health: str
    health_since: datetime | None
    health_cause: str | None
    health_response_code: int | None
    failed_attempts: int
    breaker_state: str | None
    probe_at: datetime | None


class WaitingRow(NamedTuple):
    """The waiting deliveries of one endpoint."""

    endpoint_id: str
    waiting_count: int
    retrying_count: int
    oldest_due_at: datetime | None


class ReplicaRow(NamedTuple):
    """A living replica and what it has in memory; `figures` is empty until it published them."""

    incarnation: str
    name: str
    version: str
    started_at: datetime
    expires_at: datetime
    renewed_seconds_ago: float
    shards_count: int
    figures_at: datetime | None
    figures: dict[str, Any]


class TableRow(NamedTuple):
    """A table or partition; rows are the planner's estimate."""

    name: str
    parent: str | None
    bytes: int
    rows_estimate: int
    dead_rows: int
    vacuumed_at: datetime | None
    analyzed_at: datetime | None


class PostgresRow(NamedTuple):
    """How the database fares."""

    version: str
    bytes: int
    connections_max: int
    connections_count: int
    notify_queue_usage: float
    oldest_xmin_age: int | None
    oldest_transaction_seconds: float | None
    shards_free_count: int
    now: datetime


async def read_now(connection: "Reach", tenant: str | None, count_max: int) -> NowRow:
    """Return the backlog of this moment."""
    now = SystemClock.now()
    since = first_uuid(now - timedelta(hours=24))
    row = await connection.fetchrow(
        _OVERVIEW_NOW,
        tenant,
        count_max,
        now.date() - timedelta(days=2),
        since,
        failed_since(now),
    )
    assert row is not None  # noqa: S101 -- a SELECT of subqueries has one row
    return NowRow(*row)


async def read_in_trouble(
    connection: "Reach", tenant: str | None, rows_max: int
) -> list[TroubledRow]:
    """Return endpoints that need attention, the worst first."""
    return [TroubledRow(*row) for row in await connection.fetch(_IN_TROUBLE, tenant, rows_max)]


async def read_waiting(
    connection: "Reach", endpoint_ids: Sequence[str], tenant: str | None, count_max: int
) -> list[WaitingRow]:
    """Return the waiting deliveries of those of the endpoints that exist."""
    rows = await connection.fetch(_WAITING, list(endpoint_ids), tenant, count_max)
    return [WaitingRow(*row) for row in rows]


async def read_replicas(connection: "Reach") -> list[ReplicaRow]:
    """Returns the living replicas."""
    return [
        ReplicaRow._make((*row[:8], orjson.loads(row["figures"] or "{}")))
        for row in await connection.fetch(_SYSTEM_REPLICAS)
    ]


async def read_tables(connection: "Reach") -> list[TableRow]:
    """Returns our tables and their partitions."""
    return [TableRow(*row) for row in await connection.fetch(_SYSTEM_TABLES)]


async def read_postgres(connection: "Reach") -> PostgresRow:
    """Returns how the database fares."""
    row = await connection.fetchrow(_SYSTEM_POSTGRES)
    assert row is not None  # noqa: S101 -- a SELECT without FROM has one row
    return PostgresRow(*row)
