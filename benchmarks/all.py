"""Every goal, one benchmark after the other, then the table in `docs/explanation/performance.md` and the plots.

`python -m benchmarks all [--short] [--only NAME,NAME] [--report]`. `--short` takes about a quarter
of an hour, without it most of a day (the soak is an hour, the history ten million deliveries).
`--report` measures nothing and writes table and plots from the results that are there. A benchmark
that fails is said, and the others go on.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import orjson

from benchmarks.harness import ROOT, spread
from benchmarks.plots import RESULTS, bars

NAMES = (
    "stages", "drain", "rates", "latency", "publish", "producers", "tls", "peers", "fanout", "isolation",
    "wheel", "recovery", "growth", "replicas", "roles", "soak",
)  # fmt: skip
PAGE = ROOT / "docs" / "explanation" / "performance.md"
_TABLE = re.compile(r"(<!-- results: begin -->\n).*(<!-- results: end -->)", re.DOTALL)
SECONDS_MAX = 6 * 3600


def _run(names: Sequence[str], *, short: bool) -> list[str]:
    """Runs the benchmarks; returns those that failed."""
    failed = []
    for name in names:
        started = time.monotonic()
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", "benchmarks", name, *(["--short"] if short else [])]
        try:
            code = subprocess.run(command, cwd=ROOT, check=False, timeout=SECONDS_MAX).returncode
        except subprocess.TimeoutExpired:
            code = -1
        if code:
            failed.append(name)
        print(f"== {name}: {'failed' if code else 'done'}, {time.monotonic() - started:.0f} s\n")
    return failed


def _load() -> list[dict[str, Any]]:
    found = []
    for name in NAMES:
        path = RESULTS / f"{name}.json"
        document = orjson.loads(path.read_bytes()) if path.is_file() else {}
        if document.get("goals"):
            found.append(document)
    return found


def _share(goal: dict[str, Any], value: float) -> float:
    """Returns how far a value reaches the aim, 1 being reached."""
    if goal["at_least"]:
        return float(value / goal["aim"])
    return float(goal["aim"] / value) if value > 0 else 3.0


def report() -> None:
    """Writes the table and the plot of all goals from the results that are there."""
    documents = _load()
    if not documents:
        print(f"nothing to report: {RESULTS} has no results")
        return
    goals = sorted(
        ((goal, document) for document in documents for goal in document["goals"]),
        key=lambda pair: pair[0]["number"],
    )
    rows = [
        "| goal | measurement | goal value | result: median (range) | rounds | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for goal, document in goals:
        sign = "≥" if goal["at_least"] else "≤"
        rows.append(
            f"| {goal['number']} | {goal['what']} | {sign} {goal['aim']:g} | {spread(goal['values'])} "
            f"| {len(goal['values'])}, `{document['benchmark']}` | {'met' if goal['met'] else 'missed'} |"
        )
    machines = {
        f"{d['machine']['processors']} processors, {d['machine']['system']}, Python {d['machine']['python']}"
        f" ({d['machine'].get('build', 'no PGO, no LTO')})"
        for d in documents
    }
    commits = sorted({f"{d['commit']} ({d['benchmark']})" for d in documents})
    loads = [d["load_average"] for d in documents]
    rows += [
        "",
        (
            f"Machine: {'; '.join(sorted(machines))}. Load average at the end of each: "
            f"{min(loads):.1f} to {max(loads):.1f}. Commits: {', '.join(commits)}."
        ),
        "",
    ]
    text = PAGE.read_text(encoding="utf-8")
    table = "\n".join(rows)
    PAGE.write_text(_TABLE.sub(lambda m: m[1] + table + m[2], text), encoding="utf-8")
    bars(
        "goals",
        "How far each goal is reached: median, and range over the rounds",
        [
            (f"{goal['number']}: {goal['what']}", *sorted(
                (_share(goal, min(goal["values"])), _share(goal, statistics.median(goal["values"])),
                 _share(goal, max(goal["values"])))))
            for goal, _ in goals
        ],
    )  # fmt: skip
    print(f"written: {PAGE}, {RESULTS / 'goals.svg'}")


def main() -> int:
    """Runs what is asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks all", description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="about a quarter of an hour")
    parser.add_argument("--only", default=",".join(NAMES), help="names, joined by commas")
    parser.add_argument("--report", action="store_true", help="measure nothing, write the table")
    options = parser.parse_args()
    names = options.only.split(",")
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    failed = [] if options.report else _run(names, short=options.short)
    report()
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
