"""A body is decoded to its members, with data as it was written, and no step holds the event loop for long."""

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.admin.api.batch_decoder import decode_events
from dispatcher.admin.api.decoder import (
    CONTAINERS_MAX,
    DEPTH_MAX,
    MEMBERS_MAX,
    SLICE_BYTES,
    VALUES_MAX,
    decode_body,
)
from dispatcher.admin.api.problems import ProblemError
from dispatcher.core.errors import InvalidRequestError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner,
            max_size=4,
        )
    ),
)  # fmt: skip


def decoded(raw: bytes) -> Mapping[str, Any]:
    steps = decode_body(raw)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            members: Mapping[str, Any] = end.value
            return members


@given(st.dictionaries(st.sampled_from(["a", "b", "ชื่อ", "x\ny"]), JSON))
def test_members_equal_those_of_any_parser(members):
    assert decoded(orjson.dumps(members)) == members
    assert decoded(orjson.dumps(members, option=orjson.OPT_INDENT_2)) == members


@pytest.mark.parametrize(
    "text",
    ["{}", '{"n":1.50}', '{ "z":12345678901234567890123,"a" : -0.0 }', '{"a":1,"a":2}',
     '{"ชื่อ":"น้ำ\\u0000\\ud800"}', '{"n":1e400}', '{"n":' + "1" * 5000 + "}",
     r'{"a":"\\ud800 \uD800\\\uDfff \\", "\ud800":"\ud83d\ude00"}',
     '{"a":"' + r"\ud800\\" * SLICE_BYTES + '"}'],
)  # fmt: skip
def test_data_keeps_its_text(text):
    found = decoded(f' {{"x":1, "data" : {text}  , "y":[] }}\n'.encode())
    assert found["data"].text == text
    assert {name: found[name] for name in "xy"} == {"x": 1, "y": []}


@given(st.integers(0, 9), st.sampled_from(["\\", "\\u", '\\"', r"\ud800", "x"]))
def test_a_slice_divides_no_escape(shift: int, piece: str):
    text = '{"a":"' + "x" * shift + r"\ud800\\" * (2 * SLICE_BYTES // 8) + '", "b": [[1]]}'
    body = '{"name":' + orjson.dumps(piece).decode() + ', "data":' + text + "}"
    assert decoded(body.encode())["data"].text == text


@pytest.mark.parametrize(
    ("raw", "detail"),
    [
        (b"{", "truncated at line 1, column 2"),
        (b'{"a":1,}', "line 1, column 8"),
        (b'{"a" 1}', "expected ':' at line 1, column 6"),
        (b'{\n"a":1 "b":2}', "expected ',' or '}' at line 2, column 7"),
        (b"[1]", "The body is not a JSON object. Send an object."),
        (b" null", "The body is not a JSON object. Send an object."),
        (b"{} x", "trailing characters at line 1, column 5"),
        (b'{"a":"\x01"}', "line 1, column 7"),
        (b'{"a":NaN}', "line 1, column 6"),
        (b'{"a":-Infinity}', "line 1, column 7"),
        (b'{"data":{"a":NaN}}', "line 1, column 14"),
        (b'{"a":"\xff"}', "not UTF-8: byte 6"),
        (b'{"a":"\\ud800", "data":{"b":"\xff"}}', "not UTF-8: byte 28"),
        (b'{"\xe0\xb8\x81":"\\ud800", "b":tru}', "line 1, column 21"),
        (b'{"a":"\\udzzz"}', "Invalid"),
        (b'{"\\ud800":1}', "name"),
        (b'{"a":1' + b"0" * 400 + b"}", "number"),
        (b'{"a":1.' + b"0" * 400 + b"}", "number"),
        (b"nonsense", "line 1, column"),
        (b"\xef\xbb\xbf{}", "line 1, column 1"),
    ],
)
def test_malformed_json_is_rejected_with_its_place(raw, detail):
    with pytest.raises(ProblemError) as caught:
        decoded(raw)
    assert detail in str(caught.value)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        (b'{"a":1,"a":2}', ["a"]),
        (b'{"data":{},"data":{}}', ["data"]),
        (b'{"l":{"x":"1","x":"2"}}', ["x"]),
        (b'{"l":[{"x":"1","y":0,"x":"2"}]}', ["x"]),
        (b'{"a":"\\u0000","b":[{"c":"\\ud800"}]}', ["a", "b[0].c"]),
        (b'{"l":{"\\u0000":1}}', ["l"]),
    ],
)
def test_repeated_names_and_unstorable_texts_are_invalid(raw, fields):
    with pytest.raises(InvalidRequestError) as caught:
        decoded(raw)
    assert [field for field, *_ in caught.value.problems] == fields


@given(
    st.lists(st.sampled_from(["a", "data", "ชื่อ", '"']), min_size=1, max_size=4),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :")]),
    st.booleans(),
)
def test_a_repeated_name_is_found_however_the_body_is_written(names, separators, is_escaped):
    comma, colon = separators
    written = [
        "".join(f"\\u{ord(one):04x}" for one in name)
        if is_escaped
        else orjson.dumps(name).decode()[1:-1]
        for name in names
    ]
    raw = ("{" + comma.join(f'"{name}"{colon}{{}}' for name in written) + "}").encode()
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if not repeated:
        assert list(decoded(raw)) == names
        return
    with pytest.raises(InvalidRequestError) as caught:
        decoded(raw)
    assert sorted(field for field, *_ in caught.value.problems) == sorted(repeated)


@pytest.mark.parametrize("name", ["data", "labels"])
@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ('{"a":', "}")])
def test_depth_is_bounded_exactly(open_: str, close: str, name: str):
    def nested(depth: int) -> bytes:
        return f'{{"{name}":{open_ * depth}1{close * depth}}}'.encode()

    assert decoded(nested(DEPTH_MAX - 1))
    for depth in (DEPTH_MAX, DEPTH_MAX + 1, 200_000):
        with pytest.raises(ProblemError, match="nested too deep"):
            decoded(nested(depth))


def test_brackets_inside_strings_are_not_nested():
    inside = b"[" * (2 * SLICE_BYTES) + b'\\"[' * (2 * SLICE_BYTES)
    assert decoded(b'{"data":{"a":"' + inside + b'","b":[]}}')


@pytest.mark.parametrize(
    "raw",
    [
        b"{" + b",".join(b'"n%d":1' % number for number in range(MEMBERS_MAX + 1)) + b"}",
        b'{"labels":[' + b"0," * VALUES_MAX + b"0]}",
        b'{"a":[' + b"0," * (VALUES_MAX // 2) + b'0],"b":[' + b"0," * (VALUES_MAX // 2) + b"0]}",
        b'{"data":[' + b"[]," * CONTAINERS_MAX + b"0]}",
    ],
)
def test_too_many_names_or_values_are_rejected(raw):
    with pytest.raises(ProblemError, match="too many"):
        decoded(raw)


# --- batches ---


def events_of(raw: bytes, *, lines: bool = False) -> list[Any]:
    steps = decode_events(raw, lines=lines)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            events: list[Any] = end.value
            return events


BLANKS = st.text(" \t\r\n", max_size=3)


@given(
    st.lists(st.dictionaries(st.just("data"), JSON), max_size=6),
    st.lists(BLANKS, min_size=4, max_size=4),
)
def test_a_list_is_divided_at_its_objects_whatever_they_hold(objects, blanks):
    before, between, after, end = blanks
    texts = [orjson.dumps(one).decode() for one in objects]
    raw = f"{before}[{after}{f'{between},{after}'.join(texts)}{end}]{before}".encode()
    assert [one["data"].text if one else None for one in events_of(raw)] == [
        orjson.dumps(one["data"]).decode() if one else None for one in objects
    ]


@given(st.lists(st.dictionaries(st.just("data"), JSON), min_size=1, max_size=4))
def test_a_batch_by_lines_is_the_same_as_a_list(objects):
    lines = b"\r\n\n".join(orjson.dumps(one) for one in objects)
    by_line = [one.get("data") for one in events_of(lines, lines=True)]
    listed = [one.get("data") for one in events_of(orjson.dumps(objects))]
    assert [one and one.text for one in by_line] == [one and one.text for one in listed]


@pytest.mark.parametrize(
    "raw",
    [
        b"[{}, 1]", b"[{} {}]", b"[{}", b"[{},]", b"[,{}]", b"[1]", b'["{},{}"]', b"[[{},{}]]", b"[", b"[{]}]",
        b'[{"data": "}, {"}, {"data": "]', b"[" + b" " * 100_000 + b"]", b"[{}" + b" " * 100_000 + b",{}]",
    ],
)  # fmt: skip
def test_a_body_that_is_no_list_of_objects_is_rejected(raw):
    with pytest.raises(ProblemError) as caught:
        events_of(raw)
    assert caught.value.status == 400
