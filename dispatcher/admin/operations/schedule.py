"""The schedule of waiting deliveries: listed by due time; made due, postponed or cancelled by filter.

A list is read from the index of due times, endpoint by endpoint. Conditions on events (type, labels) are compared a
slice at a time, and a call examines at most `EXAMINED_MAX` deliveries. A change first collects the deliveries that
match, so that none is met twice when its due time moves, and then changes them in batches, each a transaction with
the request that their dispatchers read the schedule again. An interrupted call has changed the batches before.
"""

import asyncio
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from dispatcher.admin.operations.context import ALL_TENANTS, Actor, Deployment, Role, allowed_tenant
from dispatcher.admin.operations.deliveries import ALL_ENDPOINTS
from dispatcher.admin.operations.delivery_filter import with_endpoint_id
from dispatcher.admin.operations.delivery_search import DeliverySearch
from dispatcher.admin.operations.exact_match import text_filter
from dispatcher.admin.operations.reasons import Circumstances, next_step
from dispatcher.admin.resources.schedule import (
    Rescheduled,
    ScheduledDelivery,
    ScheduleFilter,
    SchedulePage,
    ScheduleQuery,
    SelectionFilter,
)
from dispatcher.admin.resources.serialization import (
    Place,
    cursor_scope,
    labels_json,
    read_cursor,
    time_text,
    write_cursor,
)
from dispatcher.core import codes, ids
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.model import DeliveryState, EndpointId
from dispatcher.core.problems import problem
from dispatcher.core.text_pattern import text_pattern
from dispatcher.store import schedule as store
from dispatcher.store.audit import write_audit
from dispatcher.store.delivery_details import DeliveryDetail
from dispatcher.store.delivery_ids import first_uuid, uuid_of
from dispatcher.store.leases import replicas_alive
from dispatcher.store.routing import Endpoints
from dispatcher.store.schedule import ScheduledRow
from dispatcher.store.search import TextFilter, endpoints_named

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

CHANGED_MAX: Final = 100_000
"""Deliveries that one call changes: their ids are in memory, and the call takes some ten seconds."""
LISTED_MAX: Final = 10_000
"""Deliveries of an event, a request or an id that one call considers, of each state."""
NAMED_MAX: Final = 100_000
"""Endpoints whose name contains a text."""
EXAMINED_MAX: Final = 20_000
"""Deliveries whose events one page compares with a type and labels: about a second."""
SLICE_ROWS: Final = 2_000
BATCH_ROWS: Final = 500
TRIES: Final = 3
"""A row that a recorder holds is skipped; its transaction takes milliseconds, and then the row is tried again."""
AGAIN_SECONDS: Final = 0.05
_OPEN: Final = (DeliveryState.PENDING, DeliveryState.RETRYING)


class Change(StrEnum):
    """What is done to waiting deliveries."""

    RETRY = "retry"
    POSTPONE = "postpone"
    CANCEL = "cancel"


class _Match(NamedTuple):
    """A waiting delivery that matches, and the type of its event."""

    row: ScheduledRow
    event_type: str


class Schedule:
    """The waiting deliveries of a deployment, by due time."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._database = deployment.database
        self._search = DeliverySearch(deployment)

    async def page(
        self,
        actor: Actor,
        query: ScheduleQuery = ScheduleQuery(),  # noqa: B008 -- frozen
    ) -> SchedulePage:
        """Return a page of waiting deliveries, by due time.

        Raises:
            InvalidRequestError: the cursor is another filter's. NotFoundError: the tenant is not the actor's.
        """
        scope = cursor_scope("schedule", actor.tenant, query.given())
        place = read_cursor(query.cursor, scope)
        if place is not None and not ids.is_id(place.id, ids.DELIVERY_PREFIX):
            raise InvalidRequestError([problem("cursor", "invalid_cursor")])
        async with self._database.reading() as connection:
            found, rest = await self._matching(
                connection, actor, query, None, place, query.limit + 1, EXAMINED_MAX
            )
            alive = await replicas_alive(connection)
        if len(found) > query.limit:
            found = found[: query.limit]
            rest = Place(found[-1].row.next_attempt_at, found[-1].row.id)
        problems = await self._problems([one.row.endpoint_id for one in found])
        now = self._deployment.clock.now()
        return SchedulePage(
            items=[_scheduled(one, problems.get(one.row.endpoint_id), alive, now) for one in found],
            next_cursor=None if rest is None else write_cursor(rest, scope),
        )

    async def _problems(self, endpoint_ids: Sequence[str]) -> dict[str, str]:
        """Return why the configuration lets some of these endpoints not be sent to, by id."""
        wanted = sorted({EndpointId(one) for one in endpoint_ids})
        rows = await Endpoints(self._database).load(wanted) if wanted else []
        return {
            row.id: found.detail
            for row in rows
            if (found := self._deployment.problem_of(row)) is not None
        }

    async def change(
        self,
        actor: Actor,
        change: Change,
        wanted: SelectionFilter,
        *,
        dry_run: bool,
        by_seconds: float | None = None,
        due_at: datetime | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Rescheduled:
        """Make the waiting deliveries of a filter due now, postpone or cancel them; `dry_run` only counts them.

        A retry is a scheduled attempt: breaker, rate and pause hold, and a failure goes on with the schedule. A
        postponement never makes a delivery due earlier. A delivery in flight is not stopped. `progress` is called
        with the count so far. The filter is audited once.

        Raises:
            ForbiddenError: no operator. InvalidRequestError: the filter is empty; a postponement has not exactly one
            of `by_seconds` and `due_at`; or more than `CHANGED_MAX` match a postponement by a duration, which cannot be
            repeated for the rest. NotFoundError: the tenant is not the actor's. TooManyError: too many calls.
        """
        actor.require(Role.OPERATOR)
        if not wanted.given():
            raise InvalidRequestError([problem("filter", "empty_filter")])
        if change is Change.POSTPONE and (by_seconds is None) == (due_at is None):
            code = "required" if due_at is None else "conflicting"
            raise InvalidRequestError([problem("due_at", code, other="by_seconds")])
        now = self._deployment.clock.now()
        if change is Change.RETRY:  # the others are due already
            wanted = wanted.model_copy(update={"due_since": max(now, wanted.due_since or now)})
        elif due_at is not None:
            wanted = wanted.model_copy(
                update={"due_until": min(due_at, wanted.due_until or due_at)}
            )
        tenant = allowed_tenant(actor, wanted.tenant)
        if not dry_run:
            self._deployment.send_limits.take_send(actor.name, wanted.endpoint_id or ALL_ENDPOINTS)
        async with self._database.reading() as connection:
            found, rest = await self._matching(
                connection, actor, wanted, wanted.ids, None, CHANGED_MAX + 1, 10 * CHANGED_MAX
            )
        is_capped = rest is not None or len(found) > CHANGED_MAX
        if is_capped and by_seconds is not None:
            raise InvalidRequestError([problem("filter", "too_many_matches", maximum=CHANGED_MAX)])
        chosen = [one.row.id for one in found[:CHANGED_MAX]]
        count = len(chosen)
        if not dry_run:
            detail = {"filter": wanted.given(), "count": count}
            if by_seconds is not None or due_at is not None:
                detail |= {"by_seconds": by_seconds, "due_at": time_text(due_at)}
            async with self._database.transaction() as connection:
                whose = tenant or ALL_TENANTS
                await write_audit(
                    connection, actor.name, whose, f"schedule.{change}", "deliveries", detail
                )
            count = 0
            for first in range(0, len(chosen), BATCH_ROWS):
                batch = chosen[first : first + BATCH_ROWS]
                count += await self._apply(actor, change, batch, by_seconds, due_at)
                progress(count)
        return Rescheduled(count=count, capped=is_capped, limit=CHANGED_MAX, dry_run=dry_run)

    async def _apply(
        self,
        actor: Actor,
        change: Change,
        batch: Sequence[str],
        by_seconds: float | None,
        due_at: datetime | None,
    ) -> int:
        """Change a batch; return how many still waited. What a recorder holds is tried again."""
        left = list(batch)
        for attempt in range(TRIES):
            if attempt:
                await asyncio.sleep(AGAIN_SECONDS)
            async with self._database.transaction() as connection:
                if change is Change.CANCEL:
                    done = await store.cancel_deliveries(connection, left, actor=actor.name)
                else:
                    done = await store.move_deliveries(
                        connection, left, until=due_at, by_seconds=by_seconds, actor=actor.name
                    )
            left = [one for one in left if one not in done]
            if not left:
                break
        return len(batch) - len(left)

    async def _matching(
        self,
        connection: "Reach",
        actor: Actor,
        wanted: ScheduleFilter,
        chosen: Sequence[str] | None,
        place: Place | None,
        rows_max: int,
        examined_max: int,
    ) -> tuple[list[_Match], Place | None]:
        """Return waiting deliveries of a filter after a place, and where to go on; None: nowhere."""
        tenant = allowed_tenant(actor, wanted.tenant)
        wanted = await with_endpoint_id(connection, tenant, wanted)
        states = _open_states(wanted)
        if not states:
            return [], None
        filters = [
            tenant,
            wanted.endpoint_id,
            codes.type_filter_code(wanted.event_type),
            None if len(states) > 1 else states[0] is DeliveryState.RETRYING,
            wanted.due_since,
            wanted.due_until,
            first_uuid(wanted.since),
            first_uuid(wanted.until),
        ]
        if chosen is not None:
            chosen = [one for one in chosen if ids.is_id(one, ids.DELIVERY_PREFIX)]
        text, named = None, frozenset[str]()
        is_listed = bool(wanted.event_id or wanted.request_id)
        if wanted.q:
            if await self._search.names_all(connection, tenant, wanted.listing()):
                is_listed = True
            else:
                text = text_filter(wanted.q)
                rows_named = await endpoints_named(
                    connection, tenant, text.text, text_pattern(text.text), NAMED_MAX
                )
                named = frozenset(endpoint_id for _, endpoint_id in rows_named)
                wanted = wanted.model_copy(update={"q": None})
        if is_listed:
            listed = await self._listed(connection, actor, wanted)
            chosen = listed if chosen is None else [one for one in chosen if one in set(listed)]
        if chosen is not None:
            rows = await store.read_schedule_of(connection, chosen, filters)
            after = [row for row in rows if place is None or _place_of(row) > place]
            found = await self._of_events(connection, wanted, after, text, named)
            return found[:rows_max], None
        found = []
        examined = 0
        slice_rows = min(SLICE_ROWS, rows_max)
        while True:
            last = (None, None) if place is None else (place.at, uuid_of(place.id))
            rows = await store.read_schedule(connection, [*filters, *last, slice_rows])
            found += await self._of_events(connection, wanted, rows, text, named)
            if len(found) >= rows_max:
                found = found[:rows_max]
                return found, _place_of(found[-1].row)
            if len(rows) < slice_rows:
                return found, None
            place = _place_of(rows[-1])
            examined += len(rows)
            if examined >= examined_max:
                return found, place
            slice_rows = SLICE_ROWS

    async def _listed(self, connection: "Reach", actor: Actor, wanted: ScheduleFilter) -> list[str]:
        """Return the waiting deliveries that a list of deliveries finds by an id."""
        found: list[str] = []
        for state in _open_states(wanted):
            listing = wanted.listing().model_copy(update={"state": state})
            rows = await self._search.rows(connection, actor, listing, None, LISTED_MAX)
            found += [row.id for row in rows]
        return found

    async def _of_events(
        self,
        connection: "Reach",
        wanted: ScheduleFilter,
        rows: Sequence[ScheduledRow],
        text: TextFilter | None,
        named: AbstractSet[str],
    ) -> list[_Match]:
        """Return those of the deliveries whose event has the type and the labels, and it or its endpoint the text."""
        labels = labels_json(wanted.label)
        events = await store.match_events(
            connection, [(row.day, row.event_id) for row in rows], wanted.event_type, labels, text
        )
        found: list[_Match] = []
        for row in rows:
            event = events.get((row.day, row.event_id))
            is_named = text is None or row.endpoint_id in named
            if event is None and wanted.event_type is None and labels is None and is_named:
                found.append(_Match(row, ""))  # its event's row is not there
            elif event is not None and event.matches and (is_named or event.has_text):
                found.append(_Match(row, event.type))
        return found


def _open_states(wanted: ScheduleFilter) -> list[DeliveryState]:
    """Return the states of waiting deliveries that a filter has."""
    return [one for one in _OPEN if wanted.state is None or one in wanted.state.split(",")]


def _place_of(row: ScheduledRow) -> Place:
    return Place(row.next_attempt_at.astimezone(UTC), row.id)


def _scheduled(found: _Match, unusable: str | None, alive: int, now: datetime) -> ScheduledDelivery:
    row = found.row
    around = Circumstances(
        endpoint_state=row.endpoint_state,
        rate_limit=row.rate_limit,
        breaker_state=row.breaker_state,
        probe_at=row.probe_at,
        is_pulled=row.is_pulled,
        dispatchers_alive=alive,
        problem=unusable,
        now=now,
    )
    delivery = DeliveryDetail(
        id=row.id,
        day=row.day,
        event_id=row.event_id,
        endpoint_id=row.endpoint_id,
        event_type=found.event_type,
        tenant=row.tenant,
        profile=row.profile,
        state=DeliveryState.RETRYING if row.schedule_position else DeliveryState.PENDING,
        reason=None,
        test=False,
        attempt_count=row.attempt_count,
        schedule_position=row.schedule_position,
        next_attempt_at=row.next_attempt_at,
        created_at=ids.moment_of(row.id),
        finished_at=None,
        warnings=row.warnings,
    )
    return ScheduledDelivery(
        id=row.id,
        event_id=row.event_id,
        event_type=found.event_type,
        endpoint_id=row.endpoint_id,
        endpoint_name=row.endpoint_name,
        tenant=row.tenant,
        attempt_number=row.attempt_count + 1,
        due_at=time_text(row.next_attempt_at),
        waits_for=next_step(delivery, around),
    )
