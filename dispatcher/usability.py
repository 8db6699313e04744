"""Decides whether this deployment's configuration lets an endpoint be sent to, and why not.

An endpoint's row needs things that live elsewhere: its profile's file, the key that its secret was
encrypted with, `egress.allow_http`, the allowed ports. Any of them may be missing by mistake (a
volume that was not mounted, a variable that was not set) and be back at the next start. Such an
endpoint is unusable, not gone: its deliveries wait, and nothing about them is irreversible.

The routing table, `explain`, the console and `dispatcher check` all use `compile_request`, so that
they give the same reason.
"""

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from dispatcher.core.addresses import PortPolicy
from dispatcher.core.credentials import ClientCertificate, Credentials, OAuthGrant
from dispatcher.core.errors import InvalidRequestError, ProfileError, SecretError
from dispatcher.core.model import Reason
from dispatcher.core.profile import Profile
from dispatcher.core.readable import faults
from dispatcher.core.request import (
    RequestTemplate,
    request_template,
    validate_also_sign,
    validate_headers,
)
from dispatcher.core.sealing import Keyring
from dispatcher.core.secret import Secret
from dispatcher.core.url import CanonicalUrl, canonical_url
from dispatcher.store.routing import EndpointRow
from dispatcher.store.secrets import SealedSecret

OAUTH_ROLE: Final = "oauth"
CLIENT_KEY_ROLE: Final = "client_key"
"""The roles of an endpoint's credentials among its secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The part of a deployment's configuration that endpoints depend on."""

    profiles: Mapping[str, Profile]
    keyring: Keyring | None
    """None: no keys are configured, so that no secret can be decrypted."""
    allow_http: bool
    allow_ports: PortPolicy
    user_agent: str


class CompiledRequest(NamedTuple):
    """An endpoint's URL and request template, or the reason why there is none."""

    url: CanonicalUrl | None = None
    template: RequestTemplate | None = None
    problem: Reason | None = None
    detail: str = ""
    """The problem for an operator; empty without one."""
    credentials: Credentials | None = None
    """None: the endpoint has no grant and no client certificate."""


def compile_request(
    row: EndpointRow, configuration: Configuration, now: datetime
) -> CompiledRequest:
    """Compile what every request to an endpoint has in common; never raises for the row's contents."""
    unreadable = row_faults(row)
    if unreadable:
        return CompiledRequest(problem=Reason.INVALID_SETTINGS, detail="; ".join(unreadable))
    for name in (row.profile, *row.also_sign):
        if name not in configuration.profiles:
            detail = f"profile {name!r} is not configured. Restore its file in profiles/"
            return CompiledRequest(problem=Reason.UNKNOWN_PROFILE, detail=detail)
    profile = configuration.profiles[row.profile]
    url = None
    try:
        url = canonical_url(
            row.url, https_only=profile.https_only, allow_ports=configuration.allow_ports
        )
        template = _template(row, profile, url, configuration, now)
        credentials = compile_credentials(row, row.secrets, configuration.keyring)
    except InvalidRequestError as error:
        is_url = error.problems[0].field == "url"
        problem = Reason.INVALID_URL if is_url else Reason.INVALID_HEADERS
        return CompiledRequest(url, problem=problem, detail=str(error))
    except ProfileError as error:
        return CompiledRequest(url, problem=Reason.INVALID_HEADERS, detail=str(error))
    except SecretError as error:
        return CompiledRequest(url, problem=Reason.SECRET_UNREADABLE, detail=str(error))
    if url.scheme == "http" and not configuration.allow_http:
        detail = "the URL is plain http, which is not allowed. Set egress.allow_http or use https"
        return CompiledRequest(url, template, Reason.HTTP_NOT_ALLOWED, detail)
    return CompiledRequest(url, template, credentials=credentials)


class CredentialSettings(Protocol):
    """The settings of an endpoint, or of its row, that its credentials consist of."""

    @property
    def id(self) -> str:
        """Return the endpoint's id."""

    @property
    def oauth_token_url(self) -> str | None:
        """Return the token endpoint."""

    @property
    def oauth_client_id(self) -> str | None:
        """Return the client id."""

    @property
    def oauth_scope(self) -> str | None:
        """Return the scope."""

    @property
    def client_certificate(self) -> str | None:
        """Return the certificate with its chain."""


def compile_credentials(
    row: CredentialSettings, sealed: Sequence[SealedSecret], keyring: Keyring | None
) -> Credentials | None:
    """Return the grant and the client certificate of an endpoint; None: it has neither.

    Raises:
        SecretError: the client secret or the private key is missing or does not decrypt.
    """
    if row.oauth_token_url is None and row.client_certificate is None:
        return None
    parts = {one.role: one for one in sealed}

    def part(role: str, name: str) -> Secret:
        if role not in parts:
            raise SecretError(f"endpoint {row.id} has no {name}")
        return _decrypted(parts[role], row.id, keyring)

    grant = client = None
    if row.oauth_token_url is not None:
        client_secret = part(OAUTH_ROLE, "oauth_client_secret")
        grant = OAuthGrant(
            row.oauth_token_url, row.oauth_client_id or "", client_secret, row.oauth_scope
        )
    if row.client_certificate is not None:
        client = ClientCertificate(row.client_certificate, part(CLIENT_KEY_ROLE, "client_key"))
    return Credentials(grant, client)


def find_problem(
    row: EndpointRow, configuration: Configuration, now: datetime
) -> CompiledRequest | None:
    """Return why an endpoint cannot be sent to, its certificates included; None if it can."""
    compiled = compile_request(row, configuration, now)
    if compiled.problem is not None:
        return compiled
    if row.ca_pem is not None and compiled.url is not None and compiled.url.scheme == "https":
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=row.ca_pem)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            return CompiledRequest(problem=Reason.INVALID_CA_PEM, detail=str(error))
    return None


def row_faults(row: EndpointRow) -> list[str]:
    """Return the columns of a row that cannot be read, with the fault of each."""
    return faults(
        event_types=row.event_types,
        labels=row.labels,
        headers=row.headers,
        retry_schedule_seconds=row.retry_schedule_seconds,
    )


def _template(
    row: EndpointRow,
    profile: Profile,
    url: CanonicalUrl,
    configuration: Configuration,
    now: datetime,
) -> RequestTemplate:
    also = [configuration.profiles[name] for name in row.also_sign]
    problems = validate_headers(row.headers, profile, also) + validate_also_sign(profile, also)
    if problems:
        raise InvalidRequestError(problems)
    secrets = [
        _decrypted(one, row.id, configuration.keyring)
        for one in signing_secrets(row.secrets, profile, now)
    ]
    if not secrets and not profile.secret.nullable:
        raise SecretError(
            f"endpoint {row.id} has no secret, and profile {profile.name} always signs"
        )
    return request_template(
        profile=profile,
        url=url,
        secrets=secrets,
        user_agent=configuration.user_agent,
        custom_headers=row.headers,
        also=also,
    )


def signing_secrets(
    sealed: Sequence[SealedSecret], profile: Profile, now: datetime
) -> list[SealedSecret]:
    """Return the secrets of an endpoint that sign its requests now, newest first."""
    return [
        one
        for one in sorted(sealed, reverse=True)
        if one.role == "current"
        or (profile.several_signatures and one.expires_at is not None and one.expires_at > now)
    ]


def _decrypted(secret: SealedSecret, endpoint_id: str, keyring: Keyring | None) -> Secret:
    if keyring is None:
        raise SecretError("the endpoint has a secret, and DISPATCHER_SECRET_KEYS is not set")
    return Secret(keyring.open(secret.sealed, owner=endpoint_id, key_id=secret.key_id))
