"""What lists show beside their rows: the names of endpoints, and each delivery's last attempt.

One question for a whole page, so that a list costs the same however long it is.
"""

from collections.abc import Sequence

from dispatcher.admin.operations.deployment import Actor, Deployment, Role
from dispatcher.admin.operations.objects import attempt_of
from dispatcher.admin.resources.delivery import Attempt, Delivery
from dispatcher.store import admin as store
from dispatcher.store.glance import EndpointName, read_last_attempts, read_names


class Glance:
    """A second look at a page that was read already."""

    def __init__(self, deployment: Deployment) -> None:
        self._database = deployment.database

    async def names(self, actor: Actor, endpoint_ids: Sequence[str]) -> dict[str, EndpointName]:
        """Returns the endpoints' names, deleted ones included; those of other tenants are left out."""
        wanted = sorted(set(endpoint_ids))
        if not wanted:
            return {}
        async with store.reading(self._database) as connection:
            found = await read_names(connection, wanted, actor.tenant)
        return {one.id: one for one in found}

    async def last_attempts(
        self, actor: Actor, deliveries: Sequence[Delivery]
    ) -> dict[str, Attempt]:
        """Returns the last attempt of each of a page's deliveries, by the delivery's id.

        The deliveries are those that the actor was shown. A viewer sees no answers of receivers.
        """
        found = [(one.id, one.event_id, one.endpoint_id) for one in deliveries if one.attempt_count]
        if not found:
            return {}
        async with store.reading(self._database) as connection:
            rows = await read_last_attempts(connection, found)
        bodies = actor.may(Role.OPERATOR)
        return {name: attempt_of(row, bodies=bodies) for name, row in rows.items()}
