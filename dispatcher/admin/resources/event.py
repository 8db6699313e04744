"""Events: published by producers, and the catalogue of their types."""

import re
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationInfo, WithJsonSchema, field_validator

from dispatcher.admin.resources.base import PageQuery, Request, Response, Since, Until, resource
from dispatcher.admin.resources.delivery import Delivery
from dispatcher.admin.resources.fields import (
    SEARCH_DESCRIPTION,
    EndpointId,
    EventId,
    FilterLabels,
    JsonObject,
    LabelFilter,
    Labels,
    QueryTruth,
    RawObject,
    Tenant,
    Text,
    Time,
    TimeText,
)
from dispatcher.admin.resources.presentation import Option, Reading
from dispatcher.admin.resources.problem import FieldProblem
from dispatcher.admin.resources.validation import checked_by, refuse
from dispatcher.core.limits import EVENT_TYPE_CHARACTERS_MAX
from dispatcher.core.matching import OPERATIONAL_PREFIX, event_type_problems
from dispatcher.core.problems import Problem, problem
from dispatcher.core.schemas import SchemaPolicy

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
RESERVED_ID: Final = re.compile(r"evt_[0-9]{4}_[0-9]{6,}")
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)


def id_problems(event_id: str) -> list[Problem]:
    """Lists what is wrong with the id that a producer gives an event."""
    if _ID.fullmatch(event_id) is None:
        return [problem("id", "invalid_id", value=event_id)]
    if RESERVED_ID.fullmatch(event_id):
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
PublishedStatus = Literal["created", "known", "rejected"]
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


class PublishQuery(Request):
    """How a batch is published."""

    all_or_nothing: QueryTruth = Field(
        default=False, description="true: if one event of a batch is invalid, none is published."
    )


class EventsQuery(PageQuery):
    """Which events."""

    quarantined: QueryTruth | None = Field(
        default=None,
        description="true: only events whose fan-out Postgres rejected; of the other filters only `tenant` applies.",
    )
    type: Annotated[
        Text | None,
        Option(help="Only this event type, or order.* and the like.", reads=Reading.EVENT_TYPE),
    ] = Field(
        default=None,
        description="A type, or its beginning and `*`, as in `order.*`.",
        examples=["order.created"],
    )
    system: Annotated[
        QueryTruth | None,
        Option(help="Only the dispatcher's own events, or none of them.", reads=Reading.SWITCH),
    ] = Field(
        default=None, description="true: only the dispatcher's own events; false: none of them."
    )
    event_type: Text | None = Field(
        default=None, description="The same as type; give one of the two."
    )
    label: Annotated[
        FilterLabels | None,
        Option(
            metavar="NAME=VALUE",
            help="Only events with this label. May be repeated.",
            reads=Reading.TEXTS,
        ),
    ] = Field(default=None, description="name=value; may be repeated.")
    tenant: Annotated[Text | None, Option(metavar="TENANT", help="Only events of this tenant.")] = (
        None
    )
    test: Annotated[
        QueryTruth | None,
        Option(help="Only test events, or none of them.", reads=Reading.SWITCH),
    ] = None
    since: Since = None
    until: Until = None
    q: Annotated[
        Text | None,
        Option(
            name="search",
            metavar="TEXT",
            help="An id, NAME=VALUE or the value of a label, or a part of a type, a label or the payload.",
        ),
    ] = Field(default=None, description=SEARCH_DESCRIPTION)

    @field_validator("event_type")
    @classmethod
    def _one_type(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("type") is not None:
            refuse([problem("event_type", "conflicting", other="type")])
        return value

    @property
    def wanted_type(self) -> str | None:
        """The event type, under whichever name it was given."""
        return self.type or self.event_type


@resource
class LocalizedText(Response):
    """A text in both languages."""

    th: str
    en: str


@resource
class SchemaMismatch(Response):
    """One part of an event's data that does not fit the schema of its type."""

    field: str
    detail: str


@resource
class EventType(Response):
    """A type of the catalogue.

    Events that do not fit the schema are marked, and with `schema_policy: reject` they cannot be published over HTTP.
    """

    name: str
    group: str
    group_title: LocalizedText
    title: LocalizedText
    description: LocalizedText
    operational: bool
    sample: JsonObject
    schema: JsonObject | None
    schema_policy: SchemaPolicy | None


@resource
class MismatchingEvent(Response):
    """An event that does not fit the schema of its type."""

    id: EventId
    inserted_at: TimeText
    schema_mismatches: list[SchemaMismatch]


@resource
class CheckedEventType(EventType):
    """A type of the catalogue, and how its newest events fit the schema.

    Of the newest `checked_count` events, `mismatch_count` do not fit; `mismatching` has the newest of them.
    """

    checked_count: int
    mismatch_count: int
    mismatching: list[MismatchingEvent]


@resource
class EventTypePage(Response):
    """The whole catalogue."""

    items: list[EventType]
    next_cursor: None


@resource
class EventTypeUsage(Response):
    """An event type that is in the catalogue, or that recent events have.

    `subscriber_count` is the number of endpoints whose event types include it. `event_count` is the number
    of recent events.
    """

    name: str
    in_catalogue: bool
    title: LocalizedText | None
    subscriber_count: int
    event_count: int
    last_event_at: TimeText | None


@resource
class EventTypeUsagePage(Response):
    """The types of the catalogue, and then those of recent events that are not in it.

    Events since `counted_since` are counted: those of the last 24 hours, or the newest 20,000 of the
    deployment if there are more.
    """

    items: list[EventTypeUsage]
    counted_since: TimeText
    next_cursor: None


@resource
class EventOutcome(Response):
    """How many deliveries of an event succeeded, failed, were cancelled or still wait; `capped`: there are more."""

    succeeded_count: int
    failed_count: int
    cancelled_count: int
    waiting_count: int
    capped: bool

    @property
    def total_count(self) -> int:
        """All of them."""
        counts = (self.succeeded_count, self.failed_count, self.cancelled_count, self.waiting_count)
        return sum(counts)


@resource
class Event(Response):
    """An event; without `accepted_at` it waits in the outbox.

    `schema_mismatches` is the difference from the present schema of its type.
    """

    id: EventId
    type: str
    tenant: str
    data: JsonObject
    occurred_at: TimeText
    ordering_key: str | None
    labels: dict[str, str]
    traceparent: str | None
    inserted_at: TimeText
    accepted_at: TimeText | None
    test: bool
    quarantined_at: TimeText | None
    schema_mismatches: list[SchemaMismatch]


@resource
class PublishedEvent(Response):
    """The result of one event of a batch; `index` is its position, from 0.

    `known`: its id was published before, and nothing new is. `rejected`: `errors` has the reasons.
    """

    index: int
    status: PublishedStatus
    id: EventId | None
    errors: list[FieldProblem] | None = None


@resource
class PublishedBatch(Response):
    """How many events of a batch were published, were known or were rejected, and each result."""

    created: int
    known: int
    rejected: int
    results: list[PublishedEvent]


EventOrBatch = Event | PublishedBatch


@resource
class EventPage(Response):
    """A page of events; `searched_back_to` is set if payloads were searched."""

    items: list[Event]
    next_cursor: str | None
    searched_back_to: TimeText | None = None


@resource
class EventWithDeliveries(Event):
    """An event with its deliveries, a thousand of them at most."""

    deliveries: list[Delivery]


@resource
class Verdict(Response):
    """Why an endpoint did or did not get an event, and the next step.

    `filter_values` are those that a filter that does not match was evaluated with, by path; null
    for a path that the event does not have.
    """

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
    content_filter: str | None
    filter_values: dict[str, str | None] | None
    filter_error: str | None
    delivery: Delivery | None


@resource
class Explanation(Response):
    """An event and the verdict for each endpoint of its tenant."""

    event: Event
    summary: str
    dispatchers_alive: int
    endpoints: list[Verdict]


@resource
class ErasedEvents(Response):
    """The events whose contents were erased, or would be (`dry_run`); `ids` are the first of them."""

    dry_run: bool
    ids: list[EventId]
    events: int
    bodies: int
    answers: int
    cancelled: int
