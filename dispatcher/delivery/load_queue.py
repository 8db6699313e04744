"""What is to be read from Postgres next; stages put work here, the loader takes it out.

What is always true: nothing here is the truth. Each item is a hint that Postgres has something for
memory; a hint that gets lost is found by the moving horizon or the next poll.
"""

import asyncio
from collections.abc import Iterable

from dispatcher.core.model import EndpointId
from dispatcher.delivery.types import EndpointLane, Entry


class LoadQueue:
    """Written on the event loop's thread only; `woken` wakes the loader."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self.due: list[Entry] = []
        """Entries in phase DUE, to be read again; one that has left the phase is skipped."""
        self.windows: set[EndpointId] = set()
        """Endpoints whose next window of due deliveries is to be loaded."""
        self.lines: dict[EndpointLane, None] = {}
        """Lanes with lines whose first delivery is to be read."""
        self.held: dict[EndpointLane, None] = {}
        """Lanes with lines that wait for an earlier event in the outbox."""
        self.has_requests = False
        """People have asked for resends or cancellations."""
        self.has_arrivals = False
        """Another replica has fanned out deliveries for endpoints of ours."""

    def add_due(self, entries: Iterable[Entry]) -> None:
        """Have these entries read again."""
        self.due.extend(entries)
        self.woken.set()

    def add_windows(self, endpoint_ids: Iterable[EndpointId]) -> None:
        """Have the next window of these endpoints loaded."""
        self.windows.update(endpoint_ids)
        if self.windows:
            self.woken.set()

    def add_lines(self, lane: EndpointLane) -> None:
        """Have the lines of a lane read that are woken, or swept."""
        self.lines[lane] = None
        self.woken.set()

    def sweep(self, lane: EndpointLane | None) -> None:
        """Have all lines of an endpoint looked at, if its deliveries have an order."""
        if lane is not None and lane.lines is not None and lane.is_open:
            lane.lines.sweep()
            self.add_lines(lane)

    def release_held(self) -> None:
        """Have the lines read again that waited for an earlier event in the outbox."""
        held, self.held = self.held, {}
        for lane in held:
            if lane.lines is not None:
                lane.lines.release_held()
                self.add_lines(lane)

    def add_requests(self) -> None:
        """Have the waiting requests of people loaded."""
        self.has_requests = True
        self.woken.set()

    def add_arrivals(self) -> None:
        """Have the deliveries of other replicas' fan-out loaded."""
        self.has_arrivals = True
        self.woken.set()
