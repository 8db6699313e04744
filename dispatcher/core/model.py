"""The words of the domain: ids, states, outcomes, and the values that stages hand to each other.

The values of the hot path (`Delivery`, `HttpResponse`, `AttemptResult`) are NamedTuples: immutable like a
frozen dataclass and built in a fifth of the time (docs/adr/0006). Where one is built for each delivery,
`made` halves that time again (docs/adr/0126).
"""

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, NewType, TypeVar

EventId = NewType("EventId", str)
EndpointId = NewType("EndpointId", str)
DeliveryId = NewType("DeliveryId", str)

_Made = TypeVar("_Made", bound=tuple[object, ...])

if TYPE_CHECKING:

    def made(kind: type[_Made], fields: tuple[object, ...]) -> _Made:
        """Return a NamedTuple of all its fields, in their order and without defaults.

        For values that are built for each delivery only: the class itself costs twice as much, because it
        is called through a function in Python.
        """

else:
    made = tuple.__new__


class DeliveryState(StrEnum):
    """Where a delivery stands; the last three are final but for a resend or a replay."""

    PENDING = "pending"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class EndpointState(StrEnum):
    """Paused by a person, disabled by the system."""

    ACTIVE = "active"
    PAUSED = "paused"
    DISABLED = "disabled"


class HealthState(StrEnum):
    """How an endpoint fares, independent of its state; `store/sql/endpoint_status_evaluate.sql` defines it."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    DOWN = "down"
    RECOVERING = "recovering"


class Trigger(StrEnum):
    """Why an attempt was made."""

    SCHEDULED = "scheduled"
    MANUAL = "manual"
    REPLAY = "replay"
    TEST = "test"


class Outcome(StrEnum):
    """How an attempt ended; a closed set, also the metric's label."""

    OK = "ok"
    HTTP_ERROR = "http_error"
    GONE = "gone"
    THROTTLED = "throttled"
    TIMEOUT = "timeout"
    CONNECT_ERROR = "connect_error"
    DNS_ERROR = "dns_error"
    TLS_ERROR = "tls_error"
    PROTOCOL_ERROR = "protocol_error"
    BLOCKED_ADDRESS = "blocked_address"


class Flag(StrEnum):
    """What was unusual about a response that still counted."""

    SLOPPY = "sloppy"
    BODY_TRUNCATED = "body_truncated"
    BODY_INCOMPLETE = "body_incomplete"


class Reason(StrEnum):
    """Why a delivery failed or was cancelled, or an endpoint disabled."""

    SCHEDULE_SPENT = "schedule_spent"
    GONE = "gone"
    TEST_FAILED = "test_failed"
    CANCELLED_BY_PERSON = "cancelled_by_person"
    ENDPOINT_DISABLED = "endpoint_disabled"
    ENDPOINT_DELETED = "endpoint_deleted"
    PAUSED_TOO_LONG = "paused_too_long"
    UNENCODABLE_EVENT = "unencodable_event"
    EVENT_ERASED = "event_erased"
    UNKNOWN_PROFILE = "unknown_profile"
    HTTP_NOT_ALLOWED = "http_not_allowed"
    INVALID_HEADERS = "invalid_headers"
    INVALID_URL = "invalid_url"
    INVALID_CA_PEM = "invalid_ca_pem"
    INVALID_SETTINGS = "invalid_settings"
    SECRET_UNREADABLE = "secret_unreadable"  # noqa: S105 -- a reason, not a secret
    FAILING_TOO_LONG = "failing_too_long"
    SKIPPED = "skipped"
    """The endpoint's `skip_after_attempts`: later deliveries of its line go on."""


UNUSABLE_REASONS: Final = (
    Reason.UNKNOWN_PROFILE,
    Reason.HTTP_NOT_ALLOWED,
    Reason.SECRET_UNREADABLE,
    Reason.INVALID_URL,
    Reason.INVALID_HEADERS,
    Reason.INVALID_CA_PEM,
    Reason.INVALID_SETTINGS,
)
"""Why an endpoint cannot be sent to; its deliveries wait and are never cancelled for these."""


class Event(NamedTuple):
    """One committed outbox row, as fan-out sees it."""

    id: EventId
    type: str
    data: str
    """The text of the json column, as the producer wrote it."""
    tenant: str
    occurred_at: datetime
    """Aware, UTC."""
    inserted_at: datetime
    labels: dict[str, str]
    traceparent: str | None
    ordering_key: str | None = None
    position: int | None = None
    """Its place in the outbox."""


class Phases(NamedTuple):
    """Where an attempt's time went, in seconds; None for a phase that did not happen."""

    dns: float | None = None
    connect: float | None = None
    """TCP and TLS together where the library does not report them separately."""
    wait: float | None = None
    """From the request written to the first byte of the response."""
    read: float | None = None


class HttpResponse(NamedTuple):
    """What one HTTP exchange came to: always complete, regardless of the errors on the wire."""

    outcome: Outcome
    status: int | None = None
    body: bytes = b""
    """The first `limits.RESPONSE_KEPT_BYTES_MAX` bytes, raw, not decompressed."""
    flags: tuple[Flag, ...] = ()
    retry_after: str | None = None
    """The header's text, unjudged."""
    location: str | None = None
    error: str | None = None
    """A human-readable description of the error."""
    peer: str | None = None
    """The numeric address that was dialled."""
    reused: bool = False
    """The connection had served an earlier request."""
    phases: Phases = Phases()
    headers: bytes = b""
    """The first whole header lines, raw, `limits.RESPONSE_HEADERS_KEPT_BYTES_MAX` bytes at most."""
