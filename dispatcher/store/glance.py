"""What lists show beside their rows, one question for a whole page: names, and last attempts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from dispatcher.core import ids
from dispatcher.store.columns import (
    AttemptDetail,
    attempt_detail,
    delivery_ids_of,
    uuids_of,
)
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_ENDPOINT_NAMES = statement("endpoint_names")
_ATTEMPTS_LAST = statement("attempt_last")


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
    connection: "Reach", deliveries: Sequence[tuple[str, str, str]]
) -> dict[str, AttemptDetail]:
    """Returns the last attempt of each delivery (id, event's id, endpoint's id) that has one."""
    rows = await connection.fetch(
        _ATTEMPTS_LAST,
        uuids_of([delivery[0] for delivery in deliveries]),
        [ids.day_of(delivery[0]) for delivery in deliveries],
        [delivery[1] for delivery in deliveries],
        [delivery[2] for delivery in deliveries],
    )
    found = delivery_ids_of([row[0] for row in rows])
    return {
        delivery_id: attempt_detail(tuple(row)[1:])
        for delivery_id, row in zip(found, rows, strict=True)
    }
