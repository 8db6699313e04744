"""The exact bytes of every profile, spelled out: a change here is a change for every receiver."""

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.envelope import encode
from tests.wire.vectors import DATA, DELIVERY_ID, PROFILES, SECRETS, event, head

BODIES = {
    "wms": '{"id":"evt_2026_001234","type":"order.shipped","timestamp":"2026-05-29T14:32:11Z",'
    '"data":' + DATA + "}",
    "humansoft": '{"request_id":"req_51f54e2469b7ee44","event":"order.shipped",'
    '"event_occurred_at":"2026-05-29 21:32:11","body":'
    '{"order_id":"ORD-2026-1234","customer":"บริษัท ตัวอย่าง จำกัด","weight":12}}',
    "standard": '{"type":"order.shipped","timestamp":"2026-05-29T14:32:11.987654Z","data":'
    + DATA
    + "}",
    "github": DATA,
    "stripe": '{"id":"evt_2026_001234","type":"order.shipped","timestamp":"2026-05-29T14:32:11Z",'
    '"data":' + DATA + "}",
}

COMMON = (
    "POST /webhooks/wms HTTP/1.1\r\n"
    "Host: erp.example.com\r\n"
    "Content-Type: application/json\r\n"
    "User-Agent: dispatcher/1.0.0\r\n"
    "Accept-Encoding: identity\r\n"
    "Content-Length: {length}\r\n"
)
OWN_HEADERS = {
    "wms": "X-WMS-Signature: sha256={body_hex}\r\n",
    "humansoft": f"X-Webhook-ID: {DELIVERY_ID}\r\n"
    "X-Webhook-Event: order.shipped\r\n"
    "X-Webhook-Timestamp: 1780065131\r\n"
    "X-Webhook-Signature: sha256={timestamp_hex}\r\n",
    "standard": "webhook-id: evt_2026_001234\r\n"
    "webhook-timestamp: 1780065131\r\n"
    "webhook-signature: v1,w/8nKUPXv/ZMxgEGicSN/VE0Js8sUqlk/QJolBVW+I4=\r\n",
    "github": "X-GitHub-Event: order.shipped\r\n"
    f"X-GitHub-Delivery: {DELIVERY_ID}\r\n"
    "X-Hub-Signature-256: sha256={body_hex}\r\n",
    "stripe": "Stripe-Signature: t=1780065131,v1={timestamp_hex}\r\n",
}


@pytest.mark.parametrize("profile", sorted(PROFILES))
@pytest.mark.shows("W1")
def test_the_body_has_these_bytes(profile: str) -> None:
    assert encode(PROFILES[profile], event()).body == BODIES[profile].encode()


@pytest.mark.parametrize("profile", sorted(PROFILES))
@pytest.mark.shows("W1")
def test_the_head_has_these_bytes(profile: str) -> None:
    body = BODIES[profile].encode()
    key = SECRETS[profile].encode()
    expected = (COMMON + OWN_HEADERS[profile] + "\r\n").format(
        length=len(body),
        body_hex=hmac.new(key, body, "sha256").hexdigest(),
        timestamp_hex=hmac.new(key, b"1780065131." + body, "sha256").hexdigest(),
    )
    assert head(profile, body, [SECRETS[profile]]).decode() == expected


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_without_a_secret_only_the_signature_is_missing(profile: str) -> None:
    body = BODIES[profile].encode()
    signed = head(profile, body, [SECRETS[profile]]).decode().split("\r\n")
    unsigned = head(profile, body, []).decode().split("\r\n")
    signature = PROFILES[profile].signature.header + ": "
    assert unsigned == [line for line in signed if not line.startswith(signature)]


def test_the_policies_are_those_of_the_documents() -> None:
    policies = {
        name: (
            profile.retry_schedule_seconds,
            profile.jitter,
            profile.timeout_seconds,
            profile.https_only,
            profile.gone_disables,
            profile.secret.nullable,
            profile.several_signatures,
            profile.fixed_test is None,
        )
        for name, profile in PROFILES.items()
    }
    wms = (30, 120, 600, 3600, 21600)
    standard = (5, 300, 1800, 7200, 18000, 36000, 36000)
    jitter = (0.8, 1.2)
    assert policies == {
        "wms": (wms, None, 5, False, False, True, False, True),
        "humansoft": ((1, 2, 4), None, 10, True, False, False, False, False),
        "standard": (standard, jitter, 15, False, True, False, True, True),
        "github": (wms, None, 10, False, False, True, False, True),
        "stripe": (standard, jitter, 15, False, False, False, True, True),
    }


@given(st.sampled_from(sorted(PROFILES)), st.integers(0, 2**40))
@pytest.mark.shows("W2")
def test_only_timestamp_and_signature_change_between_attempts(profile: str, later: int) -> None:
    body = BODIES[profile].encode()
    moving = {"webhook-timestamp", "X-Webhook-Timestamp", PROFILES[profile].signature.header}
    first, second = (
        [
            line
            for line in head(profile, body, [SECRETS[profile]], timestamp=at).decode().split("\r\n")
            if line.split(":")[0] not in moving
        ]
        for at in (1, later)
    )
    assert first == second
