"""The routing table: every endpoint compiled, and which of them an event goes to.

The table is a cache of the database under a version. Fan-out compares the version that its claim
saw and loads the table anew when it differs, so that an endpoint saved before an event's commit
never misses it. Endpoints whose row did not change are kept as they are, and with them their open
connections.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

import structlog

from dispatcher.config.settings import Settings
from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.matching import Router, Subscription, parse_event_types
from dispatcher.core.model import EndpointId, EndpointState, Event, Reason
from dispatcher.core.outcome import RetryPolicy
from dispatcher.core.profile import Profile
from dispatcher.core.readable import faults
from dispatcher.core.sealing import Keyring
from dispatcher.core.url import CanonicalUrl
from dispatcher.delivery.endpoint import Endpoint
from dispatcher.delivery.ports import EndpointStore
from dispatcher.outbound.pool import Target
from dispatcher.store.routing import EndpointRow
from dispatcher.usability import Configuration, compile_request

_log = structlog.get_logger("dispatcher.delivery.routing")


class Client(Protocol):
    """The HTTP client, as the table uses it."""

    @property
    def policy(self) -> AddressPolicy:
        """Return which addresses and ports may be reached."""
        ...

    def make_target(self, url: CanonicalUrl, ca_pem: str | None, label: str) -> Target:
        """Return where to connect to, with which trust."""
        ...

    def drop_target(self, target: Target) -> None:
        """Close the idle connections of a target that is no longer used."""
        ...


class RoutingTable:
    """Endpoints by id and by event; one writer, `refresh`."""

    def __init__(
        self,
        store: EndpointStore,
        settings: Settings,
        client: Client,
        keyring: Keyring,
        *,
        profiles: Mapping[str, Profile],
        version: str,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._client = client
        self._configuration = Configuration(
            profiles=profiles,
            keyring=keyring,
            allow_http=settings.egress.allow_http,
            allow_ports=client.policy.allow_ports,
            user_agent=settings.egress.user_agent or f"dispatcher/{version}",
        )
        self._max_concurrency = settings.delivery.concurrency_per_endpoint
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

    def unusable(self) -> list[tuple[EndpointId, Reason]]:
        """Return the endpoints that cannot be sent to, each with the reason; their deliveries wait."""
        return [(e.id, e.problem) for e in self.endpoints.values() if e.problem is not None]

    def profile(self, name: str) -> Profile | None:
        """Return the profile of that name; None: its file is missing."""
        return self._configuration.profiles.get(name)

    def reconfigure(self, profiles: Mapping[str, Profile], max_concurrency: int) -> None:
        """Takes over profiles and the default limit; the next refresh compiles every endpoint anew."""
        self._configuration = replace(self._configuration, profiles=profiles)
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
                self._client.drop_target(known.target)
        self._rows = {row.id: row for row in rows}
        self._router = Router(self.endpoints.values())
        changes = [
            e.secrets_change_at for e in self.endpoints.values() if e.secrets_change_at is not None
        ]
        self._secrets_change_at = min(changes, default=None)
        self.version = version
        self.changed()

    def route(self, event: Event) -> Sequence[Endpoint]:
        """Returns the endpoints that get this event: its tenant's, subscribed, with matching labels."""
        return self._router.route(event.tenant, event.type, event.labels)

    def _compile(self, row: EndpointRow, before: Endpoint | None, now: datetime) -> Endpoint:
        url, template, problem, detail = compile_request(row, self._configuration, now)
        profile = self._configuration.profiles.get(row.profile)
        if problem is Reason.INVALID_SETTINGS:
            row = _without_what_cannot_be_read(row)
        expiries = [secret.expires_at for secret in row.secrets if secret.expires_at is not None]
        known = self._rows.get(row.id)
        target = None
        if before is not None and known is not None:
            same_place = (known.url, known.ca_pem) == (row.url, row.ca_pem)
            target = before.target if same_place else None
        if target is None and url is not None:
            try:
                target = self._client.make_target(url, row.ca_pem, row.id)
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                if problem is None:
                    problem, detail = Reason.INVALID_CA_PEM, str(error)
        _log_problem(row.id, problem, detail, before)
        return Endpoint(
            id=row.id,
            tenant=row.tenant,
            name=row.name,
            number=row.number,
            revision=row.revision,
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
            problem=problem,
            problem_detail=detail,
            failing=row.first_failure_at is not None,
            secrets_change_at=min((at for at in expiries if at > now), default=None),
        )


def _without_what_cannot_be_read(row: EndpointRow) -> EndpointRow:
    """Return a row that matches by the parts that can be read, so that its deliveries wait and are visible."""
    labels_faults = faults(
        event_types=(), labels=row.labels, headers={}, retry_schedule_seconds=None
    )
    return row._replace(
        event_types=[str(one) for one in row.event_types if one],
        labels={} if labels_faults else row.labels,
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


def _log_problem(
    endpoint_id: EndpointId, problem: Reason | None, detail: str, before: Endpoint | None
) -> None:
    """Log when an endpoint becomes unusable or usable again, once per change."""
    known = None if before is None else before.problem
    if problem is not None and problem is not known:
        _log.error("endpoint.unusable", endpoint_id=endpoint_id, reason=problem, error=detail)
    elif problem is None and known is not None:
        _log.info("endpoint.usable_again", endpoint_id=endpoint_id, reason=known)
