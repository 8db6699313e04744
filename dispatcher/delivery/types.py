"""What is handed from stage to stage, and what the stages ask of each other, as small Protocols.

The stages do not import each other: `pipeline.py` gives each the functions that it asks for here.
"""

from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import NamedTuple, Protocol

from dispatcher.core.lane import Lane
from dispatcher.core.model import (
    Answer,
    DeliveryId,
    DeliveryState,
    EndpointId,
    Event,
    Reason,
    Trigger,
)
from dispatcher.core.outcome import Decision
from dispatcher.delivery.endpoint import Endpoint


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


class EndpointLane(Lane[Delivery]):
    """A lane with the endpoint whose it is and the token under which its shard is held."""

    __slots__ = ("endpoint", "token")

    endpoint: Endpoint
    token: int


class AttemptResult(NamedTuple):
    """One attempt, complete: what was sent, what came back, and what follows from it."""

    delivery: Delivery
    lane: EndpointLane
    endpoint: Endpoint
    """As it was when the attempt was made."""
    token: int
    attempt_number: int
    attempted_at: datetime
    latency_seconds: float
    finished_at_monotonic: float
    """What a delay runs from."""
    answer: Answer
    decision: Decision


NewDeliveries = Sequence[tuple[EndpointId, Delivery]]


class TakesNewDeliveries(Protocol):
    """Lanes, as fan-out sees them: what is about to be committed is reserved, then offered."""

    def reserve(self, deliveries: NewDeliveries) -> bool:
        """Keeps others from bringing these until they are offered; tells whether all are for lanes of ours."""
        ...

    def offer_reserved(self, endpoint_id: EndpointId, delivery: Delivery) -> bool:
        """Takes a committed delivery, or leaves it to Postgres; tells whether it was taken."""
        ...

    def unreserve(self, deliveries: NewDeliveries) -> None:
        """Lets go of deliveries whose commit failed, or is not known of."""
        ...


class Settled(Protocol):
    """The scheduler, as the recorder sees it: results that are committed, or that were fenced."""

    def __call__(self, results: list[AttemptResult], fenced: frozenset[DeliveryId]) -> None:
        """Hears of a committed batch."""
        ...


class RoutesEvents(Protocol):
    """The routing table, as fan-out sees it."""

    version: int

    async def refresh(self) -> None:
        """Loads the endpoints anew."""
        ...

    def route(self, event: Event) -> Sequence[Endpoint]:
        """Returns the endpoints that get this event."""
        ...


StartAttempt = Callable[[EndpointLane, Delivery], None]
