"""Secrets: rotated, staged, shown.

Where a format has room for several signatures, requests are signed with the new and the old secret until
the overlap ends. Where it has room for one, the new secret is staged first, so that the receiver can
learn it, and a second call switches. Each step gives the endpoint a new version (`updated_at`), and
without an overlap no old secret signs any more, those of earlier rotations included.
"""

import contextlib
import secrets
from collections.abc import Sequence
from typing import Final

from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.operations.endpoint_rules import (
    also_sign_problems,
    also_signing,
    key_type_problems,
    secret_problems,
)
from dispatcher.admin.operations.endpoint_view import endpoint_of, previous_expiry
from dispatcher.admin.operations.endpoints import seal
from dispatcher.admin.resources.endpoint import Endpoint
from dispatcher.admin.resources.endpoint_fields import KeyType
from dispatcher.admin.resources.fields import number_problems
from dispatcher.admin.resources.secret import OVERLAP_SECONDS_MAX, RevealedSecret, RotatedSecret
from dispatcher.admin.resources.serialization import time_text
from dispatcher.core import secret
from dispatcher.core.errors import ConflictError, InvalidRequestError, SecretError
from dispatcher.core.problems import Problem, problem
from dispatcher.core.profile import Profile
from dispatcher.core.secret import Secret
from dispatcher.store import endpoints as store
from dispatcher.store.audit import write_audit
from dispatcher.store.endpoint_counts import count_deliveries
from dispatcher.store.endpoints import EndpointDetail
from dispatcher.store.secrets import (
    SealedSecret,
    activate_secret,
    forget_secret,
    insert_secret,
    load_secrets,
    retire_secret,
)

OVERLAP_SECONDS_DEFAULT: Final = 86_400
PREVIOUS_SECRETS_MAX: Final = 4
"""Old secrets that still sign: each is one more signature in every request's header."""


class Rotation:
    """The secrets of a deployment's endpoints."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._database = deployment.database

    async def rotate(
        self,
        actor: Actor,
        endpoint_id: str,
        *,
        new_secret: str | None = None,
        key_type: KeyType = None,
        overlap_seconds: float | None = None,
        activate: bool | None = None,
        problems: Sequence[Problem] = (),
    ) -> RotatedSecret:
        """Give an endpoint a new secret, generated if none is given, and return it whole.

        A generated secret is of the present one's kind, or of `key_type`. An ed25519 key that is generated is
        returned masked: receivers need its public key only.

        `problems` of the request were found before; they are reported together with those found here.

        Raises:
            ForbiddenError: the role does not reach. InvalidRequestError: every fault. NotFoundError: no such endpoint.
            ConflictError: too many old secrets still sign, or the profile is gone.
        """
        actor.require(Role.MANAGER)
        keyring = self._deployment.keys()
        async with self._deployment.encrypting() as connection:
            row = await store.load_endpoint(connection, endpoint_id, actor.tenant, lock=True)
            profile = self._profile(row)
            sealed = (await load_secrets(connection, [endpoint_id]))[endpoint_id]
            problems = [*problems, *_problems(profile, new_secret, overlap_seconds, activate)]
            problems += key_type_problems(key_type, profile, has_secret=new_secret is not None)
            if new_secret is not None and self._is_known(new_secret, sealed, endpoint_id):
                problems.append(problem("secret", "secret_in_use"))
            chosen = Secret(new_secret) if new_secret is not None else None
            if not problems:
                if chosen is None:
                    is_pair = key_type == "ed25519" or (
                        key_type is None and self._is_key_pair(profile, sealed, endpoint_id)
                    )
                    chosen = secret.generate(profile, secrets.token_bytes, ed25519=is_pair)
                problems += also_sign_problems(row.also_sign, profile, chosen, self._deployment)
            if problems or chosen is None:
                raise InvalidRequestError(problems)
            stages = not profile.several_signatures and not activate
            if stages:
                await forget_secret(connection, endpoint_id, "staged")
            elif profile.several_signatures:
                now = self._deployment.clock.now()
                old = [one for one in sealed if one.expires_at is not None and one.expires_at > now]
                overlap = OVERLAP_SECONDS_DEFAULT if overlap_seconds is None else overlap_seconds
                if overlap and len(old) >= PREVIOUS_SECRETS_MAX:
                    raise ConflictError(
                        problem(
                            "overlap_seconds",
                            "too_many_old_secrets",
                            count=len(old),
                            until=time_text(old[0].expires_at),
                        )
                    )
                if overlap:
                    await retire_secret(connection, endpoint_id, overlap)
                else:
                    await forget_secret(connection, endpoint_id, "current")
                    await forget_secret(connection, endpoint_id, "previous")
            else:
                await forget_secret(connection, endpoint_id, "current")
                await forget_secret(connection, endpoint_id, "staged")
            role = "staged" if stages else "current"
            await insert_secret(connection, endpoint_id, role, *seal(keyring, chosen, endpoint_id))
            held = (await load_secrets(connection, [endpoint_id]))[endpoint_id]
            await store.touch_endpoint(connection, endpoint_id)
            action = "endpoint.stage_secret" if stages else "endpoint.rotate_secret"
            await write_audit(connection, actor.name, row.tenant, action, endpoint_id, {})
        public_key = secret.public_key(profile, chosen)
        is_private = public_key is not None and new_secret is None
        return RotatedSecret(
            endpoint_id=endpoint_id,
            secret=secret.mask(chosen) if is_private else chosen.reveal(),
            also_sign_secrets={} if is_private else self._secrets_under(row, chosen),
            public_key=public_key,
            state="staged" if stages else "active",
            previous_secret_expires_at=previous_expiry(held),
        )

    async def activate_staged(self, actor: Actor, endpoint_id: str) -> Endpoint:
        """Switch to the staged secret and return the endpoint.

        Raises:
            NotFoundError: no such endpoint. ConflictError: nothing is staged.
        """
        actor.require(Role.MANAGER)
        async with self._database.transaction() as connection:
            row = await store.load_endpoint(connection, endpoint_id, actor.tenant, lock=True)
            sealed = (await load_secrets(connection, [endpoint_id]))[endpoint_id]
            if not any(one.role == "staged" for one in sealed):
                raise ConflictError(problem("activate_staged", "no_staged_secret"))
            await forget_secret(connection, endpoint_id, "current")
            await activate_secret(connection, endpoint_id)
            row = row._replace(updated_at=await store.touch_endpoint(connection, endpoint_id))
            await write_audit(
                connection, actor.name, row.tenant, "endpoint.activate_secret", endpoint_id, {}
            )
            sealed = (await load_secrets(connection, [endpoint_id]))[endpoint_id]
            counts = await count_deliveries(connection, [endpoint_id])
        return endpoint_of(row, sealed, counts[endpoint_id], self._deployment, actor)

    async def reveal(self, actor: Actor, endpoint_id: str) -> RevealedSecret:
        """Return the secrets, whole; the audit log records it.

        Raises:
            NotFoundError: no such endpoint. SecretError: it cannot be opened with the configured
            keys.
        """
        actor.require(Role.MANAGER)
        keyring = self._deployment.keys()
        async with self._database.transaction() as connection:
            row = await store.load_endpoint(connection, endpoint_id, actor.tenant)
            sealed = (await load_secrets(connection, [endpoint_id]))[endpoint_id]
            opened = {
                one.role: Secret(keyring.open(one.sealed, owner=endpoint_id, key_id=one.key_id))
                for one in sealed
                if one.role in {"current", "staged"}
            }
            await write_audit(
                connection, actor.name, row.tenant, "endpoint.reveal_secret", endpoint_id, {}
            )
        profile = self._deployment.profiles.get(row.profile)
        shared = {
            role: one
            for role, one in opened.items()
            if profile is None or secret.public_key(profile, one) is None
        }
        current, staged = opened.get("current"), shared.get("staged")
        return RevealedSecret(
            endpoint_id=endpoint_id,
            secret=shared["current"].reveal() if "current" in shared else None,
            also_sign_secrets=self._secrets_under(row, shared["current"])
            if "current" in shared
            else {},
            public_key=None
            if profile is None or current is None
            else secret.public_key(profile, current),
            staged_secret=None if staged is None else staged.reveal(),
        )

    def _is_key_pair(
        self, profile: Profile, sealed: Sequence[SealedSecret], endpoint_id: str
    ) -> bool:
        """Return whether the present secret is an ed25519 key; one that does not open counts as none."""
        keyring = self._deployment.keys()
        for one in sealed:
            if one.role == "current":
                with contextlib.suppress(SecretError):
                    text = keyring.open(one.sealed, owner=endpoint_id, key_id=one.key_id)
                    return secret.public_key(profile, Secret(text)) is not None
        return False

    def _secrets_under(self, row: EndpointDetail, own: Secret) -> dict[str, str]:
        """Return a secret as the profiles of `also_sign` read it."""
        profile = self._deployment.profiles.get(row.profile)
        if profile is None:
            return {}
        found: dict[str, str] = {}
        for other in also_signing(row.also_sign, self._deployment):
            with contextlib.suppress(SecretError):
                found[other.name] = secret.secret_under(other, profile, own).reveal()
        return found

    def _profile(self, row: EndpointDetail) -> Profile:
        profile = self._deployment.profiles.get(row.profile)
        if profile is None:
            raise ConflictError(problem("profile", "profile_not_configured", profile=row.profile))
        return profile

    def _is_known(self, text: str, sealed: list[SealedSecret], endpoint_id: str) -> bool:
        keyring = self._deployment.keys()
        for one in sealed:
            try:
                if keyring.open(one.sealed, owner=endpoint_id, key_id=one.key_id) == text:
                    return True
            except SecretError:
                continue  # It cannot be read, so it can only be replaced.
        return False


def _problems(
    profile: Profile, new_secret: str | None, overlap_seconds: float | None, activate: bool | None
) -> list[Problem]:
    problems = [] if new_secret is None else secret_problems(new_secret, profile)
    if new_secret is None and profile.secret_is_given:
        problems.append(problem("secret", "secret_issued", profile=profile.name))
    if profile.several_signatures:
        if activate is False:
            problems.append(problem("activate", "activate_not_possible", profile=profile.name))
        if overlap_seconds is not None:
            problems += number_problems(overlap_seconds, "overlap_seconds", 0, OVERLAP_SECONDS_MAX)
    elif overlap_seconds is not None:
        problems.append(problem("overlap_seconds", "overlap_not_possible", profile=profile.name))
    return problems
