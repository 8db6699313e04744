"""Endpoints declared in a file: the effect of `endpoint apply` on each."""

from enum import StrEnum
from typing import TypedDict

from dispatcher.admin.resources.base import Response, resource
from dispatcher.admin.resources.fields import EndpointId


class EndpointAction(StrEnum):
    """The effect of a declaration on one endpoint."""

    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"
    DELETE = "delete"
    LEFT = "left"
    """It is not in the declaration, and stays."""


FieldChange = TypedDict("FieldChange", {"from": object, "to": object})
"""The value of a field before and after; secrets and header values are masked."""


@resource
class AppliedEndpoint(Response):
    """One endpoint of a declaration, and what became of it."""

    action: EndpointAction
    tenant: str
    name: str
    id: EndpointId | None
    changes: dict[str, FieldChange]


@resource
class AppliedDeclaration(Response):
    """The result of a declaration that was applied, or would be (`dry_run`)."""

    dry_run: bool
    items: list[AppliedEndpoint]
    warnings: list[str]
