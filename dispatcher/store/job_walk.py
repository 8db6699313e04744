"""The deliveries of a job's filter, oldest first, in bounded steps; and how a job starts them.

A step examines at most `EXAMINED_MAX` rows, whatever the filter finds, so that a rare label among
millions of deliveries is many short statements and never a long one. The count before a job and the
job itself read through the same statement: without changes in between they find the same deliveries.

A job that sends to one endpoint (`target`) walks along events, or along the deliveries of another
endpoint if the filter names one. It takes each event once, and only events that the target
subscribes to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import orjson
from asyncpg.pgproto.pgproto import UUID

from dispatcher.core import codes, ids
from dispatcher.core.filters import ContentFilter, EventValues, compile_filter
from dispatcher.core.matching import LabelFilter, Subscription, labels_match, parse_event_types
from dispatcher.store.day_walk import DAYS_AT_ONCE, PLAN_FOR_VALUES, oldest_day
from dispatcher.store.delivery_ids import (
    day_of_uuid,
    first_uuid,
    moment_of_uuid,
    span_of_event,
    uuid_of,
)
from dispatcher.store.search import ANY_TEXT, TextFilter
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.pool import Database, Reach

_PICK_DELIVERIES = statement("job_delivery_pick")
_PICK_EVENTS = statement("job_event_pick")
_BUSY = statement("job_delivery_list_busy")
_RESEND = statement("job_delivery_resend")
_REPLAY = statement("job_delivery_replay")
_OPEN = statement("job_delivery_open")

PICKED_MAX: Final = 500
"""Deliveries that one step returns."""
EXAMINED_MAX: Final = 5_000
"""Deliveries or events that one step examines: some 20 ms where few of them fit."""
EXAMINED_FOR_TEXT_MAX: Final = 2_000
"""The same where each event's payload is read: some 30 ms."""
_SEPARATOR: Final = "|"


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """What a job's filter came to when it was created; None means any."""

    until: datetime
    """Only what was created before: a job ends, however many new deliveries fit its filter."""
    since: datetime | None = None
    tenant: str | None = None
    endpoint_id: str | None = None
    endpoint_no: int | None = None
    states: list[int] | None = None
    """The codes of states."""
    responses: list[int] | None = None
    """Classes of the last response (core/response_classes.py)."""
    ids: list[str] | None = None
    recoverable: bool = False
    """Only deliveries that failed, or that a pause or a disabled endpoint cancelled."""
    event_type: str | None = None
    labels: dict[str, str] | None = None
    text: TextFilter | None = None
    """A text that the event or the endpoint contains."""
    event_ids: list[str] | None = None
    profiles: list[str] | None = None
    finished_since: datetime | None = None

    def write(self) -> str:
        """Return the criteria as JSON text."""
        return orjson.dumps(self, default=list).decode()

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the criteria of a JSON text."""
        values: dict[str, Any] = orjson.loads(text)
        for name in ("since", "until", "finished_since"):
            if values[name] is not None:
                values[name] = datetime.fromisoformat(values[name])
        if values["text"] is not None:
            values["text"] = TextFilter(*values["text"])
        return cls(**values)

    def names_deliveries(self) -> bool:
        """Return whether the filter is about deliveries, rather than about events alone."""
        return (
            self.endpoint_id is not None
            or self.states is not None
            or self.responses is not None
            or self.ids is not None
            or self.recoverable
            or self.finished_since is not None
            or self.profiles is not None
        )


class Target(NamedTuple):
    """The one endpoint that a job sends to."""

    id: str
    number: int
    tenant: str
    subscription: Subscription
    labels: LabelFilter
    content_filter: ContentFilter | None


def target_of(
    endpoint_id: str,
    number: int,
    tenant: str,
    event_types: Sequence[str],
    labels: LabelFilter,
    content_filter: str | None,
) -> Target:
    """Return a target with its compiled subscription."""
    return Target(
        endpoint_id,
        number,
        tenant,
        parse_event_types(event_types),
        labels,
        None if content_filter is None else compile_filter(content_filter),
    )


class Candidate(NamedTuple):
    """A delivery of the filter; for a target the one that the event has, or is given."""

    cursor: str
    """The place behind it."""
    id: UUID
    day: date
    event_id: str
    endpoint_no: int
    event_type_code: int
    state: int | None
    """None: it does not exist yet."""
    obstacle: str | None
    """Why it cannot be sent; None: it can."""


class Batch(NamedTuple):
    """A step of the walk."""

    candidates: list[Candidate]
    cursor: str | None
    """Behind everything that was examined."""
    is_end: bool
    is_empty: bool = False
    """The days of the step had nothing to examine."""


class JobWalk:
    """The walk of one job, or of the count before it (`job_id` is None). Keeps no state but the pace."""

    def __init__(
        self, kind: str, criteria: Criteria, target: Target | None, job_id: str | None = None
    ) -> None:
        self._kind = kind
        self._target = target
        if target is not None:
            criteria = replace(criteria, tenant=target.tenant)
        self._criteria = criteria
        self._job_id = job_id
        text = criteria.text
        self._text_values = ANY_TEXT if text is None else (*text.values(),)
        self._text = None if text is None else text.text
        self._by_events = target is not None and not criteria.names_deliveries()
        self._oldest: date | None = None
        self._examine = PICKED_MAX

    def reached(self, cursor: str | None) -> datetime | None:
        """Return until when deliveries, or events, have been examined at a cursor."""
        if cursor is None:
            return None
        if self._by_events:
            return datetime.fromisoformat(cursor.partition(_SEPARATOR)[0])
        return moment_of_uuid(UUID(cursor))

    async def next(self, database: "Database", cursor: str | None) -> Batch:
        """Return the candidates behind a cursor, at most `PICKED_MAX`; None is the beginning.

        Raises:
            StoreUnavailableError: not just now.
        """
        while True:
            # One transaction for each month, so that the locks of its partitions are released.
            async with database.transaction() as connection:
                await connection.execute(PLAN_FOR_VALUES)
                if self._oldest is None:
                    self._oldest = await oldest_day(connection)
                if self._oldest is None:
                    return Batch([], cursor, is_end=True)
                if self._by_events:
                    batch = await self._next_events(connection, cursor)
                else:
                    batch = await self._next_deliveries(connection, cursor)
                candidates = await self._judged(connection, batch.candidates)
            if batch.is_end or not batch.is_empty:
                return batch._replace(candidates=candidates)
            cursor = batch.cursor

    def _days(self, first: date) -> tuple[date, date, bool]:
        """Return the days of a step that begins with this one, and whether they are the last."""
        assert self._oldest is not None  # noqa: S101 -- read before the first step
        end = self._criteria.until.astimezone(UTC).date()
        first = min(max(first, self._oldest), end)  # a filter may begin in the year 9999
        last = first + timedelta(days=DAYS_AT_ONCE - 1)
        return first, last, last >= end

    def _pace(self, examined: int, fit: int) -> None:
        """Examine more rows at once where few of them fit."""
        most = EXAMINED_MAX if self._text is None else EXAMINED_FOR_TEXT_MAX
        self._examine = most if fit * 5 < examined else PICKED_MAX

    async def _next_deliveries(self, connection: "Reach", cursor: str | None) -> Batch:
        wanted = self._criteria
        behind = UUID(cursor) if cursor else first_uuid(wanted.since) or UUID(bytes(16))
        first, last, is_last = self._days(day_of_uuid(behind))
        examine = self._examine
        rows = await connection.fetch(
            _PICK_DELIVERIES,
            behind,
            first_uuid(wanted.until),
            first,
            last,
            PICKED_MAX,
            examine,
            wanted.endpoint_no,
            wanted.states,
            wanted.recoverable,
            wanted.tenant,
            wanted.event_type,
            codes.type_filter_code(wanted.event_type),
            _json(wanted.labels),
            wanted.event_ids,
            wanted.finished_since,
            "resend" if self._target is not None else self._kind,
            wanted.profiles,
            wanted.responses,
            None if wanted.ids is None else [uuid_of(one) for one in wanted.ids],
            *self._text_values,
            self._text,
        )
        examined, last_id = rows[0]["examined_count"], rows[0]["last_id"]
        found = [row for row in rows if row["id"] is not None]
        self._pace(examined, len(found))
        if self._target is None:
            candidates = [
                Candidate(
                    str(row["id"]), row["id"], row["day"], row["event_id"], row["endpoint_no"],
                    row["event_type_code"], row["state"], row["obstacle"],
                )
                for row in found
            ]  # fmt: skip
        else:
            candidates = self._of_events(found)
        end = candidates[-1].cursor if candidates else cursor
        if len(found) == PICKED_MAX:
            return Batch(candidates, end, is_end=False)
        if examined == examine:
            return Batch(candidates, max(end or "", str(last_id)), is_end=False)
        midnight = datetime.combine(last + timedelta(days=1), time(), UTC)
        place = end if is_last else str(first_uuid(midnight))
        return Batch(candidates, place, is_end=is_last, is_empty=not examined)

    def _of_events(self, rows: "Sequence[Record]") -> list[Candidate]:
        """Return the target's deliveries of these deliveries' events, each event once.

        The deliveries of an event lie next to each other: the place behind one is behind all of them.
        """
        found: dict[tuple[date, str], Candidate] = {}
        for row in rows:
            key = row["day"], row["event_id"]
            if key not in found:
                obstacle = "event_erased" if row["obstacle"] == "event_erased" else None
                high = ""
                if row["inserted_at"] is not None:
                    high = str(span_of_event(row["inserted_at"], *key)[1])
                found[key] = self._to_target(high or str(row["id"]), row, row["event_id"], obstacle)
        return list(found.values())

    async def _next_events(self, connection: "Reach", cursor: str | None) -> Batch:
        wanted, target = self._criteria, self._target
        assert target is not None  # noqa: S101 -- decided when the walk began
        if cursor is None:
            assert self._oldest is not None  # noqa: S101 -- read before the first step
            beginning = datetime.combine(self._oldest, time(), UTC)
            at, last_id = max(wanted.since or beginning, beginning), ""
        else:
            text, _, last_id = cursor.partition(_SEPARATOR)
            at = datetime.fromisoformat(text)
        first, last, is_last = self._days(at.astimezone(UTC).date())
        examine = self._examine
        rows = await connection.fetch(
            _PICK_EVENTS, at, last_id, wanted.until, first, last, PICKED_MAX, examine,
            target.tenant, wanted.event_type, _json(wanted.labels),
            wanted.event_ids, target.content_filter is not None, *self._text_values,
        )  # fmt: skip
        examined = rows[0]["examined_count"]
        found = [row for row in rows if row["id"] is not None]
        self._pace(examined, len(found))
        candidates = [
            self._to_target(_place(row["accepted_at"], row["id"]), row, row["id"], row["obstacle"])
            for row in found
        ]
        if len(found) == PICKED_MAX:
            return Batch(candidates, candidates[-1].cursor, is_end=False)
        if examined == examine:
            return Batch(candidates, _place(rows[0]["last_at"], rows[0]["last_id"]), is_end=False)
        midnight = datetime.combine(last + timedelta(days=1), time(), UTC)
        end = candidates[-1].cursor if candidates else cursor
        place = end if is_last else _place(midnight, "")
        return Batch(candidates, place, is_end=is_last, is_empty=not examined)

    def _to_target(
        self, cursor: str, row: "Record", event_id: str, obstacle: str | None
    ) -> Candidate:
        """Return the target's delivery of an event."""
        target = self._target
        assert target is not None  # noqa: S101 -- only walks with a target come here
        event_type = row["type"]
        if obstacle is None and not (
            row["tenant"] == target.tenant
            and target.subscription.matches(event_type)
            and labels_match(target.labels, labels := orjson.loads(row["labels"]))
            and (
                target.content_filter is None
                or target.content_filter.evaluate(
                    EventValues(event_id, event_type, target.tenant, row["data"], labels)
                ).matched
            )
        ):
            obstacle = "not_subscribed"
        inserted_at = row["inserted_at"]
        if inserted_at is None:  # the event is gone
            return Candidate(
                cursor, row["id"], row["day"], event_id, target.number, 0, None, "event_erased"
            )
        unix_ms = ids.delivery_unix_ms(inserted_at, row["day"])
        delivery_id = uuid_of(ids.delivery_id(unix_ms, event_id, target.id))
        code = codes.event_type_code(event_type)
        return Candidate(
            cursor, delivery_id, row["day"], event_id, target.number, code, None, obstacle
        )

    async def _judged(
        self, connection: "Reach", candidates: Sequence[Candidate]
    ) -> list[Candidate]:
        """Return the candidates with their states, and with what else keeps them from being sent."""
        free = [one for one in candidates if one.obstacle is None]
        if not free:
            return list(candidates)
        rows = await connection.fetch(
            _BUSY, [one.id for one in free], [one.day for one in free], self._job_id, _days(free)
        )
        facts = {row["id"]: row for row in rows}
        return [
            one if one.obstacle is not None else self._judge(one, facts[one.id])
            for one in candidates
        ]

    def _judge(self, candidate: Candidate, facts: "Record") -> Candidate:
        state, obstacle = facts["state"], None
        if facts["in_another_job"]:
            obstacle = "in_another_job"
        elif self._kind == "replay" and (
            facts["resend_waits"] or (state is not None and state <= codes.STATE_CODES["retrying"])
        ):
            obstacle = "already_waiting"
        return candidate._replace(state=state, obstacle=obstacle)


async def start(
    connection: "Reach",
    kind: str,
    candidates: Sequence[Candidate],
    *,
    target_id: str | None,
    job_id: str,
    actor: str,
) -> int:
    """Start these deliveries in the caller's transaction, and return how many were started.

    The others have changed since they were picked.
    """
    await connection.execute(PLAN_FOR_VALUES)
    present = [one for one in candidates if one.state is not None]
    absent = [one for one in candidates if one.state is None] if target_id is not None else []
    started = 0
    if present:
        values = [
            [one.id for one in present],
            [one.day for one in present],
            [one.event_id for one in present],
            [one.endpoint_no for one in present],
            [one.state for one in present],
            job_id,
        ]
        if kind == "resend":
            started += await connection.fetchval(_RESEND, *values, actor, _days(present))
        else:
            started += await connection.fetchval(_REPLAY, *values, _days(present))
    if absent:
        started += await connection.fetchval(
            _OPEN,
            [one.id for one in absent],
            [one.day for one in absent],
            [one.event_id for one in absent],
            [one.event_type_code for one in absent],
            target_id,
            job_id,
            _days(absent),
        )
    return started


def _days(candidates: Sequence[Candidate]) -> list[date]:
    """Return the days of some deliveries, each once: the constants of a plan."""
    return sorted({one.day for one in candidates})


def _json(labels: dict[str, str] | None) -> str | None:
    return orjson.dumps(labels).decode() if labels else None


def _place(at: datetime, event_id: str) -> str:
    return f"{at.isoformat()}{_SEPARATOR}{event_id}"
