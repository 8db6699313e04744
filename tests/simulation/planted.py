"""Bugs to plant: each is one a careful reader could make, and the simulation must find it.

They replace methods for a while; nothing of them is in the product.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

from dispatcher.core import ids
from dispatcher.core.errors import StoreUnavailableError
from dispatcher.core.model import DeliveryId, EndpointId
from dispatcher.delivery.lanes import Lanes, Reserved
from dispatcher.delivery.loader import Loader
from dispatcher.delivery.recorder import Recorder
from dispatcher.delivery.retry_timer import RetryTimer
from dispatcher.delivery.shards import Shards
from dispatcher.delivery.types import DUE, Delivery
from dispatcher.store.results import Recorded
from tests.simulation.database import MemoryDatabase
from tests.simulation.stores import MemoryDeliveries, MemoryResults

Patches = list[tuple[object, str, object]]


def _wheel_before_commit() -> Patches:
    """Memory learns of a result before Postgres does: the order of invariant 1 turned round."""
    original = Recorder._record

    async def record(self, group, tokens, attempt=None):
        self._settle(group, frozenset())
        settle, self._settle = self._settle, lambda *_: None
        try:
            await original(self, group, tokens, attempt)
        finally:
            self._settle = settle

    return [(Recorder, "_record", record)]


def _no_fence() -> Patches:
    """A result is written whatever the token is now: a replica that was taken over still writes."""
    original = MemoryDatabase.record

    def record(self, moves, attempts, tokens):
        now = {shard: self.tokens[shard] for shard in tokens}
        kept, self.recorded = self.recorded, lambda a, shard, _: kept(a, shard, tokens[shard])
        try:
            return original(self, moves, attempts, now)
        finally:
            self.recorded = kept

    return [(MemoryDatabase, "record", record)]


def _lease_never_looked_at() -> Patches:
    """A lease is believed for ever once it was had."""
    return [(Shards, "is_trusted", lambda self: bool(self.tokens))]


def _cursor_on_the_outbox() -> Patches:
    """The claim goes on from the highest number that it has seen: what commits behind it is lost."""
    original = MemoryDatabase.claim

    def claim(self, transaction, events_max, bytes_max, event_id, positions=None):
        seen = self.__dict__.setdefault("cursor", 0)
        behind = {p: w for p, w in self.outbox.items() if p <= seen}
        ahead = {p: w for p, w in self.outbox.items() if p > seen}
        self.outbox = ahead
        try:
            version = original(self, transaction, events_max, bytes_max, event_id, positions)
        finally:
            self.outbox = {**behind, **ahead}
        self.cursor = max([seen, *transaction.positions])
        return version

    return [(MemoryDatabase, "claim", claim)]


def _results_dropped_in_an_outage() -> Patches:
    """A batch that Postgres did not take is given up, as if it had."""
    original = MemoryResults.record

    async def record(self, moves, attempts, tokens):
        try:
            return await original(self, moves, attempts, tokens)
        except StoreUnavailableError:
            return Recorded(frozenset(), frozenset())

    return [(MemoryResults, "record", record)]


def _retry_a_little_early() -> Patches:
    """A due time is rounded down to the second, as one would for a coarser wheel."""
    original = RetryTimer.schedule

    def schedule(self, entry, due_in_seconds):
        original(self, entry, float(int(due_in_seconds)))

    return [
        (RetryTimer, "schedule", schedule),
        *[("dispatcher.delivery.loader", "DUE_SECONDS", 1.0)],
    ]


def _boot_loads_nothing() -> Patches:
    """What was waiting when the process started is left to a horizon that loads nothing either."""

    async def load_window(self: Loader) -> None:
        self._queue.windows.clear()

    return [(Loader, "_load_window", load_window)]


def _copy_of_fan_out_unguarded() -> Patches:
    """Fan-out offers its copy after the commit, whatever became of the delivery meanwhile (it was so)."""

    def reserve(self: Lanes, deliveries: Sequence[tuple[EndpointId, Delivery]]) -> list[Reserved]:
        del self
        return [Reserved(endpoint_id, delivery, None) for endpoint_id, delivery in deliveries]

    def offer_reserved(self: Lanes, reserved: list[Reserved]) -> None:
        for endpoint_id, delivery, _ in reserved:
            lane = self.lanes.get(endpoint_id)
            if lane is not None and lane.is_open and delivery.id not in lane.entries:
                self.offer(self._inventory.add(lane, delivery.id, DUE, None), delivery)

    return [(Lanes, "reserve", reserve), (Lanes, "offer_reserved", offer_reserved)]


def _ids_drawn_at_the_claim() -> Patches:
    """A delivery's id is drawn when the event is claimed: a claim that a crash lost is repeated under other ids."""
    original = ids.delivery_ids
    drawn = itertools.count()

    def delivery_ids(unix_ms: Sequence[int], bits: Sequence[int]) -> list[DeliveryId]:
        return original(unix_ms, [one ^ next(drawn) for one in bits])

    return [("dispatcher.delivery.batch", "delivery_ids", delivery_ids)]


def _line_forgets_its_first() -> Patches:
    """A delivery that waits for a retry lets the next one of its line go."""
    original = RetryTimer.schedule

    def schedule(self, entry, due_in_seconds):
        if entry.is_in_line:
            self._inventory.forget(entry, ended=True)
            entry.lane.turn_away(0.0)
        else:
            original(self, entry, due_in_seconds)

    return [(RetryTimer, "schedule", schedule)]


def _place_without_the_outbox() -> Patches:
    """What is still in the outbox is not looked at: another claim's earlier event is overtaken."""
    original = MemoryDeliveries.place

    async def place(self, ids):
        return [row._replace(is_held=False) for row in await original(self, ids)]

    return [(MemoryDeliveries, "place", place)]


BUGS: dict[str, Callable[[], Patches]] = {
    "wheel-before-commit": _wheel_before_commit,
    "no-fence": _no_fence,
    "lease-never-looked-at": _lease_never_looked_at,
    "cursor-on-the-outbox": _cursor_on_the_outbox,
    "results-dropped-in-an-outage": _results_dropped_in_an_outage,
    "retry-a-little-early": _retry_a_little_early,
    "boot-loads-nothing": _boot_loads_nothing,
    "copy-of-fan-out-unguarded": _copy_of_fan_out_unguarded,
    "ids-drawn-at-the-claim": _ids_drawn_at_the_claim,
    "line-forgets-its-first": _line_forgets_its_first,
    "place-without-the-outbox": _place_without_the_outbox,
}


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Plants a bug for the block's time; None plants nothing."""
    patches = BUGS[name]() if name is not None else []
    started = []
    try:
        for target, attribute, replacement in patches:
            if isinstance(target, str):
                one = patch(f"{target}.{attribute}", replacement)
            else:
                one = patch.object(target, attribute, replacement)
            one.start()
            started.append(one)
        yield
    finally:
        for one in started:
            one.stop()
