"""The gauges behind /metrics: this process's from memory, the whole database's from one statement now and then."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime

import orjson

from dispatcher.core.errors import StoreUnavailableError
from dispatcher.core.model import UNUSABLE_REASONS, EndpointState, HealthState
from dispatcher.delivery.pipeline import Pipeline
from dispatcher.runtime.clock import Clock, SystemClock
from dispatcher.store.deliveries import Deliveries
from dispatcher.store.partitions import Partition
from dispatcher.telemetry.logs import Writer
from dispatcher.telemetry.metrics import HISTORY_TABLES, UNKNOWN, Metrics
from dispatcher.telemetry.metrics import Counter as MetricCounter

DATABASE_SECONDS_MIN = 5.0
"""However often and from wherever it is scraped, the database is asked once in so many seconds."""


class Gauges:
    """Brings the gauges up to date before each scrape."""

    def __init__(
        self,
        metrics: Metrics,
        pipeline: Pipeline,
        deliveries: Deliveries,
        log: Writer | None,
        clock: Clock | None = None,
        *,
        delivers: bool = True,
    ) -> None:
        """Without `delivers` the gauges of the pipeline are left out: a process of the role `api` has none."""
        self._metrics = metrics
        self._pipeline = pipeline
        self._deliveries = deliveries
        self._log = log
        self._clock = clock or SystemClock()
        self._asked_at = float("-inf")
        self._totals: dict[MetricCounter, int] = {}
        self._lock = asyncio.Lock()
        if not delivers:
            for gauge in (metrics.in_flight_attempts, metrics.breakers_open, metrics.listener_up):
                gauge.set(UNKNOWN)
            return
        metrics.in_flight_attempts.set_function(lambda: float(pipeline.inventory.unrecorded))
        metrics.breakers_open.set_function(lambda: float(len(pipeline.inventory.deferring)))
        metrics.listener_up.set_function(lambda: float(pipeline.listener.is_up))

    async def render(self) -> bytes:
        """Return the exposition, with figures of the database at most some seconds old."""
        connections = self._pipeline.connections
        self._raise_to(self._metrics.connections_opened, connections.opened_count)
        self._raise_to(self._metrics.connections_reused, connections.reused_count)
        for reason, count in connections.blocked_counts.items():
            self._metrics.egress_blocked.labels(reason).inc(count)
        connections.blocked_counts.clear()
        self._count_unusable()
        if self._log is not None:
            self._raise_to(self._metrics.log_lines_dropped, self._log.dropped)
        async with self._lock:
            if time.monotonic() - self._asked_at >= DATABASE_SECONDS_MIN:
                await self._ask_database()
                self._asked_at = time.monotonic()
        return self._metrics.render()

    def _raise_to(self, counter: MetricCounter, total: int) -> None:
        """Raise a counter to a total that is kept elsewhere."""
        counter.inc(total - self._totals.get(counter, 0))
        self._totals[counter] = total

    def _count_unusable(self) -> None:
        """Set the gauge from this replica's routing table, once that has been loaded."""
        if not self._pipeline.routing.version:
            return
        counts = Counter(self._pipeline.routing.unusable.values())
        for reason in UNUSABLE_REASONS:
            self._metrics.endpoints_unusable.labels(reason).set(counts[reason])

    async def _ask_database(self) -> None:
        metrics = self._metrics
        gauges = (
            metrics.pending_deliveries,
            metrics.held_deliveries,
            metrics.retries_scheduled,
            metrics.oldest_undelivered,
            metrics.oldest_deferred,
            metrics.oldest_unpolled,
            metrics.longest_down,
            metrics.endpoint_down,
            metrics.endpoints_by_health,
            metrics.outbox_backlog,
            metrics.outbox_lag,
            metrics.endpoints,
            metrics.history_partitions_ahead,
            metrics.dead_rows,
            metrics.notify_queue_usage,
            metrics.database_clock_difference,
        )
        asked_at = self._clock.now()
        try:
            row = await self._deliveries.gauges(metrics.down_endpoints_max)
        except StoreUnavailableError:
            for gauge in gauges:
                gauge.clear()  # not known: a made-up figure could silence an alert
            return
        metrics.outbox_backlog.set(row["outbox_backlog_events"])
        metrics.outbox_lag.set(max(0.0, row["outbox_lag_seconds"]))
        metrics.held_deliveries.set(row["held_deliveries"])
        metrics.pending_deliveries.set(max(0, row["pending_deliveries"] - row["held_deliveries"]))
        metrics.retries_scheduled.set(row["retries_scheduled"])
        metrics.oldest_undelivered.set(
            max((0.0, *self._ages(row["due_endpoints"], row["due_ages_seconds"])))
        )
        metrics.oldest_deferred.set(max(0.0, row["oldest_deferred_seconds"]))
        metrics.oldest_unpolled.set(max(0.0, row["oldest_unpolled_seconds"]))
        by_health = orjson.loads(row["endpoints_by_health"] or "{}")
        for health in HealthState:
            metrics.endpoints_by_health.labels(health).set(by_health.get(health, 0))
        metrics.longest_down.set(max(0.0, row["longest_down_seconds"]))
        metrics.endpoint_down.clear()  # only endpoints that are down have a series
        for tenant, endpoint_id, name, seconds in orjson.loads(row["endpoints_down"] or "[]"):
            metrics.endpoint_down.labels(tenant, endpoint_id, name).set(max(0.0, seconds))
        for state in EndpointState:
            metrics.endpoints.labels(state).set(row[state])

        metrics.history_partitions_ahead.set(row["history_partitions_ahead"])
        for table, count in orjson.loads(row["dead_rows"]).items():
            metrics.dead_rows.labels(table).set(count)
        metrics.notify_queue_usage.set(row["notify_queue_usage"])
        self._compare_clocks(asked_at, row["now"])

    def _compare_clocks(self, asked_at: datetime, database_now: datetime) -> None:
        """Set the clock difference to 0 if the database's time lies between request and response."""
        least = (asked_at - database_now).total_seconds()
        most = (self._clock.now() - database_now).total_seconds()
        self._metrics.database_clock_difference.set(max(least, min(most, 0.0)))

    def tell_history(self, partitions: Sequence[Partition], today: date, kept: int) -> None:
        """Set the figures of retention: they are the database's too, and change once a day."""
        metrics = self._metrics
        for table in HISTORY_TABLES:
            own = [one for one in partitions if one.table == table]
            metrics.history_partitions.labels(table).set(len(own))
            metrics.history_bytes.labels(table).set(sum(one.bytes for one in own))
            if own:
                age = today - min(one.day for one in own)
                metrics.history_oldest.labels(table).set(age.total_seconds())
        metrics.history_partitions_kept.set(kept)

    def forget_history(self) -> None:
        """Clear the figures of retention, which are unknown at present."""
        metrics = self._metrics
        for gauge in (
            metrics.history_partitions,
            metrics.history_bytes,
            metrics.history_oldest,
            metrics.history_partitions_kept,
        ):
            gauge.clear()

    def _ages(self, endpoint_ids: list[str], ages_seconds: list[float]) -> list[float]:
        """Leaves out endpoints whose open breaker is what their deliveries wait for."""
        waiting = self._pipeline.inventory.open_breakers()
        return [age for i, age in zip(endpoint_ids, ages_seconds, strict=True) if i not in waiting]
