"""Deliveries and their attempts."""

import re
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from dispatcher.admin.resources.fields import (
    Cursor,
    DeliveryId,
    DeliveryStateName,
    EndpointId,
    EventId,
    FilterLabels,
    Labels,
    QueryLimit,
    QueryTruth,
    Request,
    Response,
    Text,
    Time,
    TimeText,
    checked_by,
    refuse,
)
from dispatcher.core.problems import Problem, problem

REQUEST_ID: Final = re.compile(r"([a-z0-9]+_)?([0-9a-f]{16})")


def request_id_problems(request_id: str) -> list[Problem]:
    """Lists what is wrong with the id of a request."""
    if REQUEST_ID.fullmatch(request_id) is None:
        return [problem("request_id", "invalid_request_id", value=request_id)]
    return []


RequestId = Annotated[str, checked_by(request_id_problems)]


class DeliveriesFilter(Request):
    """Which deliveries; `since` <= created_at < `until`."""

    endpoint_id: Text | None = None
    event_id: Text | None = None
    request_id: RequestId | None = Field(default=None, description="The id in a humansoft body.")
    event_type: Text | None = None
    state: DeliveryStateName | None = None
    tenant: Text | None = None
    since: Time | None = None
    until: Time | None = None
    search: Text | None = Field(
        default=None,
        description="An id of a delivery, event or request; name=value; or the value of any label.",
    )


class DeliveriesQuery(DeliveriesFilter):
    """A page of them."""

    label: FilterLabels | None = Field(default=None, description="name=value; may be repeated.")
    test: QueryTruth | None = None
    limit: QueryLimit = 50
    cursor: Cursor | None = None


class ResendFilter(DeliveriesFilter):
    """Which deliveries; at least one of these."""

    label: FilterLabels | None = Field(default=None, description="Each name=value, as in a list.")
    labels: Labels | None = Field(
        default=None, description="The same as an object; give one of the two."
    )

    @field_validator("labels")
    @classmethod
    def _one_form(cls, value: Labels | None, info: ValidationInfo) -> Labels | None:
        if value and info.data.get("label"):
            refuse([problem("labels", "conflicting", other="filter.label")])
        return value


class Resend(Request):
    """One extra attempt for each delivery of a filter."""

    filter: ResendFilter
    dry_run: bool = Field(default=False, description="Only count.")
    cursor: Cursor | None = Field(default=None, description="The next_cursor of the call before.")

    @field_validator("filter")
    @classmethod
    def _says_something(cls, value: ResendFilter) -> ResendFilter:
        if not any(value.model_dump().values()):
            refuse([problem("filter", "empty_filter")])
        return value


class Attempt(Response):
    """One HTTP request; `response_body` is kept of failures, and shown to operators and admins."""

    attempt_number: int
    trigger: Literal["scheduled", "manual", "replay", "test"]
    outcome: Literal[
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
    flags: list[Literal["sloppy", "body_truncated", "body_incomplete"]]
    attempted_at: TimeText
    latency_seconds: float
    response_code: int | None
    response_body: str | None
    error: str | None
    url: str


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


class DeliveryWithAttempts(Delivery):
    """A delivery with its attempts, in order."""

    attempts: list[Attempt]


class DeliveryPage(Response):
    """A page of deliveries."""

    items: list[Delivery]
    next_cursor: str | None


class Resent(Response):
    """How many there are, or were asked for; one call takes `limit` at most."""

    count: int
    capped: bool
    limit: int
    dry_run: bool
    next_cursor: str | None
