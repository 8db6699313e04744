"""An endpoint's credentials towards its receiver: rules across settings, and the parts that are stored encrypted.

The client secret and the private key are written, never read: responses contain stars. They are rows of
`endpoint_secret` in a role of their own, so that `dispatcher secrets rekey` and a deletion cover them.
"""

import contextlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from dispatcher.admin.operations.context import Deployment
from dispatcher.admin.resources.endpoint_requests import EndpointChange, NewEndpoint
from dispatcher.admin.resources.serialization import time_text
from dispatcher.core import secret
from dispatcher.core.credentials import certificate_problems, expiry_of, key_problems, pair_problems
from dispatcher.core.errors import InvalidRequestError, SecretError
from dispatcher.core.problems import Problem, problem
from dispatcher.core.profile import Profile
from dispatcher.core.request import header_names
from dispatcher.core.sealing import NONCE_BYTES, Keyring
from dispatcher.core.secret import Secret
from dispatcher.store.endpoints import EndpointDetail
from dispatcher.store.secrets import SealedSecret, forget_secret, insert_secret, load_secrets
from dispatcher.usability import CLIENT_KEY_ROLE, OAUTH_ROLE

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

ROLES: Final[Mapping[str, str]] = {
    "oauth_client_secret": OAUTH_ROLE,
    "client_key": CLIENT_KEY_ROLE,
}
"""The role of each confidential field."""
CREDENTIAL_OWNERS: Final = {
    "oauth_client_secret": "oauth_token_url",
    "client_key": "client_certificate",
}
"""The setting without which a confidential field has no use, and is deleted."""
CREDENTIAL_SETTINGS: Final = frozenset(
    {
        "url", "headers", "oauth_token_url", "oauth_client_id", "oauth_scope", "client_certificate"
    }
)  # fmt: skip
"""Settings whose change may leave credentials that do not fit."""
EXPIRY_WARNING: Final = timedelta(days=30)


def given_credentials(endpoint: NewEndpoint | EndpointChange) -> dict[str, Secret]:
    """Return the confidential fields that a request gives."""
    given = {field: getattr(endpoint, field) for field in ROLES}
    return {field: Secret(text) for field, text in given.items() if text is not None}


def opened_credentials(
    sealed: Sequence[SealedSecret], endpoint_id: str, keyring: Keyring | None
) -> dict[str, Secret]:
    """Return the stored confidential fields that the keys decrypt."""
    fields = {role: field for field, role in ROLES.items()}
    found: dict[str, Secret] = {}
    for one in sealed:
        if one.role in fields and keyring is not None:
            with contextlib.suppress(SecretError):
                text = keyring.open(one.sealed, owner=endpoint_id, key_id=one.key_id)
                found[fields[one.role]] = Secret(text)
    return found


def credential_problems(
    settings: Mapping[str, Any], profile: Profile | None, known: Mapping[str, Secret]
) -> list[Problem]:
    """List why settings and confidential fields, each valid alone, do not fit together."""
    problems = [
        problem(field, "required")
        for field, owner in CREDENTIAL_OWNERS.items()
        if settings[owner] is not None and field not in known
    ]
    problems += [
        problem(owner, "required")
        for field, owner in CREDENTIAL_OWNERS.items()
        if settings[owner] is None and field in known
    ]
    if settings["oauth_token_url"] is not None:
        if settings["oauth_client_id"] is None:
            problems.append(problem("oauth_client_id", "required"))
        own = [name for name in settings["headers"] if name.lower() == "authorization"]
        problems += [problem(f"headers.{name}", "reserved_header") for name in own]
        if profile is not None and any(
            name.lower() == "authorization" for name in header_names(profile)
        ):
            problems.append(problem("oauth_token_url", "oauth_not_possible", profile=profile.name))
    elif settings["oauth_client_id"] is not None or settings["oauth_scope"] is not None:
        problems.append(problem("oauth_token_url", "required"))
    certificate = settings["client_certificate"]
    if certificate is not None:
        if not settings["url"].startswith("https:"):
            problems.append(problem("client_certificate", "client_certificate_without_tls"))
        key = known.get("client_key")
        if key is not None and not (
            certificate_problems(certificate) or key_problems(key.reveal())
        ):
            problems += pair_problems(certificate, key)
    return problems


def credential_warnings(settings: Mapping[str, Any], now: datetime) -> list[str]:
    """Return a sentence if the client certificate has expired or expires soon."""
    expires_at = expiring_at(settings["client_certificate"], now)
    if expires_at is None:
        return []
    verb = "expired" if expires_at <= now else "expires"
    return [f"client_certificate: it {verb} at {time_text(expires_at)}. Replace it with its key."]


def expiring_at(certificate: str | None, now: datetime) -> datetime | None:
    """Return when a client certificate expires; None: not soon, or there is none."""
    if certificate is None:
        return None
    expires_at = expiry_of(certificate)
    return expires_at if expires_at <= now + EXPIRY_WARNING else None


async def change_credentials(
    connection: "Reach",
    deployment: Deployment,
    endpoint: EndpointDetail,
    settings: Mapping[str, Any],
    given: Mapping[str, Secret],
    changed: Sequence[str],
) -> None:
    """Store the confidential fields that were given, and delete those that have no use any more.

    `settings` are those after the change, and `changed` names those that differ.

    Raises:
        InvalidRequestError: the settings and the fields do not fit together.
    """
    if not given and CREDENTIAL_SETTINGS.isdisjoint(changed):
        return
    sealed = (await load_secrets(connection, [endpoint.id]))[endpoint.id]
    known = opened_credentials(sealed, endpoint.id, deployment.keyring)
    stays = {
        field: one for field, one in known.items() if settings[CREDENTIAL_OWNERS[field]] is not None
    }
    profile = deployment.profiles.get(endpoint.profile)
    problems = credential_problems(settings, profile, stays | dict(given))
    if problems:
        raise InvalidRequestError(problems)
    keyring, nonce = deployment.keys(), secrets.token_bytes(NONCE_BYTES)
    await store_credentials(connection, keyring, endpoint.id, settings, given, nonce)


async def store_credentials(
    connection: "Reach",
    keyring: Keyring,
    endpoint_id: str,
    settings: Mapping[str, Any],
    given: Mapping[str, Secret],
    nonce: bytes,
) -> None:
    """Replace the confidential fields that were given, and delete those whose setting is gone.

    `nonce` has 12 random bytes; each field uses another one.
    """
    for number, (field, role) in enumerate(ROLES.items()):
        if settings[CREDENTIAL_OWNERS[field]] is None:
            await forget_secret(connection, endpoint_id, role)
        elif field in given:
            await forget_secret(connection, endpoint_id, role)
            own_nonce = nonce[:-1] + bytes([(nonce[-1] + number) % 256])
            sealed = keyring.seal(given[field].reveal(), owner=endpoint_id, nonce=own_nonce)
            await insert_secret(connection, endpoint_id, role, keyring.sealing_key_id, sealed)


def masked_credentials(sealed: Sequence[SealedSecret]) -> dict[str, str | None]:
    """Return stars for each confidential field that is stored."""
    roles = {one.role for one in sealed}
    return {field: secret.MASK if role in roles else None for field, role in ROLES.items()}
