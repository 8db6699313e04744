"""Two hundred hostile texts in every field of jobs, schedule, notifications and search, and in response headers.

None is an error of the server, none leaves the API with a character that steers a terminal, and what is
stored comes back as it was given.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import orjson
import pytest

from dispatcher.core.printable import STEERING, escape
from tests.admin.serving import Api, Reply
from tests.support.raw_receiver import RawReceiver, answering

pytestmark = pytest.mark.postgres

PAYLOADS: list[str] = orjson.loads(
    (Path(__file__).parent.parent / "console" / "hostile.json").read_bytes()
)
GOOD = {"name": "ERP", "url": "https://example.com/hooks", "event_types": ["*"]}
HEADERS_AT_ONCE = 12
"""Of 4 KiB that are kept of a response."""
SELECTION = ("q", "endpoint_id", "event_id", "event_type", "state", "response")
PARAMETERS = {
    "/deliveries": (*SELECTION, "label", "since", "until", "tenant", "cursor", "limit"),
    "/events": ("q", "type", "label", "since", "until", "tenant", "cursor"),
    "/schedule": (*SELECTION, "label", "due_since", "due_until", "cursor"),
    "/jobs": ("state", "kind", "tenant", "cursor"),
    "/notifications": ("tenant", "cursor"),
    "/endpoints": ("q", "state", "health", "cursor"),
}
REPLAY = {"kind": "replay", "dry_run": True}
EMAIL = {"name": "on-call", "email": "ops@example.com"}


def bodies(text: str, delivery: str, endpoint: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a request for each field that takes a text."""
    for name in (*SELECTION, "since", "until", "tenant", "ids", "label"):
        value: Any = [text] if name in {"ids", "label"} else text
        yield "/jobs", {**REPLAY, "filter": {name: value}}
        yield "/schedule/cancel", {"filter": {name: value}, "dry_run": True}
        yield "/schedule/postpone", {"filter": {name: value}, "by_seconds": 60, "dry_run": True}
    yield "/jobs", {**REPLAY, "filter": {"labels": {text: text}}}
    yield "/jobs", {**REPLAY, "filter": {"state": "failed"}, "to": text}
    yield "/jobs", {**REPLAY, "filter": {"state": "failed"}, text: text}
    yield "/jobs", {"kind": text, "filter": {"state": "failed"}, "dry_run": True}
    yield "/schedule/postpone", {"filter": {"ids": [delivery]}, "due_at": text, "dry_run": True}
    yield f"/endpoints/{endpoint}/recover", {"since": text, "dry_run": True}
    yield f"/deliveries/{delivery}/diagnose-signature", {"secret": text, "headers": [text]}
    yield f"/deliveries/{delivery}/diagnose-signature", {"secret": "x", "body": text}
    for name in ("email", "recipient", "to_endpoint_id", "tenant"):
        yield "/notifications", {**EMAIL, name: text}
    for name in ("event_types", "endpoint_ids"):
        yield "/notifications", {**EMAIL, name: [text]}


def is_clean(reply: Reply) -> bool:
    """Return whether a response is JSON of ours, without a character that steers."""
    assert reply.status < 500, reply.raw
    assert reply.headers["Content-Type"].split(";")[0] in {
        "application/json",
        "application/problem+json",
    }
    orjson.loads(reply.raw)
    return STEERING.search(reply.raw.decode()) is None


@pytest.fixture
def payloads(long_run: bool) -> list[str]:
    return PAYLOADS if long_run else PAYLOADS[::10]


async def made(api: Api) -> tuple[str, str]:
    """Make an endpoint and a delivery to it; return their ids."""
    async with RawReceiver(answering(b"HTTP/1.1 500 E\r\nContent-Length: 0\r\n\r\n")) as receiver:
        url = f"http://127.0.0.1:{receiver.port}/"
        endpoint = (await api.ask("POST", "/endpoints", GOOD | {"url": url})).json["id"]
        sent = await api.ask("POST", f"/endpoints/{endpoint}/test")
    return endpoint, sent.json["id"]


async def test_hostile_text_in_a_parameter_finds_nothing_or_is_refused(
    api: Api, payloads: list[str]
) -> None:
    for text in payloads:
        for path, names in PARAMETERS.items():
            for name in names:
                reply = await api.ask("GET", f"{path}?{urlencode({name: text})}")
                assert is_clean(reply), (path, name, text)
                assert reply.status in {200, 404, 422}, (path, name, text)
                assert reply.status != 200 or reply.json["items"] == [], (path, name, text)
        for path in ("/jobs", "/notifications", "/deliveries"):
            reply = await api.ask("GET", f"{path}/{quote(text, safe='')}")
            assert reply.status in {400, 404, 414}, (path, text)


async def test_hostile_text_in_a_body_selects_nothing_or_is_refused(
    api: Api, payloads: list[str]
) -> None:
    endpoint, delivery = await made(api)
    for text in ["", *payloads]:
        for path, fields in bodies(text, delivery, endpoint):
            reply = await api.ask("POST", path, fields)
            if path == "/notifications" and reply.status == 201:
                assert any(text in (one, [one]) for one in reply.json.values())
                continue
            assert is_clean(reply), (path, fields)
            assert reply.status in {200, 404, 409, 422}, (path, fields)
            assert reply.json.get("count", 0) == 0, (path, fields)


async def test_hostile_names_of_notifications_come_back_as_given(
    api: Api, payloads: list[str]
) -> None:
    kept = 0
    for text in payloads:
        reply = await api.ask("POST", "/notifications", {**EMAIL, "name": text})
        if reply.status == 201:
            kept += 1
            found = await api.ask("GET", f"/notifications/{reply.json['id']}")
            assert found.json["name"] == text.strip()
        else:
            assert reply.status == 422
            assert is_clean(reply), text
    assert kept > len(payloads) / 2


async def test_hostile_response_headers_are_shown_escaped(api: Api, payloads: list[str]) -> None:
    texts = [one.replace("\r", "").replace("\n", "").strip() for one in payloads]
    texts = [one for one in texts if one and len(one) < 200]
    shown = []
    for first in range(0, len(texts), HEADERS_AT_ONCE):
        lines = "".join(f"X-Note: {one}\r\n" for one in texts[first : first + HEADERS_AT_ONCE])
        head = b"HTTP/1.1 500 E\r\n" + lines.encode() + b"Content-Length: 0\r\n\r\n"
        async with RawReceiver(answering(head)) as receiver:
            name, url = f"n{first}", f"http://127.0.0.1:{receiver.port}/"
            endpoint = await api.ask("POST", "/endpoints", GOOD | {"name": name, "url": url})
            sent = await api.ask("POST", f"/endpoints/{endpoint.json['id']}/test")
        found = await api.ask("GET", f"/deliveries/{sent.json['id']}")
        assert is_clean(found)
        (attempt,) = found.json["attempts"]
        shown += [one["value"] for one in attempt["response_headers"] if one["name"] == "X-Note"]
    assert shown == [escape(one) for one in texts]
