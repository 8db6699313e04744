"""Heads of requests: nothing can break out of its line, and ours win over custom headers."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.errors import EncodingError, ProfileError
from dispatcher.core.limits import CUSTOM_HEADERS_COUNT_MAX
from dispatcher.core.request import RequestTemplate, validate_headers
from dispatcher.core.secret import Secret
from dispatcher.core.signing import Signer
from tests.wire.vectors import PROFILES, SECRETS

STANDARD = PROFILES["standard"]


def template(profile: str = "standard", **fields: Any) -> RequestTemplate:
    values: dict[str, Any] = {"target": "/", "host_header": "a.example", "user_agent": "d/1"}
    values |= {"profile": PROFILES[profile], "custom_headers": {}}
    values |= {"signer": Signer(PROFILES[profile], [Secret(SECRETS[profile])])}
    return RequestTemplate(**values | fields)


def head(made: RequestTemplate, **fields: Any) -> bytes:
    values: dict[str, Any] = {"event_id": "evt_1", "delivery_id": "wh_1", "event_type": "a.b"}
    values |= {"timestamp": 1, "body": b"{}", "traceparent": None}
    return made.head(**values | fields)


def names(request_head: bytes) -> list[str]:
    lines = request_head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")[1:]
    return [line.split(":")[0].lower() for line in lines]


@given(
    st.dictionaries(st.text(max_size=12), st.text(max_size=12), max_size=5),
    st.text(max_size=10),
    st.text(max_size=10),
    st.text(max_size=10),
    st.none() | st.text(max_size=10),
    st.sampled_from(sorted(PROFILES)),
)
def test_no_input_adds_a_line_or_ends_the_head(
    headers: dict[str, str],
    event_id: str,
    event_type: str,
    target: str,
    traceparent: str | None,
    profile: str,
) -> None:
    try:
        made = template(profile, custom_headers=headers, target="/" + target)
        written = head(made, event_id=event_id, event_type=event_type, traceparent=traceparent)
    except (ProfileError, EncodingError):
        return
    assert written.endswith(b"\r\n\r\n")
    ours = names(head(template(profile)))
    allowed = {name.lower() for name in headers} | {*ours, "traceparent"}
    found = names(written)
    assert set(found) <= allowed
    assert len(found) == len(set(found))
    assert written.count(b"\n") == len(found) + 2


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"X-A": "b\r\nX-B: c"}, "headers.X-A"),
        ({"X-A": "b\nc"}, "headers.X-A"),
        ({"X-A": "b\0c"}, "headers.X-A"),
        ({"X-A": "b\x7fc"}, "headers.X-A"),
        ({"X-A": "b\x85c"}, "headers.X-A"),
        ({"X-A": " b"}, "headers.X-A"),
        ({"X-A": "ไทย"}, "headers.X-A"),
        ({"X-A": "\ud800"}, "headers.X-A"),
        ({"X A": "b"}, "headers.X A"),
        ({"": "b"}, "headers."),
        ({"X-A\r\n": "b"}, "headers.X-A\r\n"),
        ({"X-é": "b"}, "headers.X-é"),
        ({"X-A": "b", "x-a": "c"}, "headers.x-a"),
        ({f"X-{index}": "" for index in range(CUSTOM_HEADERS_COUNT_MAX + 1)}, "headers"),
        ({"X-A": "b" * 8192}, "headers"),
    ],
)
def test_malformed_headers_are_refused_when_saved_and_when_sent(
    headers: dict[str, str], field: str
) -> None:
    assert [name for name, *_ in validate_headers(headers, STANDARD)] == [field]
    with pytest.raises(ProfileError):
        template(custom_headers=headers)


RESERVED = ["Host", "content-length", "TRANSFER-ENCODING", "Connection", "Cookie", "Content-Type"]
RESERVED += ["User-Agent", "Accept-Encoding", "traceparent", "Expect", "Webhook-ID"]
RESERVED += ["webhook-signature", "WEBHOOK-TIMESTAMP", "Webhook_Id", "content_length"]


@pytest.mark.parametrize("name", RESERVED)
def test_a_custom_header_never_replaces_ours(name: str) -> None:
    assert [field for field, *_ in validate_headers({name: "x"}, STANDARD)] == [f"headers.{name}"]
    assert head(template(custom_headers={name: "x"})) == head(template())


def test_what_another_profile_sets_is_free_under_this_one() -> None:
    assert validate_headers({"X-WMS-Signature": "x"}, STANDARD) == []


def test_good_custom_headers_are_sent_in_latin_1() -> None:
    headers = {"Authorization": "Bearer é", "X-Empty": ""}
    assert validate_headers(headers, STANDARD) == []
    written = head(template(custom_headers=headers))
    assert b"\r\nAuthorization: Bearer \xe9\r\nX-Empty: \r\n\r\n" in written


def test_the_traceparent_is_passed_on() -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    written = head(template(), traceparent=parent)
    assert f"\r\ntraceparent: {parent}\r\n".encode() in written


@pytest.mark.parametrize(
    "fields",
    [
        {"event_id": "evt\r\nX: y"},
        {"delivery_id": "wh\0"},
        {"event_type": "a.b\n"},
        {"event_type": "a.ข"},
        {"event_id": "\ud800"},
        {"traceparent": "00-\r\n"},
        {"traceparent": ""},
        {"traceparent": "0" * 257},
    ],
)
def test_what_is_not_fit_for_a_header_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(EncodingError, match="not fit for a header"):
        head(template(), **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"target": "/a b"},
        {"target": "/\r\nX: y"},
        {"target": ""},
        {"target": "/ไทย"},
        {"host_header": "a\r\n"},
        {"host_header": ""},
        {"user_agent": "a\n"},
        {"user_agent": "ไทย"},
    ],
)
def test_a_target_host_or_agent_that_is_not_ascii_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ProfileError):
        template(**fields)


def test_the_length_is_that_of_the_body_in_bytes() -> None:
    assert b"\r\nContent-Length: 10\r\n" in head(template(), body='{"ก":12}'.encode())


def test_a_profile_may_name_its_headers_with_any_token_character():
    fields = tuple(
        dataclasses.replace(field, name=f"x%s-%{n}") for n, field in enumerate(STANDARD.headers)
    )
    made = RequestTemplate(
        profile=dataclasses.replace(STANDARD, headers=fields), target="/", host_header="a.example",
        user_agent="d/1", custom_headers={}, signer=None,
    )  # fmt: skip
    assert {"x%s-%0", "x%s-%1"} <= set(names(head(made)))
