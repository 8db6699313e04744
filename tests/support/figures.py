"""What a run found out, printed at its end: one JSON line a test, and with `--long` the whole matrix."""

from collections import defaultdict

import pytest

from tests.support import matrix

PROPERTY = "figures"
"""The name of the user property that carries a line from a test, over xdist too, to the end of the run."""


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Prints the lines, and with `--long` what each row of the matrix came to."""
    outcomes: dict[str, set[str]] = defaultdict(set)
    lines: dict[str, list[str]] = defaultdict(list)
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            if not isinstance(report, pytest.TestReport):
                continue
            name = report.nodeid.partition("[")[0]
            outcomes[name].add(outcome)
            if report.when == "call":
                lines[name] += [
                    str(value) for key, value in report.user_properties if key == PROPERTY
                ]
    if any(lines.values()):
        terminalreporter.section("figures")
        for name in sorted(lines):
            for line in lines[name]:
                terminalreporter.write_line(line)
    if config.getoption("--long"):
        _print_matrix(terminalreporter, outcomes)


def _print_matrix(terminalreporter: pytest.TerminalReporter, outcomes: dict[str, set[str]]) -> None:
    terminalreporter.section("matrix")
    for row in matrix.read():
        verdict = _verdict(row.tests, outcomes)
        control = _verdict(row.controls, outcomes) if row.controls else "none"
        terminalreporter.write_line(
            f"{row.id:<4} {verdict:<8} control {control:<8} {row.fault}"
            + (f"  ({row.without_test})" if row.without_test else "")
        )


def _verdict(tests: tuple[str, ...], outcomes: dict[str, set[str]]) -> str:
    """Returns `held`, `failed`, `skipped`, `part` (not all of them ran) or `not run`."""
    found = [outcomes.get(test, set()) for test in tests]
    if any(one & {"failed", "error"} for one in found):
        return "failed"
    ran = [bool(one & {"passed"}) for one in found]
    if ran and all(ran):
        return "held"
    if any(ran):
        return "part"
    return "skipped" if any(one & {"skipped"} for one in found) else "not run"
