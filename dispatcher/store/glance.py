"""What lists show beside their rows, one question for a whole page: names, and last attempts."""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from dispatcher.store.history import AttemptDetail
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_ENDPOINT_NAMES = statement("endpoint_names")
_ATTEMPTS_LAST = statement("attempts_last")


class EndpointName(NamedTuple):
    """How people call an endpoint."""

    id: str
    name: str
    is_deleted: bool


async def read_names(
    connection: "Reach", endpoint_ids: Sequence[str], tenant: str | None
) -> list[EndpointName]:
    """Returns the names of those endpoints that the tenant has."""
    rows = await connection.fetch(_ENDPOINT_NAMES, list(endpoint_ids), tenant)
    return [EndpointName(*row) for row in rows]


async def read_last_attempts(
    connection: "Reach", delivery_ids: Sequence[str], days: Sequence[date]
) -> dict[str, AttemptDetail]:
    """Returns the last attempt of each delivery that has one; `days` are those of their partitions."""
    rows = await connection.fetch(_ATTEMPTS_LAST, list(delivery_ids), list(days))
    return {row[0]: AttemptDetail(*row[1:]) for row in rows}
