"""Profiles are data: what a file can say, and that every fault in it is named at once."""

import copy
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.config.profiles import load_profiles
from dispatcher.config.shipped import shipped_config_directory
from dispatcher.core.envelope import encode
from dispatcher.core.errors import ConfigurationError
from dispatcher.core.model import Event, EventId
from dispatcher.core.profile import Profile
from dispatcher.core.profile_parser import parse
from dispatcher.core.secret import generate
from dispatcher.core.signing import Signer

SHIPPED = shipped_config_directory() / "profiles"
HUMANSOFT = tomllib.loads((SHIPPED / "humansoft.toml").read_text(encoding="utf-8"))
STANDARD = tomllib.loads((SHIPPED / "standard.toml").read_text(encoding="utf-8"))

SIXTH_VENDOR = """
name = "acme"
description = "A made-up vendor"
[body]
json = "javascript"
zone = "America/New_York"
fields = [
    { name = "when", source = "occurred_at", format = "local_seconds_offset" },
    { name = "100% real", source = "data" },
    { name = "ref", source = "request_id", prefix = "r-", test_prefix = "t-" },
]
[[headers]]
name = "Acme-Kind"
source = "event_type"
[[headers]]
name = "Acme-Delivery"
source = "delivery_id"
[signature]
header = "Acme-Proof"
content = ["delivery_id", "body"]
encoding = "base64"
lead = [{ text = "at=" }, { source = "timestamp" }, { text = ";" }]
prefix = "p="
separator = ";"
[secret]
key = "text"
prefix = "acme-"
generated_size = 24
nullable = true
[delivery]
retry_schedule_seconds = [0.5, 60]
jitter = [0.5, 1.5]
timeout_seconds = 2.5
https_only = false
gone_disables = true
[test_event]
kind = "fixed"
event_type = "acme.hello"
fields = [{ name = "hello", text = "world" }]
"""


def profile_of(document: dict[str, Any]) -> Profile:
    return parse(document, ZoneInfo)


def problems_of(document: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        profile_of(document)
    return caught.value.problems


def changed(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    document = copy.deepcopy(document)
    *tables, key = path.split(".")
    table: Any = document
    for name in tables:
        table = table[int(name)] if name.isdigit() else table[name]
    if value is None:
        del table[key]
    else:
        table[key] = value
    return document


def test_the_shipped_profiles_load() -> None:
    loaded = load_profiles([SHIPPED])
    for_people = {"slack", "teams", "discord", "line"}
    assert set(loaded.profiles) == {"wms", "humansoft", "standard", "github", "stripe"} | for_people
    assert loaded.replaced == []


def test_a_sixth_vendor_is_only_a_file(tmp_path: Path) -> None:
    (tmp_path / "acme.toml").write_text(SIXTH_VENDOR)
    acme = load_profiles([SHIPPED, tmp_path]).profiles["acme"]
    at = datetime(2026, 5, 29, 14, 32, 11, tzinfo=UTC)
    event = Event(EventId("evt_2026_001234"), "a.b", '{"2": 1.0, "1": 2}', "t", at, at, {}, None)
    body = encode(acme, event).body
    assert body == (
        b'{"when":"2026-05-29T10:32:11-04:00","100% real":{"1":2,"2":1},"ref":"r-51f54e2469b7ee44"}'
    )
    secrets = [generate(acme, bytes), generate(acme, lambda count: bytes([1] * count))]
    value = Signer(acme, secrets).sign(
        event_id=event.id, delivery_id="wh_1", event_type="a.b", timestamp=7, body=body
    )
    assert value.startswith("at=7;p=")
    assert value.count(";p=") == 2


def test_a_later_directory_replaces_a_profile_and_says_so(tmp_path: Path) -> None:
    text = (SHIPPED / "wms.toml").read_text(encoding="utf-8")
    (tmp_path / "wms.toml").write_text(text.replace("timeout_seconds = 5", "timeout_seconds = 7"))
    loaded = load_profiles([SHIPPED, tmp_path, tmp_path / "absent"])
    assert loaded.profiles["wms"].timeout_seconds == 7
    assert loaded.replaced == ["wms"]


def test_the_faults_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text("name = ")
    (tmp_path / "two.toml").write_bytes(b"name = '\xff'")
    (tmp_path / "three.toml").write_text(SIXTH_VENDOR)
    (tmp_path / "acme.toml").write_text(SIXTH_VENDOR.replace("timeout_seconds = 2.5", "x = 1"))
    with pytest.raises(ConfigurationError) as caught:
        load_profiles([tmp_path])
    problems = "\n".join(caught.value.problems)
    for file in ("one.toml", "two.toml", "three.toml: name", "acme.toml: delivery.timeout_seconds"):
        assert file in problems
    assert "delivery.x: is not a key" in problems


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("name", "Standard!", "name:"),
        ("surplus", 1, "surplus: is not a key"),
        ("body.json", "xml", "body.json: 'xml' is not one of verbatim, javascript"),
        ("body.zone", "Asia/Atlantis", "body.zone: there is no time zone"),
        ("body.zone", None, "body.zone: is missing"),
        ("body.whole", "data", "body.fields: cannot be combined"),
        ("body.fields.0.name", "12", "body.fields[0].name: JavaScript would move"),
        ("body.fields.0.name", "event", "body.fields: a name occurs twice"),
        ("body.fields.0.source", "clock", "body.fields[0].source:"),
        ("body.fields.0.prefix", None, "body.fields[0].prefix: is missing"),
        ("body.fields.1.prefix", "x", "body.fields[1].prefix: is not a key"),
        ("body.fields.2.format", None, "body.fields[2].format: is missing"),
        ("body.fields.3.source", "event_id", "body.fields: must have the event's data once"),
        ("headers.0.name", "X Y", "headers[0].name: 'X Y' is no header name"),
        ("headers.0.name", "Content-Length", "headers[0].name: Content-Length is set by"),
        ("headers.0.name", "x-webhook-event", "headers[1].name: X-Webhook-Event occurs twice"),
        ("headers.2.source", "event_id", "signature.content: timestamp is signed but not sent"),
        ("signature.header", "X-Webhook-ID", "signature.header: X-Webhook-ID occurs twice"),
        ("signature.content", ["timestamp"], "signature.content: must hold the body"),
        ("signature.content", ["body", 1], "signature.content: 1 is not one of"),
        ("signature.prefix", "v1\r\n", "signature.prefix:"),
        ("secret.generated_size", 4, "secret.generated_size: 4 is not from"),
        ("secret.nullable", 1, "secret.nullable: must be true or false"),
        ("delivery.retry_schedule_seconds", [1, -1], "delivery.retry_schedule_seconds: -1"),
        ("delivery.retry_schedule_seconds", [True], "delivery.retry_schedule_seconds: True"),
        ("delivery.retry_schedule_seconds", [1] * 101, "delivery.retry_schedule_seconds: has 101"),
        ("delivery.jitter", [1.2, 0.8], "delivery.jitter: the lower bound"),
        ("delivery.jitter", [1], "delivery.jitter: has 1"),
        ("delivery.timeout_seconds", float("nan"), "delivery.timeout_seconds: nan"),
        ("delivery.timeout_seconds", True, "delivery.timeout_seconds: must be"),
        ("delivery", [], "delivery: must be a table"),
        ("headers", [1], "headers[0]: must be a table"),
        ("test_event.kind", "none", "test_event.kind:"),
        ("test_event.event_type", "ping", "test_event.event_type:"),
        ("test_event.fields.0.source", "endpoint_id", "test_event.fields[0].name:"),
    ],
)
def test_a_fault_is_named_by_its_key(path: str, value: object, problem: str) -> None:
    problems = problems_of(changed(HUMANSOFT, path, value))
    assert any(found.startswith(problem) for found in problems), problems


def test_a_local_time_deep_in_a_test_event_needs_a_zone() -> None:
    fields = [{"name": "a", "fields": [HUMANSOFT["test_event"]["fields"][1]]}]
    test_event = {"kind": "fixed", "event_type": "test.ping", "fields": fields}
    assert problems_of(changed(STANDARD, "test_event", test_event)) == [
        "body.zone: is missing, a local time needs it"
    ]


def test_all_faults_of_a_document_are_told_at_once() -> None:
    paths = [f"{name}: is missing" for name in ("body", "signature", "secret", "delivery")]
    problems = problems_of({})
    assert all(any(found.startswith(path) for found in problems) for path in paths)


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@given(
    st.sampled_from([HUMANSOFT, STANDARD]),
    st.dictionaries(st.sampled_from(sorted(HUMANSOFT | STANDARD)), values, max_size=2),
    st.data(),
)
def test_no_document_makes_the_parser_fail_otherwise(
    document: dict[str, Any], replaced: dict[str, Any], data: st.DataObject
) -> None:
    document = copy.deepcopy(document) | replaced
    table = document[data.draw(st.sampled_from(sorted(document)))]
    if isinstance(table, dict) and table:
        table[data.draw(st.sampled_from(sorted(table)))] = data.draw(values)
    try:
        profile_of(document)
    except ConfigurationError as error:
        assert error.problems  # noqa: PT017 -- either outcome is right, any other error is not
