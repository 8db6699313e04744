"""Fakes of the stores for tests of stages: rows in memory that the test sets, and calls that it reads back.

Each one derives from its Protocol in `dispatcher.delivery.ports`, so that mypy compares every method with it.
The in-memory database of the simulation (`tests/simulation/stores.py`) derives from the same Protocols.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime

from dispatcher.core.census import Pick
from dispatcher.core.errors import BatchRefusedError, StoreUnavailableError
from dispatcher.core.limits import SHARDS_COUNT
from dispatcher.core.model import DeliveryId, EndpointId, Event, EventId
from dispatcher.delivery import ports
from dispatcher.runtime.clock import Clock
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
from dispatcher.store.outbox import FEW_EVENTS_MAX, Poll
from dispatcher.store.results import MoveRow, Recorded
from dispatcher.store.routing import EndpointRow, Health, RoutingChanges
from dispatcher.store.statistics import BreakerRow, RecentRow, TrafficRow
from tests.support.deliveries import AT, DAY


class FakeSignal(ports.EventSignal):
    """The LISTEN connection; without `works` it cannot make producers announce."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self.is_asleep = False
        self.wakes = 0
        self.works = True

    async def sleep(self) -> bool:
        if self.is_asleep or not self.works:
            return False
        self.is_asleep = True
        return True

    async def wake(self) -> None:
        if self.is_asleep:
            self.is_asleep = False
            self.wakes += 1


class FakeClaim:
    """A claim that keeps what is written to it."""

    def __init__(self, events: list[Event], routing_version: int) -> None:
        self.events = events
        self.routing_version = routing_version
        self.accepted_at: datetime = AT
        self.day: date = AT.date()
        self.lost: frozenset[EventId] = frozenset()
        self.announced_by: str | None = None
        self.pulled: list[int] = []
        self.is_written = False
        self.kept_open_count = 0
        self.bodies: list[BodyRow] = []
        self.deliveries: list[DeliveryRow] = []
        self.cancelled: list[CancelledRow] = []

    async def write(
        self, bodies: list[BodyRow], deliveries: list[DeliveryRow], cancelled: list[CancelledRow]
    ) -> None:
        self.is_written = True
        self.bodies, self.deliveries, self.cancelled = bodies, deliveries, cancelled

    async def keep_open(self) -> None:
        self.kept_open_count += 1

    async def announce(self, incarnation: str) -> None:
        self.announced_by = incarnation

    async def announce_pulled(self, endpoint_nos: Sequence[int]) -> None:
        self.pulled += endpoint_nos


class FakeOutbox(ports.OutboxStore):
    """Waiting events, those behind another tenant's backlog by position, and the committed claims."""

    def __init__(self) -> None:
        self.waiting: list[Event] = []
        self.behind: dict[int, Event] = {}
        self.left: list[int] = []
        self.routing_version = 1
        self.claims: list[FakeClaim] = []
        self.lost: frozenset[EventId] = frozenset()
        """What another replica claims before a claim of a few events does."""
        self.fails_to_commit = False
        self.poison = ""
        self.quarantined: list[str] = []

    @property
    def committed_count(self) -> int:
        return sum(len(claim.events) for claim in self.claims)

    async def poll(self, *, counts_waiters: bool = False) -> Poll:
        del counts_waiters
        return Poll(self.routing_version, bool(self.waiting), requests_waiting=False)

    @asynccontextmanager
    async def claim(
        self,
        events_max: int,
        bytes_max: int,
        event_id: str | None = None,
        tenants: dict[int, str] | None = None,
    ) -> AsyncIterator[FakeClaim]:
        del bytes_max
        assert event_id in {None, self.waiting[0].id if self.waiting else None}
        events = self.waiting[:events_max]
        if tenants is not None:
            events = [self.behind[p] for p in tenants if p in self.behind]
        claim = FakeClaim(events, self.routing_version)
        yield claim
        if self.fails_to_commit:
            raise StoreUnavailableError("away")
        if any(event.id == self.poison for event in claim.events):
            raise BatchRefusedError("refused")
        if tenants is None:
            self.waiting = self.waiting[events_max:]
        self.behind = {p: e for p, e in self.behind.items() if p not in (tenants or {})}
        self.claims.append(claim)

    @asynccontextmanager
    async def claim_few(self, events_max: int) -> AsyncIterator[FakeClaim]:
        async with self.claim(min(events_max, FEW_EVENTS_MAX), 0) as claim:
            yield claim
            claim.lost = self.lost

    async def pick(self, events_max: int) -> Pick:
        tenants = {p: "other" for p in [*self.behind][:events_max] if p not in self.left}
        return Pick(tenants, len(tenants))

    def leave(self, position: int) -> None:
        self.left.append(position)

    async def oldest(self) -> str | None:
        return self.waiting[0].id if self.waiting else None

    async def renumber(self, event_ids: Sequence[str]) -> dict[str, str]:
        del event_ids  # ids are unique here
        return {}

    async def quarantine(self, event_id: str) -> bool:
        self.waiting = [event for event in self.waiting if event.id != event_id]
        self.quarantined.append(event_id)
        return True


class FakeDeliveries(ports.DeliveryStore, ports.RequestStore, ports.ResultStore):
    """Open deliveries by id, with their due times and attempts, and the recorded batches.

    `outages` calls of `record` fail. A batch with `poison` is refused, unless its last attempt has an error
    in place of the receiver's response (`refuse_all`: always). `gate` holds `record` back while it is clear.
    """

    def __init__(self, clock: Clock, *, endpoint_id: str = "ep") -> None:
        self._clock = clock
        self._endpoint_id = EndpointId(endpoint_id)
        self.open: dict[str, tuple[float, int]] = {}
        self.calls: list[tuple[str, object]] = []
        self.requested: list[tuple[str, str]] = []
        self.forgotten: list[tuple[DeliveryId, str]] = []
        self.answered: set[str] = set()
        self.about_endpoints: list[EndpointRequestRow] = []
        self.batches: list[list[str]] = []
        self.tokens: list[dict[int, int]] = []
        self.outages = 0
        self.poison = ""
        self.refuse_all = False
        self.poison_errors: list[str | None] = []
        self.fenced: frozenset[DeliveryId] = frozenset()
        self.late: frozenset[DeliveryId] = frozenset()
        self.settled_requests: list[tuple[DeliveryId, datetime, bool]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def place(self, ids: Sequence[DeliveryId]) -> list[PlacedRow]:
        return [
            PlacedRow(i, None, None, None, is_held=False, joins_count=1)
            for i in ids
            if i in self.open
        ]

    async def shelve(self, ids: Sequence[DeliveryId]) -> None:
        del ids

    async def wake(self, endpoint_no: int, keys: Sequence[int], rows_max: int) -> list[WindowRow]:
        del endpoint_no, keys, rows_max
        return []

    async def sweep(self, endpoint_no: int, after_key: int, keys_max: int) -> Swept:
        del endpoint_no, after_key, keys_max
        return Swept(None, 0)

    async def bring_back(self, endpoint_no: int, rows_max: int) -> int:
        del endpoint_no, rows_max
        return 0

    def put(self, name: str, due_in: float = 0.0, attempt_count: int = 0) -> None:
        self.open[name] = (self._clock.monotonic() + due_in, attempt_count)

    def _row(self, name: str) -> WindowRow:
        return WindowRow(DeliveryId(name), self._endpoint_id, self._due_in(name))

    def _due_in(self, name: str) -> float:
        return self.open[name][0] - self._clock.monotonic()

    async def window(
        self, endpoint_ids: Sequence[EndpointId], rows_max: int, horizon_seconds: float
    ) -> list[WindowRow]:
        assert list(endpoint_ids) == [self._endpoint_id]
        self.calls.append(("window", horizon_seconds))
        names = [name for name in self.open if self._due_in(name) < horizon_seconds]
        return [self._row(name) for name in sorted(names, key=self._due_in)[:rows_max]]

    async def arrivals(
        self, endpoint_ids: Sequence[EndpointId], rows_max: int, back_seconds: float
    ) -> list[WindowRow]:
        assert self._endpoint_id in endpoint_ids
        self.calls.append(("arrivals", back_seconds))
        names = [name for name in self.open if -back_seconds <= self._due_in(name) <= 0]
        return [self._row(name) for name in names[:rows_max]]

    async def load(self, ids: Sequence[DeliveryId]) -> list[LoadedRow]:
        self.calls.append(("load", list(ids)))
        rows = []
        for name in reversed(list(ids)):
            if name in self.open:
                count = self.open[name][1]
                rows.append(
                    LoadedRow(
                        id=name,
                        day=DAY,
                        event_id=f"evt-{name}",
                        event_type="a.b",
                        endpoint_id=self._endpoint_id,
                        attempt_count=count,
                        schedule_position=count,
                        state="retrying" if count else "pending",
                        body=b"{}",
                        inserted_at=AT,
                        traceparent=None,
                        due_in_seconds=self._due_in(name),
                    )
                )
        return rows

    async def of_deliveries(
        self, shards: Sequence[int], rows_max: int, in_flight: Sequence[DeliveryId]
    ) -> list[RequestRow]:
        del shards, rows_max
        return [
            RequestRow(
                kind=kind,
                id=DeliveryId(name),
                day=DAY,
                event_id=f"evt-{name}",
                event_type="a.b",
                endpoint_id=self._endpoint_id,
                attempt_count=1,
                schedule_position=1,
                state="retrying",
                reason=None,
                body=b"{}",
                inserted_at=AT,
                traceparent=None,
                answered=name in self.answered,
            )
            for kind, name in self.requested
            if name not in in_flight
        ]

    async def forget(self, requests: Sequence[tuple[DeliveryId, str]]) -> None:
        self.forgotten += requests

    async def of_endpoints(
        self, tokens: Mapping[int, int], rows_max: int
    ) -> list[EndpointRequestRow]:
        assert tokens
        return self.about_endpoints[:rows_max]

    async def forget_of_endpoints(self, requests: Sequence[EndpointRequestRow]) -> None:
        self.about_endpoints = [one for one in self.about_endpoints if one not in requests]

    async def release(self, endpoint_no: int, rows_max: int) -> int:
        del endpoint_no
        later = [name for name in self.open if self._due_in(name) > 0][:rows_max]
        for name in later:
            self.put(name, 0.0, self.open[name][1])
        return len(later)

    async def record(
        self, moves: Sequence[MoveRow], attempts: Sequence[AttemptRow], tokens: dict[int, int]
    ) -> Recorded:
        await self.gate.wait()
        names = [move.delivery_id for move in moves]
        assert [attempt.delivery_id for attempt in attempts] == names
        if self.outages:
            self.outages -= 1
            raise StoreUnavailableError("away")
        if self.poison in names and (self.refuse_all or not attempts[-1].error):
            raise ValueError("refused")
        self.poison_errors += [a.error for a in attempts if a.delivery_id == self.poison]
        self.batches.append([str(name) for name in names])
        self.tokens.append(tokens)
        return Recorded(self.fenced & set(names), self.late & set(names))

    async def settle_requests(self, attempts: Sequence[tuple[DeliveryId, datetime, bool]]) -> None:
        self.settled_requests += attempts


class FakeEndpoints(ports.EndpointStore):
    """The health of endpoints: `health` is what failures add up to, `fails` which endpoints fail."""

    def __init__(self) -> None:
        self.disabled: list[tuple[EndpointId, str]] = []
        self.failures: list[tuple[EndpointId, datetime, int, bool]] = []
        self.cleared: list[EndpointId] = []
        self.fails: set[EndpointId] = set()
        self.health: list[Health] = []
        self.raised: list[str] = []

    async def changes(self, since_version: int | None) -> RoutingChanges:
        del since_version
        return RoutingChanges(1, AT, [])

    async def load(self, endpoint_ids: Sequence[EndpointId]) -> list[EndpointRow]:
        del endpoint_ids
        return []

    async def failing(self) -> set[EndpointId]:
        return self.fails

    async def disable(self, endpoint_id: EndpointId, reason: str, *, raises_event: bool) -> bool:
        self.disabled.append((endpoint_id, reason))
        self.raised += ["disabled"] if raises_event else []
        return True

    async def warn(self, endpoint_id: EndpointId, percent: int) -> bool:
        del endpoint_id
        self.raised.append(f"failing {percent}")
        return True

    async def count_failures(
        self, failures: Sequence[tuple[EndpointId, datetime, int, bool]]
    ) -> list[Health]:
        self.failures += failures
        return self.health

    async def clear_failures(self, endpoint_ids: Sequence[EndpointId]) -> None:
        self.cleared += endpoint_ids


class FakeLeases(ports.LeaseStore):
    """The shards of this replica and of `others` replicas; `expired` once another replica expired this one."""

    def __init__(self) -> None:
        self.others = 0
        self.mine: dict[int, int] = {}
        self.others_shards: set[int] = set()
        self.expired = False
        self.join_number = 1

    async def join(self, incarnation: str, name: str, version: str, lease_seconds: float) -> int:
        """Insert nothing: the row is there."""
        del incarnation, name, version, lease_seconds
        return self.join_number

    async def namesakes(self, name: str, incarnation: str) -> list[tuple[str, datetime]]:
        del name, incarnation
        return []

    async def expire(self, incarnation: str, renewed_at: datetime) -> bool:
        del incarnation, renewed_at
        return False

    async def renew(self, incarnation: str, lease_seconds: float) -> Renewal | None:
        del incarnation, lease_seconds
        if self.expired:
            return None
        free_count = SHARDS_COUNT - len(self.mine) - len(self.others_shards)
        return Renewal(self.others, dict(self.mine), free_count)

    async def take(self, incarnation: str, shards_max: int) -> dict[int, int]:
        del incarnation
        free = [
            s for s in range(SHARDS_COUNT) if s not in self.mine and s not in self.others_shards
        ]
        taken = dict.fromkeys(free[:shards_max], 1)
        self.mine |= taken
        return taken

    async def release(self, incarnation: str, shards: Sequence[int]) -> None:
        del incarnation
        for shard in shards:
            self.mine.pop(shard, None)

    async def leave(self, incarnation: str) -> None:
        del incarnation


class FakeStatistics(ports.StatisticsStore):
    """Published statistics of one replica; `is_away` and `refuses` make `add` fail."""

    def __init__(self, incarnation: str) -> None:
        self._incarnation = incarnation
        self.is_away = self.refuses = False
        self.added: list[TrafficRow] = []
        self.breakers: list[list[BreakerRow]] = []
        self.figures: list[Mapping[str, object]] = []
        self.tested: list[EndpointId] = []
        self.recent: list[list[RecentRow]] = []

    async def add_recent(self, rows: Sequence[RecentRow]) -> None:
        self.recent.append(list(rows))

    async def add(self, rows: Sequence[TrafficRow]) -> None:
        if self.is_away:
            raise StoreUnavailableError("away")
        if self.refuses:
            raise BatchRefusedError("no")
        self.added += rows

    async def publish_breakers(self, incarnation: str, rows: Sequence[BreakerRow]) -> None:
        assert incarnation == self._incarnation
        self.breakers.append(list(rows))

    async def take_tested(self, incarnation: str) -> list[EndpointId]:
        assert incarnation == self._incarnation
        tested, self.tested = self.tested, []
        return tested

    async def publish_figures(self, incarnation: str, figures: Mapping[str, object]) -> None:
        assert incarnation == self._incarnation
        self.figures.append(figures)
