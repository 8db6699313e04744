"""Characters that steer a terminal or an eye are escaped, and nothing else is."""

import json  # noqa: TID251 -- the text under test is judged by another parser than the one that wrote it

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.printable import STEERING, escape, escape_json, escape_lines, is_text

STEERS = [0, 0x1B, 0x7F, 0x9B, 0x200F, 0x2028, 0x202E, 0x2066, 0xFEFF, 0xD800, 0xE0041]


@pytest.mark.parametrize("number", STEERS)
def test_a_steering_character_is_escaped(number: int):
    for text in (escape(f"a{chr(number)}b"), escape_lines(f"a{chr(number)}b")):
        assert STEERING.search(text) is None
        assert text.startswith("a\\")


@pytest.mark.parametrize("text", ["คลังสินค้า", "ก\u200bข", "👩\u200d💻", "naïve", "a b", "日本語"])
def test_text_of_people_stays(text: str):
    assert escape(text) == escape_lines(text) == text


def test_line_breaks_and_tabs_are_layout_for_lines_only():
    assert escape_lines("a\n\tb\r\n") == "a\n\tb\r\n"
    assert escape("a\nb") == "a\\x0ab"


@given(st.text())
def test_any_text_comes_out_without_steering_characters(text: str):
    assert STEERING.search(escape(text)) is None


@given(st.text(st.characters(codec="utf-8")))
def test_escaped_json_means_the_same(text: str):
    written = json.dumps(text, ensure_ascii=False)
    assert json.loads(escape_json(written)) == text
    narrow = escape_json(written, ascii_only=True)
    assert narrow.isascii()
    assert json.loads(narrow) == text


@pytest.mark.parametrize(("text", "fits"), [("ก", True), ("a\0", False), ("\udc80", False)])
def test_what_a_postgres_text_can_hold(text: str, fits: bool):
    assert is_text(text) is fits
