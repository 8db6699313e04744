"""Postgres in every sort of trouble: frozen, on a full disk, with a standby to promote, behind pgbouncer.

Everything here blocks for at most seconds and belongs to one test, which ends it.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from dispatcher.dev.postgres import Postgres, server_user
from dispatcher.store.migrate import migrate, set_notify
from tests.support.daemon import free_port
from tests.support.hosts import NETWORK, Host

IS_ROOT = os.geteuid() == 0


def folder_for(name: str) -> Path:
    """Makes a folder that the server's own user may pass."""
    folder = Path(tempfile.mkdtemp(prefix=f"dispatcher-{name}-"))
    folder.chmod(0o711)
    return folder


@contextmanager
def own_cluster(*, data: Path | None = None, **settings: str) -> Iterator[Postgres]:
    """Yields a cluster of the test's own, not started yet."""
    folder = folder_for("fault") if data is None else None
    where = folder / "data" if folder is not None else data
    assert where is not None
    postgres = Postgres(where, durable=False, settings={"synchronous_commit": "on", **settings})
    try:
        yield postgres
    finally:
        with contextlib.suppress(Exception):
            postgres.stop()
        for left in (folder, postgres.moved_to):
            if left is not None:
                shutil.rmtree(left, ignore_errors=True)


async def prepare(url: str) -> str:
    """Migrates the database and lets its trigger announce commits."""
    connection = await asyncpg.connect(url)
    try:
        await migrate(connection)
        await set_notify(connection, wanted=True)
    finally:
        await connection.close()
    return url


# --- frozen ---


def processes_of(postgres: Postgres) -> list[int]:
    """Returns the postmaster and its children; backends have sessions of their own."""
    postmaster = postgres.process_id
    assert postmaster is not None
    listed = subprocess.run(
        ["/bin/ps", "-o", "pid=", "--ppid", str(postmaster)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return [postmaster, *(int(word) for word in listed.split())]


@contextmanager
def frozen(postgres: Postgres) -> Iterator[None]:
    """Stops every process of the server: it accepts, through the kernel, and never answers."""
    stopped = processes_of(postgres)
    for process_id in stopped:
        os.kill(process_id, signal.SIGSTOP)
    try:
        yield
    finally:
        for process_id in reversed(stopped):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGCONT)


# --- a primary and its standby ---


class Pair:
    """Two clusters, the second a synchronous standby of the first until it is promoted."""

    def __init__(self, first: Postgres, second: Postgres) -> None:
        self.first = first
        self.second = second

    def url(self) -> str:
        """Leads to whichever of the two takes writes."""
        hosts = f"{self.first.socket_directory},{self.second.socket_directory}"
        return f"postgresql://dispatcher@/postgres?host={hosts}&port=5432,5432&target_session_attrs=primary"

    def promote(self) -> None:
        """Makes the standby the primary."""
        program = self._program("pg_ctl")
        data = self.second.moved_to or self.second.data_directory
        _run([program, "promote", "-w", "-D", str(data)])

    def return_as_standby(self) -> None:
        """Starts the old primary again, read-only."""
        data = self.first.moved_to or self.first.data_directory
        (data / "standby.signal").touch()
        _give_away(data / "standby.signal")
        self.first.restart_immediate()

    def _program(self, name: str) -> str:
        assert self.first._bin_directory is not None
        return str(self.first._bin_directory / name)


@contextmanager
def pair(hosts: tuple[Host, Host] | None = None) -> Iterator[Pair]:
    """Yields a running primary with a synchronous standby; on hosts they replicate and listen over the network."""
    replication = {"wal_level": "replica", "max_wal_senders": "4", "hot_standby": "on"}
    conninfo = {}
    if hosts is not None:
        replication |= {"listen_addresses": "*", "wal_receiver_timeout": "5s"}
        conninfo = {
            "primary_conninfo": f"host={hosts[0].address} user=dispatcher application_name=b"
        }
    folder = folder_for("standby")
    with own_cluster(data=None, **replication) as first:
        with hosts[0].entered() if hosts is not None else contextlib.nullcontext():
            first.start()
        if hosts is not None:
            _admit(first)
        second = Postgres(
            folder / "data",
            durable=False,
            settings={"synchronous_commit": "on", **replication, **conninfo},
        )
        made = Pair(first, second)
        program = made._program("pg_basebackup")
        if not Path(program).exists():
            pytest.skip(
                f"{program} is missing: npm's packages of 16 and 17 have no client programs"
            )
        try:
            _run(
                [
                    program, "-h", str(first.socket_directory),
                    "-U", "dispatcher", "-D", str(folder / "data"), "-R", "-X", "stream",
                    "-C", "-S", "b", "-c", "fast",
                ],
                PGAPPNAME="b",
                owner_of=folder,
            )  # fmt: skip
            with hosts[1].entered() if hosts is not None else contextlib.nullcontext():
                second.start()
            yield made
        finally:
            with contextlib.suppress(Exception):
                second.stop()
            shutil.rmtree(folder, ignore_errors=True)


def _admit(postgres: Postgres) -> None:
    """Let the hosts of the test's network in without a password."""
    data = postgres.moved_to or postgres.data_directory
    with (data / "pg_hba.conf").open("a") as file:
        file.write(f"host all,replication all {NETWORK}.0/24 trust\n")
    assert postgres.process_id is not None
    os.kill(postgres.process_id, signal.SIGHUP)


def _run(command: list[str], *, owner_of: Path | None = None, **environ: str) -> None:
    if owner_of is not None:
        _give_away(owner_of)
    subprocess.run(
        command,
        cwd="/",
        env={"PATH": os.environ["PATH"], "LC_ALL": "C", **environ},
        check=True,
        capture_output=True,
        timeout=60,
        user=server_user() if IS_ROOT else None,
    )


def _give_away(path: Path) -> None:
    if IS_ROOT:
        os.chown(path, server_user(), server_user())


# --- pgbouncer ---


def socket_of(url: str) -> tuple[str, str]:
    """Returns the folder of the server's socket and the database's name."""
    parts = urlsplit(url)
    return parse_qs(parts.query)["host"][0], parts.path.lstrip("/")


@contextmanager
def pgbouncer(url: str) -> Iterator[str]:
    """Yields the URL of a transaction pooler before the database; skips where there is none."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    folder = folder_for("pooler")
    host, name = socket_of(url)
    port = free_port()
    (folder / "pgbouncer.ini").write_text(
        f"""[databases]
{name} = host={host} port=5432 dbname={name} user=dispatcher
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 6
max_client_conn = 100
ignore_startup_parameters = extra_float_digits
"""
    )
    (folder / "pgbouncer.ini").chmod(0o644)
    child = subprocess.Popen(
        [program, "-q", str(folder / "pgbouncer.ini")],
        user=server_user() if IS_ROOT else None,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"postgresql://dispatcher@127.0.0.1:{port}/{name}"
    finally:
        child.kill()
        child.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


# --- a small disk ---


@contextmanager
def small_disk(mebibytes: int) -> Iterator[Path]:
    """Yields a folder on a tmpfs of that size; skips where it cannot be mounted."""
    if not IS_ROOT:
        pytest.skip("mounting a tmpfs needs root")
    folder = folder_for("disk")
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0711", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["/bin/umount", "-l", str(folder)], check=False)
        folder.rmdir()


def fill(folder: Path, *, leave_bytes: int = 0) -> Path:
    """Takes all that is free, but for `leave_bytes`; returns the ballast, to be deleted."""
    ballast = folder / "ballast"
    found = os.statvfs(folder)
    with ballast.open("wb") as file:
        free = found.f_bavail * found.f_frsize - leave_bytes
        piece = b"\0" * 65_536
        with contextlib.suppress(OSError):
            while free > 0:
                file.write(piece[: min(len(piece), free)])
                free -= len(piece)
            file.flush()
    return ballast
