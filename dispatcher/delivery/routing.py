"""The routing table: every endpoint compiled, and which of them an event goes to.

The table is a cache of the database under a version. Fan-out compares the version that its claim
read and refreshes the table when it differs, so that an endpoint saved before an event's commit
never misses it. A refresh reloads the endpoints that changed since the table's version, and no
other: the others stay the same objects, and with them their open connections. The table is loaded
whole at the start, after a reload of the settings, and after a failover, because the new server may
lack changes that the old one had.

What is always true: each endpoint is at least as new as the table's version. A refresh sets the
version last, so one that fails midway is repeated from where the table was. One refresh runs at a
time, and each lets other work run every few milliseconds.
"""

import asyncio
import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from heapq import heappop, heappush
from typing import Protocol

import structlog

from dispatcher.config.settings import Settings
from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.credentials import Credentials
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.filters import compile_filter
from dispatcher.core.masks import compile_mask
from dispatcher.core.matching import Router, Subscription, parse_event_types
from dispatcher.core.model import EndpointId, EndpointState, Event, Reason
from dispatcher.core.notifying import NOTIFICATION, TARGET_LABEL
from dispatcher.core.order import Ordering
from dispatcher.core.outcome import RetryPolicy
from dispatcher.core.profile import Profile
from dispatcher.core.readable import faults
from dispatcher.core.sealing import Keyring
from dispatcher.core.url import CanonicalUrl
from dispatcher.delivery.endpoint import Endpoint
from dispatcher.delivery.ports import EndpointStore
from dispatcher.outbound.pool import Target
from dispatcher.runtime import probe
from dispatcher.store.routing import EndpointRow, RoutingChanges
from dispatcher.usability import Configuration, compile_request

_log = structlog.get_logger("dispatcher.delivery.routing")

LOAD_ENDPOINTS_MAX = 250
"""Endpoints that one statement loads."""
COMPILED_PER_SLICE = 50
"""Endpoints that are compiled before other work may run: about 3 ms."""


class Client(Protocol):
    """The HTTP client, as the table uses it."""

    @property
    def policy(self) -> AddressPolicy:
        """Return which addresses and ports may be reached."""
        ...

    def make_target(
        self,
        url: CanonicalUrl,
        ca_pem: str | None,
        label: str,
        credentials: Credentials | None = None,
    ) -> Target:
        """Return where to connect to, with which trust and credentials."""
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
        self._lock = asyncio.Lock()
        self._router: Router[Endpoint] = Router()
        self._positions: dict[EndpointId, int] = {}
        """Of the endpoints in the router."""
        self._expiries: list[tuple[datetime, EndpointId]] = []
        """A heap of when old secrets stop signing; an item that its endpoint no longer has is ignored."""
        self._server_started_at: datetime | None = None
        self.version = 0
        """0: the next refresh loads every endpoint."""
        self.endpoints: dict[EndpointId, Endpoint] = {}
        self._filtered: set[EndpointId] = set()
        self._ordered: set[EndpointId] = set()
        self.unusable: dict[EndpointId, Reason] = {}
        """The endpoints that cannot be sent to, each with the reason; their deliveries wait."""
        self.changed: Callable[[Sequence[EndpointId]], None] = lambda _: None
        """Called with the endpoints that were loaded or removed; lanes follow."""
        self.refreshed: Callable[[], None] = lambda: None
        """Called after every refresh."""

    def is_stale(self, version: int) -> bool:
        """Return whether the database has another version, or an old secret has stopped signing."""
        return version != self.version or bool(self._expired())

    def profile(self, name: str) -> Profile | None:
        """Return the profile of that name; None: its file is missing."""
        return self._configuration.profiles.get(name)

    def reconfigure(self, profiles: Mapping[str, Profile], max_concurrency: int) -> None:
        """Use other profiles and another default limit; the next refresh compiles every endpoint again."""
        self._configuration = replace(self._configuration, profiles=profiles)
        self._max_concurrency = max_concurrency
        self.version = 0

    async def refresh(self) -> None:
        """Reload the endpoints that changed since the table's version.

        Raises:
            StoreUnavailableError: the version is what it was; some endpoints may be newer.
        """
        async with self._lock:
            configuration = self._configuration
            changes = await self._changes()
            endpoint_ids = list(dict.fromkeys((*changes.endpoint_ids, *self._expired())))
            for first in range(0, len(endpoint_ids), LOAD_ENDPOINTS_MAX):
                await self._load(endpoint_ids[first : first + LOAD_ENDPOINTS_MAX])
                if first:
                    # Endpoints stay and have no cycles. Collecting the first 100,000 of their objects
                    # was the longest step of a load, 40 ms.
                    gc.freeze()
            self._server_started_at = changes.server_started_at
            if configuration is self._configuration:
                self.version = changes.version
        self.refreshed()
        probe.hit("routing.refreshed", endpoints=len(endpoint_ids), version=changes.version)

    def route(self, event: Event) -> Sequence[Endpoint]:
        """Return the endpoints that get this event: its tenant's, subscribed, with matching labels.

        A notification goes to the endpoint that its label names, and to no other.
        """
        if event.type == NOTIFICATION:
            target = self.endpoints.get(EndpointId(event.labels.get(TARGET_LABEL, "")))
            return [] if target is None or target.tenant != event.tenant else [target]
        return self._router.route(event.tenant, event.type, event.labels)

    def has_filters(self) -> bool:
        """Return whether any endpoint has a content filter."""
        return bool(self._filtered)

    def has_order(self) -> bool:
        """Return whether any endpoint's deliveries are sent in order."""
        return bool(self._ordered)

    async def _changes(self) -> RoutingChanges:
        """Return what to load: what changed on the same server, or else everything that is or was there."""
        if self.version:
            changes = await self._store.changes(self.version)
            same_server = changes.server_started_at == self._server_started_at
            if same_server and changes.version >= self.version:
                return changes
        changes = await self._store.changes(None)
        saved = set(changes.endpoint_ids)
        gone = [endpoint_id for endpoint_id in self.endpoints if endpoint_id not in saved]
        return changes._replace(endpoint_ids=[*changes.endpoint_ids, *gone])

    async def _load(self, endpoint_ids: Sequence[EndpointId]) -> None:
        """Compile these endpoints, or remove those that are deleted."""
        rows = {row.id: row for row in await self._store.load(endpoint_ids)}
        now = self._now()
        for count, endpoint_id in enumerate(endpoint_ids, 1):
            before = self.endpoints.get(endpoint_id)
            row = rows.get(endpoint_id)
            self._put(endpoint_id, before, row and self._compile(row, before, now))
            if count % COMPILED_PER_SLICE == 0:
                await asyncio.sleep(0)
        self.changed(endpoint_ids)

    def _put(
        self, endpoint_id: EndpointId, before: Endpoint | None, endpoint: Endpoint | None
    ) -> None:
        """Put an endpoint in the place of its former state; None: it is deleted."""
        target = None if endpoint is None else endpoint.target
        if before is not None and before.target is not None and target is not before.target:
            self._client.drop_target(before.target)
        if endpoint is None:
            if before is not None:
                del self.endpoints[endpoint_id]
                self._router.remove(self._positions.pop(endpoint_id))
                self.unusable.pop(endpoint_id, None)
                self._filtered.discard(endpoint_id)
                self._ordered.discard(endpoint_id)
            return
        self.endpoints[endpoint_id] = endpoint
        if endpoint.content_filter is None:
            self._filtered.discard(endpoint_id)
        else:
            self._filtered.add(endpoint_id)
        if endpoint.ordering is Ordering.NONE:
            self._ordered.discard(endpoint_id)
        else:
            self._ordered.add(endpoint_id)
        if before is None:
            self._positions[endpoint_id] = self._router.add(endpoint)
        else:
            self._router.replace(self._positions[endpoint_id], endpoint)
        if endpoint.problem is None:
            self.unusable.pop(endpoint_id, None)
        else:
            self.unusable[endpoint_id] = endpoint.problem
        at = endpoint.secrets_change_at
        if at is not None and (before is None or before.secrets_change_at != at):
            heappush(self._expiries, (at, endpoint_id))

    def _expired(self) -> list[EndpointId]:
        """Return the endpoints whose old secret has stopped signing since they were compiled."""
        expiries, now = self._expiries, self._now()
        while expiries and not self._is_current(*expiries[0]):
            heappop(expiries)
        if not expiries or expiries[0][0] > now:
            return []
        return [i for at, i in expiries if at <= now and self._is_current(at, i)]

    def _is_current(self, at: datetime, endpoint_id: EndpointId) -> bool:
        endpoint = self.endpoints.get(endpoint_id)
        return endpoint is not None and endpoint.secrets_change_at == at

    def _compile(self, row: EndpointRow, before: Endpoint | None, now: datetime) -> Endpoint:
        url, template, problem, detail, credentials = compile_request(row, self._configuration, now)
        profile = self._configuration.profiles.get(row.profile)
        if problem is Reason.INVALID_SETTINGS:
            row = _without_what_cannot_be_read(row)
        expiries = [secret.expires_at for secret in row.secrets if secret.expires_at is not None]
        target = None
        if before is not None and (before.url, before.ca_pem, before.credentials) == (
            row.url,
            row.ca_pem,
            credentials,
        ):
            target = before.target
        if target is None and url is not None:
            try:
                target = self._client.make_target(url, row.ca_pem, row.id, credentials)
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
            ca_pem=row.ca_pem,
            credentials=credentials,
            profile_name=row.profile,
            profile=profile,
            state=EndpointState(row.state),
            subscription=_subscription(row),
            label_filter=row.labels,
            content_filter=None
            if row.content_filter is None
            else _compile_filter(row.content_filter),
            is_pulled=row.delivery == "pull",
            mask=compile_mask(tuple(row.include), tuple(row.exclude)),
            body_key=row.body_key,
            shard=row.shard,
            max_concurrency=row.max_concurrency or self._max_concurrency,
            rate_limit=row.rate_limit,
            timeout_seconds=row.timeout_seconds or (profile.timeout_seconds if profile else 15.0),
            retry_policy=_retry_policy(
                profile,
                None if row.retry_schedule_seconds is None else tuple(row.retry_schedule_seconds),
                None if row.ordering == Ordering.NONE else row.skip_after_attempts,
            ),
            ordering=Ordering(row.ordering),
            template=template,
            target=target,
            host_key=(url.host, url.port) if url else None,
            problem=problem,
            problem_detail=detail,
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


_retry_policy = lru_cache(maxsize=1024)(RetryPolicy.of)
"""Endpoints with the same policy share it."""
_compile_filter = lru_cache(maxsize=1024)(compile_filter)
_parse_event_types = lru_cache(maxsize=1024)(parse_event_types)
"""Endpoints with the same event types share one subscription."""


def _subscription(row: EndpointRow) -> Subscription:
    try:
        return _parse_event_types(tuple(row.event_types))
    except InvalidRequestError as error:
        _log.error("endpoint.subscription_rejected", endpoint_id=row.id, error=str(error))
        return Subscription(names=frozenset(), prefixes=(), everything=False)


def _log_problem(
    endpoint_id: EndpointId, problem: Reason | None, detail: str, before: Endpoint | None
) -> None:
    """Log when an endpoint becomes unusable or usable again, once per change."""
    known = None if before is None else before.problem
    if problem is not None and problem is not known:
        _log.error("endpoint.rejected", endpoint_id=endpoint_id, reason=problem, error=detail)
    elif problem is None and known is not None:
        _log.info("endpoint.accepted", endpoint_id=endpoint_id, reason=known)
