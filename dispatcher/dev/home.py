"""The state folder of `dispatcher dev`: data, keys, certificates, and its addresses.

A running `dev` holds a lock on `dev.lock`; `dev.json` (for people and tools) and
`environment.json` (for the other commands: database, keys, egress settings) are valid only while that
lock is held, so the files of a killed `dev` are never used. Files with secrets have mode 0600. Other
users can traverse the folder, because Postgres may run as another user.
"""

import base64
import fcntl
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

import orjson

from dispatcher.config.shipped import shipped_config_directory
from dispatcher.core.errors import DispatcherError

_FILE_BYTES_MAX: Final = 65_536
_LOCK_TRIES: Final = 5
_LOCK_SECONDS: Final = 0.05


class AlreadyRunningError(DispatcherError):
    """Another `dispatcher dev` is using this home."""


def home_directory(environ: Mapping[str, str]) -> Path:
    """Return `DISPATCHER_HOME`, else `.dispatcher` in the checkout, else in the current folder."""
    given = environ.get("DISPATCHER_HOME", "")
    if given:
        return Path(given).absolute()
    checkout = shipped_config_directory().parent
    if (checkout / "pyproject.toml").is_file() and os.access(checkout, os.W_OK):
        return checkout / ".dispatcher"
    return Path.cwd() / ".dispatcher"


def running_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a running `dispatcher dev`; empty if none is running."""
    directory = home_directory(environ)
    if not _is_locked(directory / "dev.lock"):
        return {}
    try:
        found = orjson.loads((directory / "environment.json").read_bytes()[:_FILE_BYTES_MAX])
    except (OSError, orjson.JSONDecodeError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(name): str(value) for name, value in found.items()}


def _is_locked(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


class Home:
    """The folder of this process's `dev`; created on entry."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Create the folder and lock it.

        Raises:
            AlreadyRunningError: another one has it.
            DispatcherError: the folder cannot be made.
        """
        try:
            self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            self._lock = os.open(self.directory / "dev.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise DispatcherError(
                f"{self.directory} cannot be made: {error.strerror}; set DISPATCHER_HOME to a folder of yours"
            ) from error
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(
                    _LOCK_SECONDS
                )  # Perhaps only a command that checks whether a `dev` is running.
            else:
                return self
        os.close(self._lock)
        self._lock = None
        raise AlreadyRunningError(
            f"another `dispatcher dev` runs in {self.directory}; end it, or set DISPATCHER_HOME"
        )

    def __exit__(self, *_: object) -> None:
        for name in ("dev.json", "environment.json"):
            (self.directory / name).unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def path(self, name: str) -> Path:
        """Return the path of a file in the home."""
        return self.directory / name

    def write(self, name: str, text: str) -> Path:
        """Write a file atomically, readable only by its owner."""
        path, partial = self.directory / name, self.directory / f".{name}.partial"
        partial.unlink(missing_ok=True)
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        partial.replace(path)
        return path

    def write_json(self, name: str, value: Mapping[str, object]) -> Path:
        """Write an object as indented JSON."""
        return self.write(name, orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")

    def kept(self, name: str, made: str) -> str:
        """Return the text of a persistent file, created with `made` if it is missing."""
        path = self.directory / name
        if not path.is_file():
            self.write(name, made + "\n")
        return path.read_text(encoding="utf-8").strip()

    def secret_keys(self) -> str:
        """Return the keys that encrypt secrets, in the setting's form."""
        return self.kept("secret-keys", "dev:" + base64.b64encode(secrets.token_bytes(32)).decode())

    def admin_token(self) -> str:
        """Return the token of the console and the API."""
        return self.kept("admin-token", secrets.token_urlsafe(32))
