"""The hops from intake to SQL that docs/architecture.md lists are those of the code."""

import ast
import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("dispatcher/delivery", "dispatcher/store")
HOP = re.compile(r"`(\w+)\.(\w+)` (calls|executes) `([^`(]+)")


def methods() -> dict[tuple[str, str], str]:
    """Return the source of every method of both packages by the names of its class and itself."""
    found = {}
    for path in (one for package in PACKAGES for one in (CHECKOUT / package).rglob("*.py")):
        lines = path.read_text().splitlines()
        for node in ast.parse("\n".join(lines)).body:
            if isinstance(node, ast.ClassDef):
                for one in node.body:
                    if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
                        found[node.name, one.name] = "\n".join(
                            lines[one.lineno - 1 : one.end_lineno]
                        )
    return found


def test_each_hop_of_the_architecture_is_a_call_in_the_code():
    page = (CHECKOUT / "docs" / "architecture.md").read_text()
    section = page.partition("## From intake to the SQL")[2].partition("\n## ")[0]
    hops = HOP.findall(section)
    assert len(hops) == 7  # the last one has two statements
    known = methods()
    for owner, method, verb, target in hops:
        source = known[owner, method]
        if verb == "calls":
            assert f"{target}(" in source, f"{owner}.{method} does not call {target}"
        else:
            assert (CHECKOUT / "dispatcher" / "store" / "sql" / target).exists()
            constant = f"_{target.removesuffix('.sql').removeprefix('delivery_').upper()}"
            assert re.search(rf"\b{constant}\b", source), f"{owner}.{method} does not use {target}"
