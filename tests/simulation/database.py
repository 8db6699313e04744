"""Postgres as the stages know it, in memory: the rows, and what each statement does to them.

Every method is one statement and therefore atomic. A transaction of several (a claim) holds its rows
until it is committed or ended. The semantics are those of the files in `dispatcher/store/sql/`; the
conformance suite runs the same tests on these and on Postgres.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from dispatcher.core.errors import StoreUnavailableError
from dispatcher.core.limits import SHARDS_COUNT
from dispatcher.core.model import DeliveryId, EndpointId, Event, EventId
from dispatcher.core.order import STRICT_KEY, Place, order_key
from dispatcher.store.attempts import AttemptRow
from dispatcher.store.claims import BodyRow, CancelledRow, DeliveryRow
from dispatcher.store.deliveries import (
    LoadedRow,
    PlacedRow,
    Swept,
    WindowRow,
)
from dispatcher.store.delivery_requests import RequestRow
from dispatcher.store.leases import Renewal
from dispatcher.store.outbox import Poll
from dispatcher.store.results import MoveRow, Recorded
from dispatcher.store.routing import EndpointRow, Health, RoutingChanges

UNFLUSHED_SECONDS_MAX = 0.6
"""A commit that does not wait for the disk reaches it within three times `wal_writer_delay`."""
ASIDE = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
OPEN = frozenset({"pending", "retrying"})


class ConstraintError(Exception):
    """A unique key or a CHECK would have been broken: the statement was wrong, not its timing."""


@dataclass(slots=True)
class Waiting:
    """A row of the outbox."""

    event: Event
    held_by: "Transaction | None" = None


@dataclass(slots=True)
class Row:
    """A delivery, open or ended."""

    id: DeliveryId
    day: date
    event_id: str
    endpoint_id: EndpointId
    event_type: str
    tenant: str
    profile: str
    state: str
    due_at: float
    reason: str | None = None
    attempt_count: int = 0
    schedule_position: int = 0
    place: Place | None = None


@dataclass(slots=True)
class Request:
    """What a person asked of a delivery."""

    day: date
    endpoint_id: EndpointId
    requested_at: float


@dataclass(eq=False, slots=True)
class Transaction:
    """A claim under way; ended by whoever comes first: commit, its client's end, the idle timeout."""

    owner: object = None
    is_over: bool = False
    is_watched: bool = False
    positions: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    accepted_at: float = 0.0
    bodies: list[BodyRow] = field(default_factory=list)
    deliveries: list[DeliveryRow] = field(default_factory=list)
    cancelled: list[CancelledRow] = field(default_factory=list)
    announced_by: str | None = None
    committed_at: float = 0.0


@dataclass(slots=True)
class Replica:
    """A replica's lease."""

    name: str
    renewed_at: float
    expires_at: float
    join_number: int


class MemoryDatabase:
    """All tables; `clock` is the database's own, in seconds since 1970."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._next_position = 1
        self.outbox: dict[int, Waiting] = {}
        self.set_aside_ids: set[str] = set()
        self.events: dict[str, tuple[date, Event]] = {}
        self.bodies: dict[tuple[str, str], bytes] = {}
        self.open: dict[DeliveryId, Row] = {}
        self.done: dict[DeliveryId, Row] = {}
        self.pairs: set[tuple[str, EndpointId]] = set()
        self.attempts: dict[tuple[DeliveryId, int], AttemptRow] = {}
        self.requests: dict[tuple[DeliveryId, str], Request] = {}
        self.routing_version = 1
        self.endpoints: dict[EndpointId, EndpointRow] = {}
        self.endpoint_changes: dict[EndpointId, int] = {}
        self.health: dict[EndpointId, list[float]] = {}
        self.replicas: dict[str, Replica] = {}
        self.joins_count = 0
        self.owners: list[str | None] = [None] * SHARDS_COUNT
        self.tokens: list[int] = [0] * SHARDS_COUNT
        self.asleep: object = None
        self.unflushed: list[Transaction] = []
        """Claims that are committed and not yet on disk: any later commit that waits for the disk takes them there."""
        self.claimed: Callable[[], None] = lambda: None
        """Hears of each committed claim."""
        self.recorded: Callable[[AttemptRow, int, int], None] = lambda *_: None
        """Hears of each attempt that was recorded: its shard and the token that it came under."""
        self.announced: Callable[[str], None] = lambda _: None
        """Hears of each commit that a replica announced to the others."""
        self.refused: Callable[[DeliveryId, int], None] = lambda *_: None
        """Hears of each attempt that was fenced off."""

    def _day(self) -> date:
        return datetime.fromtimestamp(self._clock(), UTC).date()

    # --- producers and people ---

    def next_position(self) -> int:
        """Numbers an event at its INSERT, which is not the order of commits."""
        self._next_position += 1
        return self._next_position - 1

    def insert(self, event: Event, position: int | None = None) -> None:
        """Commits one outbox row."""
        self.flush()
        position = position or self.next_position()
        self.outbox[position] = Waiting(event._replace(position=position))

    def save_endpoint(self, row: EndpointRow) -> None:
        """Commits an endpoint, new or changed."""
        self.flush()
        self.endpoints[row.id] = row
        self.routing_version += 1
        self.endpoint_changes[row.id] = self.routing_version

    def resend(self, delivery_id: DeliveryId) -> None:
        """Asks for one more attempt."""
        self.flush()
        row = self.open.get(delivery_id) or self.done[delivery_id]
        asked = Request(row.day, row.endpoint_id, self._clock())
        self.requests[delivery_id, "resend"] = asked

    def cancel(self, delivery_id: DeliveryId) -> bool:
        """Ends an open delivery by a person's word."""
        self.flush()
        row = self.open.get(delivery_id)
        if row is None:
            return False
        self._end(row, "cancelled", "cancelled_by_person")
        self.requests.pop((delivery_id, "resend"), None)
        asked = Request(row.day, row.endpoint_id, self._clock())
        self.requests.setdefault((delivery_id, "cancel"), asked)
        return True

    # --- outbox ---

    def poll(self) -> Poll:
        return Poll(self.routing_version, bool(self.outbox), bool(self.requests))

    def oldest(self) -> str | None:
        return self.outbox[min(self.outbox)].event.id if self.outbox else None

    def quarantine(self, event_id: str) -> bool:
        self.flush()
        for position, waiting in self.outbox.items():
            if waiting.event.id == event_id:
                del self.outbox[position]
                self.set_aside_ids.add(event_id)
                return True
        return False

    def claim(
        self,
        transaction: Transaction,
        events_max: int,
        bytes_max: int,
        event_id: str | None,
        positions: Sequence[int] | None = None,
    ) -> int:
        """Locks the oldest waiting events that nobody holds, or certain ones; returns the routing version."""
        if transaction.is_over:
            raise StoreUnavailableError("the transaction has ended")
        before = 0
        transaction.accepted_at = self._clock()
        for position in sorted(self.outbox) if positions is None else positions:
            waiting = self.outbox.get(position)
            if waiting is None:
                continue
            if waiting.held_by is not None or event_id not in (None, waiting.event.id):
                continue
            if len(transaction.events) >= events_max or before >= bytes_max:
                break
            before += len(waiting.event.data.encode())
            waiting.held_by = transaction
            transaction.positions.append(position)
            transaction.events.append(waiting.event)
        return self.routing_version if transaction.events else 0

    def peek(self, transaction: Transaction, events_max: int) -> int:
        """Reads the oldest waiting events, also those that others hold; returns the routing version."""
        transaction.accepted_at = self._clock()
        for position in sorted(self.outbox)[:events_max]:
            transaction.positions.append(position)
            transaction.events.append(self.outbox[position].event)
        return self.routing_version if transaction.events else 0

    def fan_out(self, transaction: Transaction) -> frozenset[EventId]:
        """Commits what was written for those of its events that still wait; returns the ids of the others."""
        pairs = [*zip(transaction.positions, transaction.events, strict=True)]
        taken = [
            (position, event)
            for position, event in pairs
            if (waiting := self.outbox.get(position)) is not None
            and waiting.held_by is None
            and waiting.event.id == event.id
        ]
        transaction.positions = [position for position, _ in taken]
        transaction.events = [event for _, event in taken]
        ids = {event.id for _, event in taken}
        transaction.bodies = [row for row in transaction.bodies if row.event_id in ids]
        transaction.deliveries = [row for row in transaction.deliveries if row.event_id in ids]
        transaction.cancelled = [row for row in transaction.cancelled if row.event_id in ids]
        if ids:
            self.commit(transaction)
        return frozenset(event.id for _, event in pairs) - ids

    def tenants(self, after: int, left_out: Sequence[str]) -> tuple[dict[str, list[int]], int]:
        """Return the positions of waiting events after one, by tenant, and the last position."""
        found: dict[str, list[int]] = {}
        waiting = sorted(position for position in self.outbox if position > after)
        for position in waiting:
            tenant = self.outbox[position].event.tenant
            if tenant not in left_out:
                found.setdefault(tenant, []).append(position)
        return found, waiting[-1] if waiting else after

    def write(
        self,
        transaction: Transaction,
        bodies: Sequence[BodyRow],
        deliveries: Sequence[DeliveryRow],
        cancelled: Sequence[CancelledRow],
    ) -> None:
        if transaction.is_over:
            raise StoreUnavailableError("the transaction has ended")
        transaction.bodies = list(bodies)
        transaction.deliveries = list(deliveries)
        transaction.cancelled = list(cancelled)

    def commit(self, transaction: Transaction) -> None:
        if transaction.is_over:
            raise StoreUnavailableError("the transaction has ended")
        transaction.is_over = True
        transaction.committed_at = self._clock()
        at = transaction.accepted_at
        day = datetime.fromtimestamp(at, UTC).date()
        for position in transaction.positions:
            event = self.outbox.pop(position).event
            if event.id in self.events:
                raise ConstraintError(f"event {event.id} was taken in twice")
            self.events[event.id] = (day, event)
        for body in transaction.bodies:
            self.bodies[body.event_id, body.profile] = body.bytes
        for new in transaction.deliveries:
            self._pair(new.event_id, new.endpoint_id)
            self.open[new.id] = Row(
                new.id, day, new.event_id, new.endpoint_id, new.event_type, new.tenant, new.profile,
                "pending", at, place=new.place,
            )  # fmt: skip
        for ended in transaction.cancelled:
            self._pair(ended.event_id, ended.endpoint_id)
            self.done[ended.id] = Row(
                ended.id, day, ended.event_id, ended.endpoint_id, ended.event_type, ended.tenant,
                ended.profile, "cancelled", at, ended.reason,
            )  # fmt: skip
        self.unflushed.append(transaction)
        self.claimed()
        if transaction.announced_by is not None:
            self.announced(transaction.announced_by)

    def flush(self) -> None:
        """Takes every commit to the disk: a statement whose commit waits for it does."""
        self.unflushed.clear()

    def lose_unflushed(self) -> set[DeliveryId]:
        """Undoes the claims that a crash finds only in memory; returns the deliveries that are gone."""
        oldest = self._clock() - UNFLUSHED_SECONDS_MAX
        gone: set[DeliveryId] = set()
        for transaction in self.unflushed:
            if transaction.committed_at < oldest:
                continue
            for position, event in zip(transaction.positions, transaction.events, strict=True):
                del self.events[event.id]
                self.outbox[position] = Waiting(event)
            for body in transaction.bodies:
                del self.bodies[body.event_id, body.profile]
            made: list[DeliveryRow | CancelledRow] = [
                *transaction.deliveries,
                *transaction.cancelled,
            ]
            for lost in made:
                self.pairs.remove((lost.event_id, lost.endpoint_id))
                self.open.pop(lost.id, None)
                self.done.pop(lost.id, None)
                gone.add(lost.id)
        self.unflushed.clear()
        return gone

    def end(self, transaction: Transaction) -> None:
        """Rolls back, unless it is over."""
        if transaction.is_over:
            return
        transaction.is_over = True
        for position in transaction.positions:
            if position in self.outbox:
                self.outbox[position].held_by = None

    def _pair(self, event_id: str, endpoint_id: EndpointId) -> None:
        if (event_id, endpoint_id) in self.pairs:
            raise ConstraintError(f"{event_id} has a delivery for {endpoint_id} already")
        self.pairs.add((event_id, endpoint_id))

    # --- deliveries ---

    def record(
        self, moves: Sequence[MoveRow], attempts: Sequence[AttemptRow], tokens: dict[int, int]
    ) -> Recorded:
        self.flush()
        now = self._clock()
        fence = {shard for shard, token in tokens.items() if self.tokens[shard] == token}
        fenced, late = set(), set()
        for move, attempt in zip(moves, attempts, strict=True):
            if move.shard not in fence:
                fenced.add(move.delivery_id)
                self.refused(move.delivery_id, move.attempt_number)
                continue
            row = self.open.get(move.delivery_id)
            if row is None or row.attempt_count != move.attempt_number - 1:
                late.add(move.delivery_id)
                continue
            row.attempt_count = move.attempt_number
            row.schedule_position = move.schedule_position
            if move.state in OPEN:
                row.state = move.state
                if move.due_in_seconds is not None:
                    row.due_at = now + move.due_in_seconds
            else:
                self._end(row, move.state, move.reason)
            self._keep(attempt, move.shard, tokens[move.shard])
        for move, attempt in zip(moves, attempts, strict=True):
            if move.delivery_id in late:
                self._record_late(attempt, move.shard, tokens[move.shard])
        return Recorded(frozenset(fenced), frozenset(late))

    def _record_late(self, attempt: AttemptRow, shard: int, token: int) -> None:
        row = self.done.get(attempt.delivery_id)
        if row is None or attempt.attempt_number <= row.attempt_count:
            return
        self._keep(attempt, shard, token)
        row.attempt_count = attempt.attempt_number
        row.schedule_position += attempt.trigger == "scheduled"
        if attempt.outcome == "ok":
            row.state, row.reason = "succeeded", None

    def _keep(self, attempt: AttemptRow, shard: int, token: int) -> None:
        key = (attempt.delivery_id, attempt.attempt_number)
        if key in self.attempts:
            raise ConstraintError(f"attempt {key} is recorded already")
        self.attempts[key] = attempt
        self.recorded(attempt, shard, token)

    def _end(self, row: Row, state: str, reason: str | None) -> None:
        if state == "succeeded" and row.attempt_count == 0:
            raise ConstraintError(f"{row.id} succeeded without an attempt")
        row.state, row.reason = state, reason
        self.done[row.id] = self.open.pop(row.id)

    def settle_requests(self, attempts: Sequence[tuple[DeliveryId, datetime, bool]]) -> None:
        self.flush()
        for delivery_id, attempted_at, succeeded in attempts:
            asked = self.requests.get((delivery_id, "resend"))
            if asked and (succeeded or asked.requested_at <= attempted_at.timestamp()):
                del self.requests[delivery_id, "resend"]

    def window(
        self, endpoint_ids: Sequence[EndpointId], rows_max: int, horizon_seconds: float
    ) -> list[WindowRow]:
        return list(self._near(endpoint_ids, rows_max, None, horizon_seconds))

    def arrivals(
        self, endpoint_ids: Sequence[EndpointId], rows_max: int, back_seconds: float
    ) -> list[WindowRow]:
        return list(self._near(endpoint_ids, rows_max, back_seconds, 0.0))

    def _near(
        self, endpoint_ids: Sequence[EndpointId], rows_max: int, back: float | None, ahead: float
    ) -> Iterable[WindowRow]:
        now = self._clock()
        wanted: dict[EndpointId, list[Row]] = {i: [] for i in endpoint_ids}
        for row in self.open.values():
            is_near = row.due_at - now < ahead if back is None else -back <= row.due_at - now <= 0
            if row.endpoint_id in wanted and is_near:
                wanted[row.endpoint_id].append(row)
        for rows in wanted.values():
            rows.sort(key=lambda row: (row.due_at, row.id))
            for row in rows[:rows_max]:
                yield WindowRow(row.id, row.endpoint_id, row.due_at - now)

    def load(self, ids: Sequence[DeliveryId]) -> list[LoadedRow]:
        now = self._clock()
        found: list[LoadedRow] = []
        for row in (self.open[i] for i in ids if i in self.open):
            _, event = self.events[row.event_id]
            found.append(
                LoadedRow(
                    row.id, row.day, row.event_id, row.event_type, row.endpoint_id, row.attempt_count,
                    row.schedule_position, row.state, self.bodies.get((row.event_id, row.profile)),
                    event.inserted_at, event.traceparent, row.due_at - now,
                )
            )  # fmt: skip
        return found

    def _line(self, endpoint_id: EndpointId, key: int) -> list[Row]:
        """Returns the open deliveries of a line in their order."""
        rows = [
            row
            for row in self.open.values()
            if row.endpoint_id == endpoint_id and row.place is not None and row.place.key == key
        ]
        return sorted(rows, key=_position)

    def place(self, ids: Sequence[DeliveryId]) -> list[PlacedRow]:
        found: list[PlacedRow] = []
        for row in (self.open[i] for i in ids if i in self.open):
            if row.place is None:
                found.append(
                    PlacedRow(row.id, None, None, None, is_held=False, joins_count=self.joins_count)
                )
                continue
            key, position = row.place
            line = self._line(row.endpoint_id, key)
            at = line.index(row)
            is_held = any(
                earlier < position
                and waiting.event.tenant == row.tenant
                and (
                    key == STRICT_KEY
                    or (
                        waiting.event.ordering_key is not None
                        and order_key(waiting.event.ordering_key) == key
                    )
                )
                for earlier, waiting in self.outbox.items()
            )
            found.append(
                PlacedRow(
                    row.id,
                    row.place,
                    line[at - 1].id if at else None,
                    line[at + 1].id if at + 1 < len(line) else None,
                    is_held,
                    self.joins_count,
                )
            )
        return found

    def shelve(self, ids: Sequence[DeliveryId]) -> None:
        self.flush()
        for row in (self.open[i] for i in ids if i in self.open):
            if row.place is not None and row.due_at < self._clock():
                row.due_at = ASIDE

    def wake(self, endpoint_no: int, keys: Sequence[int], rows_max: int) -> list[WindowRow]:
        now = self._clock()
        found: list[WindowRow] = []
        for endpoint_id in self._numbered(endpoint_no):
            for key in keys:
                for row in self._line(endpoint_id, key)[:rows_max]:
                    if row.due_at >= ASIDE:
                        row.due_at = now
                    found.append(WindowRow(row.id, endpoint_id, row.due_at - now))
        return found

    def sweep(self, endpoint_no: int, after_key: int, keys_max: int) -> Swept:
        woken = 0
        keys: list[int] = []
        for endpoint_id in self._numbered(endpoint_no):
            own = [row for row in self.open.values() if row.endpoint_id == endpoint_id]
            if any(row.due_at >= ASIDE for row in own):
                lines = {row.place.key for row in own if row.place is not None}
                keys = sorted(key for key in lines if key > after_key)[:keys_max]
            for key in keys:
                first = self._line(endpoint_id, key)[0]
                if first.due_at >= ASIDE:
                    first.due_at = self._clock()
                    woken += 1
        return Swept(keys[-1] if len(keys) == keys_max else None, woken)

    def _numbered(self, endpoint_no: int) -> list[EndpointId]:
        return [row.id for row in self.endpoints.values() if row.number == endpoint_no]

    def load_requests(
        self, shards: Sequence[int], rows_max: int, in_flight: Sequence[DeliveryId]
    ) -> list[RequestRow]:
        found: list[tuple[float, RequestRow]] = []
        busy = set(in_flight)
        for (delivery_id, kind), asked in self.requests.items():
            endpoint = self.endpoints.get(asked.endpoint_id)
            if endpoint is None or endpoint.shard not in shards or delivery_id in busy:
                continue
            answered = any(
                a.outcome == "ok"
                and datetime.fromtimestamp(asked.requested_at, UTC)
                <= a.attempted_at + timedelta(seconds=a.latency_seconds + 0.1)
                for a in self.attempts_of(delivery_id)
            )
            row = self.open.get(delivery_id) or self.done.get(delivery_id)
            if kind == "cancel" or row is None:
                fields: tuple[Any, ...] = (None, None, None, asked.endpoint_id, *(None,) * 7)
            else:
                _, event = self.events[row.event_id]
                fields = (
                    row.day, row.event_id, row.event_type, row.endpoint_id, row.attempt_count,
                    row.schedule_position, row.state, row.reason,
                    self.bodies.get((row.event_id, row.profile)), event.inserted_at, event.traceparent,
                )  # fmt: skip
            row_found = RequestRow._make((kind, delivery_id, *fields, answered))
            found.append((asked.requested_at, row_found))
        return [row for _, row in sorted(found, key=lambda pair: pair[0])[:rows_max]]

    def forget_requests(self, requests: Sequence[tuple[DeliveryId, str]]) -> None:
        self.flush()
        for key in requests:
            self.requests.pop(key, None)

    def attempts_of(self, delivery_id: DeliveryId) -> list[AttemptRow]:
        """Returns the attempts of one delivery, by number."""
        found: list[AttemptRow] = []
        while (attempt := self.attempts.get((delivery_id, len(found) + 1))) is not None:
            found.append(attempt)
        return found

    # --- endpoints ---

    def routing_changes(self, since_version: int | None) -> RoutingChanges:
        found = [
            endpoint_id
            for endpoint_id, version in self.endpoint_changes.items()
            if since_version is None or version > since_version
        ]
        return RoutingChanges(self.routing_version, datetime.fromtimestamp(0, UTC), found)

    def load_endpoints(self, endpoint_ids: Sequence[EndpointId]) -> list[EndpointRow]:
        return [self.endpoints[i] for i in endpoint_ids if i in self.endpoints]

    def disable(self, endpoint_id: EndpointId, reason: str) -> bool:
        row = self.endpoints.get(endpoint_id)
        if row is None or row.state != "active":
            return False
        self.save_endpoint(row._replace(state="disabled", reason=reason))
        return True

    def count_failures(
        self, failures: Sequence[tuple[EndpointId, datetime, int, bool]]
    ) -> list[Health]:
        self.flush()
        found: list[Health] = []
        for endpoint_id, first_at, count, _ in failures:
            health = self.health.setdefault(endpoint_id, [first_at.timestamp(), 0])
            health[1] += count
            found.append(Health(endpoint_id, self._clock() - health[0], int(health[1]), 0))
        return found

    def clear_failures(self, endpoint_ids: Sequence[EndpointId]) -> None:
        self.flush()
        for endpoint_id in endpoint_ids:
            self.health.pop(endpoint_id, None)

    # --- leases ---

    def join(self, incarnation: str, name: str, lease_seconds: float) -> int:
        self.flush()
        now = self._clock()
        self.joins_count += 1
        joined = Replica(name, now, now + lease_seconds, self.joins_count)
        return self.replicas.setdefault(incarnation, joined).join_number

    def namesakes(self, name: str, incarnation: str) -> list[tuple[str, datetime]]:
        return [
            (i, datetime.fromtimestamp(replica.renewed_at, UTC))
            for i, replica in self.replicas.items()
            if replica.name == name and i != incarnation and replica.expires_at > self._clock()
        ]

    def expire(self, incarnation: str, renewed_at: datetime) -> bool:
        self.flush()
        replica = self.replicas.get(incarnation)
        if replica is None or datetime.fromtimestamp(replica.renewed_at, UTC) != renewed_at:
            return False
        del self.replicas[incarnation]
        return True

    def is_alive(self, incarnation: str | None) -> bool:
        """Tells whether a replica's lease runs."""
        replica = self.replicas.get(incarnation or "")
        return replica is not None and replica.expires_at > self._clock()

    def renew(self, incarnation: str, lease_seconds: float) -> Renewal | None:
        self.flush()
        replica = self.replicas.get(incarnation)
        if replica is None:
            return None
        now = self._clock()
        replica.renewed_at, replica.expires_at = now, now + lease_seconds
        alive = Counter(self.is_alive(owner) for owner in self.owners)
        return Renewal(
            sum(self.is_alive(i) for i in self.replicas) - 1,
            {s: self.tokens[s] for s, owner in enumerate(self.owners) if owner == incarnation},
            alive[False],
        )

    def take(self, incarnation: str, shards_max: int) -> dict[int, int]:
        self.flush()
        taken: dict[int, int] = {}
        for shard, owner in enumerate(self.owners):
            if len(taken) < shards_max and not self.is_alive(owner):
                self.owners[shard] = incarnation
                self.tokens[shard] += 1
                taken[shard] = self.tokens[shard]
        return taken

    def release(self, incarnation: str, shards: Sequence[int]) -> None:
        self.flush()
        for shard in shards:
            if self.owners[shard] == incarnation:
                self.owners[shard] = None

    def leave(self, incarnation: str) -> None:
        self.flush()
        self.replicas.pop(incarnation, None)


def _position(row: Row) -> int:
    assert row.place is not None
    return row.place.position


def as_event(
    event_id: str,
    at: float,
    *,
    data: str = "{}",
    event_type: str = "order.created",
    ordering_key: str | None = None,
) -> Event:
    """Returns an event as a producer's INSERT makes it."""
    moment = datetime.fromtimestamp(at, UTC)
    return Event(
        EventId(event_id), event_type, data, "default", moment, moment, {}, None, ordering_key
    )
