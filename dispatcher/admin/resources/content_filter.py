"""Tests of content filters on past events."""

from typing import Annotated, Final

from pydantic import Field

from dispatcher.admin.resources.base import Request, Response, resource
from dispatcher.admin.resources.endpoint_fields import RequiredFilter
from dispatcher.admin.resources.fields import Bounds, EventId, Text, TimeText
from dispatcher.admin.resources.presentation import Option, Reading

LIMIT_MAX: Final = 1_000


class FilterTest(Request):
    """An expression, and the events that it is tried on."""

    content_filter: Annotated[
        RequiredFilter,
        Option(metavar="EXPRESSION", help="The CEL expression.", reads=Reading.TEXT),
    ] = Field(examples=['data.total > 1000 && labels.region == "th"'])
    type: Annotated[
        Text | None,
        Option(help="Only this event type, or order.* and the like.", reads=Reading.EVENT_TYPE),
    ] = Field(default=None, description="A type, or its beginning and `*`, as in `order.*`.")
    tenant: Annotated[Text | None, Option(metavar="TENANT", help="Only events of this tenant.")] = (
        None
    )
    limit: Annotated[
        Annotated[int, Bounds(1, LIMIT_MAX, whole=True)],
        Option(metavar="N", help="Events to try, 1 to 1000.", reads=Reading.NUMBER),
    ] = Field(default=LIMIT_MAX, description="Events to try.")


@resource
class TestedEvent(Response):
    """What an expression returned for one event."""

    id: EventId
    type: str
    matched: bool
    error: str | None


@resource
class FilterTestResult(Response):
    """How many of the newest events an expression matches; `events` are the newest of them.

    An event whose evaluation fails, because a field is missing for example, does not match.
    """

    checked_count: int
    matched_count: int
    error_count: int
    checked_back_to: TimeText | None
    events: list[TestedEvent]
