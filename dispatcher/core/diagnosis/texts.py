"""Reads digests and JSON out of what people paste."""

import base64
import binascii
import json
from collections.abc import Iterator

DIGEST_BYTES = 32
WHITESPACE = " \t\r\n\v\f\u00a0\u200b\ufeff"
_DIGEST_LENGTHS = frozenset({16, 20, 32, 48, 64})
"""Bytes of MD5, SHA-1, SHA-256, SHA-384 and SHA-512."""


def decode_base64(text: str) -> bytes | None:
    """Return the decoded bytes, None where the text is not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def decode_base64_text(text: str) -> str | None:
    """Return the ASCII text that was encoded in base64, None where there is none."""
    raw = decode_base64(text)
    if not raw:
        return None
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        return None


def is_hex_digest(text: str) -> bool:
    """Return whether the text is 32 bytes in hexadecimal digits."""
    digits = set("0123456789abcdefABCDEF")
    return len(text) == 2 * DIGEST_BYTES and set(text) <= digits


def is_base64_digest(text: str) -> bool:
    """Return whether the text is 32 bytes in base64."""
    raw = decode_base64(text) if not is_hex_digest(text) else None
    return raw is not None and len(raw) == DIGEST_BYTES


def read_digest(text: str) -> bytes | None:
    """Return the bytes of a digest in hex or base64 of any usual length."""
    try:
        raw: bytes | None = bytes.fromhex(text)
    except ValueError:
        raw = decode_base64(text)
    return raw if raw is not None and len(raw) in _DIGEST_LENGTHS else None


def parse_json(body: bytes | None) -> object:
    """Return the JSON value, None where there is none."""
    if body is None:
        return None
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value


def canonical_json(body: bytes) -> str | None:
    """Return one text for all spellings of a JSON value."""
    value = parse_json(body)
    return None if value is None else json.dumps(value, sort_keys=True)


def serialisations(value: object) -> Iterator[bytes]:
    """Yield the ways in which common languages write a JSON value."""
    for ascii_only in (False, True):
        for separators in ((",", ":"), (", ", ": ")):
            for sort_keys in (False, True):
                try:
                    yield json.dumps(
                        value, ensure_ascii=ascii_only, separators=separators, sort_keys=sort_keys
                    ).encode()
                except (ValueError, TypeError, RecursionError):
                    return
