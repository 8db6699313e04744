"""Erase events: their contents are blanked, their rows are kept.

For requests to delete personal data. Blanked are an event's data, labels and ordering key, the
bodies that were sent and the stored responses; ids, types, times, states and attempts stay, so that counts
and the audit log still add up. Deliveries that wait are cancelled (`event_erased`); none is ever sent again,
for nothing is left to send. One in flight ends as it does, and what is answered to it is not kept.

What is always true: an event and its line in the audit log are committed together, one
transaction an event; cut off, it is run again. Erased twice is erased once.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Final

from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.resources.event import ErasedEvents
from dispatcher.core.errors import InvalidRequestError, NotFoundError
from dispatcher.core.matching import labels_problems
from dispatcher.core.problems import problem
from dispatcher.store.audit import write_audit
from dispatcher.store.events import (
    Erased,
    count_erasable,
    days_of_event,
    erase_event,
    labelled_event_ids,
)
from dispatcher.store.outbox import erase_waiting_event

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

SHOWN_MAX: Final = 1_000
"""Ids in the result; all are erased, and all are counted."""


class Erasure:
    """Erases the contents of events."""

    def __init__(self, deployment: Deployment) -> None:
        self._database = deployment.database

    async def erase(
        self,
        actor: Actor,
        *,
        event_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        dry_run: bool = False,
        progress: Callable[[int], None] = lambda _: None,
    ) -> ErasedEvents:
        """Erase one event by its id, or all that have these labels, and return the counts.

        An id that was used again after it was forgotten names several events: all of them are erased.

        Raises:
            InvalidRequestError: neither or both were given, or a label is wrong.
            NotFoundError: there is no event of that id. ForbiddenError: no admin.
        """
        actor.require(Role.ADMIN)
        if (event_id is None) == (not labels):
            raise InvalidRequestError([problem("event", "one_of_two")])
        problems = labels_problems(labels or {}, "label")
        if problems:
            raise InvalidRequestError(problems)
        by = {"by": "id"} if labels is None else {"by": "labels", "labels": sorted(labels)}
        total, ids = Erased(0, 0, 0, 0), dict[str, None]()
        async for found in self._found(event_id, labels, actor.tenant):
            if found in ids:
                continue
            ids[found] = None
            async with self._database.transaction() as connection:
                if dry_run:
                    one = await count_erasable(connection, found, actor.tenant)
                else:
                    one = await _erase(connection, actor, found, by)
            total = _sum(total, one)
            progress(total.events)
        if event_id is not None and not total.events:
            raise NotFoundError(problem("id", "event_not_found", value=event_id))
        return ErasedEvents(dry_run=dry_run, ids=list(ids)[:SHOWN_MAX], **total._asdict())

    async def _found(
        self, event_id: str | None, labels: Mapping[str, str] | None, tenant: str | None
    ) -> AsyncIterator[str]:
        if event_id is not None:
            yield event_id
        if labels:
            async for found in labelled_event_ids(self._database, labels, tenant):
                yield found


async def _erase(
    connection: "Reach", actor: Actor, event_id: str, by: Mapping[str, object]
) -> Erased:
    """Erase all events of an id; those in the outbox become history first."""
    waited = await erase_waiting_event(connection, event_id, actor.tenant)
    days = await days_of_event(connection, event_id, actor.tenant)
    total = Erased(0, 0, 0, 0)
    for day in days:
        total = _sum(total, await erase_event(connection, event_id, day, actor.name))
    if days:
        # The log outlives the event, so it names the labels that were asked for and never their values.
        detail = {**by, **total._asdict(), "waited_in_outbox": waited}
        await write_audit(connection, actor.name, days[0].tenant, "event.erase", event_id, detail)
    return total


def _sum(one: Erased, other: Erased) -> Erased:
    return Erased(*(a + b for a, b in zip(one, other, strict=True)))
