"""The audit log: who did what to which resource."""

from typing import Annotated, Any

from dispatcher.admin.resources.base import PageQuery, Response, Since, Until, resource
from dispatcher.admin.resources.fields import Text, TimeText
from dispatcher.admin.resources.presentation import Option


class AuditQuery(PageQuery):
    """Which entries; `since` <= at < `until`."""

    tenant: Annotated[
        Text | None, Option(metavar="TENANT", help="Only entries of this tenant.")
    ] = None
    actor: Annotated[
        Text | None, Option(metavar="ACTOR", help="Only entries of this actor, such as cli:root.")
    ] = None
    action: Annotated[
        Text | None,
        Option(metavar="ACTION", help="Only entries of this action, such as endpoint.create."),
    ] = None
    object: Annotated[Text | None, Option(metavar="ID", help="Only entries about this object.")] = (
        None
    )
    since: Since = None
    until: Until = None


@resource
class AuditLine(Response):
    """Who did what to which thing; without a tenant it concerned all of them."""

    id: str
    at: TimeText
    actor: str
    tenant: str | None
    action: str
    object: str
    detail: dict[str, Any]


@resource
class AuditPage(Response):
    """A page of the audit log."""

    items: list[AuditLine]
    next_cursor: str | None
