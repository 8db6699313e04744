"""The loader: reads from Postgres what memory needs next, and hands it to lanes.

    window (boot, lanes that run low, the moving horizon) ──▶ retry timer, or read whole ──▶ offer to lanes
    due (the retry timer, failed resends) ──▶ read again from Postgres ─────────────────────▶ offer to lanes
    requests of people ──────────────────────────────────────────────────▶ request_loader.py

Memory holds a window of the waiting deliveries; `delivery_open` is authoritative. A due delivery is read again
before it is sent, so a delivery that was cancelled, moved or finished in the meantime is not sent. Boot is "load
the next window", nearest first per endpoint, and sending starts before loading ends. A crash loses
nothing that a start does not load.

What is always true: every statement here is about many deliveries or many endpoints at once; the
loader is the only stage that reads deliveries. When Postgres is away it asks again with backoff.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import date
from itertools import islice

import structlog

from dispatcher.core.errors import StoreUnavailableError
from dispatcher.core.model import DeliveryId, DeliveryState, EndpointId, Trigger
from dispatcher.delivery.inventory import Inventory
from dispatcher.delivery.lanes import Lanes
from dispatcher.delivery.load_queue import LoadQueue
from dispatcher.delivery.permits import Permits
from dispatcher.delivery.ports import DeliveryStore
from dispatcher.delivery.request_loader import RequestLoader
from dispatcher.delivery.retry_timer import RetryTimer
from dispatcher.delivery.types import DUE, Delivery, EndpointLane, Entry, OrderedEntry
from dispatcher.late_bodies import LateBodies
from dispatcher.runtime import probe
from dispatcher.runtime.backoff import Backoff, Outage
from dispatcher.runtime.clock import Clock
from dispatcher.store.deliveries import LoadedRow
from dispatcher.telemetry.metrics import Metrics

_log = structlog.get_logger("dispatcher.delivery.loader")

ENDPOINTS_PER_WINDOW = 200
LOAD_ROWS_MAX = 500
WINDOW_ROWS_MIN = 100
SWEPT_LINES_MAX = 1000
"""Lines that one statement of a sweep reads: some 10 ms."""
WOKEN_ROWS_MAX = 16
"""Deliveries of each woken line that are read together."""
TICK_SECONDS = 0.25
ARRIVAL_SECONDS = 30.0
"""How much later than its due time a new delivery may come to light: its transaction, and clocks."""
ARRIVALS_APART_SECONDS = 0.05
"""How far apart arrivals are looked for, however often another replica announces some."""
DUE_SECONDS = 0.001
"""Deliveries due within this time count as due: the wheel's tick."""


class Loader:
    """`run` is the only task that reads deliveries."""

    def __init__(
        self,
        store: DeliveryStore,
        inventory: Inventory,
        load_queue: LoadQueue,
        retry_timer: RetryTimer,
        lanes: Lanes,
        permits: Permits,
        late_bodies: LateBodies,
        requests: RequestLoader,
        *,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._store = store
        self._inventory = inventory
        self._queue = load_queue
        self._retry_timer = retry_timer
        self._lanes = lanes
        self._permits = permits
        self._late_bodies = late_bodies
        self._requests = requests
        self._metrics = metrics
        self._clock = clock
        self._stopping = False
        self.outage = Outage(_log, "loader.stalled", "loader.resumed")
        self._arrivals_looked_at = self._arrivals_from_at = clock.monotonic()
        """When arrivals were looked for last, and from when on they are new."""
        self._arrivals_settle_at = float("-inf")
        self._arrivals_next_at = 0.0
        self._horizon_moves_at = 0.0
        self._ticks_at = 0.0

    def stop(self) -> None:
        """Load nothing more; `run` ends."""
        self._stopping = True
        self._queue.woken.set()
        self._retry_timer.stop()

    async def run(self) -> None:
        """Load due deliveries and refill lanes until stopped."""
        backoff = Backoff()
        while not self._stopping:
            try:
                await self._work()
                self.outage.ended()
                backoff.reset()
            except StoreUnavailableError as error:
                self.outage.began(error)
                await backoff.pause()
                self._queue.woken.set()
            wakes_at = min(self._ticks_at, self._horizon_moves_at)
            if self._queue.has_arrivals:
                wakes_at = min(wakes_at, self._arrivals_next_at)
            try:
                async with asyncio.timeout(max(0.001, wakes_at - self._clock.monotonic())):
                    await self._queue.woken.wait()
            except TimeoutError:
                continue

    async def _work(self) -> None:
        queue = self._queue
        queue.woken.clear()
        now = self._clock.monotonic()
        if now >= self._ticks_at:
            self._ticks_at = now + TICK_SECONDS
            self._lanes.tick()
            queue.release_held()
        if now >= self._horizon_moves_at:
            self._horizon_moves_at = now + self._retry_timer.horizon_seconds / 2
            queue.windows.update(self._inventory.lanes)
            for lane in self._inventory.lanes.values():
                self._queue.sweep(lane)  # what got lost in between is found again
        while queue.due and not self._stopping:
            await self._load_due()
        if queue.has_requests:
            await self._requests.load()
        if queue.has_arrivals and now >= self._arrivals_next_at:
            await self._load_arrivals(now)
        for _ in range(len(queue.lines)):  # more of them in the next turn
            await self._load_lines()
            if queue.due:
                await self._load_due()
        while queue.windows and not self._stopping:
            await self._load_window()
            if queue.due:
                await self._load_due()

    async def _load_due(self) -> None:
        """Read due deliveries again and offer them to their lanes."""
        due, inventory = self._queue.due, self._inventory
        count = min(len(due), LOAD_ROWS_MAX)
        entries = [entry for entry in due[:count] if entry.phase == DUE]
        in_line = [entry for entry in entries if isinstance(entry, OrderedEntry)]
        if in_line:
            await self._place(in_line)
            entries = [entry for entry in entries if entry.phase == DUE]
            entries.sort(key=_position)
        loaded = await self._store.load([entry.id for entry in entries]) if entries else []
        del due[:count]
        rows = {row.id: row for row in loaded}
        bodiless: list[tuple[Entry, date]] = []
        for entry in entries:  # in the order in which they were due, or of their lines
            if entry.phase != DUE:
                continue  # a resend claimed it while the statement ran: the row is outdated
            row = rows.get(entry.id)
            if row is None:
                inventory.forget(entry, ended=True)
            elif row.due_in_seconds > DUE_SECONDS:
                self._retry_timer.schedule(entry, row.due_in_seconds)
            elif row.body is None:
                bodiless.append((entry, row.day))
            elif self._offer(entry, row) and row.state == DeliveryState.RETRYING:
                self._metrics.retry_lateness.observe(-row.due_in_seconds)
        self._permits.pump()
        self._retry_timer.arm()
        if bodiless:
            await self._complete(bodiless)
        probe.hit("loader.loaded", deliveries=len(loaded))

    def _offer(self, entry: Entry, row: LoadedRow) -> bool:
        """Offer a delivery that is due; return whether memory has it."""
        if isinstance(entry, OrderedEntry) and entry.place is not None:
            previous_id, lines = entry.previous_id, entry.lane.lines
            if lines is None or (
                previous_id is not None and not lines.has_before(entry.place, previous_id)
            ):
                # What came before it has ended or left memory since its place was read.
                self._inventory.forget(entry)
                self._lanes.leave_place(entry.lane, entry.place)
                return False
            delivery = _delivery(row)._replace(place=entry.place)
            return self._lanes.offer_placed(entry, delivery, entry.place, entry.next_id)
        return self._lanes.offer(entry, _delivery(row))

    async def _place(self, entries: Sequence[OrderedEntry]) -> None:
        """Note the places of due deliveries; leave those that others come before which are not in memory."""
        rows = {row.id: row for row in await self._store.place([entry.id for entry in entries])}
        self._lanes.follow_replicas(rows.values())
        for entry in entries:
            row = rows.get(entry.id)
            if row is not None:
                entry.place = row.place
        behind: list[DeliveryId] = []
        kept: set[DeliveryId] = set()
        for entry in sorted(entries, key=_position):
            lines, row = entry.lane.lines, rows.get(entry.id)
            if entry.phase != DUE or lines is None:
                continue
            if row is None:
                self._inventory.forget(entry, ended=True)
                self._queue.sweep(entry.lane)  # it was cancelled while it was in no line
            elif row.place is None:
                continue
            elif row.is_held:
                self._inventory.forget(entry)
                self._lanes.hold(entry.lane, row.place)
            elif row.previous_id is None or (
                self._lanes.has_runs()
                and len(kept) < entry.lane.window - entry.lane.load
                and (row.previous_id in kept or lines.has_before(row.place, row.previous_id))
            ):
                entry.previous_id, entry.next_id = row.previous_id, row.next_id
                kept.add(entry.id)
            else:
                self._inventory.forget(entry)
                self._lanes.leave_place(entry.lane, row.place)
                behind.append(entry.id)
        if behind:
            await self._store.shelve(behind)
        probe.hit("loader.placed", deliveries=len(rows), behind=len(behind))

    async def _load_lines(self) -> None:
        """Read the first deliveries of woken lines of one endpoint, or a slice of its sweep."""
        lane = next(iter(self._queue.lines))
        del self._queue.lines[lane]
        lines = lane.lines
        if lines is None or not lane.is_open or lane.is_forgotten:
            return
        endpoint = lane.endpoint
        if lines.woken:
            keys = list(islice(lines.woken, LOAD_ROWS_MAX))
            for key in keys:
                del lines.woken[key]
            try:
                has_room = self._lanes.has_runs() and not lane.has_plenty()
                rows_max = WOKEN_ROWS_MAX if has_room else 1
                rows = await self._store.wake(endpoint.number, keys, rows_max)
            except StoreUnavailableError:
                lines.woken.update(dict.fromkeys(keys))
                self._queue.add_lines(lane)
                raise
            for row in rows:
                entry = self._take(endpoint.id, row.id)
                if entry is None:
                    self._expect_more(lane, row.id)
                elif row.due_in_seconds <= 0:
                    self._queue.due.append(entry)
                else:
                    self._retry_timer.schedule(entry, row.due_in_seconds)
            self._retry_timer.arm()
        elif lines.sweep_after is not None:
            after, lines.sweep_after = lines.sweep_after, None
            try:
                swept = await self._store.sweep(endpoint.number, after, SWEPT_LINES_MAX)
            except StoreUnavailableError:
                lines.sweep()
                self._queue.add_lines(lane)
                raise
            if lines.sweep_after is None:
                lines.sweep_after = swept.last_key
            if swept.woken_count:
                lane.turn_away(0.0)
                self._queue.windows.add(endpoint.id)
        if lines.woken or lines.sweep_after is not None:
            self._queue.add_lines(lane)

    def _expect_more(self, lane: EndpointLane, delivery_id: DeliveryId) -> None:
        """Note that others may stand behind a delivery that is in memory already."""
        entry = self._inventory.find(lane, delivery_id)
        if not isinstance(entry, OrderedEntry) or entry.lane is not lane or lane.lines is None:
            return  # one of a former lane wakes the line when it has ended
        if entry.is_in_line and entry.place is not None:
            lane.lines.expect_more(entry.place.key)
        else:
            entry.has_more = True

    async def _complete(self, bodiless: Sequence[tuple[Entry, date]]) -> None:
        """Make the bodies of due deliveries; those that have one now are read again, the others forgotten."""
        made = await self._late_bodies.make([(entry.id, day) for entry, day in bodiless])
        for entry, _ in bodiless:
            if entry.phase != DUE:
                continue
            if entry.id in made:
                self._queue.due.append(entry)
            else:
                self._inventory.forget(entry)
                self._queue.sweep(entry.lane)

    def _take(self, endpoint_id: EndpointId, delivery_id: DeliveryId) -> Entry | None:
        """Take a delivery that Postgres knows of into memory, as due; None where it is there, or has no lane."""
        lane = self._inventory.lanes.get(endpoint_id)
        if lane is None or not lane.is_open or self._inventory.find(lane, delivery_id) is not None:
            return None
        return self._inventory.add(lane, delivery_id, DUE, None)

    async def _load_arrivals(self, now: float) -> None:
        """Take up new deliveries that another replica made.

        Lanes that know of more in Postgres reach theirs anyway, and so will those that have enough
        ready: they only learn that there may be more.
        """
        self._queue.has_arrivals = False
        self._arrivals_next_at = now + ARRIVALS_APART_SECONDS
        if now - self._arrivals_looked_at > ARRIVAL_SECONDS:
            # Postgres was away, or there were none: what began before that may still be committed.
            self._arrivals_from_at = self._arrivals_looked_at
            self._arrivals_settle_at = now + ARRIVAL_SECONDS
        elif now >= self._arrivals_settle_at:
            self._arrivals_from_at = self._arrivals_looked_at
        back_seconds = now - self._arrivals_from_at + ARRIVAL_SECONDS
        lanes: list[EndpointLane] = []
        for ours in self._inventory.lanes.values():
            if ours.is_open and ours.more_at is None:
                if ours.has_plenty():
                    ours.turn_away(0.0)
                else:
                    lanes.append(ours)
        if lanes:
            rows_max = max(len(lane.entries) for lane in lanes) + WINDOW_ROWS_MIN
            counts: Counter[EndpointId] = Counter()
            ids = [lane.endpoint.id for lane in lanes]
            try:
                rows = await self._store.arrivals(ids, rows_max, back_seconds)
            except StoreUnavailableError:
                self._queue.has_arrivals = True
                raise
            for row in rows:
                counts[row.endpoint_id] += 1
                entry = self._take(row.endpoint_id, row.id)
                if entry is not None:
                    self._queue.due.append(entry)
            for lane in lanes:
                if counts[lane.endpoint.id] >= rows_max:
                    lane.turn_away(0.0)
        self._arrivals_looked_at = now
        while self._queue.due and not self._stopping:
            await self._load_due()

    async def _load_window(self) -> None:
        """Load ids and due times of some endpoints; what is overdue is loaded whole next."""
        windows = self._queue.windows
        ids = list(islice(windows, ENDPOINTS_PER_WINDOW))
        lanes = [
            lane for i in ids if (lane := self._inventory.lanes.get(i)) is not None and lane.is_open
        ]
        room = max(WINDOW_ROWS_MIN, self._retry_timer.room // max(1, len(windows)))
        in_memory = max((len(lane.entries) for lane in lanes), default=0)
        rows_max = min(room, max((lane.window for lane in lanes), default=0)) + in_memory
        overflows = {lane.endpoint.id: lane.overflows for lane in lanes}
        horizon_seconds = self._retry_timer.horizon_seconds
        rows = await self._store.window(list(overflows), rows_max, horizon_seconds) if lanes else []
        windows.difference_update(ids)
        now = self._clock.monotonic()
        counts: dict[EndpointId, int] = {}
        last_due_at: dict[EndpointId, float] = {}
        for row in rows:
            counts[row.endpoint_id] = counts.get(row.endpoint_id, 0) + 1
            last_due_at[row.endpoint_id] = now + row.due_in_seconds
            entry = self._take(row.endpoint_id, row.id)
            if entry is None:
                continue
            if row.due_in_seconds <= 0:
                self._queue.due.append(entry)
            else:
                self._retry_timer.schedule(entry, row.due_in_seconds)
        for lane in lanes:
            if lane.overflows != overflows[lane.endpoint.id]:
                continue  # more was turned away while the statement ran: its result is already old
            if counts.get(lane.endpoint.id, 0) >= rows_max:
                lane.expect_more(last_due_at[lane.endpoint.id])
            else:
                lane.expect_more(None)
        self._retry_timer.arm()
        probe.hit("loader.window", endpoints=len(lanes), deliveries=len(rows))


def _position(entry: Entry) -> int:
    place = entry.place if isinstance(entry, OrderedEntry) else None
    return 0 if place is None else place.position


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
        Trigger.REPLAY if row.is_replay else Trigger.SCHEDULED,
    )
