"""Encrypts secrets at rest: AES-256-GCM with a keyring, bound to the row of the secret.

The associated data contains table, owner and key id. A ciphertext that was moved to another row, or that
is labelled with another key, therefore does not decrypt. The nonce (12 random bytes, an argument)
precedes the ciphertext. A proof of each key, a known text under it, shows a process that its key of that id
has another value before it encrypts anything.
"""

from collections.abc import Iterable, Mapping, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dispatcher.core.errors import SecretError

NONCE_BYTES = 12
_KNOWN_TEXT = b"dispatcher"


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
                f"the secret of {owner} is encrypted with key {key_id!r}, which is not configured"
            )
        try:
            return cipher.decrypt(
                sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _associated(owner, key_id)
            ).decode()
        except (InvalidTag, ValueError) as error:
            raise SecretError(f"the secret of {owner} does not open with key {key_id!r}") from error

    def proof(self, key_id: str, nonce: bytes) -> bytes:
        """Return nonce and ciphertext of a known text, which another value of this key does not decrypt."""
        return nonce + self._ciphers[key_id].encrypt(nonce, _KNOWN_TEXT, _associated_proof(key_id))

    def missing_keys(self, used: Iterable[str]) -> list[str]:
        """Return a problem for each key id among those in use that this keyring does not have."""
        return [
            f"DISPATCHER_SECRET_KEYS: key {key_id!r} is missing, and endpoints' secrets are encrypted with it."
            " Add it behind the first key."
            for key_id in sorted(set(used) - self.key_ids)
        ]

    def wrong_keys(
        self, proofs: Mapping[str, bytes], unproved: Sequence[tuple[str, str, bytes]]
    ) -> list[str]:
        """Return a problem for each key whose value is not the one that the database was used with.

        `proofs` are by key id. `unproved` are secrets (owner, key id, bytes) whose key has no proof: one that
        decrypts is enough, because a single secret that does not is a damaged row, which must not prevent a
        start.
        """
        suspects = {key_id for _, key_id, _ in unproved} & self.key_ids
        suspects -= {
            key_id for owner, key_id, sealed in unproved if self.opens(owner, key_id, sealed)
        }
        suspects |= {
            key_id
            for key_id, proof in proofs.items()
            if key_id in self.key_ids and not self._proves(key_id, proof)
        }
        return [
            f"DISPATCHER_SECRET_KEYS: key {key_id!r} has another value than the key {key_id!r} that encrypts the"
            " secrets in this database. Set the value that the other processes use, or give the new key an id of"
            " its own."
            for key_id in sorted(suspects)
        ]

    def _proves(self, key_id: str, proof: bytes) -> bool:
        try:
            text = self._ciphers[key_id].decrypt(
                proof[:NONCE_BYTES], proof[NONCE_BYTES:], _associated_proof(key_id)
            )
        except (InvalidTag, ValueError):
            return False
        return text == _KNOWN_TEXT

    def opens(self, owner: str, key_id: str, sealed: bytes) -> bool:
        """Return whether `open` would return the secret."""
        try:
            self.open(sealed, owner=owner, key_id=key_id)
        except SecretError:
            return False
        return True


def _associated_proof(key_id: str) -> bytes:
    return f"encryption_key|{key_id}".encode()


def _associated(owner: str, key_id: str) -> bytes:
    return f"endpoint_secret|{owner}|{key_id}".encode()
