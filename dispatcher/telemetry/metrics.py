"""Defines the metrics, which are an interface: a test compares this table with the code.

Every name begins with `dispatcher_`; units are base units; label sets are closed. A label value
outside its set is counted as `other`, so that a name that a user chooses adds no series.
Gauges marked *database* are equal on every replica: aggregate them with `max`.

| name | type | labels | meaning | alert |
| --- | --- | --- | --- | --- |
| `events_fanned_out_total` | counter | | events whose deliveries were committed | |
| `events_unknown_type_total` | counter | | events of a type that the catalogue does not know | |
| `events_unmatched_total` | counter | type | events that no endpoint subscribes to | yes |
| `events_filtered_total` | counter | | events that a content filter left out, per endpoint | |
| `filter_errors_total` | counter | | content filters that failed for an event; see the log | |
| `schema_mismatches_total` | counter | | events that do not fit the schema of their type; see the log | |
| `events_quarantined_total` | counter | | events that Postgres rejected at fan-out; see the log | yes |
| `events_published_total` | counter | | events committed over HTTP; those inserted with SQL are not counted | |
| `api_reads_rejected_total` | counter | | reads of the API and the console whose time was over while they waited | |
| `attempts_total` | counter | profile, outcome | finished attempts, also pulled ones; of a test: `test` | yes |
| `deliveries_total` | counter | profile, state | deliveries that reached a final state | yes |
| `connections_reused_total` | counter | | attempts on a connection that had served before | |
| `connections_opened_total` | counter | | connections opened to receivers | |
| `intake_wakeups_total` | counter | by | why intake looked: `notify`, `poll`, `local` | |
| `leases_lost_total` | counter | | leases that ended or were taken over while held | yes |
| `results_fenced_total` | counter | | results refused because the lease's token had changed | |
| `egress_blocked_total` | counter | reason | connects denied by the address policy, by range | |
| `log_lines_dropped_total` | counter | | log lines lost because they were not read in time | yes |
| `endpoint_attempts_total` | counter | endpoint, outcome | if the settings ask; capped | |
| `attempt_duration_seconds` | histogram | | from an attempt's begin to its end; only pushes | |
| `delivery_latency_seconds` | histogram | | from the event's insert to the first 2xx; only pushes | yes |
| `retry_lateness_seconds` | histogram | | from a retry's due time to its begin | |
| `recorder_batch_size` | histogram | | results committed together | |
| `recorder_flush_seconds` | histogram | | time of one such commit | yes |
| `publish_seconds` | histogram | | from a publish over HTTP, of one event or a batch, to its commit | |
| `api_reads_waiting` | gauge | | reads of the API and the console that wait for `http.reads_max` others | |
| `in_flight_attempts` | gauge | | attempts permitted and not yet recorded, this replica | |
| `pending_deliveries` | gauge | | deliveries neither final nor held, *database* | yes |
| `held_deliveries` | gauge | | deliveries that wait for a paused endpoint, *database* | |
| `retries_scheduled` | gauge | | deliveries that wait for their next attempt, *database* | |
| `oldest_undelivered_seconds` | gauge | | age past due of the oldest due one, *database* | yes |
| `oldest_deferred_seconds` | gauge | | age past due of the oldest one behind an open breaker, *database* | yes |
| `oldest_unpolled_seconds` | gauge | | age past due of the oldest one of a pulled endpoint, *database* | yes |
| `endpoints_by_health` | gauge | health | active endpoints by health, *database* | |
| `longest_down_seconds` | gauge | | time without a success of the endpoint that is down the longest, *database* | yes |
| `endpoint_down_seconds` | gauge | tenant, endpoint, name | of each that is down; if set; capped, *database* | yes |
| `outbox_backlog_events` | gauge | | events not fanned out yet, *database* | |
| `outbox_lag_seconds` | gauge | | age of the oldest of them, *database* | yes |
| `endpoints` | gauge | state | endpoints by state, *database* | yes |
| `endpoints_unusable` | gauge | reason | endpoints that cannot be sent to as configured; their deliveries wait | yes |
| `history_partitions_ahead` | gauge | | days ahead with all partitions; -1: today lacks one, *database* | yes |
| `history_partitions` | gauge | table | days that a history table has, those ahead included, *database* | |
| `history_bytes` | gauge | table | their size with indexes, *database* | |
| `history_oldest_seconds` | gauge | table | age of the oldest of them, *database* | |
| `history_partitions_kept` | gauge | | days past retention, kept for unfinished deliveries, *database* | yes |
| `dead_rows` | gauge | table | rows of a hot table that wait for vacuum, *database* | yes |
| `notify_queue_usage_ratio` | gauge | | filled share of Postgres's queue of notifications, 0 to 1, *database* | yes |
| `database_clock_difference_seconds` | gauge | | this machine's clock less the database's | yes |
| `breakers_open` | gauge | | endpoints of this replica whose breaker is open | |
| `listener_up` | gauge | | 1 while the LISTEN connection is proven alive, else 0 | yes |
| `event_loop_lag_seconds` | gauge | | how late the event loop last ran a timer | yes |
| `build_info` | gauge | version | always 1 | yes |

Counters and gauges are prometheus_client's. Counters of attempts are incremented once per batch of
results. The histogram is our own, because the library's would add 2.5 µs to each delivery (ADR 0054).
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, product
from typing import Self

import prometheus_client
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from dispatcher.core.model import (
    UNUSABLE_REASONS,
    DeliveryState,
    EndpointState,
    HealthState,
    Outcome,
)

PREFIX = "dispatcher"
OTHER = "other"
TEST_OUTCOME = "test"

LATENCY_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds. The shortest hop is a few milliseconds, the longest attempt 30 s."""
DELIVERY_BOUNDS = (*LATENCY_BOUNDS, 60, 300, 1800, 7200, 28800, 86400)
"""Seconds. A delivery may need its whole schedule: hours."""
FLUSH_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
HISTORY_TABLES = ("event", "body", "delivery_done", "attempt")
HOT_TABLES = ("outbox", "delivery_open")
"""Rows come and go in them all the time, so vacuum must keep up; history is only added to."""
SIZE_BOUNDS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)

UNKNOWN = math.nan
"""The value of a gauge that is left out."""

# Without a second series for each counter, which nothing reads.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # has no types


class Counter(prometheus_client.Counter):
    """A counter with closed label sets: a value outside its set counts as `other`."""

    allowed: tuple[frozenset[str], ...] = ()

    def labels(self, *values: object, **_: object) -> Self:
        """Return the series of these label values, in the order of the label names."""
        pairs = zip(map(str, values), self.allowed, strict=True)
        return super().labels(*(value if value in allowed else OTHER for value, allowed in pairs))


class CappedCounter(Counter):
    """A counter whose first label has an open set, of which the first `values_max` values are counted."""

    values_max = 0

    def labels(self, *values: object, **_: object) -> Self:
        """Return the series of these label values; a first value beyond the cap is `other`."""
        first = str(values[0])
        known = self.allowed[0]
        if first not in known and len(known) < self.values_max:
            self.allowed = (known | {first}, *self.allowed[1:])
        return super().labels(*values)


class Gauge(prometheus_client.Gauge):
    """A gauge with closed label sets, which is left out while its value is unknown.

    A made-up 0 could silence an alert.
    """

    allowed: tuple[frozenset[str], ...] = ()

    def labels(self, *values: object, **_: object) -> Self:
        """Return the series of these label values, in the order of the label names.

        Raises:
            ValueError: a label value is outside its closed set.
        """
        for value, allowed in zip(map(str, values), self.allowed, strict=True):
            if value not in allowed:
                raise ValueError(f"{self._name}: {value!r} is not one of {sorted(allowed)}")
        return super().labels(*values)

    def clear(self) -> None:
        """Leave the gauge out until it is set again: the database is unavailable."""
        if self._labelnames:
            super().clear()
        else:
            self.set(UNKNOWN)

    def collect(self) -> Iterable[Metric]:
        """Return the family of the known values, or nothing."""
        families = list(super().collect())
        for family in families:
            family.samples = [one for one in family.samples if not math.isnan(one.value)]
        return [family for family in families if family.samples]


class OpenGauge(Gauge):
    """A gauge whose labels have open sets; the code that sets it bounds the number of series."""

    def labels(self, *values: object, **_: object) -> Self:
        """Return the series of these label values, in the order of the label names."""
        return prometheus_client.Gauge.labels(self, *values)


class Histogram(Collector):
    """How many values are in each range; a bound belongs to the range below it.

    `observe_all` costs 0.17 µs for each value. A lock is not needed: the event loop's thread is the
    only writer.
    """

    def __init__(self, name: str, documentation: str, bounds: tuple[float, ...]) -> None:
        self.name = name
        self.documentation = documentation
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value, in the unit that the name ends in."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def observe_all(self, values: Sequence[float]) -> None:
        """Count many values at once."""
        bounds, counts = self.bounds, self.counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.sum += sum(values)

    def collect(self) -> Iterator[Metric]:
        """Yield the family of the counts, cumulated as the exposition requires."""
        buckets = list(
            zip(map(_bound_text, (*self.bounds, math.inf)), accumulate(self.counts), strict=True)
        )
        family = HistogramMetricFamily(f"{PREFIX}_{self.name}", self.documentation)
        family.add_metric([], buckets=buckets, sum_value=self.sum)
        yield family


def _bound_text(bound: float) -> str:
    return "+Inf" if math.isinf(bound) else repr(float(bound))


class Metrics:
    """All metrics of one process, on a registry of its own."""

    def __init__(
        self,
        *,
        version: str,
        profiles: Iterable[str] = (),
        blocked_reasons: Iterable[str] = (),
        endpoints_max: int = 0,
        event_types: Iterable[str] = (),
    ) -> None:
        """Create every metric.

        `profiles`, `blocked_reasons` and `event_types` close those label sets; `endpoints_max` is the
        cap of the per-endpoint series, 0 for none.
        """
        self.down_endpoints_max = endpoints_max
        self.registry = CollectorRegistry(auto_describe=False)
        self._make_counters((*profiles, OTHER), (*blocked_reasons, OTHER), endpoints_max)
        self.events_unmatched = self._counter(
            "events_unmatched",
            "Events that no endpoint subscribes to.",
            type=(*event_types, OTHER),
        )
        self._make_histograms()
        self._make_gauges()
        self.build_info = self._gauge("build_info", "Always 1.", version=(version,))
        self.build_info.labels(version).set(1)

    def _make_counters(
        self, profiles: tuple[str, ...], blocked_reasons: tuple[str, ...], endpoints_max: int
    ) -> None:
        final = (DeliveryState.SUCCEEDED, DeliveryState.FAILED, DeliveryState.CANCELLED)
        outcomes = (*Outcome, TEST_OUTCOME)
        make = self._counter
        self.events_fanned_out = make(
            "events_fanned_out", "Events whose deliveries were committed."
        )
        self.events_unknown_type = make(
            "events_unknown_type", "Events of a type that the catalogue does not know."
        )
        self.events_filtered = make("events_filtered", "Events that a content filter left out.")
        self.filter_errors = make("filter_errors", "Filters that could not be evaluated.")
        self.schema_mismatches = make(
            "schema_mismatches", "Events that do not fit the schema of their type."
        )
        self.events_quarantined = make(
            "events_quarantined", "Events that Postgres refused to ingest."
        )
        self.events_published = make("events_published", "Events committed over HTTP.")
        self.api_reads_rejected = make(
            "api_reads_rejected", "Reads of the API and the console that waited in vain."
        )
        self.attempts = make("attempts", "Finished attempts.", profile=profiles, outcome=outcomes)
        self.deliveries = make(
            "deliveries", "Deliveries that reached a final state.", profile=profiles, state=final
        )
        self.connections_reused = make(
            "connections_reused", "Attempts on a connection that had served before."
        )
        self.connections_opened = make("connections_opened", "Connections opened to receivers.")
        self.intake_wakeups = make(
            "intake_wakeups", "Why intake looked for events.", by=("notify", "poll", "local")
        )
        self.leases_lost = make(
            "leases_lost", "Leases that ended or were taken over while they were held."
        )
        self.results_fenced = make(
            "results_fenced", "Results refused because the lease's token had changed."
        )
        self.egress_blocked = make(
            "egress_blocked", "Connects denied by the address policy.", reason=blocked_reasons
        )
        self.log_lines_dropped = make(
            "log_lines_dropped", "Log lines lost because they were not read in time."
        )
        self.endpoint_attempts = CappedCounter(
            "endpoint_attempts",
            "Finished attempts by endpoint, capped.",
            ("endpoint", "outcome"),
            namespace=PREFIX,
            registry=self.registry if endpoints_max else None,
        )
        self.endpoint_attempts.allowed = _closed({"endpoint": (), "outcome": outcomes})
        self.endpoint_attempts.values_max = endpoints_max

    def _make_histograms(self) -> None:
        make = self._histogram
        self.attempt_duration = make(
            "attempt_duration_seconds",
            "From an attempt's begin to its end; only pushes.",
            LATENCY_BOUNDS,
        )
        self.delivery_latency = make(
            "delivery_latency_seconds",
            "From the event's insert to the first 2xx; only pushes.",
            DELIVERY_BOUNDS,
        )
        self.retry_lateness = make(
            "retry_lateness_seconds", "From a retry's due time to its begin.", LATENCY_BOUNDS
        )
        self.recorder_batch_size = make(
            "recorder_batch_size", "Results committed together.", SIZE_BOUNDS
        )
        self.recorder_flush = make(
            "recorder_flush_seconds", "Time of one commit of results.", FLUSH_BOUNDS
        )
        self.publish_duration = make(
            "publish_seconds", "From a publish over HTTP to its commit.", FLUSH_BOUNDS
        )

    def _make_gauges(self) -> None:
        make = self._gauge
        self.api_reads_waiting = make(
            "api_reads_waiting", "Reads of the API and the console that wait for others."
        )
        self.in_flight_attempts = make(
            "in_flight_attempts", "Attempts permitted and not yet recorded."
        )
        self.pending_deliveries = make(
            "pending_deliveries", "Deliveries that are neither final nor held."
        )
        self.held_deliveries = make(
            "held_deliveries", "Deliveries that wait for a paused endpoint."
        )
        self.retries_scheduled = make(
            "retries_scheduled", "Deliveries that wait for their next attempt."
        )
        self.oldest_undelivered = make(
            "oldest_undelivered_seconds", "Age past due of the oldest due delivery."
        )
        self.oldest_deferred = make(
            "oldest_deferred_seconds", "Age past due of the oldest delivery behind an open breaker."
        )
        self.oldest_unpolled = make(
            "oldest_unpolled_seconds",
            "Age past due of the oldest delivery of a pulled endpoint.",
        )
        self.endpoints_by_health = make(
            "endpoints_by_health", "Active endpoints by health.", health=tuple(HealthState)
        )
        self.longest_down = make(
            "longest_down_seconds",
            "Time without a success of the endpoint that is down the longest.",
        )
        self.endpoint_down = OpenGauge(
            "endpoint_down_seconds",
            "Time without a success of each endpoint that is down, capped.",
            ("tenant", "endpoint", "name"),
            namespace=PREFIX,
            registry=self.registry if self.down_endpoints_max else None,
        )
        self.outbox_backlog = make("outbox_backlog_events", "Events not fanned out yet.")
        self.outbox_lag = make("outbox_lag_seconds", "Age of the oldest event not fanned out yet.")
        self.endpoints = make("endpoints", "Endpoints by state.", state=tuple(EndpointState))
        self.endpoints_unusable = make(
            "endpoints_unusable",
            "Endpoints that the configuration does not let be sent to.",
            reason=UNUSABLE_REASONS,
        )
        self.history_partitions_ahead = make(
            "history_partitions_ahead", "Days to come that every history table is ready for."
        )
        self.history_partitions = make(
            "history_partitions", "Days that a history table has.", table=HISTORY_TABLES
        )
        self.history_bytes = make(
            "history_bytes", "Size of a history table with its indexes.", table=HISTORY_TABLES
        )
        self.history_oldest = make(
            "history_oldest_seconds", "Age of the oldest day of a table.", table=HISTORY_TABLES
        )
        self.history_partitions_kept = make(
            "history_partitions_kept", "Days past retention that stay for unfinished deliveries."
        )
        self.dead_rows = make(
            "dead_rows", "Rows of a hot table that wait for vacuum.", table=HOT_TABLES
        )
        self.notify_queue_usage = make(
            "notify_queue_usage_ratio", "Filled share of Postgres's queue of notifications."
        )
        self.database_clock_difference = make(
            "database_clock_difference_seconds", "This machine's clock less the database's."
        )
        self.breakers_open = make("breakers_open", "Endpoints whose breaker is open.")
        self.listener_up = make(
            "listener_up", "1 while the LISTEN connection is proven alive, else 0."
        )
        self.event_loop_lag = make(
            "event_loop_lag_seconds", "How late the event loop last ran a timer."
        )

    def _counter(self, name: str, documentation: str, **labels: Iterable[str]) -> Counter:
        counter = Counter(
            name, documentation, tuple(labels), namespace=PREFIX, registry=self.registry
        )
        counter.allowed = _closed(labels)
        for values in product(*map(sorted, counter.allowed)) if labels else ():
            counter.labels(*values)  # so that the series is there before its first event
        return counter

    def _histogram(self, name: str, documentation: str, bounds: tuple[float, ...]) -> Histogram:
        histogram = Histogram(name, documentation, bounds)
        self.registry.register(histogram)
        return histogram

    def _gauge(self, name: str, documentation: str, **labels: Iterable[str]) -> Gauge:
        gauge = Gauge(name, documentation, tuple(labels), namespace=PREFIX, registry=self.registry)
        gauge.allowed = _closed(labels)
        gauge.clear()
        return gauge

    def published(self, events_count: int, seconds: float) -> None:
        """Count a publish over HTTP that was committed."""
        self.events_published.inc(events_count)
        self.publish_duration.observe(seconds)

    def render(self) -> bytes:
        """Return the Prometheus text format, version 0.0.4."""
        return generate_latest(self.registry)


def _closed(labels: Mapping[str, Iterable[str]]) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(map(str, values)) for values in labels.values())
