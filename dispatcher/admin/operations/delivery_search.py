"""Finding deliveries: the way to what a filter names that reads least.

Most filters are walked newest first along an index (`delivery_page.sql`). What names events, a
request id, labels or a business key (`exact_match.py`), is looked up first: few events give their
deliveries exactly; labels that more than `EVENTS_MAX` events have are common, so the walk along the
deliveries meets them soon, and it begins at the newest of them. A text (`q`) is searched in phases
(`text_search.py`): what it names exactly, the endpoints with that name, and the contents of events.
"""

from collections import defaultdict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final

from dispatcher.admin.operations.context import Actor, Deployment, allowed_tenant
from dispatcher.admin.operations.delivery_filter import (
    changed,
    deliveries_of_events,
    end_of_day,
    in_two_parts,
    page_filters,
    response_codes,
    state_codes,
    with_endpoint_id,
)
from dispatcher.admin.operations.event_search import EVENTS_MAX
from dispatcher.admin.operations.exact_match import (
    ExactMatch,
    exact_match,
    label_path,
    requested_by,
    text_filter,
)
from dispatcher.admin.operations.known_types import KnownTypes
from dispatcher.admin.operations.text_search import (
    CONTENT,
    Found,
    Part,
    Phase,
    TextSearch,
    run_phases,
)
from dispatcher.admin.resources.delivery import DeliveriesQuery
from dispatcher.admin.resources.serialization import Place, labels_json
from dispatcher.core.text_pattern import text_pattern
from dispatcher.store.delivery_details import (
    DeliveryDetail,
    page_of_deliveries,
    page_of_endpoints_deliveries,
)
from dispatcher.store.events import (
    EventDetail,
    EventKey,
    events_of_id,
    keys_of_labelled_events,
    requested_events,
)
from dispatcher.store.job_walk import Criteria
from dispatcher.store.search import TextQuery, endpoints_named

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach


NAMED_MAX: Final = 1_000
"""Endpoints of a name whose deliveries a search lists."""
NAMED_AT_ONCE: Final = 50
"""Of those, how many one statement reads."""
CONTENT_EVENTS_MAX: Final = 100
"""Matching events of one slice; the rest of the slice is read afterwards."""
EVENTS_AT_ONCE: Final = 10
CONTENT_DELIVERIES_MAX: Final = 10_000
"""Of ten events: an event has at most as many deliveries as its tenant has endpoints."""
_JUST_AFTER: Final = "!"
"""Sorts before every character of an event's id, so that an id with it is the next one."""


class DeliverySearch:
    """Reads pages of deliveries."""

    def __init__(self, deployment: Deployment) -> None:
        self._database = deployment.database
        self._profiles = deployment.profiles
        self._types = KnownTypes(deployment)
        self._budget_seconds = deployment.settings.search.time_budget
        self._queue = deployment.searches

    async def find(
        self, actor: Actor, wanted: DeliveriesQuery, place: Place | None
    ) -> Found[DeliveryDetail]:
        """Return a page of the deliveries that a text is about.

        Raises:
            NotFoundError: the tenant is not the actor's. TooManyError: too many searches wait.
        """
        tenant = allowed_tenant(actor, wanted.tenant)
        text = (wanted.q or "").strip()
        pattern = text_pattern(text)
        async with self._queue.place():
            search = TextSearch(self._database, self._budget_seconds)
            async with self._database.reading() as connection:
                wanted = await with_endpoint_id(connection, tenant, wanted)
                exact = await exact_match(connection, self._profiles, tenant, wanted)
                named = await endpoints_named(connection, tenant, text, pattern, NAMED_MAX)
            content = TextQuery(
                pattern=pattern,
                tenant=tenant,
                type=wanted.event_type,
                labels=labels_json(wanted.label),
                test=wanted.test,
                since=wanted.since,
                until=None if wanted.until is None else end_of_day(wanted.until),
                known_id=text if exact.named else None,
                known_label=None if exact.named else label_path(text),
            )

            async def find_exact(before: Place | None, rows_max: int) -> Part[DeliveryDetail]:
                async with self._database.reading() as connection:
                    rows = await self._rows(connection, tenant, exact, before, rows_max)
                return Part.of(rows, _place)

            async def find_named(before: Place | None, rows_max: int) -> Part[DeliveryDetail]:
                numbers = [
                    number
                    for number, endpoint_id in named
                    if wanted.endpoint_id in {None, endpoint_id}
                ]
                if not numbers:
                    return Part(rows=[])
                rows: list[DeliveryDetail] = []
                async with self._database.reading() as connection:
                    known = await self._known_events(connection, tenant, exact)
                    while len(rows) < rows_max:
                        types = await self._types.of(connection, wanted.event_type)
                        filters = page_filters(tenant, wanted, before, rows_max, types=types)
                        batch = await _of_endpoints(connection, numbers, filters, rows_max)
                        rows += [row for row in batch if row.event_id not in known]
                        if len(batch) < rows_max:
                            break
                        before = _place(batch[-1])
                return Part.of(rows[:rows_max], _place)

            async def find_content(before: Place | None, rows_max: int) -> Part[DeliveryDetail]:
                ids_named = {endpoint_id for _, endpoint_id in named}
                return await self._of_contents(search, content, wanted, before, rows_max, ids_named)

            phases: list[tuple[str, Phase[DeliveryDetail]]] = [("exact", find_exact)]
            if not exact.is_all:
                phases += [("named", find_named), (CONTENT, find_content)]
            return await run_phases(phases, place, wanted.limit)

    async def _known_events(
        self, connection: "Reach", tenant: str | None, exact: ExactMatch
    ) -> set[str]:
        """Return the ids of the events that the phase of exact matches has listed, unless these are many."""
        if exact.named:
            return {key.id for key in exact.named}
        labels = exact.wanted.label
        path = exact.value_path
        if not labels and path is None:
            return set()
        text = labels_json(labels)
        found = await keys_of_labelled_events(
            connection, [text, path, tenant, None, None, None, EVENTS_MAX + 1]
        )
        return {key.id for key, _ in found} if len(found) <= EVENTS_MAX else set()

    async def _of_contents(
        self,
        search: TextSearch,
        content: TextQuery,
        wanted: DeliveriesQuery,
        before: Place | None,
        rows_max: int,
        ids_named: AbstractSet[str],
    ) -> Part[DeliveryDetail]:
        """Return the deliveries of matching events, in the events' order; `ids_named` were found before."""
        after_event, after_delivery = "", ""
        if before is not None:
            after_event, _, after_delivery = before.id.partition("/")
            # All of the event that the page before ended in, and of this one the deliveries that are left.
            before = Place(before.at, after_event + _JUST_AFTER if after_event else "")
        rows: list[tuple[DeliveryDetail, Place]] = []
        async for step in search.steps(content, before, CONTENT_EVENTS_MAX):
            for first in range(0, len(step.events), EVENTS_AT_ONCE):
                events = step.events[first : first + EVENTS_AT_ONCE]
                for event, deliveries in await self._deliveries(events, content, wanted):
                    assert event.accepted_at is not None  # noqa: S101 -- only accepted events are read here
                    for row in deliveries:
                        if row.endpoint_id in ids_named or (
                            event.id == after_event and row.id >= after_delivery
                        ):
                            continue
                        rows.append((row, Place(event.accepted_at, f"{event.id}/{row.id}")))
                        if len(rows) == rows_max:
                            return Part(rows=rows, searched_back_to=event.accepted_at)
            before = step.end
        end = None if search.is_complete else before
        return Part(rows=rows, stopped_at=end, searched_back_to=search.searched_back_to)

    async def _deliveries(
        self, events: Sequence[EventDetail], content: TextQuery, wanted: DeliveriesQuery
    ) -> list[tuple[EventDetail, list[DeliveryDetail]]]:
        """Return the deliveries of each event, the newest first."""
        keys = [EventKey(one.day, one.id, one.inserted_at) for one in events if one.day is not None]
        async with self._database.reading() as connection:
            rows = await deliveries_of_events(
                connection, keys, None, content.tenant, wanted, None, CONTENT_DELIVERIES_MAX
            )
        found: dict[tuple[date, str], list[DeliveryDetail]] = defaultdict(list)
        for row in rows:
            found[row.day, row.event_id].append(row)
        return [(one, found[key.day, key.id]) for one, key in zip(events, keys, strict=True)]

    async def rows(
        self,
        connection: "Reach",
        actor: Actor,
        wanted: DeliveriesQuery,
        place: Place | None,
        rows_max: int,
    ) -> list[DeliveryDetail]:
        """Return the newest deliveries of a filter after a place, of a text those that it names exactly.

        Raises:
            NotFoundError: the tenant is not the actor's.
        """
        tenant = allowed_tenant(actor, wanted.tenant)
        wanted = await with_endpoint_id(connection, tenant, wanted)
        exact = ExactMatch(wanted, [])
        if wanted.q:
            exact = await exact_match(connection, self._profiles, tenant, wanted)
        return await self._rows(connection, tenant, exact, place, rows_max)

    async def _rows(
        self,
        connection: "Reach",
        tenant: str | None,
        exact: ExactMatch,
        place: Place | None,
        rows_max: int,
    ) -> list[DeliveryDetail]:
        wanted, value_path = exact.wanted, exact.value_path
        if exact.named:
            return await deliveries_of_events(
                connection, exact.named, None, tenant, wanted, place, rows_max
            )
        if wanted.request_id is not None:
            requested = requested_by(self._profiles, wanted.request_id)
            if requested is None or (
                None not in {requested.test, wanted.test} and requested.test != wanted.test
            ):
                return []
            if requested.test is not None:
                wanted = changed(wanted, test=requested.test)
            events = await requested_events(connection, requested.digits, requested.profiles)
            return await deliveries_of_events(
                connection, events, requested.profiles, tenant, wanted, place, rows_max
            )
        labels = labels_json(wanted.label)
        if (labels or value_path) and wanted.event_id is None:
            day_max = None if place is None else place.at.date()
            found = await keys_of_labelled_events(
                connection,
                [labels, value_path, tenant, None, None, day_max, EVENTS_MAX + 1],
            )
            if len(found) <= EVENTS_MAX:
                rows: list[DeliveryDetail] = []
                for keys in in_two_parts([key for key, _ in found]):
                    missing = rows_max - len(rows)
                    rows += await deliveries_of_events(
                        connection, keys, None, tenant, wanted, place, missing
                    )
                    if len(rows) == rows_max:
                        break
                return rows
            newest = found[0][1] + timedelta(milliseconds=1)
            wanted = changed(wanted, until=min(newest, wanted.until or newest))
        types = await self._types.of(connection, wanted.event_type)
        filters = page_filters(
            tenant, wanted, place, rows_max, types=types, labels=labels, value_path=value_path
        )
        return await page_of_deliveries(connection, filters)

    async def criteria(
        self, connection: "Reach", actor: Actor, wanted: DeliveriesQuery, now: datetime
    ) -> Criteria:
        """Return what a job's filter comes to now.

        A text (`q`) means what it means in a list: what it names exactly, and what contains it.

        Raises:
            NotFoundError: the tenant is not the actor's.
        """
        tenant = allowed_tenant(actor, wanted.tenant)
        text, event_ids, profiles = None, None, None
        events: list[EventKey] | None = None
        if searched := wanted.q:
            exact = await exact_match(connection, self._profiles, tenant, wanted)
            if exact.is_all:
                wanted, events = exact.wanted, exact.named or None
            else:
                text = text_filter(searched)
        if wanted.request_id is not None:
            requested = requested_by(self._profiles, wanted.request_id)
            profiles = [] if requested is None else requested.profiles
            events = (
                await requested_events(connection, requested.digits, requested.profiles)
                if requested is not None
                else []
            )
        if wanted.event_id is not None:
            named = await events_of_id(connection, wanted.event_id)
            events = [one for one in named if events is None or one in events]
        since, until = wanted.since, min(now, wanted.until or now)
        if events is not None:
            event_ids = sorted({event.id for event in events})
            days = [event.day for event in events] or [until.astimezone(UTC).date()]
            first = datetime.combine(min(days), time(), UTC)
            last = datetime.combine(max(days), time(), UTC) + timedelta(days=1)
            since, until = max(since or first, first), min(until, last)
        return Criteria(
            since=since,
            until=until,
            tenant=tenant,
            endpoint_id=wanted.endpoint_id,
            states=state_codes(wanted),
            responses=response_codes(wanted),
            event_type=wanted.event_type,
            labels=dict(wanted.label) if wanted.label else None,
            text=text,
            event_ids=event_ids,
            profiles=profiles,
        )

    async def names_all(
        self, connection: "Reach", tenant: str | None, wanted: DeliveriesQuery
    ) -> bool:
        """Return whether a text is an id that the dispatcher made, so that nothing else can be meant."""
        return (await exact_match(connection, self._profiles, tenant, wanted)).is_all


async def _of_endpoints(
    connection: "Reach", numbers: Sequence[int], filters: Sequence[object], rows_max: int
) -> list[DeliveryDetail]:
    """Return the newest deliveries of these endpoints, read a part of the endpoints at a time."""
    rows: list[DeliveryDetail] = []
    for first in range(0, len(numbers), NAMED_AT_ONCE):
        part = numbers[first : first + NAMED_AT_ONCE]
        rows += await page_of_endpoints_deliveries(connection, part, filters)
    return sorted(rows, key=lambda row: row.id, reverse=True)[:rows_max]


def _place(row: DeliveryDetail) -> Place:
    return Place(row.created_at, row.id)
