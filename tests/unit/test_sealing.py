"""A sealed secret opens for its owner, under its key, unaltered; in any other case it does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.errors import SecretError
from dispatcher.core.sealing import NONCE_BYTES, Keyring

NONCE = bytes(range(NONCE_BYTES))
OLD, NEW = b"o" * 32, b"n" * 32


@given(
    secret=st.text(max_size=300),
    owner=st.text(max_size=40),
    nonce=st.binary(min_size=12, max_size=12),
)
def test_what_was_sealed_opens(secret, owner, nonce):
    keyring = Keyring({"k1": NEW})
    sealed = keyring.seal(secret, owner=owner, nonce=nonce)
    assert keyring.open(sealed, owner=owner, key_id="k1") == secret
    assert len(sealed) == NONCE_BYTES + len(secret.encode()) + 16


@given(place=st.integers(min_value=0, max_value=33), flip=st.integers(min_value=1, max_value=255))
def test_a_single_changed_byte_does_not_open(place, flip):
    keyring = Keyring({"k1": NEW})
    sealed = bytearray(keyring.seal("secret", owner="ep", nonce=NONCE))
    sealed[place] ^= flip
    with pytest.raises(SecretError, match="does not open"):
        keyring.open(bytes(sealed), owner="ep", key_id="k1")


@given(length=st.integers(min_value=0, max_value=33))
def test_a_cut_secret_does_not_open(length):
    keyring = Keyring({"k1": NEW})
    sealed = keyring.seal("secret", owner="ep", nonce=NONCE)
    with pytest.raises(SecretError):
        keyring.open(sealed[:length], owner="ep", key_id="k1")


def test_moved_to_another_row_it_does_not_open():
    keyring = Keyring({"k1": NEW})
    with pytest.raises(SecretError, match="ep2"):
        keyring.open(keyring.seal("secret", owner="ep1", nonce=NONCE), owner="ep2", key_id="k1")


def test_sealed_under_another_key_id_does_not_open_with_equal_bytes():
    keyring = Keyring({"k1": NEW, "k2": NEW})
    sealed = keyring.seal("secret", owner="ep", nonce=NONCE)
    with pytest.raises(SecretError):
        keyring.open(sealed, owner="ep", key_id="k2")


def test_the_first_key_seals_and_all_open():
    before = Keyring({"old": OLD})
    sealed = before.seal("secret", owner="ep", nonce=NONCE)
    after = Keyring({"new": NEW, "old": OLD})
    assert after.sealing_key_id == "new"
    assert after.open(sealed, owner="ep", key_id="old") == "secret"
    with pytest.raises(SecretError):
        before.open(after.seal("secret", owner="ep", nonce=NONCE), owner="ep", key_id="old")


def test_a_key_that_is_not_configured_is_named():
    with pytest.raises(SecretError, match="'gone', which is not configured"):
        Keyring({"k1": NEW}).open(b"x" * 40, owner="ep", key_id="gone")


def test_a_keyring_that_cannot_read_what_is_sealed_is_told_as_a_whole():
    mine, other = Keyring({"k1": b"1" * 32}), Keyring({"k1": b"2" * 32})
    sealed = [
        ("ep_1", "k1", mine.seal("one secret", owner="ep_1", nonce=b"n" * 12)),
        ("ep_2", "k1", b"spoilt bytes, long enough for a nonce"),
    ]
    assert mine.problems(sealed) == [], "one spoilt row is that row's fault"
    assert mine.problems([]) == []
    [problem] = other.problems(sealed)
    assert "open none" in problem
    [problem] = Keyring({"k2": b"1" * 32}).problems(sealed)
    assert "'k1' is missing" in problem
