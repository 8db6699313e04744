"""Secrets at rest: AES-256-GCM under a keyring, bound to the row that they lie in.

The associated data names table, owner and key, so that a ciphertext moved to another row, or said
to be under another key, does not open. The nonce (12 random bytes, an argument) stands before the
ciphertext.
"""

from collections.abc import Mapping, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dispatcher.core.errors import SecretError

NONCE_BYTES = 12


class Keyring:
    """Keys by id; the first one given seals, all of them open."""

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
            SecretError: the key is not in the keyring, or the bytes are not what was sealed for
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
        """Return why these secrets (owner, key id, bytes) cannot be read with this keyring, as a whole.

        A single one that does not open is its row's fault, and no reason to refuse a start.
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
        """Return whether `open` would give a secret."""
        try:
            self.open(sealed, owner=owner, key_id=key_id)
        except SecretError:
            return False
        return True


def _associated(owner: str, key_id: str) -> bytes:
    return f"endpoint_secret|{owner}|{key_id}".encode()
