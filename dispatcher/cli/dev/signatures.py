"""Verifies what came off the wire: with the receivers' own file, and with ed25519 beside it.

`dispatcher/verify.py` needs nothing but the standard library, which knows no ed25519; that one kind is verified here.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dispatcher.verify import VerificationError, verify

SIGNATURE_HEADERS: Mapping[str, str] = {
    "wms": "x-wms-signature",
    "humansoft": "x-webhook-signature",
    "standard": "webhook-signature",
    "github": "x-hub-signature-256",
    "stripe": "stripe-signature",
}
_SEED_BYTES = 32
_ASYMMETRIC = ("whsk_", "whpk_")


def profile_of(headers: Mapping[str, str]) -> str | None:
    """Returns the profile whose signature header is there; names in lower case."""
    return next((name for name, header in SIGNATURE_HEADERS.items() if header in headers), None)


def verify_any(
    headers: Mapping[str, str],
    body: bytes,
    secrets: Sequence[str],
    *,
    profile: str,
    tolerance: float,
    now: float,
) -> None:
    """Returns if the request was signed with one of the secrets, or by one of the public keys.

    `headers` have names in lower case.

    Raises:
        VerificationError: it was not, or it cannot be told.
    """
    keys = (
        [secret for secret in secrets if secret.startswith(_ASYMMETRIC)]
        if profile == "standard"
        else []
    )
    shared = [secret for secret in secrets if secret not in keys]
    if keys and _is_signed_by(headers, body, keys):
        # The time is judged by the same rule; a signature of ours in its place says so.
        _check_time(headers, tolerance, now)
        return
    if not shared and keys:
        raise VerificationError("wrong_signature", "no signature of the request is of this key")
    verify(headers, body, shared, profile=profile, tolerance=tolerance, now=now)


def signed_at(headers: Mapping[str, str], profile: str) -> int | None:
    """Returns the signed time in seconds since 1970, None where the format has none or it is malformed."""
    text = headers.get(
        {"humansoft": "x-webhook-timestamp", "standard": "webhook-timestamp"}.get(profile, ""), ""
    )
    if profile == "stripe":
        parts = headers.get("stripe-signature", "").split(",")
        text = next((part[2:] for part in parts if part.startswith("t=")), "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None  # noqa: PLR2004 -- as verify.py


def _check_time(headers: Mapping[str, str], tolerance: float, now: float) -> None:
    at = signed_at(headers, "standard")
    if at is None:
        raise VerificationError("malformed_header", "the timestamp is no whole number of seconds")
    if abs(now - at) > tolerance:
        raise VerificationError(
            "wrong_time", f"the request is {now - at:.0f} s old, {tolerance:.0f} s are allowed"
        )


def _is_signed_by(headers: Mapping[str, str], body: bytes, keys: Sequence[str]) -> bool:
    try:
        start = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode()
        received = headers["webhook-signature"].split(" ")
    except KeyError as missing:
        raise VerificationError("missing_header", f"there is no header {missing.args[0]}") from None
    publics = [_public_key(key) for key in keys]
    for signature in received:
        if not signature.startswith("v1a,"):
            continue
        for public in publics:
            try:
                public.verify(base64.b64decode(signature[4:], validate=True), start + body)
            except (InvalidSignature, binascii.Error):
                continue
            return True
    return False


def _public_key(text: str) -> Ed25519PublicKey:
    try:
        raw = base64.b64decode(text[5:], validate=True)
        if text.startswith("whpk_"):
            return Ed25519PublicKey.from_public_bytes(raw)
        return Ed25519PrivateKey.from_private_bytes(raw[:_SEED_BYTES]).public_key()
    except (binascii.Error, ValueError):
        raise VerificationError("unusable_secret", "this is no ed25519 key in base64") from None
