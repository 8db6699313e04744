"""The alert rules: on metrics that exist, each with a case that fires, a case that is silent, and a runbook."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dispatcher.telemetry import metrics
from tests.support.tools import need

ALERTS_EVALUATED = re.compile(r'ALERTS\{alertname="(\w+)",alertstate="firing"\}')
TESTS = ("rules_test.yml", "rules_day_test.yml")
RECORDED = re.compile(r"dispatcher:[a-z_]+:[a-z0-9_]+")
SUFFIXES = re.compile(r"_(bucket|sum|count)$")


@pytest.fixture(scope="session")
def folder(deploy: Path) -> Path:
    return deploy / "prometheus"


@pytest.fixture(scope="session")
def rules(folder: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load((folder / "rules.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="session")
def alerts(rules: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {rule["alert"]: rule for rule in rules if "alert" in rule}
    assert len(found) >= 10
    return found


def table() -> dict[str, bool]:
    """Returns each metric's name, and whether the table calls it worth an alert."""
    rows = re.findall(r"^\| `([a-z_]+)` \|.*\| (yes)? ?\|$", metrics.__doc__ or "", re.MULTILINE)
    assert len(rows) > 20
    return {name: bool(yes) for name, yes in rows}


def named(expression: str) -> set[str]:
    """Returns the metrics of ours in an expression, without the prefix and a histogram's suffix."""
    found = re.findall(r"\bdispatcher_([a-z_]+)", expression)
    return {name if name in table() else SUFFIXES.sub("", name) for name in found}


def test_rules_use_existing_metrics_that_the_table_marks(rules):
    used = set().union(*(named(rule["expr"]) for rule in rules))
    assert used - set(table()) == set()
    assert used == {name for name, has_alert in table().items() if has_alert}


def test_every_recorded_series_is_used_and_every_used_one_recorded(rules, alerts):
    recorded = {rule["record"] for rule in rules if "record" in rule}
    used = set().union(*(set(RECORDED.findall(rule["expr"])) for rule in alerts.values()))
    assert recorded == used


def test_each_alert_says_how_bad_it_is_and_where_to_look(alerts, checkout):
    headings = set(
        re.findall(r"(?m)^## (\w+)$", (checkout / "docs" / "how-to" / "runbooks.md").read_text())
    )
    assert headings == set(alerts)
    for name, rule in alerts.items():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) - {"console_url"} == {
            "summary",
            "description",
            "runbook_url",
        }
        assert rule["annotations"]["runbook_url"] == f"docs/how-to/runbooks.md#{name.lower()}"


def promtool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [need("promtool", package="prometheus"), *arguments],
        check=False, capture_output=True, text=True, cwd=folder,
    )  # fmt: skip


def test_promtool_accepts_the_rules(folder):
    done = promtool(folder, "check", "rules", "--lint=all", "--lint-fatal", "rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_case_that_fires_and_one_that_is_silent(folder, alerts):
    cases = [
        case
        for name in TESTS
        for case in yaml.safe_load((folder / name).read_text(encoding="utf-8"))["tests"]
    ]
    fires: set[str] = set()
    silent: set[str] = set()
    for case in cases:
        for one in case["promql_expr_test"]:
            name = ALERTS_EVALUATED.search(one["expr"])
            if name:
                assert case["name"].startswith(
                    f"{name[1]} fires" if one["exp_samples"] else f"{name[1]} is silent"
                )
                (fires if one["exp_samples"] else silent).add(name[1])
    assert fires == silent == set(alerts)


def needed(rules: list[dict[str, Any]], alert: str) -> list[dict[str, Any]]:
    """Returns the rules that an alert is evaluated from; all of them for a case of no alert."""
    if all(rule.get("alert") != alert for rule in rules):
        return rules
    kept = [rule for rule in rules if rule.get("alert") == alert]
    for rule in kept:  # grows meanwhile
        names = set(RECORDED.findall(rule["expr"])) - {one.get("record") for one in kept}
        kept += [one for one in rules if one.get("record") in names]
    return kept


def narrowed(
    folder: Path, target: Path, expression: str | None = None, kind: str = ""
) -> list[str]:
    """Writes a file of rules and one of cases for each alert, and returns the names of the latter.

    promtool evaluates every rule of a file for every case, which takes many times as long. `expression` replaces
    that of the alert; of the cases, those of `kind` are kept.
    """
    groups = yaml.safe_load((folder / "rules.yml").read_text(encoding="utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    written = []
    for name in TESTS:
        document = yaml.safe_load((folder / name).read_text(encoding="utf-8"))
        cases: dict[str, list[dict[str, Any]]] = {}
        for case in document["tests"]:
            if kind in case["name"]:
                cases.setdefault(case["name"].split()[0], []).append(case)
        for alert, own in cases.items():
            kept = needed(rules, alert)
            parts = [
                {**group, "rules": [one for one in group["rules"] if one in kept]}
                for group in groups
                if any(one in kept for one in group["rules"])
            ]
            if expression is not None:
                bare = {key: value for key, value in kept[0].items() if key != "for"}
                parts = [{"name": "alone", "rules": [bare | {"expr": expression}]}]
            written.append(f"{alert}.{name}")
            (target / f"{written[-1]}.rules").write_text(yaml.safe_dump({"groups": parts}))
            document |= {"rule_files": [f"{written[-1]}.rules"], "tests": own}
            (target / written[-1]).write_text(yaml.safe_dump(document))
    return written


@pytest.mark.slow
def test_every_case_holds(folder, tmp_path):
    done = promtool(tmp_path, "test", "rules", *narrowed(folder, tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("expression", "kind"), [("vector(0) > 1", "fires"), ("vector(1)", "is silent")]
)
def test_the_cases_find_alerts_that_never_and_that_always_fire(folder, tmp_path, expression, kind):
    files = narrowed(folder, tmp_path, expression, kind)
    count = sum(len(yaml.safe_load((tmp_path / one).read_text())["tests"]) for one in files)
    done = promtool(tmp_path, "test", "rules", *files)
    assert count > 20
    assert (done.stdout + done.stderr).count("exp:") == count
