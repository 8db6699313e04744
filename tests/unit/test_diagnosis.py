"""Every mistake with a signature is named, by a code and a message of its own."""

import base64
import hashlib
import hmac
import json  # noqa: TID251 -- writes JSON as receivers do
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from dispatcher.core.diagnosis import Finding, KnownSecret, Request, diagnose
from dispatcher.core.diagnosis.mistakes import MESSAGES
from dispatcher.core.secret import Secret
from dispatcher.core.signing import Signer
from tests.wire.vectors import PROFILES

NOW = 1_780_065_131
BODY = '{"id":"evt_1","data":{"name":"คลัง","n":1}}'.encode()
TEXT_SECRET = "whsec_" + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN"
HUMANSOFT_SECRET = "whse" + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN"
STANDARD_SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
GITHUB_SECRET = "a secret" + " of ours"
SEED = "whsk_" + base64.b64encode(bytes(range(32))).decode()
SECRETS = {"wms": TEXT_SECRET, "stripe": TEXT_SECRET, "humansoft": HUMANSOFT_SECRET,
           "standard": STANDARD_SECRET, "github": GITHUB_SECRET}  # fmt: skip


def request_of(
    profile: str = "wms",
    secret: str | None = None,
    body: bytes = BODY,
    *,
    received_body: bytes | None = None,
    **headers: str | list[str] | None,
) -> Request:
    """Return a signed request; headers replace those that were sent, None removes one."""
    signer = Signer(PROFILES[profile], [Secret(secret or SECRETS[profile])])
    value = signer.sign(
        event_id="evt_1", delivery_id="wh_1", event_type="a.b", timestamp=NOW, body=body
    )
    found: dict[str, Sequence[str]] = {signer.header.lower(): [value]}
    sources: Mapping[str, str] = {"event_id": "evt_1", "delivery_id": "wh_1", "event_type": "a.b"}
    for field in PROFILES[profile].headers:
        found[field.name.lower()] = [sources.get(field.source, str(NOW))]
    for name, text in headers.items():
        key = name.replace("_", "-")
        if text is None:
            found.pop(key)
        else:
            found[key] = [text] if isinstance(text, str) else text
    return Request(found, body if received_body is None else received_body)


def diagnose_request(
    request: Request, secret: str | None = None, profile: str = "wms", **options: Any
) -> Finding:
    return diagnose(
        request,
        Secret(SECRETS[profile] if secret is None else secret),
        profile=PROFILES[profile],
        profiles=PROFILES.values(),
        now=options.pop("now", NOW),
        **options,
    )


def _header() -> str:
    return request_of().headers["x-wms-signature"][0]


def _digest(key: str | bytes, content: bytes) -> str:
    return hmac.new(key.encode() if isinstance(key, str) else key, content, "sha256").hexdigest()


_STAMPED = f"{NOW}.".encode() + BODY
_STANDARD = f"evt_1.{NOW}.".encode() + BODY
_HEX = _header().removeprefix("sha256=")
_PRETTY = json.dumps(json.loads(BODY), ensure_ascii=False, indent=1).encode()

REQUESTS: dict[str, tuple[Request, dict[str, Any]]] = {
    "signature_header_missing": (request_of(x_wms_signature=None), {}),
    "wrong_profile_header": (request_of("humansoft"), {}),
    "signature_header_repeated": (request_of(x_wms_signature=["a", "b"]), {}),
    "signed_header_missing": (
        request_of("humansoft", x_webhook_timestamp=None),
        {"profile": "humansoft"},
    ),
    "signed_header_repeated": (
        request_of("humansoft", x_webhook_timestamp=["1", "2"]),
        {"profile": "humansoft"},
    ),
    "signed_timestamp_missing": (
        request_of("stripe", stripe_signature="v1=" + "0" * 64),
        {"profile": "stripe"},
    ),
    "timestamp_malformed": (
        request_of("humansoft", x_webhook_timestamp="2026-05-29T14:32:11Z"),
        {"profile": "humansoft"},
    ),
    "timestamp_in_milliseconds": (
        request_of("humansoft", x_webhook_timestamp=f"{NOW}123"),
        {"profile": "humansoft"},
    ),
    "timestamp_too_old": (request_of("humansoft"), {"profile": "humansoft", "now": NOW + 301}),
    "timestamp_in_future": (request_of("standard"), {"profile": "standard", "now": NOW - 301}),
    "signature_prefix_missing": (request_of(x_wms_signature=_HEX), {}),
    "signature_prefix_doubled": (request_of(x_wms_signature=f"sha256=sha256={_HEX}"), {}),
    "signature_in_base64": (
        request_of(x_wms_signature="sha256=" + base64.b64encode(bytes.fromhex(_HEX)).decode()),
        {},
    ),
    "signature_in_hex": (
        request_of("standard", webhook_signature=f"v1,{_HEX}"),
        {"profile": "standard"},
    ),
    "secret_missing": (request_of(), {"secret": " \n"}),
    "secret_malformed": (request_of("standard"), {"profile": "standard", "secret": "whsec_%%"}),
    "secret_surrounded_by_whitespace": (request_of(), {"secret": TEXT_SECRET + "\r\n"}),
    "secret_in_quotes": (request_of(), {"secret": f'"{TEXT_SECRET}"'}),
    "secret_prefix_missing": (request_of(), {"secret": TEXT_SECRET.removeprefix("whsec_")}),
    "secret_prefix_doubled": (request_of(), {"secret": "whsec_" + TEXT_SECRET}),
    "secret_prefix_added": (
        request_of(secret=GITHUB_SECRET),
        {"secret": "whsec_a secret of ours"},
    ),
    "secret_encoded_in_base64": (
        request_of(),
        {"secret": base64.b64encode(TEXT_SECRET.encode()).decode()},
    ),
    "secret_decoded_from_base64": (
        request_of(secret=base64.b64encode(b"a secret of ours").decode()),
        {"secret": "a secret of ours"},
    ),
    "previous_secret": (
        request_of(),
        {
            "secret": "an old secret",
            "known_secrets": [KnownSecret("previous", Secret("an old secret"))],
        },
    ),
    "staged_secret": (
        request_of(),
        {
            "secret": "a new secret",
            "known_secrets": [KnownSecret("staged", Secret("a new secret"))],
        },
    ),
    "other_endpoints_secret": (
        request_of(),
        {
            "secret": "another secret",
            "known_secrets": [KnownSecret("other_endpoint", Secret("another secret"), "ERP")],
        },
    ),
    "public_key_needed": (request_of("standard", secret=SEED), {"profile": "standard"}),
    "shared_secret_needed": (
        request_of("standard"),
        {"profile": "standard", "secret": "whpk_" + base64.b64encode(bytes(32)).decode()},
    ),
    "wrong_secret": (request_of(), {"secret": "quite another secret"}),
    "wrong_profile": (
        request_of("github", secret=TEXT_SECRET, x_wms_signature="sha256=" + "0" * 64),
        {},
    ),
    "body_empty": (request_of(received_body=b""), {}),
    "body_trailing_newline": (request_of(received_body=BODY + b"\n"), {}),
    "body_byte_order_mark": (request_of(received_body=b"\xef\xbb\xbf" + BODY), {}),
    "body_line_endings_changed": (
        request_of(body=b'{"a":\n1}', received_body=b'{"a":\r\n1}'),
        {},
    ),
    "body_characters_changed": (
        request_of(received_body=BODY.decode("latin-1").encode()),
        {},
    ),
    "body_reserialised": (request_of(received_body=_PRETTY), {}),
    "body_wrapped_in_string": (
        request_of(received_body=json.dumps(BODY.decode()).encode()),
        {},
    ),
    "body_changed": (request_of(received_body=b'{"id":"evt_2"}'), {"sent_body": BODY}),
}

COMPUTED = {
    "valid": ("wms", "sha256=" + _HEX),
    "computed_not_a_digest": ("wms", "undefined"),
    "computed_prefix_missing": ("wms", _HEX),
    "computed_prefix_doubled": ("wms", f"sha256=sha256={_HEX}"),
    "computed_in_upper_case": ("wms", "sha256=" + _HEX.upper()),
    "computed_in_base64": ("wms", base64.b64encode(bytes.fromhex(_HEX)).decode()),
    "computed_in_hex": ("standard", _digest(bytes(range(32)), _STANDARD)),
    "computed_with_trailing_newline_in_secret": ("wms", _digest(TEXT_SECRET + "\n", BODY)),
    "computed_without_secret_prefix": ("wms", _digest(TEXT_SECRET[6:], BODY)),
    "computed_with_doubled_secret_prefix": ("wms", _digest("whsec_" + TEXT_SECRET, BODY)),
    "computed_with_decoded_secret": (
        "humansoft",
        _digest(base64.b64decode(HUMANSOFT_SECRET), _STAMPED),
    ),
    "computed_without_decoding_secret": ("standard", _digest(STANDARD_SECRET, _STANDARD)),
    "computed_over_body_alone": ("humansoft", _digest(HUMANSOFT_SECRET, BODY)),
    "computed_without_timestamp": ("standard", _digest(bytes(range(32)), b"evt_1." + BODY)),
    "computed_without_id": ("standard", _digest(bytes(range(32)), _STAMPED)),
    "computed_without_separators": (
        "humansoft",
        _digest(HUMANSOFT_SECRET, str(NOW).encode() + BODY),
    ),
    "computed_in_wrong_order": (
        "humansoft",
        _digest(HUMANSOFT_SECRET, BODY + b"." + str(NOW).encode()),
    ),
    "computed_with_milliseconds": (
        "humansoft",
        _digest(HUMANSOFT_SECRET, f"{NOW}000.".encode() + BODY),
    ),
    "computed_over_empty_body": ("wms", _digest(TEXT_SECRET, b"")),
    "computed_over_trailing_newline": ("wms", _digest(TEXT_SECRET, BODY + b"\n")),
    "computed_over_reserialised_body": (
        "wms",
        _digest(TEXT_SECRET, json.dumps(json.loads(BODY)).encode()),
    ),
    "computed_over_string_of_body": (
        "wms",
        _digest(TEXT_SECRET, json.dumps(BODY.decode(), ensure_ascii=False).encode()),
    ),
    "computed_with_other_hash": (
        "wms",
        hashlib.sha256(TEXT_SECRET.encode() + BODY).hexdigest(),
    ),
    "computed_unexplained": ("wms", "sha256=" + "0" * 64),
}


@pytest.mark.parametrize("code", REQUESTS)
def test_diagnosis_of_a_request_names_the_mistake(code: str) -> None:
    request, options = REQUESTS[code]
    finding = diagnose_request(request, **options)
    assert finding.code == code


@pytest.mark.parametrize("code", COMPUTED)
def test_diagnosis_of_a_computed_value_names_the_mistake(code: str) -> None:
    profile, computed = COMPUTED[code]
    request = request_of(profile)
    finding = diagnose_request(request, profile=profile, computed=computed)
    assert finding.code == code


@pytest.mark.parametrize("profile", SECRETS)
def test_diagnosis_of_a_right_request_is_valid(profile: str) -> None:
    assert diagnose_request(request_of(profile), profile=profile).code == "valid"


@pytest.mark.parametrize("secret", [SEED])
def test_diagnosis_of_an_ed25519_signature_is_valid(secret: str) -> None:
    request = request_of("standard", secret=secret)
    assert diagnose_request(request, secret, profile="standard").code == "valid"


def test_messages_are_distinct_and_each_has_a_test() -> None:
    assert set(MESSAGES) == set(REQUESTS) | set(COMPUTED)
    problems = [problem for problem, _ in MESSAGES.values()]
    assert len(set(problems)) == len(problems)


@pytest.mark.parametrize("code", REQUESTS)
def test_findings_never_contain_a_secret(code: str) -> None:
    request, options = REQUESTS[code]
    finding = diagnose_request(request, **options)
    secrets = [options.get("secret", ""), *SECRETS.values()]
    assert not any(s.strip() and s.strip() in repr(finding) for s in secrets)
