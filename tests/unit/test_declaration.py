"""Declarations as files: what is written is read again, and what is wrong is said with its file."""

import tomllib
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.cli.declaration import Resolver, read, write_toml
from dispatcher.core.errors import InvalidRequestError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ENDPOINTS = st.lists(
    st.fixed_dictionaries(
        {
            "name": TEXTS,
            "event_types": st.lists(TEXTS, max_size=3),
            "headers": st.dictionaries(TEXTS, TEXTS, max_size=3),
            "labels": st.dictionaries(TEXTS, TEXTS | st.lists(TEXTS, max_size=2), max_size=3),
            "max_concurrency": st.integers(1, 1000),
            "rate_limit": st.floats(0.001, 100_000),
            "retry_schedule_seconds": st.lists(
                st.integers(0, 9) | st.floats(0, 604_800), max_size=3
            ),
        }
    ),
    max_size=3,
)


@given(ENDPOINTS)
def test_what_is_written_as_toml_is_read_the_same(endpoints: list[dict[str, Any]]) -> None:
    assert tomllib.loads(write_toml(endpoints)) == {"endpoints": endpoints}


def test_toml_and_json_by_the_names_end(tmp_path: Path) -> None:
    endpoints = [{"name": "erp", "event_types": ["*"]}]
    (tmp_path / "a.toml").write_text(write_toml(endpoints))
    (tmp_path / "a.json").write_bytes(orjson.dumps({"endpoints": endpoints}))
    assert read(tmp_path / "a.toml") == read(tmp_path / "a.json") == (endpoints, [])


@pytest.mark.parametrize(
    ("name", "content", "messages"),
    [
        (
            "a.toml",
            b"owner = 1\nteam = 2\nendpoints = [{}]",
            ["owner unknown_field", "team unknown_field"],
        ),
        ("a.json", b'{"owner": 1, "endpoints": [{}]}', ["owner unknown_field"]),
        ("a.json", b'{"endpoints": [1], "endpoints": [{}]}', ["endpoints duplicate"]),
        ("a.json", b'{"endpoints": [{"url": "a", "url": ' + b"9" * 300 + b"}]}", ["url duplicate"]),
        ("a.json", b'{"endpoints": [{"headers": {"a": "1", "a": "2"}}]}', ["a duplicate"]),
    ],
)
def test_what_is_wrong_with_the_file_itself_hides_nothing_of_its_endpoints(
    tmp_path: Path, name: str, content: bytes, messages: list[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    endpoints, problems = read(tmp_path / name)
    assert len(endpoints) == 1
    told = [f"{one.field.removeprefix(f'{tmp_path / name}: ')} {one.code}" for one in problems]
    assert told == messages


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", b"endpoints: []", "must end in .toml or .json"),
        ("a.toml", b"endpoints = [", "is not TOML"),
        ("a.toml", b"\xff", "is not TOML"),
        ("a.json", b"{", "is not JSON"),
        ("a.json", b"[]", "must be an object"),
        ("a.json", b'{"endpoints": {}}', "endpoints: The value is not a list."),
        ("a.json", b'{"endpoint": []}', "endpoint: This field does not exist."),
        ("a.toml", None, "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_name(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidRequestError) as caught:
        read(path)
    assert all(where.startswith(str(path)) for where, *_ in caught.value.problems)
    assert message in str(caught.value)


def test_references_are_variables_and_files_beside_the_declaration(tmp_path: Path) -> None:
    (tmp_path / "erp").write_text("whsec_x\n")
    find = Resolver(tmp_path, {"ERP": "whsec_y", "EMPTY": ""})
    assert find("file:erp") == "whsec_x"
    assert find("env:ERP") == "whsec_y"
    for reference, message in (
        ("env:EMPTY", "EMPTY is not set"),
        ("env:NONE", "NONE is not set"),
        ("file:none", "cannot be read"),
    ):
        with pytest.raises(ValueError, match=message):
            find(reference)
