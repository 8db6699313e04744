"""The state of replicas, breakers, partitions and the database, for operators.

Everything comes from the database, where each replica publishes what it has in memory every few
seconds, so that any replica's page and the command line show all of them.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.resources.serialization import time_text
from dispatcher.admin.resources.system import (
    Breaker,
    OutboxBacklog,
    Partition,
    PartitionDay,
    Postgres,
    Replica,
    SystemStatus,
    Table,
    TextIndex,
)
from dispatcher.store import statistics
from dispatcher.store.leases import ReplicaRow, read_replicas
from dispatcher.store.partitions import TableRow, read_tables
from dispatcher.store.server import ServerStatus, server_status
from dispatcher.store.statistics import read_backlog
from dispatcher.store.text_indexes import has_extension, indexed_days

BREAKERS_MAX: Final = 200
COUNT_MAX: Final = 100_000
HOT_TABLES: Final = (
    "outbox",
    "delivery_open",
    "delivery_request",
    "endpoint_request",
    "replica",
    "shard",
    "traffic",
    "traffic_minute",
)


class System:
    """The machinery of a deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._database = deployment.database
        self._indexes_text = deployment.settings.search.trigram_index

    async def show(self, actor: Actor) -> SystemStatus:
        """Return replicas, breakers, the backlog, the index of texts, tables, partitions by day, and the database.

        An actor of one tenant sees the breakers and the backlog of that tenant alone, and of the rest
        which replicas run: figures, tables, partitions and the database are those of all tenants.
        """
        sees_all = actor.tenant is None
        async with self._database.reading() as connection:
            replicas = await read_replicas(connection)
            breakers = await statistics.read_breakers(connection, None, actor.tenant, BREAKERS_MAX)
            now = await read_backlog(connection, actor.tenant, COUNT_MAX)
            tables = await read_tables(connection) if sees_all else []
            text_index = TextIndex(
                enabled=self._indexes_text,
                extension_installed=await has_extension(connection),
                days=[str(day) for day in sorted(await indexed_days(connection))],
            )
            postgres = await server_status(connection)
        return SystemStatus(
            at=time_text(postgres.now),
            replicas=[_replica(row, has_figures=sees_all) for row in replicas],
            shards_free_count=postgres.shards_free_count,
            breakers=[
                Breaker(
                    endpoint_id=row.endpoint_id,
                    endpoint_name=row.endpoint_name,
                    tenant=row.tenant,
                    state=row.state,
                    opened_at=time_text(row.opened_at),
                    probe_at=time_text(row.probe_at),
                    replica=row.replica,
                )
                for row in breakers
            ],
            outbox=OutboxBacklog(
                backlog_count=min(now.outbox_count, COUNT_MAX),
                backlog_capped=now.outbox_count > COUNT_MAX,
                lag_seconds=now.outbox_seconds or 0.0,
            ),
            text_index=text_index,
            hot_tables=[_table(row) for row in tables if row.name in HOT_TABLES],
            partitions=_partitions(tables),
            postgres=_postgres(postgres) if sees_all else None,
        )


def _replica(row: ReplicaRow, *, has_figures: bool) -> Replica:
    return Replica(
        incarnation=row.incarnation,
        name=row.name,
        version=row.version,
        started_at=time_text(row.started_at),
        lease_renewed_seconds_ago=round(row.renewed_seconds_ago, 3),
        lease_expires_at=time_text(row.expires_at),
        shards_count=row.shards_count,
        figures_at=time_text(row.figures_at),
        figures=row.figures if has_figures else None,
    )


def _table(row: TableRow) -> Table:
    return Table(
        name=row.name,
        bytes=row.bytes,
        rows_estimate=row.rows_estimate,
        dead_rows_count=row.dead_rows,
        vacuumed_at=time_text(row.vacuumed_at),
        analyzed_at=time_text(row.analyzed_at),
    )


def _partitions(tables: Sequence[TableRow]) -> list[PartitionDay]:
    """Return the partitions by day, oldest first."""
    by_day: dict[str, list[Partition]] = defaultdict(list)
    for row in tables:
        if row.parent is not None:
            digits = row.name.removeprefix(row.parent + "_")
            by_day[f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"].append(
                Partition(table=row.parent, bytes=row.bytes, rows_estimate=row.rows_estimate)
            )
    return [
        PartitionDay(day=day, bytes=sum(one.bytes for one in by_day[day]), tables=by_day[day])
        for day in sorted(by_day)
    ]


def _postgres(row: ServerStatus) -> Postgres:
    return Postgres(
        version=row.version,
        bytes=row.bytes,
        connections_count=row.connections_count,
        connections_max=row.connections_max,
        notify_queue_usage=row.notify_queue_usage,
        oldest_xmin_age=row.oldest_xmin_age,
        oldest_transaction_seconds=row.oldest_transaction_seconds,
    )
