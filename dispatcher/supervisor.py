"""Runs several processes of the daemon as one service: `dispatcher run --processes N`.

Each child is a replica of its own, with its own lease, so the processes divide the endpoints as
replicas on several machines do. The supervisor holds the admin port, which the first child serves (every
child of the role `api`), and the probe port, which it serves itself. Invariants:

* One port has the API and the console, one the probes and the metrics of all processes.
* A child that ends is started again, after a pause that grows. The others continue meanwhile, and its
  lease expires or is released as that of any replica.
* A child whose event loop has not responded for `SILENT_SECONDS_MAX` is killed and started again.
* No child outlives the supervisor: each holds the end of a pipe, and drains when the pipe is closed.
* If a child exits with 2, its configuration or schema is invalid, so the supervisor drains all and exits with 2.

The supervisor does no work of its own between probes, so a process more costs what the process costs.
"""

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import orjson
import structlog
from aiohttp import web

from dispatcher.admin.listener import ProbeListener, dual_stack_socket
from dispatcher.config.settings import Settings
from dispatcher.core.errors import ConfigurationError
from dispatcher.runtime.backoff import Backoff
from dispatcher.runtime.notify import Notifier
from dispatcher.runtime.tasks import TaskSet

_log = structlog.get_logger("dispatcher.supervisor")

ALL: Final = "all"
API: Final = "api"
DELIVERY: Final = "delivery"
RESTART_SECONDS: Final = (0.5, 30.0)
STEADY_SECONDS: Final = 60.0
"""A child that has run for so long is restarted with the shortest pause again."""
PROBE_SECONDS: Final = 5.0
START_PROBE_SECONDS: Final = 0.5
PROBE_SECONDS_MAX: Final = 6.0
SILENT_SECONDS_MAX: Final = 30.0
DRAIN_SECONDS_MORE: Final = 15.0
"""A child drains for `delivery.drain_seconds` and flushes; after so much more it is killed."""
_CONFIGURATION: Final = 2
_DRAINED: Final = (0, -signal.SIGTERM)
"""A child that is still starting has no handler: SIGTERM ends it, and it has nothing to drain."""
_NOT_INHERITED: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Child:
    """One process, and how it is started."""

    def __init__(self, number: int, arguments: Sequence[str], probe_path: str) -> None:
        self.number = number
        self.arguments = arguments
        self.probe_path = probe_path
        self.process: asyncio.subprocess.Process | None = None
        self.heard_at = 0.0
        self.code = 0

    def signal(self, number: int) -> None:
        """Send a signal, if the process runs."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)


class Supervisor:
    """Starts, watches and restarts the children; `run` is its whole life."""

    def __init__(
        self,
        settings: Settings,
        *,
        config: Path | None,
        role: str,
        processes: int,
        notifier: Notifier,
    ) -> None:
        """Bind the admin port, so that it stays bound when a child is restarted.

        Raises:
            ConfigurationError: the probe port is not set, or an address is not available.
        """
        http = settings.http
        if not http.probe_port:
            raise ConfigurationError(
                [
                    "http.probe_port: required with --processes, for the probes and metrics of all processes"
                ]
            )
        self._settings = settings
        self._notifier = notifier
        self._stop = asyncio.Event()
        self._folder = tempfile.TemporaryDirectory(prefix="dispatcher-")
        self._lifeline, self._held = os.pipe()
        self._bound = None if role == DELIVERY else _bind(http.host, http.port)
        command = [sys.executable, "-m", "dispatcher"]
        if config is not None:
            command += ["--config", str(config)]
        self._children = [
            self._child(number, [*command, "run"], role) for number in range(processes)
        ]

    def _child(self, number: int, command: list[str], role: str) -> Child:
        path = str(Path(self._folder.name) / f"{number}.sock")
        serves = self._bound is not None and (number == 0 or role == API)
        own_role = role if serves or role != ALL else DELIVERY
        arguments = [*command, "--role", own_role, "--probe-path", path]
        arguments += ["--lifeline", str(self._lifeline)]
        if serves and self._bound is not None:
            arguments += ["--listener", str(self._bound.fileno())]
        return Child(number, arguments, path)

    @property
    def port(self) -> int:
        """The admin port; 0 if there is none."""
        return 0 if self._bound is None else int(self._bound.getsockname()[1])

    async def run(self) -> int:
        """Run until a signal or until a child cannot start; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        loop.add_signal_handler(signal.SIGUSR1, self._forward, signal.SIGUSR1)
        listener = ProbeListener(self._application())
        http = self._settings.http
        try:
            await listener.start(http.host, http.probe_port)
        except OSError as error:
            raise ConfigurationError(
                [
                    f"http.probe_port: cannot listen on {http.host}:{http.probe_port}: {error.strerror}"
                ]
            ) from error
        try:
            async with TaskSet("supervisor") as tasks:
                kept = [
                    tasks.spawn(f"child_{child.number}", self._keep(child))
                    for child in self._children
                ]
                tasks.spawn("watch", self._watch())
                _log.info(
                    "supervisor.started",
                    processes=len(self._children),
                    port=self.port,
                    pid=os.getpid(),
                )
                await self._stop.wait()
                self._notifier.stopping()
                self._forward(signal.SIGTERM)
                seconds = self._settings.delivery.drain_seconds + DRAIN_SECONDS_MORE
                _, late = await asyncio.wait(kept, timeout=seconds)
                if late:
                    self._forward(signal.SIGKILL)
                    await asyncio.wait(late, timeout=PROBE_SECONDS_MAX)
        finally:
            await listener.stop()
            self._folder.cleanup()
            os.close(self._held)
            os.close(self._lifeline)
            if self._bound is not None:
                self._bound.close()
        _log.info("supervisor.stopped")
        return max((child.code for child in self._children), default=0)

    def stop(self) -> None:
        """Drain all children; a second call ends them at once."""
        if self._stop.is_set():
            self._forward(signal.SIGTERM)
        self._stop.set()

    def _reload(self) -> None:
        self._notifier.reloading()
        self._forward(signal.SIGHUP)
        self._notifier.ready()

    def _forward(self, number: int) -> None:
        for child in self._children:
            child.signal(number)

    async def _keep(self, child: Child) -> None:
        """Start a child again whenever it ends, until the drain."""
        backoff = Backoff(*RESTART_SECONDS)
        environ = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED}
        name = self._settings.replica.name or socket.gethostname()
        environ["DISPATCHER_REPLICA__NAME"] = f"{name}-{child.number}"
        inherited = [self._lifeline, *([self._bound.fileno()] if self._bound else [])]
        while not self._stop.is_set():
            _remove(child.probe_path)
            started_at = child.heard_at = time.monotonic()
            # A terminal sends Ctrl-C to each process of a group. With the supervisor's signal it would
            # be a child's second one, which ends the drain.
            child.process = await asyncio.create_subprocess_exec(
                *child.arguments,
                env=environ,
                pass_fds=inherited,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
            if self._stop.is_set():
                child.signal(signal.SIGTERM)
            code = await child.process.wait()
            if self._stop.is_set():
                child.code = 0 if code in _DRAINED else max(code, 1)
                return
            if code == _CONFIGURATION:
                child.code = code
                self._stop.set()
                return
            if time.monotonic() - started_at > STEADY_SECONDS:
                backoff.reset()
            _log.error("process.ended", process=child.number, code=code)
            await backoff.pause(self._stop)

    async def _watch(self) -> None:
        """Report readiness once all children are ready, feed the watchdog, and kill a silent child."""
        is_ready = False
        while True:
            await asyncio.sleep(PROBE_SECONDS if is_ready else START_PROBE_SECONDS)
            if not is_ready:
                is_ready = not await self._problems()
                if is_ready:
                    self._notifier.ready()
            self._notifier.watchdog()
            for child, (status, _) in await ask_all(self._children, "/livez"):
                if status:
                    child.heard_at = time.monotonic()
                elif time.monotonic() - child.heard_at > SILENT_SECONDS_MAX:
                    _log.error("process.killed", process=child.number)
                    child.signal(signal.SIGKILL)

    # --- probes ---

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=0)
        application.router.add_get("/livez", self._live)
        application.router.add_get("/readyz", self._ready)
        application.router.add_get("/metrics", self._metrics)
        application.on_response_prepare.append(_close_after)
        return application

    async def _live(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _ready(self, _: web.Request) -> web.Response:
        problems = ["draining"] if self._stop.is_set() else await self._problems()
        if problems:
            return web.json_response({"status": "not ready", "problems": problems}, status=503)
        return web.json_response({"status": "ready"})

    async def _problems(self) -> list[str]:
        found = []
        for child, (status, body) in await ask_all(self._children, "/readyz"):
            if not status:
                found.append(f"process {child.number}: not running")
            elif status != 200:  # noqa: PLR2004 -- the status
                told = orjson.loads(body).get("problems", [])
                found += [f"process {child.number}: {problem}" for problem in told]
        return found

    async def _metrics(self, _: web.Request) -> web.Response:
        answers = await ask_all(self._children, "/metrics")
        texts = {child.number: body for child, (status, body) in answers if status == 200}  # noqa: PLR2004 -- the status
        return web.Response(
            body=merged_metrics(texts),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )


def merged_metrics(texts: Mapping[int, bytes]) -> bytes:
    """Return one exposition of several processes; each series has the label `process`.

    The lines of a metric stay together, as the format requires.
    """
    heads: dict[str, list[str]] = {}
    series: dict[str, list[str]] = {}
    for number, text in texts.items():
        name = ""
        for line in text.decode().splitlines():
            if line.startswith("# "):
                name = line.split(" ", 3)[2]
                head = heads.setdefault(name, [])
                series.setdefault(name, [])
                if line not in head:
                    head.append(line)
            elif line:
                series.setdefault(name, []).append(_labelled(line, number))
    lines = [line for name, of_name in series.items() for line in (*heads.get(name, ()), *of_name)]
    return "\n".join([*lines, ""]).encode()


def _labelled(line: str, number: int) -> str:
    name, brace, rest = line.partition("{")
    if brace and " " not in name:
        return f'{name}{{process="{number}",{rest}'
    name, _, value = line.partition(" ")
    return f'{name}{{process="{number}"}} {value}'


async def ask_all(children: Sequence[Child], path: str) -> list[tuple[Child, tuple[int, bytes]]]:
    """Request a path of all children at the same time, so that those that hang take one time limit together."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_get(child, path)) for child in children]
    return [(child, task.result()) for child, task in zip(children, tasks, strict=True)]


async def _get(child: Child, path: str) -> tuple[int, bytes]:
    """Request a path of a child's probes; return the status, 0 if it does not respond, and the body."""
    try:
        async with asyncio.timeout(PROBE_SECONDS_MAX):
            reader, writer = await asyncio.open_unix_connection(child.probe_path)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: child\r\n\r\n".encode())
                head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
            finally:
                writer.close()
        return int(head.split(b" ", 2)[1]), body
    except (OSError, ValueError, IndexError, TimeoutError):
        return 0, b""


def _bind(host: str, port: int) -> socket.socket:
    """Return a bound socket, which children listen on.

    Raises:
        ConfigurationError: the address is not available.
    """
    try:
        if host == "::":
            return dual_stack_socket(port)
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()
    except OSError as error:
        raise ConfigurationError(
            [f"http.port: cannot listen on {host}:{port}: {error.strerror}"]
        ) from error
    bound.setblocking(False)
    return bound


def _remove(path: str) -> None:
    """Remove the socket of a child that was killed."""
    Path(path).unlink(missing_ok=True)


async def _close_after(_: web.Request, response: web.StreamResponse) -> None:
    response.force_close()
    response.headers["Connection"] = "close"
