"""Finding deliveries and events: the filter, and the way to what it names that reads least.

Most filters are walked newest first along an index (`delivery_page.sql`). What names events, a
request id, labels or a business key, is looked up first: few events give their deliveries exactly;
labels that more than `EVENTS_MAX` events have are common, so the walk along the deliveries meets
them soon, and it begins at the newest of them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from dispatcher.admin.operations.deployment import Actor
from dispatcher.admin.operations.endpoints import allowed_tenant
from dispatcher.admin.resources.delivery import REQUEST_ID, DeliveriesQuery
from dispatcher.admin.resources.event import EventsQuery
from dispatcher.admin.resources.serialization import Place
from dispatcher.core import codes, ids
from dispatcher.core.profile import FieldSource, Profile
from dispatcher.store import history
from dispatcher.store.columns import DeliveryDetail, day_of_uuid, first_uuid, uuid_of
from dispatcher.store.history import EventDetail, EventKey

if TYPE_CHECKING:
    from uuid import UUID

    from dispatcher.store.pool import Reach

_LABEL: Final = re.compile(r"([a-z0-9_.-]{1,64})=(.+)", re.DOTALL)
EVENTS_MAX: Final = 1_000
"""Events that a label may have for their deliveries to be read one by one: some 5 µs each."""
EVENTS_FIRST: Final = 100
"""Of those, how many are looked at first: each costs four pages of the index, and a page shows fifty deliveries."""


class _Requested(NamedTuple):
    """What a request id names: its digits, the profiles that have such ids, and whether of a test."""

    digits: bytes
    profiles: list[str]
    test: bool | None


class DeliverySearch:
    """Reads pages of deliveries; `profiles` define which of them have request ids."""

    def __init__(self, profiles: Mapping[str, Profile]) -> None:
        self._profiles = profiles

    async def rows(
        self,
        connection: "Reach",
        actor: Actor,
        wanted: DeliveriesQuery,
        place: Place | None,
        rows_max: int,
    ) -> list[DeliveryDetail]:
        """Returns the newest deliveries of a filter after a place.

        Raises:
            NotFoundError: the tenant is not the actor's.
        """
        tenant = allowed_tenant(actor, wanted.tenant)
        value_path = None
        if wanted.search:
            wanted, value = await self._read_search(connection, tenant, wanted)
            if value is not None:
                value_path = _value_path(value)
                named = await history.events_of_id(connection, value)
                if named:
                    return await _of_events(
                        connection, named, None, tenant, wanted, place, rows_max
                    )
        if wanted.request_id is not None:
            requested = self._requested(wanted.request_id)
            if requested is None or (
                None not in {requested.test, wanted.test} and requested.test != wanted.test
            ):
                return []
            if requested.test is not None:
                wanted = _changed(wanted, test=requested.test)
            events = await history.requested_events(
                connection, requested.digits, requested.profiles
            )
            return await _of_events(
                connection, events, requested.profiles, tenant, wanted, place, rows_max
            )
        labels = orjson.dumps(dict(wanted.label)).decode() if wanted.label else None
        if (labels or value_path) and wanted.event_id is None:
            day_max = None if place is None else place.at.date()
            found = await history.labelled_events(
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
        below = _below(wanted, place)
        return await history.page_of_deliveries(
            connection,
            [
                tenant,
                wanted.endpoint_id,
                wanted.event_id,
                *_type_and_code(wanted),
                _state_code(wanted),
                wanted.test,
                labels,
                first_uuid(wanted.since),
                below,
                None if wanted.since is None else wanted.since.astimezone(UTC).date(),
                None if below is None else day_of_uuid(below),
                rows_max,
                value_path,
            ],
        )

    async def _read_search(
        self, connection: "Reach", tenant: str | None, wanted: DeliveriesQuery
    ) -> tuple[DeliveriesQuery, str | None]:
        """Returns the filter that a person's words come to, and what may be an event's id or a label's value."""
        text = (wanted.search or "").strip()
        if ids.is_id(text, ids.DELIVERY_PREFIX):
            row = await history.find_delivery(connection, text, tenant)
            if row is not None and (wanted.event_id or row.event_id) == row.event_id:
                endpoint_id = wanted.endpoint_id or row.endpoint_id
                if endpoint_id == row.endpoint_id:
                    found = _changed(wanted, event_id=row.event_id, endpoint_id=endpoint_id)
                    return found, None
        requested = REQUEST_ID.fullmatch(text)
        if requested is not None and requested[1] and self._requested(text) is not None:
            return _changed(wanted, request_id=text), None
        label = _LABEL.fullmatch(text)
        if label is not None:
            labels = {**(wanted.label or {}), label[1]: label[2]}
            return _changed(wanted, label=labels), None
        return wanted, text

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


async def search_events(
    connection: "Reach", actor: Actor, wanted: EventsQuery, place: Place | None, rows_max: int
) -> list[EventDetail]:
    """Returns the newest events of a filter after a place, by the same ways as deliveries.

    Raises:
        NotFoundError: the tenant is not the actor's.
    """
    tenant = allowed_tenant(actor, wanted.tenant)
    text = (wanted.search or "").strip()
    labels, value_path = dict(wanted.label or {}), None
    if text:
        found = await history.find_event(connection, text, tenant)
        if found is not None:
            return [found] if _is_within(found, wanted, place) else []
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
        labelled = await history.labelled_events(
            connection,
            [labels_text, value_path, tenant, wanted.since, until, day_max, EVENTS_MAX + 1],
        )
        if len(labelled) <= EVENTS_MAX:
            filters = [*rest, until, *(place or (None, None)), rows_max, value_path]
            keys = [key for key, _ in labelled]
            return await history.page_of_certain_events(connection, keys, filters)
    return await history.page_of_events(
        connection, [*rest, until, *(place or (None, None)), rows_max, value_path]
    )


def _is_within(event: EventDetail, wanted: EventsQuery, place: Place | None) -> bool:
    """Return whether an event that was found by its id matches the rest of a filter."""
    at = event.accepted_at or event.inserted_at
    return (
        (wanted.wanted_type or event.type) == event.type
        and wanted.test in {None, event.test}
        and set((wanted.label or {}).items()) <= set(event.labels.items())
        and (wanted.since is None or at >= wanted.since)
        and (wanted.until is None or at < wanted.until)
        and (place is None or (at, event.id) < place)
    )


def _changed(wanted: DeliveriesQuery, **changes: object) -> DeliveriesQuery:
    return wanted.model_copy(update=changes)


def _value_path(value: str) -> str:
    """Returns the JSON path that labels fulfil of which one has this value."""
    return f"$.* ? (@ == {orjson.dumps(value).decode()})"


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


def _type_and_code(wanted: DeliveriesQuery) -> tuple[str | None, int | None]:
    event_type = wanted.event_type
    return event_type, None if event_type is None else codes.event_type_code(event_type)


def _state_code(wanted: DeliveriesQuery) -> int | None:
    return None if wanted.state is None else codes.STATE_CODES[wanted.state]


def _below(wanted: DeliveriesQuery, place: Place | None) -> "UUID | None":
    """Returns the id that all of a page are below: the last one of the page before, or `until`."""
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
    """Returns the deliveries of these events that the rest of the filter lets through."""
    if wanted.event_id is not None:
        events = [event for event in events if event.id == wanted.event_id]
    return await history.page_of_events_deliveries(
        connection,
        events,
        [
            None if profiles is None else list(profiles),
            tenant,
            wanted.endpoint_id,
            wanted.event_type,
            _state_code(wanted),
            wanted.test,
            first_uuid(wanted.since),
            _below(wanted, place),
            rows_max,
            orjson.dumps(dict(wanted.label)).decode() if wanted.label else None,
        ],
    )
