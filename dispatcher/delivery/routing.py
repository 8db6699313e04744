"""The routing table: every endpoint compiled, and which of them an event goes to.

The table is a cache of the database under a version. Fan-out compares the version that its claim
saw and loads the table anew when it differs, so that an endpoint saved before an event's commit
never misses it. Endpoints whose row did not change are kept as they are, and with them their open
connections.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

import structlog

from dispatcher.core.addresses import PortPolicy
from dispatcher.core.errors import InvalidRequestError, ProfileError, SecretError
from dispatcher.core.matching import Router, Subscription, parse_event_types
from dispatcher.core.model import EndpointId, EndpointState, Event, Reason
from dispatcher.core.outcome import RetryPolicy
from dispatcher.core.profile import Profile
from dispatcher.core.readable import faults
from dispatcher.core.request import RequestTemplate, validate_headers
from dispatcher.core.sealing import Keyring
from dispatcher.core.secret import Secret
from dispatcher.core.signing import Signer
from dispatcher.core.url import CanonicalUrl, canonical_url
from dispatcher.delivery.endpoint import Endpoint
from dispatcher.delivery.ports import EndpointStore
from dispatcher.outbound.pool import Target
from dispatcher.store.routing import EndpointRow

_log = structlog.get_logger("dispatcher.delivery.routing")


class MakesTargets(Protocol):
    """The egress guard, as the table sees it: where to connect to, with which trust."""

    def __call__(self, url: CanonicalUrl, ca_pem: str | None, label: str) -> Target:
        """Returns where to connect to."""
        ...


class RoutingTable:
    """Endpoints by id and by event; one writer, `refresh`."""

    def __init__(
        self,
        store: EndpointStore,
        *,
        profiles: Mapping[str, Profile],
        keyring: Keyring,
        make_target: MakesTargets,
        drop_target: Callable[[Target], None],
        allow_http: bool,
        allow_ports: PortPolicy,
        user_agent: str,
        max_concurrency: int,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._profiles = profiles
        self._keyring = keyring
        self._make_target = make_target
        self._drop_target = drop_target
        self._allow_http = allow_http
        self._allow_ports = allow_ports
        self._user_agent = user_agent
        self._max_concurrency = max_concurrency
        self._now = now
        self._rows: dict[EndpointId, EndpointRow] = {}
        self._router: Router[Endpoint] = Router([])
        self._secrets_change_at: datetime | None = None
        self.version = 0
        self.endpoints: dict[EndpointId, Endpoint] = {}
        self.changed: Callable[[], None] = lambda: None
        """Called after every refresh; lanes follow."""

    def is_stale(self, version: int) -> bool:
        """Tells whether the database has moved on, or an old secret has stopped signing."""
        return version != self.version or (
            self._secrets_change_at is not None and self._now() >= self._secrets_change_at
        )

    def unusable(self) -> list[tuple[EndpointId, str]]:
        """Returns endpoints that cannot be sent to, with the reason."""
        return [(e.id, e.problem) for e in self.endpoints.values() if e.problem is not None]

    def reconfigure(self, profiles: Mapping[str, Profile], max_concurrency: int) -> None:
        """Takes over profiles and the default limit; the next refresh compiles every endpoint anew."""
        self._profiles = profiles
        self._max_concurrency = max_concurrency
        self._rows = {}
        self.version = 0

    async def refresh(self) -> None:
        """Loads the endpoints anew; those that did not change stay the same objects."""
        version, rows = await self._store.load()
        now = self._now()
        before, self.endpoints = self.endpoints, {}
        for row in rows:
            known = before.get(row.id)
            expired = (
                known is not None
                and known.secrets_change_at is not None
                and now >= known.secrets_change_at
            )
            if known is None or expired or self._rows.get(row.id) != row:
                self.endpoints[row.id] = self._compile(row, known, now)
            else:
                self.endpoints[row.id] = known
        for endpoint_id, known in before.items():
            successor = self.endpoints.get(endpoint_id)
            if known.target is not None and (
                successor is None or successor.target is not known.target
            ):
                self._drop_target(known.target)
        self._rows = {row.id: row for row in rows}
        self._router = Router(self.endpoints.values())
        changes = [
            e.secrets_change_at for e in self.endpoints.values() if e.secrets_change_at is not None
        ]
        self._secrets_change_at = min(changes, default=None)
        self.version = version
        self.changed()
        for endpoint in self.endpoints.values():
            if (
                endpoint.problem is Reason.SECRET_UNREADABLE
                and endpoint.state is EndpointState.ACTIVE
            ):
                await self._store.disable(endpoint.id, Reason.SECRET_UNREADABLE, raises_event=True)

    def route(self, event: Event) -> Sequence[Endpoint]:
        """Returns the endpoints that get this event: its tenant's, subscribed, with matching labels."""
        return self._router.route(event.tenant, event.type, event.labels)

    def _compile(self, row: EndpointRow, before: Endpoint | None, now: datetime) -> Endpoint:
        profile = self._profiles.get(row.profile)
        problem = None if profile is not None else Reason.UNKNOWN_PROFILE
        url = template = None
        unreadable = row_faults(row)
        if unreadable:
            problem = Reason.INVALID_SETTINGS
            _log.error(
                "endpoint.unusable", endpoint_id=row.id, reason=problem, error="; ".join(unreadable)
            )
            row = _without_what_cannot_be_read(row)
        elif profile is not None:
            try:
                url = canonical_url(
                    row.url, https_only=profile.https_only, allow_ports=self._allow_ports
                )
                template = self._template(row, profile, url, now)
            except InvalidRequestError as error:
                problem = (
                    Reason.INVALID_URL if error.problems[0][0] == "url" else Reason.INVALID_HEADERS
                )
                _log.error(
                    "endpoint.unusable", endpoint_id=row.id, reason=problem, error=str(error)
                )
            except ProfileError as error:
                problem = Reason.INVALID_HEADERS
                _log.error(
                    "endpoint.unusable", endpoint_id=row.id, reason=problem, error=str(error)
                )
            except SecretError as error:
                problem = Reason.SECRET_UNREADABLE
                _log.error(
                    "endpoint.unusable", endpoint_id=row.id, reason=problem, error=str(error)
                )
        else:
            _log.error("endpoint.unusable", endpoint_id=row.id, reason=problem, profile=row.profile)
        expiries = [secret.expires_at for secret in row.secrets if secret.expires_at is not None]
        known = self._rows.get(row.id)
        target = None
        if before is not None and known is not None:
            same_place = (known.url, known.ca_pem) == (row.url, row.ca_pem)
            target = before.target if same_place else None
        if target is None and url is not None:
            try:
                target = self._make_target(url, row.ca_pem, row.id)
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                problem = problem or Reason.INVALID_CA_PEM
                _log.error(
                    "endpoint.unusable", endpoint_id=row.id, reason=problem, error=str(error)
                )
        return Endpoint(
            id=row.id,
            tenant=row.tenant,
            name=row.name,
            url=row.url,
            profile_name=row.profile,
            profile=profile,
            state=EndpointState(row.state),
            subscription=_subscription(row),
            label_filter=row.labels,
            shard=row.shard,
            max_concurrency=row.max_concurrency or self._max_concurrency,
            rate_limit=row.rate_limit,
            timeout_seconds=row.timeout_seconds or (profile.timeout_seconds if profile else 15.0),
            retry_policy=_retry_policy(row, profile),
            template=template,
            target=target,
            host_key=(url.host, url.port) if url else None,
            is_blocked=url is not None and url.scheme == "http" and not self._allow_http,
            problem=problem,
            failing=row.first_failure_at is not None,
            secrets_change_at=min((at for at in expiries if at > now), default=None),
        )

    def _template(
        self, row: EndpointRow, profile: Profile, url: CanonicalUrl, now: datetime
    ) -> RequestTemplate:
        problems = validate_headers(row.headers, profile)
        if problems:
            raise InvalidRequestError(problems)
        secrets = [
            Secret(self._keyring.open(s.sealed, owner=row.id, key_id=s.key_id))
            for s in sorted(row.secrets, reverse=True)
            if s.role == "current"
            or (profile.several_signatures and s.expires_at is not None and s.expires_at > now)
        ]
        if not secrets and not profile.secret.nullable:
            raise SecretError(
                f"endpoint {row.id} has no secret, and profile {profile.name} always signs"
            )
        return RequestTemplate(
            profile=profile,
            target=url.target,
            host_header=url.host_header,
            user_agent=self._user_agent,
            custom_headers=row.headers,
            signer=Signer(profile, secrets) if secrets else None,
        )


def row_faults(row: EndpointRow) -> list[str]:
    """Returns what of a row cannot be read; none is good."""
    return faults(
        event_types=row.event_types,
        labels=row.labels,
        headers=row.headers,
        retry_schedule_seconds=row.retry_schedule_seconds,
    )


def _without_what_cannot_be_read(row: EndpointRow) -> EndpointRow:
    """Returns a row that is matched by the types that can be read, so that what is cancelled can be seen."""
    return row._replace(
        event_types=[str(one) for one in row.event_types if one],
        labels={},
        headers={},
        retry_schedule_seconds=None,
    )


def _retry_policy(row: EndpointRow, profile: Profile | None) -> RetryPolicy:
    own = row.retry_schedule_seconds
    if profile is None:
        return RetryPolicy(schedule=own or (), jitter_range=None, gone_disables=False)
    return RetryPolicy(
        schedule=profile.retry_schedule_seconds if own is None else own,
        jitter_range=profile.jitter,
        gone_disables=profile.gone_disables,
    )


def _subscription(row: EndpointRow) -> Subscription:
    try:
        return parse_event_types(row.event_types)
    except InvalidRequestError as error:
        _log.error("endpoint.subscribes_to_nothing", endpoint_id=row.id, error=str(error))
        return Subscription(names=frozenset(), prefixes=(), everything=False)
