"""Authenticates the people of the portal: opens a session with a portal link, and finds it at each request.

A portal session is apart from a console session: it has a cookie of its own, it is found by a statement that reads
portal sessions only, and pages outside `/portal` never read it. Invariants:

* A link opens one session. It is used up by a POST only, so that the preview of a chat program does not use it up.
* Tenant, role and appearance are those of the link's row at each request: a revoked link ends its session at once.
* Unknown codes are counted by address. 256 random bits cannot be guessed; the limit keeps guesses from costing
  Postgres a statement each.

While Postgres is unavailable no portal session can be found, and pages get StoreUnavailableError.
"""

from typing import Final, NamedTuple

import structlog

from dispatcher.admin.auth import (
    TEXT_CHARACTERS_MAX,
    WRONG_BURST,
    WRONG_PER_SECOND,
    Auth,
    Grant,
    csrf_token_of,
)
from dispatcher.admin.operations.access import SESSION_IDLE_SECONDS_MAX
from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.operations.portal_links import CODE_CHARACTERS_MAX
from dispatcher.admin.operations.tokens import digest_of
from dispatcher.admin.rate_limits import Buckets
from dispatcher.core.errors import TooManyError
from dispatcher.core.origins import allows
from dispatcher.core.problems import problem
from dispatcher.store.portal_links import PortalLinkRow, PortalLinks, take_portal_link

_log = structlog.get_logger("dispatcher.admin.portal")

SOURCE: Final = "portal"


class Portal(NamedTuple):
    """How a portal looks, and where it may be embedded."""

    link_id: str
    tenant: str
    name: str | None
    color: str | None
    language: str | None
    frame_ancestors: tuple[str, ...]


class PortalSession(NamedTuple):
    """The actor of a portal session, the CSRF token of its forms, and its portal."""

    actor: Actor
    csrf_token: str
    portal: Portal


class OpenedPortal(NamedTuple):
    """A new portal session: the value of its cookie, its lifetime and its portal."""

    cookie: str
    seconds_max: float
    portal: Portal


class FoundLink(NamedTuple):
    """A portal link as its page shows it."""

    portal: Portal
    state: str


class PortalAuth:
    """Authenticates portal links and sessions; one for a process, on the event loop."""

    def __init__(self, deployment: Deployment, auth: Auth) -> None:
        self._database = deployment.database
        self._allowed = deployment.settings.portal.frame_ancestors
        self._clock = deployment.clock
        self._auth = auth
        self._links = PortalLinks(deployment.database)
        self._wrong = Buckets(WRONG_PER_SECOND, WRONG_BURST, monotonic=deployment.clock.monotonic)

    async def find_link(self, code: str, address: str) -> FoundLink | None:
        """Return the link of a code in whatever state, without using it up; None if there is none.

        Raises:
            TooManyError: too many unknown links came from this address.
            StoreUnavailableError: the link cannot be looked up now.
        """
        wait = self._wrong.wait_seconds(address)
        if wait:
            raise TooManyError(problem("link", "too_many_wrong_portal_links"), wait)
        row = None
        if len(code) <= CODE_CHARACTERS_MAX:
            row = await self._links.find(digest_of(code))
        if row is None:
            self._wrong.take(address)
            _log.warning("portal_link.rejected", address=address)
            return None
        return FoundLink(self._portal(row), row.state(self._clock.now()))

    async def open(self, code: str, address: str) -> OpenedPortal | None:
        """Use a link up and open its session; None if it was used or revoked, or has expired.

        Raises:
            StoreUnavailableError: the link cannot be used now; it is not used up.
        """
        async with self._database.transaction() as connection:
            row = await take_portal_link(connection, digest_of(code))
            if row is None:
                return None
            grant = Grant(SOURCE, digest_of(code), _actor(row), float(row.session_seconds))
            opened = await self._auth.open(connection, grant, address)
        return OpenedPortal(opened.cookie, opened.seconds_max, self._portal(row))

    async def session(self, cookie: str) -> PortalSession | None:
        """Return the session of a cookie; None if it has ended or never existed.

        Raises:
            StoreUnavailableError: the session cannot be looked up now.
        """
        found = await self._find(cookie)
        if found is None:
            return None
        row, _ = found
        self._auth.session_used(digest_of(cookie))
        return PortalSession(_actor(row), csrf_token_of(cookie), self._portal(row))

    async def is_session_of(self, cookie: str, code: str) -> bool:
        """Return whether a living session was opened with this link."""
        found = await self._find(cookie)
        return found is not None and found[1] == digest_of(code)

    async def _find(self, cookie: str) -> tuple[PortalLinkRow, bytes] | None:
        if len(cookie) > TEXT_CHARACTERS_MAX:
            return None
        return await self._links.find_session(digest_of(cookie), SESSION_IDLE_SECONDS_MAX)

    def _portal(self, row: PortalLinkRow) -> Portal:
        origins = tuple(one for one in row.frame_ancestors if allows(self._allowed, one))
        return Portal(row.id, row.tenant, row.name, row.color, row.language, origins)


def _actor(row: PortalLinkRow) -> Actor:
    return Actor(name=f"portal:{row.id}", tenant=row.tenant, role=Role(row.role))
