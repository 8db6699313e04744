"""The table `encryption_key`: a proof of each key, so that one id never has two values.

A process whose key has the id of another value would encrypt secrets that no other process decrypts.
Commands therefore compare their keys with the proofs before they do anything, a daemon before it starts,
and every transaction that encrypts registers its keys first.

Invariant: a proof is written once. Of two processes that are the first to use an id, one inserts the proof,
and the other waits for its commit and finds a value that is not its own. If the first rolls back, the second
inserts its own. A crash leaves a proof without a secret; the id keeps that value.
"""

import secrets
from typing import TYPE_CHECKING

from dispatcher.core.errors import ConfigurationError
from dispatcher.core.sealing import NONCE_BYTES, Keyring
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Database, Reach

_PROOFS = statement("encryption_key_list")
_INSERT = statement("encryption_key_insert")
_UNPROVED = statement("endpoint_secret_list_unproved")
_USED = statement("endpoint_secret_key_ids")


async def missing_keys(connection: "Reach | Database", keyring: Keyring) -> list[str]:
    """Return a problem for each key that secrets are encrypted with and that the keyring does not have."""
    return keyring.missing_keys([row[0] for row in await connection.fetch(_USED)])


async def wrong_keys(connection: "Reach | Database", keyring: Keyring) -> list[str]:
    """Return a problem for each key of the keyring that has another value here."""
    proofs = {row[0]: row[1] for row in await connection.fetch(_PROOFS)}
    unproved = [(row[0], row[1], row[2]) for row in await connection.fetch(_UNPROVED)]
    return keyring.wrong_keys(proofs, unproved)


async def register_keys(connection: "Reach", keyring: Keyring) -> None:
    """Register the keys that have no proof yet, in the caller's transaction (read committed).

    Raises:
        ConfigurationError: a key has another value in this database; has all of them.
    """
    for is_last in (False, True):
        problems = await wrong_keys(connection, keyring)
        if problems:
            raise ConfigurationError(problems)
        known = {row[0] for row in await connection.fetch(_PROOFS)}
        new = sorted(keyring.key_ids - known)
        if is_last or not new:
            return
        proofs = [keyring.proof(key_id, secrets.token_bytes(NONCE_BYTES)) for key_id in new]
        await connection.execute(_INSERT, new, proofs)
