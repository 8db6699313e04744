"""Console sessions, sign-in links, and the people of the OpenID provider.

Of a session's cookie, of a link's code and of a sign-in's state only the SHA-256 is stored. A link and a
state are used up by the statement that reads them, so that two requests with the same value cannot both
succeed, whichever replicas they reach.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from dispatcher.store.pool import Database
from dispatcher.store.statements import statement
from dispatcher.store.tokens import LivingToken

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_INSERT = statement("session_insert")
_FIND = statement("session_find")
_FORGET = statement("session_forget")
_END = statement("session_end")
_PAGE = statement("session_page")
_USED = statement("session_touch")
_SWEEP = statement("session_sweep")
_LINK_INSERT = statement("sign_in_link_insert")
_LINK_TAKE = statement("sign_in_link_take")
_LINK_SWEEP = statement("sign_in_link_sweep")
_PORTAL_LINK_SWEEP = statement("portal_link_sweep")
_STATE_TAKE = statement("sign_in_state_take")
_STATE_SWEEP = statement("sign_in_state_sweep")
_PERSON_SIGN_IN = statement("person_sign_in")
_PERSON_PAGE = statement("person_page")


class NewSession(NamedTuple):
    """A session to open; the fields are in the order of the statement."""

    digest: bytes
    id: str
    source: str
    authority: bytes
    rules: bytes | None
    actor: str
    label: str | None
    role: str
    tenant: str | None
    address: str


class LivingSession(NamedTuple):
    """A session that has not ended.

    `token` is None if the session's source is another one, or if its token is not in the table or has ended.
    """

    source: str
    authority: bytes
    rules: bytes | None
    actor: str
    label: str | None
    role: str
    tenant: str | None
    token: LivingToken | None


class SessionRow(NamedTuple):
    """A session as administrators see it."""

    id: str
    source: str
    actor: str
    label: str | None
    role: str
    tenant: str | None
    address: str
    created_at: datetime
    used_at: datetime
    ends_at: datetime


class LinkRow(NamedTuple):
    """The rights that a sign-in link grants."""

    created_by: str
    role: str
    tenant: str | None


class PersonRow(NamedTuple):
    """A person, as of the last sign-in."""

    id: str
    issuer: str
    subject: str
    name: str
    role: str
    tenant: str | None
    created_at: datetime
    signed_in_at: datetime


class Sessions:
    """Finds the session of a request, and records uses."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, digest: bytes, idle_seconds_max: float) -> LivingSession | None:
        """Return the session of a SHA-256 if it has not ended."""
        row = await self._database.fetch_row(_FIND, digest, idle_seconds_max)
        if row is None:
            return None
        token = None if row[7] is None else LivingToken(*row[7:12])
        return LivingSession(row[0], row[1], row[2], row[3], row[4], row[5], row[6], token)

    async def used(self, used: Mapping[bytes, datetime]) -> None:
        """Record when sessions were last used, to five minutes."""
        await self._database.execute(_USED, list(used), list(used.values()))

    async def sweep(self, idle_seconds_max: float, state_seconds_max: float) -> None:
        """Delete sessions, links and states that have ended."""
        await self._database.execute(_SWEEP, idle_seconds_max)
        await self._database.execute(_LINK_SWEEP)
        await self._database.execute(_PORTAL_LINK_SWEEP)
        await self._database.execute(_STATE_SWEEP, state_seconds_max)


async def open_session(
    connection: "Reach", new: NewSession, *, seconds_max: float, sessions_max: int
) -> None:
    """Open a session of at most `seconds_max`; an authority has at most `sessions_max`."""
    await connection.execute(_INSERT, *new, seconds_max, sessions_max)


async def forget_session(connection: "Reach", digest: bytes) -> None:
    """Delete the session of a cookie."""
    await connection.execute(_FORGET, digest)


async def end_session(
    connection: "Reach", session_id: str, tenant: str | None
) -> tuple[str, str | None] | None:
    """Delete a session; return its actor and its tenant, or None if there is none with that id."""
    row = await connection.fetchrow(_END, session_id, tenant)
    return None if row is None else (row["actor"], row["tenant"])


async def page_of_sessions(connection: "Reach", filters: Sequence[object]) -> list[SessionRow]:
    """Return a page of living sessions; `filters` in the order of the statement."""
    return [SessionRow(*row) for row in await connection.fetch(_PAGE, *filters)]


async def insert_link(
    connection: "Reach", digest: bytes, link: LinkRow, seconds_max: float
) -> datetime:
    """Create a sign-in link; return when it expires."""
    expires_at: datetime = await connection.fetchval(_LINK_INSERT, digest, *link, seconds_max)
    return expires_at


async def take_link(connection: "Reach", digest: bytes) -> LinkRow | None:
    """Use a sign-in link up; None if there is none, or if it has expired or was used."""
    row = await connection.fetchrow(_LINK_TAKE, digest)
    return None if row is None else LinkRow(*row)


async def take_state(connection: "Reach", digest: bytes) -> bool:
    """Record that a state was used; return whether it was the first time."""
    return await connection.fetchval(_STATE_TAKE, digest) is not None


async def sign_in_person(connection: "Reach", values: Sequence[object]) -> str:
    """Record a sign-in, from values in the order of the statement; return the person's id."""
    person_id: str = await connection.fetchval(_PERSON_SIGN_IN, *values)
    return person_id


async def page_of_people(connection: "Reach", filters: Sequence[object]) -> list[PersonRow]:
    """Return a page of people; `filters` in the order of the statement."""
    return [PersonRow(*row) for row in await connection.fetch(_PERSON_PAGE, *filters)]
