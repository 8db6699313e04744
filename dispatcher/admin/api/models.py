"""What requests give and answers hold; OpenAPI is made of these types.

Requests that an operation judges itself (an endpoint's fields) are described here and not validated
here, so that every fault is told in one go.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, RootModel

from dispatcher.admin.api.kinds import (
    Given,
    QueryLabels,
    QueryLimit,
    QueryTruth,
    RawObject,
    Shown,
    Text,
    Time,
    TimeText,
)

EndpointId = Annotated[str, Field(examples=["ep_abgvk5rwyd7yxoflpnizx7eoxe"])]
DeliveryId = Annotated[str, Field(examples=["wh_abgvk5rwyd7yxoflpnizx7eoxe"])]
EventId = Annotated[str, Field(examples=["evt_2026_001234"])]
Tenant = Annotated[str, Field(pattern="^[a-z0-9_-]{1,64}$", examples=["default"])]
DeliveryStateName = Literal["pending", "retrying", "succeeded", "failed", "cancelled"]
EndpointStateName = Literal["active", "paused", "disabled"]
RoleName = Literal["viewer", "operator", "admin"]
LabelFilter = dict[str, str | list[str]]


def _without_defaults(schema: dict[str, Any]) -> None:
    """Takes defaults out of a schema: what is left out has none, it stays as it is."""
    for described in schema["properties"].values():
        described.pop("default", None)


class PageQuery(Given):
    """A page of a list."""

    limit: QueryLimit = 50
    cursor: Text | None = None


class Problem(Shown):
    """What went wrong (RFC 9457)."""

    class Fault(Shown):
        """One field at fault."""

        field: str
        message: str

    type: str
    title: str
    status: int
    detail: str
    errors: list[Fault] | None = None


# Endpoints


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
        default=None, gt=0, le=100_000, description="Requests per second."
    )
    timeout_seconds: float | None = Field(default=None, gt=0, le=60)
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
    rate_limit: float | None = Field(default=None, gt=0, le=100_000)
    timeout_seconds: float | None = Field(default=None, gt=0, le=60)
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


class Endpoint(Shown):
    """An endpoint; its secret is masked, and header values are shown to admins alone."""

    id: EndpointId
    tenant: str
    name: str
    url: str
    profile: str
    event_types: list[str]
    labels: LabelFilter
    headers: dict[str, str]
    ca_pem: str | None
    max_concurrency: int | None
    rate_limit: float | None
    timeout_seconds: float | None
    retry_schedule_seconds: list[float] | None
    ordering: str
    state: EndpointStateName
    reason: str | None
    created_at: TimeText
    updated_at: TimeText
    secret: str | None
    public_key: str | None
    staged_secret: str | None
    previous_secret_expires_at: TimeText | None


class ChangedEndpoint(Endpoint):
    """An endpoint as it was made (its secret whole, this once) or changed."""

    warnings: list[str]


class EndpointPage(Shown):
    """A page of endpoints."""

    items: list[Endpoint]
    next_cursor: str | None


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


class RotatedSecret(Shown):
    """The new secret, whole."""

    endpoint_id: EndpointId
    secret: str
    public_key: str | None
    state: Literal["active", "staged"]
    previous_secret_expires_at: TimeText | None


class RotationAnswer(RootModel[RotatedSecret | Endpoint]):
    """The new secret, whole; after `activate_staged` the endpoint."""


class RevealedSecret(Shown):
    """The secrets, whole; asking was audited."""

    endpoint_id: EndpointId
    secret: str | None
    staged_secret: str | None
    public_key: str | None


class NewTest(Given):
    """A test event; without a type the first one that the endpoint takes."""

    event_type: Text | None = Field(default=None, examples=["order.created"])
    data: RawObject | None = Field(default=None, description="Left out: the catalogue's sample.")


# Events


class EventType(Shown):
    """A type of the catalogue."""

    class Words(Shown):
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


class EventTypePage(Shown):
    """The whole catalogue."""

    items: list[EventType]
    next_cursor: None


class NewEventFields(Given):
    """An event; `data` keeps its bytes."""

    type: Text = Field(examples=["order.created"])
    data: RawObject = Field(examples=[{"order_id": "ORD-2026-1234"}])
    id: Text | None = None
    tenant: Text | None = None
    occurred_at: Time | None = None
    ordering_key: Text | None = None
    labels: dict[str, str] | None = None
    traceparent: Text | None = None


class EventsQuery(PageQuery):
    """Which events."""

    type: Text | None = Field(default=None, examples=["order.created"])
    event_type: Text | None = Field(
        default=None, description="The same as type; give one of the two."
    )
    label: QueryLabels | None = Field(default=None, description="name=value; may be repeated.")
    tenant: Text | None = None
    test: QueryTruth | None = None
    since: Time | None = None
    until: Time | None = None


class Event(Shown):
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


class EventPage(Shown):
    """A page of events."""

    items: list[Event]
    next_cursor: str | None


# Deliveries


class Attempt(Shown):
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


class Delivery(Shown):
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


class EventWithDeliveries(Event):
    """An event with its deliveries, a thousand of them at most."""

    deliveries: list[Delivery]


class DeliveriesFilter(Given):
    """Which deliveries; `since` <= created_at < `until`."""

    endpoint_id: Text | None = None
    event_id: Text | None = None
    request_id: Text | None = Field(default=None, description="The id in a humansoft body.")
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

    label: QueryLabels | None = Field(default=None, description="name=value; may be repeated.")
    test: QueryTruth | None = None
    limit: QueryLimit = 50
    cursor: Text | None = None


class DeliveryPage(Shown):
    """A page of deliveries."""

    items: list[Delivery]
    next_cursor: str | None


class ResendFilter(DeliveriesFilter):
    """Which deliveries; at least one of these."""

    label: QueryLabels | None = Field(default=None, description="Each name=value, as in a list.")
    labels: dict[str, str] | None = Field(
        default=None, description="The same as an object; give one of the two."
    )


class Resend(Given):
    """One extra attempt for each delivery of a filter."""

    filter: ResendFilter
    dry_run: bool = Field(default=False, description="Only count.")
    cursor: Text | None = Field(default=None, description="The next_cursor of the call before.")


class Resent(Shown):
    """How many there are, or were asked for; one call takes `limit` at most."""

    count: int
    capped: bool
    limit: int
    dry_run: bool
    next_cursor: str | None


class Verdict(Shown):
    """Why an endpoint did or did not get an event, and what comes next."""

    endpoint_id: EndpointId
    endpoint_name: str
    endpoint_state: str
    gets_it: bool
    why: str
    explanation: str
    next: str
    next_code: str
    delivery: Delivery | None


class Explanation(Shown):
    """An event and the verdict for each endpoint of its tenant."""

    event: Event
    summary: str
    dispatchers_alive: int
    endpoints: list[Verdict]


# Tokens and audit


class NewToken(Given):
    """A new token."""

    name: Text = Field(min_length=1, max_length=128, examples=["erp-team"])
    role: RoleName
    tenant: Text | None = Field(
        default=None, description="Left out: your own, or all of them where you have none."
    )
    expires_at: Time | None = None


class Token(Shown):
    """A token; nobody has its text any more."""

    id: str
    name: str
    prefix: str
    role: RoleName
    tenant: str | None
    created_at: TimeText
    created_by: str
    expires_at: TimeText | None
    last_used_at: TimeText | None
    revoked_at: TimeText | None


class CreatedToken(Token):
    """A token with its whole text, this once."""

    token: str


class TokensQuery(PageQuery):
    """Which tokens."""

    tenant: Text | None = None


class TokenPage(Shown):
    """A page of tokens."""

    items: list[Token]
    next_cursor: str | None


class AuditQuery(PageQuery):
    """Which lines; `since` <= at < `until`."""

    tenant: Text | None = None
    actor: Text | None = None
    action: Text | None = None
    object: Text | None = None
    since: Time | None = None
    until: Time | None = None


class AuditLine(Shown):
    """Who did what to which thing; without a tenant it concerned all of them."""

    id: str
    at: TimeText
    actor: str
    tenant: str | None
    action: str
    object: str
    detail: dict[str, Any]


class AuditPage(Shown):
    """A page of the audit log."""

    items: list[AuditLine]
    next_cursor: str | None
