"""The public keys of an endpoint, for anyone: receivers verify ed25519 signatures with them and share no secret.

Each endpoint has keys of its own, and keys are published by endpoint. With one key for all endpoints, a receiver of
one tenant could pass its requests on to a receiver of another tenant, and their signatures would be valid there.

A new key is published before its first signature, because both follow from the same commit. A key that was
rotated stays published until it stops signing. Keys are read again after `CACHED_SECONDS`, and at most `ENDPOINTS_MAX`
endpoints are cached, because requests need no token.
"""

import contextlib
from collections import OrderedDict
from typing import Final

from dispatcher.admin.operations.context import Deployment
from dispatcher.admin.resources.published_keys import JsonWebKey, PublishedKeySet
from dispatcher.core import secret
from dispatcher.core.errors import NotFoundError, SecretError
from dispatcher.core.problems import problem
from dispatcher.core.secret import Secret
from dispatcher.store import endpoints as store
from dispatcher.store.secrets import load_secrets

PATH: Final = "/.well-known/dispatcher/keys"
SIGNING_ROLES: Final = frozenset({"current", "previous", "staged"})
CACHED_SECONDS: Final = 5.0
ENDPOINTS_MAX: Final = 1_000


def keys_url(endpoint_id: str) -> str:
    """Return where the keys of an endpoint are, relative to the address of the admin port."""
    return f"{PATH}?endpoint={endpoint_id}"


class PublishedKeys:
    """The public keys of a deployment's endpoints."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._cached: OrderedDict[str, tuple[float, PublishedKeySet | None]] = OrderedDict()

    async def of_endpoint(self, endpoint_id: str) -> PublishedKeySet:
        """Return the public keys that an endpoint signs with, the newest first; none where it shares a secret.

        Raises:
            NotFoundError: there is no such endpoint, or it is deleted.
        """
        now = self._deployment.clock.monotonic()
        until, found = self._cached.get(endpoint_id, (0.0, None))
        if now >= until:
            found = await self._read(endpoint_id)
            self._cached[endpoint_id] = (now + CACHED_SECONDS, found)
            self._cached.move_to_end(endpoint_id)
            if len(self._cached) > ENDPOINTS_MAX:
                self._cached.popitem(last=False)
        if found is None:
            raise NotFoundError(problem("endpoint", "endpoint_not_found", value=endpoint_id))
        return found

    async def _read(self, endpoint_id: str) -> PublishedKeySet | None:
        async with self._deployment.database.reading() as connection:
            row = await store.find_endpoint(connection, endpoint_id, None)
            sealed = (await load_secrets(connection, [endpoint_id]))[endpoint_id]
        if row is None:
            return None
        keyring, now = self._deployment.keyring, self._deployment.clock.now()
        profile = self._deployment.profiles.get(row.profile)
        keys: list[JsonWebKey] = []
        for one in sorted(sealed, reverse=True):
            if profile is None or keyring is None or one.role not in SIGNING_ROLES:
                continue
            if one.expires_at is not None and one.expires_at < now:
                continue
            with contextlib.suppress(SecretError):
                text = keyring.open(one.sealed, owner=endpoint_id, key_id=one.key_id)
                raw = secret.public_bytes(profile, Secret(text))
                if raw is not None:
                    keys.append(JsonWebKey(**secret.jwk(raw)))
        return PublishedKeySet(keys=keys)
