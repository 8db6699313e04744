"""Jobs: bulk resends and replays, with their filter, progress and counts."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from dispatcher.admin.resources.base import PageQuery, Request, Response, resource
from dispatcher.admin.resources.delivery import IDS_MAX, DeliveriesQuery, HistoryFilter, Label
from dispatcher.admin.resources.fields import (
    Bounds,
    EndpointId,
    FilterLabels,
    Labels,
    Text,
    Time,
    TimeText,
)
from dispatcher.admin.resources.presentation import Option, Reading
from dispatcher.admin.resources.validation import refuse
from dispatcher.core.problems import problem

RATE_DEFAULT: Final = 100.0
RATE_MIN: Final = 0.1
RATE_MAX: Final = 1_000.0

JobKind = Literal["resend", "replay"]
JobState = Literal["pending", "running", "paused", "completed", "cancelled", "failed"]
JobId = Annotated[str, Field(examples=["job_01kat9zma1e4gbryhh3m9dq2yw"])]
Rate = Annotated[float, Bounds(RATE_MIN, RATE_MAX)]


class _Conditions(HistoryFilter):
    """The conditions that only jobs have."""

    recoverable: Annotated[
        bool | None,
        Option(
            help="Only deliveries that failed, or that a pause or a disabled endpoint cancelled.",
            reads=Reading.SWITCH,
        ),
    ] = Field(
        default=None,
        description="Only deliveries that failed, or that a pause or a disabled endpoint cancelled.",
    )
    finished_since: Annotated[
        Time | None,
        Option(metavar="TIME", help="Only deliveries that ended since then.", reads=Reading.PAST),
    ] = Field(default=None, description="Only deliveries that ended at this time or later.")


class JobOptions(_Conditions):
    """The options of commands that create a job."""

    label: Label = None


class JobFilter(_Conditions):
    """Which deliveries; at least one condition."""

    ids: Annotated[list[Text] | None, Field(max_length=IDS_MAX, min_length=1)] = Field(
        default=None, description="Only these deliveries."
    )
    label: FilterLabels | None = Field(default=None, description="Each name=value, as in a list.")
    labels: Labels | None = Field(
        default=None, description="The same as an object; give one of the two."
    )

    @field_validator("labels")
    @classmethod
    def _one_form(cls, value: Labels | None, info: ValidationInfo) -> Labels | None:
        if value and info.data.get("label"):
            refuse([problem("labels", "conflicting", other="filter.label")])
        return value

    def query(self) -> DeliveriesQuery:
        """Return the conditions that a list of deliveries has as well."""
        names = HistoryFilter.model_fields
        values = {name: getattr(self, name) for name in names}
        return DeliveriesQuery.model_construct(**values, label=self.label or self.labels)


class NewJob(Request):
    """A job: which deliveries, how, and how fast."""

    kind: JobKind = Field(
        description="resend: one attempt each. replay: a new run of the whole retry schedule."
    )
    filter: JobFilter
    to: Text | None = Field(
        default=None,
        description="The id or the name of the endpoint that a replay sends the events to, even if it did not"
        " exist at the time; left out: each delivery goes to its own endpoint.",
    )
    rate_per_second: Rate = Field(
        default=RATE_DEFAULT, description="At most so many deliveries per second are started."
    )
    dry_run: bool = Field(default=False, description="Only count.")

    @field_validator("filter")
    @classmethod
    def _has_a_condition(cls, value: JobFilter) -> JobFilter:
        if not any(value.model_dump().values()):
            refuse([problem("filter", "empty_filter")])
        return value

    @field_validator("to")
    @classmethod
    def _only_replays(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("kind") == "resend":
            refuse([problem("to", "replay_only")])
        return value


class EndpointRecovery(Request):
    """The replay of what an endpoint did not get since a time."""

    since: Time = Field(description="Deliveries that failed or were cancelled since then.")
    rate_per_second: Rate = Field(
        default=RATE_DEFAULT, description="At most so many deliveries per second are started."
    )
    dry_run: bool = Field(default=False, description="Only count.")


class JobsQuery(PageQuery):
    """Which jobs."""

    tenant: Annotated[Text | None, Option(metavar="TENANT", help="Only jobs of this tenant.")] = (
        None
    )
    state: Annotated[
        JobState | None,
        Option(metavar="STATE", help="pending, running, paused, completed, cancelled or failed."),
    ] = None
    kind: Annotated[JobKind | None, Option(metavar="KIND", help="resend or replay.")] = None


@resource
class Job(Response):
    """A bulk resend or replay.

    `total_count` is null until the deliveries are counted. `waiting_count` is the number of deliveries that
    were started and have not ended.
    """

    id: JobId
    kind: JobKind
    state: JobState
    reason: str | None
    tenant: str | None
    filter: dict[str, Any]
    to: EndpointId | None
    rate_per_second: float
    requested_by: str
    created_at: TimeText
    updated_at: TimeText
    finished_at: TimeText | None
    total_count: int | None
    started_count: int
    waiting_count: int
    succeeded_count: int
    failed_count: int
    cancelled_count: int
    skipped: dict[str, int]


@resource
class JobCount(Response):
    """What a job would start (`count`), and leave out by reason (`skipped`).

    A count goes from the oldest delivery to the newest. If `is_complete` is false, the time of a request did not
    suffice: the count covers what was created before `counted_until`, and a job covers all of it.
    """

    count: int
    skipped: dict[str, int]
    is_complete: bool
    counted_until: TimeText | None


@resource
class JobPage(Response):
    """A page of jobs."""

    items: list[Job]
    next_cursor: str | None
