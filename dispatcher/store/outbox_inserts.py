"""Inserts events into the outbox as a producer would: one statement for any number of events.

A batch is one transaction. If Postgres rejects one of its statements because of a row, the rows are
inserted again in halves, each behind a savepoint, until the row is found: the others are committed.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import asyncpg
import orjson

from dispatcher.core.errors import DataFaultError, StoreUnavailableError
from dispatcher.store.pool import Database, columns, is_about_rows, is_locked
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.pool import Reach

_INSERT = statement("outbox_insert")
_OWNERS = statement("outbox_owners")
_SAVE, _RELEASE = "SAVEPOINT part", "RELEASE SAVEPOINT part"
_UNDO = "ROLLBACK TO SAVEPOINT part"

STATEMENT_BYTES_MAX: Final = 1024 * 1024
"""Encoding the parameters of a statement takes 2 to 4 ms of the event loop for each mebibyte."""


class NewRow(NamedTuple):
    """One event to insert, in the order of the statement's parameters; None: the column's default."""

    type: str
    data: str
    id: str | None
    tenant: str
    occurred_at: str | None
    ordering_key: str | None
    labels: str | None
    traceparent: str | None
    token: bytes | None
    """The SHA-256 of a token. The event is inserted only while the token is valid; None: always."""


class InsertedRow(NamedTuple):
    """The columns of a new event that the database has chosen or normalised."""

    id: str
    occurred_at: datetime
    labels: dict[str, str]
    inserted_at: datetime


Fetch = Callable[..., Awaitable["list[Record]"]]
"""`Database.fetch` for a statement of its own, or `fetch` of a transaction's connection."""


async def insert_events(fetch: Fetch, rows: Sequence[NewRow]) -> list[InsertedRow | None]:
    """Insert events into the outbox by one statement.

    None for each event whose id is known, or whose token is not valid.
    """
    return [
        None
        if record is None
        else InsertedRow(
            record[0], record[1], {} if record[2] is None else orjson.loads(record[2]), record[3]
        )
        for record in await _insert(fetch, rows, is_detailed=True)
    ]


async def _insert(
    fetch: Fetch, rows: Sequence[NewRow], *, is_detailed: bool
) -> "Sequence[Record | None]":
    """Insert events by one statement; return one record or None for each.

    Postgres returns the new rows in the order in which it inserted them. A returned row belongs to the
    next event that has its id, or to the next one without an id if no event has it.
    """
    # The driver encodes each element of an array, but a NULL in place of an array costs nothing.
    arrays = [
        None if column.count(None) == len(rows) else column
        for column in columns(rows, len(NewRow._fields))
    ]
    returned = await fetch(_INSERT, *arrays, is_detailed)
    if len(returned) == len(rows):
        return returned
    given = {row.id for row in rows}
    inserted: list[Record | None] = []
    remaining = iter(returned)
    record = next(remaining, None)
    for row in rows:
        if record is None or (record[0] in given if row.id is None else record[0] != row.id):
            inserted.append(None)
            continue
        inserted.append(record)
        record = next(remaining, None)
    assert record is None, "a returned row belongs to no event"  # noqa: S101 -- a slip
    return inserted


async def owners_of_events(fetch: Fetch, event_ids: Sequence[str]) -> dict[str, str]:
    """Return the tenants of ids that producers gave; an id that is not remembered is left out."""
    return {row[0]: row[1] for row in await fetch(_OWNERS, list(event_ids))}


class Batch(NamedTuple):
    """The result of a batch: the id of each new event, None for a known one; and the errors by position."""

    ids: list[str | None]
    errors: dict[int, StoreUnavailableError]


Verify = Callable[[Fetch, Batch], Awaitable[None]]
"""Raises if a batch must not be committed."""


async def insert_batch(
    database: Database, rows: Sequence[NewRow], *, verify: Verify | None = None
) -> Batch:
    """Insert events in one transaction; those that Postgres rejects are left out.

    Raises:
        StoreUnavailableError: nothing is committed, or the outcome is unknown (`pool.is_unsettled`).
    """
    parts = list(_parts(rows))
    if len(parts) == 1 and verify is None:
        try:
            return Batch(await _insert_ids(database.fetch, rows), {})
        except StoreUnavailableError as error:
            if not (isinstance(error, DataFaultError) or is_locked(error)):
                raise
    batch = Batch([None] * len(rows), {})
    async with database.transaction() as connection:
        for start, end in parts:
            await _insert_part(connection, rows, start, end, batch)
        if verify is not None:
            await verify(connection.fetch, batch)
    return batch


async def _insert_ids(fetch: Fetch, rows: Sequence[NewRow]) -> list[str | None]:
    return [
        None if record is None else record[0]
        for record in await _insert(fetch, rows, is_detailed=False)
    ]


def _parts(rows: Sequence[NewRow]) -> Iterator[tuple[int, int]]:
    """Yield the positions at which a batch is divided into statements."""
    start = bytes_count = 0
    for position, row in enumerate(rows):
        bytes_count += len(row.data)
        if bytes_count > STATEMENT_BYTES_MAX and position > start:
            yield start, position
            start, bytes_count = position, len(row.data)
    if start < len(rows):
        yield start, len(rows)


async def _insert_part(
    connection: "Reach", rows: Sequence[NewRow], start: int, end: int, batch: Batch
) -> None:
    await connection.execute(_SAVE)
    try:
        batch.ids[start:end] = await _insert_ids(connection.fetch, rows[start:end])
    except asyncpg.PostgresError as error:
        if not (is_about_rows(error) or isinstance(error, asyncpg.LockNotAvailableError)):
            raise
        await connection.execute(_UNDO)
        if end - start == 1:
            batch.errors[start] = _error_of_row(error)
        else:
            middle = (start + end) // 2
            await _insert_part(connection, rows, start, middle, batch)
            await _insert_part(connection, rows, middle, end, batch)
    else:
        await connection.execute(_RELEASE)


def _error_of_row(error: asyncpg.PostgresError) -> StoreUnavailableError:
    kind = DataFaultError if is_about_rows(error) else StoreUnavailableError
    found = kind(f"Postgres rejects the event: {type(error).__name__}")
    found.__cause__ = error
    return found
