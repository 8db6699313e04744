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
not committed yet, BLOCKED stands behind another delivery of its line (core/order.py), READY has its body
and stands in its lane's queue, IN_FLIGHT and RECORDING are sent and not committed, WAITING is on the
wheel, DUE is to be read again from Postgres. Every entry is in its lane's `entries`, so that everything
about a lane is linear in the lane, and nothing that happens often visits lanes without work. Entries in
flight or being recorded are also in `sent`: if their lane loses its shard meanwhile, a new lane of the same
endpoint leaves them alone.

A forgotten lane is closed at once and its entries are dropped in steps (`reclaim`): 80,000 at a time
would keep the event loop from everything else for 50 ms.

A crash loses the inventory and nothing else: Postgres has every delivery, and the next start loads
the window again.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from dispatcher.core.breaker import BreakerState
from dispatcher.core.model import DeliveryId, EndpointId, Trigger
from dispatcher.core.wheel import Wheel
from dispatcher.delivery.types import (
    ABSENT,
    BLOCKED,
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
    OrderedEntry,
)
from dispatcher.runtime.clock import Clock

TRANSITIONS: Final = {
    ABSENT: (RESERVED, READY, WAITING, DUE),
    RESERVED: (READY, BLOCKED, ABSENT),
    READY: (IN_FLIGHT, ABSENT),
    IN_FLIGHT: (RECORDING, ABSENT),
    RECORDING: (WAITING, DUE, ABSENT),
    WAITING: (DUE, READY, ABSENT),
    DUE: (READY, BLOCKED, WAITING, ABSENT),
    BLOCKED: (READY, ABSENT),
}
_NEXT: Final = tuple(
    sum(1 << after for after in TRANSITIONS[phase]) for phase in range(len(PHASE_NAMES))
)
"""The table as one bit mask per phase: a look-up costs 25 ns."""
_WITH_BODY: Final = (READY, BLOCKED)
_UNRECORDED: Final = 1 << IN_FLIGHT | 1 << RECORDING


class Inventory:
    """All lanes of this replica and their deliveries; used on the event loop's thread only."""

    def __init__(self, clock: Clock) -> None:
        self.lanes: dict[EndpointId, EndpointLane] = {}
        """Written by `LaneFollower` alone."""
        self.active: dict[EndpointLane, None] = {}
        """The lanes with work, here or in Postgres; all others are as they were when they were last considered."""
        self.deferring: dict[EndpointLane, None] = {}
        """The lanes whose breaker is not closed; written by `Deferrals`."""
        self.wheel: Wheel[Entry] = Wheel(int(clock.monotonic() * 1000))
        """When each WAITING entry is due, in milliseconds of the monotonic clock."""
        self.sent: dict[DeliveryId, Entry] = {}
        """The entries in flight or being recorded, those of forgotten lanes included."""
        self._forgotten: deque[EndpointLane] = deque()
        self.counts = [0] * len(PHASE_NAMES)
        """Entries by phase; that of ABSENT is what makes the sum zero."""
        self.ready_bytes = 0
        self.has_runs: Callable[[], bool] = lambda: True
        """Whether no other replica writes deliveries between those of a line that are in memory."""
        self.moved_up: Callable[[EndpointLane], None] = lambda _: None
        """Called when a delivery of a lane became the first of its line, or a line is to be read; `Lanes` sets it."""
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
        return lane.entries.get(delivery_id) or self.sent.get(delivery_id)

    # --- into memory ---

    def add(
        self, lane: EndpointLane, delivery_id: DeliveryId, phase: int, delivery: Delivery | None
    ) -> Entry:
        """Take a delivery into memory, which must not be there yet; return its entry."""
        assert delivery_id not in lane.entries, delivery_id  # noqa: S101 -- twice in memory is twice sent
        made = Entry if lane.lines is None else OrderedEntry
        entry = lane.entries[delivery_id] = made(delivery_id, lane, delivery)
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

    def block(self, entry: Entry, delivery: Delivery) -> None:
        """Keep a delivery that stands behind another one of its line."""
        self._move(entry, BLOCKED)
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
        self.sent[entry.id] = entry
        return delivery

    def finish(self, entry: Entry) -> None:
        """Note that the attempt has a result, which is to be recorded."""
        self._move(entry, RECORDING)

    def wait(self, entry: Entry, due_ms: int) -> None:
        """Put an entry on the wheel; only its id and due time stay in memory."""
        if entry.phase == RECORDING:
            del self.sent[entry.id]
        self._move(entry, WAITING)
        entry.delivery = None
        self.wheel.schedule(entry, due_ms)

    def make_due(self, entry: Entry) -> None:
        """Note that an entry is to be read again from Postgres."""
        if entry.phase == WAITING:
            self.wheel.cancel(entry)
        elif entry.phase == RECORDING:
            del self.sent[entry.id]
        self._move(entry, DUE)
        entry.delivery = None

    def turn(self, now_ms: int) -> list[Entry]:
        """Take what has become due off the wheel and return it, in the order of due times."""
        due = self.wheel.advance(now_ms)
        for entry in due:
            self._move(entry, DUE)
        return due

    # --- out of memory ---

    def forget(self, entry: Entry, *, ended: bool = False) -> None:
        """Drop an entry; a ready one must have left its lane's queue. `ended`: its delivery is open no longer."""
        phase = entry.phase
        if phase == WAITING:
            self.wheel.cancel(entry)
        elif phase in _WITH_BODY and entry.delivery is not None:
            self.ready_bytes -= len(entry.delivery.body)
        elif _UNRECORDED >> phase & 1:
            del self.sent[entry.id]
        self._move(entry, ABSENT)
        entry.delivery = None
        entry.lane.entries.pop(entry.id, None)
        if isinstance(entry, OrderedEntry):
            self._leave_line(entry, ended=ended)

    def _leave_line(self, entry: OrderedEntry, *, ended: bool) -> None:
        """Let the next delivery of a line move up; if the first is left to Postgres, so are those behind it."""
        lane, place = entry.lane, entry.place
        if entry.is_in_line and lane.lines is not None:
            following, left = lane.lines.leave(entry, ended=ended, is_gapless=self.has_runs())
            for one in left:
                self.forget(one)
            if following is not None:
                self._move(following, READY)
                lane.line_up(following)
                lane.activate()
            if following is not None or lane.lines.woken:
                self.moved_up(lane)
        elif ended and place is not None:
            # Its lane was made again while it was in flight, and the line may wait for it there.
            present = self.lanes.get(lane.endpoint.id)
            if present is not None and present.lines is not None:
                present.lines.expect_more(place.key)
                self.moved_up(present)

    def forget_waiting(self, lane: EndpointLane) -> None:
        """Drop every entry of a lane except those in flight, being recorded or asked for by a person."""
        kept = {entry.id: entry for entry in lane.entries.values() if _is_busy(entry)}
        self._drop([entry for entry in lane.entries.values() if entry.id not in kept])
        lane.ready.clear()
        lane.deferred.clear()
        lane.parked.clear()
        lane.entries = kept
        if lane.lines is not None:
            lane.lines.keep(kept)

    def forget_lane(self, lane: EndpointLane) -> None:
        """Close a lane that is no longer ours; `reclaim` drops its entries."""
        lane.is_open = False
        lane.is_forgotten = True
        lane.urgent.clear()
        if lane.lines is not None:
            lane.lines.clear()
        self.active.pop(lane, None)
        self.deferring.pop(lane, None)
        self._forgotten.append(lane)

    def reclaim(self, entries_max: int) -> bool:
        """Drop about so many entries of forgotten lanes; return whether there are more."""
        left = entries_max
        while self._forgotten and left > 0:
            lane = self._forgotten[0]
            entries = lane.entries
            if len(entries) <= left:
                lane.entries = {}
                dropped = list(entries.values())
                self._forgotten.popleft()
                lane.ready.clear()
                lane.deferred.clear()
                lane.parked.clear()
            else:
                dropped = [entries.popitem()[1] for _ in range(left)]
            self._drop([entry for entry in dropped if not _UNRECORDED >> entry.phase & 1])
            left -= len(dropped) + 1
        return bool(self._forgotten)

    def _drop(self, entries: list[Entry]) -> None:
        """Make entries absent that are in no line and not sent; the caller takes them out of their lane."""
        counts = self.counts
        waiting: list[Entry] = []
        for entry in entries:
            phase = entry.phase
            if phase == WAITING:
                waiting.append(entry)
            elif phase in _WITH_BODY and entry.delivery is not None:
                self.ready_bytes -= len(entry.delivery.body)
            counts[phase] -= 1
            counts[ABSENT] += 1
            entry.phase = ABSENT
            entry.delivery = None
        self.wheel.cancel_all(waiting)

    # --- what others ask of it ---

    def busy_ids(self) -> list[DeliveryId]:
        """Return the deliveries that are in flight, being recorded, or asked for and not yet sent."""
        return [*self.sent, *(entry.id for lane in self.active for entry in lane.urgent)]

    def is_quiet(self, shard: int) -> bool:
        """Return whether no delivery of a shard is in flight, being recorded or asked for."""
        return not any(
            entry.lane.endpoint.shard == shard for entry in self.sent.values()
        ) and not any(lane.urgent and lane.endpoint.shard == shard for lane in self.active)

    def open_breakers(self) -> dict[EndpointId, tuple[BreakerState, float | None]]:
        """Return the breakers that are not closed: state, and the monotonic time of the next probe."""
        return {
            lane.endpoint.id: (lane.breaker.state, lane.breaker.probe_at) for lane in self.deferring
        }

    def figures(self) -> dict[str, object]:
        """Return the counts that the console shows for a replica."""
        counts = self.counts
        return {
            "lanes_count": len(self.lanes),
            "lanes_waiting_count": sum(
                bool(lane.ready or lane.deferred or lane.urgent) for lane in self.active
            ),
            "ready_count": counts[READY],
            "in_flight_count": counts[IN_FLIGHT],
            "held_count": len(self),
            "wheel_timers_count": counts[WAITING],
            "recording_count": counts[RECORDING],
            "breakers_open_count": len(self.deferring),
        }


def _is_busy(entry: Entry) -> bool:
    if entry.phase == READY:
        return entry.delivery is not None and entry.delivery.trigger is Trigger.MANUAL
    return bool(_UNRECORDED >> entry.phase & 1)
