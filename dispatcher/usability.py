"""Decides whether this deployment's configuration lets an endpoint be sent to, and why not.

An endpoint's row needs things that live elsewhere: its profile's file, the key that its secret was
encrypted with, `egress.allow_http`, the allowed ports. Any of them may be missing by mistake (a
volume that was not mounted, a variable that was not set) and be back at the next start. Such an
endpoint is unusable, not gone: its deliveries wait, and nothing about them is irreversible.

The routing table, `explain`, the console and `dispatcher check` all use `compile_request`, so that
they give the same reason.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from dispatcher.core.addresses import PortPolicy
from dispatcher.core.errors import InvalidRequestError, ProfileError, SecretError
from dispatcher.core.model import Reason
from dispatcher.core.profile import Profile
from dispatcher.core.readable import faults
from dispatcher.core.request import RequestTemplate, request_template, validate_headers
from dispatcher.core.sealing import Keyring
from dispatcher.core.secret import Secret
from dispatcher.core.url import CanonicalUrl, canonical_url
from dispatcher.store.endpoints import EndpointRow
from dispatcher.store.secrets import SealedSecret


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


def compile_request(
    row: EndpointRow, configuration: Configuration, now: datetime
) -> CompiledRequest:
    """Compile what every request to an endpoint has in common; never raises for the row's contents."""
    unreadable = row_faults(row)
    if unreadable:
        return CompiledRequest(problem=Reason.INVALID_SETTINGS, detail="; ".join(unreadable))
    profile = configuration.profiles.get(row.profile)
    if profile is None:
        detail = f"profile {row.profile!r} is not configured. Restore its file in profiles/"
        return CompiledRequest(problem=Reason.UNKNOWN_PROFILE, detail=detail)
    url = None
    try:
        url = canonical_url(
            row.url, https_only=profile.https_only, allow_ports=configuration.allow_ports
        )
        template = _template(row, profile, url, configuration, now)
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
    return CompiledRequest(url, template)


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
    problems = validate_headers(row.headers, profile)
    if problems:
        raise InvalidRequestError(problems)
    secrets = [
        _decrypted(s, row.id, configuration.keyring)
        for s in sorted(row.secrets, reverse=True)
        if s.role == "current"
        or (profile.several_signatures and s.expires_at is not None and s.expires_at > now)
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
    )


def _decrypted(secret: SealedSecret, endpoint_id: str, keyring: Keyring | None) -> Secret:
    if keyring is None:
        raise SecretError("the endpoint has a secret, and DISPATCHER_SECRET_KEYS is not set")
    return Secret(keyring.open(secret.sealed, owner=endpoint_id, key_id=secret.key_id))
