"""Composes the daemon and runs its life cycle: start, serve, reload, drain.

The drain stops the stages in the order of the flow: readiness first, then intake, lanes, requests in
flight, the last flush, the lease. If the database is unavailable, the daemon waits for it, also at the
start. If the schema does not fit, the start fails. A stage that fails ends the daemon, and its supervisor
restarts it, because a daemon without one of its stages would look healthy and deliver nothing.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from enum import StrEnum
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
from dispatcher.config.loading import keyring_of, load_configuration
from dispatcher.config.profiles import load_profiles
from dispatcher.config.reload import differences
from dispatcher.config.settings import Settings
from dispatcher.core.addresses import RULES
from dispatcher.core.errors import (
    ConfigurationError,
    DispatcherError,
    SchemaError,
    StoreUnavailableError,
)
from dispatcher.core.profile import Profile
from dispatcher.delivery.gauges import Gauges
from dispatcher.delivery.pipeline import Pipeline
from dispatcher.delivery.shards import Replica, new_incarnation
from dispatcher.maintenance.jobs import JobRunner
from dispatcher.maintenance.notifications import NotificationLoop
from dispatcher.maintenance.outages import OutageWatch
from dispatcher.maintenance.retention import Retention, days_of
from dispatcher.maintenance.text_indexes import TextIndexes
from dispatcher.maintenance.upkeep import Upkeep
from dispatcher.outbound.client import HttpClient, trust_problems
from dispatcher.outbound.dialer import self_test
from dispatcher.outbound.mail import Mailer
from dispatcher.outbound.own_addresses import OwnAddresses
from dispatcher.runtime.backoff import Backoff, Outage
from dispatcher.runtime.clock import SystemClock
from dispatcher.runtime.collector import exclude_the_start
from dispatcher.runtime.notify import Notifier
from dispatcher.runtime.tasks import TaskSet
from dispatcher.store.deliveries import Deliveries
from dispatcher.store.event_numbers import EventNumbers
from dispatcher.store.jobs import Jobs
from dispatcher.store.notifications import Notifications
from dispatcher.store.outbox import Outbox
from dispatcher.store.partitions import Partitions
from dispatcher.store.pool import Database
from dispatcher.store.routing import Endpoints
from dispatcher.store.schema import Schema
from dispatcher.store.secrets import sealed_secrets
from dispatcher.store.statistics import Statistics
from dispatcher.telemetry.logs import Writer
from dispatcher.telemetry.metrics import TEST_OUTCOME, Metrics
from dispatcher.telemetry.tracing import Tracing, require_libraries

_log = structlog.get_logger("dispatcher.app")

TURNED_SECONDS_MAX = 20.0
"""If intake makes no turn for longer, the replica is not ready and the watchdog is no longer notified."""
REFUSED_SECONDS_MAX = 1.0
"""If Postgres rejects a stage for longer, the replica is not ready; a deadlock or a short lock ends sooner."""
ADMIN_CONNECTIONS_MAX = 4
"""The API and the console have a connection pool of their own, so that slow pages never starve delivery."""
SCHEMA_SECONDS_MIN, SCHEMA_SECONDS_MAX = 0.5, 2.0
BEAT_SECONDS = 0.5


def start_problems(settings: Settings) -> list[str]:
    """Return all problems that prevent a start and can be found without a database."""
    problems: list[str] = []
    if settings.database_url is None:
        problems.append(
            "DISPATCHER_DATABASE_URL: required; postgresql://user:password@host:5432/database"
        )
    try:
        load_configuration(settings, needs_keys=True)
    except ConfigurationError as error:
        problems += error.problems
    problems += trust_problems(settings)
    if settings.tracing.otlp_url:
        try:
            require_libraries()
        except ConfigurationError as error:
            problems += error.problems
    return problems


def mailer_of(settings: Settings) -> Mailer | None:
    """Return what sends e-mail; None if no server is set."""
    if not settings.smtp.host:
        return None
    password = settings.smtp_password
    return Mailer(
        settings.smtp,
        None if password is None else password.get_secret_value(),
        ca_file=settings.egress.ca_file,
    )


class Role(StrEnum):
    """What a process does; `all` is the default."""

    ALL = "all"
    DELIVERY = "delivery"
    """It delivers and maintains the history, and serves probes and metrics only."""
    API = "api"
    """It serves the API and the console, and holds no lease."""


class Daemon:
    """One replica; `run` is its whole life cycle."""

    def __init__(
        self,
        settings: Settings,
        *,
        reload: Callable[[], Settings],
        log: Writer | None,
        notifier: Notifier,
        bound: socket.socket | None = None,
        role: Role = Role.ALL,
        probe_path: str | None = None,
    ) -> None:
        """Validate the configuration, as far as that needs no database.

        `bound`, a socket that the caller has already bound, is served in place of the settings' address.
        With `probe_path` the probes are served on that Unix socket and on no port.

        Raises:
            ConfigurationError: settings are missing or invalid; all problems are reported together.
        """
        problems = start_problems(settings)
        source, listen_source = settings.database_source(), settings.listen_source()
        if problems or source is None or listen_source is None:
            raise ConfigurationError(problems)
        self._settings = settings
        self._source = source
        self._listen_source = listen_source
        self._reload = reload
        self._log = log
        self._notifier = notifier
        self._bound = bound
        self._role = role
        self._probe_path = probe_path
        self._clock = SystemClock()
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._pipeline: Pipeline | None = None
        # Written at start and by a reload; the operations read it through a proxy.
        self._profiles: dict[str, Profile] = {}
        self._schema_fits = False
        self.port = 0

    async def run(self, *, serving: Callable[[int], None] = lambda _: None) -> None:
        """Run until a signal, or until a stage fails.

        `serving` is called with the port once it is bound.

        Raises:
            ConfigurationError, SchemaError: the daemon cannot start; the message contains the fix.
        """
        settings = self._settings
        database = Database(
            self._source,
            connections_max=settings.database.pool_size,
            statement_cache_size=0 if settings.database.pooler else 100,
        )
        await database.open()
        schema = Schema(database)
        configuration = load_configuration(settings, needs_keys=True)
        loaded = configuration.profiles
        self._profiles.update(loaded.profiles)
        metrics = Metrics(
            version=__version__,
            profiles=loaded.profiles,
            blocked_reasons=RULES,
            endpoints_max=settings.metrics.per_endpoint_max if settings.metrics.per_endpoint else 0,
            event_types=configuration.catalogue.types,
        )
        name = settings.replica.name or socket.gethostname()
        otlp_url = settings.tracing.otlp_url
        tracing = Tracing(otlp_url, version=__version__, replica=name) if otlp_url else None
        async with TaskSet("dispatcher") as tasks:
            own = OwnAddresses(settings)
            http_client = HttpClient(settings, tasks, self._clock, protected=own.resolve())
            narrow = http_client.descriptors.warning
            for warning in (
                *settings.warnings,
                *http_client.policy.warnings,
                *([narrow] if narrow else []),
            ):
                _log.warning("configuration.warned", warning=warning)
            await self_test()
            replica = Replica(name, new_incarnation(name), __version__)
            pipeline = self._pipeline = Pipeline(
                settings,
                database,
                http_client,
                listen_url=self._listen_source,
                profiles=loaded.profiles,
                event_types=frozenset(configuration.catalogue.types),
                schemas=configuration.catalogue.schemas,
                keyring=keyring_of(settings),
                metrics=metrics,
                clock=self._clock,
                replica=replica,
                tracing=tracing,
            )
            gauges = Gauges(
                metrics,
                pipeline,
                Deliveries(database),
                self._log,
                delivers=self._role is not Role.API,
            )
            upkeep = Upkeep(
                Deliveries(database),
                Outbox(database),
                schema,
                Retention(
                    Partitions(database),
                    days_of(settings.retention),
                    clock=self._clock,
                    figures=gauges.tell_history,
                    unknown=gauges.forget_history,
                ),
                Statistics(database),
                Jobs(database),
                hold_seconds=settings.delivery.hold_days * 86400.0,
                idempotency_days=settings.retention.idempotency_days,
                history_days=settings.retention.deliveries_days,
                partitions_ahead_days=settings.retention.partitions_ahead_days,
            )
            pipeline.routing.refreshed = upkeep.soon
            outages = OutageWatch(
                Endpoints(database),
                down_after_seconds=round(settings.health.down_after_minutes * 60),
            )
            notifications = NotificationLoop(
                Notifications(database),
                mailer_of(settings),
                clock=self._clock,
                public_url=settings.http.public_url,
                language=settings.notifications.language,
            )
            jobs = JobRunner(
                database, replica.incarnation, clock=self._clock, started=pipeline.job_started
            )
            text_indexes = TextIndexes(self._listen_source, replica.incarnation)
            admin_database = Database(
                self._source,
                connections_max=ADMIN_CONNECTIONS_MAX,
                statement_cache_size=0 if settings.database.pooler else 100,
            )
            await admin_database.open()
            publish_database = Database(
                self._source,
                connections_max=PUBLISH_CONNECTIONS_MAX,
                statement_cache_size=0 if settings.database.pooler else 100,
            )
            await publish_database.open()
            publisher = Publisher(publish_database, committed=metrics.published)
            deployment = Deployment.of(
                settings,
                admin_database,
                configuration,
                policy=http_client.policy,
                profiles=MappingProxyType(self._profiles),
            )
            auth = Auth(deployment)
            operations = Operations.of(
                deployment,
                http_client,
                tested=lambda profile: metrics.attempts.labels(profile, TEST_OUTCOME).inc(),
                publisher=publisher,
                listen_url=self._listen_source if settings.listens else None,
                metrics=metrics,
            )
            server = Server(
                problems=lambda: self._problems(schema),
                render_metrics=gauges.render,
                operations=operations,
                auth=auth,
                settings=settings,
                sign_on=SignOn.of(deployment, auth, http_client.documents()),
                serves_api=self._role is not Role.DELIVERY,
                probe_path=self._probe_path,
            )
            self._handle_signals()
            exclude_the_start()
            try:
                self.port = await self._bind(server)
                serving(self.port)
                tasks.spawn("beat", self._beat(metrics))
                # A connection to an address that has become denied must not be used again.
                tasks.spawn(
                    "own_addresses", own.follow(http_client.policy, http_client.connections.drop)
                )
                if await self._wait_for_schema(schema):
                    await self._prepare(schema, EventNumbers(database), database)
                    if self._role is not Role.API:
                        pipeline.start(tasks)
                        tasks.spawn("upkeep", upkeep.run())
                        tasks.spawn("outages", outages.run())
                        tasks.spawn("notifications", notifications.run())
                        tasks.spawn("mail", notifications.run_mail())
                        tasks.spawn("jobs", jobs.run())
                        if settings.search.trigram_index:
                            tasks.spawn("text_indexes", text_indexes.run())
                    if self._role is not Role.DELIVERY:
                        tasks.spawn("credentials", auth.run())
                        tasks.spawn("tail", operations.tail.run())
                        tasks.spawn("pull", operations.pull.run())
                        tasks.spawn("pull_listener", operations.pull.listen())
                        tasks.spawn("publisher", publisher.run())
                        tasks.spawn("publisher_rejected", publisher.run_rejected())
                    self._notifier.ready()
                    _log.info(
                        "daemon.started",
                        replica=name,
                        role=str(self._role),
                        port=self.port,
                        pid=os.getpid(),
                    )
                    await self._wait_for_end(tasks)
                    outages.stop()
                    notifications.stop()
                    jobs.stop()
                    text_indexes.stop()
                    if self._role is Role.API:
                        self._notifier.stopping()
                    else:
                        await self._drain(pipeline, upkeep, tasks)
            finally:
                await server.stop()
                await http_client.close()
                await publish_database.close()
                await admin_database.close()
                await database.close()
                if tracing is not None:
                    await asyncio.to_thread(tracing.close)
        _log.info("daemon.stopped")

    async def _bind(self, server: Server) -> int:
        http = self._settings.http
        return await server.start(http.host, http.port, self._bound)

    async def _wait_for_schema(self, schema: Schema) -> bool:
        """Wait until the database is reachable; raise at once if the schema does not fit."""
        backoff = Backoff(SCHEMA_SECONDS_MIN, SCHEMA_SECONDS_MAX)
        outage = Outage(_log, "daemon.stalled", "daemon.resumed")
        while not self._stop.is_set():
            try:
                await schema.require()
            except StoreUnavailableError as error:
                outage.began(error)
            else:
                outage.ended()
                self._schema_fits = True
                return True
            await backoff.pause(self._stop)
        return False

    async def _prepare(self, schema: Schema, numbers: EventNumbers, database: Database) -> None:
        """Create the partitions that the first event needs, and reject keys that decrypt no secret.

        Raises:
            ConfigurationError: secrets are encrypted with keys that are not configured, or the sequence of
            event numbers is behind and this role may not move it.
        """
        try:
            await schema.make_partitions(self._settings.retention.partitions_ahead_days)
        except (SchemaError, StoreUnavailableError) as error:
            _log.error("daemon.prepared_in_part", error=str(error))  # upkeep goes on trying
        try:
            await numbers.verify()
            sealed = await sealed_secrets(database)
        except StoreUnavailableError:
            return  # the database is unavailable again: the stages wait for it
        problems = keyring_of(self._settings).problems(sealed)
        if problems:
            raise ConfigurationError(problems)

    async def _wait_for_end(self, tasks: TaskSet) -> None:
        """Wait for a signal; raise the exception of a stage that fails."""
        waiting = tasks.spawn("stop", self._stop.wait())
        failure = asyncio.ensure_future(tasks.failure())
        try:
            await asyncio.wait({waiting, failure}, return_when=asyncio.FIRST_COMPLETED)
            if failure.done():
                failure.result()
        finally:
            failure.cancel()

    async def _drain(self, pipeline: Pipeline, upkeep: Upkeep, tasks: TaskSet) -> None:
        """Drain the stages in the order of the flow; a second signal ends the grace period."""
        _log.info("daemon.drain_started", seconds=self._settings.delivery.drain_seconds)
        self._notifier.stopping()
        upkeep.stop()
        drain = tasks.spawn("drain", pipeline.drain(self._settings.delivery.drain_seconds))
        at_once = tasks.spawn("stop_now", self._stop_now.wait())
        await asyncio.wait({drain, at_once}, return_when=asyncio.FIRST_COMPLETED)
        if not drain.done():
            _log.warning("daemon.aborted")
            pipeline.sender.cancel_all()
            await asyncio.wait({drain}, timeout=2.0)
            raise DispatcherError("stopped at once by a second signal")

    async def _problems(self, schema: Schema) -> list[str]:
        """Return human-readable reasons why this replica is not ready."""
        if self._stop.is_set():
            return ["draining"]
        pipeline = self._pipeline
        problems = []
        if not self._schema_fits or pipeline is None:
            problems.append("the database has not been reached yet")
        elif self._role is Role.API:
            pass  # it claims no events
        elif not pipeline.intake.is_alive(TURNED_SECONDS_MAX):
            problems.append("intake has not turned of late")
        elif not pipeline.intake.reads_outbox(TURNED_SECONDS_MAX):
            problems.append("the outbox cannot be read: see intake.stalled in the log")
        elif refused := pipeline.refused(self._clock.monotonic(), REFUSED_SECONDS_MAX):
            problems.append(f"Postgres rejects statements: see {', '.join(refused)} in the log")
        if not await schema.is_writable():
            problems.append("the database cannot be written to")
        elif self._schema_fits and self._role is not Role.API:
            problems += await _partition_problems(schema)
        return problems

    async def _beat(self, metrics: Metrics) -> None:
        """Measure the lag of the event loop, and notify the watchdog while intake is alive."""
        fed_at = 0.0
        seconds = self._notifier.watchdog_seconds
        while True:
            before = self._clock.monotonic()
            await asyncio.sleep(BEAT_SECONDS)
            now = self._clock.monotonic()
            metrics.event_loop_lag.set(max(0.0, now - before - BEAT_SECONDS))
            pipeline = self._pipeline
            turns = (
                not self._schema_fits
                or pipeline is None
                or self._role is Role.API
                or pipeline.intake.is_alive(TURNED_SECONDS_MAX)
            )
            if seconds is not None and turns and now - fed_at >= seconds / 3:
                self._notifier.watchdog()
                fed_at = now

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)
        loop.add_signal_handler(signal.SIGUSR1, _dump_tasks)

    def stop(self) -> None:
        """Begin the drain; a second call ends it at once."""
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    def _on_reload(self) -> None:
        """Reload the settings; if any is invalid, keep all the old ones."""
        self._notifier.reloading()
        try:
            settings = self._reload()
            loaded = load_profiles(settings.directories_for("profiles"))
            _require_trust(settings)
        except ConfigurationError as error:
            _log.error("settings.rejected", problems=error.problems)
        else:
            changed, restart = differences(self._settings, settings)
            if self._pipeline is not None:
                self._pipeline.reload(settings, loaded.profiles)
            self._profiles.clear()
            self._profiles.update(loaded.profiles)
            _log.info("settings.reloaded", changed=changed, needs_restart=restart)
            self._settings = settings
        self._notifier.ready()


async def _partition_problems(schema: Schema) -> list[str]:
    """Return today's missing partitions, without which no event can be fanned out."""
    try:
        missing = await schema.missing_partitions(0)
    except StoreUnavailableError as error:
        return [f"partitions cannot be read: {error}"]
    return [
        f"today's partition of {one.table} is missing ({one.day}); run: dispatcher migrate"
        for one in missing
        if one.days_from_today == 0
    ]


def _require_trust(settings: Settings) -> None:
    problems = trust_problems(settings)
    if problems:
        raise ConfigurationError(problems)


def _dump_tasks() -> None:
    """Log the stack of every task, to diagnose a daemon that seems stuck."""
    for task in asyncio.all_tasks():
        frames = [
            f"{frame.f_code.co_filename}:{frame.f_lineno}" for frame in task.get_stack(limit=5)
        ]
        _log.info("task.dumped", task=task.get_name(), at=frames)
