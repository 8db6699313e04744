"""The fault and attack matrix as data: each row with its tests and its control, or the reason for having none.

`tests/faults/matrix.toml` is the one list; `docs/explanation/reliability.md` shows it, and a test holds the two and
the tests that it names together. Row ids never change: commits and documents cite them.
`python -m tests.support.matrix` writes the document's two tables: the matrix, and the behaviours that
tests are marked with (`@pytest.mark.shows`).
"""

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.daemon import CHECKOUT

MATRIX = CHECKOUT / "tests" / "faults" / "matrix.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fault or attack."""

    id: str
    fault: str
    holds: str
    """What must hold."""
    tests: tuple[str, ...] = ()
    """Each `path::function`."""
    long: str = ""
    """What `--long` adds to the same tests; empty: nothing, they are whole."""
    controls: tuple[str, ...] = ()
    """Known-bad variants that must fail the same figure."""
    without_test: str = ""
    """Why no test can show it, or none does, and how it was reasoned instead."""
    without_control: str = ""
    """Why there is none."""


def read(path: Path = MATRIX) -> list[Row]:
    """Returns the rows in the order of the file."""
    with path.open("rb") as file:
        entries = tomllib.load(file)["row"]
    return [Row(**{key: _value(value) for key, value in entry.items()}) for entry in entries]


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def table(rows: list[Row]) -> str:
    """Returns the rows as the table that the documentation shows."""
    lines = ["| row | fault or attack | what must hold | shown by |", "| --- | --- | --- | --- |"]
    for row in rows:
        parts = [", ".join(f"`{_short(test)}`" for test in row.tests)]
        parts.append(f"with `--long`: {row.long}" if row.long else "")
        parts.append(
            "control: " + ", ".join(f"`{_short(test)}`" for test in row.controls)
            if row.controls
            else f"no control: {row.without_control}"
        )
        parts.append(row.without_test)
        shown = "; ".join(part for part in parts if part)
        lines.append(f"| {row.id} | {row.fault} | {row.holds} | {shown} |")
    return "\n".join(lines) + "\n"


def _short(test: str) -> str:
    path, _, name = test.partition("::")
    return f"{path.removeprefix('tests/').removesuffix('.py')}: {name.removeprefix('test_')}"


BEHAVIOURS = {
    "G1": "guarantee 1: a committed event reaches every subscribed endpoint at least once",
    "G2": "guarantee 2: an event that was rolled back is never sent",
    "G3": "guarantee 3: a recorded success is a real success",
    "G4": "guarantee 4: every duplicate has a cause, and a kill repeats a bounded number",
    "G5": "guarantee 5: retries keep their times",
    "G6": "guarantee 6: work resumes automatically",
    "G7": "guarantee 7: a replica that lost its lease writes nothing and starts nothing",
    "G8": "guarantee 8: one bad receiver affects only its own lane",
    "G9": "guarantee 9: nothing waits forever",
    "W1": "each profile sends exactly these bytes and headers",
    "W2": "only timestamp and signature differ between attempts",
    "W3": "the reference library of Standard Webhooks accepts the requests",
    "W4": "the verifiers in the documentation return the same verdicts in every language",
    "C1": "an invalid configuration ends a command with 2 and reports every error together",
    "C2": "every example of `--help` works",
    "C3": "every command in the documentation exists with its options",
    "L1": "a body of the API beyond its limit, or a hostile one, is rejected at little cost",
    "L2": "the `data` of an event has at most 1 MiB",
    "L3": "64 KiB of a response are read and 4 KiB are kept",
    "L4": "settings outside of their range are rejected",
}
"""Behaviours beyond faults and attacks; `@pytest.mark.shows(id)` names those that a test shows."""


def shown(folder: Path = CHECKOUT / "tests") -> dict[str, list[str]]:
    """Return the tests that each behaviour's id is marked on."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for identity in _ids_of(node):
                    where = path.relative_to(CHECKOUT)
                    found.setdefault(identity, []).append(f"{where}::{node.name}")
    return found


def _ids_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    marks = [one for one in function.decorator_list if isinstance(one, ast.Call)]
    shows = [one for one in marks if ast.unparse(one.func) == "pytest.mark.shows"]
    return [ast.literal_eval(argument) for mark in shows for argument in mark.args]


def behaviour_table() -> str:
    """Return the behaviours with their tests as the table that the documentation shows."""
    tests = shown()
    lines = ["| id | behaviour | shown by |", "| --- | --- | --- |"]
    for identity, text in BEHAVIOURS.items():
        names = ", ".join(f"`{_short(test)}`" for test in tests.get(identity, ()))
        lines.append(f"| {identity} | {text} | {names} |")
    return "\n".join(lines) + "\n"


def write(document: Path = CHECKOUT / "docs" / "explanation" / "reliability.md") -> None:
    """Puts the table between its marks in the document."""
    before, begin, rest = document.read_text(encoding="utf-8").partition("<!-- matrix -->\n\n")
    _, end, after = rest.partition("\n<!-- end of matrix -->")
    text = before + begin + table(read()) + end + after
    before, begin, rest = text.partition("<!-- behaviours -->\n\n")
    _, end, after = rest.partition("\n<!-- end of behaviours -->")
    document.write_text(before + begin + behaviour_table() + end + after, encoding="utf-8")


if __name__ == "__main__":
    write()
