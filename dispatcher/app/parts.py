"""Composes the parts of a replica from its settings.

Nothing runs yet: the daemon binds the port, waits for the database, and starts the parts that its role has. A part
that a reload changes is changed through `Pipeline.reload` and `profiles`; every other setting needs a restart.
"""

import asyncio
import socket
from types import MappingProxyType

import structlog

from dispatcher import __version__
from dispatcher.admin.auth import Auth
from dispatcher.admin.oidc.sign_on import SignOn
from dispatcher.admin.operations.context import Deployment
from dispatcher.admin.operations.facade import Operations
from dispatcher.admin.operations.publishing import CONNECTIONS_MAX as PUBLISH_CONNECTIONS_MAX
from dispatcher.admin.operations.publishing import Publisher
from dispatcher.admin.server import Server
from dispatcher.app.readiness import Readiness
from dispatcher.app.start import Role
from dispatcher.config.database_url import UrlSource
from dispatcher.config.loading import keyring_of, load_configuration
from dispatcher.config.settings import Settings
from dispatcher.core.addresses import RULES
from dispatcher.delivery.gauges import Gauges
from dispatcher.delivery.pipeline import Pipeline
from dispatcher.delivery.shards import Replica, new_incarnation
from dispatcher.maintenance.jobs import JobRunner
from dispatcher.maintenance.notifications import NotificationLoop
from dispatcher.maintenance.outages import OutageWatch
from dispatcher.maintenance.retention import REST_SECONDS, Retention, days_of
from dispatcher.maintenance.text_indexes import TextIndexes
from dispatcher.maintenance.upkeep import Upkeep
from dispatcher.outbound.client import HttpClient
from dispatcher.outbound.mail import Mailer
from dispatcher.outbound.own_addresses import OwnAddresses
from dispatcher.outbound.self_test import self_test
from dispatcher.runtime.clock import Clock
from dispatcher.runtime.tasks import TaskSet
from dispatcher.store.deliveries import Deliveries
from dispatcher.store.jobs import Jobs
from dispatcher.store.notifications import Notifications
from dispatcher.store.outbox import Outbox
from dispatcher.store.partitions import Partitions
from dispatcher.store.pool import Database
from dispatcher.store.read_limit import ReadLimit
from dispatcher.store.routing import Endpoints
from dispatcher.store.schema import Schema
from dispatcher.store.statistics import Statistics
from dispatcher.telemetry.logs import Writer
from dispatcher.telemetry.metrics import TEST_OUTCOME, Metrics
from dispatcher.telemetry.tracing import Tracing

_log = structlog.get_logger("dispatcher.app")

WRITE_CONNECTIONS_MAX = 2
"""The API and the console have a connection pool of their own, so that slow pages never starve delivery.

It has so many connections more than reads may use.
"""


class Parts:
    """The parts of one replica."""

    def __init__(
        self,
        settings: Settings,
        tasks: TaskSet,
        *,
        source: UrlSource,
        listen_source: UrlSource,
        clock: Clock,
        log: Writer | None,
        role: Role,
        probe_path: str | None,
        draining: asyncio.Event,
    ) -> None:
        """Compose a replica; `draining` is set once it drains.

        Raises:
            ConfigurationError: the configuration is invalid.
        """
        database = self.database = _pool(settings, source, settings.database.pool_size)
        self.publish_database = _pool(settings, source, PUBLISH_CONNECTIONS_MAX)
        self.schema = Schema(database)
        configuration = load_configuration(settings, needs_keys=True)
        loaded = configuration.profiles.profiles
        self.profiles = dict(loaded)
        """Replaced by a reload; the operations read it through a proxy."""
        self.metrics = metrics = Metrics(
            version=__version__,
            profiles=loaded,
            blocked_reasons=RULES,
            endpoints_max=settings.metrics.per_endpoint_max if settings.metrics.per_endpoint else 0,
            event_types=configuration.catalogue.types,
        )
        reads_max = settings.http.reads_max
        admin_database = self.admin_database = _pool(
            settings,
            source,
            reads_max + WRITE_CONNECTIONS_MAX,
            reads=ReadLimit(
                reads_max,
                waiting=metrics.api_reads_waiting.set,
                rejected=metrics.api_reads_rejected.inc,
            ),
        )
        name = settings.replica.name or socket.gethostname()
        otlp_url = settings.tracing.otlp_url
        self.tracing = Tracing(otlp_url, version=__version__, replica=name) if otlp_url else None
        self.own_addresses = OwnAddresses(settings)
        self.http_client = http_client = HttpClient(
            settings, tasks, clock, protected=self.own_addresses.resolve()
        )
        self.replica = Replica(name, new_incarnation(name), __version__)
        self.pipeline = pipeline = Pipeline(
            settings,
            database,
            http_client,
            listen_url=listen_source,
            profiles=loaded,
            event_types=frozenset(configuration.catalogue.types),
            schemas=configuration.catalogue.schemas,
            keyring=keyring_of(settings),
            metrics=metrics,
            clock=clock,
            replica=self.replica,
            tracing=self.tracing,
        )
        gauges = Gauges(metrics, pipeline, Deliveries(database), log, delivers=role is not Role.API)
        self.upkeep = Upkeep(
            Deliveries(database),
            Outbox(database),
            self.schema,
            Retention(
                Partitions(database),
                days_of(settings.retention),
                clock=clock,
                figures=gauges.tell_history,
                unknown=gauges.forget_history,
                rest_seconds=REST_SECONDS,
            ),
            Statistics(database),
            Jobs(database),
            hold_seconds=settings.delivery.hold_days * 86400.0,
            idempotency_days=settings.retention.idempotency_days,
            history_days=settings.retention.deliveries_days,
            partitions_ahead_days=settings.retention.partitions_ahead_days,
        )
        pipeline.routing.refreshed = self.upkeep.soon
        self.outages = OutageWatch(
            Endpoints(database), down_after_seconds=round(settings.health.down_after_minutes * 60)
        )
        self.notifications = NotificationLoop(
            Notifications(database),
            _mailer(settings),
            clock=clock,
            public_url=settings.http.public_url,
            language=settings.notifications.language,
        )
        self.jobs = JobRunner(
            database,
            self.replica.incarnation,
            clock=clock,
            started=pipeline.job_started,
            has_company=pipeline.shards.has_company,
        )
        self.text_indexes = TextIndexes(listen_source, self.replica.incarnation)
        self.publisher = Publisher(self.publish_database, committed=metrics.published)
        deployment = Deployment.of(
            settings,
            admin_database,
            configuration,
            policy=http_client.policy,
            profiles=MappingProxyType(self.profiles),
        )
        self.auth = Auth(deployment)
        self.operations = Operations.of(
            deployment,
            http_client,
            tested=lambda profile: metrics.attempts.labels(profile, TEST_OUTCOME).inc(),
            publisher=self.publisher,
            listen_url=listen_source if settings.listens else None,
            metrics=metrics,
        )
        self.readiness = Readiness(self.schema, pipeline, role, clock, draining)
        self.server = Server(
            problems=self.readiness.problems,
            render_metrics=gauges.render,
            operations=self.operations,
            auth=self.auth,
            settings=settings,
            sign_on=SignOn.of(deployment, self.auth, http_client.documents()),
            serves_api=role is not Role.DELIVERY,
            probe_path=probe_path,
        )

    async def open(self) -> None:
        """Open the connection pools, and check that the HTTP client opens connections."""
        for database in (self.database, self.admin_database, self.publish_database):
            await database.open()
        await self_test()

    def warnings(self, settings: Settings) -> list[str]:
        """Return the doubtful values of the settings, and limits of this machine."""
        narrow = self.http_client.descriptors.warning
        return [
            *settings.warnings,
            *self.http_client.policy.warnings,
            *([narrow] if narrow else []),
        ]

    async def close(self) -> None:
        """Stop serving, and close all connections."""
        await self.server.stop()
        await self.http_client.close()
        await self.publish_database.close()
        await self.admin_database.close()
        await self.database.close()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)


def _pool(
    settings: Settings, source: UrlSource, connections_max: int, *, reads: ReadLimit | None = None
) -> Database:
    return Database(
        source,
        connections_max=connections_max,
        reads=reads,
        statement_cache_size=0 if settings.database.pooler else 100,
    )


def _mailer(settings: Settings) -> Mailer | None:
    """Return what sends e-mail; None if no server is set."""
    if not settings.smtp.host:
        return None
    password = settings.smtp_password
    return Mailer(
        settings.smtp,
        None if password is None else password.get_secret_value(),
        ca_file=settings.egress.ca_file,
    )
