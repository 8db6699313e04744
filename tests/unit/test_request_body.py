"""What a request gives, read: JSON with its members' own texts, times, and every fault with its place."""

import gc
import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dispatcher.admin.api.body import DEPTH_MAX, MEMBERS_MAX, is_too_deep, parse_body
from dispatcher.admin.api.problems import ProblemError
from dispatcher.admin.resources.delivery import DeliveriesQuery
from dispatcher.admin.resources.fields import problems_of
from dispatcher.admin.resources.token import NewToken
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


@given(st.dictionaries(st.sampled_from(["a", "b", "ชื่อ", "x\ny"]), JSON))
def test_members_are_what_any_parser_reads(members):
    assert parse_body(orjson.dumps(members)).members == members
    assert parse_body(orjson.dumps(members, option=orjson.OPT_INDENT_2)).members == members


@pytest.mark.parametrize(
    "text",
    ["{}", '{"n":1.50}', '{ "z":12345678901234567890123,"a" : -0.0 }', '{"a":1,"a":2}',
     '{"ชื่อ":"น้ำ\\u0000\\ud800"}', '{"n":1e400}', '{"n":' + "1" * 5000 + "}"],
)  # fmt: skip
def test_data_keeps_its_text(text):
    found = parse_body(f' {{"x":1, "data" : {text}  , "y":[] }}\n'.encode())
    assert found.members["data"].text == text
    assert {name: found.members[name] for name in "xy"} == {"x": 1, "y": []}


@pytest.mark.parametrize(
    ("raw", "detail"),
    [
        (b"{", "line 1, column 2"),
        (b'{"a":1,}', "line 1, column 8"),
        (b'{"a" 1}', "a colon is expected at line 1, column 6"),
        (b'{\n"a":1 "b":2}', "a comma or a closing brace is expected at line 2, column 7"),
        (b"[1]", "an object is expected at line 1, column 1"),
        (b"{} x", "the end is expected at line 1, column 4"),
        (b'{"a":"\x01"}', "line 1"),
        (b'{"a":NaN}', "a number in it is none"),
        (b'{"a":-Infinity}', "a number in it is none"),
        (b'{"data":{"a":NaN}}', "a number in it is none"),
        (b'{"a":"\xff"}', "not UTF-8: byte 6"),
        (b"nonsense", "line 1, column 1"),
        (b"\xef\xbb\xbf{}", "line 1, column 1"),
    ],
)
def test_what_is_no_json_is_told_with_its_place(raw, detail):
    with pytest.raises(ProblemError, match=detail) as caught:
        parse_body(raw)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        (b'{"a":1,"a":2}', ["a"]),
        (b'{"l":{"x":"1","x":"2"}}', ["x"]),
        (b'{"a":"\\u0000","b":[{"c":"\\ud800"}]}', ["a", "b[0].c"]),
        (b'{"l":{"\\u0000":1}}', ["l"]),
    ],
)
def test_names_given_twice_and_texts_without_room_are_faults(raw, fields):
    with pytest.raises(InvalidRequestError) as caught:
        parse_body(raw)
    assert [field for field, *_ in caught.value.problems] == fields


@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ('{"a":', "}")])
def test_depth_is_bounded_exactly(open_: str, close: str):
    def nested(depth: int) -> str:
        return open_ * depth + "1" + close * depth

    assert not is_too_deep(nested(DEPTH_MAX).encode())
    assert is_too_deep(nested(DEPTH_MAX + 1).encode())
    assert is_too_deep(nested(200_000).encode())
    assert not is_too_deep(b'{"a":"' + b"[" * 1000 + b'\\""}')
    with pytest.raises(ProblemError, match="nests deeper"):
        parse_body(('{"data":' + nested(DEPTH_MAX) + "}").encode())


def test_too_many_names_are_refused():
    many = ",".join(f'"n{number}":1' for number in range(MEMBERS_MAX + 1))
    with pytest.raises(ProblemError, match="more than"):
        parse_body(f"{{{many}}}".encode())


@pytest.mark.parametrize("data", ["[" * 60 + "]" * 60, "[]", '""', "0", '{"a":{}}'])
def test_the_most_hostile_data_holds_nobody_up(data):
    body = ('{"data":{"a":[' + ",".join([data] * (1_000_000 // len(data) // 2)) + "]}}").encode()
    began = time.process_time()
    parse_body(body)
    assert time.process_time() - began < 1.0
    assert gc.isenabled()


@pytest.mark.parametrize("text", ["[" * 500_000, "{" * 500_000, '"\\' * 300_000, '["' * 300_000])
def test_half_a_document_is_refused_at_once(text):
    with pytest.raises(ProblemError):
        parse_body(f'{{"a":{text}'.encode())


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("2026-05-29T14:32:11Z", "2026-05-29T14:32:11+00:00"),
        ("2026-05-29t21:32:11.123456789+07:00", "2026-05-29T14:32:11.123456+00:00"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00"),
    ],
)
def test_a_time_is_read_as_rfc_3339_has_it(text, iso):
    query = DeliveriesQuery.model_validate({"since": text})
    assert query.since is not None
    assert query.since.isoformat() == iso


@pytest.mark.parametrize(
    "text",
    ["2026-05-29", "2026-05-29T14:32:11", "2026-02-30T00:00:00Z", "0001-01-01T00:00:00+01:00",
     "2026-05-29 14:32:11Z", "2026-W22-5T14:32:11Z", "20260529T143211Z", "", None, 1,
     "9999-12-31T23:59:59-01:00", "2026-05-29T14:32:11+99:99"],
)  # fmt: skip
def test_any_other_time_is_refused(text):
    with pytest.raises(ValidationError) as caught:
        NewToken.model_validate({"name": "a", "role": "viewer", "expires_at": text or ""})
    (one,) = problems_of(caught.value)
    assert one.field == "expires_at"
    assert one.code in {"invalid_time", "impossible_time"}


def test_every_fault_is_told_in_words():
    with pytest.raises(ValidationError) as caught:
        NewToken.model_validate({"role": "root", "expires_at": 5, "x": 1, "tenant": 7})
    found = {one.field: one.code for one in problems_of(caught.value)}
    assert found.keys() == {"name", "role", "expires_at", "x", "tenant"}
    assert found["name"] == "required"
    assert found["x"] == "unknown_field"
    assert found["tenant"] == "not_a_string"


def test_labels_of_a_query_are_pairs():
    found = DeliveriesQuery.model_validate({"label": ["branch=bkk", "order_id=a=b", "empty="]})
    assert found.label == {"branch": "bkk", "order_id": "a=b", "empty": ""}
    for wrong in (["branch"], ["=x"], ["a=1", "a=2"]):
        with pytest.raises(ValidationError):
            DeliveriesQuery.model_validate({"label": wrong})
