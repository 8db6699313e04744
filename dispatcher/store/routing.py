"""Endpoints as the daemon reads them, with what it records about their health."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import asyncpg
import orjson

from dispatcher.core.failing import (
    FAILED_ATTEMPTS_MIN,
    FAILED_SHARE_MIN,
    RECOVERING_SECONDS_MIN,
    SHARE_SECONDS,
)
from dispatcher.core.model import EndpointId
from dispatcher.store.endpoints import EndpointDetail
from dispatcher.store.pool import Database, columns
from dispatcher.store.secrets import SealedSecret
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach


_LOAD = statement("routing_load")
_CHANGES = statement("routing_changes")
_FAILING = statement("endpoint_health_failing")
_DISABLE = statement("endpoint_disable")
_WARN = statement("endpoint_warn")
_FAIL = statement("endpoint_health_fail")
_DOWN = statement("endpoint_list_down")
_CLEAR = statement("endpoint_health_clear")
_EVALUATE = statement("endpoint_status_evaluate")


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


_SHARED: Final = tuple(field for field in EndpointRow._fields if field in EndpointDetail._fields)


def routed_row(endpoint: EndpointDetail, sealed: Sequence[SealedSecret]) -> EndpointRow:
    """Return an endpoint as the daemon reads it, without what only a shard's owner needs."""
    return EndpointRow(
        **{field: getattr(endpoint, field) for field in _SHARED},
        number=0,
        revision=0,
        body_key=endpoint.profile,
        shard=0,
        secrets=list(sealed),
    )


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


async def saved_endpoints(
    connection: "Reach", endpoint_ids: Sequence[str] | None = None
) -> list[EndpointRow]:
    """Return these endpoints (None: all), for a check that has a connection of its own."""
    if endpoint_ids is None:
        _, _, endpoint_ids = (await connection.fetch(_CHANGES, None))[0]
    return _endpoint_rows(await connection.fetch(_LOAD, endpoint_ids)) if endpoint_ids else []


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
