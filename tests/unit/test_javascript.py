"""JSON comes out exactly as JavaScript writes it, and what is no JSON is refused."""

from decimal import Decimal

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.core.errors import EncodingError
from dispatcher.core.javascript import DEPTH_MAX, _rewrite, quote, stringify
from tests.wire.json_texts import documents, numbers


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("12.0", "12"),
        ("-0.0", "0"),
        ("-0", "0"),
        ("1e21", "1e+21"),
        ("1e20", "100000000000000000000"),
        ("123456789012345680000", "123456789012345680000"),
        ("0.000001", "0.000001"),
        ("0.00001", "0.00001"),
        ("0.0000001", "1e-7"),
        ("1.5e-9", "1.5e-9"),
        ("1e400", "null"),
        ("-1e400", "null"),
        ("1e-400", "0"),
        ("5e-324", "5e-324"),
        ("12345678901234567890", "12345678901234567000"),
        (r'"\u0e2a"', '"ส"'),
        (r'"\ud83d\ude00"', '"😀"'),
        (r'"\uD83D"', r'"\ud83d"'),
        (r'"\ude00\ud83d"', r'"\ude00\ud83d"'),
        (r'"\u0000\u001F\u007f"', '"\\u0000\\u001f\x7f"'),
        (r'"\b\f\n\r\t\"\\\/"', r'"\b\f\n\r\t\"\\/"'),
        ('"\u2028"', '"\u2028"'),
        ('{"b":1,"2":1,"1":1,"a":1}', '{"1":1,"2":1,"b":1,"a":1}'),
        (r'{"b":1,"\u0031":1}', '{"1":1,"b":1}'),
        ('{"a":1,"b":2,"a":3}', '{"a":3,"b":2}'),
        ('{"x":1,"7":1,"x":2,"7":2}', '{"7":2,"x":2}'),
        ('{"4294967295":1,"4294967294":2}', '{"4294967294":2,"4294967295":1}'),
        ('{"01":1,"1":2,"-1":3,"1.0":4}', '{"1":2,"01":1,"-1":3,"1.0":4}'),
        ('{"__proto__":1,"a":{"__proto__":null}}', '{"__proto__":1,"a":{"__proto__":null}}'),
        (' [ 1 , { } , [ ] , "" ] ', '[1,{},[],""]'),
        ("[" + "1" * 5000 + "]", "[null]"),
        ("[0." + "0" * 5000 + "1e5001]", "[1]"),
        ("[1e" + "0" * 5000 + "1]", "[10]"),
    ],
)
def test_text_is_written_as_javascript_writes_it(text: str, written: str) -> None:
    assert stringify(text).body == written.encode()


@pytest.mark.parametrize("text", ["12345678901234567890", "1e400", "9007199254740993", "1e-400"])
def test_a_number_that_javascript_reads_as_another_is_reported(text: str) -> None:
    assert stringify(f'{{"a":[1,{text}]}}').number_changed


@pytest.mark.parametrize("text", ["12.0", "-0.0", "1E2", "0.1", "0e999", "1e21", "100e-2", "1.50"])
def test_a_number_that_is_only_written_otherwise_is_not_reported(text: str) -> None:
    assert not stringify(f"[{text}]").number_changed


@given(numbers)
def test_a_number_is_reported_exactly_when_its_value_differs(text: str) -> None:
    body, changed = stringify(text)
    assert changed == (body == b"null" or Decimal(body.decode()) != Decimal(text))


@given(documents)
@example('{"a": 0.00001}')
@example('{"a": 123456789012345.6}')
@example('{"at": "2026-05-29 09:30:00", "price": 12.50, "n": 1}')
def test_the_fast_way_agrees_with_the_general_one(text: str) -> None:
    body, changed = stringify(text)
    assert (body.decode(), changed) == _rewrite(text)


@given(documents)
def test_what_was_written_once_is_written_the_same_again(text: str) -> None:
    body = stringify(text).body
    assert stringify(body.decode()) == (body, False)


NOT_JSON = [
    *["", " ", "{", "[", "[1,]", '{"a":1,}', "[01]", "[1 2]", "nul", "NaN", "[.5]", "[1.]", "[1e]"],
    *['"\\x"', '"\\u12"', '"\\u12 4"', '"', '"\n"', "[1]x", '{"a" 1}', "{1:2}", "{,}", "\ufeff[]"],
    *[
        "[+1]",
        "[-]",
        '[1.0,"\\u00"]',
        "['a']",
        "[1,,2]",
        '{"a":1 "b":2}',
        "]",
        "\u00a0[]",
        "[\uff11]",
    ],
]


@pytest.mark.parametrize("text", NOT_JSON)
def test_what_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(EncodingError):
        stringify(text)


@pytest.mark.parametrize("text", ['["\ud800"]', '[1.0,"\udfff"]', '{"\ud800":1}'])
def test_half_a_character_is_refused(text: str) -> None:
    with pytest.raises(EncodingError, match="half a character"):
        stringify(text)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"1":', "}")])
def test_nesting_is_bounded_by_a_rule_and_not_by_the_stack(opening: str, closing: str) -> None:
    deepest = opening * DEPTH_MAX + "1" + closing * DEPTH_MAX
    assert stringify(deepest).body == deepest.encode()
    with pytest.raises(EncodingError, match="nested deeper"):
        stringify(opening + deepest + closing)
    with pytest.raises(EncodingError, match="nested deeper"):
        stringify(opening * 500_000)


@given(st.text())
def test_a_quoted_text_reads_back_as_itself(text: str) -> None:
    assert orjson.loads(quote(text)) == text
