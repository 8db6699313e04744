"""The parts of a deployment: replicas, breakers, tables, partitions, Postgres."""

from collections.abc import Mapping
from typing import Any

from dispatcher.admin.resources.base import Response, resource
from dispatcher.admin.resources.fields import EndpointId, TimeText
from dispatcher.admin.resources.overview import BreakerState


@resource
class Replica(Response):
    """A running dispatcher, and the figures that it published; null for those who see one tenant."""

    incarnation: str
    name: str
    version: str
    started_at: TimeText | None
    lease_renewed_seconds_ago: float
    lease_expires_at: TimeText | None
    shards_count: int
    figures_at: TimeText | None
    figures: Mapping[str, Any] | None


@resource
class Breaker(BreakerState):
    """An endpoint's breaker that is not closed, and the replica that has it."""

    endpoint_id: EndpointId
    endpoint_name: str
    tenant: str
    replica: str | None


@resource
class OutboxBacklog(Response):
    """The events in the outbox; if capped, `backlog_count` is a lower bound."""

    backlog_count: int
    backlog_capped: bool
    lag_seconds: float


@resource
class Table(Response):
    """A table that changes often."""

    name: str
    bytes: int
    rows_estimate: int
    dead_rows_count: int
    vacuumed_at: TimeText | None
    analyzed_at: TimeText | None


@resource
class Partition(Response):
    """One table's partition of a day."""

    table: str
    bytes: int
    rows_estimate: int


@resource
class PartitionDay(Response):
    """The partitions of a day."""

    day: str
    bytes: int
    tables: list[Partition]


@resource
class Postgres(Response):
    """The database server."""

    version: str
    bytes: int
    connections_count: int
    connections_max: int
    notify_queue_usage: float
    oldest_xmin_age: int | None
    oldest_transaction_seconds: float | None


@resource
class TextIndex(Response):
    """The optional index of the text of ended days; searches read all other days without one."""

    enabled: bool
    """`search.trigram_index` of the replica that responds."""
    extension_installed: bool
    """Without the extension `pg_trgm` no index is made."""
    days: list[str]
    """The days whose index can be used, oldest first."""


@resource
class SystemStatus(Response):
    """All of it; tables, partitions and Postgres are left out for those who see one tenant."""

    at: TimeText
    replicas: list[Replica]
    shards_free_count: int
    breakers: list[Breaker]
    outbox: OutboxBacklog
    text_index: TextIndex
    hot_tables: list[Table]
    partitions: list[PartitionDay]
    postgres: Postgres | None
