"""The scheduler: a timing wheel of what is due soon, and the loading of what is due.

    settled (a retry was committed) ──▶ wheel ──(due)──▶ read again from Postgres ──▶ offer to its lane
    window (boot, lanes that run low, the horizon moving on) ──┘         ▲
    requests (resend now) ───────────────────────────────────────────────┘

The wheel is a cache: it holds ids and due times of a window (`horizon_seconds` ahead, `timers_max`
of them), nothing else; the truth is `delivery_open`. What is due is read again under our lease
before it is sent, so that a delivery that was cancelled, moved or finished meanwhile is not. Boot
is "load the next window", nearest first per endpoint, and sending starts before loading ends. A
crash loses nothing that a start does not load.

What is always true: due times come from the database's clock as seconds from now and are kept by
the monotonic clock; nothing is sent before it is due. Every statement here is about many deliveries
or many endpoints at once.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import Protocol

import structlog

from dispatcher.core.errors import StoreUnavailableError
from dispatcher.core.model import DeliveryId, DeliveryState, EndpointId, Outcome, Reason, Trigger
from dispatcher.core.wheel import Wheel
from dispatcher.delivery.ports import DeliveryStore
from dispatcher.delivery.types import AttemptResult, Delivery, EndpointLane
from dispatcher.runtime import probe
from dispatcher.runtime.backoff import Backoff
from dispatcher.runtime.clock import Clock
from dispatcher.store.deliveries import LoadedRow, RequestRow

_log = structlog.get_logger("dispatcher.delivery.scheduler")

ENDPOINTS_PER_WINDOW = 200
LOAD_ROWS_MAX = 500
WINDOW_ROWS_MIN = 100
TICK_SECONDS = 0.25
ARRIVAL_SECONDS = 30.0
"""How much later than its due time a new delivery may come to light: its transaction, and clocks."""
ARRIVALS_APART_SECONDS = 0.05
"""How far apart arrivals are looked for, however often another replica announces some."""
DUE_SECONDS = 0.001
"""What is due within this is due: the wheel's tick."""


class HoldsDeliveries(Protocol):
    """Lanes, as the scheduler sees them."""

    lanes: dict[EndpointId, EndpointLane]
    held: dict[DeliveryId, EndpointLane]
    busy: set[DeliveryId]
    wants_refill: set[EndpointId]

    def offer(self, endpoint_id: EndpointId, delivery: Delivery) -> bool:
        """Takes a committed delivery that is due."""
        ...

    def demand(self, endpoint_id: EndpointId, delivery: Delivery) -> bool:
        """Takes an attempt that a person asked for."""
        ...

    def hold(self, delivery_id: DeliveryId, lane: EndpointLane) -> None:
        """Counts a delivery as in memory."""
        ...

    def release(self, delivery_id: DeliveryId) -> EndpointLane | None:
        """Counts it as no longer in memory."""
        ...

    def tick(self) -> None:
        """Fits windows to paces."""
        ...

    def pump(self) -> None:
        """Starts what may start."""
        ...


class MakesBodies(Protocol):
    """The maker of bodies that fan-out could not make, as the scheduler sees it."""

    async def __call__(
        self, deliveries: Sequence[tuple[DeliveryId, date]]
    ) -> frozenset[DeliveryId]:
        """Return the deliveries whose body exists now."""
        ...


class Scheduler:
    """The wheel and its loading; `run` is the only task that awaits Postgres here."""

    def __init__(
        self,
        store: DeliveryStore,
        lanes: HoldsDeliveries,
        *,
        shards: Callable[[], Iterable[int]],
        make_bodies: MakesBodies,
        late_by: Callable[[float], None],
        clock: Clock,
        horizon_seconds: float,
        timers_max: int,
    ) -> None:
        self._store = store
        self._lanes = lanes
        self._shards = shards
        self._make_bodies = make_bodies
        self._late_by = late_by
        self._clock = clock
        self._horizon_seconds = horizon_seconds
        self._timers_max = timers_max
        self._wheel: Wheel[DeliveryId] = Wheel(self._now_ms())
        self._due: list[DeliveryId] = []
        self._woken = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms: int | None = None
        self._stopping = False
        self._windows_wanted: set[EndpointId] = set()
        self._requests_wanted = False
        self._arrivals_wanted = False
        self._arrivals_seen_at = self._clock.monotonic()
        self._arrivals_next_at = 0.0
        self._horizon_moves_at = 0.0
        self._ticks_at = 0.0

    def __len__(self) -> int:
        return len(self._wheel)

    def _now_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)

    # --- what others tell it ---

    def load_endpoints(self, endpoint_ids: Iterable[EndpointId]) -> None:
        """Loads the next window of these endpoints: they are new here, open again, or run low."""
        self._windows_wanted.update(endpoint_ids)
        if self._windows_wanted:
            self._woken.set()

    def load_requests(self) -> None:
        """Looks for what people asked."""
        self._requests_wanted = True
        self._woken.set()

    def look_for_arrivals(self) -> None:
        """Looks for what other replicas fanned out for endpoints of ours."""
        self._arrivals_wanted = True
        self._woken.set()

    def wake(self) -> None:
        """Lets lanes that run low be filled."""
        self._woken.set()

    def settled(self, results: list[AttemptResult], fenced: frozenset[DeliveryId]) -> None:
        """Takes committed results: what retries goes on the wheel, what ended is forgotten."""
        now = self._clock.monotonic()
        for result in results:
            delivery = result.delivery
            self._lanes.busy.discard(delivery.id)
            lane = self._lanes.held.get(delivery.id)
            successor = self._lanes.lanes.get(result.endpoint.id)
            decision = result.decision
            ended = decision.state not in (DeliveryState.PENDING, DeliveryState.RETRYING)
            # Its shard went and came back while it was in flight: what the lane of then holds, no lane sends.
            astray = lane is not None and lane is not successor
            if delivery.id in fenced or ended or astray:
                self._forget(delivery.id)
                if successor is not None and (delivery.id in fenced or not ended):
                    successor.turn_away(0.0)  # ours again meanwhile: it is to be loaded anew
            elif delivery.trigger is not Trigger.SCHEDULED or decision.next_delay_seconds is None:
                # A resend that failed: the delivery keeps its place, and a resend asked meanwhile
                # follows.
                if lane is not None and delivery.id not in self._wheel:
                    self._due.append(delivery.id)
                    self._woken.set()
            elif lane is not None:
                due_in = result.finished_at_monotonic + decision.next_delay_seconds - now
                self._schedule(delivery.id, lane, due_in)
            if delivery.trigger is Trigger.MANUAL and result.answer.outcome is not Outcome.OK:
                self.load_requests()
        self._arm()

    def _schedule(self, delivery_id: DeliveryId, lane: EndpointLane, due_in_seconds: float) -> None:
        """Puts a held delivery on the wheel, or leaves it to Postgres: beyond the horizon, or no room."""
        if due_in_seconds > self._horizon_seconds:
            self._lanes.release(delivery_id)  # the horizon will come to it
        elif len(self._wheel) >= self._timers_max:
            self._lanes.release(delivery_id)
            lane.turn_away(self._clock.monotonic() + due_in_seconds)
        else:
            # Rounded up: the wheel is never early by its tick, nor may we be.
            self._wheel.schedule(
                delivery_id, int((self._clock.monotonic() + due_in_seconds) * 1000) + 1
            )

    def _forget(self, delivery_id: DeliveryId) -> None:
        self._wheel.cancel(delivery_id)
        self._lanes.release(delivery_id)

    # --- time ---

    def _arm(self) -> None:
        """Sets the one timer of the event loop to the wheel's next due time."""
        due_ms = self._wheel.next_due_ms()
        if due_ms == self._timer_ms:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_ms = due_ms
        if due_ms is not None:
            delay = max(0.0, due_ms / 1000 - self._clock.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._turn)

    def _turn(self) -> None:
        """Takes what is due off the wheel."""
        self._timer = self._timer_ms = None
        due = self._wheel.advance(self._now_ms())
        if due:
            self._due.extend(due)
            self._woken.set()
        self._arm()

    # --- loading ---

    def stop(self) -> None:
        """Loads nothing more; `run` ends."""
        self._stopping = True
        self._woken.set()
        if self._timer is not None:
            self._timer.cancel()

    async def run(self) -> None:
        """Loads what is due and what lanes need until stopped."""
        backoff = Backoff()
        while not self._stopping:
            try:
                await self._work()
                backoff.reset()
            except StoreUnavailableError as error:
                _log.warning("scheduler.waits", error=str(error))
                await backoff.pause()
                self._woken.set()
            wakes_at = min(self._ticks_at, self._horizon_moves_at)
            if self._arrivals_wanted:
                wakes_at = min(wakes_at, self._arrivals_next_at)
            try:
                async with asyncio.timeout(max(0.001, wakes_at - self._clock.monotonic())):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def _work(self) -> None:
        self._woken.clear()
        now = self._clock.monotonic()
        if now >= self._ticks_at:
            self._ticks_at = now + TICK_SECONDS
            self._lanes.tick()
        if now >= self._horizon_moves_at:
            self._horizon_moves_at = now + self._horizon_seconds / 2
            self._windows_wanted.update(self._lanes.lanes)
        self._windows_wanted |= self._lanes.wants_refill
        self._lanes.wants_refill.clear()
        while self._due and not self._stopping:
            await self._load_due()
        if self._requests_wanted:
            await self._load_requests()
        if self._arrivals_wanted and now >= self._arrivals_next_at:
            await self._load_arrivals(now)
        while self._windows_wanted and not self._stopping:
            await self._load_window()
            if self._due:
                await self._load_due()

    async def _load_due(self) -> None:
        """Reads due deliveries again and offers them to their lanes."""
        count = min(len(self._due), LOAD_ROWS_MAX)
        ids = list(dict.fromkeys(self._due[:count]))
        idle = [i for i in ids if i not in self._lanes.busy]
        loaded = await self._store.load(idle) if idle else []
        del self._due[:count]
        found = {row.id: row for row in loaded}
        bodiless: list[tuple[DeliveryId, date]] = []
        for delivery_id in ids:  # in the order in which they were due, which a join does not keep
            row = found.get(delivery_id)
            if row is None:
                if delivery_id not in self._lanes.busy:
                    self._forget(delivery_id)
                continue
            lane = self._lanes.held.get(row.id)
            if row.id in self._lanes.busy or lane is None or row.id in self._wheel:
                continue  # it was sent while we asked: what the row says is old
            if row.due_in_seconds > DUE_SECONDS:
                self._schedule(row.id, lane, row.due_in_seconds)
            elif row.body is None:
                bodiless.append((row.id, row.day))
            elif not self._lanes.offer(row.endpoint_id, _delivery(row)):
                self._lanes.release(row.id)
            elif row.state == DeliveryState.RETRYING:
                self._late_by(-row.due_in_seconds)
        self._lanes.pump()
        self._arm()
        if bodiless:
            await self._complete(bodiless)
        probe.hit("scheduler.loaded", deliveries=len(loaded))

    async def _complete(self, bodiless: Sequence[tuple[DeliveryId, date]]) -> None:
        """Make the bodies of due deliveries; those that have one now are read again, the others forgotten."""
        made = await self._make_bodies(bodiless)
        for delivery_id, _ in bodiless:
            if delivery_id in made:
                self._due.append(delivery_id)
            elif delivery_id not in self._lanes.busy:
                self._forget(delivery_id)

    async def _load_arrivals(self, now: float) -> None:
        """Takes up new deliveries that another replica made.

        Lanes that know of more in Postgres come to theirs anyway, and so will those that have enough
        ready: they only learn that there may be more.
        """
        self._arrivals_wanted = False
        self._arrivals_next_at = now + ARRIVALS_APART_SECONDS
        back_seconds = now - self._arrivals_seen_at + ARRIVAL_SECONDS
        lanes: list[EndpointLane] = []
        for ours in self._lanes.lanes.values():
            if ours.is_open and ours.more_at is None:
                if ours.has_plenty():
                    ours.turn_away(0.0)
                else:
                    lanes.append(ours)
        if lanes:
            rows_max = max(lane.held_count for lane in lanes) + WINDOW_ROWS_MIN
            counts: Counter[EndpointId] = Counter()
            for row in await self._store.arrivals(
                [e.endpoint.id for e in lanes], rows_max, back_seconds
            ):
                counts[row.endpoint_id] += 1
                lane = self._lanes.lanes.get(row.endpoint_id)
                if lane is not None and lane.is_open and row.id not in self._lanes.held:
                    self._lanes.hold(row.id, lane)
                    self._due.append(row.id)
            for lane in lanes:
                if counts[lane.endpoint.id] >= rows_max:
                    lane.turn_away(0.0)
        self._arrivals_seen_at = now
        while self._due and not self._stopping:
            await self._load_due()

    async def _load_window(self) -> None:
        """Loads ids and due times of some endpoints; what is overdue is loaded whole next."""
        ids = list(self._windows_wanted)[:ENDPOINTS_PER_WINDOW]
        lanes = [
            lane for i in ids if (lane := self._lanes.lanes.get(i)) is not None and lane.is_open
        ]
        room = max(
            WINDOW_ROWS_MIN,
            (self._timers_max - len(self._wheel)) // max(1, len(self._windows_wanted)),
        )
        held = max((lane.held_count for lane in lanes), default=0)
        rows_max = min(room, max((lane.window for lane in lanes), default=0)) + held
        overflows = {lane.endpoint.id: lane.overflows for lane in lanes}
        rows = (
            await self._store.window(list(overflows), rows_max, self._horizon_seconds)
            if lanes
            else []
        )
        self._windows_wanted.difference_update(ids)
        now = self._clock.monotonic()
        counts: dict[EndpointId, int] = {}
        last_due_at: dict[EndpointId, float] = {}
        for row in rows:
            counts[row.endpoint_id] = counts.get(row.endpoint_id, 0) + 1
            last_due_at[row.endpoint_id] = now + row.due_in_seconds
            lane = self._lanes.lanes.get(row.endpoint_id)
            if lane is None or not lane.is_open or row.id in self._lanes.held:
                continue
            self._lanes.hold(row.id, lane)
            if row.due_in_seconds <= 0:
                self._due.append(row.id)
            else:
                self._schedule(row.id, lane, row.due_in_seconds)
        for lane in lanes:
            if lane.overflows != overflows[lane.endpoint.id]:
                continue  # more was turned away while we asked: the answer is already old
            if counts.get(lane.endpoint.id, 0) >= rows_max:
                lane.more_at = last_due_at[lane.endpoint.id]
            else:
                lane.more_at = None
        self._arm()
        probe.hit("scheduler.window", endpoints=len(lanes), deliveries=len(rows))

    async def _load_requests(self) -> None:
        """Hands resends to their lanes, and forgets deliveries that a person cancelled."""
        self._requests_wanted = False
        shards = list(self._shards())
        if not shards:
            return
        acted_on: list[tuple[DeliveryId, str]] = []
        for row in await self._store.requests(shards, LOAD_ROWS_MAX, list(self._lanes.busy)):
            if row.kind == "cancel":
                if row.id not in self._lanes.busy:
                    self._forget(row.id)
                acted_on.append((row.id, row.kind))
            elif row.answered:
                acted_on.append((row.id, row.kind))
            elif (
                row.body is None
                and row.day is not None
                and row.id in await self._make_bodies([(row.id, row.day)])
            ):
                self.load_requests()  # read again, with its body
            elif row.body is None or row.endpoint_id is None:
                _log.warning("delivery.cannot_be_resent", delivery_id=row.id)
                acted_on.append((row.id, row.kind))
            else:
                self._lanes.demand(row.endpoint_id, _requested(row))
        self._lanes.pump()
        if acted_on:
            await self._store.forget_requests(acted_on)


def _delivery(row: LoadedRow) -> Delivery:
    return Delivery(
        row.id,
        row.day,
        row.event_id,
        row.event_type,
        row.body or b"",
        row.inserted_at,
        row.traceparent,
        DeliveryState(row.state),
        None,
        row.attempt_count,
        row.schedule_position,
        Trigger.SCHEDULED,
    )


def _requested(row: RequestRow) -> Delivery:
    assert row.day is not None and row.body is not None and row.inserted_at is not None  # noqa: S101, PT018 -- one join
    return Delivery(
        row.id,
        row.day,
        row.event_id or "",
        row.event_type or "",
        row.body,
        row.inserted_at,
        row.traceparent,
        DeliveryState(row.state or DeliveryState.PENDING),
        Reason(row.reason) if row.reason else None,
        row.attempt_count or 0,
        row.schedule_position or 0,
        Trigger.MANUAL,
    )
