"""What the stages pass on: deliveries, their entries in memory, lanes, and results of attempts."""

from datetime import date, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from dispatcher.core.lane import Lane
from dispatcher.core.model import DeliveryId, DeliveryState, HttpResponse, Reason, Trigger
from dispatcher.core.order import Lines, Place
from dispatcher.core.outcome import Decision
from dispatcher.delivery.endpoint import Endpoint

if TYPE_CHECKING:
    from dispatcher.core.breaker import Breaker
    from dispatcher.core.rate import TokenBucket

ABSENT, RESERVED, READY, IN_FLIGHT, RECORDING, WAITING, DUE, BLOCKED = range(8)
"""The phases of a delivery in memory. Plain integers: they are compared several times per delivery."""
PHASE_NAMES: Final = (
    "absent",
    "reserved",
    "ready",
    "in_flight",
    "recording",
    "waiting",
    "due",
    "blocked",
)


class Delivery(NamedTuple):
    """One event for one endpoint, ready to be sent."""

    id: DeliveryId
    day: date
    event_id: str
    event_type: str
    body: bytes
    inserted_at: datetime
    traceparent: str | None
    state: DeliveryState
    reason: Reason | None
    attempt_count: int
    schedule_position: int
    trigger: Trigger
    place: Place | None = None
    """Its place in a line; None: it is sent in no order."""


class Entry:
    """One delivery in memory; `Inventory` is the only writer."""

    __slots__ = ("delivery", "id", "lane", "phase")

    is_in_line = False
    """Whether it stands in a line of its endpoint."""

    def __init__(
        self, delivery_id: DeliveryId, lane: "EndpointLane", delivery: Delivery | None
    ) -> None:
        self.id = delivery_id
        self.lane = lane
        self.phase = ABSENT
        self.delivery = delivery
        """What an attempt needs; None while only id and due time are in memory."""

    @property
    def event_type(self) -> str:
        """The type of a ready delivery's event; the breaker distinguishes by it."""
        return "" if self.delivery is None else self.delivery.event_type

    @property
    def is_retry(self) -> bool:
        """Whether an attempt of a ready delivery was made before."""
        return self.delivery is not None and self.delivery.attempt_count > 0

    def __repr__(self) -> str:
        return f"<{self.id} {PHASE_NAMES[self.phase]}>"


class OrderedEntry(Entry):
    """One delivery in memory, of an endpoint with an order."""

    __slots__ = ("has_more", "is_in_line", "next_id", "place", "previous_id")

    def __init__(
        self, delivery_id: DeliveryId, lane: "EndpointLane", delivery: Delivery | None
    ) -> None:
        super().__init__(delivery_id, lane, delivery)
        self.place: Place | None = None
        self.is_in_line = False
        self.previous_id: DeliveryId | None = None
        """What came immediately before it in Postgres when its place was read."""
        self.next_id: DeliveryId | None = None
        """What stood behind it in Postgres when its place was read."""
        self.has_more = False
        """Others came behind it since, while it was in no line yet."""


class EndpointLane(Lane[Entry]):
    """The lane of one endpoint, under the token with which its shard was taken."""

    __slots__ = (
        "_active",
        "changes_seen_count",
        "endpoint",
        "entries",
        "is_forgotten",
        "lines",
        "parked",
        "token",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        token: int,
        *,
        breaker: "Breaker",
        bucket: "TokenBucket | None",
        is_open: bool,
        active: "dict[EndpointLane, None]",
    ) -> None:
        """Add the lane to `active`: the lanes that have work, here or in Postgres."""
        super().__init__(
            limit=endpoint.max_concurrency, breaker=breaker, bucket=bucket, is_open=is_open
        )
        self.endpoint = endpoint
        self.token = token
        self.entries: dict[DeliveryId, Entry] = {}
        """Every delivery of this lane in memory; written by `Inventory` alone."""
        self.changes_seen_count = 0
        """The breaker's changes that the lines follow."""
        self.parked: dict[DeliveryId, Entry] = {}
        """Deferred entries on the wheel; they are due at once when their event type succeeds."""
        self.lines: Lines[OrderedEntry] | None = None
        """The order of its deliveries; None: they have none, and nothing of it costs anything."""
        self.is_forgotten = False
        """Its endpoint or its shard is no longer ours; nothing is sent from it."""
        self._active = active
        active[self] = None

    @property
    def load(self) -> int:
        """Deliveries that are ready, or will be when others of their lines have ended."""
        return len(self.ready) + (0 if self.lines is None else self.lines.blocked_count)

    def has_plenty(self) -> bool:
        """Return whether the deliveries in memory will last for a while."""
        return super().has_plenty() or (
            self.lines is not None and self.lines.blocked_count > self.window // 4
        )

    def activate(self) -> None:
        """Note that there is work: the next ticks consider the lane."""
        if not self.is_forgotten:
            self._active[self] = None

    def turn_away(self, due_at: float) -> None:
        """Note that a delivery due at that time is left to Postgres."""
        super().turn_away(due_at)
        self.activate()

    def expect_more(self, due_at: float | None) -> None:
        """Note from when on Postgres has more than was loaded; None: before the horizon, nothing."""
        self.more_at = due_at
        if due_at is not None:
            self.activate()


class AttemptResult(NamedTuple):
    """One attempt, complete: what was sent, what came back, and what follows from it."""

    entry: Entry
    delivery: Delivery
    endpoint: Endpoint
    """As it was when the attempt was made."""
    token: int
    attempt_number: int
    attempted_at: datetime
    latency_seconds: float
    finished_at_monotonic: float
    """What a delay runs from."""
    response: HttpResponse
    decision: Decision
