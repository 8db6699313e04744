"""Hostile filters, schemas and tenants: each takes milliseconds, and memory has a bound."""

import time
from typing import Any

import orjson
import pytest

from dispatcher.core.census import POSITIONS_MAX, POSITIONS_PER_TENANT_MAX, Census
from dispatcher.core.filters import (
    DATA_CHARACTERS_MAX,
    VALUES_MAX,
    EventValues,
    compile_filter,
    filter_problems,
)
from dispatcher.core.schemas import compile_schema
from tests.support.pace import in_time, slowness


def _text(document: object) -> str:
    return orjson.dumps(document).decode()


HOSTILE: dict[str, tuple[Any, str]] = {
    "big-list": ({"l": list(range(VALUES_MAX - 2))}, "data.l.all(x, x >= 0) && data.l.all(x, x > -1)"),
    "big-strings": ({"s": "a" * (DATA_CHARACTERS_MAX - 20)}, "data.s + data.s + data.s + data.s + data.s == ''"),
    "equal-lists": (
        {"a": list(range(2_000)), "b": list(range(2_000))},
        " && ".join(["data.a == data.b"] * 4),
    ),
    "regular-expression": ({"s": "a" * 60_000}, r"data.s.matches('^(a|aa)+(a|b)*\\w*\\d$')"),
    "long-or": ({"s": "x" * 60_000}, " || ".join(["data.s == 'y'"] * 32)),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_filter_that_is_hostile_takes_milliseconds(name):
    data, expression = HOSTILE[name]
    assert filter_problems(expression) == []
    event = EventValues("evt_1", "order.created", "wms", _text(data), {})
    compiled = compile_filter(expression)
    event.convert()
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        compiled.evaluate(event)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.005 * slowness(), f"{min(seconds) * 1e3:.1f} ms"


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        ({"properties": {"l": {"allOf": [{"items": {"enum": ["a"] * 20}}] * 3}}}, {"l": [1] * (VALUES_MAX - 10)}),
        ({"properties": {"l": {"uniqueItems": True}}}, {"l": [[i] for i in range(VALUES_MAX // 3)]}),
        ({"patternProperties": {f"^(a|b{i})+$": {} for i in range(40)}}, {"a" * 20 + str(i): 0 for i in range(2500)}),
        ({"properties": {"s": {"pattern": "^(a+)+$"}}}, {"s": "a" * 65_000 + "!"}),
    ],
)  # fmt: skip
def test_a_hostile_event_is_compared_in_milliseconds(schema: object, data: object) -> None:
    compiled = compile_schema(_text(schema))
    body = _text(data)
    compiled.mismatches(body)
    began_at = time.perf_counter()
    compiled.mismatches(body)
    assert in_time(time.perf_counter() - began_at, 0.05)


def test_census_memory_is_bounded() -> None:
    census = Census()
    census.claimed("a", 0)
    census.scan_from(100.0)
    census.scanned({"b": range(1, POSITIONS_PER_TENANT_MAX + 100)}, 1, 0.001)
    assert len(census.pick(POSITIONS_MAX).tenants) == POSITIONS_PER_TENANT_MAX
    census.scanned({f"t{n}": range(n * 100, n * 100 + 100) for n in range(1, 4_000)}, 1, 0.001)
    assert len(census.pick(POSITIONS_MAX * 2).tenants) <= POSITIONS_MAX
