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


def test_missing_keys_are_named_each():
    [problem] = Keyring({"k2": NEW}).missing_keys(["k1", "k2"])
    assert "'k1' is missing" in problem
    assert Keyring({"k2": NEW}).missing_keys([]) == []


def test_a_proof_fits_the_value_that_made_it_alone():
    mine, other = Keyring({"k1": OLD, "k2": NEW}), Keyring({"k1": NEW, "k2": NEW})
    proofs = {key_id: mine.proof(key_id, NONCE) for key_id in ("k1", "k2")}
    assert mine.wrong_keys(proofs, []) == []
    [problem] = other.wrong_keys(proofs, [])
    assert problem.startswith("DISPATCHER_SECRET_KEYS: key 'k1' has another value")
    assert mine.wrong_keys({"k1": proofs["k2"]}, []), "a proof of another id"
    assert mine.wrong_keys({"k1": b"short"}, [])
    assert Keyring({"k3": NEW}).wrong_keys(proofs, []) == [], "ids of its own"


def test_a_proof_is_no_secret_and_a_secret_no_proof():
    keyring = Keyring({"k1": OLD})
    secret = keyring.seal("dispatcher", owner="ep", nonce=NONCE)
    assert keyring.wrong_keys({"k1": secret}, [])
    with pytest.raises(SecretError):
        keyring.open(keyring.proof("k1", NONCE), owner="ep", key_id="k1")


def test_without_a_proof_one_secret_that_opens_is_enough():
    mine, other = Keyring({"k1": b"1" * 32}), Keyring({"k1": b"2" * 32})
    sealed = [
        ("ep_1", "k1", mine.seal("one secret", owner="ep_1", nonce=b"n" * 12)),
        ("ep_2", "k1", b"spoilt bytes, long enough for a nonce"),
    ]
    assert mine.wrong_keys({}, sealed) == [], "one spoilt row is that row's fault"
    [problem] = other.wrong_keys({}, sealed)
    assert "'k1'" in problem
