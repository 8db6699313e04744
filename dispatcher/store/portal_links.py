"""Links to the portal of one tenant, and the portal sessions that they open.

Of a link's code only the SHA-256 is stored. A link is used up by the statement that reads it, so that two
requests with the same code cannot both open a session, whichever replicas they reach. A session takes its
rights from its link at each request: a revoked link ends it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from dispatcher.store.pool import Database
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_INSERT = statement("portal_link_insert")
_FIND = statement("portal_link_find")
_TAKE = statement("portal_link_take")
_PAGE = statement("portal_link_page")
_REVOKE = statement("portal_link_revoke")
_SESSION_FIND = statement("session_find_portal")


class PortalLinkRow(NamedTuple):
    """A portal link: what it grants, how its portal looks, and what has happened to it."""

    id: str
    tenant: str
    role: str
    name: str | None
    color: str | None
    language: str | None
    frame_ancestors: Sequence[str]
    session_seconds: int
    created_by: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    revoked_at: datetime | None

    def state(self, now: datetime) -> str:
        """Return `unused`, `used`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        if self.used_at is not None:
            return "used"
        return "expired" if self.expires_at <= now else "unused"


class RevokedLink(NamedTuple):
    """A revoked link; `is_new`: it was not revoked before."""

    tenant: str
    role: str
    is_new: bool


async def insert_portal_link(connection: "Reach", values: Sequence[object]) -> PortalLinkRow:
    """Create a link, from values in the order of the statement, and return it."""
    row = await connection.fetchrow(_INSERT, *values)
    assert row is not None  # noqa: S101 -- an INSERT returns its row
    return PortalLinkRow(*row)


async def take_portal_link(connection: "Reach", digest: bytes) -> PortalLinkRow | None:
    """Use a link up; None if there is none, or if it was used or revoked, or has expired."""
    row = await connection.fetchrow(_TAKE, digest)
    return None if row is None else PortalLinkRow(*row)


async def page_of_portal_links(
    connection: "Reach", filters: Sequence[object]
) -> list[PortalLinkRow]:
    """Return a page of links; `filters` in the order of the statement."""
    return [PortalLinkRow(*row) for row in await connection.fetch(_PAGE, *filters)]


async def revoke_portal_link(
    connection: "Reach", link_id: str, tenant: str | None
) -> RevokedLink | None:
    """Revoke a link and end its session; None if there is none with that id."""
    row = await connection.fetchrow(_REVOKE, link_id, tenant)
    return None if row is None else RevokedLink(*row)


class PortalLinks:
    """Finds links and sessions by the SHA-256 of their code or cookie."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, digest: bytes) -> PortalLinkRow | None:
        """Return the link of a code, in whatever state; None if there is none."""
        row = await self._database.fetch_row(_FIND, digest)
        return None if row is None else PortalLinkRow(*row)

    async def find_session(
        self, digest: bytes, idle_seconds_max: float
    ) -> tuple[PortalLinkRow, bytes] | None:
        """Return the link of a session that has not ended, and the SHA-256 of the link's code."""
        row = await self._database.fetch_row(_SESSION_FIND, digest, idle_seconds_max)
        return None if row is None else (PortalLinkRow(*row[:-1]), row["hash"])
