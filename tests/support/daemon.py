"""Starts the daemon, the receiver and the producer as processes, and waits for what they say; never sleeps blindly."""

import asyncio
import atexit
import base64
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import asyncpg
import orjson

from dispatcher.core.sealing import Keyring
from tests.support.forking import Child, die_with_parent, fork_server, is_possible
from tests.support.ledger import Plan, plan_text
from tests.support.pace import slowness

CHECKOUT = Path(__file__).resolve().parent.parent.parent
KEY = b"k" * 32
STANDARD_SECRET = "whsec_" + base64.b64encode(b"standard-secret-of-32-bytes-long").decode()
WMS_SECRET = "whsec_" + "w" * 40
HUMANSOFT_SECRET = "whse" + "h" * 40
SECRETS = {"standard": STANDARD_SECRET, "wms": WMS_SECRET, "humansoft": HUMANSOFT_SECRET}
POLL_SECONDS = 0.02


async def until(
    condition: Callable[[], Awaitable[Any]],
    *,
    seconds: float,
    what: str,
    pause: float = POLL_SECONDS,
) -> Any:
    """Returns the condition's first true value; looks at real state again and again until the deadline.

    A deadline that is missed grows once by how much slower this machine is now than an idle one.

    Raises:
        TimeoutError: it did not become true in time; the text says what was waited for.
    """
    began = time.monotonic()
    allowed, is_final = seconds, False
    while True:
        value = await condition()
        if value:
            return value
        if time.monotonic() - began > allowed:
            if not is_final:
                allowed, is_final = seconds * slowness(), True
                continue
            raise TimeoutError(f"not within {seconds} s: {what}")
        await asyncio.sleep(pause)


_running: "dict[Process, str]" = {}
"""Processes that have not been stopped, with the test that started each."""


def free_port() -> int:
    """Returns a port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _forked(
    module: str, arguments: Sequence[str], environ: dict[str, str], cwd: Path, stderr: int
) -> Child:
    """Fork a process whose standard input and output are pipes."""
    stdin, ours_in = os.pipe()
    ours_out, stdout = os.pipe()
    try:
        pid = fork_server().start(
            "dispatcher.cli" if module == "dispatcher" else module,
            arguments,
            environ=environ,
            cwd=cwd,
            descriptors=[stdin, stdout, stderr],
        )
    finally:
        os.close(stdin)
        os.close(stdout)
    args = [sys.executable, "-m", module, *arguments]
    return Child(args, pid, stdin=os.fdopen(ours_in, "wb"), stdout=os.fdopen(ours_out, "rb"))


@atexit.register
def _stop_what_runs() -> None:
    for process, test in list(_running.items()):
        sys.stderr.write(f"{test} has not stopped {process.child.args!r}\n")
        process.stop()


class Process:
    """A child of the test, which cannot outlive it.

    One that its test does not stop is stopped and named when the run ends. Until then it is kept, because the warning
    of an unclosed pipe would fail any test that runs at the moment.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        environ: dict[str, str],
        log: Path,
        cwd: Path,
        prefix: Sequence[str] = (),
    ) -> None:
        self.log_path = log
        self.environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), **environ}
        self.child: Child | subprocess.Popen[bytes]
        with log.open("ab") as stderr:
            # A variable that is not ours, such as LD_PRELOAD, may concern the interpreter or the start.
            if not prefix and is_possible() and all(n.startswith("DISPATCHER_") for n in environ):
                self.child = _forked(module, arguments, self.environ, cwd, stderr.fileno())
            else:
                self.child = subprocess.Popen(
                    [*prefix, sys.executable, "-m", module, *arguments],
                    cwd=cwd,
                    env=self.environ,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    preexec_fn=die_with_parent,  # noqa: PLW1509 -- one system call, no lock of the parent is touched
                )
        _running[self] = os.environ.get("PYTEST_CURRENT_TEST", "no test")

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.child.send_signal(number)

    def stop(self) -> None:
        """Ends it whatever it does, and lets its pipes go."""
        _running.pop(self, None)
        with contextlib.suppress(ProcessLookupError):
            self.child.send_signal(signal.SIGCONT)
            self.child.kill()
        self.child.wait(timeout=10)
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    async def ended(self, seconds: float) -> int:
        """Returns the exit code once it has ended."""

        async def code() -> tuple[int] | None:
            found = self.child.poll()
            return None if found is None else (found,)

        return int((await until(code, seconds=seconds, what=f"the end of {self.child.args!r}"))[0])

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Returns the log lines of this event."""
        found = []
        for line in self.log_path.read_bytes().splitlines():
            with contextlib.suppress(orjson.JSONDecodeError):
                entry = orjson.loads(line)
                if isinstance(entry, dict) and entry.get("event.name") == event:
                    found.append(entry)
        return found

    async def said(self, event: str, *, count: int = 1, seconds: float = 15.0) -> dict[str, Any]:
        """Returns the `count`-th log line of this event, waiting for it."""

        async def look() -> dict[str, Any] | None:
            lines = self.lines(event)
            if len(lines) < count and self.child.poll() is not None:
                tail = self.log_path.read_text(errors="replace")[-2_000:]
                raise AssertionError(
                    f"it ended with {self.child.returncode} before {event}:\n{tail}"
                )
            return lines[count - 1] if len(lines) >= count else None

        found = await until(look, seconds=seconds, what=f"log line {event} in {self.log_path}")
        assert isinstance(found, dict)
        return found


class Daemon(Process):
    """The daemon under test."""

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        name: str = "test",
        prefix: Sequence[str] = (),
        arguments: Sequence[str] = (),
        environ: dict[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.name = name
        log = folder / f"daemon-{name}.{time.monotonic_ns()}.log"
        super().__init__(
            "dispatcher",
            "run",
            *arguments,
            environ={
                "DISPATCHER_LOG__FORMAT": "json",
                "DISPATCHER_DATABASE_URL": url,
                "DISPATCHER_SECRET_KEYS": "k1:" + base64.b64encode(KEY).decode(),
                "DISPATCHER_EGRESS__ALLOW_HTTP": "true",
                "DISPATCHER_EGRESS__ALLOW_NETWORKS": '["127.0.0.0/8"]',
                "DISPATCHER_HTTP__PORT": str(self.port),
                "DISPATCHER_REPLICA__NAME": name,
                **(environ or {}),
            },
            log=log,
            cwd=folder,
            prefix=prefix,
        )

    async def started(self, seconds: float = 20.0) -> "Daemon":
        await self.said("daemon.started", seconds=seconds)
        return self

    async def get(self, path: str) -> tuple[int, str]:
        """Asks the listener; status 0 where nothing answers."""

        def ask() -> tuple[int, str]:
            try:
                with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=6) as answer:
                    return answer.status, answer.read().decode()
            except HTTPError as error:
                with error:
                    return error.code, error.read().decode()
            except (URLError, OSError):
                return 0, ""

        return await asyncio.to_thread(ask)

    async def metric(self, name: str) -> float:
        """Returns the sum over all labels of a metric."""
        _, text = await self.get("/metrics")
        return sum(
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith((f"{name} ", f"{name}{{"))
        )


class Receiver(Process):
    """The recording receiver."""

    def __init__(
        self,
        folder: Path,
        certificate: Path | None = None,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:
        self._host = host
        self.record = folder / "receiver.jsonl"
        self._offset = 0
        self._entries: list[dict[str, Any]] = []
        self._counts: Counter[tuple[str, str]] = Counter()
        arguments = [str(self.record), str(port)] + ([str(certificate)] if certificate else [])
        super().__init__(
            "tests.support.recording_receiver",
            *arguments,
            environ={"RECEIVER_HOST": host},
            log=folder / "receiver.log",
            cwd=folder,
            prefix=prefix,
        )
        assert self.child.stdout is not None
        ports = orjson.loads(self.child.stdout.readline())
        self.port = ports[0]
        self.tls_port = ports[-1]
        self.record.touch()

    def url(self, path: str, *, tls: bool = False) -> str:
        return (
            f"https://{self._host}:{self.tls_port}{path}"
            if tls
            else f"http://{self._host}:{self.port}{path}"
        )

    def behave(self, **behaviours: dict[str, Any]) -> None:
        """Sets how paths behave, given without their first slash; returns when that is in force."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(
            orjson.dumps({f"/{path}": how for path, how in behaviours.items()}) + b"\n"
        )
        self.child.stdin.flush()
        assert self.child.stdout.readline() == b"ok\n"

    def entries(self, kind: str, path: str | None = None) -> list[dict[str, Any]]:
        self._read_on()
        return [e for e in self._entries if e["kind"] == kind and path in (None, e["path"])]

    def count(self, kind: str, path: str | None = None) -> int:
        """Counts entries without looking at all of them again."""
        self._read_on()
        return sum(
            count for (k, p), count in self._counts.items() if k == kind and path in (None, p)
        )

    def _read_on(self) -> None:
        """Reads what was written since; a last line that is only half there stays for the next time."""
        with self.record.open("rb") as file:
            file.seek(self._offset)
            whole = file.read().rpartition(b"\n")[0]
        if not whole:
            return
        self._offset += len(whole) + 1
        for line in whole.splitlines():
            entry = orjson.loads(line)
            self._entries.append(entry)
            self._counts[entry["kind"], entry["path"]] += 1

    async def received(
        self, count: int, *, kind: str = "answer", path: str | None = None, seconds: float = 15.0
    ) -> list[dict[str, Any]]:
        """Returns the entries once there are so many."""

        async def look() -> bool:
            return self.count(kind, path) >= count

        await until(look, seconds=seconds, what=f"{count} x {kind} at {path}")
        return self.entries(kind, path)


class Producer(Process):
    """The producer with its ledger."""

    def __init__(self, folder: Path, plan: Plan, *, prefix: Sequence[str] = ()) -> None:
        self.ledger = folder / f"ledger-{plan.prefix}.jsonl"
        self.ledger.touch()
        super().__init__(
            "tests.support.ledger",
            str(self.ledger),
            plan_text(plan),
            environ={},
            log=folder / f"producer-{plan.prefix}.log",
            cwd=folder,
            prefix=prefix,
        )


async def add_endpoint(
    connection: asyncpg.Connection,
    endpoint_id: str,
    url: str,
    *,
    profile: str = "standard",
    secret: str | None = "",
    event_types: list[str] | None = None,
    shard: int = 3,
    **columns: Any,
) -> None:
    """Saves an endpoint with its sealed secret in one transaction; `secret` None leaves it unsigned."""
    names = "".join(f", {name}" for name in columns)
    places = "".join(f", ${number}" for number in range(6, 6 + len(columns)))
    async with connection.transaction():
        await connection.execute(
            "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard"
            f"{names}) VALUES ($1, 'default', $1, $2, $3, $4, $5{places})",
            endpoint_id,
            url,
            profile,
            event_types or ["*"],
            shard,
            *columns.values(),
        )
        if secret is not None:
            sealed = Keyring({"k1": KEY}).seal(
                secret or SECRETS[profile],
                owner=endpoint_id,
                nonce=endpoint_id.ljust(12, "x")[:12].encode(),
            )
            await connection.execute(
                "INSERT INTO dispatcher.endpoint_secret (endpoint_id, role, key_id, sealed)"
                " VALUES ($1, 'current', 'k1', $2)",
                endpoint_id,
                sealed,
            )


async def quiet(url: str, *, seconds: float) -> None:
    """Waits until nothing is in the outbox, pending or retrying; a database that is away counts as not quiet."""
    waiting: dict[str, object] = {}

    async def look() -> bool:
        try:
            connection = await asyncpg.connect(url, timeout=5.0, command_timeout=10.0)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        try:
            row = await connection.fetchrow(
                """
                SELECT (SELECT count(*) FROM dispatcher.outbox WHERE consumed_at IS NULL) AS outbox,
                       (SELECT count(*) FROM dispatcher.delivery_open) AS open
                """
            )
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        finally:
            connection.terminate()
        waiting.update(row or {})
        return not any(waiting.values())

    try:
        await until(look, seconds=seconds, what="quiet", pause=0.1)
    except TimeoutError:
        raise TimeoutError(f"not quiet within {seconds} s: {waiting}") from None
