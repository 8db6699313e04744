"""Make the stages, each from those that it hands its work to; start and drain them in order."""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType

import structlog

from dispatcher.config.database_url import UrlSource
from dispatcher.config.settings import Settings
from dispatcher.core.profile import Profile
from dispatcher.core.schemas import Schema
from dispatcher.core.sealing import Keyring
from dispatcher.delivery.crowding import Crowding
from dispatcher.delivery.deferrals import Deferrals
from dispatcher.delivery.endpoint_health import EndpointHealth
from dispatcher.delivery.fanout import Fanout
from dispatcher.delivery.intake import Intake
from dispatcher.delivery.inventory import Inventory
from dispatcher.delivery.lane_follower import LaneFollower
from dispatcher.delivery.lanes import Lanes
from dispatcher.delivery.load_queue import LoadQueue
from dispatcher.delivery.loader import Loader
from dispatcher.delivery.permits import Permits
from dispatcher.delivery.recorder import Recorder
from dispatcher.delivery.reporting import Reporting
from dispatcher.delivery.reporting.attempt_log import AttemptLog
from dispatcher.delivery.reporting.spans import Spans
from dispatcher.delivery.reporting.traffic_counts import TrafficCounts
from dispatcher.delivery.request_loader import RequestLoader
from dispatcher.delivery.retry_timer import RetryTimer
from dispatcher.delivery.routing import RoutingTable
from dispatcher.delivery.sender import Sender
from dispatcher.delivery.shards import Replica, Shards
from dispatcher.late_bodies import LateBodies
from dispatcher.outbound.client import HttpClient
from dispatcher.runtime.clock import Clock
from dispatcher.runtime.tasks import TaskSet
from dispatcher.store.bodies import Bodies
from dispatcher.store.deliveries import Deliveries
from dispatcher.store.delivery_requests import DeliveryRequests
from dispatcher.store.leases import Leases
from dispatcher.store.listener import NotifyListener
from dispatcher.store.outbox import Outbox
from dispatcher.store.pool import Database
from dispatcher.store.results import Results
from dispatcher.store.routing import Endpoints
from dispatcher.store.statistics import Statistics
from dispatcher.telemetry.metrics import Metrics
from dispatcher.telemetry.tracing import Tracing

_log = structlog.get_logger("dispatcher.delivery.pipeline")

FLUSH_SECONDS_MAX = 5.0
SHARDS_SUBJECT = "shards"
"""A notification that shards were released (store/sql/shard_release.sql)."""
TESTED_SUBJECT = "tested"
"""A notification that an endpoint has answered a test event (store/sql/endpoint_breaker_report_test.sql)."""


class Pipeline:
    """All stages of one replica, each made from those that it hands its work to."""

    def __init__(
        self, settings: Settings, database: Database, http_client: HttpClient, *, listen_url: str | UrlSource,
        profiles: Mapping[str, Profile], event_types: frozenset[str], keyring: Keyring,
        metrics: Metrics, clock: Clock, replica: Replica, tracing: Tracing | None = None,
        schemas: Mapping[str, Schema] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        name, incarnation, version = replica
        delivery, recording, disabling = settings.delivery, settings.recorder, settings.disabling
        deliveries, endpoints = Deliveries(database), Endpoints(database)
        outbox = Outbox(database, synchronous_commit=settings.fanout.synchronous_commit)
        self.connections, queue = http_client.connections, LoadQueue()
        self._load_queue = queue
        self.inventory = inventory = Inventory(clock)
        self.routing = RoutingTable(endpoints, settings, http_client, keyring, profiles=profiles,
            version=version, now=clock.now)  # fmt: skip
        self.shards = Shards(Leases(database, keyring.key_ids), inventory, replica, metrics=metrics,
            clock=clock, lease_seconds=settings.replica.lease_seconds,
            renew_seconds=settings.replica.renew_seconds)  # fmt: skip
        self.traffic = TrafficCounts(Statistics(database), incarnation=incarnation, clock=clock,
            breakers=inventory.open_breakers, figures=self._figures)  # fmt: skip
        log = AttemptLog(metrics, self.traffic, replica=name, per_endpoint=settings.metrics.per_endpoint)  # fmt: skip
        spans = None if tracing is None else Spans(tracing, clock)
        reporting = Reporting(metrics, log, spans, event_types)
        health = EndpointHealth(endpoints, self.shards, failed_attempts_min=disabling.failed_attempts_min,
            failing_seconds_max=disabling.failing_hours * 3600)  # fmt: skip
        timer = RetryTimer(inventory, queue, clock=clock, timers_max=delivery.wheel_timers_max,
            horizon_seconds=delivery.wheel_horizon_seconds)  # fmt: skip
        self.recorder = Recorder(Results(database), health, inventory, timer, queue, reporting, clock=clock,
            batch_rows_max=recording.batch_rows, unrecorded_max=recording.unrecorded_max,
            flush_seconds=recording.flush_milliseconds / 1000)  # fmt: skip
        self.sender = Sender(http_client.connections, self.recorder, clock=clock)
        crowding = Crowding()
        deferrals = Deferrals(inventory, queue, timer, crowding, clock=clock)
        self.permits = permits = Permits(inventory, queue, self.sender, self.shards, deferrals, crowding,
            total=min(delivery.concurrency_total, http_client.descriptors.sockets_max),
            per_host=delivery.concurrency_per_host, clock=clock)  # fmt: skip
        follower = LaneFollower(inventory, queue, self.routing, self.shards, permits, crowding)
        lanes = Lanes(inventory, queue, deferrals, permits, crowding, self.shards,
            bodies_bytes_max=delivery.bodies_bytes_max, clock=clock)  # fmt: skip
        bodies = LateBodies(Bodies(database), self.routing.profile)
        requests = RequestLoader(DeliveryRequests(database), deliveries, inventory, queue, lanes, permits,
            bodies, self.shards)  # fmt: skip
        self.loader = Loader(deliveries, inventory, queue, timer, lanes, permits, bodies, requests,
            metrics=metrics, clock=clock)  # fmt: skip
        fanout = Fanout(outbox, deliveries, self.routing, lanes, permits, reporting, clock=clock,
            incarnation=incarnation, batch_bytes_max=settings.fanout.batch_bytes_max,
            schemas=schemas)  # fmt: skip
        self.listener = NotifyListener(
            listen_url, control=self._on_control, arrived=queue.add_arrivals, name=incarnation)  # fmt: skip
        self.intake = Intake(outbox, fanout, self.listener, self.routing, permits, crowding, queue, self.shards,
            metrics=metrics, clock=clock, batch_events_max=settings.intake.batch_events,
            poll_seconds=settings.intake.poll_seconds)  # fmt: skip
        self.routing.changed = self.shards.changed = follower.follow
        self.traffic.tested = lanes.test_succeeded
        self._listens = settings.listens

    # --- control ---

    def _on_control(self, subject: str = "") -> None:
        """Read again what a notification is about. Any role can notify, so it is a prompt and decides nothing."""
        if subject == SHARDS_SUBJECT:
            self.shards.poll_now()
        elif subject == TESTED_SUBJECT:
            self.traffic.poll_now()
        self.intake.poll_now()

    def job_started(self, kind: str) -> None:
        """Load the deliveries that a job of this replica has just started."""
        if kind == "resend":
            self._load_queue.add_requests()
        else:
            self._load_queue.add_arrivals()

    def _figures(self) -> dict[str, object]:
        """Return what this replica has in memory, for the console."""
        listening = "up" if self.listener.is_up else "down"
        return {
            "listener": listening if self._listens else "polling",
            **self.inventory.figures(),
        }

    # --- life ---

    def start(self, tasks: TaskSet) -> None:
        """Start every stage; they wait for Postgres on their own, with backoff."""
        tasks.spawn("shards", self.shards.run())
        if self._listens:
            tasks.spawn("listener", self.listener.run())
        tasks.spawn("recorder", self.recorder.run())
        tasks.spawn("loader", self.loader.run())
        tasks.spawn("intake", self.intake.run())
        tasks.spawn("traffic", self.traffic.run())

    async def drain(self, grace_seconds: float) -> None:
        """End the stages in the order of the flow; what is in flight after the grace is cancelled, not recorded."""
        self.intake.stop()
        self.loader.stop()
        self.permits.stop()
        await _within(grace_seconds, self.sender.idle)
        cancelled = self.sender.cancel_all()
        if cancelled:
            _log.warning("drain.cancelled", attempts=cancelled)
        self.recorder.stop()
        if not await _within(FLUSH_SECONDS_MAX, self.recorder.empty):
            _log.error("drain.unrecorded", results=len(self.recorder))
        self.traffic.stop()
        await _within(FLUSH_SECONDS_MAX, self.traffic.ended)
        self.listener.stop()
        self.shards.stop()
        await self.shards.leave()

    def reload(self, settings: Settings, profiles: Mapping[str, Profile]) -> None:
        """Use the settings that need no restart, and the profiles; endpoints are compiled again."""
        self.routing.reconfigure(profiles, settings.delivery.concurrency_per_endpoint)
        self.intake.poll_now()

    def refused(self, now: float, for_seconds: float) -> list[str]:
        """Return the log events of the stages that Postgres has refused for that long."""
        outages = [stage.outage for stage in (self.intake, self.shards, self.loader, self.recorder)]
        return [
            outage.event
            for outage in outages
            if outage.since is not None and now - outage.since > for_seconds
        ]


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Wait for an event; return whether it was set in time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
