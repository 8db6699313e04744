"""Event types: the catalogue, with who subscribes to each and how many events there were.

The events are counted from the newest `EVENTS_READ_MAX` of the last 24 hours, which takes some 20 ms
whatever the number of events a day (ADR 0085). The counts of a tenant are kept for `KEPT_SECONDS`.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.resources.event import EventTypeUsage, EventTypeUsagePage, LocalizedText
from dispatcher.admin.resources.serialization import time_text
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.matching import Subscription, parse_event_types
from dispatcher.store.endpoints import read_subscriptions
from dispatcher.store.events import TypeRow, read_recent_types

EVENTS_READ_MAX: Final = 20_000
TYPES_MAX: Final = 500
SUBSCRIPTIONS_MAX: Final = 2_000
"""Different lists of event types that endpoints subscribe to; further ones are not counted."""
PERIOD: Final = timedelta(hours=24)
KEPT_SECONDS: Final = 15.0
TENANTS_KEPT_MAX: Final = 1_000


class EventTypes:
    """The event types of a deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._database = deployment.database
        self._kept: dict[str | None, tuple[float, EventTypeUsagePage]] = {}

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
