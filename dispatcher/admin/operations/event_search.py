"""Finding events: by what a text names exactly, among those that wait, and by their contents."""

from typing import TYPE_CHECKING, Final

from dispatcher.admin.operations.context import Actor, Deployment, allowed_tenant
from dispatcher.admin.operations.exact_match import LABEL, label_path, value_path_of
from dispatcher.admin.operations.text_search import (
    CONTENT,
    Found,
    Part,
    Phase,
    TextSearch,
    run_phases,
)
from dispatcher.admin.resources.event import RESERVED_ID, EventsQuery
from dispatcher.admin.resources.serialization import Place, labels_json
from dispatcher.core.matching import is_operational, type_fits
from dispatcher.core.text_pattern import text_pattern
from dispatcher.store.events import (
    EventDetail,
    find_event,
    keys_of_labelled_events,
    page_of_certain_events,
    page_of_events,
)
from dispatcher.store.search import TextQuery, search_waiting

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach


EVENTS_MAX: Final = 1_000
"""Events that a label may have for their deliveries to be read one by one: some 5 µs each."""


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
                labels=labels_json(wanted.label),
                test=wanted.test,
                since=wanted.since,
                until=wanted.until,
                system=wanted.system,
                known_id=None if known is None else known.id,
                known_label=None if known is not None else label_path(text),
            )

            async def find_exact(before: Place | None, rows_max: int) -> Part[EventDetail]:
                if known is not None:
                    rows = [known] if _is_within(known, wanted, before) else []
                else:
                    async with self._database.reading() as connection:
                        rows = await labelled_events(
                            connection, tenant, wanted, text, before, rows_max
                        )
                return Part.of(rows, _event_place)

            async def find_waiting(before: Place | None, rows_max: int) -> Part[EventDetail]:
                async with self._database.reading() as connection:
                    rows = await search_waiting(connection, content, before, rows_max)
                return Part.of(rows, _event_place)

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
        label = LABEL.fullmatch(text)
        if label is not None:
            labels[label[1]] = label[2]
        else:
            value_path = value_path_of(text)
    labels_text = labels_json(labels)
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
