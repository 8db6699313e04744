"""Deliveries that a receiver fetches: what a poll returns, and how the receiver settles them."""

import re
from typing import Annotated, Final, Literal

from pydantic import Field, GetCoreSchemaHandler, PlainValidator, ValidationInfo
from pydantic_core import CoreSchema

from dispatcher.admin.resources.base import Request, Response, resource
from dispatcher.admin.resources.fields import (
    Bounds,
    DeliveryId,
    EventId,
    Text,
    TimeText,
    number_problems,
)
from dispatcher.admin.resources.presentation import Option, Reading
from dispatcher.admin.resources.validation import refuse

BATCH_MAX: Final = 100
WAIT_SECONDS_MAX: Final = 30
LEASE_SECONDS_DEFAULT: Final = 60.0
LEASE_SECONDS_MAX: Final = 3_600.0
_DIGITS: Final = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,6})?")


class QueryBounds(Bounds):
    """The bounds of a number in a query, where it is a text."""

    def __get_pydantic_core_schema__(
        self, source: type, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Return the validator of the number that the text states."""

        def validate(value: object, info: ValidationInfo) -> object:
            field = str(info.field_name)
            number = value
            if isinstance(value, str) and _DIGITS.fullmatch(value):
                number = int(value) if "." not in value else float(value)
            refuse(number_problems(number, field, self.minimum, self.maximum, whole=self.whole))
            return number

        return PlainValidator(validate).__get_pydantic_core_schema__(source, handler)


class PollQuery(Request):
    """How much a poll returns, and how long it waits."""

    limit: Annotated[
        Annotated[int, QueryBounds(1, BATCH_MAX, whole=True)],
        Option(metavar="N", help="Deliveries of one poll. Default: 10.", reads=Reading.NUMBER),
    ] = 10
    wait_seconds: Annotated[float, QueryBounds(0, WAIT_SECONDS_MAX)] = Field(
        default=0.0, description="How long to wait for a delivery; 0: return at once."
    )
    lease_seconds: Annotated[
        Annotated[float, QueryBounds(1, LEASE_SECONDS_MAX)],
        Option(
            metavar="SECONDS",
            help="How long a delivery may take before it counts as timed out. Default: 60.",
            reads=Reading.NUMBER,
        ),
    ] = Field(
        default=LEASE_SECONDS_DEFAULT,
        description="How long the deliveries are leased. A lease that ends unsettled is a failed attempt (`timeout`).",
    )


@resource
class PulledDelivery(Response):
    """A leased delivery: the request that a push would have sent, headers with the signature included.

    `body` is the signed text; it must be verified and parsed as it is.
    """

    lease_id: str
    leased_until: TimeText
    delivery_id: DeliveryId
    event_id: EventId
    event_type: str
    attempt_number: int
    headers: dict[str, str]
    body: str


@resource
class PulledPage(Response):
    """The deliveries of one poll; none: nothing was due."""

    items: list[PulledDelivery]


class LeaseResult(Request):
    """What became of one leased delivery.

    `response_code` is the status that a receiver would have returned to a push: 2xx acknowledges the delivery, any
    other rejects it, and the endpoint's schedule decides on the next attempt.
    """

    lease_id: Text
    response_code: Annotated[int, Bounds(200, 599, whole=True)]
    error: Text | None = Field(
        default=None, description="Why it was rejected, for the attempt log."
    )
    retry_after_seconds: Annotated[float, Bounds(0, 86_400)] | None = Field(
        default=None, description="With 429 and 503: the earliest time of the next attempt."
    )


class LeaseResults(Request):
    """What became of leased deliveries."""

    results: Annotated[list[LeaseResult], Field(min_length=1, max_length=BATCH_MAX)]


@resource
class SettledLease(Response):
    """`recorded`, or `expired`: the lease had ended, so the delivery will be returned again."""

    lease_id: str
    status: Literal["recorded", "expired"]


@resource
class SettledLeases(Response):
    """The result of each lease, in the order of the request."""

    items: list[SettledLease]
