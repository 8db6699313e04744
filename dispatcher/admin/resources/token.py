"""Tokens: who may use the API and the console."""

from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import AfterValidator, Field, ValidationInfo, WithJsonSchema

from dispatcher.admin.resources.base import PageQuery, Request, Response, resource
from dispatcher.admin.resources.fields import (
    NAME_CHARACTERS_MAX,
    RoleName,
    Tenant,
    Text,
    Time,
    TimeText,
    name_problems,
)
from dispatcher.admin.resources.presentation import Option, Reading
from dispatcher.admin.resources.validation import NOW, checked_by, refuse
from dispatcher.core.problems import Problem, problem

_LATEST: Final = datetime(9999, 12, 31, tzinfo=UTC)


def expiry_problems(expires_at: datetime, now: datetime) -> list[Problem]:
    """List the problems of the time at which a token expires."""
    if expires_at.tzinfo is None:
        return [problem("expires_at", "invalid_time")]
    if expires_at <= now:
        return [problem("expires_at", "time_not_in_future")]
    if expires_at >= _LATEST:  # the driver writes the last instant of all as infinity
        return [problem("expires_at", "time_too_late")]
    return []


def _in_the_future(expires_at: datetime, info: ValidationInfo) -> datetime:
    if info.context is not None:
        refuse(expiry_problems(expires_at, info.context[NOW]))
    return expires_at


class NewToken(Request):
    """A new token."""

    name: Annotated[
        str,
        checked_by(name_problems),
        WithJsonSchema({"type": "string", "minLength": 1, "maxLength": NAME_CHARACTERS_MAX}),
        Option(metavar="NAME", help="The user or program that uses it; unique in its tenant."),
    ] = Field(examples=["erp-team"])
    role: Annotated[
        RoleName,
        Option(
            metavar="ROLE",
            help="viewer: read. operator: also publish, test, resend, cancel, pause. admin: everything.",
        ),
    ]
    tenant: Annotated[
        Tenant | None,
        Option(metavar="TENANT", help="The tenant that it can access. Default: all tenants."),
    ] = Field(default=None, description="Left out: your own, or all of them where you have none.")
    endpoint_id: Annotated[
        Text | None,
        Option(
            name="endpoint",
            metavar="NAME|ID",
            help="Only fetch and settle the deliveries of this endpoint, with the role operator.",
            reads=Reading.ENDPOINT,
        ),
    ] = Field(
        default=None,
        description="Limits the token to `GET` and `POST /endpoints/{id}/poll` of this endpoint; the role is operator.",
    )
    expires_at: Annotated[
        Annotated[Time, AfterValidator(_in_the_future)] | None,
        Option(
            name="expires",
            metavar="TIME|none",
            help="RFC 3339, or a time from now: 12h, 90d; none: never. Default: 90d.",
            reads=Reading.FUTURE,
        ),
    ] = None


class TokensQuery(PageQuery):
    """Which tokens."""

    tenant: Annotated[Text | None, Option(metavar="TENANT", help="Only tokens of this tenant.")] = (
        None
    )


@resource
class Token(Response):
    """A token, without its text, which is not stored."""

    id: str
    name: str
    prefix: str
    role: RoleName
    tenant: str | None
    endpoint_id: str | None
    created_at: TimeText
    created_by: str
    expires_at: TimeText | None
    last_used_at: TimeText | None
    revoked_at: TimeText | None


@resource
class CreatedToken(Token):
    """A token with its whole text, which no other response holds."""

    token: str


@resource
class TokenPage(Response):
    """A page of tokens."""

    items: list[Token]
    next_cursor: str | None
