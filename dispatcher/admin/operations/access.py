"""Sign-in links, console sessions, and the people of the OpenID provider.

A link's code is 256 random bits, of which only the SHA-256 is stored. Invariants: a link never grants more
than its creator has (an admin of one tenant creates links for that tenant only); a link is used once and
within `LINK_SECONDS`; an administrator of one tenant sees and ends the sessions of that tenant only; ending
a session takes effect at its next request, on every replica.
"""

import base64
import secrets
from typing import Final

from dispatcher.admin.operations.context import ALL_TENANTS, Actor, Deployment, Role, allowed_tenant
from dispatcher.admin.operations.tokens import digest_of
from dispatcher.admin.resources.access import (
    AccessQuery,
    NewSignInLink,
    PeoplePage,
    Person,
    Session,
    SessionPage,
    SignInLink,
)
from dispatcher.admin.resources.serialization import (
    Place,
    cursor_scope,
    page_of,
    read_cursor,
    time_text,
)
from dispatcher.core.errors import NotFoundError
from dispatcher.core.problems import problem
from dispatcher.store import sessions
from dispatcher.store.audit import write_audit
from dispatcher.store.sessions import LinkRow, PersonRow, SessionRow

LINK_BYTES: Final = 32
LINK_CODE_CHARACTERS_MAX: Final = 64
LINK_SECONDS: Final = 300.0
SESSION_IDLE_SECONDS_MAX: Final = 12 * 3_600.0


class Access:
    """Who can use the console of a deployment; all of it needs an admin."""

    def __init__(self, deployment: Deployment) -> None:
        self._database = deployment.database

    async def create_link(
        self,
        actor: Actor,
        new: NewSignInLink = NewSignInLink(),  # noqa: B008 -- frozen
    ) -> SignInLink:
        """Create a sign-in link and return its path, which is not stored.

        Raises:
            ForbiddenError: no admin. NotFoundError: the tenant is not the actor's.
        """
        actor.require(Role.ADMIN)
        tenant = allowed_tenant(actor, new.tenant)
        code = base64.urlsafe_b64encode(secrets.token_bytes(LINK_BYTES)).decode().rstrip("=")
        async with self._database.transaction() as connection:
            expires_at = await sessions.insert_link(
                connection, digest_of(code), LinkRow(actor.name, new.role, tenant), LINK_SECONDS
            )
            await write_audit(
                connection,
                actor.name,
                tenant or ALL_TENANTS,
                "link.create",
                actor.name,
                {"role": new.role, "expires_at": time_text(expires_at)},
            )
        return SignInLink(
            path=f"sign-in/{code}", role=new.role, tenant=tenant, expires_at=time_text(expires_at)
        )

    async def sessions(
        self,
        actor: Actor,
        query: AccessQuery = AccessQuery(),  # noqa: B008 -- frozen
    ) -> SessionPage:
        """Return a page of sessions that have not ended, newest first.

        Raises:
            ForbiddenError: no admin. InvalidRequestError: the cursor is another list's.
            NotFoundError: the tenant is not the actor's.
        """
        actor.require(Role.ADMIN)
        whose = allowed_tenant(actor, query.tenant)
        scope = cursor_scope("sessions", whose, {})
        place = read_cursor(query.cursor, scope) or (None, None)
        filters = [whose, SESSION_IDLE_SECONDS_MAX, *place, query.limit + 1]
        async with self._database.reading() as connection:
            rows = await sessions.page_of_sessions(connection, filters)
        items, next_cursor = page_of(
            rows, query.limit, lambda row: Place(row.created_at, row.id), _session, scope=scope
        )
        return SessionPage(items=items, next_cursor=next_cursor)

    async def end_session(self, actor: Actor, session_id: str) -> None:
        """End a session.

        Raises:
            ForbiddenError: no admin. NotFoundError: there is none of that id in the actor's sight.
        """
        actor.require(Role.ADMIN)
        async with self._database.transaction() as connection:
            ended = await sessions.end_session(connection, session_id, actor.tenant)
            if ended is None:
                raise NotFoundError(problem("id", "session_not_found", value=session_id))
            name, tenant = ended
            await write_audit(
                connection,
                actor.name,
                tenant or ALL_TENANTS,
                "session.end",
                session_id,
                {"actor": name},
            )

    async def people(
        self,
        actor: Actor,
        query: AccessQuery = AccessQuery(),  # noqa: B008 -- frozen
    ) -> PeoplePage:
        """Return a page of the people who signed in through the OpenID provider, latest sign-in first.

        Raises:
            ForbiddenError: no admin. InvalidRequestError: the cursor is another list's.
            NotFoundError: the tenant is not the actor's.
        """
        actor.require(Role.ADMIN)
        whose = allowed_tenant(actor, query.tenant)
        scope = cursor_scope("people", whose, {})
        place = read_cursor(query.cursor, scope) or (None, None)
        async with self._database.reading() as connection:
            rows = await sessions.page_of_people(connection, [whose, *place, query.limit + 1])
        items, next_cursor = page_of(
            rows, query.limit, lambda row: Place(row.signed_in_at, row.id), _person, scope=scope
        )
        return PeoplePage(items=items, next_cursor=next_cursor)


def _session(row: SessionRow) -> Session:
    values = row._asdict()
    for name in ("created_at", "used_at", "ends_at"):
        values[name] = time_text(values[name])
    return Session(**values)


def _person(row: PersonRow) -> Person:
    values = row._asdict()
    for name in ("created_at", "signed_in_at"):
        values[name] = time_text(values[name])
    return Person(**values)
