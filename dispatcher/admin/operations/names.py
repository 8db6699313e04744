"""Names in place of ids: the object that a person named, or the similar names."""

from typing import Final

from dispatcher.admin.operations.context import Actor, Deployment, allowed_tenant
from dispatcher.core import ids
from dispatcher.core.errors import ConflictError, NotFoundError
from dispatcher.core.problems import problem
from dispatcher.core.similar import similar_words
from dispatcher.store.names import NamedKind, find_names

NAMES_MAX: Final = 1_000
"""Names that are compared with one that does not exist, and that completion reads."""
CANDIDATES_MAX: Final = 10
"""Objects of one name that an error lists."""
_PREFIXES: Final = {
    "endpoint": ids.ENDPOINT_PREFIX,
    "notification": ids.NOTIFICATION_PREFIX,
    "token": ids.TOKEN_PREFIX,
}


class Names:
    """The names of a deployment's objects."""

    def __init__(self, deployment: Deployment) -> None:
        self._database = deployment.database

    async def id_of(
        self, actor: Actor, kind: NamedKind, name_or_id: str, tenant: str | None = None
    ) -> str:
        """Return the id of the object that a person named, by its id or its name.

        `tenant` decides if several tenants have the name. A well-formed id is returned unchecked.

        Raises:
            NotFoundError: there is none of the name, or the tenant is not the actor's. ConflictError: several
            tenants have one of that name.
        """
        if ids.is_id(name_or_id, _PREFIXES[kind]):
            return name_or_id
        whose = allowed_tenant(actor, tenant)
        async with self._database.reading() as connection:
            found = await find_names(connection, kind, whose, name_or_id, CANDIDATES_MAX)
        if len(found) == 1 or any(one.id == name_or_id for one in found):
            return next((one.id for one in found if one.id == name_or_id), found[0].id)
        if found:
            candidates = ", ".join(f"{one.id} (tenant {one.tenant or 'all'})" for one in found)
            raise ConflictError(
                problem(kind, "ambiguous_name", value=name_or_id, candidates=candidates)
            )
        similar = similar_words(name_or_id, await self.list(actor, kind, tenant))
        if similar:
            names = " or ".join(similar)
            raise NotFoundError(
                problem(kind, "similar_name", kind=kind, value=name_or_id, similar=names)
            )
        raise NotFoundError(problem(kind, "name_not_found", kind=kind, value=name_or_id))

    async def list(self, actor: Actor, kind: NamedKind, tenant: str | None = None) -> list[str]:
        """Return the names of a tenant's objects, sorted, each once; at most `NAMES_MAX`.

        Raises:
            NotFoundError: the tenant is not the actor's.
        """
        whose = allowed_tenant(actor, tenant)
        async with self._database.reading() as connection:
            rows = await find_names(connection, kind, whose, None, NAMES_MAX)
        return list(dict.fromkeys(row.name for row in rows))
