"""The fault and attack matrix as data: each row with its tests and its control, or the reason for having none.

`tests/faults/matrix.toml` is the one list; `docs/reliability.md` shows it, and a test holds the two and
the tests that it names together. Row ids never change: commits and documents cite them.
`python -m tests.support.matrix` writes the document's table anew.
"""

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


def write(document: Path = CHECKOUT / "docs" / "reliability.md") -> None:
    """Puts the table between its marks in the document."""
    before, begin, rest = document.read_text(encoding="utf-8").partition("<!-- matrix -->\n\n")
    _, end, after = rest.partition("\n<!-- end of matrix -->")
    document.write_text(before + begin + table(read()) + end + after, encoding="utf-8")


if __name__ == "__main__":
    write()
