"""Writes the dashboards: `python -m deploy.grafana.generate`.

Two of them: `dispatcher.json` answers whether events arrive, from top to bottom in the order of an
operator's questions; `dispatcher-inside.json` tells why not. No library makes them: a panel is a
dictionary. A test compares what is committed with what this makes, and evaluates each query
on a scrape of a real daemon.

Gauges of the whole database are equal on every replica, so they are aggregated with `max`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

HERE = Path(__file__).resolve().parent
WIDTH = 24
GRAFANA_SCHEMA = 39
SELECT = 'namespace=~"$namespace",job=~"$job"'
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Query(NamedTuple):
    """A PromQL expression and the legend of its series."""

    expression: str
    legend: str = ""


class Panel(NamedTuple):
    """One panel; `unit` is Grafana's name of it, `description` what the reader may conclude."""

    title: str
    description: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    thresholds: Sequence[tuple[float, str]] = ()
    stacked: bool = False


class Row(NamedTuple):
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]


def name(metric: str, more: str = "") -> str:
    """Returns the selector of one of our metrics."""
    return f"dispatcher_{metric}{{{SELECT}{',' + more if more else ''}}}"


def rate(metric: str, by: str = "", more: str = "") -> str:
    """Returns a counter's growth per second, summed over replicas."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({name(metric, more)}[$__rate_interval]))"


def quantile(share: float, metric: str) -> str:
    """Returns a histogram's quantile over all replicas."""
    buckets = name(f"{metric}_bucket")
    return f"histogram_quantile({share}, sum by (le) (rate({buckets}[$__rate_interval])))"


def database(metric: str, more: str = "", by: str = "") -> str:
    """Returns a figure of the whole database, which every replica tells."""
    grouping = f" by ({by})" if by else ""
    return f"max{grouping} ({name(metric, more)})"


def quantiles(metric: str) -> list[Query]:
    """Returns the three that tell the shape."""
    return [Query(quantile(share, metric), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)]


def ended(states: str) -> str:
    """Returns how many deliveries ended in these states, in the range shown."""
    return "sum(increase(" + name("deliveries_total", f'state=~"{states}"') + "[$__range]))"


SUCCEED = ended("succeeded") + " / " + ended("succeeded|failed")
GOOD_ABOVE_99 = ((0.0, "red"), (0.99, "orange"), (0.999, "green"))
BAD_ABOVE_5_MINUTES = ((0.0, "green"), (60.0, "orange"), (300.0, "red"))
BAD_ABOVE_1_MINUTE = ((0.0, "green"), (10.0, "orange"), (60.0, "red"))
GOOD_ABOVE_0 = ((0.0, "red"), (1.0, "green"))
GOOD_FROM_3 = ((0.0, "red"), (3.0, "green"))

ARRIVES = [
    Row(
        "Do events arrive?",
        [
            Panel(
                "Deliveries that succeed",
                "Of those that ended in the range shown. The objective of the alerts is 99 %.",
                [
                    Query(SUCCEED),
                ],
                "percentunit",
                "stat",
                5,
                5,
                GOOD_ABOVE_99,
            ),
            Panel(
                "Oldest undelivered",
                "Age past due of what could be sent and is not. Schedules, breakers and pauses are left out.",
                [Query(database("oldest_undelivered_seconds"))],
                "s",
                "stat",
                5,
                5,
                BAD_ABOVE_5_MINUTES,
            ),
            Panel(
                "Outbox lag",
                "Age of the oldest event that is not taken in yet.",
                [Query(database("outbox_lag_seconds"))],
                "s",
                "stat",
                5,
                5,
                BAD_ABOVE_1_MINUTE,
            ),
            Panel(
                "Waiting",
                "Deliveries that are neither final nor held.",
                [Query(database("pending_deliveries"))],
                "short",
                "stat",
                3,
                5,
            ),
            Panel(
                "Disabled endpoints",
                "Switched off by the system.",
                [Query(database("endpoints", 'state="disabled"'))],
                "short",
                "stat",
                3,
                5,
                ((0.0, "green"), (1.0, "orange")),
            ),
            Panel(
                "Replicas",
                "Processes that answer.",
                [Query(f"count({name('build_info')})")],
                "short",
                "stat",
                3,
                5,
                GOOD_ABOVE_0,
            ),
        ],
    ),
    Row(
        "How much, how fast",
        [
            Panel(
                "Events taken in",
                "Per second; their deliveries are committed.",
                [Query(rate("events_fanned_out_total"), "events")],
                "eps",
            ),
            Panel(
                "Attempts by outcome",
                "Per second. Everything but ok is tried again, or was the last attempt.",
                [Query(rate("attempts_total", "outcome") + " > 0", "{{outcome}}")],
                "reqps",
                stacked=True,
            ),
            Panel(
                "Deliveries that ended",
                "Per second, by profile and state.",
                [
                    Query(
                        rate("deliveries_total", "profile, state") + " > 0", "{{profile}} {{state}}"
                    )
                ],
                "eps",
                stacked=True,
            ),
            Panel(
                "From insert to first 2xx",
                "What receivers notice; retries included.",
                quantiles("delivery_latency_seconds"),
                "s",
            ),
            Panel(
                "One attempt",
                "Mostly the receivers' own time.",
                quantiles("attempt_duration_seconds"),
                "s",
            ),
            Panel(
                "Retries begin late by",
                "From the due time. Seconds mean a full replica or a full lane.",
                quantiles("retry_lateness_seconds"),
                "s",
            ),
        ],
    ),
    Row(
        "What waits",
        [
            Panel(
                "Deliveries",
                "Waiting, of those for their next attempt, and held by paused endpoints.",
                [
                    Query(database("pending_deliveries"), "waiting"),
                    Query(database("retries_scheduled"), "for their next attempt"),
                    Query(database("held_deliveries"), "held"),
                ],
            ),
            Panel(
                "Events in the outbox",
                "Not taken in yet. A sawtooth near zero is normal.",
                [Query(database("outbox_backlog_events"), "events")],
            ),
            Panel(
                "Endpoints down",
                "Active endpoints without a success for 5 minutes, and for 1 hour.",
                [Query(database("endpoints_down", by="seconds"), "{{seconds}} s")],
            ),
            Panel(
                "Endpoints unusable",
                "Their deliveries wait until the configuration is fixed; by reason.",
                [Query(database("endpoints_unusable", by="reason"), "{{reason}}")],
            ),
            Panel(
                "Oldest deferred",
                "Age past due of the oldest delivery behind an open breaker.",
                [Query(database("oldest_deferred_seconds"))],
                "s",
            ),
            Panel(
                "Endpoints",
                "By state.",
                [Query(database("endpoints", by="state"), "{{state}}")],
                stacked=True,
            ),
        ],
    ),
]

INSIDE = [
    Row(
        "The process",
        [
            Panel(
                "Event loop late by",
                "Steadily above half a second: too little CPU.",
                [Query(name("event_loop_lag_seconds"), "{{instance}}")],
                "s",
            ),
            Panel(
                "In flight",
                "Attempts permitted and not yet recorded; delivery.concurrency_total is the limit.",
                [Query(name("in_flight_attempts"), "{{instance}}")],
            ),
            Panel(
                "Open breakers",
                "Endpoints that are probed only.",
                [Query(name("breakers_open"), "{{instance}}")],
            ),
            Panel(
                "Connections to receivers",
                "Opened, and used again, per second.",
                [
                    Query(rate("connections_opened_total"), "opened"),
                    Query(rate("connections_reused_total"), "used again"),
                ],
                "ops",
            ),
            Panel(
                "Blocked by the address policy",
                "Per second, by range.",
                [Query(rate("egress_blocked_total", "reason") + " > 0", "{{reason}}")],
                "ops",
            ),
            Panel(
                "Log lines lost",
                "Per second: nobody read them in time.",
                [Query(rate("log_lines_dropped_total"), "lines")],
                "ops",
            ),
        ],
    ),
    Row(
        "Hearing producers",
        [
            Panel(
                "Listening",
                "1 while the LISTEN connection is proven alive.",
                [Query(name("listener_up"), "{{instance}}")],
                thresholds=GOOD_ABOVE_0,
            ),
            Panel(
                "Why intake looked",
                "Per second. Only polls although events come: nothing is heard.",
                [Query(rate("intake_wakeups_total", "by"), "{{by}}")],
                "ops", stacked=True,
            ),
            Panel(
                "Odd events",
                "Of unknown type, and quarantined, per second.",
                [
                    Query(rate("events_unknown_type_total"), "unknown type"),
                    Query(rate("events_quarantined_total"), "quarantined"),
                ],
                "eps",
            ),
        ],
    ),
    Row(
        "Postgres",
        [
            Panel(
                "A commit of results takes",
                "p95 above half a second is an alert.",
                quantiles("recorder_flush_seconds"),
                "s",
            ),
            Panel(
                "Results in one commit",
                "Few: idle. At recorder.batch_rows: at the limit.",
                quantiles("recorder_batch_size"),
            ),
            Panel(
                "Dead rows",
                "Of the hot tables; vacuum takes them at 20,000.",
                [Query(database("dead_rows", by="table"), "{{table}}")],
            ),
            Panel(
                "Queue of notifications",
                "Filled share; above 0.1 is an alert, from 0.5 on events wait for the poll.",
                [Query(database("notify_queue_usage_ratio"))],
                "percentunit",
            ),
            Panel(
                "Days that history is ready for",
                "Below three is an alert.",
                [Query(f"min({name('history_partitions_ahead')})")],
                "short", "stat", 4, 8, GOOD_FROM_3,
            ),
            Panel(
                "Size of history",
                "With indexes, by table.",
                [Query(database("history_bytes", by="table"), "{{table}}")],
                "bytes", stacked=True,
            ),
            Panel(
                "History",
                "Age of the oldest day, by table.",
                [Query(database("history_oldest_seconds", by="table"), "{{table}}")],
                "s", width=6,
            ),
            Panel(
                "Days kept past retention",
                "They hold deliveries that have not ended.",
                [Query(database("history_partitions_kept"))],
                "short", "stat", 3, 8, ((0.0, "green"), (1.0, "orange")),
            ),
            Panel(
                "Partitions",
                "By table, those ahead included.",
                [Query(database("history_partitions", by="table"), "{{table}}")],
                width=3,
            ),
        ],
    ),
    Row(
        "Replicas",
        [
            Panel(
                "Leases lost, results refused",
                "Some at a failover; steadily means a starved process or a slow database.",
                [
                    Query(rate("leases_lost_total"), "leases lost"),
                    Query(rate("results_fenced_total"), "results refused"),
                ],
                "ops",
            ),
            Panel(
                "Clock against the database's",
                "Receivers refuse signatures of a wrong clock.",
                [Query(name("database_clock_difference_seconds"), "{{instance}}")],
                "s",
            ),
            Panel(
                "Attempts by endpoint",
                "Empty unless metrics.per_endpoint is on.",
                [
                    Query(
                        f"topk(10, {rate('endpoint_attempts_total', 'endpoint, outcome')})",
                        "{{endpoint}} {{outcome}}",
                    )
                ],
                "reqps",
            ),
        ],
    ),
]  # fmt: skip


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    steps = [
        {"color": color, "value": None if place == 0 else value}
        for place, (value, color) in enumerate(panel.thresholds or ((0.0, "green"),))
    ]
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0 if panel.unit != "s" else None,
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    options: dict[str, Any]
    if panel.kind == "stat":
        options = {
            "colorMode": "value",
            "graphMode": "area",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        }
    else:
        defaults["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 15 if panel.stacked else 0,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none"},
        }
        options = {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": DATASOURCE,
                "expr": query.expression,
                "legendFormat": query.legend,
            }
            for place, query in enumerate(panel.queries)
        ],
    }


def _panels(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Lays the panels out from left to right, each row below the one before."""
    made: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        made.append(
            {
                "id": len(made) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
                "panels": [],
            }
        )
        y += 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y, height = 0, y + height, 0
            made.append(_panel(panel, len(made) + 1, x, y))
            x += panel.width
            height = max(height, panel.height)
        y += height
    return made


def _variable(label: str, of: str) -> dict[str, Any]:
    return {
        "name": of,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {
            "query": f"label_values(dispatcher_build_info, {of})",
            "refId": of,
        },
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
        "sort": 1,
    }


def _dashboard(uid: str, title: str, rows: Sequence[Row], link: tuple[str, str]) -> dict[str, Any]:
    return {
        "uid": uid,
        "title": title,
        "tags": ["dispatcher"],
        "schemaVersion": GRAFANA_SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "links": [{"type": "link", "title": link[0], "url": f"/d/{link[1]}", "keepTime": True,
                   "includeVars": True}],
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource",
                 "query": "prometheus", "refresh": 1},
                _variable("Namespace", "namespace"),
                _variable("Deployment", "job"),
            ]
        },
        "annotations": {"list": []},
        "panels": _panels(rows),
    }  # fmt: skip


def dashboards() -> dict[str, bytes]:
    """Returns each file's bytes by its name."""
    made = {
        "dispatcher.json": _dashboard(
            "dispatcher", "Dispatcher", ARRIVES, ("Inside", "dispatcher-inside")
        ),
        "dispatcher-inside.json": _dashboard(
            "dispatcher-inside", "Dispatcher: inside", INSIDE, ("Do events arrive?", "dispatcher")
        ),
    }
    return {
        file: orjson.dumps(dashboard, option=orjson.OPT_INDENT_2) + b"\n"
        for file, dashboard in made.items()
    }


if __name__ == "__main__":
    for file, content in dashboards().items():
        (HERE / file).write_bytes(content)
