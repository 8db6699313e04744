"""`dispatcher dev` and `dispatcher demo`: database, migrations, daemon, receivers and samples in one process.

Order of things: the home's lock, Postgres (whose child dies with us), migrations, receivers, sample endpoints, the
daemon, and only then what others find us by. At Ctrl-C the daemon drains as in production while receivers and
database still run; then they go, in the reverse order.
"""

import asyncio
import os
import random
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext
from typing import Any, Final

import asyncpg
import orjson
import uvloop

from dispatcher import __version__
from dispatcher.admin.operations.access import Access
from dispatcher.app.daemon import Daemon
from dispatcher.cli.dev_progress import show_progress
from dispatcher.cli.migration import connect
from dispatcher.cli.output import say, tell
from dispatcher.cli.session import Session, guarded, opened
from dispatcher.config.settings import Settings
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.errors import ConfigurationError, DispatcherError, StoreUnavailableError
from dispatcher.dev.authority import authority_and_context
from dispatcher.dev.home import Home, home_directory
from dispatcher.dev.postgres import Postgres
from dispatcher.dev.receiver import Receiver
from dispatcher.dev.samples import DEMO_SAMPLES, SAMPLES, Sample, ensure_endpoints, publish_events
from dispatcher.dev.warehouse import Published, Warehouse, create_tables, publish_changes
from dispatcher.runtime.clock import SystemClock
from dispatcher.runtime.notify import Notifier
from dispatcher.runtime.tasks import TaskSet
from dispatcher.store import migrate
from dispatcher.store.pool import Database
from dispatcher.store.schema import DEV_MARK, Schema, mark_schema, schema_mark
from dispatcher.telemetry import logs

LOOPBACK: Final = "127.0.0.1"
RECEIVER_PORT: Final = 8090
PORTS_TRIED_MAX: Final = 100
RECONNECT_SECONDS: Final = 1.0
CLOSE_SECONDS_MAX: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """The options of the simulated warehouse."""

    rate_per_second: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The parameters of one run."""

    home: Home
    settings: Settings
    environ: Mapping[str, str]
    ca_file: Path
    tls: SSLContext
    samples: Sequence[Sample]
    demo: Demo | None
    seconds: float | None
    own_database: bool
    listener: socket.socket
    """Already bound, so that no other process gets the port of the settings."""


def dev(
    config: Path | None, *, seconds: float | None, samples: bool = True, demo: Demo | None = None
) -> None:
    """Run until Ctrl-C, or for `seconds`; with `demo`, a simulated warehouse publishes the events."""
    chosen = DEMO_SAMPLES if demo is not None else SAMPLES if samples else ()

    def run() -> None:
        try:
            with Home(home_directory(os.environ)) as home, _database(home) as url:
                prepared = _prepare(config, home, url, seconds=seconds, samples=chosen, demo=demo)
                with prepared.listener:
                    uvloop.run(_live(prepared))
        except KeyboardInterrupt:
            tell("stopped before it was up")

    guarded(run)


@contextmanager
def _database(home: Home) -> Iterator[str | None]:
    """Yield the URL of a private database, or None if the environment provides one."""
    if os.environ.get("DISPATCHER_DATABASE_URL") or os.environ.get("DISPATCHER_DATABASE_URL_FILE"):
        yield None
        return
    # The main thread starts it: the kernel ends the server when the thread that forked it ends.
    postgres = Postgres(home.path("postgres"), durable=True)
    try:
        yield postgres.start()
    finally:
        postgres.stop()


def _prepare(
    config: Path | None,
    home: Home,
    url: str | None,
    *,
    seconds: float | None,
    samples: Sequence[Sample],
    demo: Demo | None,
) -> Run:
    """Load the settings as in production, and allow the addresses of this machine's receivers."""
    ca_file, tls = authority_and_context(home, SystemClock.now())
    environ = {
        "DISPATCHER_SECRET_KEYS": home.secret_keys(),
        "DISPATCHER_ADMIN_TOKEN": home.admin_token(),
        **os.environ,
    }
    for name in ("DISPATCHER_SECRET_KEYS", "DISPATCHER_ADMIN_TOKEN"):
        if os.environ.get(f"{name}_FILE"):
            environ.pop(name)
    if url is not None:
        environ["DISPATCHER_DATABASE_URL"] = url
    settings = load_settings(config, environ)
    networks = [str(network) for network in settings.egress.allow_networks]
    listener = take_port(settings.http.host, settings.http.port, "listener")
    flags: dict[str, Any] = {
        "egress.allow_http": True,
        "egress.allow_networks": [*networks, f"{LOOPBACK}/32", "::1/128"],
        "egress.ca_file": settings.egress.ca_file or str(ca_file),
        "http.port": int(listener.getsockname()[1]),
    }
    return Run(
        home=home,
        settings=load_settings(config, environ, flags=flags),
        environ=environ,
        ca_file=ca_file,
        tls=tls,
        samples=samples,
        demo=demo,
        seconds=seconds,
        own_database=url is not None,
        listener=listener,
    )


def take_port(host: str, wanted: int, what: str) -> socket.socket:
    """Return a socket that listens on the wanted port, or on the next free one, with a message.

    It is held from here on: another `dev` that starts at this moment takes the next.

    Raises:
        DispatcherError: none of the next hundred is free.
    """
    for port in range(wanted, min(wanted + PORTS_TRIED_MAX, 65_536)):
        taken = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":
            taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            taken.bind((host, port))
            taken.listen()
        except OSError:
            taken.close()
            continue
        if wanted not in {0, port}:
            tell(f"port {wanted} is busy: the {what} goes to {port}")
        return taken
    raise DispatcherError(f"no port from {wanted} on is free for the {what}")


async def _live(run: Run) -> None:
    await _migrate(run.settings, own=run.own_database)
    # Log lines would break the live table; they go to a file whose path is shown on the screen.
    log_path = run.home.path("dispatcher.log")
    descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    writer = logs.configure(
        form="json", level=run.settings.log.level, version=__version__, descriptor=descriptor
    )
    plain, secure = Receiver(), Receiver(tls=run.tls)
    try:
        urls = {
            "http": f"http://{LOOPBACK}:{await _start(plain, RECEIVER_PORT)}",
            "https": f"https://{LOOPBACK}:{await _start(secure, RECEIVER_PORT + 1)}",
        }
        async with opened(run.settings) as session:
            if run.samples:
                ca_pem = run.ca_file.read_text(encoding="ascii")
                routes = await ensure_endpoints(
                    session.deployment, session.actor, urls, ca_pem, run.samples
                )
                plain.routes = secure.routes = routes
            daemon = Daemon(
                run.settings,
                reload=lambda: run.settings,
                log=writer,
                notifier=Notifier(None),
                bound=run.listener,
            )
            await _serve(run, session, daemon, urls, log_path)
        wrong = plain.invalid_count + secure.invalid_count
        if wrong:
            tell(f"{wrong} requests did not verify: was a secret changed while this ran?")
    finally:
        await plain.stop()
        await secure.stop()
        logs.configure(form="console", level="warning", version=__version__)
        os.close(descriptor)


async def _start(receiver: Receiver, wanted: int) -> int:
    return await receiver.start(bound=take_port(LOOPBACK, wanted, "receiver"))


async def _serve(
    run: Run, session: Session, daemon: Daemon, urls: Mapping[str, str], log_path: Path
) -> None:
    """Run the daemon with sample events and the progress table, until the daemon has drained."""
    since = SystemClock.now()
    loop = asyncio.get_running_loop()
    counts = Published()
    async with TaskSet("dev") as tasks:

        def serving(port: int) -> None:
            _announce(run, urls, port, log_path)
            tasks.spawn("link", _print_link(session, port))
            if run.demo is not None:
                tasks.spawn("warehouse", _simulate(run.settings, run.demo, counts))
            elif run.samples:
                tasks.spawn("samples", publish_events(session.deployment, session.actor))
            tasks.spawn("progress", show_progress(session.deployment, session.actor, since))
            if run.seconds is not None:
                loop.call_later(run.seconds, daemon.stop)

        await tasks.spawn("daemon", daemon.run(serving=serving))
    if run.demo is not None:
        say(f"warehouse: {counts.committed} events committed, {counts.rolled_back} rolled back")
    tell("drained")


async def _simulate(settings: Settings, demo: Demo, counts: Published) -> None:
    """Publish the warehouse's changes until cancelled; a lost connection is replaced."""
    warehouse, dice = Warehouse(demo.seed), random.Random(demo.seed)  # noqa: S311 -- a simulation
    assert settings.database_url is not None  # noqa: S101 -- it was given, or made
    url = settings.database_url.get_secret_value()
    while True:
        try:
            connection = await connect(url)
            try:
                await create_tables(connection)
                await publish_changes(
                    connection,
                    warehouse,
                    rate_per_second=demo.rate_per_second,
                    dice=dice,
                    counts=counts,
                )
            finally:
                await connection.close(timeout=CLOSE_SECONDS_MAX)
        except (StoreUnavailableError, asyncpg.PostgresConnectionError, OSError) as error:
            tell(f"warehouse: {error}; the connection is opened again in {RECONNECT_SECONDS:g} s")
            await asyncio.sleep(RECONNECT_SECONDS)


def _announce(run: Run, urls: Mapping[str, str], port: int, log_path: Path) -> None:
    """Publish all addresses, for people and for the other commands."""
    url = run.settings.database_url
    assert url is not None  # noqa: S101 -- the daemon was made with it
    console_url = f"http://{LOOPBACK}:{port}/"
    token = run.settings.admin_token
    run.home.write_json(
        "dev.json",
        {
            "database_url": url.get_secret_value(),
            "console_url": console_url,
            "admin_token": None if token is None else token.get_secret_value(),
            "receiver_urls": list(urls.values()),
            "ca_file": str(run.ca_file),
        },
    )
    egress = run.settings.egress
    run.home.write_json(
        "environment.json",
        {
            "DISPATCHER_DATABASE_URL": url.get_secret_value(),
            "DISPATCHER_SECRET_KEYS": run.environ.get("DISPATCHER_SECRET_KEYS", ""),
            "DISPATCHER_ADMIN_TOKEN": "" if token is None else token.get_secret_value(),
            "DISPATCHER_HTTP__PORT": str(port),
            "DISPATCHER_EGRESS__ALLOW_HTTP": "true",
            "DISPATCHER_EGRESS__ALLOW_NETWORKS": orjson.dumps(
                [str(one) for one in egress.allow_networks]
            ).decode(),
            "DISPATCHER_EGRESS__CA_FILE": egress.ca_file,
        },
    )
    say(f"console    {console_url}")
    say(f"api        {console_url}docs  {console_url}metrics")
    say(f"receivers  {urls['http']}  {urls['https']}  (authority: {run.ca_file})")
    say(
        f"database   {url.get_secret_value() if '@/' in url.get_secret_value() else 'from DISPATCHER_DATABASE_URL'}"
    )
    say(f"log        {log_path}")
    if run.samples:
        say("endpoints  " + ", ".join(sample.name for sample in run.samples))
    say(
        "try        endpoint list; delivery list; event publish order.created; open"
        "  (after ./run or dispatcher)"
    )
    say("end        Ctrl-C")


async def _print_link(session: Session, port: int) -> None:
    """Print a link that signs in to the console once."""
    try:
        link = await Access(session.deployment).create_link(session.actor)
    except StoreUnavailableError as error:
        tell(f"no sign-in link: {error}; create one with `dispatcher open`")
        return
    say(f"sign in    http://{LOOPBACK}:{port}/{link.path}")
    say("           (once, within 5 minutes; `open` prints another link)")


async def _migrate(settings: Settings, *, own: bool) -> None:
    """Migrate the schema if `dispatcher dev` created it, which is always so in a private database.

    Raises:
        ConfigurationError: the database has a schema that `dispatcher dev` did not make.
    """
    assert settings.database_url is not None  # noqa: S101 -- it was given, or made
    connection = await connect(settings.database_url.get_secret_value())
    try:
        mark = await schema_mark(connection)
        if not own and mark not in {None, DEV_MARK}:
            raise ConfigurationError(
                [
                    (
                        "DISPATCHER_DATABASE_URL: this database has a schema dispatcher that"
                        " `dispatcher dev` did not make; give it one of its own, or use"
                        " `dispatcher run`"
                    )
                ]
            )
        await migrate.migrate(connection)
        await mark_schema(connection)
        await migrate.set_notify(connection, wanted=settings.intake.notify)
        await migrate.grant_producers(connection)
    finally:
        await connection.close()
    database = Database(settings.database_url.get_secret_value(), connections_max=1)
    await database.open()
    try:
        await Schema(database).make_partitions(settings.retention.partitions_ahead_days)
    finally:
        await database.close()
