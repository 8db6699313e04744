"""The life cycle of a daemon: start, serve, reload, drain.

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

import structlog

from dispatcher.admin.server import Server
from dispatcher.app.parts import Parts
from dispatcher.app.start import Role, start_problems
from dispatcher.config.loading import keyring_of
from dispatcher.config.profiles import load_profiles
from dispatcher.config.reload import differences
from dispatcher.config.settings import Settings
from dispatcher.core.errors import (
    ConfigurationError,
    DispatcherError,
    SchemaError,
    StoreUnavailableError,
)
from dispatcher.outbound.client import trust_problems
from dispatcher.runtime.backoff import Backoff, Outage
from dispatcher.runtime.clock import SystemClock
from dispatcher.runtime.collector import exclude_the_start
from dispatcher.runtime.notify import Notifier
from dispatcher.runtime.tasks import TaskSet
from dispatcher.store.encryption_keys import missing_keys, register_keys, wrong_keys
from dispatcher.store.event_numbers import EventNumbers
from dispatcher.telemetry.logs import Writer

_log = structlog.get_logger("dispatcher.app")

SCHEMA_SECONDS_MIN, SCHEMA_SECONDS_MAX = 0.5, 2.0
BEAT_SECONDS = 0.5


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
        self._parts: Parts | None = None
        self.port = 0

    async def run(self, *, serving: Callable[[int], None] = lambda _: None) -> None:
        """Run until a signal, or until a stage fails.

        `serving` is called with the port once it is bound.

        Raises:
            ConfigurationError, SchemaError: the daemon cannot start; the message contains the fix.
        """
        async with TaskSet("dispatcher") as tasks:
            parts = self._parts = Parts(
                self._settings,
                tasks,
                source=self._source,
                listen_source=self._listen_source,
                clock=self._clock,
                log=self._log,
                role=self._role,
                probe_path=self._probe_path,
                draining=self._stop,
            )
            await parts.open()
            for warning in parts.warnings(self._settings):
                _log.warning("configuration.warned", warning=warning)
            self._handle_signals()
            exclude_the_start()
            try:
                self.port = await self._bind(parts.server)
                serving(self.port)
                tasks.spawn("beat", self._beat(parts))
                # A connection to an address that has become denied must not be used again.
                drop = parts.http_client.connections.drop
                tasks.spawn(
                    "own_addresses", parts.own_addresses.follow(parts.http_client.policy, drop)
                )
                if await self._wait_for_schema(parts):
                    await self._prepare(parts)
                    self._start(parts, tasks)
                    self._notifier.ready()
                    _log.info(
                        "daemon.started",
                        replica=parts.replica.name,
                        role=str(self._role),
                        port=self.port,
                        pid=os.getpid(),
                    )
                    await self._wait_for_end(tasks)
                    parts.outages.stop()
                    parts.notifications.stop()
                    parts.jobs.stop()
                    parts.text_indexes.stop()
                    if self._role is Role.API:
                        self._notifier.stopping()
                    else:
                        await self._drain(parts, tasks)
            finally:
                await parts.close()
        _log.info("daemon.stopped")

    def _start(self, parts: Parts, tasks: TaskSet) -> None:
        """Start the parts that the role has."""
        if self._role is not Role.API:
            parts.pipeline.start(tasks)
            tasks.spawn("upkeep", parts.upkeep.run())
            tasks.spawn("outages", parts.outages.run())
            tasks.spawn("notifications", parts.notifications.run())
            tasks.spawn("mail", parts.notifications.run_mail())
            tasks.spawn("jobs", parts.jobs.run())
            if self._settings.search.trigram_index:
                tasks.spawn("text_indexes", parts.text_indexes.run())
        if self._role is not Role.DELIVERY:
            tasks.spawn("credentials", parts.auth.run())
            tasks.spawn("tail", parts.operations.tail.run())
            tasks.spawn("pull", parts.operations.pull.run())
            tasks.spawn("pull_listener", parts.operations.pull.listen())
            tasks.spawn("publisher", parts.publisher.run())
            tasks.spawn("publisher_rejected", parts.publisher.run_rejected())

    async def _bind(self, server: Server) -> int:
        http = self._settings.http
        return await server.start(http.host, http.port, self._bound)

    async def _wait_for_schema(self, parts: Parts) -> bool:
        """Wait until the database is reachable; raise at once if the schema or a key does not fit.

        Raises:
            SchemaError: the schema does not fit. ConfigurationError: a key is missing or has another value.
        """
        backoff = Backoff(SCHEMA_SECONDS_MIN, SCHEMA_SECONDS_MAX)
        outage = Outage(_log, "daemon.stalled", "daemon.resumed")
        while not self._stop.is_set():
            try:
                await parts.schema.require()
                await self._require_keys(parts)
            except StoreUnavailableError as error:
                outage.began(error)
            else:
                outage.ended()
                parts.readiness.schema_fits = True
                return True
            await backoff.pause(self._stop)
        return False

    async def _prepare(self, parts: Parts) -> None:
        """Create the partitions that the first event needs, and register the keys.

        Raises:
            ConfigurationError: another process has registered another value of a key meanwhile, or the sequence
            of event numbers is behind and this role may not move it.
        """
        try:
            await parts.schema.make_partitions(self._settings.retention.partitions_ahead_days)
        except (SchemaError, StoreUnavailableError) as error:
            _log.error("daemon.prepared_in_part", error=str(error))  # upkeep goes on trying
        try:
            async with parts.database.transaction() as connection:
                await register_keys(connection, keyring_of(self._settings))
            await EventNumbers(parts.database).verify()
        except StoreUnavailableError:
            return  # the database is unavailable again: the stages wait for it

    async def _require_keys(self, parts: Parts) -> None:
        keyring = keyring_of(self._settings)
        problems = await missing_keys(parts.database, keyring)
        problems += await wrong_keys(parts.database, keyring)
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

    async def _drain(self, parts: Parts, tasks: TaskSet) -> None:
        """Drain the stages in the order of the flow; a second signal ends the grace period."""
        _log.info("daemon.drain_started", seconds=self._settings.delivery.drain_seconds)
        self._notifier.stopping()
        parts.upkeep.stop()
        drain = tasks.spawn("drain", parts.pipeline.drain(self._settings.delivery.drain_seconds))
        at_once = tasks.spawn("stop_now", self._stop_now.wait())
        await asyncio.wait({drain, at_once}, return_when=asyncio.FIRST_COMPLETED)
        if not drain.done():
            _log.warning("daemon.aborted")
            parts.pipeline.sender.cancel_all()
            await asyncio.wait({drain}, timeout=2.0)
            raise DispatcherError("stopped at once by a second signal")

    async def _beat(self, parts: Parts) -> None:
        """Measure the lag of the event loop, and notify the watchdog while intake is alive."""
        fed_at = 0.0
        seconds = self._notifier.watchdog_seconds
        while True:
            before = self._clock.monotonic()
            await asyncio.sleep(BEAT_SECONDS)
            now = self._clock.monotonic()
            parts.metrics.event_loop_lag.set(max(0.0, now - before - BEAT_SECONDS))
            if seconds is not None and parts.readiness.turns() and now - fed_at >= seconds / 3:
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
            if self._parts is not None:
                self._parts.pipeline.reload(settings, loaded.profiles)
                self._parts.profiles.clear()
                self._parts.profiles.update(loaded.profiles)
            _log.info("settings.reloaded", changed=changed, needs_restart=restart)
            self._settings = settings
        self._notifier.ready()


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
