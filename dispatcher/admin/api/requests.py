"""What requests give; OpenAPI is made of these types, and of those in `answers.py`.

Every fault of a request is told in one go, so the rules that an operation has for single fields are
applied here too (`judged_by`), by the operation's own functions. Requests that an operation judges
itself (an endpoint's fields) are described here and not validated here.
"""

from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from dispatcher.admin.api.kinds import (
    NOW,
    DeliveryStateName,
    EndpointStateName,
    Given,
    LabelFilter,
    QueryLabels,
    QueryLimit,
    QueryTruth,
    RawObject,
    RoleName,
    Text,
    Time,
    judged_by,
    refuse,
)
from dispatcher.admin.operations.deliveries import SAYS_NOTHING
from dispatcher.admin.operations.delivery_search import request_id_problems
from dispatcher.admin.operations.endpoint_fields import tenant_problems
from dispatcher.admin.operations.events import id_problems, occurred_at_problems
from dispatcher.admin.operations.objects import cursor_problems
from dispatcher.admin.operations.tokens import NAME_CHARACTERS_MAX, expiry_problems, name_problems
from dispatcher.admin.operations.trial import test_type_problems
from dispatcher.core.limits import EVENT_TYPE_CHARACTERS_MAX
from dispatcher.core.matching import event_type_problems, labels_problems

Tenant = Annotated[str, Field(pattern="^[a-z0-9_-]{1,64}$", examples=["default"])]
Cursor = Annotated[Text, judged_by(cursor_problems)]
RequestId = Annotated[str, judged_by(request_id_problems)]
GivenTenant = Annotated[
    str,
    judged_by(tenant_problems),
    WithJsonSchema({"type": "string", "pattern": "^[a-z0-9_-]{1,64}$"}),
]
EventId = Annotated[
    str,
    judged_by(id_problems),
    WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}),
]
_TYPE_SCHEMA = {"type": "string", "maxLength": EVENT_TYPE_CHARACTERS_MAX}
EventType = Annotated[str, judged_by(event_type_problems), WithJsonSchema(_TYPE_SCHEMA)]
TestType = Annotated[str, judged_by(test_type_problems), WithJsonSchema(_TYPE_SCHEMA)]
Labels = Annotated[
    dict[str, Any],
    judged_by(labels_problems),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}}),
]
FilterLabels = Annotated[QueryLabels, judged_by(partial(labels_problems, field="label"))]


def _in_the_future(expires_at: datetime, info: ValidationInfo) -> datetime:
    if info.context is not None:
        refuse(expiry_problems(expires_at, info.context[NOW]))
    return expires_at


def _without_defaults(schema: dict[str, Any]) -> None:
    """Takes defaults out of a schema: what is left out has none, it stays as it is."""
    for described in schema["properties"].values():
        described.pop("default", None)


class PageQuery(Given):
    """A page of a list."""

    limit: QueryLimit = 50
    cursor: Cursor | None = None


class EndpointFields(Given):
    """What an endpoint is made of; null brings a limit back to its default."""

    name: str = Field(min_length=1, max_length=128, examples=["ERP"])
    url: str = Field(max_length=2048, examples=["https://erp.example.com/hooks"])
    event_types: list[str] = Field(
        min_length=1, max_length=500, examples=[["order.created", "stock.*"]]
    )
    headers: dict[str, str] = Field(default={})
    labels: LabelFilter = Field(default={})
    ca_pem: str | None = None
    max_concurrency: int | None = Field(default=None, ge=1, le=1000)
    rate_limit: float | None = Field(
        default=None, ge=0.00001, le=100_000, description="Requests per second."
    )
    timeout_seconds: float | None = Field(default=None, ge=0.001, le=60)
    retry_schedule_seconds: list[Annotated[float, Field(ge=0, le=604_800)]] | None = Field(
        default=None, max_length=50, description="One delay for each retry; [] means one attempt."
    )
    ordering: Literal["none"] = "none"


class NewEndpoint(EndpointFields):
    """A new endpoint."""

    profile: str = Field(default="standard", examples=["wms", "humansoft", "standard"])
    tenant: Tenant = "default"
    secret: str | None = Field(
        default=None,
        description="Left out: one is made. null: requests are not signed (wms and humansoft).",
    )


class EndpointChange(Given):
    """A change of an endpoint: what is left out stays (RFC 7396, one level deep)."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)

    name: str = Field(default="", min_length=1, max_length=128)
    url: str = Field(default="", max_length=2048)
    event_types: list[str] = Field(default=[], min_length=1, max_length=500)
    headers: dict[str, str] = Field(default={})
    labels: LabelFilter = Field(default={})
    ca_pem: str | None = None
    max_concurrency: int | None = Field(default=None, ge=1, le=1000)
    rate_limit: float | None = Field(default=None, ge=0.00001, le=100_000)
    timeout_seconds: float | None = Field(default=None, ge=0.001, le=60)
    retry_schedule_seconds: list[Annotated[float, Field(ge=0, le=604_800)]] | None = Field(
        default=None, max_length=50
    )
    ordering: Literal["none"] = "none"


class EndpointsQuery(PageQuery):
    """Which endpoints."""

    tenant: Text | None = None
    name: Text | None = None
    profile: Text | None = None
    state: EndpointStateName | None = None


class NewSecret(Given):
    """How a secret is rotated."""

    secret: str | None = Field(default=None, description="Left out: one is made.")
    overlap_seconds: float | None = Field(
        default=None,
        ge=0,
        le=604_800,
        description="How long the old secret signs beside the new one; 86400 where left out.",
    )
    activate: bool | None = Field(
        default=None, description="Switch at once, where the profile has room for one signature."
    )
    activate_staged: bool | None = Field(
        default=None, description="Switch to the secret that was staged; nothing else may be given."
    )


class NewTest(Given):
    """A test event; without a type the first one that the endpoint takes."""

    event_type: TestType | None = Field(default=None, examples=["order.created"])
    data: RawObject | None = Field(default=None, description="Left out: the catalogue's sample.")


class NewEventFields(Given):
    """An event; `data` keeps its bytes."""

    type: EventType = Field(examples=["order.created"])
    data: RawObject = Field(examples=[{"order_id": "ORD-2026-1234"}])
    id: EventId | None = None
    tenant: GivenTenant | None = None
    occurred_at: Annotated[Time, judged_by(occurred_at_problems)] | None = None
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
            raise ValueError("cannot be given with type")
        return value


class DeliveriesFilter(Given):
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
            raise ValueError("cannot be given with filter.label")
        return value


class Resend(Given):
    """One extra attempt for each delivery of a filter."""

    filter: ResendFilter
    dry_run: bool = Field(default=False, description="Only count.")
    cursor: Cursor | None = Field(default=None, description="The next_cursor of the call before.")

    @field_validator("filter")
    @classmethod
    def _says_something(cls, value: ResendFilter) -> ResendFilter:
        if not any(value.model_dump().values()):
            raise ValueError(SAYS_NOTHING)
        return value


class NewToken(Given):
    """A new token."""

    name: Annotated[
        str,
        judged_by(name_problems),
        WithJsonSchema({"type": "string", "minLength": 1, "maxLength": NAME_CHARACTERS_MAX}),
    ] = Field(examples=["erp-team"])
    role: RoleName
    tenant: GivenTenant | None = Field(
        default=None, description="Left out: your own, or all of them where you have none."
    )
    expires_at: Annotated[Time, AfterValidator(_in_the_future)] | None = None


class TokensQuery(PageQuery):
    """Which tokens."""

    tenant: Text | None = None


class AuditQuery(PageQuery):
    """Which lines; `since` <= at < `until`."""

    tenant: Text | None = None
    actor: Text | None = None
    action: Text | None = None
    object: Text | None = None
    since: Time | None = None
    until: Time | None = None
