"""The audit log: who changed, revealed, resent, or signed in; written with what it tells of."""

import re
from typing import Final

import orjson

from dispatcher.admin.operations.deployment import ALL_TENANTS, Actor, Deployment, Role
from dispatcher.admin.operations.endpoints import allowed_tenant
from dispatcher.admin.resources.audit import AuditQuery
from dispatcher.admin.resources.serialization import (
    Object,
    Place,
    cursor_scope,
    limit_problems,
    page_object,
    read_cursor,
    time_text,
)
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.problems import problem
from dispatcher.store import admin as store
from dispatcher.store.audit import AuditLine, page_of_audit

_NUMBER: Final = re.compile(r"[0-9]{1,18}")


class Audit:
    """The audit log of a deployment; reading it needs an admin."""

    def __init__(self, deployment: Deployment) -> None:
        self._database = deployment.database

    async def page(
        self,
        actor: Actor,
        query: AuditQuery = AuditQuery(),  # noqa: B008 -- frozen
    ) -> Object:
        """Returns a page of lines, newest first; `since` <= at < `until`.

        What concerned all tenants is shown to actors for all tenants alone.

        Raises:
            ForbiddenError: no admin. InvalidRequestError: every fault of the filter.
            NotFoundError: the tenant is not the actor's.
        """
        actor.require(Role.ADMIN)
        problems = limit_problems(query.limit)
        problems += [
            problem(name, "invalid_time")
            for name, at in (("since", query.since), ("until", query.until))
            if at is not None and at.tzinfo is None
        ]
        whose = allowed_tenant(actor, query.tenant)
        wanted = {
            "actor": query.actor,
            "action": query.action,
            "object": query.object,
            "since": query.since,
            "until": query.until,
        }
        scope = cursor_scope("audit", whose, wanted)
        place = read_cursor(query.cursor, scope)
        if place is not None and _NUMBER.fullmatch(place.id) is None:
            problems.append(problem("cursor", "invalid_cursor"))
        if problems:
            raise InvalidRequestError(problems)
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
        async with store.reading(self._database) as connection:
            rows = await page_of_audit(connection, filters)
        return page_object(
            rows, query.limit, lambda row: Place(row.at, str(row.id)), audit_object, scope=scope
        )


def audit_object(line: AuditLine) -> Object:
    """Returns a line of the audit log."""
    return {
        "id": str(line.id),
        "at": time_text(line.at),
        "actor": line.actor,
        "tenant": None if line.tenant == ALL_TENANTS else line.tenant,
        "action": line.action,
        "object": line.object,
        "detail": orjson.loads(line.detail),
    }
