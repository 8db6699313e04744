"""Events: published for producers outside the database, listed, shown."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from dispatcher.admin.operations.context import Actor, Deployment, Role, allowed_tenant
from dispatcher.admin.operations.event_search import EventSearch, labelled_events, list_events
from dispatcher.admin.operations.new_event import (
    CLIENT,
    Client,
    NewEvent,
    batch_results,
    event_problems,
    id_in_use,
    inserted_event,
    not_an_object,
    rejected_batch,
    row_of,
    validated_rows,
)
from dispatcher.admin.operations.objects import (
    delivery_of,
    event_of,
    event_values,
    schema_mismatches,
)
from dispatcher.admin.operations.publishing import Publisher
from dispatcher.admin.resources.event import (
    Event,
    EventOutcome,
    EventPage,
    EventsQuery,
    EventWithDeliveries,
    PublishedBatch,
)
from dispatcher.admin.resources.fields import TENANT_DEFAULT
from dispatcher.admin.resources.serialization import (
    Place,
    cursor_scope,
    page_of,
    read_cursor,
    time_text,
    write_cursor,
)
from dispatcher.core.errors import (
    ConflictError,
    DataFaultError,
    InvalidRequestError,
    NotFoundError,
    StoreUnavailableError,
)
from dispatcher.core.problems import Problem, problem
from dispatcher.store.audit import write_audit
from dispatcher.store.delivery_details import deliveries_of_event
from dispatcher.store.event_numbers import EventNumbers
from dispatcher.store.events import EventDetail, EventKey, find_event, read_outcomes
from dispatcher.store.outbox import page_of_quarantined_events, release_event
from dispatcher.store.outbox_inserts import Batch, Fetch, InsertedRow, NewRow, owners_of_events
from dispatcher.store.server import json_type

OUTCOME_DELIVERIES_MAX: Final = 1_000
"""Deliveries of one event that its outcome counts, waiting and ended ones each."""


class Events:
    """The events of a deployment."""

    def __init__(self, deployment: Deployment, publisher: Publisher | None = None) -> None:
        """Publish through `publisher`, which groups the events of requests; None: each on its own."""
        self._deployment = deployment
        self._publisher = publisher or Publisher(deployment.database)
        self._database = deployment.database
        self._search = EventSearch(deployment)
        self._schemas = deployment.catalogue.schemas

    async def publish(
        self, actor: Actor, event: NewEvent, client: Client = CLIENT
    ) -> tuple[Event, bool]:
        """Commit an event and return it, and whether it is new.

        If the id is known, nothing is published, and the first event of that id is returned. The
        event is its own record: nothing is written to the audit log.

        Raises:
            ForbiddenError: no operator. InvalidRequestError: every fault. ConflictError: the id is
            another tenant's. StoreUnavailableError: the event is not committed; OutcomeUnknownError: it may be.
        """
        actor.require(Role.OPERATOR)
        problems = event_problems(event, self._schemas)
        if problems:
            raise InvalidRequestError(problems)
        row = row_of(event, allowed_tenant(actor, event.tenant) or TENANT_DEFAULT, client.token)
        try:
            inserted = await self._publisher.publish(row, client.wait_seconds, client.is_waiting)
        except DataFaultError as error:
            kind = await json_type(self._database, event.data)
            if kind != "object":
                raise InvalidRequestError([not_an_object(kind)]) from error
            raise error.__cause__ or error from None
        if inserted is None:
            await client.confirm()
            return await self._known(actor, row), False
        return self._inserted(row, inserted), True

    async def publish_batch(
        self,
        actor: Actor,
        events: Sequence[NewEvent | InvalidRequestError],
        *,
        all_or_nothing: bool = False,
        client: Client = CLIENT,
    ) -> PublishedBatch:
        """Commit the events of a batch in one transaction, and return the result of each.

        An error in place of an event is that event's result. Invalid events are left out, except with
        `all_or_nothing`, where nothing is committed if one is invalid.

        Raises:
            ForbiddenError: no operator. InvalidRequestError: `all_or_nothing`, and events are invalid.
            StoreUnavailableError: nothing is committed; OutcomeUnknownError: everything may be.
        """
        actor.require(Role.OPERATOR)
        row_at, rejected = await validated_rows(actor, events, self._schemas, client.token)
        positions, rows = list(row_at), list(row_at.values())
        if all_or_nothing and rejected:
            raise rejected_batch(rejected)

        async def add_rejected(fetch: Fetch, batch: Batch) -> None:
            """Add the events that the database has rejected, or whose id is another tenant's."""
            known = [
                row.id for row, found in zip(rows, batch.ids, strict=True) if not found and row.id
            ]
            owners = await owners_of_events(fetch, known) if known else {}
            for position, row, found in zip(positions, rows, batch.ids, strict=True):
                owner = None if found or row.id is None else owners.get(row.id)
                if owner is not None and owner != row.tenant:
                    rejected[position] = [id_in_use(actor, row.id, owner)]
            for index, error in batch.errors.items():
                rejected[positions[index]] = [await self._problem_of(rows[index], error)]

        async def verify(fetch: Fetch, batch: Batch) -> None:
            await add_rejected(fetch, batch)
            if rejected:
                raise rejected_batch(rejected)

        batch = Batch([], {})
        if rows:
            batch = await self._publisher.publish_batch(
                rows,
                client.wait_seconds,
                is_wanted=client.is_waiting,
                verify=verify if all_or_nothing else None,
            )
            if None in batch.ids:
                await client.confirm()
                if not all_or_nothing:
                    await add_rejected(self._database.fetch, batch)
        results = batch_results(len(events), row_at, batch.ids, rejected)
        created = len(rows) - batch.ids.count(None)
        return PublishedBatch(
            created=created,
            known=len(results) - created - len(rejected),
            rejected=len(rejected),
            results=results,
        )

    async def _known(self, actor: Actor, row: NewRow) -> Event:
        """Return the first event of a known id."""
        taken = None
        async with self._database.reading() as connection:
            known = await find_event(connection, row.id or "", row.tenant)
            if known is None and actor.tenant is None:
                taken = await find_event(connection, row.id or "", None)
        if known is None:
            raise ConflictError(id_in_use(actor, row.id, taken and taken.tenant))
        return event_of(known, self._schemas)

    async def _problem_of(self, row: NewRow, error: StoreUnavailableError) -> Problem:
        if not isinstance(error, DataFaultError):
            return problem("id", "event_id_locked", value=row.id)
        kind = await json_type(self._database, row.data)
        return problem("event", "event_rejected") if kind == "object" else not_an_object(kind)

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
                items=[event_of(row, self._schemas) for row in found.rows],
                next_cursor=found.next_place and write_cursor(found.next_place, scope),
                searched_back_to=time_text(found.searched_back_to),
            )
        async with self._database.reading() as connection:
            rows = await list_events(connection, actor, query, place, query.limit + 1)
        items, next_cursor = page_of(
            rows,
            query.limit,
            lambda row: Place(row.accepted_at or row.inserted_at, row.id),
            self._event_of,
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

    def _event_of(self, row: EventDetail) -> Event:
        return event_of(row, self._schemas)

    def _inserted(self, row: NewRow, inserted: InsertedRow) -> Event:
        return inserted_event(row, inserted, schema_mismatches(row.type, row.data, self._schemas))

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
            self._event_of,
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

    async def labelled(self, actor: Actor, text: str, rows_max: int) -> list[Event]:
        """Return the newest events with the label `name=value`, or with any label of this value."""
        async with self._database.reading() as connection:
            rows = await labelled_events(
                connection, actor.tenant, EventsQuery(), text, None, rows_max
            )
        return [self._event_of(row) for row in rows]

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
            **event_values(event, self._schemas),
            deliveries=[delivery_of(row) for row in deliveries],
        )
