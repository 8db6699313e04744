"""Finding deliveries and events: the filter, and the way to what it names that reads least.

Most filters are walked newest first along an index (`delivery_page.sql`). What names events, a
request id, labels or a business key, is looked up first: few events give their deliveries exactly;
labels that more than `EVENTS_MAX` events have are common, so the walk along the deliveries meets
them soon, and it begins at the newest of them. A text (`q`) is searched in phases (`text_search.py`):
what it names exactly, the endpoints with that name, and the contents of events.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import orjson

from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.endpoints import allowed_tenant
from dispatcher.admin.operations.text_search import (
    CONTENT,
    Found,
    Part,
    Phase,
    TextSearch,
    run_phases,
)
from dispatcher.admin.resources.delivery import REQUEST_ID, DeliveriesFilter, DeliveriesQuery
from dispatcher.admin.resources.event import RESERVED_ID, EventsQuery
from dispatcher.admin.resources.serialization import Place
from dispatcher.core import codes, ids
from dispatcher.core.errors import InvalidRequestError, NotFoundError
from dispatcher.core.matching import EVERYTHING, is_operational, type_fits
from dispatcher.core.problems import problem
from dispatcher.core.profile import FieldSource
from dispatcher.core.response_classes import class_codes
from dispatcher.core.text_pattern import text_pattern
from dispatcher.store.delivery_details import (
    DeliveryDetail,
    find_delivery,
    page_of_deliveries,
    page_of_endpoints_deliveries,
    page_of_events_deliveries,
)
from dispatcher.store.delivery_ids import day_of_uuid, first_uuid, uuid_of
from dispatcher.store.endpoints import find_targets
from dispatcher.store.events import (
    EventDetail,
    EventKey,
    events_of_id,
    find_event,
    keys_of_labelled_events,
    page_of_certain_events,
    page_of_events,
    read_recent_types,
    requested_events,
)
from dispatcher.store.job_walk import Criteria
from dispatcher.store.search import TextFilter, TextQuery, endpoints_named, search_waiting

if TYPE_CHECKING:
    from uuid import UUID

    from dispatcher.store.pool import Reach

_Filter = TypeVar("_Filter", bound=DeliveriesFilter)
_LABEL: Final = re.compile(r"([a-z0-9_.-]{1,64})=(.+)", re.DOTALL)
EVENTS_MAX: Final = 1_000
"""Events that a label may have for their deliveries to be read one by one: some 5 µs each."""
EVENTS_FIRST: Final = 100
"""Of those, how many are looked at first: each costs four pages of the index, and a page shows fifty deliveries."""


NAMED_MAX: Final = 1_000
"""Endpoints of a name whose deliveries a search lists."""
NAMED_AT_ONCE: Final = 50
"""Of those, how many one statement reads."""
CONTENT_EVENTS_MAX: Final = 100
"""Matching events of one slice; the rest of the slice is read afterwards."""
EVENTS_AT_ONCE: Final = 10
CONTENT_DELIVERIES_MAX: Final = 10_000
"""Of ten events: an event has at most as many deliveries as its tenant has endpoints."""
RECENT_EVENTS_MAX: Final = 5_000
"""Newest events whose types a pattern is compared with at once."""
RECENT_TYPES_MAX: Final = 1_000
RECENT_TYPES_PERIOD: Final = timedelta(days=7)
RECENT_TYPES_SECONDS: Final = 60.0
"""For so long the types of recent events are kept: they cost some milliseconds, and change no result."""
_JUST_AFTER: Final = "!"
"""Sorts before every character of an event's id, so that an id with it is the next one."""


class _Requested(NamedTuple):
    """What a request id names: its digits, the profiles that have such ids, and whether of a test."""

    digits: bytes
    profiles: list[str]
    test: bool | None


class _Exact(NamedTuple):
    """What a text names exactly."""

    wanted: DeliveriesQuery
    """The filter with the id or the label that the text is."""
    named: list[EventKey]
    """The events of which the text is the id."""
    value_path: str | None = None
    """A JSON path for labels with the text as their value."""
    is_all: bool = False
    """Whether nothing else can be meant: the text is an id that the dispatcher made."""


class KnownTypes:
    """The types of the catalogue and of recent events; a pattern rejects a delivery of these by its row alone.

    A type that is missing here costs a look at the event of each of its deliveries, and changes no result.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._clock = deployment.clock
        self._catalogue = tuple(deployment.catalogue.types)
        self._kept: tuple[float, tuple[str, ...]] | None = None

    async def of(self, connection: "Reach", pattern: str | None) -> tuple[str, ...]:
        """Return the types that a filter is compared with; without a pattern none are."""
        if pattern is None or not pattern.endswith(EVERYTHING) or pattern == EVERYTHING:
            return ()
        now = self._clock.monotonic()
        if self._kept is None or self._kept[0] < now:
            since = self._clock.now() - RECENT_TYPES_PERIOD
            rows, _, _ = await read_recent_types(
                connection, since, None, RECENT_EVENTS_MAX, RECENT_TYPES_MAX
            )
            types = dict.fromkeys([*self._catalogue, *(row.type for row in rows)])
            self._kept = now + RECENT_TYPES_SECONDS, tuple(types)
        return self._kept[1]


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
                exact = await self._resolve(connection, tenant, wanted)
                named = await endpoints_named(connection, tenant, text, pattern, NAMED_MAX)
            content = TextQuery(
                pattern=pattern,
                tenant=tenant,
                type=wanted.event_type,
                labels=orjson.dumps(dict(wanted.label)).decode() if wanted.label else None,
                test=wanted.test,
                since=wanted.since,
                until=None if wanted.until is None else _end_of_day(wanted.until),
                known_id=text if exact.named else None,
                known_label=None if exact.named else _label_path(text),
            )

            async def find_exact(before: Place | None, rows_max: int) -> Part[DeliveryDetail]:
                async with self._database.reading() as connection:
                    rows = await self._rows(connection, tenant, exact, before, rows_max)
                return Part(rows=[(row, Place(row.created_at, row.id)) for row in rows])

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
                        filters = _filters(tenant, wanted, before, rows_max, types=types)
                        batch = await _of_endpoints(connection, numbers, filters, rows_max)
                        rows += [row for row in batch if row.event_id not in known]
                        if len(batch) < rows_max:
                            break
                        before = Place(batch[-1].created_at, batch[-1].id)
                found = [(row, Place(row.created_at, row.id)) for row in rows]
                return Part(rows=found[:rows_max])

            async def find_content(before: Place | None, rows_max: int) -> Part[DeliveryDetail]:
                ids_named = {endpoint_id for _, endpoint_id in named}
                return await self._of_contents(search, content, wanted, before, rows_max, ids_named)

            phases: list[tuple[str, Phase[DeliveryDetail]]] = [("exact", find_exact)]
            if not exact.is_all:
                phases += [("named", find_named), (CONTENT, find_content)]
            return await run_phases(phases, place, wanted.limit)

    async def _known_events(
        self, connection: "Reach", tenant: str | None, exact: _Exact
    ) -> set[str]:
        """Return the ids of the events that the phase of exact matches has listed, unless these are many."""
        if exact.named:
            return {key.id for key in exact.named}
        labels = exact.wanted.label
        path = exact.value_path
        if not labels and path is None:
            return set()
        text = orjson.dumps(dict(labels)).decode() if labels else None
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
            rows = await _of_events(
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
        exact = _Exact(wanted, [])
        if wanted.q:
            exact = await self._resolve(connection, tenant, wanted)
        return await self._rows(connection, tenant, exact, place, rows_max)

    async def _rows(
        self,
        connection: "Reach",
        tenant: str | None,
        exact: _Exact,
        place: Place | None,
        rows_max: int,
    ) -> list[DeliveryDetail]:
        wanted, value_path = exact.wanted, exact.value_path
        if exact.named:
            return await _of_events(connection, exact.named, None, tenant, wanted, place, rows_max)
        if wanted.request_id is not None:
            requested = self._requested(wanted.request_id)
            if requested is None or (
                None not in {requested.test, wanted.test} and requested.test != wanted.test
            ):
                return []
            if requested.test is not None:
                wanted = _changed(wanted, test=requested.test)
            events = await requested_events(connection, requested.digits, requested.profiles)
            return await _of_events(
                connection, events, requested.profiles, tenant, wanted, place, rows_max
            )
        labels = orjson.dumps(dict(wanted.label)).decode() if wanted.label else None
        if (labels or value_path) and wanted.event_id is None:
            day_max = None if place is None else place.at.date()
            found = await keys_of_labelled_events(
                connection,
                [labels, value_path, tenant, None, None, day_max, EVENTS_MAX + 1],
            )
            if len(found) <= EVENTS_MAX:
                rows: list[DeliveryDetail] = []
                for keys in _in_two_parts([key for key, _ in found]):
                    missing = rows_max - len(rows)
                    rows += await _of_events(connection, keys, None, tenant, wanted, place, missing)
                    if len(rows) == rows_max:
                        break
                return rows
            newest = found[0][1] + timedelta(milliseconds=1)
            wanted = _changed(wanted, until=min(newest, wanted.until or newest))
        types = await self._types.of(connection, wanted.event_type)
        filters = _filters(
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
        if wanted.q:
            exact = await self._resolve(connection, tenant, wanted)
            if exact.is_all:
                wanted, events = exact.wanted, exact.named or None
            else:
                text = text_filter(wanted.q)
        if wanted.request_id is not None:
            requested = self._requested(wanted.request_id)
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
            states=_state_codes(wanted),
            responses=_response_codes(wanted),
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
        return (await self._resolve(connection, tenant, wanted)).is_all

    async def _resolve(
        self, connection: "Reach", tenant: str | None, wanted: DeliveriesQuery
    ) -> _Exact:
        """Return what a text names exactly: an id, or a label."""
        text = (wanted.q or "").strip()
        if ids.is_id(text, ids.DELIVERY_PREFIX):
            row = await find_delivery(connection, text, tenant)
            if row is not None and (wanted.event_id or row.event_id) == row.event_id:
                endpoint_id = wanted.endpoint_id or row.endpoint_id
                if endpoint_id == row.endpoint_id:
                    found = _changed(wanted, event_id=row.event_id, endpoint_id=endpoint_id)
                    return _Exact(found, [], is_all=True)
        requested = REQUEST_ID.fullmatch(text)
        if requested is not None and requested[1] and self._requested(text) is not None:
            return _Exact(_changed(wanted, request_id=text), [], is_all=True)
        label = _LABEL.fullmatch(text)
        if label is not None:
            labels = {**(wanted.label or {}), label[1]: label[2]}
            return _Exact(_changed(wanted, label=labels), [])
        named = await events_of_id(connection, text)
        is_all = bool(named) and RESERVED_ID.fullmatch(text) is not None
        return _Exact(wanted, named, _value_path(text), is_all)

    def _requested(self, text: str) -> _Requested | None:
        """Reads a request id, with or without its prefix; None: no profile makes such ids."""
        match = REQUEST_ID.fullmatch(text)
        if match is None:
            return None
        prefix, digits = match[1], match[2]
        profiles, kinds = [], set()
        for profile in self._profiles.values():
            for field in profile.fields:
                if field.source is not FieldSource.REQUEST_ID:
                    continue
                for kind, known in ((False, field.prefix), (True, field.test_prefix)):
                    if prefix in {None, known}:
                        profiles.append(profile.name)
                        kinds.add(kind)
        if not profiles:
            return None
        return _Requested(bytes.fromhex(digits), profiles, kinds.pop() if len(kinds) == 1 else None)


class EventSearch:
    """Reads pages of events."""

    def __init__(self, deployment: Deployment) -> None:
        self._database = deployment.database
        self._budget_seconds = deployment.settings.search.time_budget
        self._queue = deployment.searches

    async def find(
        self, actor: Actor, wanted: EventsQuery, place: Place | None
    ) -> Found[EventDetail]:
        """Return a page of the events that a text is about.

        Raises:
            NotFoundError: the tenant is not the actor's. TooManyError: too many searches wait.
        """
        tenant = allowed_tenant(actor, wanted.tenant)
        text = (wanted.q or "").strip()
        async with self._queue.place():
            search = TextSearch(self._database, self._budget_seconds)
            async with self._database.reading() as connection:
                known = await find_event(connection, text, tenant)
            content = TextQuery(
                pattern=text_pattern(text),
                tenant=tenant,
                type=wanted.wanted_type,
                labels=orjson.dumps(dict(wanted.label)).decode() if wanted.label else None,
                test=wanted.test,
                since=wanted.since,
                until=wanted.until,
                system=wanted.system,
                known_id=None if known is None else known.id,
                known_label=None if known is not None else _label_path(text),
            )

            async def find_exact(before: Place | None, rows_max: int) -> Part[EventDetail]:
                if known is not None:
                    rows = [known] if _is_within(known, wanted, before) else []
                else:
                    async with self._database.reading() as connection:
                        rows = await labelled_events(
                            connection, tenant, wanted, text, before, rows_max
                        )
                return Part(rows=[(row, _event_place(row)) for row in rows])

            async def find_waiting(before: Place | None, rows_max: int) -> Part[EventDetail]:
                async with self._database.reading() as connection:
                    rows = await search_waiting(connection, content, before, rows_max)
                return Part(rows=[(row, _event_place(row)) for row in rows])

            async def find_content(before: Place | None, rows_max: int) -> Part[EventDetail]:
                rows: list[tuple[EventDetail, Place]] = []
                async for step in search.steps(content, before, rows_max):
                    rows += [(row, _event_place(row)) for row in step.events]
                    if len(rows) >= rows_max:
                        rows = rows[:rows_max]
                        return Part(rows=rows, searched_back_to=rows[-1][1].at)
                    before = step.end
                end = None if search.is_complete else before
                return Part(rows=rows, stopped_at=end, searched_back_to=search.searched_back_to)

            phases: list[tuple[str, Phase[EventDetail]]] = [("exact", find_exact)]
            if known is None or RESERVED_ID.fullmatch(text) is None:
                phases += [("waiting", find_waiting), (CONTENT, find_content)]
            return await run_phases(phases, place, wanted.limit)


def _event_place(row: EventDetail) -> Place:
    return Place(row.accepted_at or row.inserted_at, row.id)


async def list_events(
    connection: "Reach", actor: Actor, wanted: EventsQuery, place: Place | None, rows_max: int
) -> list[EventDetail]:
    """Return the newest events of a filter after a place, by the same ways as deliveries.

    Raises:
        NotFoundError: the tenant is not the actor's.
    """
    tenant = allowed_tenant(actor, wanted.tenant)
    return await labelled_events(connection, tenant, wanted, "", place, rows_max)


async def labelled_events(
    connection: "Reach",
    tenant: str | None,
    wanted: EventsQuery,
    text: str,
    place: Place | None,
    rows_max: int,
) -> list[EventDetail]:
    """Return the newest events of a filter, whose labels have the text, unless it is empty."""
    labels, value_path = dict(wanted.label or {}), None
    if text:
        label = _LABEL.fullmatch(text)
        if label is not None:
            labels[label[1]] = label[2]
        else:
            value_path = _value_path(text)
    labels_text = orjson.dumps(labels).decode() if labels else None
    until = wanted.until
    rest = [tenant, wanted.wanted_type, labels_text, wanted.test, wanted.since]
    if labels or value_path:
        day_max = None if place is None else place.at.date()
        labelled = await keys_of_labelled_events(
            connection,
            [labels_text, value_path, tenant, wanted.since, until, day_max, EVENTS_MAX + 1],
        )
        if len(labelled) <= EVENTS_MAX:
            filters = [*rest, until, *(place or (None, None)), rows_max, value_path, wanted.system]
            keys = [key for key, _ in labelled]
            return await page_of_certain_events(connection, keys, filters)
    return await page_of_events(
        connection, [*rest, until, *(place or (None, None)), rows_max, value_path, wanted.system]
    )


def _is_within(event: EventDetail, wanted: EventsQuery, place: Place | None) -> bool:
    """Return whether an event that was found by its id matches the rest of a filter."""
    at = event.accepted_at or event.inserted_at
    return (
        type_fits(wanted.wanted_type or event.type, event.type)
        and wanted.system in {None, is_operational(event.type)}
        and wanted.test in {None, event.test}
        and set((wanted.label or {}).items()) <= set(event.labels.items())
        and (wanted.since is None or at >= wanted.since)
        and (wanted.until is None or at < wanted.until)
        and (place is None or (at, event.id) < place)
    )


async def with_endpoint_id(connection: "Reach", tenant: str | None, wanted: _Filter) -> _Filter:
    """Return a filter whose endpoint is named by its id; people also give its name.

    Raises:
        NotFoundError: no endpoint has this name. InvalidRequestError: those of several tenants have it.
    """
    name = wanted.endpoint_id
    if name is None or ids.is_id(name, ids.ENDPOINT_PREFIX):
        return wanted
    rows = await find_targets(connection, name, tenant, 2)
    if not rows:
        raise NotFoundError(problem("endpoint_id", "endpoint_not_found", value=name))
    if len(rows) > 1 and rows[0].target.id != name:
        raise InvalidRequestError([problem("endpoint_id", "endpoint_ambiguous", value=name)])
    return wanted.model_copy(update={"endpoint_id": rows[0].target.id})


def text_filter(text: str) -> TextFilter:
    """Return what a search for a text finds, as a condition on events."""
    text = text.strip()
    return TextFilter(text, _label_path(text))


async def _of_endpoints(
    connection: "Reach", numbers: Sequence[int], filters: Sequence[object], rows_max: int
) -> list[DeliveryDetail]:
    """Return the newest deliveries of these endpoints, read a part of the endpoints at a time."""
    rows: list[DeliveryDetail] = []
    for first in range(0, len(numbers), NAMED_AT_ONCE):
        part = numbers[first : first + NAMED_AT_ONCE]
        rows += await page_of_endpoints_deliveries(connection, part, filters)
    return sorted(rows, key=lambda row: row.id, reverse=True)[:rows_max]


def _changed(wanted: DeliveriesQuery, **changes: object) -> DeliveriesQuery:
    return wanted.model_copy(update=changes)


def _value_path(value: str) -> str:
    """Return the JSON path that labels fulfil of which one has this value."""
    return f"$.* ? (@ == {orjson.dumps(value).decode()})"


def _label_path(text: str) -> str:
    """Return the JSON path of labels that the text names exactly, as `name=value` or by a value."""
    label = _LABEL.fullmatch(text)
    if label is None:
        return _value_path(text)
    return f"$.{orjson.dumps(label[1]).decode()} ? (@ == {orjson.dumps(label[2]).decode()})"


def _end_of_day(at: datetime) -> datetime:
    """Return the end of the UTC day: the deliveries of a day are of events that were accepted on it."""
    midnight = datetime.combine(at.astimezone(UTC).date(), time(), UTC)
    return midnight + timedelta(days=1) if midnight.date() < date.max else at


def _filters(
    tenant: str | None,
    wanted: DeliveriesQuery,
    place: Place | None,
    rows_max: int,
    *,
    types: Iterable[str],
    labels: str | None = None,
    value_path: str | None = None,
) -> list[object]:
    """Return the parameters of a page of deliveries, in the order of the statement; `types` is the catalogue."""
    below = _below(wanted, place)
    return [
        tenant,
        wanted.endpoint_id,
        wanted.event_id,
        wanted.event_type,
        codes.type_filter_code(wanted.event_type),
        _state_codes(wanted),
        wanted.test,
        labels,
        first_uuid(wanted.since),
        below,
        None if wanted.since is None else wanted.since.astimezone(UTC).date(),
        None if below is None else day_of_uuid(below),
        rows_max,
        value_path,
        _response_codes(wanted),
        _other_codes(wanted.event_type, types),
    ]


def _other_codes(pattern: str | None, types: Iterable[str]) -> list[int] | None:
    """Return the codes of known types that a pattern of several leaves out; None: it is not one.

    A delivery of such a type is left out by its row alone, without a look at its event. A code that a known type of
    the pattern shares is not returned: a producer could otherwise hide deliveries of the one with a name of the other.
    """
    if pattern is None or not pattern.endswith(EVERYTHING):
        return None
    fits: dict[bool, set[int]] = {True: set(), False: set()}
    for one in types:
        fits[type_fits(pattern, one)].add(codes.event_type_code(one))
    return sorted(fits[False] - fits[True])


def _in_two_parts(found: Sequence[EventKey]) -> Iterator[list[EventKey]]:
    """Yields the newest events, and then the others: a page is mostly full before those are read.

    Deliveries are listed by the time in their ids. Events that share a millisecond are therefore
    kept together, so that the deliveries of the second part are older than all of the first.
    """
    newest = sorted(found, key=lambda key: key.unix_ms, reverse=True)
    end = min(EVENTS_FIRST, len(newest))
    while 0 < end < len(newest) and newest[end].unix_ms == newest[end - 1].unix_ms:
        end += 1
    for part in (newest[:end], newest[end:]):
        if part:
            yield part


def _state_codes(wanted: DeliveriesQuery) -> list[int] | None:
    if wanted.state is None:
        return None
    return [codes.STATE_CODES[state] for state in wanted.state.split(",")]


def _response_codes(wanted: DeliveriesQuery) -> list[int] | None:
    return None if wanted.response is None else class_codes(wanted.response.split(","))


def _below(wanted: DeliveriesQuery, place: Place | None) -> "UUID | None":
    """Return the id that all of a page are below: the last one of the page before, or `until`."""
    until = first_uuid(wanted.until)
    if place is None:
        return until
    known = ids.is_id(place.id, ids.DELIVERY_PREFIX)
    last = uuid_of(place.id) if known else first_uuid(place.at)
    return last if until is None or last is None else min(last, until)


async def _of_events(
    connection: "Reach",
    events: Sequence[EventKey],
    profiles: Sequence[str] | None,
    tenant: str | None,
    wanted: DeliveriesQuery,
    place: Place | None,
    rows_max: int,
) -> list[DeliveryDetail]:
    """Return the deliveries of these events that the rest of the filter lets through."""
    if wanted.event_id is not None:
        events = [event for event in events if event.id == wanted.event_id]
    return await page_of_events_deliveries(
        connection,
        events,
        [
            None if profiles is None else list(profiles),
            tenant,
            wanted.endpoint_id,
            wanted.event_type,
            _state_codes(wanted),
            wanted.test,
            first_uuid(wanted.since),
            _below(wanted, place),
            rows_max,
            orjson.dumps(dict(wanted.label)).decode() if wanted.label else None,
            _response_codes(wanted),
        ],
    )
