"""The inventory: every delivery in memory, one entry with one phase, written here alone.

             reserve              commit            permit             response
    ABSENT ─────────▶ RESERVED ─────────▶ READY ─────────▶ IN_FLIGHT ─────────▶ RECORDING ──▶ ABSENT
       │                                   ▲ ▲                                      │ (ended)
       │ window                    loaded  │ │ resend                               │ retry
       ├──────────▶ DUE ───────────────────┘ └─────────── WAITING ◀─────────────────┘
       │             ▲                                     │  ▲
       │             └──────────── its time has come ──────┘  │
       └──────────────────────────────────────────────────────┘

What is always true: a delivery is in memory at most once, in one phase; a phase changes only along
`TRANSITIONS`, and a step that the table does not have is an error of ours and raises. RESERVED is
not committed yet, READY has its body and stands in its lane's line, IN_FLIGHT and RECORDING are
sent and not committed, WAITING is on the wheel, DUE is to be read again from Postgres. Every entry
is in its lane's `entries`, so that everything about a lane is linear in the lane. Entries that were
in flight when their lane lost its shard are `orphans` until they are recorded; a new lane of the
same endpoint leaves them alone.

A crash loses the inventory and nothing else: Postgres has every delivery, and the next start loads
the window again.
"""

from collections.abc import Iterator
from typing import Final

from dispatcher.core.breaker import BreakerState
from dispatcher.core.model import DeliveryId, EndpointId, Trigger
from dispatcher.core.wheel import Wheel
from dispatcher.delivery.types import (
    ABSENT,
    DUE,
    IN_FLIGHT,
    PHASE_NAMES,
    READY,
    RECORDING,
    RESERVED,
    WAITING,
    Delivery,
    EndpointLane,
    Entry,
)
from dispatcher.runtime.clock import Clock

TRANSITIONS: Final = {
    ABSENT: (RESERVED, READY, WAITING, DUE),
    RESERVED: (READY, ABSENT),
    READY: (IN_FLIGHT, ABSENT),
    IN_FLIGHT: (RECORDING, ABSENT),
    RECORDING: (WAITING, DUE, ABSENT),
    WAITING: (DUE, READY, ABSENT),
    DUE: (READY, WAITING, ABSENT),
}
_NEXT: Final = tuple(
    sum(1 << after for after in TRANSITIONS[phase]) for phase in range(len(PHASE_NAMES))
)
"""The table as one bit mask per phase: a look-up costs 25 ns."""
_UNRECORDED: Final = 1 << IN_FLIGHT | 1 << RECORDING


class Inventory:
    """All lanes of this replica and their deliveries; used on the event loop's thread only."""

    def __init__(self, clock: Clock) -> None:
        self.lanes: dict[EndpointId, EndpointLane] = {}
        """Written by `Lanes.follow` alone."""
        self.wheel: Wheel[Entry] = Wheel(int(clock.monotonic() * 1000))
        """When each WAITING entry is due, in milliseconds of the monotonic clock."""
        self.orphans: dict[DeliveryId, Entry] = {}
        self.counts = [0] * len(PHASE_NAMES)
        """Entries by phase; that of ABSENT is what makes the sum zero."""
        self.ready_bytes = 0
        self.stalled = 0
        """Attempts in flight to receivers that have sent no response for a while; written by `Lanes.tick`."""

    def __len__(self) -> int:
        return sum(self.counts[ABSENT + 1 :])

    @property
    def unrecorded(self) -> int:
        """Attempts that were started and whose result is not committed."""
        return self.counts[IN_FLIGHT] + self.counts[RECORDING]

    def find(self, lane: EndpointLane, delivery_id: DeliveryId) -> Entry | None:
        """Return the entry of a delivery of this lane's endpoint, None if it is not in memory."""
        return lane.entries.get(delivery_id) or (
            self.orphans.get(delivery_id) if self.orphans else None
        )

    # --- into memory ---

    def add(
        self, lane: EndpointLane, delivery_id: DeliveryId, phase: int, delivery: Delivery | None
    ) -> Entry:
        """Take a delivery into memory, which must not be there yet; return its entry."""
        assert delivery_id not in lane.entries, delivery_id  # noqa: S101 -- twice in memory is twice sent
        entry = lane.entries[delivery_id] = Entry(delivery_id, lane, delivery)
        self._move(entry, phase)
        if phase == READY and delivery is not None:
            self.ready_bytes += len(delivery.body)
        return entry

    # --- from phase to phase ---

    def _move(self, entry: Entry, phase: int) -> None:
        before = entry.phase
        assert _NEXT[before] >> phase & 1, f"{entry} to {PHASE_NAMES[phase]}"  # noqa: S101 -- our own error
        counts = self.counts
        counts[before] -= 1
        counts[phase] += 1
        entry.phase = phase

    def make_ready(self, entry: Entry, delivery: Delivery) -> None:
        """Give an entry what an attempt needs; the caller puts it in its lane's line."""
        if entry.phase == WAITING:
            self.wheel.cancel(entry)
        self._move(entry, READY)
        entry.delivery = delivery
        self.ready_bytes += len(delivery.body)

    def replace(self, entry: Entry, delivery: Delivery) -> None:
        """Turn a ready scheduled attempt into one that a person asked for; its body is the same."""
        assert entry.phase == READY, entry  # noqa: S101 -- our own error
        entry.delivery = delivery

    def start(self, entry: Entry) -> Delivery:
        """Note that the attempt begins; return what it needs."""
        self._move(entry, IN_FLIGHT)
        delivery = entry.delivery
        assert delivery is not None, entry  # noqa: S101 -- READY has it
        self.ready_bytes -= len(delivery.body)
        return delivery

    def finish(self, entry: Entry) -> None:
        """Note that the attempt has a result, which is to be recorded."""
        self._move(entry, RECORDING)

    def wait(self, entry: Entry, due_ms: int) -> None:
        """Put an entry on the wheel; only its id and due time stay in memory."""
        self._move(entry, WAITING)
        entry.delivery = None
        self.wheel.schedule(entry, due_ms)

    def make_due(self, entry: Entry) -> None:
        """Note that an entry is to be read again from Postgres."""
        if entry.phase == WAITING:
            self.wheel.cancel(entry)
        self._move(entry, DUE)
        entry.delivery = None

    def turn(self, now_ms: int) -> list[Entry]:
        """Take what has become due off the wheel and return it, in the order of due times."""
        due = self.wheel.advance(now_ms)
        for entry in due:
            self._move(entry, DUE)
        return due

    # --- out of memory ---

    def forget(self, entry: Entry) -> None:
        """Drop an entry; a ready one must have left its lane's line."""
        phase = entry.phase
        if phase == WAITING:
            self.wheel.cancel(entry)
        elif phase == READY and entry.delivery is not None:
            self.ready_bytes -= len(entry.delivery.body)
        self._move(entry, ABSENT)
        entry.delivery = None
        if entry.lane.entries.pop(entry.id, None) is None:
            self.orphans.pop(entry.id, None)

    def forget_waiting(self, lane: EndpointLane) -> None:
        """Drop every entry of a lane except those in flight, being recorded or asked for by a person."""
        self._forget_all_but(lane, urgent_stays=True)

    def forget_lane(self, lane: EndpointLane) -> None:
        """Drop every entry of a lane; those in flight become orphans until they are recorded."""
        lane.urgent.clear()
        self._forget_all_but(lane, urgent_stays=False)
        self.orphans.update(lane.entries)
        lane.entries = {}

    def _forget_all_but(self, lane: EndpointLane, *, urgent_stays: bool) -> None:
        kept: dict[DeliveryId, Entry] = {}
        counts = self.counts
        waiting: list[Entry] = []
        for entry in lane.entries.values():
            phase = entry.phase
            if phase == WAITING:
                entry.phase = ABSENT
                waiting.append(entry)
                continue
            if _UNRECORDED >> phase & 1:
                kept[entry.id] = entry
                continue
            if phase == READY:
                delivery = entry.delivery
                assert delivery is not None, entry  # noqa: S101 -- READY has it
                if urgent_stays and delivery.trigger is Trigger.MANUAL:
                    kept[entry.id] = entry
                    continue
                self.ready_bytes -= len(delivery.body)
                entry.delivery = None
            counts[phase] -= 1
            counts[ABSENT] += 1
            entry.phase = ABSENT
        self.wheel.cancel_all(waiting)
        counts[WAITING] -= len(waiting)
        counts[ABSENT] += len(waiting)
        lane.ready.clear()
        lane.deferred.clear()
        lane.parked.clear()
        lane.entries = kept

    # --- what others ask of it ---

    def busy_ids(self) -> list[DeliveryId]:
        """Return the deliveries that are in flight, being recorded, or asked for and not yet sent."""
        return [entry.id for entry in self._all() if _is_busy(entry)]

    def is_quiet(self, shard: int) -> bool:
        """Return whether no delivery of a shard is in flight, being recorded or asked for."""
        return not any(
            entry.lane.endpoint.shard == shard and _is_busy(entry) for entry in self._all()
        )

    def _all(self) -> Iterator[Entry]:
        yield from self.orphans.values()
        for lane in self.lanes.values():
            yield from lane.entries.values()

    def open_breakers(self) -> dict[EndpointId, tuple[BreakerState, float | None]]:
        """Return the breakers that are not closed: state, and the monotonic time of the next probe."""
        return {
            endpoint_id: (lane.breaker.state, lane.breaker.probe_at)
            for endpoint_id, lane in self.lanes.items()
            if lane.breaker.state is not BreakerState.CLOSED
        }

    def figures(self) -> dict[str, object]:
        """Return the counts that the console shows for a replica."""
        lanes, counts = self.lanes.values(), self.counts
        return {
            "lanes_count": len(lanes),
            "lanes_waiting_count": sum(
                bool(lane.ready or lane.deferred or lane.urgent) for lane in lanes
            ),
            "ready_count": counts[READY],
            "in_flight_count": counts[IN_FLIGHT],
            "held_count": len(self),
            "wheel_timers_count": counts[WAITING],
            "recording_count": counts[RECORDING],
            "breakers_open_count": len(self.open_breakers()),
        }


def _is_busy(entry: Entry) -> bool:
    if entry.phase == READY:
        return entry.delivery is not None and entry.delivery.trigger is Trigger.MANUAL
    return bool(_UNRECORDED >> entry.phase & 1)
