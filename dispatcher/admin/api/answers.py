"""What answers hold; OpenAPI is made of these types, and tests hold each answer against them."""

from typing import Annotated, Any, Literal

from pydantic import Field, RootModel

from dispatcher.admin.api.kinds import (
    DeliveryStateName,
    EndpointStateName,
    LabelFilter,
    RoleName,
    Shown,
    TimeText,
)

EndpointId = Annotated[str, Field(examples=["ep_01kat9zma1e4gbryhh3m9dq2yw"])]
DeliveryId = Annotated[str, Field(examples=["wh_01kat9zma1gk18t0mvx8z4q6re"])]
EventId = Annotated[str, Field(examples=["evt_2026_001234"])]


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


class EndpointProblem(Shown):
    """Why the configuration does not let an endpoint be sent to; its deliveries wait until it is fixed."""

    reason: str
    detail: str


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
    problem: EndpointProblem | None


class ChangedEndpoint(Endpoint):
    """An endpoint as it was made (its secret whole, this once) or changed."""

    warnings: list[str]


class EndpointPage(Shown):
    """A page of endpoints."""

    items: list[Endpoint]
    next_cursor: str | None


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
    quarantined_at: TimeText | None


class EventPage(Shown):
    """A page of events."""

    items: list[Event]
    next_cursor: str | None


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


class DeliveryPage(Shown):
    """A page of deliveries."""

    items: list[Delivery]
    next_cursor: str | None


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


class Explanation(Shown):
    """An event and the verdict for each endpoint of its tenant."""

    event: Event
    summary: str
    dispatchers_alive: int
    endpoints: list[Verdict]


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


class TokenPage(Shown):
    """A page of tokens."""

    items: list[Token]
    next_cursor: str | None


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
