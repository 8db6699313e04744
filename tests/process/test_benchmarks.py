"""The benchmarks' own parts: contenders, figures of processes, and what a page over HTTP is called."""

import asyncio
import inspect
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks import endpoints, latency, pages
from benchmarks.all import insert
from benchmarks.contenders import _SEED, checkout
from benchmarks.drain import COSTS, table
from benchmarks.harness import OURS, ROOT, cpu_seconds, postgres_cpu, receiver, wait_for
from benchmarks.neighbours import neighbours
from benchmarks.steady import percentiles
from dispatcher.outbound.client import HttpClient
from tests.support.long_history import ENDPOINTS, Seeded, endpoint_id

SEEDED = Seeded(
    10,
    endpoint_id(0),
    endpoint_id(1),
    "tiny",
    endpoint_id(2),
    "wh_x",
    "evt_x",
    "req_x",
    ("order", "ORD 1"),
    [endpoint_id(n) for n in range(ENDPOINTS)],
)


def figures(value: float) -> dict[str, float]:
    return dict.fromkeys(COSTS, value)


def test_a_table_has_medians_and_the_ratio_within_a_round():
    ours, theirs = [figures(10), figures(30), figures(20)], [figures(20), figures(20), figures(80)]
    lines = table("one endpoint", ("ours", ours), ("8e4f6aa", theirs)).splitlines()
    assert lines[0] == "| one endpoint | 8e4f6aa | ours | ratio: median (range) |"
    assert lines[2] == "| deliveries/s | 20.00 | 20.00 | 0.50 (0.25 to 1.50) |"
    assert len(lines) == len(COSTS) + 2


def test_a_figure_that_is_zero_has_no_ratio():
    text = table("x", ("ours", [figures(1)]), ("old", [figures(0)]))
    assert "| deliveries/s | 0.0000 | 1.0000 | - |" in text


def latency_figures(milliseconds: float) -> dict[str, float]:
    keys = ("p50_ms", "p99_ms", "producer_p50_ms", "load_average", "processors_busy")
    return dict.fromkeys(keys, milliseconds)


def test_the_table_of_latency_has_every_case_and_the_ratio_within_a_round():
    ours, theirs = [latency_figures(1), latency_figures(3)], [latency_figures(2)] * 2
    document = {
        "rate": 200,
        "neighbours": 2,
        "rounds": {
            "ours": {"sql": ours, "sql_neighbours": ours, "half": ours},
            "6d33be6": {"sql": theirs, "sql_neighbours": theirs, "half": theirs},
        },
    }
    lines = latency.table(document)
    ratio = "1.00 (0.50 to 1.50)"
    assert f"| 200/s, SQL | 0 | ours over 6d33be6 | {ratio} | {ratio} | | | |" in lines
    assert f"| 200/s, SQL | 2 | ours over 6d33be6 | {ratio} | {ratio} | | | |" in lines
    assert sum("| half of its own drain rate | 0 |" in line for line in lines) == 3
    assert {line.count("|") for line in lines} == {9}


def test_percentiles_count_events_that_never_arrived():
    committed = {str(number): 0.0 for number in range(101)}
    arrived = {str(number): number / 1000 for number in range(1, 101)}
    assert percentiles(committed, arrived) == {"p50_ms": 51, "p99_ms": 100, "missing": 1}


def test_lines_of_a_report_replace_those_between_its_marks():
    text = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n"
    assert insert(text, "x", ["1", "2"]) == text.replace("old", "1\n2")


def test_busy_loops_use_cpu_and_end_with_their_block_and_with_their_parent():
    process_ids: list[int] = []

    def fail() -> None:
        with neighbours(2) as found:
            process_ids.extend(found)
            wait_for(lambda: min(map(cpu_seconds, found)) >= 0.05, 30)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [alive(one) for one in process_ids] == [False, False]
    program = (
        "import os; from benchmarks.neighbours import neighbours\n"
        "with neighbours(1) as ids: print(*ids, flush=True); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", program]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    wait_for(lambda: not alive(int(killed.stdout)), 30)


def alive(process_id: int) -> bool:
    """Return whether a process runs; one that has ended may wait for its parent to notice."""
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii")
    except OSError:
        return False
    return stat.rpartition(") ")[2][0] != "Z"


def test_cpu_includes_children_that_run_and_that_ended():
    before = cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", "sum(range(10_000_000))"], check=True)
    assert cpu_seconds(os.getpid()) - before >= 0.02


def test_a_process_without_background_titles_has_backends_alone():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert set(postgres_cpu(process.pid)) == {"backends"}
        process.communicate(b"\n")


def test_a_commit_that_does_not_exist_is_named():
    with (
        pytest.raises(SystemExit, match="no-such-commit"),
        checkout("no-such-commit"),
    ):
        raise AssertionError("there is no such checkout")


def test_a_folder_without_a_run_script_is_refused(tmp_path):
    with pytest.raises(SystemExit), checkout(str(tmp_path)):
        raise AssertionError("there is no such checkout")


def test_a_program_of_a_checkout_that_fails_shows_its_errors():
    with pytest.raises(SystemExit, match="failed") as failure:
        OURS.run("-c", "1 / 0")
    assert "ZeroDivisionError" in str(failure.value)
    assert OURS.run("-c", "import dispatcher; print(dispatcher.__file__)").startswith(str(ROOT))


def test_the_program_that_fills_a_history_compiles():
    compile(_SEED, "seed", "exec")


def test_filters_over_http_have_the_names_of_the_operations():
    now = datetime(2026, 1, 31, tzinfo=UTC)
    found = pages.paths(SEEDED, now)
    assert len([name for name in found if name.startswith("filter: ")]) == len(
        pages.filters(SEEDED, now)
    )
    assert found["filter: test"] == "/api/v1/deliveries?test=true"
    assert found["filter: label, rare"] == "/api/v1/deliveries?label=order%3DORD+1"
    assert (
        found["filter: until, old"] == "/api/v1/deliveries?until=2026-01-11T00%3A00%3A00%2B00%3A00"
    )


async def test_the_receiver_counts_its_requests():
    with receiver() as target:
        first = await asyncio.to_thread(target.requests_count)
        assert await asyncio.to_thread(target.requests_count) == first + 1


def test_endpoints_are_loaded_with_a_client_like_the_real_one():
    own = inspect.signature(endpoints.make_target).parameters.values()
    real = list(inspect.signature(HttpClient.make_target).parameters.values())[1:]
    assert [(one.kind, one.default is one.empty) for one in own] == [
        (one.kind, one.default is one.empty) for one in real
    ]
