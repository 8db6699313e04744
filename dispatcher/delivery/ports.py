"""The stores as the delivery path uses them: one Protocol per store.

`dispatcher/store` implements them on Postgres, `tests/simulation/stores.py` in memory; one
conformance suite holds both to the same behaviour. Every method may raise `StoreUnavailableError`:
the statement may have run, or not.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import date, datetime
from typing import Protocol

from dispatcher.core.census import Pick
from dispatcher.core.model import DeliveryId, EndpointId, Event, EventId
from dispatcher.failure_counts import FailureStore
from dispatcher.store.attempts import AttemptRow
from dispatcher.store.claims import BodyRow, CancelledRow, DeliveryRow
from dispatcher.store.deliveries import (
    LoadedRow,
    PlacedRow,
    Swept,
    WindowRow,
)
from dispatcher.store.delivery_requests import EndpointRequestRow, RequestRow
from dispatcher.store.leases import Renewal
from dispatcher.store.outbox import Poll
from dispatcher.store.results import MoveRow, Recorded
from dispatcher.store.routing import EndpointRow, RoutingChanges
from dispatcher.store.statistics import BreakerRow, RecentRow, TrafficRow


class Claim(Protocol):
    """The events claimed by a transaction, which commits after `write()` at the end of the claim's block."""

    @property
    def events(self) -> list[Event]:
        """The claimed events in the order of their positions."""
        ...

    @property
    def routing_version(self) -> int:
        """The version of the routing table that the transaction reads."""
        ...

    @property
    def lost(self) -> frozenset[EventId]:
        """The events that another replica has claimed first, for which nothing was written; known after the block."""
        ...

    @property
    def accepted_at(self) -> datetime:
        """When the database accepted the events; UTC."""
        ...

    @property
    def day(self) -> date:
        """The partition that these events, their deliveries and attempts belong to."""
        ...

    async def write(
        self, bodies: list[BodyRow], deliveries: list[DeliveryRow], cancelled: list[CancelledRow]
    ) -> None:
        """Write the events with their bodies and deliveries."""
        ...

    async def keep_open(self) -> None:
        """Run a statement, so that Postgres does not end the transaction as idle."""
        ...

    async def announce(self, incarnation: str) -> None:
        """Notify the other replicas, at commit, that there are deliveries for them."""
        ...

    async def announce_pulled(self, endpoint_nos: Sequence[int]) -> None:
        """Wake the polls of these endpoints, at commit."""
        ...


class OutboxStore(Protocol):
    """Events that producers committed and that are not fanned out yet."""

    async def poll(self, *, counts_waiters: bool = False) -> Poll:
        """Return what may have changed since the last poll."""
        ...

    def claim(
        self,
        events_max: int,
        bytes_max: int,
        event_id: str | None = None,
        tenants: dict[int, str] | None = None,
    ) -> AbstractAsyncContextManager[Claim]:
        """Yield a claim; what was written to it is committed when the block ends well."""
        ...

    def claim_few(self, events_max: int) -> AbstractAsyncContextManager[Claim]:
        """Yield a claim on a few of the oldest events, which are claimed and written when the block ends well."""
        ...

    async def pick(self, events_max: int) -> Pick:
        """Return events of tenants that wait behind another tenant's backlog, in turns."""
        ...

    def leave(self, position: int) -> None:
        """Leave an event that Postgres refused to the claim by position."""
        ...

    async def oldest(self) -> str | None:
        """Return the id of the oldest waiting event."""
        ...

    async def renumber(self, event_ids: Sequence[str]) -> dict[str, str]:
        """Give waiting events a new id if an earlier event has theirs; return the new ids by the old."""
        ...

    async def quarantine(self, event_id: str) -> bool:
        """Quarantine a waiting event; return whether it was still waiting."""
        ...


class DeliveryStore(Protocol):
    """Open deliveries."""

    async def window(
        self, endpoint_ids: Sequence[EndpointId], rows_max: int, horizon_seconds: float
    ) -> list[WindowRow]:
        """Return the next due deliveries of each endpoint."""
        ...

    async def arrivals(
        self, endpoint_ids: Sequence[EndpointId], rows_max: int, back_seconds: float
    ) -> list[WindowRow]:
        """Return the deliveries that became due within the last `back_seconds`."""
        ...

    async def load(self, ids: Sequence[DeliveryId]) -> list[LoadedRow]:
        """Return those that are still open, with everything that an attempt needs."""
        ...

    async def release(self, endpoint_no: int, rows_max: int) -> int:
        """Make scheduled deliveries of an endpoint due now; return how many."""
        ...

    async def place(self, ids: Sequence[DeliveryId]) -> list[PlacedRow]:
        """Return where those of these deliveries that are open stand in their lines."""
        ...

    async def shelve(self, ids: Sequence[DeliveryId]) -> None:
        """Take deliveries that stand behind others out of the window."""
        ...

    async def wake(self, endpoint_no: int, keys: Sequence[int], rows_max: int) -> list[WindowRow]:
        """Return the first deliveries of each of these lines; those that were shelved are due now."""
        ...

    async def sweep(self, endpoint_no: int, after_key: int, keys_max: int) -> Swept:
        """Make the first deliveries of some lines due where they were shelved."""
        ...

    async def bring_back(self, endpoint_no: int, rows_max: int) -> int:
        """Make deliveries due that were shelved, of an endpoint that has no order now; return how many."""
        ...


class RequestStore(Protocol):
    """What people have requested: resends and cancellations of deliveries, and what is about an endpoint."""

    async def of_deliveries(
        self, shards: Sequence[int], rows_max: int, in_flight: Sequence[DeliveryId]
    ) -> list[RequestRow]:
        """Return requests for deliveries in these shards, except those in flight."""
        ...

    async def forget(self, requests: Sequence[tuple[DeliveryId, str]]) -> None:
        """Delete requests (id, kind) that were acted on."""
        ...

    async def of_endpoints(
        self, tokens: Mapping[int, int], rows_max: int
    ) -> list[EndpointRequestRow]:
        """Return requests about endpoints of the shards that are held under these tokens."""
        ...

    async def forget_of_endpoints(self, requests: Sequence[EndpointRequestRow]) -> None:
        """Delete requests that were acted on; one that was made again meanwhile stays."""
        ...


class ResultStore(Protocol):
    """Where the results of attempts are recorded."""

    async def record(
        self, moves: Sequence[MoveRow], attempts: Sequence[AttemptRow], tokens: dict[int, int]
    ) -> Recorded:
        """Record a batch, all or nothing."""
        ...

    async def settle_requests(self, attempts: Sequence[tuple[DeliveryId, datetime, bool]]) -> None:
        """Delete the resend requests that these attempts have answered."""
        ...


class EndpointStore(FailureStore, Protocol):
    """Endpoints as rows, and their health."""

    async def changes(self, since_version: int | None) -> RoutingChanges:
        """Return the version and the endpoints that changed after another; None: all that are not deleted."""
        ...

    async def load(self, endpoint_ids: Sequence[EndpointId]) -> list[EndpointRow]:
        """Return those of these endpoints that are not deleted."""
        ...

    async def failing(self) -> set[EndpointId]:
        """Return the endpoints whose latest attempts failed."""
        ...


class LeaseStore(Protocol):
    """The rows of replicas and shards."""

    async def join(self, incarnation: str, name: str, version: str, lease_seconds: float) -> int:
        """Insert this incarnation, if it is not there; return the number of its join, which are counted."""
        ...

    async def namesakes(self, name: str, incarnation: str) -> list[tuple[str, datetime]]:
        """Return other living incarnations of this name, and when each last renewed its lease."""
        ...

    async def expire(self, incarnation: str, renewed_at: datetime) -> bool:
        """Expire an incarnation that has not renewed since; return whether that was so."""
        ...

    async def renew(self, incarnation: str, lease_seconds: float) -> Renewal | None:
        """Renew the lease; None if the incarnation was expired and has to join again."""
        ...

    async def take(self, incarnation: str, shards_max: int) -> dict[int, int]:
        """Take shards without a living owner; return shard to token."""
        ...

    async def release(self, incarnation: str, shards: Sequence[int]) -> None:
        """Release shards."""
        ...

    async def leave(self, incarnation: str) -> None:
        """Delete the incarnation's row."""
        ...


class StatisticsStore(Protocol):
    """Traffic counters, published breakers and figures of replicas."""

    async def add(self, rows: Sequence[TrafficRow]) -> None:
        """Add counts."""
        ...

    async def add_recent(self, rows: Sequence[RecentRow]) -> None:
        """Add the attempts of endpoints that fail, which their health is evaluated from."""
        ...

    async def publish_breakers(self, incarnation: str, rows: Sequence[BreakerRow]) -> None:
        """Replace the rows of this replica's breakers that are not closed."""
        ...

    async def take_tested(self, incarnation: str) -> list[EndpointId]:
        """Return the endpoints of published breakers whose test event succeeded, once each."""
        ...

    async def publish_figures(self, incarnation: str, figures: Mapping[str, object]) -> None:
        """Replace this replica's figures."""
        ...


class EventSignal(Protocol):
    """The LISTEN connection, as intake uses it."""

    woken: asyncio.Event
    is_asleep: bool

    async def sleep(self) -> bool:
        """Make producers announce their commits; return whether they did not before."""
        ...

    async def wake(self) -> None:
        """Let producers commit without announcing it."""
        ...
