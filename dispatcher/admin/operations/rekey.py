"""Re-encrypts every secret at rest with the first key, while replicas go on reading.

    add the new key second, everywhere ─▶ make it first, everywhere ─▶ rekey ─▶ remove the old key

Invariants: a secret is encrypted with one key that the configuration names. A slice is replaced in one
transaction, and only rows that have not changed since they were read, so that a concurrent rotation
wins. After an interruption, the next run re-encrypts the remaining secrets. It refuses to begin while a
living replica does not have the new key, because that replica would stop sending to every endpoint whose
secret it cannot decrypt.
"""

import secrets
from collections.abc import Callable
from typing import Final

from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.resources.maintenance import RekeyRun
from dispatcher.core.errors import ConflictError, NotFoundError, SecretError
from dispatcher.core.problems import problem
from dispatcher.core.sealing import NONCE_BYTES
from dispatcher.store.audit import write_audit
from dispatcher.store.leases import replicas_without_key
from dispatcher.store.secrets import SealedRow, Secrets

SLICE_ROWS: Final = 500
"""Each slice makes every replica read the endpoints again, so fewer and larger slices cost less."""


class Rekey:
    """The secrets at rest of a deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._secrets = Secrets(deployment.database)

    async def run(
        self,
        actor: Actor,
        *,
        unchecked: bool = False,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> RekeyRun:
        """Encrypt every secret with the first key, and return the counts.

        `progress` is called with the count so far and the total. A secret that no configured key
        decrypts is not changed.

        Raises:
            ConflictError: a living replica does not have the key; `unchecked` skips this check.
            ConfigurationError: there are no keys, or one has another value here. ForbiddenError: the actor is no admin.
            NotFoundError: the actor is bound to a tenant, and all tenants share the keys.
        """
        actor.require(Role.ADMIN)
        if actor.tenant is not None:
            raise NotFoundError(problem("tenant", "all_tenants_only"))
        keyring = self._deployment.keys()
        key_id = keyring.sealing_key_id
        blind = [] if unchecked else await replicas_without_key(self._deployment.database, key_id)
        if blind:
            raise ConflictError(
                problem("key", "replicas_without_key", key=key_id, replicas=", ".join(blind))
            )
        async with self._deployment.encrypting():
            pass  # the key is registered now, so the slices need not compare it
        total, left = await self._secrets.count(key_id)
        done = after = 0
        unreadable: set[str] = set()
        progress(0, left)
        while rows := await self._secrets.under_other_keys(key_id, after, SLICE_ROWS):
            changes = []
            for row in rows:
                anew = self._sealed_anew(row)
                if anew is None:
                    unreadable.add(row.endpoint_id)
                else:
                    changes.append((row.id, row.sealed, anew))
            done += await self._secrets.replace(key_id, changes) if changes else 0
            after = rows[-1].id
            progress(done, max(left, done))
        if done:
            detail = {"key_id": key_id, "resealed": done, "unreadable": sorted(unreadable)}
            async with self._deployment.database.transaction() as connection:
                await write_audit(connection, actor.name, "*", "secrets.rekey", key_id, detail)
        return RekeyRun(key_id=key_id, secrets=total, resealed=done, unreadable=sorted(unreadable))

    def _sealed_anew(self, row: SealedRow) -> bytes | None:
        keyring = self._deployment.keys()
        try:
            text = keyring.open(row.sealed, owner=row.endpoint_id, key_id=row.key_id)
        except SecretError:
            return None
        return keyring.seal(text, owner=row.endpoint_id, nonce=secrets.token_bytes(NONCE_BYTES))
