"""The matrix holds together: every row is shown or reasoned, every test that it names exists, the document shows it."""

import ast
from functools import cache

import pytest

from tests.support import matrix
from tests.support.daemon import CHECKOUT

ROWS = matrix.read()
IDS = [
    *(f"F{number}" for number in range(1, 12)),
    *(f"P{number}" for number in (*range(1, 13), *range(14, 20), *range(21, 26), *range(31, 37))),
    "P40",
    "P41",
    "P42",
    *(f"R{number}" for number in range(1, 27)),
    *(f"T{number}" for number in range(1, 5)),
    *(f"A{number}" for number in range(1, 31)),
    "A43",
    "A44",
    "A47",
    "A48",
    "A49",
    "A50",
    *(f"E{number}" for number in range(1, 3)),
    *(f"D{number}" for number in range(1, 8)),
    *(f"M{number}" for number in range(1, 4)),
    *(f"S{number}" for number in range(1, 14)),
    *(f"B{number}" for number in range(1, 3)),
    *(f"N{number}" for number in range(1, 5)),
    *(f"J{number}" for number in range(1, 6)),
    *(f"H{number}" for number in range(1, 6)),
    "O1",
    "O2",
    "W1",
    *(f"Y{number}" for number in range(1, 5)),
]


@cache
def functions(path: str) -> frozenset[str]:
    tree = ast.parse((CHECKOUT / path).read_text(encoding="utf-8"))
    return frozenset(
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def test_every_row_is_there_once():
    assert sorted(row.id for row in ROWS) == sorted(IDS)


@pytest.mark.parametrize("row", ROWS, ids=[row.id for row in ROWS])
def test_a_row_is_shown_by_tests_or_says_why_not(row: matrix.Row):
    assert row.tests or row.without_test, "neither a test nor a reason"
    assert row.controls or row.without_control, "neither a control nor a reason"
    for test in (*row.tests, *row.controls):
        path, _, name = test.partition("::")
        assert name in functions(path), f"{test} does not exist"


def test_matrix_each_behaviour_is_shown_and_each_mark_is_known():
    assert matrix.shown().keys() == matrix.BEHAVIOURS.keys()


def test_matrix_document_has_the_table_of_behaviours():
    text = (CHECKOUT / "docs" / "explanation" / "reliability.md").read_text(encoding="utf-8")
    assert matrix.behaviour_table() in text, "write it: python -m tests.support.matrix"


def test_the_document_shows_the_matrix_as_it_is():
    text = (CHECKOUT / "docs" / "explanation" / "reliability.md").read_text(encoding="utf-8")
    assert matrix.table(ROWS) in text, "write it anew: python -m tests.support.matrix"
