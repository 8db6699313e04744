"""An endpoint as an actor may see it: which values are masked, and what it cannot be sent for."""

import contextlib
from collections.abc import Mapping, Sequence

from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.operations.credentials import masked_credentials
from dispatcher.admin.resources.endpoint import Endpoint, EndpointProblem
from dispatcher.admin.resources.serialization import time_text
from dispatcher.core import secret
from dispatcher.core.errors import SecretError
from dispatcher.core.sealing import Keyring
from dispatcher.core.secret import Secret
from dispatcher.core.url import masked_url
from dispatcher.store.endpoint_counts import COUNTED_MAX, DeliveryCounts
from dispatcher.store.endpoints import EndpointDetail
from dispatcher.store.routing import routed_row
from dispatcher.store.secrets import SealedSecret


def endpoint_of(
    row: EndpointDetail,
    sealed: Sequence[SealedSecret],
    counts: DeliveryCounts,
    deployment: Deployment,
    actor: Actor,
) -> Endpoint:
    """Return an endpoint as the actor may see it; a secret that no key decrypts is shown as stars."""
    opened = {one.role: opened_secret(one, row.id, deployment.keyring) for one in sealed}
    current = opened.get("current")
    profile = deployment.profiles.get(row.profile)
    public_key = None
    if profile is not None and current is not None:
        with contextlib.suppress(SecretError):
            public_key = secret.public_key(profile, current)
    values = row._asdict()
    if not actor.may(Role.MANAGER):  # A custom header is often a credential of the receiver's.
        values["headers"] = dict.fromkeys(row.headers, secret.MASK)
    if not actor.may(Role.OPERATOR):  # Some URLs are credentials.
        values["url"] = masked_url(row.url)
        if row.oauth_token_url is not None:
            values["oauth_token_url"] = masked_url(row.oauth_token_url)
    values["created_at"] = time_text(row.created_at)
    values["updated_at"] = time_text(row.updated_at)
    values["health_since"] = time_text(row.health_since)
    values |= masked_credentials(sealed)
    unusable = deployment.problem_of(routed_row(row, sealed))
    return Endpoint(
        **values,
        secret=_masked(opened, "current"),
        public_key=public_key,
        staged_secret=_masked(opened, "staged"),
        previous_secret_expires_at=previous_expiry(sealed),
        problem=None
        if unusable is None or unusable.problem is None
        else EndpointProblem(reason=unusable.problem, detail=unusable.detail),
        waiting_count=min(counts.waiting, COUNTED_MAX),
        waiting_capped=counts.waiting > COUNTED_MAX,
        failed_unresolved_count=min(counts.failed, COUNTED_MAX),
        failed_unresolved_capped=counts.failed > COUNTED_MAX,
    )


def previous_expiry(sealed: Sequence[SealedSecret]) -> str | None:
    """Return when the last of the old secrets stops signing; None where there is none."""
    expiries = [one.expires_at for one in sealed if one.expires_at is not None]
    return time_text(max(expiries, default=None))


def _masked(opened: Mapping[str, Secret | None], role: str) -> str | None:
    if role not in opened:
        return None
    held = opened[role]
    return secret.MASK if held is None else secret.mask(held)


def opened_secret(sealed: SealedSecret, endpoint_id: str, keyring: Keyring | None) -> Secret | None:
    """Return a secret in the clear; None if no key decrypts it."""
    if keyring is None:
        return None
    try:
        return Secret(keyring.open(sealed.sealed, owner=endpoint_id, key_id=sealed.key_id))
    except SecretError:
        return None
