"""The schedule: waiting deliveries by due time, and what people do to it."""

from datetime import datetime, timedelta
from typing import Annotated, Final

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from dispatcher.admin.resources.base import PageQuery, Request, Response, resource
from dispatcher.admin.resources.delivery import IDS_MAX, DeliveriesFilter, DeliveriesQuery, NextStep
from dispatcher.admin.resources.fields import (
    Bounds,
    DeliveryId,
    EndpointId,
    EventId,
    FilterLabels,
    Text,
    Time,
    TimeText,
)
from dispatcher.admin.resources.presentation import Option, Reading
from dispatcher.admin.resources.validation import NOW, refuse
from dispatcher.core.problems import problem

POSTPONE_SECONDS_MAX: Final = 30 * 86_400

_Due = Annotated[
    Time | None,
    Option(metavar="TIME", help="RFC 3339, or a time from now: 15m, 2h.", reads=Reading.FUTURE),
]
_Label = Annotated[
    FilterLabels | None,
    Option(
        metavar="NAME=VALUE",
        help="Only deliveries of events with this label. May be repeated.",
        reads=Reading.TEXTS,
    ),
]


def _soon_enough(due_at: datetime, info: ValidationInfo) -> datetime:
    if info.context is not None:
        now = info.context[NOW]
        if due_at <= now:
            refuse([problem("due_at", "time_not_in_future")])
        if due_at > now + timedelta(seconds=POSTPONE_SECONDS_MAX):
            refuse([problem("due_at", "postponed_too_far", days=POSTPONE_SECONDS_MAX // 86_400)])
    return due_at


class ScheduleFilter(DeliveriesFilter):
    """Which waiting deliveries: as in a list of deliveries, and `due_since` <= due < `due_until`."""

    label: _Label = Field(default=None, description="Each name=value, as in a list.")
    due_since: _Due = None
    due_until: _Due = None

    def listing(self) -> DeliveriesQuery:
        """Return the part of the filter that a list of deliveries has."""
        names = set(DeliveriesFilter.model_fields) | {"label"}
        values = {name: getattr(self, name) for name in names}
        return DeliveriesQuery.model_construct(**values)


class ScheduleQuery(ScheduleFilter, PageQuery):
    """A page of them."""


class SelectionFilter(ScheduleFilter):
    """Which waiting deliveries; at least one condition."""

    ids: Annotated[
        list[Text] | None,
        Field(max_length=IDS_MAX, min_length=1),
        Option(metavar="ID", help="A delivery, wh_…. May be repeated.", reads=Reading.TEXTS),
    ] = Field(default=None, description="Only these deliveries.")

    def given(self) -> dict[str, object]:
        """Return the conditions that are set, ready for the audit log."""
        return {
            name: value
            for name, value in self.model_dump(mode="json").items()
            if value not in (None, {}, "")
        }


class ScheduleChange(Request):
    """A change of the schedule of each waiting delivery of a filter."""

    filter: SelectionFilter
    dry_run: bool = Field(default=False, description="Only count.")

    @field_validator("filter")
    @classmethod
    def _has_a_condition(cls, value: SelectionFilter) -> SelectionFilter:
        if not value.given():
            refuse([problem("filter", "empty_filter")])
        return value


class Postponement(ScheduleChange):
    """Postpones by a duration or until a time; give one of the two."""

    by_seconds: Annotated[float, Bounds(1, POSTPONE_SECONDS_MAX)] | None = Field(
        default=None, description="Later than its due time by this, or than now if it is overdue."
    )
    due_at: Annotated[Time, AfterValidator(_soon_enough)] | None = Field(
        default=None, description="The new due time of each."
    )

    @field_validator("due_at")
    @classmethod
    def _one_form(cls, value: datetime | None, info: ValidationInfo) -> datetime | None:
        if value is not None and info.data.get("by_seconds") is not None:
            refuse([problem("due_at", "conflicting", other="by_seconds")])
        return value


@resource
class ScheduledDelivery(Response):
    """A waiting delivery: the number of its next attempt, when that is due, and why it waits."""

    id: DeliveryId
    event_id: EventId
    event_type: str
    endpoint_id: EndpointId
    endpoint_name: str
    tenant: str
    attempt_number: int
    due_at: TimeText
    waits_for: NextStep


@resource
class SchedulePage(Response):
    """A page of the schedule, by due time.

    A page may have fewer items than `limit`, or none, and still a `next_cursor`: conditions on events are compared
    for a bounded number of deliveries.
    """

    items: list[ScheduledDelivery]
    next_cursor: str | None


@resource
class Rescheduled(Response):
    """How many deliveries match, or were changed; `capped`: more match, which a repeated call changes."""

    count: int
    capped: bool
    limit: int
    dry_run: bool
