"""Reads events in slices, newest first, for a text in them.

Payloads have no index, because its cost would be paid for every event, and a text is searched for
a few times a day. A search therefore reads the events themselves, from the newest, in slices of one
day's partition in the order of acceptance. Each slice is one short transaction: it locks one partition
(ADR 0035), keeps no snapshot and ends within its time limit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from dispatcher.core.text_pattern import TextPattern, text_pattern
from dispatcher.store.events import EventDetail, event_detail
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_LIMITS = statement("connection_search")
_BITMAP = statement("connection_bitmap")
_BOUND = statement("event_search_bound")
_SEARCH = statement("event_search")
_SEARCH_WAITING = statement("outbox_search")
_NAMED = statement("endpoint_list_named")


class TextFilter(NamedTuple):
    """A text as a condition on events that are read for another reason."""

    text: str
    label_path: str
    """A JSON path that a label fulfils which the text names."""

    def values(self) -> list[object]:
        """Return the parameters of statements with this condition, in order."""
        return [*text_pattern(self.text), self.label_path]


ANY_TEXT: Final = (None,) * 5
"""The same parameters without the condition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextQuery:
    """The text to find and the other conditions; None: any."""

    pattern: TextPattern
    tenant: str | None = None
    type: str | None = None
    """A type, or its beginning and `*`."""
    labels: str | None = None
    """JSON of the labels that an event must have."""
    test: bool | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""
    system: bool | None = None
    """Whether the type is one of the dispatcher's own."""
    known_id: str | None = None
    """The id of an event that was found before, and is left out."""
    known_label: str | None = None
    """A JSON path; events with a label that fulfils it were found before, and are left out."""


async def limit_statements(connection: "Reach", milliseconds: int) -> bool:
    """Bound each statement of the transaction, and the processes that run it to one.

    Returns whether other sessions of the dispatcher are in transactions.
    """
    row = await connection.fetchrow(_LIMITS, str(milliseconds))
    return row is not None and bool(row["is_busy"])


async def allow_text_index(connection: "Reach", milliseconds: int) -> None:
    """Have the next statement of the transaction read the index of a day's text, and bound it."""
    await connection.fetchrow(_BITMAP, str(milliseconds))


async def slice_bound(
    connection: "Reach", day: date, before: tuple[datetime, str] | None, rows_max: int
) -> tuple[int, datetime | None]:
    """Return how many events the next slice of a day has, and when its oldest one was accepted."""
    row = await connection.fetchrow(_BOUND, day, *(before or (None, None)), rows_max)
    assert row is not None  # noqa: S101 -- an aggregate has a row
    return row["rows_count"], row["floor"]


async def search_slice(
    connection: "Reach",
    query: TextQuery,
    day: date,
    floor: datetime,
    before: tuple[datetime, str] | None,
    rows_max: int,
    *,
    is_indexed: bool = False,
) -> list[EventDetail]:
    """Return the matching events of a slice, newest first; `is_indexed`: by the index of the day's text."""
    likes = [*query.pattern.likes, None]
    rows = await connection.fetch(
        _SEARCH,
        day,
        floor,
        *(before or (None, None)),
        query.tenant,
        query.type,
        query.labels,
        query.test,
        *query.pattern,
        query.known_id,
        query.known_label,
        rows_max,
        query.system,
        *(likes[:2] if is_indexed else (None, None)),
    )
    return [event_detail(row) for row in rows]


async def search_waiting(
    connection: "Reach", query: TextQuery, before: tuple[datetime, str] | None, rows_max: int
) -> list[EventDetail]:
    """Return the matching events that wait in the outbox or are quarantined, newest first."""
    rows = await connection.fetch(
        _SEARCH_WAITING,
        query.tenant,
        query.type,
        query.labels,
        query.test,
        query.since,
        query.until,
        *(before or (None, None)),
        query.pattern.likes,
        query.pattern.regex,
        query.known_id,
        query.known_label,
        rows_max,
        query.system,
    )
    return [event_detail(row) for row in rows]


async def endpoints_named(
    connection: "Reach", tenant: str | None, text: str, pattern: TextPattern, rows_max: int
) -> Sequence[tuple[int, str]]:
    """Return number and id of the endpoints whose id is the text or whose name contains it."""
    rows = await connection.fetch(_NAMED, tenant, text, pattern.regex, rows_max)
    return [(row["number"], row["id"]) for row in rows]
