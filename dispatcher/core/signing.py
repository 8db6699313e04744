"""Signatures: a signer is compiled per endpoint and makes the value of the signature's header.

Everything that does not change from attempt to attempt is worked out once: the keys, the order of
the signed parts, the text around the signatures. Each attempt costs one join and one HMAC
per key. Ed25519 costs some twenty times an HMAC, which is why it is the endpoint owner's choice.
"""

import binascii
import hashlib
from collections.abc import Callable, Sequence

from dispatcher.core.errors import SecretError
from dispatcher.core.profile import HeaderSource, Profile, SignatureEncoding, SignedPart
from dispatcher.core.secret import Secret, signing_key

_BLOCK_BYTES = 64
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))

_Sign = Callable[[bytes], str]


class Signer:
    """Signs attempts with each of an endpoint's secrets, newest first."""

    __slots__ = ("_content", "_lead", "_only", "_separator", "_signs", "header")

    def __init__(self, profile: Profile, secrets: Sequence[Secret]) -> None:
        """Compiles the keys.

        Raises:
            SecretError: none, several where the format has room for one, or one of a wrong form.
        """
        if not secrets or (len(secrets) > 1 and not profile.several_signatures):
            raise SecretError(f"the profile {profile.name} has no room for {len(secrets)} secrets")
        rules = profile.signature
        self.header = rules.header
        """The name of the header."""
        self._separator = rules.separator or ""
        self._lead = tuple((part.text, part.source) for part in rules.lead)
        self._content = _content(rules.content)
        self._signs = [_sign(profile, secret) for secret in secrets]
        self._only = self._signs[0] if len(secrets) == 1 else None

    def sign(
        self, *, event_id: str, delivery_id: str, event_type: str, timestamp: int, body: bytes
    ) -> str:
        """Return the value of the signature's header for one attempt.

        `timestamp` is the attempt's, in whole seconds since 1970.
        """
        content = self._content(event_id, delivery_id, timestamp, body)
        if self._only is not None:
            signatures = self._only(content)
        else:
            signatures = self._separator.join([sign(content) for sign in self._signs])
        if not self._lead:
            return signatures
        values = {
            HeaderSource.EVENT_ID: event_id,
            HeaderSource.DELIVERY_ID: delivery_id,
            HeaderSource.EVENT_TYPE: event_type,
            HeaderSource.TIMESTAMP: str(timestamp),
        }
        lead = [text if source is None else values[source] for text, source in self._lead]
        return "".join(lead) + signatures


def signed_content(
    profile: Profile, *, event_id: str, delivery_id: str, timestamp: int, body: bytes
) -> bytes:
    """Return the bytes that a profile's signature is made over, to be shown to a person."""
    return _content(profile.signature.content)(event_id, delivery_id, timestamp, body)


_Content = Callable[[str, str, int, bytes], bytes]


def _content(parts: tuple[SignedPart, ...]) -> _Content:
    """Return the function that joins the signed parts; the usual orders have no loop."""
    match parts:
        case (SignedPart.BODY,):
            return lambda _event_id, _delivery_id, _timestamp, body: body
        case (SignedPart.TIMESTAMP, SignedPart.BODY):
            return lambda _event_id, _delivery_id, timestamp, body: b"%d.%b" % (timestamp, body)
        case (SignedPart.EVENT_ID, SignedPart.TIMESTAMP, SignedPart.BODY):
            return lambda event_id, _delivery_id, timestamp, body: (
                b"%b.%d.%b" % (event_id.encode(), timestamp, body)
            )
        case _:
            return lambda event_id, delivery_id, timestamp, body: b".".join(
                [_part(part, event_id, delivery_id, timestamp, body) for part in parts]
            )


def _part(part: SignedPart, event_id: str, delivery_id: str, timestamp: int, body: bytes) -> bytes:
    values = {
        SignedPart.EVENT_ID: event_id.encode(),
        SignedPart.DELIVERY_ID: delivery_id.encode(),
        SignedPart.TIMESTAMP: str(timestamp).encode(),
        SignedPart.BODY: body,
    }
    return values[part]


def _sign(profile: Profile, secret: Secret) -> _Sign:
    rules = profile.signature
    key = signing_key(profile, secret)
    if rules.encoding is SignatureEncoding.SECRET:
        token = rules.prefix + secret.reveal()
        return lambda _content: token
    write = _WRITERS[rules.encoding]
    if isinstance(key, bytes):
        return _hmac_sha256(key, rules.prefix, write)
    asymmetric_prefix = profile.ed25519.signature_prefix if profile.ed25519 is not None else ""
    return lambda content: asymmetric_prefix + write(key.sign(content))


def _hmac_sha256(key: bytes, prefix: str, write: Callable[[bytes], str]) -> _Sign:
    """Return the written HMAC-SHA256 under `key`, whose two blocks are hashed once and for all.

    For 550 bytes this takes 0.9 us, against 1.6 us of `hmac.digest`, which hashes them each time.

    Source: RFC 2104, 2 and 4.
    """
    block = (hashlib.sha256(key).digest() if len(key) > _BLOCK_BYTES else key).ljust(
        _BLOCK_BYTES, b"\0"
    )
    inner = hashlib.sha256(block.translate(_INNER))
    outer = hashlib.sha256(block.translate(_OUTER))

    def sign(content: bytes) -> str:
        inside = inner.copy()
        inside.update(content)
        outside = outer.copy()
        outside.update(inside.digest())
        return prefix + write(outside.digest())

    return sign


def _hex(signature: bytes) -> str:
    return signature.hex()


def _base64(signature: bytes) -> str:
    return binascii.b2a_base64(signature, newline=False).decode()


_WRITERS = {SignatureEncoding.HEX: _hex, SignatureEncoding.BASE64: _base64}
