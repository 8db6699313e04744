"""Links to the portal of one tenant: created, listed, revoked.

A link's code is 256 random bits, of which only the SHA-256 is stored. Invariants: a link never grants more than its
creator has, in role and tenant; an operator cannot create a manager's link; a page may embed the portal only if the
setting `portal.frame_ancestors` allows its origin when the link is created and when the portal is shown; a link is
used once; revoking it ends its session at the next request, on every replica.
"""

import base64
import secrets
from datetime import datetime
from typing import Any, Final

from dispatcher.admin.operations.context import Actor, Deployment, Role, allowed_tenant
from dispatcher.admin.operations.tokens import digest_of
from dispatcher.admin.resources.portal_link import (
    CreatedPortalLink,
    NewPortalLink,
    PortalLink,
    PortalLinkPage,
    PortalLinksQuery,
)
from dispatcher.admin.resources.serialization import (
    Place,
    cursor_scope,
    page_of,
    read_cursor,
    time_text,
)
from dispatcher.core import ids
from dispatcher.core.errors import InvalidRequestError, NotFoundError
from dispatcher.core.origins import allows
from dispatcher.core.problems import problem
from dispatcher.store import portal_links as store
from dispatcher.store.audit import write_audit
from dispatcher.store.portal_links import PortalLinkRow

CODE_BYTES: Final = 32
CODE_CHARACTERS_MAX: Final = 64
PATH: Final = "portal/link/"


class PortalLinkOperations:
    """The portal links of a deployment; all of it needs an operator."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._database = deployment.database

    async def create(self, actor: Actor, new: NewPortalLink) -> CreatedPortalLink:
        """Create a portal link and return it with its URL, which is not stored.

        Raises:
            ForbiddenError: no operator, or no admin for a manager's link. NotFoundError: the tenant is not the actor's.
            InvalidRequestError: no tenant, or an origin that the settings do not allow.
        """
        actor.require(Role.ADMIN if Role(new.role) is Role.MANAGER else Role.OPERATOR)
        tenant = allowed_tenant(actor, new.tenant)
        allowed = self._deployment.settings.portal.frame_ancestors
        problems = [
            problem(f"frame_ancestors[{index}]", "origin_not_allowed", value=origin)
            for index, origin in enumerate(new.frame_ancestors)
            if not allows(allowed, origin)
        ]
        if tenant is None:
            problems.insert(0, problem("tenant", "required"))
        if tenant is None or problems:
            raise InvalidRequestError(problems)
        code = base64.urlsafe_b64encode(secrets.token_bytes(CODE_BYTES)).decode().rstrip("=")
        now = self._deployment.clock.now()
        link_id = ids.new_id(
            ids.PORTAL_LINK_PREFIX,
            int(now.timestamp() * 1000),
            secrets.token_bytes(ids.RANDOMNESS_BYTES),
        )
        async with self._database.transaction() as connection:
            row = await store.insert_portal_link(
                connection,
                [
                    link_id, digest_of(code), tenant, new.role, new.name, new.color, new.language,
                    new.frame_ancestors, new.session_seconds, actor.name, float(new.expires_in_seconds),
                ],
            )  # fmt: skip
            await write_audit(
                connection, actor.name, tenant, "portal_link.create", link_id,
                {
                    "role": new.role, "expires_at": time_text(row.expires_at),
                    **({} if new.name is None else {"name": new.name}),
                    **({"frame_ancestors": new.frame_ancestors} if new.frame_ancestors else {}),
                },
            )  # fmt: skip
        url = f"{self._deployment.settings.console_url()}{PATH}{code}"
        return CreatedPortalLink(**_values(row, now), url=url)

    async def page(
        self,
        actor: Actor,
        query: PortalLinksQuery = PortalLinksQuery(),  # noqa: B008 -- frozen
    ) -> PortalLinkPage:
        """Return a page of portal links, newest first; they are deleted two days after their expiry.

        Raises:
            ForbiddenError: no operator. InvalidRequestError: the cursor is another list's.
            NotFoundError: the tenant is not the actor's.
        """
        actor.require(Role.OPERATOR)
        whose = allowed_tenant(actor, query.tenant)
        scope = cursor_scope("portal_links", whose, {})
        place = read_cursor(query.cursor, scope) or (None, None)
        async with self._database.reading() as connection:
            rows = await store.page_of_portal_links(connection, [whose, *place, query.limit + 1])
        now = self._deployment.clock.now()
        items, next_cursor = page_of(
            rows,
            query.limit,
            lambda row: Place(row.created_at, row.id),
            lambda row: PortalLink(**_values(row, now)),
            scope=scope,
        )
        return PortalLinkPage(items=items, next_cursor=next_cursor)

    async def revoke(self, actor: Actor, link_id: str) -> None:
        """Revoke a link permanently, used or not, and end its session.

        Raises:
            ForbiddenError: no operator. NotFoundError: there is none of that id in the actor's sight.
        """
        actor.require(Role.OPERATOR)
        async with self._database.transaction() as connection:
            revoked = await store.revoke_portal_link(connection, link_id, actor.tenant)
            if revoked is None:
                raise NotFoundError(problem("id", "portal_link_not_found", value=link_id))
            if revoked.is_new:
                await write_audit(
                    connection, actor.name, revoked.tenant, "portal_link.revoke", link_id,
                    {"role": revoked.role},
                )  # fmt: skip


def _values(row: PortalLinkRow, now: datetime) -> dict[str, Any]:
    values = row._asdict()
    values["state"] = row.state(now)
    values["frame_ancestors"] = list(row.frame_ancestors)
    for name in ("created_at", "expires_at", "used_at", "revoked_at"):
        values[name] = time_text(values[name])
    return values
