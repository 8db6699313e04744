"""What goes out under `standard` is accepted by code that is not ours."""

import base64
from datetime import UTC, datetime

import pytest
import standardwebhooks
import time_machine
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.envelope import encode
from dispatcher.core.secret import Secret, generate, public_key
from dispatcher.core.signing import Signer
from dispatcher.verify import VerificationError, verify
from tests.wire.json_texts import objects
from tests.wire.vectors import NOW, OTHER_SECRETS, PROFILES, SECRETS, event, head, headers_of

STANDARD = PROFILES["standard"]


def test_the_published_vector_is_met() -> None:
    signer = Signer(STANDARD, [Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")])
    signature = signer.sign(
        event_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        delivery_id="",
        event_type="",
        timestamp=1614265330,
        body=b'{"test": 2432232314}',
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@time_machine.travel(datetime.fromtimestamp(NOW, UTC), tick=False)
@given(objects, st.binary(min_size=24, max_size=64))
@pytest.mark.shows("W3")
def test_the_reference_library_accepts_what_is_sent(data: str, key: bytes) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    body = encode(STANDARD, event(data)).body
    headers = headers_of(head("standard", body, [secret]))
    standardwebhooks.Webhook(secret).verify(body, headers)


@time_machine.travel(datetime.fromtimestamp(NOW, UTC), tick=False)
@pytest.mark.parametrize("secret", [SECRETS["standard"], OTHER_SECRETS["standard"]])
def test_during_a_rotation_the_reference_library_accepts_old_and_new(secret: str) -> None:
    body = encode(STANDARD, event()).body
    both = [OTHER_SECRETS["standard"], SECRETS["standard"]]
    headers = headers_of(head("standard", body, both))
    standardwebhooks.Webhook(secret).verify(body, headers)


def test_an_ed25519_signature_verifies_under_the_public_key_that_is_shown() -> None:
    secret = Secret("whsk_" + base64.b64encode(bytes(range(32))).decode())
    shown = public_key(STANDARD, secret)
    assert shown is not None
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(shown.removeprefix("whpk_")))
    body = encode(STANDARD, event()).body
    headers = headers_of(head("standard", body, [secret.reveal()]))
    version, _, signature = headers["webhook-signature"].partition(",")
    assert version == "v1a"
    key.verify(base64.b64decode(signature), f"evt_2026_001234.{NOW}.".encode() + body)


def test_a_rotation_from_hmac_to_ed25519_signs_with_both() -> None:
    seed = Ed25519PrivateKey.from_private_bytes(bytes(32)).private_bytes_raw()
    new = "whsk_" + base64.b64encode(seed).decode()
    headers = headers_of(head("standard", b"{}", [new, SECRETS["standard"]]))
    kinds = [part.partition(",")[0] for part in headers["webhook-signature"].split(" ")]
    assert kinds == ["v1a", "v1"]
    verify(headers, b"{}", SECRETS["standard"], profile="standard", now=NOW)


def test_our_verifier_says_clearly_that_it_knows_no_ed25519() -> None:
    secret = "whsk_" + base64.b64encode(bytes(32)).decode()
    headers = headers_of(head("standard", b"{}", [secret]))
    for given_secret in (secret, "whpk_AAAA", SECRETS["standard"]):
        with pytest.raises(VerificationError, match="ed25519") as caught:
            verify(headers, b"{}", given_secret, profile="standard", now=NOW)
        assert caught.value.reason == "unusable_secret"


@given(st.binary(min_size=32, max_size=32))
def test_a_generated_secret_is_one_the_reference_library_can_read(random: bytes) -> None:
    secret = generate(STANDARD, lambda count: random[:count]).reveal()
    assert base64.b64decode(secret.removeprefix("whsec_"), validate=True) == random
