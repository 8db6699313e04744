"""Figures of the last day: of the whole deployment, and of each endpoint."""

from dataclasses import dataclass

from dispatcher.admin.resources.fields import EndpointId, HealthName, Response, TimeText


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket(Response):
    """The attempts and deliveries of one hour."""

    at: TimeText
    ok_count: int
    not_ok_count: int
    succeeded_count: int
    failed_count: int
    p50_seconds: float | None
    p95_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerState(Response):
    """A breaker that is not closed."""

    state: str
    opened_at: TimeText | None
    probe_at: TimeText | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointTotals(Response):
    """The last day of one endpoint; rates and percentiles are null where nothing was counted.

    `pending_capped`: more deliveries wait than `pending_count`.
    """

    attempts_count: int
    success_rate: float | None
    p50_seconds: float | None
    p95_seconds: float | None
    pending_count: int
    pending_capped: bool
    oldest_due_at: TimeText | None
    last_attempt_at: TimeText | None
    last_outcome: str | None
    last_response_code: int | None
    last_error: str | None
    breaker: BreakerState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFigures(EndpointTotals):
    """The last day of one endpoint, with 24 buckets, oldest first."""

    buckets: list[Bucket]


@dataclass(frozen=True, slots=True, kw_only=True)
class TroubledEndpoint(EndpointTotals):
    """An endpoint that is disabled or not healthy."""

    id: EndpointId
    name: str
    tenant: str
    url: str
    state: str
    reason: str | None
    health: HealthName
    health_since: TimeText | None
    health_cause: str | None
    health_response_code: int | None
    failed_attempts_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthProblem(Response):
    """A problem of the deployment: `code` is stable, `text` is human-readable."""

    code: str
    count: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryTotals(Response):
    """The deliveries that ended in the last day."""

    succeeded_count: int
    failed_count: int
    cancelled_count: int
    cancelled_capped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptTotals(Response):
    """The attempts of the last day, without those of test events."""

    total_count: int
    ok_count: int
    refused_count: int
    timeout_count: int
    unreachable_count: int
    success_rate: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency(Response):
    """Percentiles of the last day's latencies, in seconds; null where nothing was counted."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog(Response):
    """Events and deliveries that wait; a capped count is a lower bound."""

    outbox_count: int
    outbox_capped: bool
    outbox_oldest_seconds: float | None
    pending_count: int
    pending_capped: bool
    held_count: int
    held_capped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointCounts(Response):
    """The endpoints by state; `down`, `degraded` and `recovering` are active ones."""

    active_count: int
    paused_count: int
    disabled_count: int
    down_count: int
    degraded_count: int
    recovering_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary(Response):
    """Health, the last day, the backlog, and the endpoints in trouble.

    `problems` are those of this moment, the gravest first; `healthy` is true if there are none.
    `failed_unresolved_count` are the failed deliveries of the last 31 days that were not resent with
    success; they are a problem as long as some failed in the last day.
    """

    at: TimeText
    healthy: bool
    problems: list[HealthProblem]
    window_hours: int
    deliveries: DeliveryTotals
    attempts: AttemptTotals
    latency_seconds: Latency
    failed_unresolved_count: int
    failed_unresolved_capped: bool
    oldest_undelivered_seconds: float
    backlog: Backlog
    endpoints: EndpointCounts
    dispatchers_alive: int
    buckets: list[Bucket]
    endpoints_in_trouble: list[TroubledEndpoint]
