"""Tries content filters on past events: how many of the newest ones an expression matches.

Events are read a page at a time, newest first, until `limit` events, `DATA_CHARACTERS_MAX` or `READ_SECONDS`. Each page
is evaluated within a few milliseconds, and the event loop runs in between. While Postgres is slow or unavailable, the
request fails within its time limit.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from dispatcher.admin.operations.context import Actor, Deployment, allowed_tenant
from dispatcher.admin.resources.content_filter import FilterTest, FilterTestResult, TestedEvent
from dispatcher.admin.resources.serialization import time_text
from dispatcher.core.filters import EventValues, compile_filter
from dispatcher.core.matching import parse_event_types
from dispatcher.store.events import page_of_events

PAGE_EVENTS: Final = 50
DATA_CHARACTERS_MAX: Final = 16 << 20
READ_SECONDS: Final = 3.0
READ_EVENTS_MAX: Final = 10_000
"""Events read at most to find `limit` of the wanted types."""
EXAMPLES_MAX: Final = 20


class ContentFilters:
    """Content filters of a deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._database = deployment.database
        self._clock = deployment.clock

    async def test(
        self, actor: Actor, wanted: FilterTest, *, event_types: Sequence[str] = ()
    ) -> FilterTestResult:
        """Return how many of the newest events an expression matches; test events are left out.

        With `event_types`, only events that an endpoint with this subscription would get are counted.

        Raises:
            NotFoundError: the tenant is not the actor's.
        """
        tenant = allowed_tenant(actor, wanted.tenant)
        compiled = compile_filter(wanted.content_filter)
        subscription = parse_event_types(event_types) if event_types else None
        counts = {"checked": 0, "matched": 0, "errors": 0}
        examples: list[TestedEvent] = []
        characters, at, last_id, read_count = 0, None, None, 0
        deadline = self._clock.monotonic() + READ_SECONDS
        while counts["checked"] < wanted.limit and characters < DATA_CHARACTERS_MAX:
            rows_max = min(PAGE_EVENTS, wanted.limit - counts["checked"])
            if subscription is not None:
                rows_max = PAGE_EVENTS  # many of them may be of other types
            async with self._database.reading() as connection:
                rows = await page_of_events(
                    connection,
                    [
                        tenant,
                        wanted.type,
                        None,
                        False,
                        None,
                        None,
                        at,
                        last_id,
                        rows_max,
                        None,
                        False,
                    ],
                )
            for row in rows:
                if subscription is not None and not subscription.matches(row.type):
                    continue
                if counts["checked"] == wanted.limit:
                    break
                values = EventValues(row.id, row.type, row.tenant, row.data, row.labels)
                result = compiled.evaluate(values)
                counts["checked"] += 1
                counts["matched"] += result.matched
                counts["errors"] += result.error is not None
                characters += len(row.data)
                if len(examples) < EXAMPLES_MAX:
                    examples.append(
                        TestedEvent(
                            id=row.id, type=row.type, matched=result.matched, error=result.error
                        )
                    )
                await asyncio.sleep(0)
            if rows:
                at, last_id = rows[-1].accepted_at or rows[-1].inserted_at, rows[-1].id
            read_count += len(rows)
            if (
                len(rows) < rows_max
                or read_count >= READ_EVENTS_MAX
                or self._clock.monotonic() > deadline
            ):
                break
        return FilterTestResult(
            checked_count=counts["checked"],
            matched_count=counts["matched"],
            error_count=counts["errors"],
            checked_back_to=time_text(at),
            events=examples,
        )
