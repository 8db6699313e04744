"""The metrics: table and code agree, label sets are closed, sums are right."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from dispatcher.core.model import EndpointState, Outcome
from dispatcher.telemetry import metrics as module
from dispatcher.telemetry.metrics import Counter, Gauge, Histogram, Metrics

# The names that dashboards and alerts outside this repository rely on.
PROMISED = set(
    """
    events_fanned_out_total events_unknown_type_total attempts_total deliveries_total
    connections_reused_total connections_opened_total intake_wakeups_total leases_lost_total
    results_fenced_total egress_blocked_total attempt_duration_seconds delivery_latency_seconds
    retry_lateness_seconds recorder_batch_size recorder_flush_seconds in_flight_attempts
    pending_deliveries held_deliveries retries_scheduled oldest_undelivered_seconds
    oldest_deferred_seconds oldest_unpolled_seconds endpoints_by_health longest_down_seconds
    outbox_backlog_events outbox_lag_seconds endpoints breakers_open listener_up
    event_loop_lag_seconds build_info
    """.split()  # noqa: SIM905 -- a list of names reads better as words
)


def make() -> Metrics:
    return Metrics(
        version="1.2.3",
        profiles=("wms", "standard"),
        blocked_reasons=("loopback",),
        endpoints_max=2,
    )


def families(metrics: Metrics):
    return {
        family.name: family for family in text_string_to_metric_families(metrics.render().decode())
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"dispatcher_{name}", labels)


def series(metric: MetricWrapperBase) -> dict[tuple[str, ...], float]:
    """Returns the value of each series, by its label values."""
    families = metric.collect()
    return {tuple(one.labels.values()): one.value for family in families for one in family.samples}


def table() -> dict[str, tuple[str, tuple[str, ...]]]:
    rows = re.findall(
        r"^\| `([a-z_]+)` \| (\w+) \|([a-z, ]*)\|", module.__doc__ or "", re.MULTILINE
    )
    return {name: (kind, tuple(labels.replace(",", " ").split())) for name, kind, labels in rows}


def test_table_and_metrics_are_the_same():
    made = {}
    for metric in vars(make()).values():
        match metric:
            case Histogram():
                made[metric.name] = ("histogram", ())
            case Counter() | Gauge():
                (family,) = metric.describe()
                name = family.name.removeprefix("dispatcher_")
                name += "_total" if family.type == "counter" else ""
                made[name] = (family.type, tuple(metric._labelnames))
            case _:
                pass  # the registry
    assert made == table()


def test_every_promised_name_is_there():
    assert set(table()) >= PROMISED


def test_every_attribute_of_metrics_is_exposed():
    metrics = make()
    attributes = {
        id(one) for one in vars(metrics).values() if isinstance(one, Counter | Histogram | Gauge)
    }
    assert attributes == {id(one) for one in metrics.registry._collector_to_names}


def test_counters_are_there_from_the_start_and_add_up():
    metrics = make()
    assert value(metrics, "attempts_total", profile="wms", outcome="ok") == 0
    metrics.attempts.labels("wms", Outcome.OK).inc()
    metrics.attempts.labels("wms", "ok").inc(2)
    metrics.events_fanned_out.inc(5)
    assert value(metrics, "attempts_total", profile="wms", outcome="ok") == 3
    assert value(metrics, "events_fanned_out_total") == 5


@given(names=st.lists(st.text(max_size=20), max_size=50))
def test_hostile_label_values_add_no_series(names: list[str]):
    metrics = make()
    before = series(metrics.attempts)
    for name in names:
        metrics.attempts.labels(name, Outcome.TIMEOUT).inc()
    assert series(metrics.attempts).keys() == before.keys()
    assert value(metrics, "attempts_total", profile="other", outcome="timeout") == sum(
        name not in {"wms", "standard"} for name in names
    )


@given(names=st.lists(st.text(min_size=1, max_size=5), max_size=30))
def test_per_endpoint_series_stop_at_the_cap(names: list[str]):
    metrics = make()
    for name in names:
        metrics.endpoint_attempts.labels(name, Outcome.OK).inc()
    found = series(metrics.endpoint_attempts)
    assert len({endpoint for endpoint, _ in found if endpoint != "other"}) <= 2
    assert sum(found.values()) == len(names)


def test_per_endpoint_series_are_off_unless_asked_for():
    metrics = Metrics(version="1")
    metrics.endpoint_attempts.labels("ep_a", "ok").inc()
    assert "dispatcher_endpoint_attempts" not in families(metrics)


@given(values=st.lists(st.floats(min_value=0, max_value=1000), max_size=60))
def test_histogram_counts_each_value_below_every_bound_that_holds_it(values: list[float]):
    metrics = make()
    for one in values:
        metrics.attempt_duration.observe(one)
    for bound in (*metrics.attempt_duration.bounds, float("inf")):
        text = "+Inf" if bound == float("inf") else str(float(bound))
        expected = sum(one <= bound for one in values)
        assert value(metrics, "attempt_duration_seconds_bucket", le=text) == expected
    assert value(metrics, "attempt_duration_seconds_count") == len(values)
    assert value(metrics, "attempt_duration_seconds_sum") == pytest.approx(sum(values))


def test_a_gauge_that_nobody_knows_is_left_out():
    metrics = make()
    assert "dispatcher_outbox_lag_seconds" not in families(metrics)
    metrics.outbox_lag.set(1.5)
    assert value(metrics, "outbox_lag_seconds") == 1.5
    metrics.outbox_lag.clear()
    assert "dispatcher_outbox_lag_seconds" not in families(metrics)
    metrics.endpoints.labels(EndpointState.PAUSED).set(2)
    metrics.endpoints.clear()
    assert "dispatcher_endpoints" not in families(metrics)


def test_a_gauge_asks_its_function_at_each_scrape():
    metrics = make()
    answers = [3.0, module.UNKNOWN, 4.0]
    metrics.in_flight_attempts.set_function(lambda: answers.pop(0))
    assert [value(metrics, "in_flight_attempts") for _ in range(3)] == [3.0, None, 4.0]


def test_a_gauge_refuses_a_label_value_outside_its_set():
    metrics = make()
    metrics.endpoints.labels(EndpointState.PAUSED).set(2)
    assert value(metrics, "endpoints", state="paused") == 2
    with pytest.raises(ValueError, match="endpoints: 'sleepy'"):
        metrics.endpoints.labels("sleepy")


def test_exposition_has_types_and_build_info():
    found = families(make())
    assert found["dispatcher_attempts"].type == "counter"
    assert found["dispatcher_attempt_duration_seconds"].type == "histogram"
    assert found["dispatcher_build_info"].samples[0].labels == {"version": "1.2.3"}
