"""The deliveries of an endpoint that does not respond: those that wait, those that failed, and retrying it now."""

from typing import Literal

from dispatcher.admin.resources.base import Response, resource
from dispatcher.admin.resources.delivery import Attempt, AttemptOutcomeName
from dispatcher.admin.resources.fields import DeliveryId, EndpointId, TimeText


@resource
class WaitingDeliveries(Response):
    """The deliveries that wait for an endpoint; `capped`: there are more than `waiting_count`."""

    endpoint_id: EndpointId
    waiting_count: int
    retrying_count: int
    capped: bool
    oldest_due_at: TimeText | None


@resource
class EndpointRetry(Response):
    """The outcome of retrying an endpoint now.

    `released`: the attempt succeeded, and everything that waits is due. `releasing`: this goes on. `failed`: the
    attempt failed, or none could be made, and the schedule is as it was. `requested`: no dispatcher has made the
    attempt yet. `nothing_waiting`: there was nothing to send. `waiting_count` is from before the attempt.
    """

    endpoint_id: EndpointId
    state: Literal["released", "releasing", "failed", "requested", "nothing_waiting"]
    waiting_count: int
    capped: bool
    delivery_id: DeliveryId | None
    attempt: Attempt | None


@resource
class FailedResponse(Response):
    """The failed and the retrying deliveries whose last attempt had this outcome and response code.

    `outcome` is null where no attempt was made.
    """

    outcome: AttemptOutcomeName | None
    response_code: int | None
    failed_count: int
    retrying_count: int


@resource
class EndpointFailures(Response):
    """The failures of an endpoint by response, the most frequent first.

    The newest 100 failed deliveries of the last 31 days, and the 100 waiting deliveries that are due first, are
    counted; `capped`: there are more.
    """

    endpoint_id: EndpointId
    responses: list[FailedResponse]
    capped: bool
