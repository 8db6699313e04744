"""What a profile signs and with which keys, computed from a captured request."""

import base64
import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dispatcher.core.diagnosis.texts import DIGEST_BYTES, decode_base64
from dispatcher.core.errors import SecretError
from dispatcher.core.profile import Profile, SignatureEncoding, SignedPart
from dispatcher.core.secret import Secret, signing_key


class Request(NamedTuple):
    """A captured request as the receiver got it."""

    headers: Mapping[str, Sequence[str]]
    """By name in lower case, every value of each."""
    body: bytes


class Context(NamedTuple):
    """The values that a request's headers give to the signed content."""

    event_id: str
    delivery_id: str
    timestamp: str


def keys_of(secret: Secret, profile: Profile) -> list[bytes]:
    """Return the HMAC key or the public key's 32 bytes marked by the profile; none if malformed."""
    text = secret.reveal()
    if profile.ed25519 is not None:
        for prefix in (profile.ed25519.public_key_prefix, profile.ed25519.secret_prefix):
            if text.startswith(prefix):
                key = _public_bytes(text, prefix, profile)
                return [] if key is None else [ASYMMETRIC + key]
    try:
        key_or_signer = signing_key(profile, secret)
    except SecretError:
        return []
    return [key_or_signer] if isinstance(key_or_signer, bytes) else []


ASYMMETRIC = b"ed25519:"
"""Marks a public key among HMAC keys, which are at least 8 printable or 24 random bytes."""


def _public_bytes(text: str, prefix: str, profile: Profile) -> bytes | None:
    raw = decode_base64(text.removeprefix(prefix))
    if raw is None or profile.ed25519 is None:
        return None
    if prefix == profile.ed25519.public_key_prefix:
        return raw if len(raw) == DIGEST_BYTES else None
    if len(raw) < DIGEST_BYTES:
        return None
    private = Ed25519PrivateKey.from_private_bytes(raw[:DIGEST_BYTES])
    return private.public_key().public_bytes_raw()


def is_signed(
    received: Iterable[str],
    keys: Iterable[bytes],
    context: Context,
    body: bytes,
    profile: Profile,
) -> bool:
    """Return whether one of the received signatures was made with one of the keys over this body."""
    content = signed_content(profile, context, body)
    for key in keys:
        if key.startswith(ASYMMETRIC):
            if _verifies(key.removeprefix(ASYMMETRIC), received, content, profile):
                return True
            continue
        expected = signature_of(profile, key, content).encode()
        if any(hmac.compare_digest(part.encode("utf-8", "replace"), expected) for part in received):
            return True
    return False


def _verifies(public: bytes, received: Iterable[str], content: bytes, profile: Profile) -> bool:
    prefix = profile.ed25519.signature_prefix if profile.ed25519 is not None else ""
    for part in received:
        signature = decode_base64(part.removeprefix(prefix)) if part.startswith(prefix) else None
        if signature is None:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, content)
        except InvalidSignature:
            continue
        return True
    return False


def signature_of(profile: Profile, key: bytes, content: bytes) -> str:
    """Return the HMAC signature with its prefix, as the header has it."""
    digest = hmac.digest(key, content, "sha256")
    if profile.signature.encoding is SignatureEncoding.HEX:
        return profile.signature.prefix + digest.hex()
    return profile.signature.prefix + base64.b64encode(digest).decode()


def part_values(context: Context, body: bytes) -> dict[SignedPart, bytes]:
    """Return the bytes of every part that a profile may sign."""
    return {
        SignedPart.EVENT_ID: context.event_id.encode("utf-8", "replace"),
        SignedPart.DELIVERY_ID: context.delivery_id.encode("utf-8", "replace"),
        SignedPart.TIMESTAMP: context.timestamp.encode("utf-8", "replace"),
        SignedPart.BODY: body,
    }


def signed_content(profile: Profile, context: Context, body: bytes) -> bytes:
    """Return the bytes that the profile signs."""
    values = part_values(context, body)
    return b".".join(values[part] for part in profile.signature.content)


def describe_content(profile: Profile) -> str:
    """Return the signed content as a person writes it, for example timestamp + "." + body."""
    names = {
        SignedPart.EVENT_ID: "id",
        SignedPart.DELIVERY_ID: "delivery id",
        SignedPart.TIMESTAMP: "timestamp",
        SignedPart.BODY: "body",
    }
    return ' + "." + '.join(names[part] for part in profile.signature.content)
