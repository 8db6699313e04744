"""Starts processes of the project as forks of one that has imported the project.

An interpreter that starts the daemon imports for more than a second of CPU time, and the suite starts hundreds of
daemons, commands, receivers and producers. A fork of a process that has only imported has its own memory, file
descriptors, environment, folder, signals and exit code, as a started one has.

    test ── module, arguments, environment, folder, descriptors ──▶ server ── fork ── fork ──▶ the process
         ◀── its process id ────────────────────────────────────────────┘

The fork in between ends at once, and the kernel then makes the process a child of the test's (a subreaper), so the
test waits for it as for any child. If the test's process ends, the kernel kills the process. This needs Linux.
"""

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

import orjson

CHECKOUT = Path(__file__).resolve().parents[2]
REPLY_SECONDS_MAX = COMMAND_SECONDS_MAX = 60
POLL_SECONDS = 0.005
_IMPORTED = (
    "dispatcher.cli",
    "dispatcher.cli.daemon",
    "dispatcher.cli.reference",  # has all commands
    "tests.support.recording_receiver",
    "tests.support.ledger",
)
_MESSAGE_BYTES_MAX = 1 << 20
_SUBREAPER, _DEATH_SIGNAL = 36, 1
"""Of prctl(2)."""


def is_possible() -> bool:
    """Return whether this system makes a forked process a child of the test's."""
    return sys.platform == "linux"


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)


class Child:
    """A process that the server forked; it has what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        args: Sequence[str],
        pid: int,
        *,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
    ) -> None:
        self.args = list(args)
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code once it has ended, negative for a signal."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code.

        Raises:
            subprocess.TimeoutExpired: it has not ended in time.
        """
        ends_at = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if ends_at is not None and time.monotonic() > ends_at:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(POLL_SECONDS)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The process that has imported the project."""

    def __init__(self) -> None:
        ctypes.CDLL(None).prctl(_SUBREAPER, 1)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", __spec__.name, str(theirs.fileno()), str(os.getpid())],
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._socket = ours
        self._socket.settimeout(REPLY_SECONDS_MAX)
        self._lock = threading.Lock()

    def start(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        environ: Mapping[str, str],
        cwd: Path,
        descriptors: Sequence[int],
    ) -> int:
        """Fork a process that calls `main` of a module, and return its id.

        `descriptors` become its standard input, output and error; the caller closes its own.
        """
        message = orjson.dumps([module, list(arguments), dict(environ), str(cwd)])
        with self._lock:
            socket.send_fds(self._socket, [message], list(descriptors))
            pid: int = orjson.loads(self._socket.recv(64))
        return pid

    def close(self) -> None:
        """End the server; its children live on."""
        self._socket.close()
        self._server.kill()
        self._server.wait()


def run_command(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    stdin: bytes | str = "",
    *,
    cwd: Path | None = None,
) -> "subprocess.CompletedProcess[str]":
    """Run `dispatcher` with these arguments and this environment; return its output and exit code.

    Raises:
        subprocess.TimeoutExpired: it did not end within `COMMAND_SECONDS_MAX`.
    """
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        given.write(stdin if isinstance(stdin, bytes) else stdin.encode())
        given.seek(0)
        descriptors = [given.fileno(), out.fileno(), err.fileno()]
        child = Child(
            arguments,
            fork_server().start(
                "dispatcher.cli",
                arguments,
                environ=environ,
                cwd=cwd or Path.cwd(),
                descriptors=descriptors,
            ),
        )
        try:
            code = child.wait(COMMAND_SECONDS_MAX)
        finally:
            child.kill()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(
            child.args, code, out.read().decode(), err.read().decode()
        )


@functools.cache
def fork_server() -> ForkServer:
    """Return the server of this process, which is started with the first use and ends with the process."""
    server = ForkServer()
    atexit.register(server.close)
    return server


def serve(descriptor: int, parent: int) -> None:
    """Fork a process for each request until the other side is closed."""
    for name in _IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    requests = socket.socket(fileno=descriptor)
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, _MESSAGE_BYTES_MAX, 3)
        if not message:
            return
        readable, writable = os.pipe()
        between = os.fork()
        if not between:
            between = os.getpid()
            pid = os.fork()
            if pid:
                os.write(writable, str(pid).encode())
                os._exit(0)
            while os.getppid() == between:  # which takes microseconds
                os.sched_yield()
            die_with_parent()
            if os.getppid() != parent:
                os._exit(1)
            _become(orjson.loads(message), descriptors)
        for given in (*descriptors, writable):
            os.close(given)
        os.waitpid(between, 0)
        requests.send(os.read(readable, 32))
        os.close(readable)


def _become(request: tuple[str, list[str], dict[str, str], str], given: list[int]) -> NoReturn:
    """Run the process of a request in this one, and end it as an interpreter would."""
    module, arguments, environ, folder = request
    for number, descriptor in enumerate(given):
        os.dup2(descriptor, number)
    os.closerange(3, 256)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    encoding = environ.get("PYTHONIOENCODING") or "utf-8"
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding)
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding)
    errors = io.BufferedWriter(io.FileIO(2, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(errors, encoding, "backslashreplace", line_buffering=True)
    sys.argv = [module, *arguments]
    code = 1
    try:
        importlib.import_module(module).main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 -- shown as an interpreter shows it
        sys.excepthook(*sys.exc_info())
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # an interpreter waits for threads
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
