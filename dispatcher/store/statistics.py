"""Counted traffic, published breakers and replicas' figures: written by the daemon, read by pages."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import orjson

from dispatcher.core.errors import BatchRefusedError
from dispatcher.core.model import EndpointId
from dispatcher.runtime.clock import SystemClock
from dispatcher.store.day_walk import month_ago
from dispatcher.store.delivery_ids import first_uuid
from dispatcher.store.kept_plans import fetch_since
from dispatcher.store.pool import Database, columns
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_TRAFFIC_ADD = statement("traffic_add")
_RECENT_ADD = statement("endpoint_recent_add")
_TRAFFIC_READ = statement("traffic_read")
_MINUTES_READ = statement("traffic_minute_read")
_TRAFFIC_FORGET = statement("traffic_forget")
_MINUTES_FORGET = statement("traffic_minute_forget")
_BREAKERS_PUBLISH = statement("endpoint_breaker_publish")
_BREAKERS_TESTED = statement("endpoint_breaker_list_tested")
_BREAKERS_READ = statement("endpoint_breaker_list")
_FIGURES_PUBLISH = statement("replica_figures_publish")
_OVERVIEW_NOW = statement("deployment_backlog")
_TEST_SUCCEEDED = statement("endpoint_breaker_report_test")

ALL = "all"


class BacklogRow(NamedTuple):
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


def tenant_subject(tenant: str | None) -> str:
    """Return the subject under which a tenant's traffic is counted; None is all tenants'."""
    return ALL if tenant is None else f"tenant/{tenant}"


class TrafficRow(NamedTuple):
    """What is added to one subject's hour, in the order of the statement."""

    subject: str
    ok_count: int
    refused_count: int
    timeout_count: int
    unreachable_count: int
    succeeded_count: int
    failed_count: int
    latency_counts: str
    """An array's text, as `{0,1}`."""
    last_attempt_at: datetime
    last_outcome: str
    last_response_code: int | None
    last_error: str | None


class RecentRow(NamedTuple):
    """The attempts of an endpoint that fails, or failed minutes ago, in the order of the statement."""

    endpoint_id: EndpointId
    ok_count: int
    failed_count: int
    outcome: str | None
    """Of the last failure; None: none failed."""
    response_code: int | None


class TrafficPart(NamedTuple):
    """The counts of a minute or an hour of one subject."""

    at: datetime
    ok_count: int
    refused_count: int
    timeout_count: int
    unreachable_count: int
    succeeded_count: int
    failed_count: int
    latency_counts: list[int]


class HourRow(NamedTuple):
    """One subject's hour."""

    hour: datetime
    subject: str
    ok_count: int
    refused_count: int
    timeout_count: int
    unreachable_count: int
    succeeded_count: int
    failed_count: int
    latency_counts: list[int]
    last_attempt_at: datetime
    last_outcome: str
    last_response_code: int | None
    last_error: str | None

    @property
    def part(self) -> TrafficPart:
        """The counts alone."""
        return TrafficPart(self.hour, *self[2:9])


class BreakerRow(NamedTuple):
    """A breaker that is not closed, in the order in which it is published."""

    endpoint_id: str
    state: str
    probe_in_seconds: float | None


class OpenBreaker(NamedTuple):
    """A breaker that is not closed, as people see it."""

    endpoint_id: str
    endpoint_name: str
    tenant: str
    state: str
    opened_at: datetime
    probe_at: datetime | None
    replica: str


class Statistics:
    """The writing side, for the daemon."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, rows: Sequence[TrafficRow]) -> None:
        """Add counts; after an error of unknown outcome they may have been added or not.

        Raises:
            StoreUnavailableError: not now. BatchRefusedError: nor ever; counts are no reason to end
            a daemon.
        """
        await self._execute(_TRAFFIC_ADD, *columns(rows, len(TrafficRow._fields)))

    async def add_recent(self, rows: Sequence[RecentRow]) -> None:
        """Add the attempts of endpoints that fail, which their health is evaluated from."""
        await self._execute(_RECENT_ADD, *columns(rows, len(RecentRow._fields)))

    async def publish_breakers(self, incarnation: str, rows: Sequence[BreakerRow]) -> None:
        """Publish the breakers of this replica that are not closed."""
        await self._execute(_BREAKERS_PUBLISH, incarnation, *columns(rows, 3))

    async def take_tested(self, incarnation: str) -> list[EndpointId]:
        """Return the endpoints of published breakers whose test event succeeded, once each."""
        rows = await self._database.fetch(_BREAKERS_TESTED, incarnation)
        return [row["endpoint_id"] for row in rows]

    async def publish_figures(self, incarnation: str, figures: Mapping[str, object]) -> None:
        """Publish the figures of this replica's memory."""
        await self._execute(_FIGURES_PUBLISH, incarnation, orjson.dumps(dict(figures)).decode())

    async def _execute(self, sql: str, *parameters: object) -> None:
        try:
            await self._database.execute(sql, *parameters)
        except asyncpg.PostgresError as error:
            raise BatchRefusedError(f"statistics are refused: {error}") from error

    async def forget(self, days: int, rows_max: int) -> int:
        """Delete a slice of traffic older than `days`, and of minutes that no page shows; return the count of rows."""
        async with self._database.transaction() as connection:
            hours = int(await connection.fetchval(_TRAFFIC_FORGET, days, rows_max))
            return hours + int(await connection.fetchval(_MINUTES_FORGET, rows_max))


async def read_traffic(
    connection: "Reach", subjects: Sequence[str], hours: int
) -> dict[str, list[HourRow]]:
    """Return the traffic of each subject in the last hours, oldest first; an hour without any is left out."""
    found: dict[str, list[HourRow]] = {subject: [] for subject in subjects}
    for row in await connection.fetch(_TRAFFIC_READ, list(subjects), hours):
        found[row["subject"]].append(HourRow(*row))
    return found


async def read_minutes(connection: "Reach", subject: str, minutes: int) -> list[TrafficPart]:
    """Return the traffic of all endpoints or of a tenant in the last minutes, oldest first."""
    return [TrafficPart(*row) for row in await connection.fetch(_MINUTES_READ, subject, minutes)]


async def read_breakers(
    connection: "Reach", endpoint_ids: Sequence[str] | None, tenant: str | None, rows_max: int
) -> list[OpenBreaker]:
    """Return breakers that are not closed, the longest open first."""
    ids = None if endpoint_ids is None else list(endpoint_ids)
    return [
        OpenBreaker(*row) for row in await connection.fetch(_BREAKERS_READ, ids, tenant, rows_max)
    ]


async def read_backlog(connection: "Reach", tenant: str | None, count_max: int) -> BacklogRow:
    """Return the backlog of this moment."""
    now = SystemClock.now()
    since = first_uuid(now - timedelta(hours=24))
    parameters = (tenant, count_max, since)
    days = (now.date() - timedelta(days=2), month_ago(now))
    if tenant is None:
        (row,) = await fetch_since(connection, _OVERVIEW_NOW, *parameters, days=days)
    else:  # planned for the endpoints of this tenant
        (row,) = await connection.fetch(_OVERVIEW_NOW, *parameters, *days)
    return BacklogRow(*row)


async def report_test_succeeded(connection: "Reach", endpoint_id: str) -> None:
    """Have the replica that sends for the endpoint close its breaker, once this is committed."""
    await connection.execute(_TEST_SUCCEEDED, endpoint_id)
