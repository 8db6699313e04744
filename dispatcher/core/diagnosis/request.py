"""Explains a request that the given secret does not verify."""

import base64
import hmac
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from dispatcher.core.diagnosis.mistakes import Failed, failure
from dispatcher.core.diagnosis.signed import Context, Request, is_signed, keys_of
from dispatcher.core.diagnosis.texts import (
    WHITESPACE,
    canonical_json,
    decode_base64_text,
    is_base64_digest,
    is_hex_digest,
    parse_json,
    serialisations,
)
from dispatcher.core.profile import HeaderSource, KeyForm, Profile, SignatureEncoding, SignedPart
from dispatcher.core.secret import Secret

_TIMESTAMP_DIGITS_MAX = 12
_MILLISECONDS_DIGITS = 13


class KnownSecret(NamedTuple):
    """A secret of the deployment, to recognise the one that the receiver uses by mistake."""

    kind: Literal["previous", "staged", "other_endpoint"]
    secret: Secret
    endpoint_name: str = ""


def read_request(
    request: Request, profile: Profile, others: Sequence[Profile]
) -> tuple[Context, list[str]]:
    """Return the signed values of the headers and the signatures without their prefixes."""
    rules = profile.signature
    values = request.headers.get(rules.header.lower(), ())
    if not values:
        for other in others:
            if other.signs and other.signature.header.lower() in request.headers:
                raise failure(
                    "wrong_profile_header",
                    header=rules.header,
                    found=other.signature.header,
                    profile=other.name,
                )
        raise failure("signature_header_missing", header=rules.header)
    if len(values) > 1:
        raise failure("signature_header_repeated", header=rules.header)
    value = values[0].strip()
    context = read_context(request, profile, value)
    signatures = [
        part.strip() for part in (value.split(rules.separator) if rules.separator else [value])
    ]
    prefixes = [rules.prefix, *([profile.ed25519.signature_prefix] if profile.ed25519 else [])]
    found = [part for part in signatures if any(part.startswith(p) for p in prefixes)]
    if not found:
        raise failure("signature_prefix_missing", header=rules.header, prefix=rules.prefix)
    if any(part.removeprefix(p).startswith(p) for part in found for p in prefixes if p):
        raise failure("signature_prefix_doubled", header=rules.header, prefix=rules.prefix)
    for part in found:
        _check_encoding(part, profile)
    return context, found


def _check_encoding(signature: str, profile: Profile) -> None:
    rules = profile.signature
    if not signature.startswith(rules.prefix):
        return
    digits = signature.removeprefix(rules.prefix)
    if rules.encoding is SignatureEncoding.HEX and is_base64_digest(digits):
        raise failure("signature_in_base64", header=rules.header)
    if rules.encoding is SignatureEncoding.BASE64 and is_hex_digest(digits):
        raise failure("signature_in_hex", header=rules.header)


def read_context(request: Request, profile: Profile, signature_value: str) -> Context:
    """Return the values of the headers that the profile signs."""
    values: dict[HeaderSource, str] = {}
    for field in profile.headers:
        texts = request.headers.get(field.name.lower(), ())
        if field.source in _SIGNED and _SIGNED[field.source] in profile.signature.content:
            if not texts:
                raise failure("signed_header_missing", header=field.name)
            if len(texts) > 1:
                raise failure("signed_header_repeated", header=field.name)
        if texts:
            values[field.source] = texts[0].strip()
    text = ""
    for part in profile.signature.lead:
        text, source = (part.text, None) if part.source is None else (text, part.source)
        if source is HeaderSource.TIMESTAMP:
            _, found, rest = signature_value.partition(text)
            digits = rest.partition(",")[0]
            if not found or not digits:
                raise failure("signed_timestamp_missing", header=profile.signature.header)
            values[source] = digits
    if SignedPart.TIMESTAMP in profile.signature.content:
        timestamp = values.get(HeaderSource.TIMESTAMP, "")
        if timestamp.isascii() and timestamp.isdigit() and len(timestamp) == _MILLISECONDS_DIGITS:
            raise failure("timestamp_in_milliseconds")
        if not (timestamp.isascii() and timestamp.isdigit()) or (
            len(timestamp) > _TIMESTAMP_DIGITS_MAX
        ):
            raise failure("timestamp_malformed")
    return Context(
        values.get(HeaderSource.EVENT_ID, ""),
        values.get(HeaderSource.DELIVERY_ID, ""),
        values.get(HeaderSource.TIMESTAMP, ""),
    )


_SIGNED = {
    HeaderSource.EVENT_ID: SignedPart.EVENT_ID,
    HeaderSource.DELIVERY_ID: SignedPart.DELIVERY_ID,
    HeaderSource.TIMESTAMP: SignedPart.TIMESTAMP,
}


def explain_request(
    request: Request,
    secret: Secret,
    profile: Profile,
    others: Sequence[Profile],
    context: Context,
    received: list[str],
    known_secrets: Sequence[KnownSecret],
    sent_body: bytes | None,
) -> None:
    """Raise the finding for a request that this secret, profile and body do not verify."""

    def matches(keys: Iterable[bytes], body: bytes) -> bool:
        return is_signed(received, keys, context, body, profile)

    if not request.body and sent_body != b"":
        raise failure("body_empty")
    asymmetric = profile.ed25519
    if asymmetric is not None and all(
        part.startswith(asymmetric.signature_prefix) for part in received
    ):
        if not secret.reveal().startswith((asymmetric.secret_prefix, asymmetric.public_key_prefix)):
            raise failure("public_key_needed", prefix=asymmetric.public_key_prefix)
    elif asymmetric is not None and secret.reveal().startswith(asymmetric.public_key_prefix):
        raise failure("shared_secret_needed", prefix=profile.secret.prefix)
    for known in known_secrets:
        if hmac.compare_digest(known.secret.reveal().encode(), secret.reveal().encode()):
            raise failure(_KNOWN[known.kind], endpoint=known.endpoint_name)
    for code, text in _secret_variants(secret.reveal(), profile):
        if matches(keys_of(Secret(text), profile), request.body):
            raise failure(code, prefix=profile.secret.prefix)
    keys = list(keys_of(secret, profile))
    for code, body in _body_variants(request.body):
        if matches(keys, body):
            raise failure(code)
    for other in others:
        if _verifies_under(request, secret, other):
            raise failure("wrong_profile", profile=other.name)
    if not keys:
        raise failure("secret_malformed", profile=profile.name)
    if sent_body is not None and sent_body != request.body:
        same = canonical_json(sent_body) is not None and (
            canonical_json(sent_body) == canonical_json(request.body)
        )
        raise failure("body_reserialised" if same else "body_changed")
    raise failure("wrong_secret")


_KNOWN = {
    "previous": "previous_secret",
    "staged": "staged_secret",
    "other_endpoint": "other_endpoints_secret",
}


def _secret_variants(text: str, profile: Profile) -> Iterator[tuple[str, str]]:
    """Yield the secrets that the receiver may have meant, each with the mistake."""
    prefix = profile.secret.prefix
    stripped = text.strip(WHITESPACE)
    if stripped != text:
        yield "secret_surrounded_by_whitespace", stripped
    if len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "\"'`":
        yield "secret_in_quotes", stripped[1:-1]
    if prefix:
        if stripped.startswith(prefix * 2):
            yield "secret_prefix_doubled", stripped.removeprefix(prefix)
        if not stripped.startswith(prefix):
            yield "secret_prefix_missing", prefix + stripped
        elif profile.secret.key is KeyForm.TEXT:
            yield "secret_prefix_added", stripped.removeprefix(prefix)
    decoded = decode_base64_text(stripped.removeprefix(prefix))
    if decoded is not None:
        yield "secret_encoded_in_base64", decoded
    encoded = base64.b64encode(stripped.encode()).decode()
    yield "secret_decoded_from_base64", prefix + encoded
    if profile.secret.key is KeyForm.TEXT:
        yield "secret_decoded_from_base64", encoded


def _body_variants(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the bodies that may have been sent, each with what changed them on the way."""
    stripped = body.rstrip(b"\r\n")
    if stripped != body:
        yield "body_trailing_newline", stripped
    if body.startswith(b"\xef\xbb\xbf"):
        yield "body_byte_order_mark", body.removeprefix(b"\xef\xbb\xbf")
    if b"\r\n" in body:
        yield "body_line_endings_changed", body.replace(b"\r\n", b"\n")
    for wrong, right in (("utf-8", "latin-1"), ("utf-8", "cp1252"), ("utf-8", "cp874")):
        try:
            yield "body_characters_changed", body.decode(wrong).encode(right)
        except UnicodeError:
            continue
    for code, parsed in (("body_reserialised", body), ("body_wrapped_in_string", _unwrapped(body))):
        value = parse_json(parsed)
        if value is not None:
            for text in serialisations(value):
                yield code, text


def _unwrapped(body: bytes) -> bytes | None:
    """Return the text inside a JSON string: the body was serialised twice."""
    value = parse_json(body)
    return value.encode("utf-8", "replace") if isinstance(value, str) else None


def _verifies_under(request: Request, secret: Secret, profile: Profile) -> bool:
    try:
        context, received = read_request(request, profile, ())
    except Failed:
        return False
    return is_signed(received, keys_of(secret, profile), context, request.body, profile)
