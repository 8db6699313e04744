"""Events: published for producers outside the database, listed, shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import orjson

from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.operations.delivery_search import EventSearch, list_events
from dispatcher.admin.operations.endpoints import allowed_tenant
from dispatcher.admin.operations.objects import delivery_of, event_of, event_values
from dispatcher.admin.resources.event import (
    Event,
    EventOutcome,
    EventPage,
    EventsQuery,
    EventWithDeliveries,
    id_problems,
    occurred_at_problems,
)
from dispatcher.admin.resources.fields import TENANT_DEFAULT, tenant_problems
from dispatcher.admin.resources.serialization import (
    Place,
    cursor_scope,
    page_of,
    read_cursor,
    time_text,
    write_cursor,
)
from dispatcher.core.errors import ConflictError, InvalidRequestError, NotFoundError
from dispatcher.core.limits import EVENT_DATA_BYTES_MAX
from dispatcher.core.matching import event_type_problems, labels_problems
from dispatcher.core.printable import is_text, utf8_length
from dispatcher.core.problems import Problem, problem
from dispatcher.store.audit import write_audit
from dispatcher.store.delivery_details import deliveries_of_event
from dispatcher.store.event_numbers import EventNumbers
from dispatcher.store.events import EventDetail, EventKey, find_event, read_outcomes
from dispatcher.store.outbox import page_of_quarantined_events, publish_event, release_event
from dispatcher.store.server import json_type

TEXT_CHARACTERS_MAX: Final = 256
OUTCOME_DELIVERIES_MAX: Final = 1_000
"""Deliveries of one event that its outcome counts, waiting and ended ones each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """What a producer gives; `data` is JSON text and keeps its bytes. None: the column's default."""

    type: str
    data: str
    id: str | None = None
    tenant: str | None = None
    occurred_at: datetime | None = None
    ordering_key: str | None = None
    labels: Mapping[str, str] | None = None
    traceparent: str | None = None


class Events:
    """The events of a deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._database = deployment.database
        self._search = EventSearch(deployment)

    async def publish(self, actor: Actor, event: NewEvent) -> tuple[Event, bool]:
        """Commit an event and return it, and whether it is new.

        If the id is known, nothing is published, and the first event of that id is returned. The
        event is its own record: nothing is written to the audit log.

        Raises:
            ForbiddenError: no operator. InvalidRequestError: every fault. ConflictError: the id is
            another tenant's.
        """
        actor.require(Role.OPERATOR)
        problems = await self._problems(event)
        if problems:
            raise InvalidRequestError(problems)
        tenant = allowed_tenant(actor, event.tenant) or TENANT_DEFAULT
        labels = orjson.dumps(dict(event.labels)).decode() if event.labels else None
        async with self._database.transaction() as connection:
            published = await publish_event(
                connection,
                [
                    event.type,
                    event.data,
                    event.id,
                    tenant,
                    # As text: the driver writes `datetime.max` as infinity, which no year is.
                    None if event.occurred_at is None else event.occurred_at.isoformat(),
                    event.ordering_key,
                    labels,
                    event.traceparent,
                ],
            )
            known = await find_event(connection, published or event.id or "", tenant)
            taken = None
            if known is None and actor.tenant is None:
                taken = await find_event(connection, event.id or "", None)
        if known is None:
            raise ConflictError(
                problem("id", "event_id_in_use", value=event.id, owner=_owner(taken))
            )
        return event_of(known), published is not None

    async def page(
        self,
        actor: Actor,
        query: EventsQuery = EventsQuery(),  # noqa: B008 -- frozen
    ) -> EventPage:
        """Return a page of events without their deliveries, newest first, those in the outbox included.

        With `q` a page may be short or empty although there is a next one, because a search reads
        within its time budget. With `quarantined` the page has the events whose fan-out Postgres
        rejected, the latest first; of the other filters only the tenant applies.

        Raises:
            InvalidRequestError: the cursor is another filter's. NotFoundError: the tenant is not the
            actor's. TooManyError: too many searches wait.
        """
        if query.quarantined:
            return await self._quarantined(actor, query)
        scope = cursor_scope("events", actor.tenant, query.given())
        place = read_cursor(query.cursor, scope)
        if query.q and query.q.strip():
            found = await self._search.find(actor, query, place)
            return EventPage(
                items=[event_of(row) for row in found.rows],
                next_cursor=found.next_place and write_cursor(found.next_place, scope),
                searched_back_to=time_text(found.searched_back_to),
            )
        async with self._database.reading() as connection:
            rows = await list_events(connection, actor, query, place, query.limit + 1)
        items, next_cursor = page_of(
            rows,
            query.limit,
            lambda row: Place(row.accepted_at or row.inserted_at, row.id),
            event_of,
            scope=scope,
        )
        return EventPage(items=items, next_cursor=next_cursor)

    async def outcomes(self, events: Sequence[Event]) -> dict[str, EventOutcome]:
        """Return what became of the deliveries of a page of events, by the event's id; none of waiting events."""
        keys = [
            EventKey(
                datetime.fromisoformat(one.accepted_at).date(),
                one.id,
                datetime.fromisoformat(one.inserted_at),
            )
            for one in events
            if one.accepted_at is not None
        ]
        if not keys:
            return {}
        async with self._database.reading() as connection:
            counts = await read_outcomes(connection, keys, OUTCOME_DELIVERIES_MAX)
        return {
            event_id: EventOutcome(
                **row._asdict(), capped=max(row, default=0) >= OUTCOME_DELIVERIES_MAX
            )
            for (_, event_id), row in counts.items()
        }

    async def _quarantined(self, actor: Actor, query: EventsQuery) -> EventPage:
        scope = cursor_scope("quarantined", actor.tenant, {"tenant": query.tenant})
        place = read_cursor(query.cursor, scope) or (None, None)
        filters = [allowed_tenant(actor, query.tenant), *place, query.limit + 1]
        async with self._database.reading() as connection:
            rows = await page_of_quarantined_events(connection, filters)
        items, next_cursor = page_of(
            rows,
            query.limit,
            lambda row: Place(row.quarantined_at or row.inserted_at, row.id),
            event_of,
            scope=scope,
        )
        return EventPage(items=items, next_cursor=next_cursor)

    async def release(self, actor: Actor, event_id: str) -> EventWithDeliveries:
        """Return a quarantined event to the queue, and return the event.

        It gets a new id if an earlier event has its id.

        Raises:
            ForbiddenError: no operator. NotFoundError: no such event. ConflictError: it is not
            quarantined.
        """
        actor.require(Role.OPERATOR)
        async with self._database.transaction() as connection:
            tenant = await release_event(connection, event_id, actor.tenant)
            if tenant is not None:
                await write_audit(connection, actor.name, tenant, "event.release", event_id, {})
        if tenant is None:
            await self.show(actor, event_id)
            raise ConflictError(problem("id", "event_not_quarantined", value=event_id))
        renumbered = await EventNumbers(self._database).renumber([event_id])
        return await self.show(actor, renumbered.get(event_id, event_id))

    async def show(self, actor: Actor, event_id: str) -> EventWithDeliveries:
        """Return the newest event of that id with its deliveries.

        Raises:
            NotFoundError: there is none of that id.
        """
        async with self._database.reading() as connection:
            event = await find_event(connection, event_id, actor.tenant)
            if event is None:
                raise NotFoundError(problem("id", "event_not_found", value=event_id))
            deliveries = await deliveries_of_event(connection, event)
        return EventWithDeliveries(
            **event_values(event), deliveries=[delivery_of(row) for row in deliveries]
        )

    async def _problems(self, event: NewEvent) -> list[Problem]:
        problems = event_type_problems(event.type)
        length = utf8_length(event.data)
        if length is None:
            problems.append(problem("data", "invalid_text"))
        elif length > EVENT_DATA_BYTES_MAX:
            problems.append(problem("data", "too_many_bytes", maximum=EVENT_DATA_BYTES_MAX))
        elif (kind := await json_type(self._database, event.data)) != "object":
            found = "invalid JSON" if kind is None else kind
            problems.append(problem("data", "not_a_json_object", kind=found))
        if event.id is not None:
            problems += id_problems(event.id)
        if event.tenant is not None:
            problems += tenant_problems(event.tenant)
        if event.labels:
            problems += labels_problems(event.labels)
        problems += [
            problem(
                name,
                "invalid_text" if not is_text(text) else "too_long",
                maximum=TEXT_CHARACTERS_MAX,
            )
            for name, text in (
                ("ordering_key", event.ordering_key),
                ("traceparent", event.traceparent),
            )
            if text is not None and (len(text) > TEXT_CHARACTERS_MAX or not is_text(text))
        ]
        if event.occurred_at is not None:
            problems += occurred_at_problems(event.occurred_at)
        return problems


def _owner(taken: EventDetail | None) -> str:
    """Names whose an event is, to those who may know."""
    return "of another tenant" if taken is None else f"of the tenant {taken.tenant}; give another"
