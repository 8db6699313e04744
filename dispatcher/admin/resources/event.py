"""Events: published by producers, and the catalogue of their types."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import Field, ValidationInfo, WithJsonSchema, field_validator

from dispatcher.admin.resources.delivery import Delivery
from dispatcher.admin.resources.fields import (
    EndpointId,
    EventId,
    FilterLabels,
    LabelFilter,
    Labels,
    PageQuery,
    QueryTruth,
    RawObject,
    Request,
    Response,
    Tenant,
    Text,
    Time,
    TimeText,
    checked_by,
    refuse,
)
from dispatcher.core.limits import EVENT_TYPE_CHARACTERS_MAX
from dispatcher.core.matching import OPERATIONAL_PREFIX, event_type_problems
from dispatcher.core.problems import Problem, problem

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_RESERVED_ID: Final = re.compile(r"evt_[0-9]{4}_[0-9]{6,}")
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)


def id_problems(event_id: str) -> list[Problem]:
    """Lists what is wrong with the id that a producer gives an event."""
    if _ID.fullmatch(event_id) is None:
        return [problem("id", "invalid_id", value=event_id)]
    if _RESERVED_ID.fullmatch(event_id):
        return [problem("id", "reserved_id", value=event_id)]
    return []


def occurred_at_problems(at: datetime) -> list[Problem]:
    """Lists what is wrong with the time of an event."""
    if at.tzinfo is None or at < _EARLIEST:
        return [problem("occurred_at", "time_too_early")]
    return []


def test_type_problems(event_type: str) -> list[Problem]:
    """Lists what is wrong with the type of a test event, which may be one of the dispatcher's own."""
    if event_type.startswith(OPERATIONAL_PREFIX):
        return []
    return event_type_problems(event_type, "event_type")


NewId = Annotated[
    str,
    checked_by(id_problems),
    WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}),
]
_TYPE_SCHEMA: Final = {"type": "string", "maxLength": EVENT_TYPE_CHARACTERS_MAX}
EventTypeName = Annotated[str, checked_by(event_type_problems), WithJsonSchema(_TYPE_SCHEMA)]
TestTypeName = Annotated[str, checked_by(test_type_problems), WithJsonSchema(_TYPE_SCHEMA)]


class NewTest(Request):
    """A test event; without a type the first one that the endpoint takes."""

    event_type: TestTypeName | None = Field(default=None, examples=["order.created"])
    data: RawObject | None = Field(default=None, description="Left out: the catalogue's sample.")


class NewEventFields(Request):
    """An event; `data` keeps its bytes."""

    type: EventTypeName = Field(examples=["order.created"])
    data: RawObject = Field(examples=[{"order_id": "ORD-2026-1234"}])
    id: NewId | None = None
    tenant: Tenant | None = None
    occurred_at: Annotated[Time, checked_by(occurred_at_problems)] | None = None
    ordering_key: Text | None = None
    labels: Labels | None = None
    traceparent: Text | None = None


class EventsQuery(PageQuery):
    """Which events."""

    quarantined: QueryTruth | None = Field(
        default=None,
        description="true: only events whose fan-out Postgres rejected; of the other filters only `tenant` applies.",
    )
    type: Text | None = Field(default=None, examples=["order.created"])
    event_type: Text | None = Field(
        default=None, description="The same as type; give one of the two."
    )
    label: FilterLabels | None = Field(default=None, description="name=value; may be repeated.")
    tenant: Text | None = None
    test: QueryTruth | None = None
    since: Time | None = None
    until: Time | None = None
    search: Text | None = Field(
        default=None, description="An event's id; name=value; or the value of any label."
    )

    @field_validator("event_type")
    @classmethod
    def _one_type(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("type") is not None:
            refuse([problem("event_type", "conflicting", other="type")])
        return value


class EventType(Response):
    """A type of the catalogue."""

    class Words(Response):
        """A text in both languages."""

        th: str
        en: str

    name: str
    group: str
    group_title: Words
    title: Words
    description: Words
    operational: bool
    sample: dict[str, Any]


class EventTypePage(Response):
    """The whole catalogue."""

    items: list[EventType]
    next_cursor: None


class Event(Response):
    """An event; without `accepted_at` it waits in the outbox."""

    id: EventId
    type: str
    tenant: str
    data: dict[str, Any]
    occurred_at: TimeText
    ordering_key: str | None
    labels: dict[str, str]
    traceparent: str | None
    inserted_at: TimeText
    accepted_at: TimeText | None
    test: bool
    quarantined_at: TimeText | None


class EventPage(Response):
    """A page of events."""

    items: list[Event]
    next_cursor: str | None


class EventWithDeliveries(Event):
    """An event with its deliveries, a thousand of them at most."""

    deliveries: list[Delivery]


class Verdict(Response):
    """Why an endpoint did or did not get an event, and the next step."""

    endpoint_id: EndpointId
    endpoint_name: str
    endpoint_state: str
    event_types: list[str]
    labels: LabelFilter
    gets_it: bool
    why: str
    explanation: str
    next: str
    next_code: str
    at: TimeText | None
    next_at: TimeText | None
    delivery: Delivery | None


class Explanation(Response):
    """An event and the verdict for each endpoint of its tenant."""

    event: Event
    summary: str
    dispatchers_alive: int
    endpoints: list[Verdict]
