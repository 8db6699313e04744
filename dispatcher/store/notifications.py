"""Notification rules, the problems that they follow, and the messages that are not sent yet.

A turn is one transaction: it takes events out of the inbox, changes the problems and writes the
messages. A crash undoes all of it, so that no message is lost and none is repeated. Only the sending of
an e-mail is at least once.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import orjson

from dispatcher.core.errors import ConflictError
from dispatcher.core.notifying import Happening, Message, Problem, QueuedMail, Rule
from dispatcher.core.problems import problem
from dispatcher.store.pool import Database
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_INSERT = statement("notification_insert")
_PAGE = statement("notification_page")
_COUNT = statement("notification_count")
_LOCK = statement("notification_lock")
_UPDATE = statement("notification_update")
_DELETE = statement("notification_delete")
_EXISTS = statement("notification_exists")
_TURN = statement("notification_turn")
_RULES = statement("notification_rules")
_PROBLEMS = statement("notification_problems")
_OPEN = statement("notification_problem_list")
_TAKE = statement("notification_inbox_take")
_SAVE = statement("notification_problem_save")
_END = statement("notification_problem_delete")
_DIGESTED = statement("notification_digested")
_RAISE = statement("notification_raise")
_MAIL = statement("notification_mail_insert")
_MAIL_CLAIM = statement("notification_mail_claim")
_MAIL_POSTPONE = statement("notification_mail_postpone")
_MAIL_DELETE = statement("notification_mail_delete")

INBOX_EVENTS_MAX = 1_000
"""Events that one turn reads."""


class NotificationDetail(NamedTuple):
    """A rule as people see it."""

    id: str
    name: str
    tenant: str | None
    event_types: list[str]
    endpoint_ids: list[str]
    to_endpoint_id: str | None
    email: str | None
    recipient: str | None
    quiet_seconds: int
    digest_seconds: int | None
    created_at: datetime
    created_by: str
    updated_at: datetime
    open_count: int
    """Problems that it follows now."""


class OpenProblem(NamedTuple):
    """A problem that a rule follows now."""

    event_type: str
    endpoint_id: str
    endpoint_name: str
    tenant: str
    reason: str
    started_at: datetime
    announced_at: datetime | None
    """None: no message about it is sent yet, because the quiet time of the last one goes on."""
    events_count: int


async def insert_notification(connection: "Reach", values: Sequence[object], name: str) -> datetime:
    """Insert a rule; the values are in the order of the statement.

    Raises:
        ConflictError: its tenant has one of that name.
    """
    created_at: datetime | None = await connection.fetchval(_INSERT, *values)
    if created_at is None:
        raise ConflictError(problem("name", "notification_name_in_use", value=name))
    return created_at


async def page_of_notifications(
    connection: "Reach", filters: Sequence[object]
) -> list[NotificationDetail]:
    """Return a page; `filters` in the order of the statement."""
    return [NotificationDetail(*row) for row in await connection.fetch(_PAGE, *filters)]


async def load_notification(
    connection: "Reach", notification_id: str, tenant: str | None, *, lock: bool = False
) -> NotificationDetail | None:
    """Return a rule, on request locked for a change; None: there is none."""
    if lock and await connection.fetchval(_LOCK, notification_id, tenant) is None:
        return None
    rows = await page_of_notifications(connection, [tenant, None, None, 1, notification_id])
    return rows[0] if rows else None


async def open_problems(
    connection: "Reach", notification_id: str, rows_max: int
) -> list[OpenProblem]:
    """Return the problems that a rule follows now, the newest first."""
    rows = await connection.fetch(_OPEN, notification_id, rows_max)
    return [OpenProblem(*row) for row in rows]


async def count_notifications(connection: "Reach", count_max: int) -> int:
    """Count the rules, up to `count_max`."""
    return int(await connection.fetchval(_COUNT, count_max))


async def update_notification(connection: "Reach", values: Sequence[object], name: str) -> None:
    """Update a rule; the values are in the order of the statement.

    Raises:
        ConflictError: its tenant has another one of that name.
    """
    try:
        await connection.execute(_UPDATE, *values)
    except asyncpg.UniqueViolationError as error:
        raise ConflictError(problem("name", "notification_name_in_use", value=name)) from error


async def delete_notification(connection: "Reach", notification_id: str) -> None:
    """Delete a rule with what it follows and what it has not sent."""
    await connection.execute(_DELETE, notification_id)


async def send_message(connection: "Reach", message: Message) -> None:
    """Write a message: an event for the target endpoint, or an e-mail into the queue."""
    rule = message.rule
    if rule.to_endpoint_id is not None:
        await connection.execute(_RAISE, rule.to_endpoint_id, orjson.dumps(message.data()).decode())
    elif rule.email is not None:
        await connection.execute(_MAIL, rule.id, rule.email, message.summary, message.text())


class Turn:
    """One turn's view of rules, problems and events; changes are part of its transaction."""

    def __init__(self, connection: "Reach") -> None:
        self._connection = connection

    async def rules(self) -> list[Rule]:
        """Return all rules."""
        return [Rule(*row) for row in await self._connection.fetch(_RULES)]

    async def problems(self) -> list[Problem]:
        """Return all problems that rules follow."""
        return [Problem(*row) for row in await self._connection.fetch(_PROBLEMS)]

    async def happenings(self) -> list[Happening]:
        """Take the next events out of the inbox."""
        rows = await self._connection.fetch(_TAKE, INBOX_EVENTS_MAX)
        return [Happening(row[0], row[1], orjson.loads(row[2])) for row in rows]

    async def save(self, one: Problem) -> None:
        """Save a problem."""
        await self._connection.execute(_SAVE, *one.values())

    async def forget(self, one: Problem) -> None:
        """Delete a problem that is over."""
        await self._connection.execute(_END, *one.key)

    async def digested(self, rule: Rule, at: datetime) -> None:
        """Record a digest."""
        await self._connection.execute(_DIGESTED, rule.id, at)

    async def send(self, message: Message) -> None:
        """Write a message."""
        await send_message(self._connection, message)


class Notifications:
    """The tables of notifications, for the daemon."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn | None]:
        """Yield the turn, None if another replica has it or there are no rules; commit after the block."""
        if not await self._database.fetch_value(_EXISTS):
            yield None
            return
        async with self._database.transaction() as connection:
            taken = await connection.fetchval(_TURN)
            yield Turn(connection) if taken else None

    async def claim_mail(self, postponed_seconds: float) -> QueuedMail | None:
        """Claim the next e-mail that is due; it is due again after that time unless it is deleted."""
        row = await self._database.fetch_row(_MAIL_CLAIM, postponed_seconds)
        return None if row is None else QueuedMail(*row)

    async def postpone_mail(self, mail: QueuedMail, seconds: float) -> None:
        """Try an e-mail again later."""
        await self._database.execute(_MAIL_POSTPONE, mail.id, seconds)

    async def delete_mail(self, mail: QueuedMail) -> None:
        """Delete an e-mail that was sent or given up."""
        await self._database.execute(_MAIL_DELETE, mail.id)
