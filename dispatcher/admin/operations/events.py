"""Events: published for producers outside the database, listed, shown."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

import orjson

from dispatcher.admin.operations.context import Actor, Deployment, Role, allowed_tenant
from dispatcher.admin.operations.event_search import EventSearch, labelled_events, list_events
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
    NewEventFields,
    PublishedBatch,
    PublishedEvent,
    SchemaMismatch,
    id_problems,
    occurred_at_problems,
)
from dispatcher.admin.resources.fields import TENANT_DEFAULT, tenant_problems
from dispatcher.admin.resources.problem import field_problems
from dispatcher.admin.resources.serialization import (
    JsonText,
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
from dispatcher.core.limits import EVENT_DATA_BYTES_MAX
from dispatcher.core.matching import event_type_problems, labels_problems
from dispatcher.core.printable import is_text, utf8_length
from dispatcher.core.problems import Problem, problem
from dispatcher.core.schemas import Schema, SchemaPolicy
from dispatcher.store.audit import write_audit
from dispatcher.store.delivery_details import deliveries_of_event
from dispatcher.store.event_numbers import EventNumbers
from dispatcher.store.events import EventDetail, EventKey, find_event, read_outcomes
from dispatcher.store.outbox import page_of_quarantined_events, release_event
from dispatcher.store.outbox_inserts import Batch, Fetch, InsertedRow, NewRow, owners_of_events
from dispatcher.store.server import json_type

TEXT_CHARACTERS_MAX: Final = 256
OUTCOME_DELIVERIES_MAX: Final = 1_000
"""Deliveries of one event that its outcome counts, waiting and ended ones each."""
WAIT_SECONDS: Final = 10.0
"""How long a client waits by default while Postgres is unavailable."""
BUSY_SECONDS: Final = 0.001
_KINDS: Final = {
    **dict.fromkeys("-0123456789", "number"),
    "[": "array",
    '"': "string",
    "t": "boolean",
    "f": "boolean",
    "n": "null",
}
"""What a JSON text is, by its first character."""


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

    @classmethod
    def of(cls, fields: NewEventFields) -> Self:
        """Return the event of a request."""
        return cls(
            type=fields.type,
            data=fields.data.text,
            id=fields.id,
            tenant=fields.tenant,
            occurred_at=fields.occurred_at,
            ordering_key=fields.ordering_key,
            labels=fields.labels,
            traceparent=fields.traceparent,
        )


async def _valid() -> None:
    """Accept a client that nothing is known against."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The client that waits for a publication."""

    wait_seconds: float = WAIT_SECONDS
    is_waiting: Callable[[], bool] = lambda: True
    """Whether it is still connected."""
    token: bytes | None = None
    """The SHA-256 of its token, if the transaction is to verify that the token is still valid."""
    confirm: Callable[[], Awaitable[None]] = _valid
    """Raises if the token is not valid; called if an event was not inserted."""


CLIENT: Final = Client()


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
        row = _row(event, allowed_tenant(actor, event.tenant) or TENANT_DEFAULT, client.token)
        try:
            inserted = await self._publisher.publish(row, client.wait_seconds, client.is_waiting)
        except DataFaultError as error:
            kind = await json_type(self._database, event.data)
            if kind != "object":
                raise InvalidRequestError([_not_an_object(kind)]) from error
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
        rows: list[NewRow] = []
        positions: list[int] = []
        rejected: dict[int, list[Problem]] = {}
        async for position, event, problems in _validated(actor, events, self._schemas):
            if problems:
                rejected[position] = problems
            elif isinstance(event, NewEvent):
                positions.append(position)
                tenant = actor.tenant or event.tenant or TENANT_DEFAULT
                rows.append(_row(event, tenant, client.token))
        if all_or_nothing and rejected:
            raise _rejected_batch(rejected)

        async def add_rejected(fetch: Fetch, batch: Batch) -> None:
            """Add the events that the database has rejected, or whose id is another tenant's."""
            known = [
                row.id for row, found in zip(rows, batch.rows, strict=True) if not found and row.id
            ]
            owners = await owners_of_events(fetch, known) if known else {}
            for position, row, found in zip(positions, rows, batch.rows, strict=True):
                owner = None if found or row.id is None else owners.get(row.id)
                if owner is not None and owner != row.tenant:
                    rejected[position] = [_in_use(actor, row.id, owner)]
            for index, error in batch.errors.items():
                rejected[positions[index]] = [await self._problem_of(rows[index], error)]

        async def verify(fetch: Fetch, batch: Batch) -> None:
            await add_rejected(fetch, batch)
            if rejected:
                raise _rejected_batch(rejected)

        batch = Batch([], {})
        if rows:
            batch = await self._publisher.publish_batch(
                rows,
                client.wait_seconds,
                is_wanted=client.is_waiting,
                verify=verify if all_or_nothing else None,
            )
            if None in batch.rows:
                await client.confirm()
                if not all_or_nothing:
                    await add_rejected(self._database.fetch, batch)
        found = dict(zip(positions, zip(rows, batch.rows, strict=True), strict=True))
        results = [_result(index, found.get(index), rejected) for index in range(len(events))]
        created = sum(one.status == "created" for one in results)
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
            raise ConflictError(_in_use(actor, row.id, taken and taken.tenant))
        return event_of(known, self._schemas)

    async def _problem_of(self, row: NewRow, error: StoreUnavailableError) -> Problem:
        if not isinstance(error, DataFaultError):
            return problem("id", "event_id_locked", value=row.id)
        kind = await json_type(self._database, row.data)
        return problem("event", "event_rejected") if kind == "object" else _not_an_object(kind)

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
        return _inserted_event(row, inserted, schema_mismatches(row.type, row.data, self._schemas))

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


def event_problems(event: NewEvent, schemas: Mapping[str, Schema]) -> list[Problem]:
    """List the problems of a new event. Postgres decides whether its data are valid JSON."""
    problems = event_type_problems(event.type)
    length = utf8_length(event.data)
    if length is None:
        problems.append(problem("data", "invalid_text"))
    elif length > EVENT_DATA_BYTES_MAX:
        problems.append(problem("data", "too_many_bytes", maximum=EVENT_DATA_BYTES_MAX))
    elif event.data[:1] != "{" and event.data.lstrip(" \t\r\n")[:1] != "{":
        kind = _KINDS.get(event.data.lstrip(" \t\r\n")[:1])
        problems.append(_not_an_object(kind))
    if event.id is not None:
        problems += id_problems(event.id)
    if event.tenant is not None:
        problems += tenant_problems(event.tenant)
    if event.labels:
        problems += labels_problems(event.labels)
    for name, text in (("ordering_key", event.ordering_key), ("traceparent", event.traceparent)):
        if text is not None and (len(text) > TEXT_CHARACTERS_MAX or not is_text(text)):
            code = "invalid_text" if not is_text(text) else "too_long"
            problems.append(problem(name, code, maximum=TEXT_CHARACTERS_MAX))
    if event.occurred_at is not None:
        problems += occurred_at_problems(event.occurred_at)
    schema = schemas.get(event.type)
    if schema is not None and schema.policy is SchemaPolicy.REJECT and not problems:
        problems += schema.problems(event.data)
    return problems


async def _validated(
    actor: Actor,
    events: Sequence[NewEvent | InvalidRequestError],
    schemas: Mapping[str, Schema],
) -> AsyncIterator[tuple[int, NewEvent | InvalidRequestError, list[Problem]]]:
    """Yield each event with its position and its problems; other tasks run after each millisecond."""
    began_at = time.monotonic()
    for position, event in enumerate(events):
        if isinstance(event, InvalidRequestError):
            problems = event.problems
        else:
            problems = event_problems(event, schemas)
            if event.tenant is not None and actor.tenant not in {None, event.tenant}:
                problems.append(problem("tenant", "tenant_not_found", value=event.tenant))
        yield position, event, problems
        if time.monotonic() - began_at > BUSY_SECONDS:
            await asyncio.sleep(0)
            began_at = time.monotonic()


def _row(event: NewEvent, tenant: str, token: bytes | None) -> NewRow:
    return NewRow(
        event.type,
        event.data,
        event.id,
        tenant,
        # As text: the driver writes `datetime.max` as infinity, which no year is.
        None if event.occurred_at is None else event.occurred_at.isoformat(),
        event.ordering_key,
        orjson.dumps(event.labels).decode() if event.labels else None,
        event.traceparent,
        token,
    )


def _inserted_event(row: NewRow, inserted: InsertedRow, mismatches: list[SchemaMismatch]) -> Event:
    return Event(
        id=inserted.id,
        type=row.type,
        tenant=row.tenant,
        data=JsonText(row.data),
        occurred_at=time_text(inserted.occurred_at),
        ordering_key=row.ordering_key,
        labels=inserted.labels,
        traceparent=row.traceparent,
        inserted_at=time_text(inserted.inserted_at),
        accepted_at=None,
        test=False,
        quarantined_at=None,
        schema_mismatches=mismatches,
    )


def _result(
    index: int,
    found: tuple[NewRow, InsertedRow | None] | None,
    rejected: Mapping[int, list[Problem]],
) -> PublishedEvent:
    problems = rejected.get(index)
    if problems is not None or found is None:
        event_id = None if found is None else found[0].id
        errors = field_problems(problems or [])
        return PublishedEvent(index=index, status="rejected", id=event_id, errors=errors)
    row, inserted = found
    if inserted is None:
        return PublishedEvent(index=index, status="known", id=row.id)
    return PublishedEvent(index=index, status="created", id=inserted.id)


def _rejected_batch(rejected: Mapping[int, list[Problem]]) -> InvalidRequestError:
    return InvalidRequestError(
        [
            one.at(f"events[{position}].{one.field}")
            for position, problems in sorted(rejected.items())
            for one in problems
        ]
    )


def _not_an_object(kind: str | None) -> Problem:
    return problem("data", "not_a_json_object", kind="invalid JSON" if kind is None else kind)


def _in_use(actor: Actor, event_id: str | None, owner: str | None) -> Problem:
    """Return the problem of an id that is another tenant's, which is named to those who may know."""
    is_named = owner is not None and actor.tenant is None
    text = f"of the tenant {owner}; give another" if is_named else "of another tenant"
    return problem("id", "event_id_in_use", value=event_id, owner=text)
