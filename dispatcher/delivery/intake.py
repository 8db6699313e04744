"""Intake: decides when to poll the outbox, and how many events to claim.

    asleep ──(NOTIFY, or poll, or stop)──▶ claiming ──(outbox empty)──▶ lingering ──(still empty)──▶ asleep

If claims are full there is a backlog, which may be of one tenant. Then each round begins with events of
the other tenants, in turns (core/census.py). Without a backlog these queries are not made.

NOTIFY is a hint without contents. While asleep, intake keeps the sequence `asleep_until` in the future
(store/listener.py), so that producers' commits send a NOTIFY. While events stream in, it clears the
sequence and polls, so that producers send none, because a NOTIFY takes a lock that is held until its commit
is on disk: all commits with one are written one after the other. On a slow disk their rate may never
exceed what a stream is recognized by, so intake also stays awake while commits wait for that lock. The poll
covers every gap: a commit between the last poll and the announcement, a listener whose connection
failed, a pooler that does not deliver notifications.

Invariants: intake claims only when lanes have room, or after a bounded wait (`_wait_for_room`), and never more
than a batch at a time (under load as two halves at once). It keeps no cursor. If Postgres is unavailable
it retries with backoff. The loop ends only when it is stopped.
"""

import asyncio
import random
from typing import Protocol

import structlog

from dispatcher.core.errors import StoreUnavailableError
from dispatcher.delivery.crowding import Crowding
from dispatcher.delivery.fanout import Fanout, TakenThrough
from dispatcher.delivery.load_queue import LoadQueue
from dispatcher.delivery.permits import Permits
from dispatcher.delivery.ports import EventSignal, OutboxStore
from dispatcher.delivery.routing import RoutingTable
from dispatcher.runtime import probe
from dispatcher.runtime.backoff import Backoff, Outage
from dispatcher.runtime.clock import Clock
from dispatcher.store.outbox import FEW_EVENTS_MAX, Poll
from dispatcher.telemetry.metrics import Metrics

_log = structlog.get_logger("dispatcher.delivery.intake")

LINGER_SECONDS = 0.1
"""How long intake retries claims from an empty outbox after a busy time, before it goes to sleep."""
LOOK_AGAIN_SECONDS = 0.004
BUSY_EVENTS_PER_SECOND = 500
"""Above this rate, producers send no NOTIFY."""
CONTENTION_EVENTS_PER_SECOND = 10
"""Below this rate, commits that wait for each other's NOTIFY are not counted."""
CONTENDED_COMMITS = 2
"""If this many commits wait for another one's NOTIFY, producers send none for a while."""
SILENT_SECONDS = 5.0
SILENT_SECONDS_MAX = 60.0
"""How long for; twice as long if they wait again soon after."""
FEW_EVENTS = FEW_EVENTS_MAX // 2
"""After a claim of at most so many events, which left none behind, the next one is made for a few."""
BACKLOG_CLAIMS = 2
"""This many full claims in a row are a backlog; from then on tenants are served in turns."""
SHARED_SECONDS = 5.0
"""How long rounds stay short after another tenant's event, so that its next event waits for a short round only."""
ROUND_SECONDS = 0.05
"""A short round: as many events as fan-out commits in this time, at its recent pace."""
ROUND_SHARE_MIN = 4
"""A short round has at least this part (a quarter) of a batch; otherwise round trips would be most of its cost."""
OLDEST_SHARE_MIN = 8
"""The oldest events get at least this part (an eighth) of a batch, for any number of waiting tenants."""
ROOM_DELIVERIES_PER_SECOND = 2_500
"""A crowded lane may delay fan-out for as long as a round's deliveries take at this pace. Then its excess deliveries
stay in Postgres, which costs as much as delivering them from memory, and other lanes go on."""
SHARED_ROOM_SECONDS = 0.0125
"""The same while tenants take turns: another tenant's next event waits for it."""


class Company(Protocol):
    """The shards, as intake uses them."""

    def has_company(self) -> bool:
        """Return whether other replicas fan out and may create deliveries for endpoints of this one."""
        ...


class Intake:
    """Polls the outbox and sets the pace of fan-out; `run` is its only task."""

    def __init__(
        self,
        outbox: OutboxStore,
        fanout: Fanout,
        signal: EventSignal,
        routing: RoutingTable,
        permits: Permits,
        crowding: Crowding,
        load_queue: LoadQueue,
        shards: Company,
        *,
        metrics: Metrics,
        clock: Clock,
        batch_events_max: int,
        poll_seconds: float,
    ) -> None:
        self._outbox = outbox
        self._fanout = fanout
        self._signal = signal
        self._routing = routing
        self._permits = permits
        self._crowding = crowding
        self._load_queue = load_queue
        self._shards = shards
        self._metrics = metrics
        self._full_claims = 0
        self._few = True
        """Whether the last claim had a few events."""
        self._shared_at = float("-inf")
        self._event_seconds = 0.0001
        self._clock = clock
        self._batch_events_max = batch_events_max
        self._poll_seconds = poll_seconds
        self._stopping = False
        self.outage = Outage(_log, "intake.stalled", "intake.resumed")
        self._silent_until = float("-inf")
        """Until when intake polls because NOTIFY would make commits wait."""
        self._silent_seconds = SILENT_SECONDS
        self._rate = 0.0
        self._measured_at = clock.monotonic()
        self._measured_count = 0
        self._polled_at = 0.0
        self._poll_timer: asyncio.TimerHandle | None = None
        self._is_poll_due = False
        """Whether the timer has ended the wait for a notification."""
        self.turned_at = clock.monotonic()
        """When the loop last made a turn, or waited within its bounds; readiness and the watchdog read it."""
        self.looked_at = self.turned_at
        """When intake last read the outbox; readiness depends on it, the watchdog does not."""

    def stop(self) -> None:
        """Claim no more; `run` ends after the current batch."""
        self._stopping = True
        self._signal.woken.set()
        self._crowding.room.set()

    async def run(self) -> None:
        """Claim and fan out events until stopped."""
        backoff = Backoff()
        while not self._stopping:
            self.turned_at = self._clock.monotonic()
            try:
                await self._turn()
                self.outage.ended()
                backoff.reset()
            except StoreUnavailableError as error:
                self.outage.began(error)
                await backoff.pause()
        if self._poll_timer is not None:
            self._poll_timer.cancel()
        if not self._shards.has_company():
            # No dispatcher is left to wake, and commits would go on to send a NOTIFY for some seconds.
            await self._signal.wake()

    def is_alive(self, within_seconds: float) -> bool:
        """Return whether the loop has claimed, polled, or waited within its bounds recently."""
        return self._clock.monotonic() - self.turned_at < within_seconds

    def reads_outbox(self, within_seconds: float) -> bool:
        """Return whether the outbox could be read recently; a restart would not help if not."""
        return self._clock.monotonic() - self.looked_at < within_seconds

    def poll_now(self) -> None:
        """Make intake poll at once, because a change other than an event was announced."""
        self._polled_at = 0.0
        self._signal.woken.set()

    async def _turn(self) -> None:
        """Poll, fan out the waiting events, and sleep if there are none."""
        self._signal.woken.clear()  # before the poll: a later commit sets it again
        now = self._clock.monotonic()
        waiting = True
        if now - self._polled_at >= self._poll_seconds:
            self._polled_at = now
            counts_waiters = self._signal.is_asleep and self._rate > CONTENTION_EVENTS_PER_SECOND
            poll = await self._outbox.poll(counts_waiters=counts_waiters)
            self.looked_at = self._clock.monotonic()
            if poll.notify_waiters_count >= CONTENDED_COMMITS:
                await self._silence()
            await self._follow(poll)
            waiting = poll.outbox_waiting
        if waiting and await self._drain():
            return
        if self._clock.monotonic() < self._silent_until:
            return
        if await self._signal.sleep():
            return  # newly asleep: poll once more for events that were committed before it
        await self._wait()

    async def _silence(self) -> None:
        """Poll for a while instead of being notified, because commits wait for each other's NOTIFY."""
        now = self._clock.monotonic()
        again = now - self._silent_until < 2 * self._silent_seconds
        self._silent_seconds = (
            min(2 * self._silent_seconds, SILENT_SECONDS_MAX) if again else SILENT_SECONDS
        )
        self._silent_until = now + self._silent_seconds
        await self._signal.wake()
        probe.hit("intake.silenced")

    async def _follow(self, poll: Poll) -> None:
        """React to the changes other than events that the poll found."""
        if self._routing.is_stale(poll.routing_version):
            await self._routing.refresh()
        if poll.requests_waiting:
            self._load_queue.add_requests()
        if self._shards.has_company() or self._fanout.is_unsure():
            self._load_queue.add_arrivals()
        self._permits.pump()

    async def _drain(self) -> bool:
        """Claim batch after batch; return whether a poll is due, after which claiming goes on at once."""
        empty_since: float | None = None
        while not self._stopping:
            self.turned_at = now = self._clock.monotonic()
            if now - self._polled_at >= self._poll_seconds:
                return True
            events_max, overtook_count = self._batch_events_max, 0
            least = 1
            is_shared = False
            if self._full_claims >= BACKLOG_CLAIMS:
                is_shared = now - self._shared_at < SHARED_SECONDS
                if is_shared:
                    events_max = min(events_max, self._round_events())
                overtook = await self._fanout.overtake(-(-events_max // 2))
                overtook_count = overtook.events_count
                if overtook_count:
                    self._shared_at = now
                # The tenant of the oldest events gets as many as the other tenants, and no more.
                least = max(overtook.per_tenant_max, events_max // OLDEST_SHARE_MIN, 1)
                events_max = max(events_max - overtook_count, least)
            if not await self._wait_for_room(events_max, is_shared=is_shared) and is_shared:
                events_max = least
            began = self._clock.monotonic()
            few = self._expects_few()
            taken = await self._take(events_max, few=few)
            self.looked_at = self._clock.monotonic()
            self._few = taken.events_count <= FEW_EVENTS and not taken.more
            self._follow_pace(taken.events_count, self.looked_at - began)
            events_count = overtook_count + taken.events_count
            is_full = taken.more and not few
            self._full_claims = self._full_claims + 1 if is_full else 0
            self._measure(events_count)
            if self._rate > BUSY_EVENTS_PER_SECOND:
                await self._signal.wake()
            elif (
                not taken.more
                and (events_count == 0 or self._signal.is_asleep)
                and now >= self._silent_until
            ):
                return False  # commits from now on send a NOTIFY
            if events_count:
                empty_since = None
                continue
            empty_since = empty_since or now
            if now - empty_since > LINGER_SECONDS:
                return False
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
        return False

    def _expects_few(self) -> bool:
        """Return whether two statements fan out the next events for less than a transaction does.

        Another replica would read the same events, and only one of them could claim each.
        """
        return self._few and self._rate <= BUSY_EVENTS_PER_SECOND and not self._shards.has_company()

    async def _wait_for_room(self, events_max: int, *, is_shared: bool) -> bool:
        """Wait a moment while a lane is crowded; return whether there is room now."""
        room = self._crowding.room
        if room.is_set():
            return True
        deliveries = self._fanout.expected_deliveries(events_max)
        seconds = SHARED_ROOM_SECONDS if is_shared else deliveries / ROOM_DELIVERIES_PER_SECOND
        try:
            async with asyncio.timeout(seconds):
                await room.wait()
        except TimeoutError:
            return False
        return True

    def _follow_pace(self, events_count: int, seconds: float) -> None:
        """Update the moving average of the time per event of large claims, without the wait for room."""
        if events_count >= max(1, self._batch_events_max // (2 * ROUND_SHARE_MIN)):
            self._event_seconds += 0.25 * (seconds / events_count - self._event_seconds)

    def _round_events(self) -> int:
        """Return the size of a short round."""
        least = -(-self._batch_events_max // ROUND_SHARE_MIN)
        return max(least, int(ROUND_SECONDS / max(self._event_seconds, 1e-6)))

    async def _take(self, events_max: int, *, few: bool) -> TakenThrough:
        """Fan out one batch, or two at once under load: one computes while the other commits."""
        if self._rate <= BUSY_EVENTS_PER_SECOND:
            return await self._fanout(events_max, few=few)
        half = -(-events_max // 2)
        try:
            async with asyncio.TaskGroup() as group:
                both = [group.create_task(self._one(half)) for _ in range(2)]
        except* StoreUnavailableError as errors:
            raise StoreUnavailableError(str(errors.exceptions[0])) from None
        first, second = (one.result() for one in both)
        return TakenThrough(first.events_count + second.events_count, first.more or second.more)

    async def _one(self, events_max: int) -> TakenThrough:
        return await self._fanout(events_max)

    async def _wait(self) -> None:
        """Wait to be woken, or for the next poll."""
        probe.hit("intake.asleep")
        if self._poll_timer is None:
            self._set_poll_timer(self._poll_seconds * random.uniform(0.9, 1.0))  # noqa: S311 -- keeps replicas apart
        await self._signal.woken.wait()
        self._metrics.intake_wakeups.labels("poll" if self._is_poll_due else "notify").inc()
        self._is_poll_due = False

    def _set_poll_timer(self, seconds: float) -> None:
        # One timer for all waits until the next poll: a timeout for each wait was set and cancelled with each event.
        self._poll_timer = asyncio.get_running_loop().call_later(seconds, self._wake_to_poll)

    def _wake_to_poll(self) -> None:
        """End the wait for a notification, unless a poll was made meanwhile."""
        rest = self._polled_at + self._poll_seconds - self._clock.monotonic()
        if rest > self._poll_seconds / 10:
            self._set_poll_timer(rest)
            return
        self._poll_timer = None
        self._is_poll_due = True
        self._polled_at = 0.0
        self._signal.woken.set()

    def _measure(self, count: int) -> None:
        """Update the rate of events every tenth of a second."""
        self._measured_count += count
        now = self._clock.monotonic()
        elapsed = now - self._measured_at
        if elapsed >= LINGER_SECONDS:
            self._rate = self._measured_count / elapsed
            self._measured_at = now
            self._measured_count = 0
