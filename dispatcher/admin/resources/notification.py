"""Notifications: rules by which people get messages about problems of endpoints."""

import re
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, PlainValidator, WithJsonSchema

from dispatcher.admin.resources.base import PageQuery, Request, Response, resource
from dispatcher.admin.resources.fields import (
    NAME_CHARACTERS_MAX,
    Bounds,
    EndpointId,
    Tenant,
    Text,
    TimeText,
    name_problems,
    without_defaults,
)
from dispatcher.admin.resources.presentation import Option, Reading
from dispatcher.admin.resources.validation import checked_by, refuse
from dispatcher.core.notifying import PROBLEM_TYPES
from dispatcher.core.problems import Problem, problem

ENDPOINTS_MAX: Final = 100
EMAIL_CHARACTERS_MAX: Final = 254
RECIPIENT_CHARACTERS_MAX: Final = 256
QUIET_SECONDS_DEFAULT: Final = 900
QUIET_SECONDS_MAX: Final = 604_800
DIGEST_SECONDS_MIN: Final = 300

# One mailbox, without display name, comments, quotes or white space.
_EMAIL: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9][A-Za-z0-9.-]{0,252}")
_ENDPOINT_ID: Final = re.compile(r"ep_[0-9a-z]{26}")


def _email(value: object) -> object:
    if value is None:
        return value
    if not isinstance(value, str):
        refuse([problem("email", "not_a_string")])
        return value
    if len(value) > EMAIL_CHARACTERS_MAX or _EMAIL.fullmatch(value) is None:
        refuse([problem("email", "invalid_email", value=value)])
    return value


def _event_types(value: object) -> object:
    if not isinstance(value, list):
        refuse([problem("event_types", "not_a_list")])
        return value
    if not value:
        refuse([problem("event_types", "too_few_items", minimum=1)])
    allowed = ", ".join(PROBLEM_TYPES)
    refuse(
        [
            problem(f"event_types[{index}]", "invalid_problem_type", value=one, allowed=allowed)
            for index, one in enumerate(value[:ENDPOINTS_MAX])
            if one not in PROBLEM_TYPES
        ]
    )
    if len(value) > len(PROBLEM_TYPES):
        refuse([problem("event_types", "too_many_items", maximum=len(PROBLEM_TYPES))])
    return list(dict.fromkeys(value))


def _endpoint_ids(value: object) -> object:
    if not isinstance(value, list):
        refuse([problem("endpoint_ids", "not_a_list")])
        return value
    if len(value) > ENDPOINTS_MAX:
        refuse([problem("endpoint_ids", "too_many_items", maximum=ENDPOINTS_MAX)])
    refuse(
        [
            problem(f"endpoint_ids[{index}]", "endpoint_not_found", value=one)
            for index, one in enumerate(value)
            if not isinstance(one, str) or _ENDPOINT_ID.fullmatch(one) is None
        ]
    )
    return value


def _recipient_problems(value: str) -> list[Problem]:
    if len(value) > RECIPIENT_CHARACTERS_MAX:
        return [problem("recipient", "too_long", maximum=RECIPIENT_CHARACTERS_MAX)]
    if not value or not value.isprintable() or value != value.strip():
        return [problem("recipient", "unprintable")]
    return []


Name = Annotated[
    str,
    checked_by(name_problems),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": NAME_CHARACTERS_MAX}),
    Option(metavar="NAME", help="Its name, unique in its tenant."),
]


class NotificationSettings(Request):
    """What people choose for a notification rule and can change."""

    name: Name = ""
    event_types: Annotated[
        list[str],
        PlainValidator(_event_types),
        WithJsonSchema(
            {
                "type": "array",
                "items": {"type": "string", "enum": list(PROBLEM_TYPES)},
                "minItems": 1,
                "maxItems": len(PROBLEM_TYPES),
            }
        ),
        Option(
            help=f"A problem to report: {', '.join(PROBLEM_TYPES)}. May be repeated. Default: all.",
            reads=Reading.EVENT_TYPES,
        ),
    ] = Field(default=list(PROBLEM_TYPES), description="The problems that it reports.")
    endpoint_ids: Annotated[
        list[str],
        PlainValidator(_endpoint_ids),
        WithJsonSchema({"type": "array", "items": {"type": "string"}, "maxItems": ENDPOINTS_MAX}),
        Option(
            help="Only problems of this endpoint. May be repeated. Default: every endpoint.",
            reads=Reading.ENDPOINTS,
        ),
    ] = Field(default=[], description="The endpoints that it reports; [] means all.")
    to_endpoint_id: Annotated[
        Text | None,
        Option(
            help="Send messages to this endpoint, whose profile is slack, teams, discord, line or your own.",
            reads=Reading.ENDPOINT,
        ),
    ] = Field(default=None, description="The endpoint that gets the messages; or else `email`.")
    email: Annotated[
        str | None,
        PlainValidator(_email),
        WithJsonSchema(
            {"anyOf": [{"type": "string", "maxLength": EMAIL_CHARACTERS_MAX}, {"type": "null"}]}
        ),
        Option(metavar="ADDRESS", help="Send messages by e-mail to this address."),
    ] = Field(default=None, description="The address that gets the messages.")
    recipient: Annotated[
        Text | None,
        checked_by(_recipient_problems),
        Option(metavar="ID", help="The LINE user, group or room that gets the messages."),
    ] = Field(
        default=None,
        description="The member `recipient` of messages, which the profile line sends.",
    )
    quiet_seconds: Annotated[
        int,
        Bounds(0, QUIET_SECONDS_MAX, whole=True),
        Option(
            metavar="SECONDS",
            help="After a message about a problem, wait this long before the problem is reported again.",
            reads=Reading.NUMBER,
        ),
    ] = QUIET_SECONDS_DEFAULT
    digest_seconds: Annotated[
        Annotated[int, Bounds(DIGEST_SECONDS_MIN, QUIET_SECONDS_MAX, whole=True)] | None,
        Option(
            metavar="SECONDS",
            help="Send a digest of the problems that go on this often. Default: none.",
            reads=Reading.NUMBER,
        ),
    ] = Field(default=None, description="How often a digest is sent; null means never.")

    def given(self) -> dict[str, Any]:
        """Return the fields that were given; an omitted field is not the same as null."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class NewNotification(NotificationSettings):
    """A new notification rule."""

    name: Name = Field(examples=["on-call"])
    tenant: Annotated[
        Tenant | None,
        Option(
            metavar="TENANT", help="The tenant whose endpoints it reports. Default: all tenants."
        ),
    ] = Field(default=None, description="Left out: your own, or all of them where you have none.")


class NotificationChange(NotificationSettings):
    """A change of a notification rule: a field that is left out stays."""

    model_config = ConfigDict(json_schema_extra=without_defaults)


class NotificationsQuery(PageQuery):
    """Which notification rules."""

    tenant: Annotated[
        Text | None, Option(metavar="TENANT", help="Only notifications of this tenant.")
    ] = None


@resource
class Notification(Response):
    """A notification rule; `open_count` is the number of problems that it follows now."""

    id: str
    name: str
    tenant: str | None
    event_types: list[str]
    endpoint_ids: list[EndpointId]
    to_endpoint_id: str | None
    email: str | None
    recipient: str | None
    quiet_seconds: int
    digest_seconds: int | None
    open_count: int
    created_at: TimeText
    created_by: str
    updated_at: TimeText


@resource
class NotificationProblem(Response):
    """A problem that a notification rule follows now.

    `announced_at` is null if no message about it is sent yet, because the quiet time of the last one goes on.
    `events_count` is the number of its operational events.
    """

    event_type: str
    endpoint_id: EndpointId
    endpoint_name: str
    tenant: str
    reason: str
    started_at: TimeText
    announced_at: TimeText | None
    events_count: int


@resource
class NotificationWithProblems(Notification):
    """A notification rule with the problems that it follows now, the newest 100 first."""

    problems: list[NotificationProblem]


@resource
class NotificationPage(Response):
    """A page of notification rules."""

    items: list[Notification]
    next_cursor: str | None
