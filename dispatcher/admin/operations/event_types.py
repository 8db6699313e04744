"""Event types: the catalogue, with who subscribes to each and how many events there were.

The events are counted from the newest `EVENTS_READ_MAX` of the last 24 hours, which takes some 20 ms
whatever the number of events a day (ADR 0085). The counts of a tenant are kept for `KEPT_SECONDS`.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import orjson

from dispatcher.admin.operations.asyncapi import asyncapi
from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.event_search import list_events
from dispatcher.admin.operations.objects import schema_mismatches
from dispatcher.admin.resources.event import (
    CheckedEventType,
    EventsQuery,
    EventType,
    EventTypePage,
    EventTypeUsage,
    EventTypeUsagePage,
    LocalizedText,
    MismatchingEvent,
)
from dispatcher.admin.resources.serialization import JsonText, time_text
from dispatcher.core.errors import InvalidRequestError, NotFoundError
from dispatcher.core.matching import Subscription, parse_event_types
from dispatcher.core.problems import problem
from dispatcher.store.endpoints import read_subscriptions
from dispatcher.store.events import TypeRow, read_recent_types

EVENTS_READ_MAX: Final = 20_000
TYPES_MAX: Final = 500
SUBSCRIPTIONS_MAX: Final = 2_000
"""Different lists of event types that endpoints subscribe to; further ones are not counted."""
PERIOD: Final = timedelta(hours=24)
KEPT_SECONDS: Final = 15.0
TENANTS_KEPT_MAX: Final = 1_000
CHECKED_MAX: Final = 100
"""The newest events of a type that are compared with its schema."""
MISMATCHING_MAX: Final = 10


class EventTypes:
    """The event types of a deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._database = deployment.database
        self._kept: dict[str | None, tuple[float, EventTypeUsagePage]] = {}

    def catalogue(self) -> EventTypePage:
        """Return the types of the catalogue, which are the same for everybody."""
        known = self._deployment.catalogue.types
        items = [EventType(**self._values(name)) for name in known]
        return EventTypePage(items=items, next_cursor=None)

    def asyncapi(self) -> dict[str, Any]:
        """Return the AsyncAPI document of the catalogue."""
        return asyncapi(self._deployment.catalogue)

    async def show(self, actor: Actor, name: str) -> CheckedEventType:
        """Return a type of the catalogue, and compare its newest events with its schema.

        Raises:
            NotFoundError: the catalogue has no such type.
        """
        known = self._deployment.catalogue.types.get(name)
        if known is None:
            raise NotFoundError(problem("name", "event_type_not_found", value=name))
        checked_count = 0
        mismatching: list[MismatchingEvent] = []
        if known.schema is not None:
            query = EventsQuery.of(type=name)
            async with self._database.reading() as connection:
                rows = await list_events(connection, actor, query, None, CHECKED_MAX)
            checked_count = len(rows)
            for row in rows:
                found = schema_mismatches(name, row.data, {name: known.schema})
                if found:
                    inserted_at = time_text(row.inserted_at)
                    mismatching.append(
                        MismatchingEvent(
                            id=row.id, inserted_at=inserted_at, schema_mismatches=found
                        )
                    )
                await asyncio.sleep(0)  # a comparison may take milliseconds
        return CheckedEventType(
            **self._values(name),
            checked_count=checked_count,
            mismatch_count=len(mismatching),
            mismatching=mismatching[:MISMATCHING_MAX],
        )

    def _values(self, name: str) -> dict[str, Any]:
        catalogue = self._deployment.catalogue
        known = catalogue.types[name]
        schema = known.schema
        return {
            "name": name,
            "group": known.group,
            "group_title": LocalizedText(**catalogue.groups[known.group].title._asdict()),
            "title": LocalizedText(**known.title._asdict()),
            "description": LocalizedText(**known.description._asdict()),
            "operational": known.operational,
            "sample": JsonText(known.sample),
            "schema": None if schema is None else JsonText(orjson.dumps(schema.document).decode()),
            "schema_policy": None if schema is None else schema.policy,
        }

    async def usage(self, actor: Actor) -> EventTypeUsagePage:
        """Return the types of the catalogue and those that recent events have."""
        now = self._deployment.clock.monotonic()
        kept = self._kept.get(actor.tenant)
        if kept is not None and kept[0] > now:
            return kept[1]
        page = await self._read(actor.tenant)
        if len(self._kept) >= TENANTS_KEPT_MAX:
            self._kept.clear()
        self._kept[actor.tenant] = (now + KEPT_SECONDS, page)
        return page

    async def _read(self, tenant: str | None) -> EventTypeUsagePage:
        since = self._deployment.clock.now() - PERIOD
        async with self._database.reading() as connection:
            rows, read_count, oldest_at = await read_recent_types(
                connection, since, tenant, EVENTS_READ_MAX, TYPES_MAX
            )
            subscriptions = await read_subscriptions(connection, tenant, SUBSCRIPTIONS_MAX)
        if read_count >= EVENTS_READ_MAX and oldest_at is not None:
            since = oldest_at
        seen = {row.type: row for row in rows}
        known = self._deployment.catalogue.types
        compiled = _compiled(subscriptions)
        names = [*known, *(row.type for row in rows if row.type not in known)]
        items = [self._usage(name, seen.get(name), compiled) for name in names]
        return EventTypeUsagePage(items=items, counted_since=time_text(since), next_cursor=None)

    def _usage(
        self, name: str, row: TypeRow | None, subscriptions: Sequence[tuple[Subscription, int]]
    ) -> EventTypeUsage:
        known = self._deployment.catalogue.types.get(name)
        return EventTypeUsage(
            name=name,
            in_catalogue=known is not None,
            title=None if known is None else LocalizedText(**known.title._asdict()),
            subscriber_count=sum(count for one, count in subscriptions if one.matches(name)),
            event_count=0 if row is None else row.events_count,
            last_event_at=None if row is None else time_text(row.last_at),
        )


def _compiled(subscriptions: Sequence[tuple[list[str], int]]) -> list[tuple[Subscription, int]]:
    """Return the subscriptions that can be compiled; a row that a newer replica wrote may not."""
    compiled = []
    for event_types, count in subscriptions:
        try:
            compiled.append((parse_event_types(event_types), count))
        except InvalidRequestError:
            continue
    return compiled
