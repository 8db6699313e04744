"""Access to the console: sign-in links, sessions, and the people of the OpenID provider."""

from typing import Annotated, Literal

from pydantic import Field

from dispatcher.admin.resources.base import PageQuery, Request, Response, resource
from dispatcher.admin.resources.fields import RoleName, Tenant, Text, TimeText
from dispatcher.admin.resources.presentation import Option

SessionRoleName = Literal["viewer", "operator", "manager", "admin"]


class NewSignInLink(Request):
    """A new sign-in link."""

    role: Annotated[
        RoleName,
        Option(metavar="ROLE", help="viewer, operator or admin."),
    ] = "admin"
    tenant: Annotated[
        Tenant | None,
        Option(
            metavar="TENANT", help="The tenant that the session can access. Default: all tenants."
        ),
    ] = Field(default=None, description="Left out: your own, or all of them where you have none.")


@resource
class SignInLink(Response):
    """A sign-in link; only this response contains its path."""

    path: str
    role: RoleName
    tenant: str | None
    expires_at: TimeText


class AccessQuery(PageQuery):
    """Which sessions or people."""

    tenant: Annotated[
        Text | None, Option(metavar="TENANT", help="Only sessions of this tenant.")
    ] = None


@resource
class Session(Response):
    """A console session that has not ended."""

    id: str
    source: str
    actor: str
    label: str | None
    role: SessionRoleName
    tenant: str | None
    address: str
    created_at: TimeText
    used_at: TimeText
    ends_at: TimeText


@resource
class SessionPage(Response):
    """A page of sessions."""

    items: list[Session]
    next_cursor: str | None


@resource
class Person(Response):
    """A person who signed in through the OpenID provider, with the rights of the last sign-in."""

    id: str
    issuer: str
    subject: str
    name: str
    role: RoleName
    tenant: str | None
    created_at: TimeText
    signed_in_at: TimeText


@resource
class PeoplePage(Response):
    """A page of people."""

    items: list[Person]
    next_cursor: str | None
