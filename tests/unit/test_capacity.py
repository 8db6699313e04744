"""The capacity model: its arithmetic, its calibration, and the tables of docs/explanation/scaling.md."""

import re
import statistics
from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks import scaling
from benchmarks.capacity import CALIBRATION, ERROR_MAX, calibrate_cpu
from benchmarks.capacity_model import (
    COMMITTED,
    Costs,
    Cpu,
    Disk,
    Load,
    bytes_per_event,
    committed_costs,
    cores,
    predict,
    rounds_per_second,
)

COSTS = Costs(
    daemon=Cpu(idle_cores=0.01, round_us=2_000, rounds_max=100, attempt_us=40),
    postgres=Cpu(idle_cores=0.02, round_us=1_000, rounds_max=100, attempt_us=30, commit_us=200),
    disk=Disk(
        event_bytes=200,
        body_bytes=100,
        delivery_bytes=600,
        attempt_bytes=250,
        wal_attempt_bytes=2_000,
    ),
    drain_per_second=10_000,
)


def rounds(events_per_second: float, fan_out: float = 0) -> float:
    return rounds_per_second(Load(events_per_second, fan_out), 100, 10_000)


def test_rounds_follow_events_at_first_and_level_off():
    assert rounds(0) == 0
    assert rounds(1) == pytest.approx(1, rel=0.02)
    assert rounds(100) == 50
    assert rounds(1e9) == pytest.approx(100)


def test_rounds_become_fewer_towards_the_drain_rate_and_none_beyond():
    assert rounds(100, fan_out=50) == pytest.approx(100 / 3)
    assert rounds(100, fan_out=100) == 0
    assert rounds(100, fan_out=200) == 0


def test_cores_are_idling_rounds_and_attempts():
    load = Load(events_per_second=100, fan_out=5, attempts_per_delivery=2)
    turns = 100 / (1 + 1 / 0.9)
    expected = 0.01 + turns * 0.002 + 1_000 * 40e-6
    assert cores(load, COSTS.daemon, 10_000) == pytest.approx(expected)


def test_disk_counts_the_data_once_for_the_event_and_once_for_each_profile():
    load = Load(1, fan_out=4, data_bytes=500, attempts_per_delivery=1.5, profiles=2)
    assert bytes_per_event(load, COSTS.disk) == 200 + 500 + 2 * (100 + 500) + 4 * (600 + 1.5 * 250)


def test_a_need_has_two_replicas_at_least_and_more_where_cores_lack():
    small = predict(Load(1, 1), COSTS)
    assert (small.replicas, small.connections) == (2, 22)
    large = predict(Load(2_000, 20), COSTS)
    assert large.daemon_cores == pytest.approx(0.01 + 40_000 * 40e-6)
    assert large.replicas == 6  # 40,000 a second, each draining 7,000
    assert large.rows_per_day == 2_000 * 86_400 * 42
    assert predict(Load(1, 1, days=60), COSTS).disk_bytes == 2 * small.disk_bytes


@pytest.mark.parametrize("cpu", [COSTS.daemon, COSTS.postgres])
def test_calibration_finds_the_costs_that_the_runs_were_made_of(cpu):
    runs = [(load.events_per_second, cores(load, cpu, 10_000)) for load in CALIBRATION]
    assert calibrate_cpu(runs, cpu.attempt_us, 10_000, cpu.commit_us) == pytest.approx(cpu)


def table(page: str, heading: str) -> list[list[str]]:
    """Returns the cells of the table whose first heading is this."""
    after = page[page.index(f"| {heading} |") :]
    rows = after[: after.index("\n\n")].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


@pytest.fixture(scope="module")
def page() -> str:
    return (Path(__file__).parents[2] / "docs" / "explanation" / "scaling.md").read_text(
        encoding="utf-8"
    )


def number(cell: str) -> float:
    found = re.match(r"[\d.,]+", cell)
    assert found, cell
    return float(found[0].replace(",", ""))


def test_the_costs_of_the_page_are_those_that_were_measured(page):
    costs = committed_costs()
    rows = {
        name: (number(daemon), number(postgres)) for name, daemon, postgres in table(page, "CPU")
    }
    for field in Cpu._fields:
        measured = getattr(costs.daemon, field), getattr(costs.postgres, field)
        assert rows[f"`{field}`"] == pytest.approx(measured, rel=0.06), field
    assert number(page.split("drained ")[1]) == pytest.approx(costs.drain_per_second, rel=0.01)
    disk = {name: number(size) for name, size in table(page, "disk")}
    for field in Disk._fields:
        assert disk[f"`{field}`"] == pytest.approx(getattr(costs.disk, field), rel=0.01), field


def test_the_examples_of_the_page_are_what_the_model_says(page):
    rows = table(page, "events/s, fan-out")
    assert len(rows) >= 4
    for shape, deliveries, daemon, postgres, replicas, connections, rows_a_day, disk in rows:
        events, fan_out = (number(part) for part in re.findall(r"[\d.,]+", shape))
        need = predict(Load(events, fan_out), committed_costs())
        assert number(deliveries) == need.deliveries_per_second
        assert number(daemon) == pytest.approx(need.daemon_cores, abs=0.006)
        assert number(postgres) == pytest.approx(need.postgres_cores, abs=0.006)
        assert (number(replicas), number(connections)) == (need.replicas, need.connections)
        assert number(rows_a_day) == pytest.approx(need.rows_per_day / 1e6, rel=0.02)
        assert number(disk) == pytest.approx(need.disk_bytes / 1e9, rel=0.01)


def test_the_page_tells_the_errors_that_were_measured(page):
    measured = orjson.loads(COMMITTED.read_bytes())["sizes"]
    rows = table(page, "size")
    assert len(rows) == len(measured) == 3
    for cells, size in zip(rows, measured, strict=True):
        for cell, what in zip(cells[1:], ("daemon", "postgres", "disk"), strict=True):
            assert number(cell) == round(100 * size[f"{what}_error"])
            within = size[f"{what}_error"] <= ERROR_MAX
            assert within or "**" in cell, "a miss is to be seen"


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads((COMMITTED.parent / "scaling.json").read_bytes())
    return document


def test_the_curve_on_the_page_is_what_was_measured(page, measured):
    marked = scaling.MARKED.search(page)
    assert marked
    assert marked[0] == marked[1] + scaling.tables(measured) + marked[2], (
        "run `./run bench scaling --report`"
    )


def test_the_plot_of_the_page_is_what_was_measured(measured):
    assert (COMMITTED.parent / "scaling.svg").read_text("utf-8") == scaling.plot(measured)


def test_the_curve_has_every_size_and_its_ratio_to_the_smallest(page, measured):
    expected = [
        ("replicas | deliveries per second", "replicas"),
        ("endpoints | deliveries per second", "endpoints"),
        ("deliveries in the history | deliveries per second", "history"),
    ]
    for heading, kind in expected:
        sizes = measured["rounds"][kind]
        first = next(iter(sizes.values()))
        rows = table(page, heading)
        assert len(rows) == len(sizes)
        assert rows[0][2] == "1"
        for cells, rounds in zip(rows, sizes.values(), strict=True):
            assert number(cells[1]) == round(statistics.median(one["rate"] for one in rounds))
        for cells, rounds in list(zip(rows, sizes.values(), strict=True))[1:]:
            ratios = [a["rate"] / b["rate"] for a, b in zip(rounds, first, strict=True)]
            values = [statistics.median(ratios), min(ratios), max(ratios)]
            assert re.findall(r"[\d.]+", cells[2]) == [f"{one:.2f}" for one in values]


def test_the_drain_and_the_memory_on_the_page_are_what_was_measured(page):
    results = COMMITTED.parent
    drain = orjson.loads((results / "drain.json").read_bytes())["rounds"]["ours"]
    rates = [round(one["rate"]) for one in drain]
    assert f"{min(rates):,} to {max(rates):,} per second" in page
    recovery = orjson.loads((results / "recovery.json").read_bytes())
    more = statistics.median(one["more_mb"] for one in recovery["rounds"]) * 2**20
    assert (
        f"{recovery['retries']:,} of some {round(more / recovery['retries'], -1):.0f} bytes" in page
    )
