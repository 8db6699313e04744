"""Explains a value that the receiver computed wrongly for an authentic request."""

import hashlib
import hmac
import json
from collections.abc import Iterator

from dispatcher.core.diagnosis.mistakes import failure
from dispatcher.core.diagnosis.signed import (
    Context,
    describe_content,
    keys_of,
    part_values,
    signature_of,
    signed_content,
)
from dispatcher.core.diagnosis.texts import (
    decode_base64,
    is_hex_digest,
    parse_json,
    read_digest,
    serialisations,
)
from dispatcher.core.profile import KeyForm, Profile, SignatureEncoding, SignedPart
from dispatcher.core.secret import Secret


def check_computed(
    computed: str,
    secret: Secret,
    profile: Profile,
    context: Context,
    body: bytes,
    received: list[str],
) -> None:
    """Raise the finding for a computed value that differs although the request is authentic."""
    prefix = profile.signature.prefix
    text = computed.strip()
    keys = list(keys_of(secret, profile))
    content = signed_content(profile, context, body)
    if text in received or any(text == signature_of(profile, key, content) for key in keys):
        return
    bare = text.removeprefix(prefix)
    if prefix and bare.startswith(prefix):
        raise failure("computed_prefix_doubled", prefix=prefix)
    digest = read_digest(bare)
    if digest is None:
        raise failure("computed_not_a_digest")
    right = [hmac.digest(key, content, "sha256") for key in keys]
    if digest in right:
        _explain_spelling(text, bare, profile)
    for code, variant in _key_variants(secret.reveal(), profile):
        if digest == hmac.digest(variant, content, "sha256"):
            raise failure(code, prefix=profile.secret.prefix)
    for key in keys:
        for code, changed in _content_variants(profile, context, body):
            if digest == hmac.digest(key, changed, "sha256"):
                raise failure(code, content=describe_content(profile))
        if digest in _other_hashes(key, content):
            raise failure("computed_with_other_hash")
    raise failure("computed_unexplained", content=describe_content(profile))


def _explain_spelling(text: str, bare: str, profile: Profile) -> None:
    rules = profile.signature
    hexadecimal = is_hex_digest(bare)
    if hexadecimal and rules.encoding is SignatureEncoding.BASE64:
        raise failure("computed_in_hex")
    if not hexadecimal and rules.encoding is SignatureEncoding.HEX:
        raise failure("computed_in_base64")
    if hexadecimal and bare != bare.lower():
        raise failure("computed_in_upper_case")
    if rules.prefix and text == bare:
        raise failure("computed_prefix_missing", prefix=rules.prefix)


def _key_variants(text: str, profile: Profile) -> Iterator[tuple[str, bytes]]:
    """Yield the keys that receivers make of a right secret by mistake."""
    prefix = profile.secret.prefix
    rest = text.removeprefix(prefix)
    yield "computed_with_trailing_newline_in_secret", f"{text}\n".encode()
    if profile.secret.key is KeyForm.BASE64:
        yield "computed_without_decoding_secret", text.encode()
        yield "computed_without_decoding_secret", rest.encode()
        return
    if prefix:
        yield "computed_without_secret_prefix", rest.encode()
        yield "computed_with_doubled_secret_prefix", (prefix + text).encode()
    for candidate in (text, rest):
        decoded = decode_base64(candidate)
        if decoded:
            yield "computed_with_decoded_secret", decoded


def _content_variants(
    profile: Profile, context: Context, body: bytes
) -> Iterator[tuple[str, bytes]]:
    """Yield the contents that receivers sign by mistake."""
    parts = profile.signature.content
    values = part_values(context, body)
    if parts != (SignedPart.BODY,):
        yield "computed_over_body_alone", body
        yield "computed_without_separators", b"".join(values[part] for part in parts)
        yield "computed_in_wrong_order", b".".join(values[part] for part in reversed(parts))
        if SignedPart.TIMESTAMP in parts:
            now_in_milliseconds = context._replace(timestamp=context.timestamp + "000")
            yield "computed_with_milliseconds", signed_content(profile, now_in_milliseconds, body)
            yield "computed_without_timestamp", _joined(profile, values, SignedPart.TIMESTAMP)
        if SignedPart.EVENT_ID in parts:
            yield "computed_without_id", _joined(profile, values, SignedPart.EVENT_ID)
    yield "computed_over_empty_body", signed_content(profile, context, b"")
    yield "computed_over_trailing_newline", signed_content(profile, context, body + b"\n")
    value = parse_json(body)
    if value is not None:
        for text in serialisations(value):
            yield "computed_over_reserialised_body", signed_content(profile, context, text)
        indented = json.dumps(value, ensure_ascii=False, indent=2).encode()
        yield "computed_over_reserialised_body", signed_content(profile, context, indented)
        quoted = json.dumps(body.decode("utf-8", "replace"), ensure_ascii=False).encode()
        yield "computed_over_string_of_body", signed_content(profile, context, quoted)


def _joined(profile: Profile, values: dict[SignedPart, bytes], left_out: SignedPart) -> bytes:
    return b".".join(values[part] for part in profile.signature.content if part is not left_out)


def _other_hashes(key: bytes, content: bytes) -> set[bytes]:
    plain = hashlib.sha256(content).digest()
    joined = (hashlib.sha256(key + content).digest(), hashlib.sha256(content + key).digest())
    keyed = {hmac.digest(key, content, name) for name in ("sha1", "sha384", "sha512", "md5")}
    return {plain, *joined, *keyed}
