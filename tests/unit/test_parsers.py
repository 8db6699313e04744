"""Fuzzing of every parser that reads bytes from outside: answers, profiles, settings, event types, secrets.

Each either returns or raises its own named error; nothing else leaves it, and bounds hold whatever comes.
"""

import contextlib
import tomllib
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.config.settings_reader import load_settings
from dispatcher.core import limits
from dispatcher.core.errors import ConfigurationError, InvalidRequestError, SecretError
from dispatcher.core.matching import parse_event_types
from dispatcher.core.profile_parser import parse
from dispatcher.core.sealing import Keyring
from dispatcher.outbound.response_parser import ResponseReader

TOKENS = st.sampled_from(
    [
        b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/2 ", b"200", b"204", b"103", b"101", b"999", b" OK\r\n", b"\r\n",
        b"\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n", b"Content-Encoding: gzip\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n",
        b"ffffffffffffffff\r\n", b"5;" + b"x" * 200 + b"\r\n", b"X: " + b"y" * 9_000 + b"\r\n", b"\x15\x03\x01",
        b"\0", b"Connection: close\r\n", b"Upgrade: h2c\r\n", b"Set-Cookie: a=b\r\n", b"Location: \xff\r\n",
    ]
)  # fmt: skip
ANSWER = st.lists(st.one_of(TOKENS, st.binary(max_size=40)), max_size=60).map(b"".join)


@given(ANSWER, st.integers(1, 400))
def test_whatever_a_receiver_sends_is_read_within_bounds(answer: bytes, piece_bytes: int):
    reader = ResponseReader()
    for start in range(0, len(answer), piece_bytes):
        if reader.feed(answer[start : start + piece_bytes]):
            break
    else:
        reader.end(is_clean=True)
    assert reader.status == 0 or reader.status >= 101
    assert len(reader.body()) <= limits.RESPONSE_KEPT_BYTES_MAX
    assert reader.raw_bytes <= limits.RAW_BYTES_MAX + piece_bytes
    assert not (reader.status and reader.error)
    for name in (b"location", b"retry-after"):
        assert reader.header(name) is None or "\r" not in str(reader.header(name))


SHIPPED = {
    path.stem: tomllib.loads(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parents[2] / "config" / "profiles").glob("*.toml"))
}
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=30),
        st.sampled_from(["hex", "base64", "id", "body", "timestamp", "\0", "../x", "Content-Length"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=10,
)  # fmt: skip


@given(st.sampled_from(sorted(SHIPPED)), st.data())
def test_any_profile_is_taken_or_refused_with_its_faults(name: str, data: st.DataObject):
    document = tomllib.loads(tomllib_text(name))
    place: dict[str, Any] = document
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        place[key] = data.draw(VALUES)
        break
    with contextlib.suppress(ConfigurationError):
        parse(document, ZoneInfo)


def tomllib_text(name: str) -> str:
    """Returns a shipped profile's text, so that each example begins with a document of its own."""
    return (Path(__file__).parents[2] / "config" / "profiles" / f"{name}.toml").read_text(
        encoding="utf-8"
    )


@given(st.dictionaries(st.text(max_size=20), VALUES, max_size=6))
def test_any_document_is_a_profile_or_refused(document: dict[str, Any]):
    with contextlib.suppress(ConfigurationError):
        parse(document, ZoneInfo)


NAMES = st.sampled_from(
    [
        "DISPATCHER_HTTP__PORT", "DISPATCHER_EGRESS__ALLOW_NETWORKS", "DISPATCHER_EGRESS__ALLOW_PORTS",
        "DISPATCHER_DELIVERY__DRAIN_SECONDS", "DISPATCHER_REPLICA__NAME", "DISPATCHER_SECRET_KEYS",
        "DISPATCHER_DATABASE_URL", "DISPATCHER_ADMIN_TOKEN", "DISPATCHER_X__Y", "DISPATCHER___",
    ]
)  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["-1", "0", "", "1e400", "nan", "[", "[]", '["0.0.0.0/0"]', "k1:", "k1:%%%", "true"]),
)  # fmt: skip


@given(st.dictionaries(NAMES, TEXTS, max_size=4))
def test_any_environment_is_settings_or_refused_without_quoting_a_secret(environ: dict[str, str]):
    problems: list[str] = []
    try:
        load_settings(None, environ, working_directory=Path("/nonexistent"))
    except ConfigurationError as error:
        problems = error.problems
    for name in ("DISPATCHER_SECRET_KEYS", "DISPATCHER_DATABASE_URL", "DISPATCHER_ADMIN_TOKEN"):
        text = environ.get(name, "")
        assert len(text) <= 8 or all(text not in problem for problem in problems)


@given(st.lists(st.text(max_size=200), max_size=6))
def test_any_event_types_are_a_subscription_or_refused(names: list[str]):
    with contextlib.suppress(InvalidRequestError):
        parse_event_types(names)


@given(st.binary(max_size=200), st.text(max_size=20), st.sampled_from(["k1", "k2", ""]))
def test_any_sealed_bytes_open_to_a_named_error(sealed: bytes, owner: str, key_id: str):
    with pytest.raises(SecretError):
        Keyring({"k1": b"k" * 32}).open(sealed, owner=owner, key_id=key_id)
