"""Credentials of the dispatcher towards a receiver, next to signatures: an OAuth grant and a client certificate.

Both are settings of an endpoint whose confidential part (`client_secret`, the private key) is encrypted like its
secret and never shown. This module validates them and reads the responses of token endpoints; it does no I/O.
"""

import base64
import re
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote_plus

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from dispatcher.core.problems import Problem, problem
from dispatcher.core.secret import Secret

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

PEM_CHARACTERS_MAX: Final = 65_536
CLIENT_TEXT: Final = re.compile(r"[\x20-\x7e]{1,512}")
"""RFC 6749, appendix A: client ids and secrets are visible ASCII and spaces."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{1,8192}")
"""RFC 6750, 2.1: what may follow `Bearer`."""
_ERROR: Final = re.compile(r"[a-z_]{1,64}")
LIFETIME_SECONDS_DEFAULT: Final = 300.0
"""Of a token whose response names no lifetime."""
LIFETIME_SECONDS_MAX: Final = 86_400.0


class OAuthGrant(NamedTuple):
    """How access tokens for one receiver are obtained (RFC 6749, 4.4)."""

    token_url: str
    client_id: str
    client_secret: Secret
    scope: str | None

    def authorization(self) -> str:
        """Return the header that authenticates the client (RFC 6749, 2.3.1)."""
        pair = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret.reveal())}"
        return "Basic " + base64.b64encode(pair.encode()).decode()

    def form(self) -> dict[str, str]:
        """Return the fields of the request for a token."""
        form = {"grant_type": "client_credentials"}
        return form if self.scope is None else {**form, "scope": self.scope}


class ClientCertificate(NamedTuple):
    """The certificate, with its chain, and the private key that the dispatcher presents to a receiver."""

    certificate: str
    key: Secret


class Credentials(NamedTuple):
    """What an endpoint's connections and requests need in addition to its URL and its authorities."""

    grant: OAuthGrant | None
    client: ClientCertificate | None


class AccessGranted(NamedTuple):
    """An access token, and for how many seconds it is valid."""

    token: str
    lifetime_seconds: float


def read_token(status: int, body: bytes) -> AccessGranted | str:
    """Return the token of a token endpoint's response, or why there is none; never quotes the body."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = None
    members = found if isinstance(found, dict) else {}
    if status != 200:  # noqa: PLR2004 -- RFC 6749, 5.1
        code = members.get("error")
        named = f" ({code})" if isinstance(code, str) and _ERROR.fullmatch(code) else ""
        return f"the token endpoint responded with {status}{named}"
    token = members.get("access_token")
    if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
        return "the token endpoint's response holds no usable access_token"
    kind = members.get("token_type", "bearer")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        return "the token endpoint issued a token of another type than Bearer"
    lifetime = members.get("expires_in", LIFETIME_SECONDS_DEFAULT)
    if isinstance(lifetime, str) and lifetime.isdecimal() and len(lifetime) <= 9:  # noqa: PLR2004 -- digits
        lifetime = int(lifetime)
    if isinstance(lifetime, bool) or not isinstance(lifetime, int | float) or not lifetime > 0:
        lifetime = LIFETIME_SECONDS_DEFAULT
    return AccessGranted(token, min(float(lifetime), LIFETIME_SECONDS_MAX))


def certificate_problems(value: object, field: str = "client_certificate") -> list[Problem]:
    """List the problems of a client certificate, the first of its chain."""
    if not isinstance(value, str):
        return [problem(field, "not_a_string")]
    if len(value) > PEM_CHARACTERS_MAX:
        return [problem(field, "too_long", maximum=PEM_CHARACTERS_MAX)]
    try:
        _certificates(value)
    except (ValueError, UnsupportedAlgorithm):
        return [problem(field, "invalid_certificate")]
    return []


def key_problems(value: object, field: str = "client_key") -> list[Problem]:
    """List the problems of a private key; no problem quotes it."""
    if not isinstance(value, str):
        return [problem(field, "not_a_string")]
    if len(value) > PEM_CHARACTERS_MAX:
        return [problem(field, "too_long", maximum=PEM_CHARACTERS_MAX)]
    try:
        load_pem_private_key(value.encode(), password=None)
    except TypeError:
        return [problem(field, "client_key_encrypted")]
    except (ValueError, UnsupportedAlgorithm):
        return [problem(field, "invalid_private_key")]
    return []


def pair_problems(certificate: str, key: Secret) -> list[Problem]:
    """List why a certificate and a key, each valid alone, do not belong together."""
    first = _certificates(certificate)[0]
    private = load_pem_private_key(key.reveal().encode(), password=None)
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if first.public_key().public_bytes(*form) == private.public_key().public_bytes(*form):
        return []
    return [problem("client_key", "client_key_of_another")]


def expiry_of(certificate: str) -> datetime:
    """Return when a valid certificate expires."""
    return _certificates(certificate)[0].not_valid_after_utc


def subject_of(certificate: str) -> str:
    """Return the subject of a valid certificate (RFC 4514)."""
    return _certificates(certificate)[0].subject.rfc4514_string()


def _certificates(text: str) -> "list[Certificate]":
    """Parse certificates in PEM; raise as cryptography does if they are invalid."""
    from cryptography import x509  # noqa: PLC0415 -- a twelfth of the start, and few endpoints have a certificate

    return x509.load_pem_x509_certificates(text.encode())
