"""One delivery in detail: the request, the reason for the state, and the next step."""

from dispatcher.admin.resources.base import Response, resource
from dispatcher.admin.resources.delivery import Advice, Attempt, Delivery, NextStep
from dispatcher.admin.resources.endpoint_fields import DeliveryMode
from dispatcher.admin.resources.event import Event
from dispatcher.admin.resources.fields import EndpointId


@resource
class ExplainedAttempt(Attempt):
    """An attempt with its phases, its connection, and the reason for its outcome."""

    peer: str | None
    reused: bool
    dns_seconds: float | None
    connect_seconds: float | None
    wait_seconds: float | None
    read_seconds: float | None
    why: Advice


@resource
class ExplainedDelivery(Delivery):
    """A delivery with its attempts, explained."""

    attempts: list[ExplainedAttempt]


@resource
class DeliveryEndpoint(Response):
    """The endpoint of a delivery."""

    id: EndpointId
    name: str
    url: str
    delivery: DeliveryMode
    state: str
    reason: str | None


@resource
class AlsoSigned(Response):
    """The signature of another profile that the endpoint's `also_sign` names."""

    profile: str
    signature_header: str
    signed_content: str


@resource
class SentRequest(Response):
    """The request of an attempt, made again from the endpoint as it is now."""

    attempt_number: int
    method: str
    url: str
    headers: list[tuple[str, str]]
    signature_header: str
    timestamp: int
    signed_content: str
    also_signed: list[AlsoSigned]


@resource
class DeliveryReport(Response):
    """A delivery with its request, the reason for its state, and the next step.

    `request` is that of the chosen attempt, by default the last one; if it is null,
    `request_problem` has the reason, and `request_problem_code` its stable code.
    """

    delivery: ExplainedDelivery
    event: Event | None
    endpoint: DeliveryEndpoint | None
    body: str | None
    body_bytes_count: int | None
    why: Advice
    next: NextStep
    schedule_seconds: list[float] | None
    attempts_max: int | None
    request_id: str | None
    resend: Advice
    can_cancel: bool
    request: SentRequest | None
    request_problem: str | None
    request_problem_code: str | None
