"""The dashboards: no panels overlap, every metric is shown, each query has a result from a real daemon's scrape."""

import asyncio
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from dispatcher.telemetry import metrics
from tests.support.daemon import STANDARD_SECRET, add_endpoint, quiet, until
from tests.support.ledger import Plan
from tests.support.tools import need

FILES = sorted((Path(__file__).resolve().parents[2] / "deploy" / "grafana").glob("*.json"))
WIDTH = 24
"""Columns of Grafana's grid."""
TABLE = set(re.findall(r"(?m)^\| `([a-z_]+)` \|", metrics.__doc__ or ""))


def dashboards() -> list[dict[str, Any]]:
    return [orjson.loads(path.read_bytes()) for path in FILES]


def panels() -> Iterator[dict[str, Any]]:
    for dashboard in dashboards():
        yield from dashboard["panels"]


def queries() -> list[str]:
    found = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    assert len(found) > 30
    return found


def plain(query: str) -> str:
    """Puts what Grafana would in place of its variables."""
    return (
        query.replace("$__rate_interval", "5m")
        .replace("$__range", "6h")
        .replace("$namespace", ".*")
        .replace("$job", ".*")
    )


def test_dashboards_link_to_each_other_and_select_deployments():
    known = {dashboard["uid"] for dashboard in dashboards()}
    assert known == {path.stem for path in FILES}
    for dashboard in dashboards():
        assert {link["url"].removeprefix("/d/") for link in dashboard["links"]} <= known
        names = [variable["name"] for variable in dashboard["templating"]["list"]]
        assert names == ["datasource", "namespace", "job"]
        for panel in dashboard["panels"]:
            assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}"


def test_gauges_of_the_whole_database_are_not_summed():
    """Every replica exports the same value, so a sum would multiply it; a minimum is as good as a maximum."""
    database_wide = re.findall(r"(?m)^\| `([a-z_]+)` \|.*\*database\*", metrics.__doc__ or "")
    assert len(database_wide) > 10
    for query in queries():
        if any(f"dispatcher_{name}{{" in query for name in database_wide):
            assert query.startswith(("max ", "min(")), query


def test_every_metric_of_the_table_is_shown_and_no_other():
    named = set(re.findall(r"dispatcher_([a-z_]+)\{", " ".join(queries())))
    shown = {name if name in TABLE else re.sub(r"_bucket$", "", name) for name in named}
    assert shown == TABLE


def test_panels_have_their_own_place_number_and_words():
    for dashboard in dashboards():
        made = dashboard["panels"]
        assert len({panel["id"] for panel in made}) == len(made)
        taken: set[tuple[int, int]] = set()
        for panel in made:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= WIDTH
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            taken |= cells
            assert panel["title"]
            assert panel["type"] == "row" or panel["description"].endswith((".", "%"))


def as_series(exposition: str) -> list[dict[str, str]]:
    """Returns a scrape as promtool's tests take it: each sample with the same value for ten minutes."""
    found = []
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            labels = {**sample.labels, "namespace": "wms", "job": "d", "instance": "a:8080"}
            inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
            found.append({"series": f"{sample.name}{{{inside}}}", "values": f"{sample.value}x10"})
    return found


@pytest.mark.postgres
@pytest.mark.e2e
async def test_every_query_has_an_answer_from_a_real_scrape(bench, sql, tmp_path):
    promtool = need("promtool", package="prometheus")
    bench.receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_x", bench.receiver.url("/hook"))
    await add_endpoint(sql, "ep_down", bench.receiver.url("/down"), event_types=["t.none"])
    await sql.execute(
        "INSERT INTO dispatcher.endpoint_health VALUES ('ep_down', now() - interval '1 hour', 30);"
        "INSERT INTO dispatcher.endpoint_status VALUES ('ep_down', 'down', now() - interval '1 hour')"
    )
    daemon = await bench.daemon(METRICS__PER_ENDPOINT="true").started()
    await bench.produced(Plan(url=bench.url, events_count=3))
    await quiet(bench.url, seconds=15)

    async def is_complete() -> bool:
        text = (await daemon.get("/metrics"))[1]
        late = ("event_loop_lag_seconds", "history_partitions_kept")
        return all(f"\ndispatcher_{name} " in text for name in late)

    await until(is_complete, seconds=30, what="the event loop's lag, and the figures of retention")
    status, text = await daemon.get("/metrics")
    assert status == 200
    # The scrape's counters stand still, so what shows growth alone is asked without that.
    cases = [
        {
            "expr": f"count({plain(query).removesuffix(' > 0')}) > bool 0",
            "eval_time": "10m",
            "exp_samples": [{"value": 1}],
        }
        for query in queries()
    ]
    document = {
        "tests": [{"interval": "1m", "input_series": as_series(text), "promql_expr_test": cases}]
    }
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump(document))
    done = await asyncio.to_thread(_run, promtool, "test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    checked = await asyncio.to_thread(_check, promtool, text)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, check=False, capture_output=True, text=True)


def _check(promtool: str, text: str) -> "subprocess.CompletedProcess[str]":
    """Asks promtool whether names and types follow the conventions."""
    return subprocess.run(
        [promtool, "check", "metrics"], input=text, check=False, capture_output=True, text=True
    )


def test_a_query_on_a_metric_that_is_not_there_is_found(tmp_path):
    promtool = need("promtool", package="prometheus")
    case = {
        "expr": "count(dispatcher_nothing) > bool 0",
        "eval_time": "1m",
        "exp_samples": [{"value": 1}],
    }
    document = {
        "tests": [
            {"interval": "1m", "input_series": as_series("up 1\n"), "promql_expr_test": [case]}
        ]
    }
    file: Path = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump(document))
    assert _run(promtool, "test", "rules", str(file)).returncode != 0
