"""Verifies ID tokens (OpenID Connect Core, 3.1.3.7) with joserfc; pure.

The key decides the algorithm: an RSA key of at least 2048 bits verifies RS256, a P-256 key ES256, an
Ed25519 key EdDSA. Symmetric keys are dropped when the key set is read. Therefore `none`, and HS256 with the
public key as its secret, are refused whatever the header names.
"""

import base64
import hmac
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from dispatcher.admin.oidc.errors import SignOnError
from dispatcher.admin.oidc.flow import FLOW_SECONDS, SKEW_SECONDS

if TYPE_CHECKING:
    from joserfc import jwk

TOKEN_CHARACTERS_MAX: Final = 64 * 1024
SUBJECT_CHARACTERS_MAX: Final = 255
NAME_CHARACTERS_MAX: Final = 128
KEYS_MAX: Final = 100
RSA_BITS_MIN: Final = 2_048
_LAST: Final = float(1 << 40)
_NAME_CLAIMS: Final = ("preferred_username", "email", "name")
_ALGORITHMS: Final[Mapping[str, tuple[str, ...]]] = {
    "RS256": ("RS256",),
    "ES256": ("ES256",),
    "EdDSA": ("EdDSA", "Ed25519"),
}
"""The names in headers by the algorithm of a key."""


class SigningKey(NamedTuple):
    """A public key of the provider, and the only algorithm that it verifies."""

    kid: str | None
    algorithm: str
    key: "jwk.RSAKey | jwk.ECKey | jwk.OKPKey"


class Header(NamedTuple):
    """The header of a token, before anything is verified."""

    kid: str | None
    algorithm: str


class Expected(NamedTuple):
    """The values that a token must have."""

    issuer: str
    client_id: str
    nonce: str
    now_s: float


class Identity(NamedTuple):
    """The verified content of a token."""

    subject: str
    name: str
    claims: Mapping[str, Any]


def read_keys(body: bytes) -> list[SigningKey]:
    """Return the usable keys of a key set (RFC 7517); others are skipped.

    Raises:
        SignOnError: it is not a key set, or it is too large.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > KEYS_MAX:
        raise SignOnError("unavailable", "the provider's key set is not a JSON Web Key Set")
    found = (_read_key(entry) for entry in entries if isinstance(entry, dict))
    return [key for key in found if key is not None]


def _read_key(entry: dict[str, Any]) -> SigningKey | None:
    # Loaded with the first key set: without single sign-on a start does not pay for it, some 70 ms.
    from joserfc import jwk  # noqa: PLC0415 -- see above
    from joserfc.errors import JoseError, SecurityWarning  # noqa: PLC0415 -- see above

    kid = entry.get("kid")
    if entry.get("use", "sig") != "sig" or not (kid is None or isinstance(kid, str)):
        return None
    kinds = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
    algorithm = kinds.get((entry.get("kty"), entry.get("crv")))  # type: ignore[arg-type]  # any JSON value
    if algorithm is None or entry.get("alg", algorithm) not in _ALGORITHMS[algorithm]:
        return None
    public: dict[str, Any] = {
        name: entry[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in entry
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # short keys are refused below
            key = jwk.import_key(public)
    except (JoseError, ValueError, TypeError):
        return None
    if isinstance(key, jwk.RSAKey) and key.public_key.key_size < RSA_BITS_MIN:
        return None
    if not isinstance(key, jwk.RSAKey | jwk.ECKey | jwk.OKPKey):
        return None
    return SigningKey(kid, algorithm, key)


def read_header(token: str) -> Header:
    """Return the header of a token, which is not verified yet.

    Raises:
        SignOnError: it is not a signed token, or its algorithm is not allowed.
    """
    head = token.partition(".")[0]
    if len(token) > TOKEN_CHARACTERS_MAX:
        raise SignOnError("token", "the ID token is too large")
    try:
        header = orjson.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except ValueError:
        raise SignOnError("token", "the ID token is not a JSON Web Token") from None
    if not isinstance(header, dict) or "crit" in header:
        raise SignOnError("token", "the ID token has an unusable header")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not any(algorithm in one for one in _ALGORITHMS.values()):
        raise SignOnError("token", "the ID token is not signed with RS256, ES256 or EdDSA")
    return Header(kid if isinstance(kid, str) else None, algorithm)


def choose_key(header: Header, keys: Sequence[SigningKey]) -> SigningKey | None:
    """Return the key of a header; None if there is none, or several without an id."""
    fitting = [key for key in keys if header.algorithm in _ALGORITHMS[key.algorithm]]
    if header.kid is not None:
        fitting = [key for key in fitting if key.kid == header.kid]
    return fitting[0] if len(fitting) == 1 else None


def verify_id_token(token: str, key: SigningKey, expected: Expected) -> Identity:
    """Return the identity in a token, if its signature and all of its claims are valid.

    Raises:
        SignOnError: one of them is not; the message names it.
    """
    from joserfc import jwt  # noqa: PLC0415 -- see _read_key
    from joserfc.errors import JoseError, SecurityWarning  # noqa: PLC0415 -- see _read_key

    try:
        with warnings.catch_warnings():
            # RFC 9864 renames EdDSA to Ed25519; providers still use the old name.
            warnings.simplefilter("ignore", SecurityWarning)
            claims = jwt.decode(token, key.key, algorithms=_ALGORITHMS[key.algorithm]).claims
    except (JoseError, ValueError) as error:
        reason = f"the ID token's signature is not valid ({type(error).__name__})"
        raise SignOnError("token", reason) from None
    problem = _claim_problem(claims, expected)
    if problem is not None:
        raise SignOnError("token", problem)
    subject = claims["sub"]
    return Identity(subject, _name_of(claims, subject), claims)


def _claim_problem(claims: Mapping[str, Any], expected: Expected) -> str | None:
    """Return the first claim that is not as expected."""
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    expires, issued, starts = (claims.get(name) for name in ("exp", "iat", "nbf"))
    subject, nonce = claims.get("sub"), claims.get("nonce")
    earliest = expected.now_s - FLOW_SECONDS - SKEW_SECONDS
    latest = expected.now_s + SKEW_SECONDS
    checks = (
        (claims.get("iss") == expected.issuer, "iss is not the configured issuer"),
        (isinstance(audiences, list) and expected.client_id in audiences, "aud is another client"),
        (
            claims.get("azp", expected.client_id) == expected.client_id
            and (not isinstance(audiences, list) or len(audiences) == 1 or "azp" in claims),
            "azp is another client",
        ),
        (_is_within(expires, expected.now_s - SKEW_SECONDS, _LAST), "exp has passed"),
        (_is_within(issued, earliest, latest), "iat is too old, or in the future"),
        (starts is None or _is_within(starts, 0, latest), "nbf is in the future"),
        (
            isinstance(nonce, str)
            and hmac.compare_digest(nonce.encode("utf-8", "replace"), expected.nonce.encode()),
            "nonce is of another sign-in",
        ),
        (
            isinstance(subject, str)
            and 0 < len(subject) <= SUBJECT_CHARACTERS_MAX
            and subject.isprintable(),
            "sub is missing or unusable",
        ),
    )
    return next((f"the ID token's {text}" for is_valid, text in checks if not is_valid), None)


def _is_within(value: object, earliest: float, latest: float) -> bool:
    """Return whether a claim is a time in Unix seconds, later than `earliest` and no later than `latest`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and earliest < value <= latest  # type: ignore[operator]  # a number


def _name_of(claims: Mapping[str, Any], subject: str) -> str:
    """Return the name that pages show; it is the person's own choice and identifies no one."""
    for claim in _NAME_CLAIMS:
        value = claims.get(claim)
        if isinstance(value, str) and value.strip() and value.isprintable():
            return value.strip()[:NAME_CHARACTERS_MAX]
    return subject[:NAME_CHARACTERS_MAX]
