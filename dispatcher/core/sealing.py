"""Encrypts secrets at rest: AES-256-GCM with a keyring, bound to the row of the secret.

The associated data contains table, owner and key id. A ciphertext that was moved to another row, or that
is labelled with another key, therefore does not decrypt. The nonce (12 random bytes, an argument)
precedes the ciphertext.
"""

from collections.abc import Mapping, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dispatcher.core.errors import SecretError

NONCE_BYTES = 12


class Keyring:
    """Keys by id; the first one encrypts, and all of them decrypt."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.sealing_key_id = next(iter(keys))
        self.key_ids = frozenset(keys)

    def seal(self, secret: str, *, owner: str, nonce: bytes) -> bytes:
        """Return nonce and ciphertext of a secret that belongs to `owner`, an endpoint's id."""
        cipher = self._ciphers[self.sealing_key_id]
        return nonce + cipher.encrypt(
            nonce, secret.encode(), _associated(owner, self.sealing_key_id)
        )

    def open(self, sealed: bytes, *, owner: str, key_id: str) -> str:
        """Return the secret.

        Raises:
            SecretError: the key is not in the keyring, or the bytes were not encrypted with it for
            this owner.
        """
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SecretError(
                f"the secret of {owner} is sealed with key {key_id!r}, which is not configured"
            )
        try:
            return cipher.decrypt(
                sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _associated(owner, key_id)
            ).decode()
        except (InvalidTag, ValueError) as error:
            raise SecretError(f"the secret of {owner} does not open with key {key_id!r}") from error

    def problems(self, sealed: Sequence[tuple[str, str, bytes]]) -> list[str]:
        """Return why this keyring does not fit these secrets (owner, key id, bytes) as a whole.

        A single secret that does not decrypt is a damaged row, which must not prevent a start.
        """
        missing = sorted({key_id for _, key_id, _ in sealed} - self.key_ids)
        if missing:
            return [
                f"DISPATCHER_SECRET_KEYS: key {key_id!r} is missing, and endpoints' secrets are sealed with it"
                for key_id in missing
            ]
        if sealed and not any(self.opens(*one) for one in sealed):
            return ["DISPATCHER_SECRET_KEYS: these keys open none of the endpoints' secrets"]
        return []

    def opens(self, owner: str, key_id: str, sealed: bytes) -> bool:
        """Return whether `open` would return the secret."""
        try:
            self.open(sealed, owner=owner, key_id=key_id)
        except SecretError:
            return False
        return True


def _associated(owner: str, key_id: str) -> bytes:
    return f"endpoint_secret|{owner}|{key_id}".encode()
