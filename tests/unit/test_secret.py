"""Secrets: never shown by accident, made in the profile's form, and refused in any other."""

import base64
import copy
import pickle
import re

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.errors import SecretError
from dispatcher.core.secret import Secret, check, generate, mask, public_key, signing_key
from tests.wire.vectors import PROFILES

STANDARD = PROFILES["standard"]
SEED = bytes(range(32))
PAIR = SEED + Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw()


def standard(prefix: str, key: bytes) -> Secret:
    return Secret(prefix + base64.b64encode(key).decode())


@given(st.text(alphabet=st.characters(codec="ascii"), min_size=9, max_size=300))
def test_no_way_of_printing_a_secret_shows_it(text: str) -> None:
    secret = Secret(text)
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r:>4}", "%s" % secret):  # noqa: UP031 -- one of the ways to show it
        assert text not in shown


def test_a_secret_is_not_pickled() -> None:
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(Secret("whsec_1234567890"))
    with pytest.raises(TypeError, match="pickled"):
        copy.deepcopy(Secret("whsec_1234567890"))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("whse000000000000000000005799", "whse********5799"),
        ("a" * 23, "********"),
        ("b" * 24, "bbbb********bbbb"),
        ("", "********"),
    ],
)
def test_the_mask_shows_the_ends_of_long_secrets_only(text: str, masked: str) -> None:
    assert mask(Secret(text)) == masked


def test_secrets_are_compared_by_text() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1


@pytest.mark.parametrize(
    ("profile", "form"),
    [
        ("wms", r"whsec_[A-Za-z0-9]{40}"),
        ("humansoft", r"whse[A-Za-z0-9]{40}"),
        ("standard", r"whsec_[A-Za-z0-9+/]{43}="),
        ("github", r"[A-Za-z0-9]{40}"),
        ("stripe", r"whsec_[A-Za-z0-9]{40}"),
    ],
)
@given(randoms=st.randoms(use_true_random=False))
def test_a_made_secret_has_the_profiles_form(profile: str, form: str, randoms: object) -> None:
    secret = generate(PROFILES[profile], randoms.randbytes)  # type: ignore[attr-defined] # hypothesis types it as object
    assert re.fullmatch(form, secret.reveal())
    check(PROFILES[profile], secret)


def test_letters_and_digits_are_drawn_evenly() -> None:
    batches = iter([bytes(range(216, 256)), bytes([255] * 40), bytes(range(9, 49))])
    text = generate(PROFILES["github"], lambda _count: next(batches)).reveal()
    # 216 to 247 are used, 248 to 255 would come up too often and are drawn again.
    assert text == "".join((LETTERS_AND_DIGITS * 4)[216:248]) + LETTERS_AND_DIGITS[9:17]


LETTERS_AND_DIGITS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@pytest.mark.parametrize("profile", ["wms", "humansoft", "github", "stripe"])
@pytest.mark.parametrize(
    "text", ["a" * 7, "a" * 257, "sécret-123", "tab\there1", "a\r\nb: c1234", ""]
)
def test_a_given_text_secret_has_8_to_256_printable_ascii_characters(
    profile: str, text: str
) -> None:
    with pytest.raises(SecretError, match="8 to 256 printable ASCII"):
        check(PROFILES[profile], Secret(text))


@pytest.mark.parametrize("text", ["a" * 8, "~" * 256, "with spaces in it"])
def test_the_key_of_a_text_secret_is_the_whole_text(text: str) -> None:
    assert signing_key(PROFILES["wms"], Secret(text)) == text.encode()


@pytest.mark.parametrize(
    "secret",
    [
        standard("whsec_", bytes(23)),
        standard("whsec_", bytes(65)),
        standard("", bytes(32)),
        standard("whsk_", bytes(31)),
        standard("whsk_", SEED + bytes(32)),
        standard("whpk_", bytes(32)),
        Secret("whsec_" + "*" * 44),
        Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS"),
        Secret("whsec_" + "-_" * 22),
    ],
)
def test_another_form_is_refused_under_standard_without_quoting_it(secret: Secret) -> None:
    with pytest.raises(SecretError) as caught:
        check(STANDARD, secret)
    assert secret.reveal()[6:] not in str(caught.value)


@given(st.binary(min_size=24, max_size=64))
def test_the_key_under_standard_is_the_decoded_base64(key: bytes) -> None:
    assert signing_key(STANDARD, standard("whsec_", key)) == key


@pytest.mark.parametrize("key", [SEED, PAIR])
def test_seed_and_key_pair_give_the_same_public_key(key: bytes) -> None:
    shown = "whpk_" + base64.b64encode(PAIR[32:]).decode()
    assert public_key(STANDARD, standard("whsk_", key)) == shown


def test_shared_secrets_have_no_public_key() -> None:
    assert public_key(STANDARD, standard("whsec_", bytes(32))) is None
    assert public_key(PROFILES["wms"], Secret("whsk_12345678")) is None


def test_only_profiles_that_say_so_do_without_a_secret() -> None:
    for name, profile in PROFILES.items():
        if name in {"wms", "github"}:
            check(profile, None)
        else:
            with pytest.raises(SecretError, match="always signs"):
                check(profile, None)
