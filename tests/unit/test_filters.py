"""Content filters: what CEL expressions match, which are refused, and their bounds."""

import orjson
import pytest

from dispatcher.core.filters import (
    DATA_CHARACTERS_MAX,
    EXPRESSION_CHARACTERS_MAX,
    VALUES_MAX,
    EventValues,
    compile_filter,
    filter_problems,
)

DATA = {
    "total": 1500, "price": 2.5, "warehouse": "BKK-1", "urgent": True, "note": None, "big": 2**62,
    "lines": [{"sku": "A-1", "qty": 3}, {"sku": "B-2", "qty": 5}], "tags": ["cold", "fragile"],
    "customer": {"id": "C-1", "address": {"country": "TH"}}, "name": "ร้านทดสอบ", "at": "2026-11-29T08:00:00Z",
    "empty": [], "zero": 0,
}  # fmt: skip
LABELS = {"region": "th", "order_id": "ORD-1"}
MATCHES = [
    "data.total > 1000.0 && data.warehouse == 'BKK-1' && labels.region == 'th'",
    "data.total > 1000", "data.total >= 1500", "data.total == 1500", "data.total == 1500.0", "data.total != 1",
    "data.price < 3", "data.price > 2.4", "data.price == 2.5", "data.total * 2 == 3000", "data.total - 500 == 1000",
    "data.total / 2 == 750", "data.total % 7 == 2", "-data.total < 0", "data.total + 1 == 1501",
    "data.warehouse == 'BKK-1'", 'data.warehouse == "BKK-1"', "data.warehouse.startsWith('BKK')",
    "data.warehouse.endsWith('-1')", "data.warehouse.contains('KK')", "data.warehouse.matches('^BKK-[0-9]+$')",
    "data.warehouse in ['BKK-1', 'CNX-1']", "!(data.warehouse in ['CNX-1'])", "size(data.warehouse) == 5",
    "data.warehouse < 'C'", "data['warehouse'] == 'BKK-1'", "data.warehouse != 'CNX'",
    "data.urgent", "data.urgent == true", "!data.urgent == false", "data.urgent && data.total > 1",
    "data.urgent || data.missing == 1", "data.missing == 1 || data.urgent", "data.note == null",
    "has(data.total)", "!has(data.missing)", "has(data.customer.address)", "!has(data.customer.phone)",
    "has(data.missing) ? data.missing == 1 : true", "data.urgent ? data.total > 1 : false",
    "data.customer.id == 'C-1'", "data.customer.address.country == 'TH'", "data.customer['id'] == 'C-1'",
    "'id' in data.customer", "'total' in data", "!('missing' in data)",
    "size(data.lines) == 2", "data.lines[0].sku == 'A-1'", "data.lines[1].qty == 5", "data.lines.size() == 2",
    "data.lines.exists(x, x.qty > 4)", "data.lines.all(x, x.qty > 2)", "data.lines.exists_one(x, x.sku == 'A-1')",
    "!data.lines.exists(x, x.qty > 9)", "data.tags.exists(t, t == 'cold')", "'cold' in data.tags",
    "data.tags.all(t, size(t) > 3)", "data.tags[0] == 'cold'", "data.tags == ['cold', 'fragile']",
    "data.lines.exists(x, x.sku.startsWith('A') && x.qty >= 3)", "data.empty.all(x, x > 1)", "size(data.empty) == 0",
    "data.lines.exists(x, x.qty * 2 == 6)", "data.lines.exists(x, has(x.qty) && x.qty == 5)",
    "labels.region == 'th'", "labels['region'] == 'th'", "'region' in labels", "has(labels.region)",
    "labels.order_id.startsWith('ORD-')", "!has(labels.branch)", "labels.region in ['th', 'la']",
    "type == 'order.created'", "type.startsWith('order.')", "type != 'order.cancelled'", "id == 'evt_1'",
    "tenant == 'wms'", "tenant in ['wms', 'hr']", "type == 'order.created' && tenant == 'wms'",
    "data.name == 'ร้านทดสอบ'", "data.name.contains('ทดสอบ')", "size(labels.region) == 2", "data.name.startsWith('ร้าน')",
    "data.tags[1] != data.tags[0]",
    "timestamp(data.at) > timestamp('2026-01-01T00:00:00Z')", "timestamp(data.at) < timestamp('2027-01-01T00:00:00Z')",
    "string(data.total) == '1500'", "int('7') == 7", "double(data.total) == 1500.0", "type(data.total) == int",
    "type(data.warehouse) == string", "data.big > 1", "data.zero == 0", "data.zero < data.total", "true",
    "data.total > data.zero && data.price < data.total", "(data.total > 1000 || data.urgent) && tenant == 'wms'",
    "data.total > 1000 && !(labels.region == 'la')", "1 < 2", "data.warehouse.matches('BKK')", "[1, 2] == [1, 2]",
]  # fmt: skip
"""A hundred expressions that are true for the event above; each is false if it is negated."""


def values(data: object = None) -> EventValues:
    text = orjson.dumps(DATA if data is None else data).decode()
    return EventValues("evt_1", "order.created", "wms", text, LABELS)


@pytest.mark.parametrize("expression", MATCHES)
def test_filter_conforms_to_cel(expression):
    assert filter_problems(expression) == []
    assert compile_filter(expression).evaluate(values()) == (True, None)
    assert compile_filter(f"!({expression})").evaluate(values()) == (False, None)


def test_filter_table_has_a_hundred_cases():
    assert len(set(MATCHES)) >= 100


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("data.missing > 1", "there is no 'missing'"),
        ("!(data.missing == 1)", "there is no 'missing'"),
        ("data.customer.phone.number == 1", "there is no 'phone'"),
        ("labels.branch == 'x'", "there is no 'branch'"),
        ("data.warehouse > 1", None),
        ("data.total / data.zero == 1", None),
        ("data.lines[9].sku == 'x'", None),
        ("data.note.x == 1", None),
        ("data.total", "the result is not a boolean"),
        ("data.customer", "the result is not a boolean"),
        ("int(data.warehouse) == 1", None),
    ],
)
def test_filter_that_fails_does_not_match_and_says_why(expression, error):
    assert filter_problems(expression) == []
    result = compile_filter(expression).evaluate(values())
    assert not result.matched
    assert result.error
    assert error is None or result.error == error


@pytest.mark.parametrize(
    ("expression", "code", "part"),
    [
        ("data.total >", "invalid_filter", "line 1, column 13"),
        ("data.total = 1", "invalid_filter", ""),
        ("(", "invalid_filter", ""),
        ("data.total > 1 ;", "invalid_filter", ""),
        ("data.total > 1 $", "invalid_filter", ""),
        ("  ", "invalid_filter", ""),
        ("'unclosed", "invalid_filter", ""),
        ("data.?x == 1", "invalid_filter", ""),
        ("nope == 1", "unknown_filter_name", "nope"),
        ("data.x == y", "unknown_filter_name", "y"),
        ("now() == 1", "unknown_filter_name", "now"),
        ("1 + 1", "filter_not_boolean", ""),
        ("'x'", "filter_not_boolean", ""),
        ("[1]", "filter_not_boolean", ""),
        ("size(data.lines)", "filter_not_boolean", ""),
        ("data.total * 2", "filter_not_boolean", ""),
        ("string(data.total)", "filter_not_boolean", ""),
        ("x" * (EXPRESSION_CHARACTERS_MAX + 1), "too_long", ""),
        ("data.l.exists(x, x.l.exists(y, y > 1))", "filter_too_complex", "inside of another"),
        ("data.l.map(x, x.q > 1) == []", "filter_too_complex", "map()"),
        ("data.l.filter(x, x > 1).size() == 1", "filter_too_complex", "filter()"),
        ("data.l.exists(x, x > data.m)", "filter_too_complex", "reads data"),
        ("data.l.exists(x, x + x == 'y')", "filter_too_complex", "+ is inside"),
        ("data.l.exists(x, x.matches('a'))", "filter_too_complex", "matches is inside"),
        ("data.l.exists(x, x == x)", "filter_too_complex", "compares two values"),
        ("data.s.matches(data.p)", "filter_too_complex", "one string"),
        (r"data.s.matches('\\w{9}')", "filter_too_complex", "repetition"),
        (r"data.s.matches('\\w\\w\\w')", "filter_too_complex", "classes"),
        ("data.s.matches('" + "a" * 65 + "')", "filter_too_complex", "64 characters"),
        (" && ".join(["data.a == data.b"] * 5), "filter_too_complex", "two values of the event"),
        (" + ".join(["data.s"] * 6) + " == ''", "filter_too_complex", "additions"),
        ("!" * 65 + "data.x", "filter_too_complex", "operators"),
        ("(" * 300 + "true" + ")" * 300, "invalid_filter", ""),
    ],
)  # fmt: skip
def test_filter_is_refused_with_a_code_and_the_reason(expression, code, part):
    (problem,) = filter_problems(expression)
    assert problem.code == code
    assert part in problem.message


@pytest.mark.parametrize(
    "data",
    [{"s": "a" * DATA_CHARACTERS_MAX}, {"l": list(range(VALUES_MAX + 1))}],
    ids=["characters", "values"],
)
def test_filter_on_an_event_beyond_its_bounds_is_an_error(data):
    result = compile_filter("true").evaluate(values(data))
    assert not result.matched
    assert "more than" in str(result.error)


def test_filter_counts_values_and_not_the_characters_that_look_like_them():
    assert compile_filter("true").evaluate(values({"s": "," * 30_000})).matched


def test_filter_lists_the_paths_that_it_reads():
    compiled = compile_filter(
        "data.customer.id == 'data.x' && labels.region == 'th'"
        " && data.lines.exists(x, x.qty > 1) && type(data.at) == int"
    )
    assert compiled.paths() == [
        ("data", "customer", "id"), ("labels", "region"), ("data", "lines"), ("data", "at"),
    ]  # fmt: skip


def test_filter_that_was_stored_and_is_refused_now_matches_nothing():
    result = compile_filter("data.l.map(x, x)").evaluate(values())
    assert not result.matched
    assert "map()" in str(result.error)
