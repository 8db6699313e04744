"""Names of endpoints, notification rules and tokens, which people type in place of ids."""

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

NamedKind = Literal["endpoint", "notification", "token"]
_FIND: Final = {
    "endpoint": statement("endpoint_find_names"),
    "notification": statement("notification_find_names"),
    "token": statement("token_find_names"),
}


class NamedRow(NamedTuple):
    """An object that has a name."""

    id: str
    name: str
    tenant: str | None
    """None: it is for all tenants."""


async def find_names(
    connection: "Reach", kind: NamedKind, tenant: str | None, name_or_id: str | None, rows_max: int
) -> list[NamedRow]:
    """Return the objects of a tenant that have a name or an id, or all of them, sorted by name."""
    rows = await connection.fetch(_FIND[kind], tenant, name_or_id, rows_max)
    return [NamedRow(*row) for row in rows]
