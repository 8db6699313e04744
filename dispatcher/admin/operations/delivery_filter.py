"""The filter of a list of deliveries as the parameters of statements."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from dispatcher.admin.resources.delivery import DeliveriesFilter, DeliveriesQuery
from dispatcher.admin.resources.serialization import Place, labels_json
from dispatcher.core import codes, ids
from dispatcher.core.errors import InvalidRequestError, NotFoundError
from dispatcher.core.matching import EVERYTHING, type_fits
from dispatcher.core.problems import problem
from dispatcher.core.response_classes import class_codes
from dispatcher.store.delivery_details import DeliveryDetail, page_of_events_deliveries
from dispatcher.store.delivery_ids import day_of_uuid, first_uuid, uuid_of
from dispatcher.store.endpoints import find_targets
from dispatcher.store.events import EventKey

if TYPE_CHECKING:
    from uuid import UUID

    from dispatcher.store.pool import Reach


_Filter = TypeVar("_Filter", bound=DeliveriesFilter)
EVENTS_FIRST: Final = 100
"""Of those, how many are looked at first: each costs four pages of the index, and a page shows fifty deliveries."""


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


def changed(wanted: DeliveriesQuery, **changes: object) -> DeliveriesQuery:
    """Return the same filter with other values."""
    return wanted.model_copy(update=changes)


def end_of_day(at: datetime) -> datetime:
    """Return the end of the UTC day: the deliveries of a day are of events that were accepted on it."""
    midnight = datetime.combine(at.astimezone(UTC).date(), time(), UTC)
    return midnight + timedelta(days=1) if midnight.date() < date.max else at


def page_filters(
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
        state_codes(wanted),
        wanted.test,
        labels,
        first_uuid(wanted.since),
        below,
        None if wanted.since is None else wanted.since.astimezone(UTC).date(),
        None if below is None else day_of_uuid(below),
        rows_max,
        value_path,
        response_codes(wanted),
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


def in_two_parts(found: Sequence[EventKey]) -> Iterator[list[EventKey]]:
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


def state_codes(wanted: DeliveriesQuery) -> list[int] | None:
    """Return the codes of the filter's states; None: all."""
    if wanted.state is None:
        return None
    return [codes.STATE_CODES[state] for state in wanted.state.split(",")]


def response_codes(wanted: DeliveriesQuery) -> list[int] | None:
    """Return the codes of the filter's responses; None: all."""
    return None if wanted.response is None else class_codes(wanted.response.split(","))


def _below(wanted: DeliveriesQuery, place: Place | None) -> "UUID | None":
    """Return the id that all of a page are below: the last one of the page before, or `until`."""
    until = first_uuid(wanted.until)
    if place is None:
        return until
    known = ids.is_id(place.id, ids.DELIVERY_PREFIX)
    last = uuid_of(place.id) if known else first_uuid(place.at)
    return last if until is None or last is None else min(last, until)


async def deliveries_of_events(
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
            state_codes(wanted),
            wanted.test,
            first_uuid(wanted.since),
            _below(wanted, place),
            rows_max,
            labels_json(wanted.label),
            response_codes(wanted),
        ],
    )
