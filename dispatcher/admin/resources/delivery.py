"""Deliveries and their attempts."""

import re
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, field_validator

from dispatcher.admin.resources.base import PageQuery, Request, Response, Since, Until, resource
from dispatcher.admin.resources.fields import (
    SEARCH_DESCRIPTION,
    DeliveryId,
    DeliveryStateName,
    DeliveryStateNames,
    EndpointId,
    EventId,
    FilterLabels,
    QueryTruth,
    ResponseClassNames,
    Text,
    TimeText,
)
from dispatcher.admin.resources.presentation import Option, Reading
from dispatcher.admin.resources.validation import checked_by
from dispatcher.core.problems import Problem, problem

IDS_MAX: Final = 1_000
"""Deliveries that a filter can name one by one."""
REQUEST_ID: Final = re.compile(r"([a-z0-9]+_)?([0-9a-f]{16})")


def request_id_problems(request_id: str) -> list[Problem]:
    """Lists what is wrong with the id of a request."""
    if REQUEST_ID.fullmatch(request_id) is None:
        return [problem("request_id", "invalid_request_id", value=request_id)]
    return []


RequestId = Annotated[str, checked_by(request_id_problems)]


class DeliveriesFilter(Request):
    """Which deliveries; `since` <= created_at < `until`."""

    IS_FILTER: ClassVar[bool] = True

    endpoint_id: Annotated[
        Text | None,
        Option(name="endpoint", help="Only deliveries to this endpoint.", reads=Reading.ENDPOINT),
    ] = Field(default=None, description="The id or the name of an endpoint.")
    event_id: Annotated[
        Text | None, Option(metavar="ID", help="Only deliveries of this event.")
    ] = None
    request_id: Annotated[
        RequestId | None,
        Option(metavar="ID", help="Only deliveries with this request_id (humansoft)."),
    ] = Field(default=None, description="The id in a humansoft body.")
    event_type: Annotated[
        Text | None,
        Option(help="Only this event type, or order.* and the like.", reads=Reading.EVENT_TYPE),
    ] = Field(
        default=None,
        description="A type, or its beginning and `*`, as in `order.*`.",
        examples=["order.*"],
    )
    state: Annotated[
        DeliveryStateNames | None,
        Option(
            metavar="STATE",
            help="pending, retrying, succeeded, failed or cancelled. May be repeated.",
        ),
    ] = Field(default=None, description="One state, or several separated by commas.")
    tenant: Annotated[
        Text | None, Option(metavar="TENANT", help="Only deliveries of this tenant.")
    ] = None
    since: Since = None
    until: Until = None
    q: Annotated[
        Text | None,
        Option(
            name="search",
            metavar="TEXT",
            help="An id, NAME=VALUE or the value of a label, or a part of an endpoint's name, a type, a label or the "
            "payload.",
        ),
    ] = Field(default=None, description=SEARCH_DESCRIPTION)

    @field_validator("q")
    @classmethod
    def _blank_is_none(cls, value: str | None) -> str | None:
        return (value or "").strip() or None


class HistoryFilter(DeliveriesFilter):
    """Which deliveries, also by their last response."""

    response: Annotated[
        ResponseClassNames | None,
        Option(
            metavar="CLASS",
            help="Last response: 2xx, 3xx, 4xx, 5xx, a code as 503, timeout or connection. May be repeated.",
        ),
    ] = Field(
        default=None,
        description="The class of the last response, or a status code from 300 to 599, or several separated by commas."
        " `timeout` and `connection` are attempts without a status code.",
    )


Label = Annotated[
    FilterLabels | None,
    Option(
        metavar="NAME=VALUE",
        help="Only deliveries of events with this label. May be repeated.",
        reads=Reading.TEXTS,
    ),
]


class ListFilter(HistoryFilter):
    """Which deliveries of a list, also by labels."""

    label: Label = Field(default=None, description="name=value; may be repeated.")
    test: Annotated[
        QueryTruth | None,
        Option(help="Only deliveries of test events, or none of them.", reads=Reading.SWITCH),
    ] = None


class DeliveriesQuery(ListFilter, PageQuery):
    """A page of them."""


class ExportQuery(ListFilter):
    """All of them, as a file."""

    format: Annotated[Literal["csv", "json"], Option(metavar="FORMAT", help="csv or json.")] = (
        Field(default="csv", description="`csv` for spreadsheets, `json` for programs.")
    )

    def page_query(self) -> DeliveriesQuery:
        """Return the filter as that of a page."""
        values = {name: getattr(self, name) for name in ListFilter.model_fields}
        return DeliveriesQuery.model_construct(**values)


@resource
class ResponseHeader(Response):
    """A header of a response, with control and bidirectional characters escaped."""

    name: str
    value: str


AttemptOutcomeName = Literal[
    "ok",
    "http_error",
    "gone",
    "throttled",
    "timeout",
    "connect_error",
    "dns_error",
    "tls_error",
    "protocol_error",
    "blocked_address",
]


@resource
class Attempt(Response):
    """One HTTP request.

    `response_headers` and `response_body`, the first 4 KiB each, are kept of failures, with
    `attempts.keep_response = "all"` also of successes, and shown to operators and admins.
    """

    attempt_number: int
    trigger: Literal["scheduled", "manual", "replay", "test"]
    outcome: AttemptOutcomeName
    flags: list[Literal["sloppy", "body_truncated", "body_incomplete"]]
    attempted_at: TimeText
    latency_seconds: float
    response_code: int | None
    response_headers: list[ResponseHeader]
    response_body: str | None
    error: str | None
    url: str


@resource
class Delivery(Response):
    """One event for one endpoint."""

    id: DeliveryId
    event_id: EventId
    endpoint_id: EndpointId
    event_type: str
    tenant: str
    profile: str
    state: DeliveryStateName
    reason: str | None
    test: bool
    attempt_count: int
    schedule_position: int
    next_attempt_at: TimeText | None
    created_at: TimeText
    finished_at: TimeText | None
    warnings: list[str]
    labels: dict[str, str]
    ordering_key: str | None


@resource
class DeliveryWithAttempts(Delivery):
    """A delivery with its attempts, in order."""

    attempts: list[Attempt]


@resource
class DeliveryPage(Response):
    """A page of deliveries; `searched_back_to` is set if payloads were searched."""

    items: list[Delivery]
    next_cursor: str | None
    searched_back_to: TimeText | None = None


@resource
class ExportedDelivery(Response):
    """A delivery with its last attempt, as a row of a file; `key` is the label by which people know the event."""

    created_at: TimeText
    key: str | None
    event_type: str
    event_id: EventId
    endpoint_name: str | None
    endpoint_id: EndpointId
    tenant: str
    state: DeliveryStateName
    reason: str | None
    response_code: int | None
    outcome: AttemptOutcomeName | None
    attempt_count: int
    latency_seconds: float | None
    next_attempt_at: TimeText | None
    finished_at: TimeText | None
    test: bool
    labels: dict[str, str]
    id: DeliveryId


@resource
class ExportedDeliveries(Response):
    """The deliveries of a filter; not complete if more match than an export has."""

    items: list[ExportedDelivery]
    is_complete: bool


@resource
class RecordedAttempt(Response):
    """An attempt and its delivery, as the live tail shows them.

    If `fits` is false, the delivery has left the viewer's filter by this attempt.
    """

    delivery: Delivery
    attempt: Attempt
    fits: bool = True


@resource
class Advice(Response):
    """A stable code, its meaning, and the remedy, if there is one."""

    code: str
    text: str
    advice: str = ""


@resource
class NextStep(Response):
    """The next step of a delivery: a stable code, its meaning, and the time, where it is known."""

    code: str
    text: str
    at: TimeText | None = None
