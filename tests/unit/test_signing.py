"""A signer signs the profile's content with each secret, as the standard library would."""

import base64
import hmac

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.core.errors import SecretError
from dispatcher.core.secret import Secret
from dispatcher.core.signing import Signer
from tests.wire.vectors import PROFILES, SECRETS

printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=8, max_size=256)


@given(printable, st.binary(max_size=3000), st.integers(0, 2**40))
@example("k" * 64, b"{}", 1)
@example("k" * 65, b"{}", 1)
@example("k" * 256, b"", 1)
def test_the_signature_is_the_hmac_of_the_content(text: str, body: bytes, at: int) -> None:
    def sign(profile: str) -> str:
        return Signer(PROFILES[profile], [Secret(text)]).sign(
            event_id="evt_1", delivery_id="wh_1", event_type="a.b", timestamp=at, body=body
        )

    over_body = hmac.digest(text.encode(), body, "sha256").hex()
    over_time = hmac.digest(text.encode(), f"{at}.".encode() + body, "sha256").hex()
    assert sign("wms") == sign("github") == f"sha256={over_body}"
    assert sign("humansoft") == f"sha256={over_time}"
    assert sign("stripe") == f"t={at},v1={over_time}"


@given(st.lists(st.binary(min_size=24, max_size=64), min_size=1, max_size=3), st.binary())
def test_every_secret_signs_and_the_newest_comes_first(keys: list[bytes], body: bytes) -> None:
    secrets = [Secret("whsec_" + base64.b64encode(key).decode()) for key in keys]
    value = Signer(PROFILES["standard"], secrets).sign(
        event_id="evt_1", delivery_id="wh_1", event_type="a.b", timestamp=9, body=body
    )
    expected = [hmac.digest(key, b"evt_1.9." + body, "sha256") for key in keys]
    assert value == " ".join("v1," + base64.b64encode(one).decode() for one in expected)


@pytest.mark.parametrize("profile", ["wms", "humansoft", "github"])
def test_a_format_with_room_for_one_signature_takes_one_secret(profile: str) -> None:
    with pytest.raises(SecretError, match="no room for 2"):
        Signer(PROFILES[profile], [Secret(SECRETS[profile])] * 2)


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_nothing_is_signed_without_a_secret(profile: str) -> None:
    with pytest.raises(SecretError, match="no room for 0"):
        Signer(PROFILES[profile], [])
