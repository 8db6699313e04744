"""The store's interfaces on the database in memory: what the pipeline is given in place of Postgres.

Each call goes through `Reach`, which decides when it arrives, whether it arrives at all and whether its
answer comes back: at once and always in the conformance suite, by the seed in the simulation.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import Protocol, TypeVar

from dispatcher.core.census import Census, Pick
from dispatcher.core.model import DeliveryId, EndpointId, Event, EventId
from dispatcher.delivery import ports
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
from dispatcher.store.routing import EndpointRow, Health, RoutingChanges
from dispatcher.store.statistics import BreakerRow, RecentRow, TrafficRow
from tests.simulation.database import MemoryDatabase, Transaction

Value = TypeVar("Value")


class Reach(Protocol):
    """A replica's way to the database."""

    tables: MemoryDatabase

    async def ask(self, statement: Callable[[], Value]) -> Value:
        """Runs a statement there and brings its result back.

        Raises:
            StoreUnavailableError: it ran, or it did not.
        """
        ...

    def begin(self) -> Transaction:
        """Returns a new transaction of this replica."""
        ...

    def abandon(self, transaction: Transaction) -> None:
        """Throws the transaction's connection away."""
        ...


class Direct:
    """A way without distance, for the conformance suite."""

    def __init__(self, tables: MemoryDatabase) -> None:
        self.tables = tables

    async def ask(self, statement: Callable[[], Value]) -> Value:
        return statement()

    def begin(self) -> Transaction:
        return Transaction()

    def abandon(self, transaction: Transaction) -> None:
        self.tables.end(transaction)


class MemoryClaim:
    """Events that are ours while the transaction lasts."""

    def __init__(self, reach: Reach, transaction: Transaction, routing_version: int) -> None:
        self._reach = reach
        self._transaction = transaction
        self.events: list[Event] = transaction.events
        self.routing_version = routing_version
        self.lost: frozenset[EventId] = frozenset()

    @property
    def accepted_at(self) -> datetime:
        return datetime.fromtimestamp(self._transaction.accepted_at, UTC)

    @property
    def day(self) -> date:
        return self.accepted_at.date()

    async def write(
        self, bodies: list[BodyRow], deliveries: list[DeliveryRow], cancelled: list[CancelledRow]
    ) -> None:
        tables = self._reach.tables
        await self._reach.ask(
            lambda: tables.write(self._transaction, bodies, deliveries, cancelled)
        )

    async def keep_open(self) -> None:
        """Run nothing: a simulated transaction is not ended as idle."""

    async def announce(self, incarnation: str) -> None:
        def statement() -> None:
            self._transaction.announced_by = incarnation

        await self._reach.ask(statement)

    async def announce_pulled(self, endpoint_nos: Sequence[int]) -> None:
        """Do nothing: no simulated endpoint is pulled."""


class FewMemoryClaim(MemoryClaim):
    """Events that were read without a lock; the rows are written when the block ends."""

    async def write(
        self, bodies: list[BodyRow], deliveries: list[DeliveryRow], cancelled: list[CancelledRow]
    ) -> None:
        self._reach.tables.write(self._transaction, bodies, deliveries, cancelled)

    async def announce(self, incarnation: str) -> None:
        self._transaction.announced_by = incarnation


class MemoryOutbox(ports.OutboxStore):
    """The outbox as intake and fan-out see it."""

    def __init__(self, reach: Reach, *, synchronous_commit: bool = False) -> None:
        del synchronous_commit  # simulated commits are on disk at once
        self._reach = reach
        self._census = Census()

    async def poll(self, *, counts_waiters: bool = False) -> Poll:
        del counts_waiters
        return await self._reach.ask(self._reach.tables.poll)

    @asynccontextmanager
    async def claim(
        self,
        events_max: int,
        bytes_max: int,
        event_id: str | None = None,
        tenants: dict[int, str] | None = None,
    ) -> AsyncIterator[MemoryClaim]:
        reach, tables = self._reach, self._reach.tables
        transaction = reach.begin()
        try:
            version = await reach.ask(
                lambda: tables.claim(
                    transaction,
                    events_max,
                    bytes_max,
                    event_id,
                    None if tenants is None else list(tenants),
                )
            )
            yield MemoryClaim(reach, transaction, version)
            await reach.ask(lambda: tables.commit(transaction))
        except BaseException:
            self._census.forget()
            reach.abandon(transaction)
            raise
        if tenants is None and event_id is None and transaction.events:
            self._census.claimed(transaction.events[0].tenant, transaction.positions[-1])

    @asynccontextmanager
    async def claim_few(self, events_max: int) -> AsyncIterator[MemoryClaim]:
        reach, tables = self._reach, self._reach.tables
        transaction = Transaction()  # of no connection: nothing is held, and nothing times out
        version = await reach.ask(lambda: tables.peek(transaction, events_max))
        claim = FewMemoryClaim(reach, transaction, version)
        yield claim
        if transaction.events:
            claim.lost = await reach.ask(lambda: tables.fan_out(transaction))

    async def pick(self, events_max: int) -> Pick:
        after = self._census.scan_from(asyncio.get_running_loop().time())
        left_out = self._census.left_out()
        found, reached = await self._reach.ask(lambda: self._reach.tables.tenants(after, left_out))
        self._census.scanned(found, reached, 0.001)
        return self._census.pick(events_max)

    def leave(self, position: int) -> None:
        self._census.leave(position)

    async def oldest(self) -> str | None:
        return await self._reach.ask(self._reach.tables.oldest)

    async def renumber(self, event_ids: Sequence[str]) -> dict[str, str]:
        """Numbers are not simulated: ids are unique."""
        del event_ids
        return {}

    async def quarantine(self, event_id: str) -> bool:
        return await self._reach.ask(lambda: self._reach.tables.quarantine(event_id))


class MemoryResults(ports.ResultStore):
    """What is recorded of attempts."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    async def record(
        self, moves: Sequence[MoveRow], attempts: Sequence[AttemptRow], tokens: dict[int, int]
    ) -> Recorded:
        return await self._reach.ask(lambda: self._reach.tables.record(moves, attempts, tokens))

    async def settle_requests(self, attempts: Sequence[tuple[DeliveryId, datetime, bool]]) -> None:
        await self._reach.ask(lambda: self._reach.tables.settle_requests(attempts))


class MemoryRequests(ports.RequestStore):
    """What people have requested."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    async def of_deliveries(
        self, shards: Sequence[int], rows_max: int, in_flight: Sequence[DeliveryId]
    ) -> list[RequestRow]:
        return await self._reach.ask(
            lambda: self._reach.tables.load_requests(shards, rows_max, in_flight)
        )

    async def forget(self, requests: Sequence[tuple[DeliveryId, str]]) -> None:
        await self._reach.ask(lambda: self._reach.tables.forget_requests(requests))

    async def of_endpoints(
        self, tokens: Mapping[int, int], rows_max: int
    ) -> list[EndpointRequestRow]:
        """Requests about endpoints are not simulated."""
        del tokens, rows_max
        return []

    async def forget_of_endpoints(self, requests: Sequence[EndpointRequestRow]) -> None:
        await self._reach.ask(lambda: requests)


class MemoryDeliveries(ports.DeliveryStore):
    """Waiting deliveries, as the loader sees them."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    async def window(
        self, endpoint_ids: Sequence[EndpointId], rows_max: int, horizon_seconds: float
    ) -> list[WindowRow]:
        return await self._reach.ask(
            lambda: self._reach.tables.window(endpoint_ids, rows_max, horizon_seconds)
        )

    async def arrivals(
        self, endpoint_ids: Sequence[EndpointId], rows_max: int, back_seconds: float
    ) -> list[WindowRow]:
        return await self._reach.ask(
            lambda: self._reach.tables.arrivals(endpoint_ids, rows_max, back_seconds)
        )

    async def load(self, ids: Sequence[DeliveryId]) -> list[LoadedRow]:
        return await self._reach.ask(lambda: self._reach.tables.load(ids))

    async def place(self, ids: Sequence[DeliveryId]) -> list[PlacedRow]:
        return await self._reach.ask(lambda: self._reach.tables.place(ids))

    async def shelve(self, ids: Sequence[DeliveryId]) -> None:
        await self._reach.ask(lambda: self._reach.tables.shelve(ids))

    async def wake(self, endpoint_no: int, keys: Sequence[int], rows_max: int) -> list[WindowRow]:
        return await self._reach.ask(lambda: self._reach.tables.wake(endpoint_no, keys, rows_max))

    async def sweep(self, endpoint_no: int, after_key: int, keys_max: int) -> Swept:
        return await self._reach.ask(
            lambda: self._reach.tables.sweep(endpoint_no, after_key, keys_max)
        )

    async def bring_back(self, endpoint_no: int, rows_max: int) -> int:
        """Endpoints keep their ordering in the simulation."""
        del endpoint_no, rows_max
        return 0

    async def release(self, endpoint_no: int, rows_max: int) -> int:
        del endpoint_no, rows_max
        return 0


class MemoryRouting(ports.EndpointStore):
    """The routing tables, as fan-out and recorder see them."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    async def changes(self, since_version: int | None) -> RoutingChanges:
        return await self._reach.ask(lambda: self._reach.tables.routing_changes(since_version))

    async def load(self, endpoint_ids: Sequence[EndpointId]) -> list[EndpointRow]:
        return await self._reach.ask(lambda: self._reach.tables.load_endpoints(endpoint_ids))

    async def failing(self) -> set[EndpointId]:
        return await self._reach.ask(lambda: set(self._reach.tables.health))

    async def disable(self, endpoint_id: EndpointId, reason: str, *, raises_event: bool) -> bool:
        del raises_event
        return await self._reach.ask(lambda: self._reach.tables.disable(endpoint_id, reason))

    async def warn(self, endpoint_id: EndpointId, percent: int) -> bool:
        del endpoint_id, percent
        return False

    async def count_failures(
        self, failures: Sequence[tuple[EndpointId, datetime, int, bool]]
    ) -> list[Health]:
        return await self._reach.ask(lambda: self._reach.tables.count_failures(failures))

    async def clear_failures(self, endpoint_ids: Sequence[EndpointId]) -> None:
        await self._reach.ask(lambda: self._reach.tables.clear_failures(endpoint_ids))


class MemoryLeases(ports.LeaseStore):
    """The replica's and the shards' rows."""

    def __init__(self, reach: Reach, key_ids: Iterable[str] = ()) -> None:
        del key_ids
        self._reach = reach

    async def join(self, incarnation: str, name: str, version: str, lease_seconds: float) -> int:
        del version
        return await self._reach.ask(
            lambda: self._reach.tables.join(incarnation, name, lease_seconds)
        )

    async def namesakes(self, name: str, incarnation: str) -> list[tuple[str, datetime]]:
        return await self._reach.ask(lambda: self._reach.tables.namesakes(name, incarnation))

    async def expire(self, incarnation: str, renewed_at: datetime) -> bool:
        return await self._reach.ask(lambda: self._reach.tables.expire(incarnation, renewed_at))

    async def renew(self, incarnation: str, lease_seconds: float) -> Renewal | None:
        return await self._reach.ask(lambda: self._reach.tables.renew(incarnation, lease_seconds))

    async def take(self, incarnation: str, shards_max: int) -> dict[int, int]:
        return await self._reach.ask(lambda: self._reach.tables.take(incarnation, shards_max))

    async def release(self, incarnation: str, shards: Sequence[int]) -> None:
        await self._reach.ask(lambda: self._reach.tables.release(incarnation, shards))

    async def leave(self, incarnation: str) -> None:
        await self._reach.ask(lambda: self._reach.tables.leave(incarnation))


class MemoryStatistics(ports.StatisticsStore):
    """Statistics, which nothing that delivers reads: they are asked for and forgotten."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    async def add(self, rows: Sequence[TrafficRow]) -> None:
        await self._reach.ask(lambda: rows)

    async def add_recent(self, rows: Sequence[RecentRow]) -> None:
        await self._reach.ask(lambda: rows)

    async def publish_breakers(self, incarnation: str, rows: Sequence[BreakerRow]) -> None:
        del incarnation
        await self._reach.ask(lambda: rows)

    async def take_tested(self, incarnation: str) -> list[EndpointId]:
        del incarnation
        return []

    async def publish_figures(self, incarnation: str, figures: Mapping[str, object]) -> None:
        del incarnation
        await self._reach.ask(lambda: figures)
