"""Profiles for people: the bytes of each message, hostile names, and every fault of a file."""

import copy
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.config.shipped import shipped_config_directory
from dispatcher.core.envelope import encode
from dispatcher.core.errors import ConfigurationError, EncodingError, SecretError
from dispatcher.core.model import Event, EventId
from dispatcher.core.profile_parser import parse
from dispatcher.core.request import request_template
from dispatcher.core.secret import Secret, check
from dispatcher.core.url import canonical_url
from tests.wire.vectors import SHIPPED

PEOPLE = ("discord", "line", "slack", "teams")
FOLDER: Path = shipped_config_directory() / "profiles"
DATA = {
    "summary": "Webhook ERP is failing",
    "endpoint_name": "ERP_Order_Sync",
    "details": "Since 2026-05-29 14:32 UTC.",
    "recipient": "U4af4980629",
}
TEXT = "Webhook ERP is failing\\nWebhook: ERP_Order_Sync\\nSince 2026-05-29 14:32 UTC."
BODIES = {
    "slack": '{"text":"' + TEXT + '"}',
    "discord": '{"content":"' + TEXT.replace("_", "\\\\_") + '","allowed_mentions":{"parse":[]}}',
    "line": '{"to":"U4af4980629","messages":[{"type":"text","text":"' + TEXT + '"}]}',
    "teams": '{"type":"message","attachments":[{"contentType":'
    '"application/vnd.microsoft.card.adaptive","content":{"$schema":'
    '"http://adaptivecards.io/schemas/adaptive-card.json","type":"AdaptiveCard","version":"1.4",'
    '"body":[{"type":"RichTextBlock","inlines":[{"type":"TextRun","text":"' + TEXT + '"}]}]}}]}',
}


def event(data: object, event_type: str = "dispatcher.notification") -> Event:
    now = datetime(2026, 5, 29, 14, 32, tzinfo=UTC)
    text = data if isinstance(data, str) else orjson.dumps(data).decode()
    return Event(EventId("evt_2026_001234"), event_type, text, "default", now, now, {}, None)


def text_of(profile: str, data: object) -> str:
    body = orjson.loads(encode(SHIPPED[profile], event(data)).body)
    if profile == "teams":
        inline = body["attachments"][0]["content"]["body"][0]["inlines"][0]
        return str(inline["text"])
    return str(
        body["messages"][0]["text"] if profile == "line" else body.get("text", body.get("content"))
    )


@pytest.mark.parametrize("profile", PEOPLE)
def test_message_has_these_bytes(profile: str) -> None:
    assert encode(SHIPPED[profile], event(DATA)).body == BODIES[profile].encode()


@pytest.mark.parametrize("profile", PEOPLE)
@given(name=st.text(), summary=st.text(max_size=6000))
def test_message_of_hostile_strings_is_json_of_bounded_length(
    profile: str, name: str, summary: str
) -> None:
    data = {"summary": summary, "endpoint_name": name, "recipient": "U1"}
    try:
        encoded = orjson.dumps(data).decode()
    except orjson.JSONEncodeError:
        return  # half a character: Postgres rejects it
    text = text_of(profile, encoded)
    rules = SHIPPED[profile].text
    assert rules is not None
    assert 0 < len(text.encode("utf-16-le")) // 2 <= rules.characters_max
    assert all(character.isprintable() or character == "\n" for character in text)


def test_message_mentions_no_one_whatever_a_name_is() -> None:
    name = "<!channel> <@U1> [x](https://evil.test) @everyone **b**"
    assert "<" not in text_of("slack", {"summary": name})
    assert text_of("slack", {"summary": name}).startswith("&lt;!channel&gt;")
    discord = text_of("discord", {"summary": name})
    assert discord.startswith("\\<!channel\\> \\<\\@U1\\> \\[x\\]\\(https://evil.test\\)")


def test_message_of_an_event_without_a_summary_names_its_type() -> None:
    sent = encode(SHIPPED["slack"], event({"n": 1}, "order.created"))
    assert sent.body == b'{"text":"order.created"}'
    assert encode(SHIPPED["slack"], event('{"n": 1e400}', "a.b")).body == b'{"text":"a.b"}'


LINK = "https://hooks.example.com:8443/webhooks/ep_01h4_5/deliveries?state=failed"


@pytest.mark.parametrize("profile", PEOPLE)
def test_message_ends_with_the_link_of_a_notification(profile: str) -> None:
    assert text_of(profile, {**DATA, "link": LINK}).endswith(f"\n{LINK}"), "as it is"


@pytest.mark.parametrize(
    ("link", "event_type"),
    [
        (LINK, "order.created"),
        ("https://evil.test/<@U1>", "dispatcher.notification"),
        ("https://x.test/) [y](https://evil.test/", "dispatcher.notification"),
        ("javascript:alert(1)", "dispatcher.notification"),
        ({"a": 1}, "dispatcher.notification"),
    ],
)
def test_message_has_no_link_of_a_producer_or_of_another_form(link: Any, event_type: str) -> None:
    body = encode(SHIPPED["slack"], event({"summary": "s", "link": link}, event_type)).body
    assert body == b'{"text":"s"}'


def test_control_part_that_trusts_a_member_shows_a_producers_link() -> None:
    """The control: with the member in place of the source, a producer's link reaches the chat."""
    document = tomllib.loads((FOLDER / "slack.toml").read_text(encoding="utf-8"))
    document["text"]["parts"][-1] = {"member": "link", "before": "\n"}
    trusting = parse(document, ZoneInfo)
    body = encode(
        trusting, event({"summary": "s", "link": "https://evil.test/"}, "order.created")
    ).body
    assert body == b'{"text":"s\\nhttps://evil.test/"}'


def test_member_that_the_data_lack_is_an_encoding_error() -> None:
    with pytest.raises(EncodingError, match="no 'recipient'"):
        encode(SHIPPED["line"], event({"summary": "x"}))


def test_token_is_a_bearer_header_and_a_path_is_the_target() -> None:
    def head(profile: str, url: str, secret: str) -> str:
        template = request_template(
            profile=SHIPPED[profile],
            url=canonical_url(url, https_only=False),
            secrets=[Secret(secret)],
            user_agent="dispatcher/1",
            custom_headers={},
        )
        return template.head(
            event_id="evt_1",
            delivery_id="wh_1",
            event_type="a.b",
            timestamp=1,
            body=b"{}",
            traceparent=None,
        ).decode()

    line = head("line", "https://api.line.me/v2/bot/message/push", "token+/=")
    assert "\r\nAuthorization: Bearer token+/=\r\n" in line
    assert line.startswith("POST /v2/bot/message/push HTTP/1.1")
    slack = head("slack", "https://hooks.slack.com/", "/services/T0/B0/xyz")
    assert slack.startswith("POST /services/T0/B0/xyz HTTP/1.1\r\nHost: hooks.slack.com\r\n")
    assert "ignature" not in slack


@pytest.mark.parametrize(
    ("profile", "secret"),
    [
        ("slack", "services/T0/B0/x"),
        ("slack", "/services/T0 B0"),
        ("slack", "/services/x#y"),
        ("line", "token\r\nX-Evil: 1"),
        ("line", "short"),
        ("line", "x" * 2049),
        ("slack", None),
    ],
)
def test_issued_secret_of_another_form_is_refused(profile: str, secret: str | None) -> None:
    with pytest.raises(SecretError) as caught:
        check(SHIPPED[profile], None if secret is None else Secret(secret))
    assert secret is None or secret not in str(caught.value)


def changed(profile: str, change: Any) -> list[str]:
    document = tomllib.loads((FOLDER / f"{profile}.toml").read_text(encoding="utf-8"))
    document = copy.deepcopy(document)
    change(document)
    with pytest.raises(ConfigurationError) as caught:
        parse(document, ZoneInfo)
    return caught.value.problems


def test_file_with_faults_names_field_problem_and_fix() -> None:
    def spoil(document: dict[str, Any]) -> None:
        document["body"]["fields"] = [
            {"name": "a"},
            {"name": "b", "source": "text", "constant": 1},
            {"name": "c", "items": [{"fields": [{"name": "d", "source": "request_id"}]}]},
        ]
        document["text"]["escape"] = "html"
        document["text"]["characters_max"] = 7
        document["text"]["parts"] = [{"member": "x"}, {"source": "data"}]
        document["secret"]["place"] = "body"

    problems = changed("slack", spoil)
    for beginning in (
        "body.fields[0].source: the field 'a' has no value. Give it one of",
        "body.fields[1].source: the field 'b' has source and constant. Give it one of",
        "body.fields[2].items[0].fields[0].source: a request id is found in the body's outermost",
        "text.escape: 'html' is not one of",
        "text.characters_max: 7 is not from 100",
        "text.parts[1].source: data cannot be a part. Use one of",
        "secret.place: 'body' is not one of",
    ):
        assert any(one.startswith(beginning) for one in problems), (beginning, problems)
    assert changed("slack", lambda d: d.pop("text"))[0].startswith("text: is missing")
    empty = changed("slack", lambda d: d["text"].update(parts=[{"member": "x"}]))
    assert empty == [
        "text.parts: may compose an empty text. Add a part with `text` or `otherwise`."
    ]
    signed = changed("line", lambda d: d["signature"].update(content=["body"]))
    assert signed[0].startswith("signature.content: nothing is signed")
