"""Verifies a webhook request. Copy this file: it needs nothing but Python 3.9 and its library.

Use it like this, with the body's bytes as they came off the wire, before anything parses them:

    from verify import VerificationError, verify

    try:
        verify(request.headers, request.body, SECRET, profile="standard")
    except VerificationError as error:
        return 400, str(error)

`profile` is the format that your endpoint was made with: wms, humansoft, standard, github, stripe.
Give a list of secrets while one is being replaced by another. Signatures are compared in constant
time. Where the format signs a timestamp (humansoft, standard, stripe), requests that are older or
newer than `tolerance` seconds are refused, so that a captured request cannot be sent again later;
in every format deduplicate by id as well.

Ed25519 signatures (`v1a,` under standard, keys `whpk_...`) cannot be verified with the standard
library alone: take a library that knows them, such as cryptography or PyNaCl.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

_TIMESTAMP_DIGITS_MAX = 12


class VerificationError(Exception):
    """The request is not to be trusted. `reason` is one of the words below, the text explains it.

    missing_header, malformed_header, wrong_time, wrong_signature: the request is invalid;
    unusable_secret, unknown_profile: the call is.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Format(NamedTuple):
    signature_header: str
    signed_headers: tuple[str, ...]
    """The headers whose values precede the body in the signed content, each followed by a full stop."""
    timestamp_header: str | None
    prefix: str
    """The prefix of each signature."""


_STANDARD = _Format(
    "webhook-signature", ("webhook-id", "webhook-timestamp"), "webhook-timestamp", "v1,"
)
_FORMATS = {
    "wms": _Format("X-WMS-Signature", (), None, "sha256="),
    "humansoft": _Format(
        "X-Webhook-Signature", ("X-Webhook-Timestamp",), "X-Webhook-Timestamp", "sha256="
    ),
    "standard": _STANDARD,
    "github": _Format("X-Hub-Signature-256", (), None, "sha256="),
    "stripe": _Format("Stripe-Signature", (), None, "v1="),
}


def verify(
    headers: Mapping[str, str] | Iterable[tuple[str, str]],
    body: bytes,
    secrets: str | Sequence[str],
    *,
    profile: str,
    tolerance: float = 300,
    now: float | None = None,
) -> None:
    """Returns if the request was signed with one of `secrets`, within `tolerance` seconds of now.

    `headers` is a mapping or pairs, their names in any case. `now` is in seconds since 1970 and
    stands in for the clock.

    Raises:
        VerificationError: it was not, or that cannot be decided.
    """
    form = _FORMATS.get(profile)
    if form is None:
        raise VerificationError("unknown_profile", f"there is no profile {profile!r} here")
    if not isinstance(body, (bytes, bytearray, memoryview)):
        raise TypeError("body must be the bytes as received: a parsed body cannot be verified")
    secrets = [secrets] if isinstance(secrets, str) else list(secrets)
    if not secrets or not all(secrets):
        # Everyone can sign with an empty key, such as an unset variable gives.
        raise VerificationError("unusable_secret", "there is no secret, or an empty one")
    keys = [_key(secret, profile) for secret in secrets]
    found = _lower_names(headers)
    received = _header(found, form.signature_header)
    if profile == "stripe":
        timestamp, received_signatures = _stripe(received)
        signed = timestamp + "."
    else:
        timestamp = _header(found, form.timestamp_header) if form.timestamp_header else ""
        received_signatures = received.split(" ") if profile == "standard" else [received]
        signed = "".join(_header(found, name) + "." for name in form.signed_headers)
    if timestamp or profile == "stripe":
        _check_time(timestamp, tolerance, time.time() if now is None else now)
    _check_signatures(
        [signature for signature in received_signatures if signature.startswith(form.prefix)],
        [form.prefix + _signature(key, signed, body, profile) for key in keys],
        only_ed25519=all(signature.startswith("v1a,") for signature in received_signatures),
    )


def _key(secret: str, profile: str) -> bytes:
    if profile != "standard":
        return secret.encode()
    if secret.startswith(("whsk_", "whpk_")):
        raise VerificationError(
            "unusable_secret",
            "this is an ed25519 key, which needs a library such as cryptography or PyNaCl",
        )
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        message = "a secret under standard is whsec_ and base64"
        raise VerificationError("unusable_secret", message) from None


def _lower_names(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name.lower(), []).append(value)
    return found


def _header(found: dict[str, list[str]], name: str) -> str:
    values = found.get(name.lower(), [])
    if not values:
        raise VerificationError("missing_header", f"there is no header {name}")
    if len(values) > 1:
        raise VerificationError("malformed_header", f"the header {name} occurs more than once")
    return values[0]


def _stripe(header: str) -> tuple[str, list[str]]:
    parts = header.split(",")
    timestamps = [part[len("t=") :] for part in parts if part.startswith("t=")]
    if len(timestamps) != 1:
        raise VerificationError("malformed_header", "the signature has no timestamp t=")
    return timestamps[0], parts


def _check_time(timestamp: str, tolerance: float, now: float) -> None:
    if not (
        timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= _TIMESTAMP_DIGITS_MAX
    ):
        raise VerificationError("malformed_header", "the timestamp is no whole number of seconds")
    difference = now - int(timestamp)
    if abs(difference) > tolerance:
        direction = "old" if difference > 0 else "in the future"
        message = (
            f"the request is {abs(difference):.0f} s {direction}, {tolerance:.0f} s are allowed"
        )
        raise VerificationError("wrong_time", message)


def _signature(key: bytes, signed: str, body: bytes, profile: str) -> str:
    # HTTP gives header values as Latin-1; ours are ASCII, so anything else simply does not match.
    content = signed.encode("utf-8", "replace") + bytes(body)
    digest = hmac.new(key, content, hashlib.sha256).digest()
    return base64.b64encode(digest).decode() if profile == "standard" else digest.hex()


def _check_signatures(received: list[str], expected: list[str], *, only_ed25519: bool) -> None:
    if only_ed25519:
        message = "the request is signed with ed25519, which needs a library such as cryptography"
        raise VerificationError("unusable_secret", message)
    # Every pair is compared, so that the time taken reveals nothing about which one matched.
    matches = [
        hmac.compare_digest(theirs.encode("utf-8", "replace"), ours.encode())
        for theirs in received
        for ours in expected
    ]
    if not any(matches):
        raise VerificationError("wrong_signature", "no signature of the request is ours")
