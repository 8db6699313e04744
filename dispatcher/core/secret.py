"""Endpoint secrets: a type that cannot be printed by accident, their forms, and keys made of them.

What always holds: a `Secret` shows its mask wherever it is formatted, logged or put into an error;
only `reveal()` gives the text. No message of this module quotes a secret.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from string import ascii_letters, digits

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dispatcher.core.errors import SecretError
from dispatcher.core.problems import problem
from dispatcher.core.profile import KeyForm, Profile, SecretPlace

MASK = "********"
"""Eight stars, however long the secret is."""

_MASKED_LENGTH_MIN = 24
_PRINTABLE = re.compile(r"[\x20-\x7e]{8,256}")
_ISSUED = re.compile(r"[!-\"$-~]{8,2048}")
"""Tokens and paths that a service issues: visible ASCII, without a fragment."""
_ALPHABET = ascii_letters + digits
_KEY_BYTES_MIN, _KEY_BYTES_MAX = 24, 64
_SEED_BYTES, _PAIR_BYTES = 32, 64


class Secret:
    """The text of a secret; equal by text, shown only as its mask."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself; the caller answers for where it goes."""
        return self._text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"Secret({mask(self)})"

    def __str__(self) -> str:
        return mask(self)

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled")


def mask(secret: Secret) -> str:
    """Return the first 4 characters, eight stars, the last 4; of a short secret only the stars."""
    text = secret.reveal()
    if len(text) < _MASKED_LENGTH_MIN:
        return MASK
    return f"{text[:4]}{MASK}{text[-4:]}"


def generate(
    profile: Profile, random_bytes: Callable[[int], bytes], *, ed25519: bool = False
) -> Secret:
    """Return a new secret in the profile's form; `random_bytes(count)` gives that many bytes.

    Raises:
        SecretError: an ed25519 key was requested, and the profile has none.
    """
    rules = profile.secret
    if ed25519:
        if profile.ed25519 is None:
            raise SecretError(problem("key_type", "key_type_not_possible", profile=profile.name))
        seed = random_bytes(_SEED_BYTES)
        public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        return Secret(profile.ed25519.secret_prefix + base64.b64encode(seed + public).decode())
    if rules.key is KeyForm.BASE64:
        key = base64.b64encode(random_bytes(rules.generated_size)).decode()
        return Secret(rules.prefix + key)
    # Bytes beyond the last whole multiple of the alphabet would favour its first letters.
    usable = 256 - 256 % len(_ALPHABET)
    characters: list[str] = []
    while len(characters) < rules.generated_size:
        drawn = random_bytes(rules.generated_size)
        characters += [_ALPHABET[byte % len(_ALPHABET)] for byte in drawn if byte < usable]
    return Secret(rules.prefix + "".join(characters[: rules.generated_size]))


def check(profile: Profile, secret: Secret | None) -> None:
    """Return if an endpoint under `profile` may have this secret; None means unsigned.

    Raises:
        SecretError: it may not; the message gives the reason without quoting the secret.
    """
    if secret is not None:
        signing_key(profile, secret)
    elif not profile.secret.nullable:
        raise SecretError(problem("secret", "secret_required", profile=profile.name))


def signing_key(profile: Profile, secret: Secret) -> bytes | Ed25519PrivateKey:
    """Return what signs under `profile`: the bytes of an HMAC key, or an ed25519 key.

    Raises:
        SecretError: the secret has not the form that the profile asks for.
    """
    text = secret.reveal()
    if profile.secret_is_given:
        if _ISSUED.fullmatch(text) is None:
            raise SecretError(problem("secret", "secret_issued_characters"))
        if profile.secret.place is SecretPlace.URL and not text.startswith("/"):
            raise SecretError(problem("secret", "secret_is_a_path", profile=profile.name))
        return text.encode()
    if _PRINTABLE.fullmatch(text) is None:
        raise SecretError(problem("secret", "secret_characters"))
    if profile.ed25519 is not None and text.startswith(profile.ed25519.secret_prefix):
        return _private_key(text.removeprefix(profile.ed25519.secret_prefix))
    rules = profile.secret
    if rules.key is KeyForm.TEXT:
        return text.encode()
    if not text.startswith(rules.prefix):
        raise SecretError(
            problem("secret", "secret_prefix", profile=profile.name, prefix=rules.prefix)
        )
    key = _decoded(text.removeprefix(rules.prefix))
    if not _KEY_BYTES_MIN <= len(key) <= _KEY_BYTES_MAX:
        raise SecretError(
            problem(
                "secret",
                "secret_size",
                profile=profile.name,
                count=len(key),
                minimum=_KEY_BYTES_MIN,
                maximum=_KEY_BYTES_MAX,
            )
        )
    return key


def secret_under(profile: Profile, own: Profile, secret: Secret) -> Secret:
    """Return the secret of an endpoint under `own` as `profile`, which also signs its requests, reads it.

    A secret that already has the profile's form stays as it is. Any other text becomes the profile's prefix
    and the base64 of its bytes, so that the key is the same.

    Raises:
        SecretError: the secret has no such form, or it is an ed25519 key and the profile has no public keys.
    """
    is_shared = isinstance(signing_key(own, secret), bytes)
    if not is_shared and profile.ed25519 is None:
        raise SecretError(problem("also_sign", "also_sign_shared_secret", profile=profile.name))
    try:
        if isinstance(signing_key(profile, secret), bytes) is is_shared:
            return secret
    except SecretError:
        if profile.secret.key is not KeyForm.BASE64:
            raise
    key = secret.reveal().encode()
    adapted = Secret(profile.secret.prefix + base64.b64encode(key).decode())
    try:
        signing_key(profile, adapted)
    except SecretError:
        raise SecretError(
            problem(
                "also_sign",
                "also_sign_secret_size",
                profile=profile.name,
                count=len(key),
                minimum=_KEY_BYTES_MIN,
                maximum=_KEY_BYTES_MAX,
            )
        ) from None
    return adapted


def public_bytes(profile: Profile, secret: Secret) -> bytes | None:
    """Return the 32 bytes of the public key that receivers verify with; None for a secret that is shared.

    Raises:
        SecretError: the secret has not the form that the profile asks for.
    """
    key = signing_key(profile, secret)
    return None if isinstance(key, bytes) else key.public_key().public_bytes_raw()


def public_key(profile: Profile, secret: Secret) -> str | None:
    """Return the public key as the profile writes it; None for a secret that is shared.

    Raises:
        SecretError: the secret has not the form that the profile asks for.
    """
    raw = public_bytes(profile, secret)
    if raw is None or profile.ed25519 is None:
        return None
    return profile.ed25519.public_key_prefix + base64.b64encode(raw).decode()


def jwk(raw: bytes) -> dict[str, str]:
    """Return a public key as a JSON Web Key (RFC 8037, 2); its id is the key's thumbprint (RFC 7638)."""
    key = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(raw)}
    text = f'{{"crv":"Ed25519","kty":"OKP","x":"{key["x"]}"}}'
    kid = _base64url(hashlib.sha256(text.encode()).digest())
    return {**key, "kid": kid, "use": "sig", "alg": "EdDSA"}


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _private_key(encoded: str) -> Ed25519PrivateKey:
    key = _decoded(encoded)
    if len(key) not in {_SEED_BYTES, _PAIR_BYTES}:
        raise SecretError(problem("secret", "secret_ed25519"))
    private_key = Ed25519PrivateKey.from_private_bytes(key[:_SEED_BYTES])
    public = private_key.public_key().public_bytes_raw()
    if len(key) == _PAIR_BYTES and key[_SEED_BYTES:] != public:
        raise SecretError(problem("secret", "secret_key_pair"))
    return private_key


def _decoded(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise SecretError(problem("secret", "secret_base64")) from None
