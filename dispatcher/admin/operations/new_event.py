"""A new event: what a producer gives, the rules for it, and the row that it becomes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from dispatcher.admin.operations.context import Actor
from dispatcher.admin.resources.event import (
    Event,
    NewEventFields,
    PublishedEvent,
    SchemaMismatch,
    id_problems,
    occurred_at_problems,
)
from dispatcher.admin.resources.fields import TENANT_DEFAULT, tenant_problems
from dispatcher.admin.resources.problem import field_problems
from dispatcher.admin.resources.serialization import JsonText, labels_json, time_text
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.limits import EVENT_DATA_BYTES_MAX, EVENT_TYPE_CHARACTERS_MAX
from dispatcher.core.matching import event_type_problems, labels_problems
from dispatcher.core.printable import is_text, utf8_length
from dispatcher.core.problems import Problem, problem
from dispatcher.core.schemas import Schema, SchemaPolicy
from dispatcher.store.outbox_inserts import InsertedRow, NewRow

TEXT_CHARACTERS_MAX: Final = 256
_PLAIN: Final = {"type", "data", "id", "tenant", "ordering_key", "labels", "traceparent"}
_ABSENT: Final = object()
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


class NewEvent(NamedTuple):
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
    def read(cls, members: Mapping[str, Any], now: datetime | None = None) -> "NewEvent":
        """Return the event of a request's members.

        Members that need no conversion are used as they are, which takes a tenth of the time. Their rules
        are those of `event_problems`, which reports the same problems as the model.

        Raises:
            InvalidRequestError: members are invalid; has all problems.
        """
        return _plain_event(members) or cls._of(NewEventFields.of(now, **members))

    @classmethod
    def _of(cls, fields: NewEventFields) -> "NewEvent":
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


def _plain_event(members: Mapping[str, Any]) -> NewEvent | None:
    """Return the event of members that need no conversion; None: the model converts and decides."""
    given = {**members}
    data, labels = given.get("data"), given.get("labels", _ABSENT)
    if type(data) is not JsonText or data.text[:1] != "{" or "type" not in given:
        return None
    if not given.keys() <= _PLAIN:
        return None
    if labels is not _ABSENT and not (
        type(labels) is dict and all(type(value) is str for value in labels.values())
    ):
        return None
    given["data"] = data.text
    for name, value in given.items():
        if type(value) is not str and name != "labels":
            return None
    return NewEvent(**given)


async def _valid() -> None:
    """Accept a client that nothing is known against."""


class Client(NamedTuple):
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
    problems: list[Problem] = []
    if len(event.type) > EVENT_TYPE_CHARACTERS_MAX or not _is_event_type(event.type):
        problems += event_type_problems(event.type)
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
    for name, text in (("ordering_key", event.ordering_key), ("traceparent", event.traceparent)):
        if text is not None and (len(text) > TEXT_CHARACTERS_MAX or not is_text(text)):
            code = "invalid_text" if not is_text(text) else "too_long"
            problems.append(problem(name, code, maximum=TEXT_CHARACTERS_MAX))
    if event.labels:
        problems += labels_problems(event.labels)
    if event.occurred_at is not None:
        problems += occurred_at_problems(event.occurred_at)
    schema = schemas.get(event.type)
    if schema is not None and schema.policy is SchemaPolicy.REJECT and not problems:
        problems += schema.problems(event.data)
    return problems


@lru_cache(maxsize=1_024)
def _is_event_type(text: str) -> bool:
    return not event_type_problems(text)


async def validated_rows(
    actor: Actor,
    events: Sequence[NewEvent | InvalidRequestError],
    schemas: Mapping[str, Schema],
    token: bytes | None,
) -> tuple[dict[int, NewRow], dict[int, list[Problem]]]:
    """Return the rows of valid events and the problems of the others, by position.

    Other tasks run after each millisecond.
    """
    rows: dict[int, NewRow] = {}
    rejected: dict[int, list[Problem]] = {}
    began_at = time.monotonic()
    for position, event in enumerate(events):
        if isinstance(event, InvalidRequestError):
            rejected[position] = event.problems
            continue
        problems = event_problems(event, schemas)
        if event.tenant is not None and actor.tenant not in {None, event.tenant}:
            problems.append(problem("tenant", "tenant_not_found", value=event.tenant))
        if problems:
            rejected[position] = problems
        else:
            tenant = actor.tenant or event.tenant or TENANT_DEFAULT
            rows[position] = row_of(event, tenant, token)
        if time.monotonic() - began_at > BUSY_SECONDS:
            await asyncio.sleep(0)
            began_at = time.monotonic()
    return rows, rejected


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


def batch_results(
    count: int,
    rows: Mapping[int, NewRow],
    ids: Sequence[str | None],
    rejected: Mapping[int, list[Problem]],
) -> list[PublishedEvent]:
    """Return the result of each of a batch's events; `ids` has one for each of the rows, None if it is known."""
    results: dict[int, PublishedEvent] = {}
    for (index, row), event_id in zip(rows.items(), ids, strict=True):
        if event_id is not None:
            results[index] = PublishedEvent(index=index, status="created", id=event_id)
        elif index not in rejected:
            results[index] = PublishedEvent(index=index, status="known", id=row.id)
    for index, problems in rejected.items():
        results[index] = PublishedEvent(
            index=index,
            status="rejected",
            id=rows[index].id if index in rows else None,
            errors=field_problems(problems),
        )
    if not rejected:
        return list(results.values())
    return [results[index] for index in range(count)]


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
