"""The table `audit`: an entry is written in the transaction of the change that it records."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import orjson

from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_PAGE = statement("audit_page")
_NAMES = statement("audit_names")
_WRITE = statement("audit_write")


class AuditRow(NamedTuple):
    """Who did what to which object."""

    id: int
    at: datetime
    actor: str
    tenant: str
    action: str
    object: str
    detail: str
    """JSON text."""


async def page_of_audit(connection: "Reach", filters: Sequence[object]) -> list[AuditRow]:
    """Return a page; `filters` in the order of the statement."""
    return [AuditRow(*row) for row in await connection.fetch(_PAGE, *filters)]


async def names_of_objects(
    connection: "Reach", object_ids: Sequence[str], tenant: str | None
) -> dict[str, str]:
    """Return the names of endpoints, tokens, rules and people by their ids, as far as they exist."""
    rows = await connection.fetch(_NAMES, list(object_ids), tenant)
    return {row["id"]: row["name"] for row in rows}


async def write_audit(
    connection: "Reach",
    actor: str,
    tenant: str,
    action: str,
    subject: str,
    detail: Mapping[str, object],
) -> None:
    """Write an entry: who did what to which object."""
    text = orjson.dumps(dict(detail)).decode()
    await connection.execute(_WRITE, actor, tenant, action, subject, text)
