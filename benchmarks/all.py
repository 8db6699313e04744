"""Every goal, one benchmark after the other, then the tables in `docs/explanation/performance.md` and the plots.

`python -m benchmarks all [--short] [--only NAME,NAME] [--report]`. `--short` takes about a quarter
of an hour, without it most of a day (the soak is an hour, the history ten million deliveries).
`--report` measures nothing and writes tables and plots from the results that are there. A benchmark
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

from benchmarks import latency
from benchmarks.harness import ROOT, spread
from benchmarks.plots import RESULTS, bars

NAMES = (
    "stages", "drain", "rates", "latency", "publish", "producers", "tls", "peers", "fanout", "isolation",
    "wheel", "recovery", "growth", "replicas", "roles", "soak",
)  # fmt: skip
PAGE = ROOT / "docs" / "explanation" / "performance.md"
NEIGHBOURS = "latency_against"
"""The result with the table of figures next to busy loops."""
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


def insert(text: str, mark: str, lines: Sequence[str]) -> str:
    """Returns the text with these lines, and nothing else, between the comments that begin and end the mark."""
    place = re.compile(rf"(<!-- {mark}: begin -->\n).*(<!-- {mark}: end -->)", re.DOTALL)
    return place.sub(lambda match: match[1] + "\n".join([*lines, ""]) + match[2], text)


def _neighbours() -> list[str]:
    """Returns the lines of the comparison next to busy loops; none without a result."""
    path = RESULTS / f"{NEIGHBOURS}.json"
    if not path.is_file():
        return []
    document = orjson.loads(path.read_bytes())
    of_ours = next(iter(document["rounds"]["ours"].values()))
    return [
        *latency.table(document),
        "",
        (
            f"`ours` is {document['commit']}. {len(of_ours)} rounds of {document['seconds']} seconds per figure, "
            f"median (range). Machine: {_machine(document)}."
        ),
    ]


def _machine(document: dict[str, Any]) -> str:
    machine = document["machine"]
    return (
        f"{machine['processors']} processors, {machine['system']}, Python {machine['python']}"
        f" ({machine.get('build', 'no PGO, no LTO')})"
    )


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
    machines = {_machine(document) for document in documents}
    commits = sorted({f"{d['commit']} ({d['benchmark']})" for d in documents})
    loads = [d["load_average"] for d in documents]
    rows += [
        "",
        (
            f"Machine: {'; '.join(sorted(machines))}. Load average at the end of each: "
            f"{min(loads):.1f} to {max(loads):.1f}. Commits: {', '.join(commits)}."
        ),
    ]
    text = insert(PAGE.read_text(encoding="utf-8"), "results", rows)
    if lines := _neighbours():
        text = insert(text, "neighbours", lines)
    PAGE.write_text(text, encoding="utf-8")
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
