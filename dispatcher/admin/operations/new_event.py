"""A new event: what a producer gives, the rules for it, and the row that it becomes."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from dispatcher.admin.operations.context import Actor
from dispatcher.admin.resources.event import (
    Event,
    NewEventFields,
    PublishedEvent,
    SchemaMismatch,
    id_problems,
    occurred_at_problems,
)
from dispatcher.admin.resources.fields import tenant_problems
from dispatcher.admin.resources.problem import field_problems
from dispatcher.admin.resources.serialization import JsonText, labels_json, time_text
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.limits import EVENT_DATA_BYTES_MAX
from dispatcher.core.matching import event_type_problems, labels_problems
from dispatcher.core.printable import is_text, utf8_length
from dispatcher.core.problems import Problem, problem
from dispatcher.core.schemas import Schema, SchemaPolicy
from dispatcher.store.outbox_inserts import InsertedRow, NewRow

TEXT_CHARACTERS_MAX: Final = 256
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
        problems.append(not_an_object(kind))
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


async def validated_events(
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


def row_of(event: NewEvent, tenant: str, token: bytes | None) -> NewRow:
    """Return the row of an event; a token is verified in the same transaction."""
    return NewRow(
        event.type,
        event.data,
        event.id,
        tenant,
        # As text: the driver writes `datetime.max` as infinity, which no year is.
        None if event.occurred_at is None else event.occurred_at.isoformat(),
        event.ordering_key,
        labels_json(event.labels),
        event.traceparent,
        token,
    )


def inserted_event(row: NewRow, inserted: InsertedRow, mismatches: list[SchemaMismatch]) -> Event:
    """Return the resource of an event that was inserted."""
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


def result_of(
    index: int,
    found: tuple[NewRow, InsertedRow | None] | None,
    rejected: Mapping[int, list[Problem]],
) -> PublishedEvent:
    """Return the result of one event of a batch."""
    problems = rejected.get(index)
    if problems is not None or found is None:
        event_id = None if found is None else found[0].id
        errors = field_problems(problems or [])
        return PublishedEvent(index=index, status="rejected", id=event_id, errors=errors)
    row, inserted = found
    if inserted is None:
        return PublishedEvent(index=index, status="known", id=row.id)
    return PublishedEvent(index=index, status="created", id=inserted.id)


def rejected_batch(rejected: Mapping[int, list[Problem]]) -> InvalidRequestError:
    """Return the error of a batch that is rejected as a whole, with the problems of each event."""
    return InvalidRequestError(
        [
            one.at(f"events[{position}].{one.field}")
            for position, problems in sorted(rejected.items())
            for one in problems
        ]
    )


def not_an_object(kind: str | None) -> Problem:
    """Return the problem of data that is another kind of JSON; None: it is not JSON."""
    return problem("data", "not_a_json_object", kind="invalid JSON" if kind is None else kind)


def id_in_use(actor: Actor, event_id: str | None, owner: str | None) -> Problem:
    """Return the problem of an id that is another tenant's, which is named to those who may know."""
    is_named = owner is not None and actor.tenant is None
    text = f"of the tenant {owner}; give another" if is_named else "of another tenant"
    return problem("id", "event_id_in_use", value=event_id, owner=text)
