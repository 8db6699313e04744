"""Figures of a range of time: of the whole deployment, and of each endpoint; and the open problems."""

from enum import StrEnum

from dispatcher.admin.resources.base import Response, resource
from dispatcher.admin.resources.endpoint import Endpoint
from dispatcher.admin.resources.fields import TimeText


class TrafficRange(StrEnum):
    """How far back the figures of a deployment reach."""

    HOUR = "1h"
    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"


@resource
class Bucket(Response):
    """The attempts and deliveries from `at` until `until`."""

    at: TimeText
    until: TimeText
    ok_count: int
    not_ok_count: int
    succeeded_count: int
    failed_count: int
    p50_seconds: float | None
    p95_seconds: float | None


@resource
class BreakerState(Response):
    """A breaker that is not closed."""

    state: str
    opened_at: TimeText | None
    probe_at: TimeText | None


@resource
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


@resource
class EndpointFigures(EndpointTotals):
    """The last day of one endpoint, with 24 buckets, oldest first."""

    buckets: list[Bucket]


@resource
class HealthProblem(Response):
    """A problem of the deployment; `code` is stable. The count of a late one is its age in seconds."""

    code: str
    count: int


@resource
class OpenProblems(Response):
    """The problems of this moment: of the deployment, the gravest first, and of endpoints.

    `more`: further endpoints have problems.
    """

    deployment: list[HealthProblem]
    endpoints: list[Endpoint]
    more: bool

    @property
    def count(self) -> int:
        """The number of problems."""
        return len(self.deployment) + len(self.endpoints)


@resource
class DeliveryTotals(Response):
    """The deliveries that ended in the range; the cancelled ones are those of the last day."""

    succeeded_count: int
    failed_count: int
    cancelled_count: int
    cancelled_capped: bool


@resource
class AttemptTotals(Response):
    """The attempts of the range, without those of test events."""

    total_count: int
    ok_count: int
    refused_count: int
    timeout_count: int
    unreachable_count: int
    success_rate: float | None


@resource
class Latency(Response):
    """Percentiles of the latencies, in seconds; null where nothing was counted."""

    p50: float | None
    p95: float | None
    p99: float | None


@resource
class Backlog(Response):
    """Events and deliveries that wait; a capped count is a lower bound."""

    outbox_count: int
    outbox_capped: bool
    outbox_oldest_seconds: float | None
    pending_count: int
    pending_capped: bool
    held_count: int
    held_capped: bool


@resource
class EndpointCounts(Response):
    """The endpoints by state; `down`, `degraded` and `recovering` are active ones."""

    active_count: int
    paused_count: int
    disabled_count: int
    down_count: int
    degraded_count: int
    recovering_count: int


@resource
class Summary(Response):
    """Health, the figures of the range, and the backlog.

    `problems` are those of this moment, the gravest first; `healthy` is true if there are none.
    `failed_unresolved_count` are the failed deliveries of the last 31 days that were not resent with
    success; they are a problem as long as some failed in the last day.
    """

    at: TimeText
    healthy: bool
    problems: list[HealthProblem]
    range: TrafficRange
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
