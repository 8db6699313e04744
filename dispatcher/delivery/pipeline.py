"""Wires the stages: the one place that knows them all, starts them and drains them in order."""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from dispatcher.config.database_url import UrlSource
from dispatcher.config.settings import Settings
from dispatcher.core.breaker import Breaker
from dispatcher.core.model import DeliveryId, EndpointId, Event, Reason
from dispatcher.core.profile import Profile
from dispatcher.core.sealing import Keyring
from dispatcher.delivery.fanout import Fanout, Overtaken, TakenThrough
from dispatcher.delivery.intake import Intake
from dispatcher.delivery.lanes import Lanes
from dispatcher.delivery.late_bodies import LateBodies
from dispatcher.delivery.recorder import Recorder
from dispatcher.delivery.reporting.attempt_log import AttemptLog
from dispatcher.delivery.reporting.spans import Spans
from dispatcher.delivery.reporting.traffic_counts import TrafficCounts
from dispatcher.delivery.routing import RoutingTable
from dispatcher.delivery.scheduler import Scheduler
from dispatcher.delivery.sender import Sender
from dispatcher.delivery.shards import Shards
from dispatcher.delivery.types import AttemptResult, Delivery, EndpointLane
from dispatcher.outbound.client import Gate
from dispatcher.outbound.pool import Connections
from dispatcher.runtime.clock import Clock
from dispatcher.runtime.tasks import TaskSet
from dispatcher.store.bodies import Bodies
from dispatcher.store.deliveries import Deliveries
from dispatcher.store.leases import Leases
from dispatcher.store.listener import Listener
from dispatcher.store.outbox import Outbox, Poll
from dispatcher.store.pool import Database
from dispatcher.store.routing import Routing
from dispatcher.store.statistics import Statistics
from dispatcher.telemetry.metrics import Metrics
from dispatcher.telemetry.tracing import Tracing

_log = structlog.get_logger("dispatcher.delivery.pipeline")

FLUSH_SECONDS_MAX = 5.0
SHARDS_SUBJECT = "shards"
"""What a call says that is about shards given back (store/sql/shards_release.sql)."""
UNSURE_SECONDS = 30.0
"""How long after a COMMIT without an answer its deliveries are looked for in Postgres."""


class Pipeline:
    """All stages of one replica."""

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        listen_url: str | UrlSource,
        gate: Gate,
        profiles: Mapping[str, Profile],
        event_types: frozenset[str],
        keyring: Keyring,
        metrics: Metrics,
        clock: Clock,
        incarnation: str,
        name: str,
        version: str,
        tracing: Tracing | None = None,
    ) -> None:
        self._traces = None if tracing is None else Spans(tracing, clock)
        self._metrics = metrics
        self._event_types = event_types
        self._clock = clock
        delivery, recorder = settings.delivery, settings.recorder
        deliveries, routing = Deliveries(database), Routing(database)
        self.connections: Connections = gate.connections
        self.routing = RoutingTable(
            routing,
            profiles=profiles,
            keyring=keyring,
            make_target=gate.make_target,
            drop_target=gate.connections.drop,
            allow_http=settings.egress.allow_http,
            allow_ports=gate.policy.allow_ports,
            user_agent=settings.egress.user_agent or f"dispatcher/{version}",
            max_concurrency=delivery.concurrency_per_endpoint,
            now=clock.now,
        )
        self.routing.changed = self._follow
        self.lanes = Lanes(
            start=self._start,
            may_send=self._may_send,
            make_breaker=Breaker,
            total=min(delivery.concurrency_total, gate.descriptors.sockets_max),
            per_host=delivery.concurrency_per_host,
            bodies_bytes_max=delivery.bodies_bytes_max,
            clock=clock,
        )
        self.recorder = Recorder(
            deliveries,
            routing,
            settled=self._settled,
            flushed=self._flushed,
            clock=clock,
            batch_rows_max=recorder.batch_rows,
            pending_rows_max=recorder.pending_max,
            flush_seconds=recorder.flush_milliseconds / 1000,
            failing_seconds_max=settings.disabling.failing_hours * 3600,
            failed_attempts_min=settings.disabling.failed_attempts_min,
        )
        self.sender = Sender(
            gate.connections, record=self.recorder.add, give_back=self.lanes.finished, clock=clock
        )
        self.shards = Shards(
            Leases(database, keyring.key_ids),
            incarnation=incarnation,
            name=name,
            version=version,
            changed=self._follow,
            is_quiet=self._is_quiet,
            lost=lambda count: metrics.leases_lost.add(amount=count),
            clock=clock,
            lease_seconds=settings.replica.lease_seconds,
            renew_seconds=settings.replica.renew_seconds,
            trusted_seconds=settings.replica.lease_seconds * 0.8,
        )
        self.scheduler = Scheduler(
            deliveries,
            self.lanes,
            shards=self.shards.held,
            make_bodies=LateBodies(Bodies(database), self.routing.profile).make,
            late_by=metrics.retry_lateness.observe,
            clock=clock,
            horizon_seconds=delivery.wheel_horizon_seconds,
            timers_max=delivery.wheel_timers_max,
        )
        self.lanes.refill_wanted = self.scheduler.wake
        self.listener = Listener(
            listen_url,
            control=self._look_now,
            arrived=self.scheduler.look_for_arrivals,
            name=incarnation,
        )
        outbox = Outbox(database)
        self._fanout = Fanout(
            outbox,
            self.routing,
            lanes=self.lanes,
            fanned_out=self._fanned_out,
            set_aside=metrics.events_set_aside.add,
            incarnation=incarnation,
            batch_bytes_max=settings.fanout.batch_bytes_max,
        )
        self.intake = Intake(
            self._fan_out,
            outbox.poll,
            self.listener,
            room=self.lanes.room,
            polled=self._polled,
            woken_by=metrics.intake_wakeups.add,
            clock=clock,
            batch_events_max=settings.intake.batch_events,
            poll_seconds=settings.intake.poll_seconds,
            overtake=self._overtake,
        )
        self.tally = TrafficCounts(
            Statistics(database),
            incarnation=incarnation,
            breakers=self.lanes.open_breakers,
            figures=self._figures,
            clock=clock,
        )
        self._outcomes = AttemptLog(
            metrics, self.tally, replica=name, per_endpoint=settings.metrics.per_endpoint
        )
        # Through a transaction pooler LISTEN and the lock would stay behind on somebody's connection.
        pooled = settings.database.pooler and settings.listen_database_url is None
        self._listens = settings.intake.notify and not pooled
        self._draining = False
        self._unsure_until = float("-inf")
        self.routing_changed: Callable[[], None] = lambda: None
        """Called when endpoints or shards changed; upkeep follows."""

    # --- what passes between stages ---

    def _start(self, lane: EndpointLane, delivery: Delivery) -> None:
        self.sender.start(lane, delivery)

    def _look_now(self, subject: str = "") -> None:
        if subject == SHARDS_SUBJECT:
            self.shards.look_now()
        self.intake.look_now()

    def _may_send(self) -> bool:
        return not self._draining and self.shards.is_trusted() and self.recorder.has_room()

    def _settled(self, results: list[AttemptResult], fenced: frozenset[DeliveryId]) -> None:
        self.scheduler.settled(results, fenced)
        self.lanes.pump()  # there is room for results again
        self._outcomes.tell(results, fenced)
        if self._traces is not None:
            self._traces.attempted(results, fenced)

    def _flushed(self, rows_count: int, seconds: float) -> None:
        self._metrics.recorder_batch_size.observe(rows_count)
        self._metrics.recorder_flush.observe(seconds)

    def _fanned_out(self, events: list[Event]) -> None:
        self.lanes.pump()
        self._metrics.events_fanned_out.add(amount=len(events))
        if self._traces is not None:
            self._traces.fanned_out(events)
        unknown = sum(event.type not in self._event_types for event in events)
        if unknown:
            self._metrics.events_unknown_type.add(amount=unknown)

    async def _fan_out(self, events_max: int) -> TakenThrough:
        """Takes a batch through; one that was cut off may have been committed all the same, unknown to lanes."""
        known = False
        try:
            taken = await self._fanout(events_max)
            known = True
        finally:
            if not known:
                self._unsure_until = self._clock.monotonic() + UNSURE_SECONDS
        return taken

    async def _overtake(self, events_max: int) -> Overtaken:
        """Fans out other tenants' events before a backlog; one that was cut off may have been committed."""
        known = False
        try:
            overtook = await self._fanout.overtake(events_max)
            known = True
        finally:
            if not known:
                self._unsure_until = self._clock.monotonic() + UNSURE_SECONDS
        return overtook

    async def _polled(self, poll: Poll) -> None:
        """Acts on what intake's poll saw beside the outbox."""
        if self.routing.is_stale(poll.routing_version):
            await self.routing.refresh()
        if poll.requests_waiting:
            self.scheduler.load_requests()
        if self.shards.has_company() or self._clock.monotonic() < self._unsure_until:
            self.scheduler.look_for_arrivals()
        self.lanes.pump()

    def _follow(self) -> None:
        """Lets lanes follow the routing table and the shards; what is new here is loaded."""
        self.scheduler.load_endpoints(self.lanes.follow(self.routing.endpoints, self.shards.held()))
        self.recorder.known_to_fail({e.id for e in self.routing.endpoints.values() if e.failing})
        self.routing_changed()

    def _is_quiet(self, shard: int) -> bool:
        """Tells whether nothing of a shard is in flight or waits to be recorded."""
        lanes = [lane for lane in self.lanes.lanes.values() if lane.endpoint.shard == shard]
        in_flight = any(lane.in_flight or lane.urgent for lane in lanes)
        return not (in_flight or self.recorder.holds(shard))

    def _figures(self) -> dict[str, object]:
        """Returns what this replica has in memory, for the page about the system."""
        lanes = self.lanes.lanes.values()
        listening = "up" if self.listener.is_up else "down"
        return {
            "listener": listening if self._listens else "polling",
            "lanes_count": len(lanes),
            "lanes_waiting_count": sum(bool(lane.ready or lane.urgent) for lane in lanes),
            "ready_count": sum(len(lane.ready) for lane in lanes),
            "in_flight_count": self.lanes.in_flight,
            "held_count": len(self.lanes.held),
            "wheel_timers_count": len(self.scheduler),
            "recording_count": len(self.recorder),
            "breakers_open_count": self.lanes.breakers_open(),
        }

    # --- life ---

    def start(self, tasks: TaskSet) -> None:
        """Starts every stage; they wait for Postgres on their own, with backoff."""
        tasks.spawn("shards", self.shards.run())
        if self._listens:
            tasks.spawn("listener", self.listener.run())
        tasks.spawn("recorder", self.recorder.run())
        tasks.spawn("scheduler", self.scheduler.run())
        tasks.spawn("intake", self.intake.run())
        tasks.spawn("tally", self.tally.run())

    async def drain(self, grace_seconds: float) -> None:
        """Ends the stages in the order of the flow; what is in flight after the grace is cancelled, not recorded."""
        self.intake.stop()
        self.scheduler.stop()
        self._draining = True
        await _within(grace_seconds, self.sender.idle)
        cancelled = self.sender.cancel_all()
        if cancelled:
            _log.warning("drain.cancelled", attempts=cancelled)
        self.recorder.stop()
        if not await _within(FLUSH_SECONDS_MAX, self.recorder.empty):
            _log.error("drain.unrecorded", results=len(self.recorder))
        self.tally.stop()
        await _within(FLUSH_SECONDS_MAX, self.tally.ended)
        self.listener.stop()
        self.shards.stop()
        await self.shards.leave()

    def hurry(self) -> None:
        """Ends the grace of a drain that is under way."""
        self.sender.cancel_all()

    def reload(self, settings: Settings, profiles: Mapping[str, Profile]) -> None:
        """Takes over the settings that need no restart, and the profiles; endpoints are compiled anew."""
        self.routing.reconfigure(profiles, settings.delivery.concurrency_per_endpoint)
        self.intake.look_now()

    def unusable(self) -> list[tuple[EndpointId, Reason]]:
        """Return the endpoints that cannot be sent to, each with the reason; their deliveries wait."""
        return self.routing.unusable()

    def is_alive(self, now: float, within_seconds: float) -> bool:
        """Tells whether intake has turned of late: claimed, polled, or waited within its bounds."""
        return now - self.intake.turned_at < within_seconds

    def takes_in(self, now: float, within_seconds: float) -> bool:
        """Tells whether Postgres let intake look at the outbox of late; a restart would not mend it."""
        return now - self.intake.looked_at < within_seconds


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Waits for an event; tells whether it came in time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
