"""Event types that are known: those of the catalogue and those of recent events."""

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from dispatcher.admin.operations.context import Deployment
from dispatcher.core.matching import EVERYTHING
from dispatcher.store.events import read_recent_types

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach


RECENT_EVENTS_MAX: Final = 5_000
"""Newest events whose types a pattern is compared with at once."""
RECENT_TYPES_MAX: Final = 1_000
RECENT_TYPES_PERIOD: Final = timedelta(days=7)
RECENT_TYPES_SECONDS: Final = 60.0
"""For so long the types of recent events are kept: they cost some milliseconds, and change no result."""


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
