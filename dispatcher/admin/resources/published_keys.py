"""Public keys as a JSON Web Key Set (RFC 7517), for receivers."""

from dispatcher.admin.resources.base import Response, resource


@resource
class JsonWebKey(Response):
    """An ed25519 public key (RFC 8037); `kid` is its thumbprint (RFC 7638)."""

    kty: str
    crv: str
    x: str
    kid: str
    use: str
    alg: str


@resource
class PublishedKeySet(Response):
    """The public keys that an endpoint signs with, the newest first."""

    keys: list[JsonWebKey]
