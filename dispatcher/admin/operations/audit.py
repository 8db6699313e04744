"""The audit log: who changed, revealed, resent, or signed in."""

import re
from typing import Final

import orjson

from dispatcher.admin.operations.context import ALL_TENANTS, Actor, Deployment, Role, allowed_tenant
from dispatcher.admin.resources.audit import AuditLine, AuditPage, AuditQuery
from dispatcher.admin.resources.serialization import (
    Place,
    cursor_scope,
    page_of,
    read_cursor,
    time_text,
)
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.problems import problem
from dispatcher.store.audit import AuditRow, names_of_objects, page_of_audit

_NUMBER: Final = re.compile(r"[0-9]{1,18}")


class Audit:
    """The audit log of a deployment; reading it needs an admin."""

    def __init__(self, deployment: Deployment) -> None:
        self._database = deployment.database

    async def page(
        self,
        actor: Actor,
        query: AuditQuery = AuditQuery(),  # noqa: B008 -- frozen
    ) -> AuditPage:
        """Return a page of entries, newest first.

        Entries about all tenants are visible to actors for all tenants only.

        Raises:
            ForbiddenError: no admin. InvalidRequestError: the cursor is another filter's.
            NotFoundError: the tenant is not the actor's.
        """
        actor.require(Role.ADMIN)
        whose = allowed_tenant(actor, query.tenant)
        scope = cursor_scope("audit", whose, query.given())
        place = read_cursor(query.cursor, scope)
        if place is not None and _NUMBER.fullmatch(place.id) is None:
            raise InvalidRequestError([problem("cursor", "invalid_cursor")])
        filters = [
            whose,
            query.actor,
            query.action,
            query.object,
            query.since,
            query.until,
            *((None, None) if place is None else (place.at, int(place.id))),
            query.limit + 1,
        ]
        async with self._database.reading() as connection:
            rows = await page_of_audit(connection, filters)
        items, next_cursor = page_of(
            rows, query.limit, lambda row: Place(row.at, str(row.id)), _entry, scope=scope
        )
        return AuditPage(items=items, next_cursor=next_cursor)

    async def names(self, actor: Actor, page: AuditPage) -> dict[str, str]:
        """Return the names of the objects and the people of a page by their ids, as far as they exist.

        Raises:
            ForbiddenError: no admin.
        """
        actor.require(Role.ADMIN)
        wanted = {line.object for line in page.items}
        wanted |= {line.actor.rpartition(":")[2] for line in page.items}
        async with self._database.reading() as connection:
            return await names_of_objects(connection, sorted(wanted), actor.tenant)


def _entry(row: AuditRow) -> AuditLine:
    return AuditLine(
        id=str(row.id),
        at=time_text(row.at),
        actor=row.actor,
        tenant=None if row.tenant == ALL_TENANTS else row.tenant,
        action=row.action,
        object=row.object,
        detail=orjson.loads(row.detail),
    )
