"""The patterns of a search find a text in JSON, whatever its case and however it is escaped."""

import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.printable import escape_json
from dispatcher.core.text_pattern import text_pattern

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


def is_like(text: str, pattern: str) -> bool:
    """Evaluates LIKE as Postgres does: `%`, `_` and the backslash before either of them."""
    parts = re.findall(r"\\.|%|_|[^\\%_]", pattern, re.DOTALL)
    regex = "".join(
        {"%": ".*", "_": "."}.get(part, re.escape(part.removeprefix("\\") or "\\"))
        for part in parts
    )
    return re.fullmatch(regex, text, re.DOTALL) is not None


def ascii_lower(text: str) -> str:
    return "".join(one.lower() if one.isascii() else one for one in text)


def is_found(text: str, written: str) -> bool:
    """Decides in the order of event_search.sql; JSON with escapes may lack a run beyond ASCII."""
    pattern = text_pattern(text)
    hidden = pattern.run_may_be_escaped and "\\u" in written
    return (
        (pattern.run is None or hidden or pattern.run in written.encode())
        and any(is_like(ascii_lower(written), one) for one in pattern.likes)
        and re.search(pattern.regex, written) is not None
    )


@given(TEXTS, TEXTS, st.booleans(), st.booleans())
def test_text_pattern_of_part_of_value_finds_it(
    text: str, around: str, is_escaped: bool, is_key: bool
):
    value = f"{around}{text}{around}"
    data = {value: 1} if is_key else {"key": [value]}
    written = orjson.dumps(data).decode()
    assert is_found(text, escape_json(written, ascii_only=True) if is_escaped else written)


def test_text_pattern_ignores_case_and_knows_escapes():
    for text, written in {
        "ord-2026-1234": '{"order": "ORD-2026-1234"}',
        "ORDER": '{"order": 1}',
        "Éclair": '{"a": "ÉCLAIR"}',
        "éclair": '{"a": "\\u00C9clair"}',
        "สมชาย": '{"a": "\\u0e2a\\u0E21\\u0e0a\\u0E32\\u0e22"}',
        "a/b": '{"a": "a\\/b"}',
        "<b>": '{"a": "\\u003cb\\u003E"}',
        'say "yes"': '{"a": "say \\"yes\\""}',
        "😀": '{"a": "\\ud83d\\ude00"}',
    }.items():
        assert is_found(text, written), text
    for text, written in {
        "ORD%34": '{"order": "ORD-2026-1234"}',
        "ORD_2026": '{"order": "ORD-2026-1234"}',
        "a.c": '{"a": "abc"}',
        "[a]": '{"a": "a"}',
        "u0e2a": '{"a": "ส"}',
    }.items():
        assert not is_found(text, written), text


@pytest.mark.parametrize("text", ["O%4", "ORD_2026", "%"])
def test_a43_control_unescaped_text_matches_other_payloads(text: str):
    """A LIKE pattern of the text as it is finds payloads that do not contain it."""
    written = '{"order": "ord-2026-1234"}'
    assert is_like(written, f"%{text.lower()}%")
    assert not is_found(text, written)
