"""Runs `dispatcher` commands as processes of their own, forked from one that has imported the command line.

Each start of an interpreter imports for 0.4 s of CPU time, and tests start hundreds of commands. A fork of
a process that has only imported has its own file descriptors, environment, folder and exit code, as a
started one has.

    Commands ── words, environment, descriptors ──▶ server ── fork ──▶ the command
             ◀── exit code ───────────────────────────┘
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

import dispatcher.app
import dispatcher.cli.program  # noqa: F401 -- imported once for all children
from dispatcher.cli import main

SECONDS_MAX = 60
_MESSAGE_BYTES_MAX = 1 << 20


class Commands:
    """One server; commands run one after the other."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-m", __spec__.name, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
            )
        self._socket = ours
        self._socket.settimeout(SECONDS_MAX)

    def run(
        self, arguments: Sequence[str], environ: Mapping[str, str], stdin: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Run `dispatcher` with these arguments and return its output and exit code.

        Raises:
            TimeoutError: it did not end within `SECONDS_MAX`; the server is gone.
        """
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            given.write(stdin.encode())
            given.seek(0)
            message = orjson.dumps([list(arguments), dict(environ), str(Path.cwd())])
            socket.send_fds(self._socket, [message], [given.fileno(), out.fileno(), err.fileno()])
            try:
                code = orjson.loads(self._socket.recv(64))
            except TimeoutError:
                self.close()
                raise
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(
                list(arguments), code, out.read().decode(), err.read().decode()
            )

    def close(self) -> None:
        """End the server."""
        self._socket.close()
        self._server.kill()
        self._server.wait()


def serve(descriptor: int) -> None:
    """Fork a child for each request until the other side is closed."""
    requests = socket.socket(fileno=descriptor)
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, _MESSAGE_BYTES_MAX, 3)
        if not message:
            return
        child = os.fork()
        if not child:
            requests.close()
            arguments, environ, folder = orjson.loads(message)
            _become_command(arguments, environ, folder, descriptors)
        for given in descriptors:
            os.close(given)
        _, status = os.waitpid(child, 0)
        requests.send(orjson.dumps(os.waitstatus_to_exitcode(status)))


def _become_command(
    arguments: list[str], environ: dict[str, str], folder: str, descriptors: list[int]
) -> None:
    """Run the command in this process and end it as an interpreter would."""
    for number, given in enumerate(descriptors):
        os.dup2(given, number)
        os.close(given)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["dispatcher", *arguments]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 -- shown as an interpreter shows it
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
