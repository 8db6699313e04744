"""The audit log as people read it; it is written in the transaction of what it tells of."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_PAGE = statement("audit_page")


class AuditRow(NamedTuple):
    """Who did what to which thing."""

    id: int
    at: datetime
    actor: str
    tenant: str
    action: str
    object: str
    detail: str
    """JSON text."""


async def page_of_audit(connection: "Reach", filters: Sequence[object]) -> list[AuditRow]:
    """Returns a page; `filters` in the order of the statement."""
    return [AuditRow(*row) for row in await connection.fetch(_PAGE, *filters)]
