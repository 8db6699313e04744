"""Public keys as a JSON Web Key Set (RFC 7517), for receivers."""

from dataclasses import dataclass

from dispatcher.admin.resources.base import Response


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonWebKey(Response):
    """An ed25519 public key (RFC 8037); `kid` is its thumbprint (RFC 7638)."""

    kty: str
    crv: str
    x: str
    kid: str
    use: str
    alg: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedKeySet(Response):
    """The public keys that an endpoint signs with, the newest first."""

    keys: list[JsonWebKey]
