"""Contenders of a comparison: this checkout, another one, or an old commit, each with its own database.

A contender is a checkout of this project. An old commit becomes a git worktree in a temporary folder,
where its own `run` installs the environment of its own lock. Its own `migrate` creates its schema, its
own API its endpoints, and its own test support its history. Producers insert into the outbox, whose
columns are the contract of every version. The daemons of all contenders share the Postgres server, the
receiver and the processors, but only the one that is measured runs.
"""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import orjson

from benchmarks.harness import (
    CLIENT_CPU,
    OURS,
    ROOT,
    Checkout,
    Dispatcher,
    Postgres,
    prepare_database,
)
from tests.support.long_history import Seeded

SET_UP_SECONDS_MAX = 900
_SEED = """
import asyncio, sys
import asyncpg, orjson
from tests.support.long_history import seed

async def main():
    connection = await asyncpg.connect(sys.argv[1])
    seeded = await seed(connection, int(sys.argv[2]))
    await connection.execute("VACUUM ANALYZE")
    print(orjson.dumps(seeded._asdict()).decode())

asyncio.run(main())
"""
"""Each checkout fills its own tables; `seed(connection, deliveries)` has had this signature since 8e4f6aa."""


def _git(*words: str, folder: Path = ROOT) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"`git {' '.join(words)}` failed: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def checkout(source: str) -> Iterator[Checkout]:
    """Yields the checkout of a commit, in a temporary git worktree, or the one in a folder.

    Installing takes up to some minutes. A folder keeps its environment, so use one for many runs:
    `git worktree add --detach FOLDER COMMIT`.

    Raises:
        SystemExit: there is no such commit, or its environment cannot be installed.
    """
    if Path(source).is_dir():
        folder = Path(source).resolve()
        yield _set_up(_git("rev-parse", "--short", "HEAD", folder=folder), folder)
        return
    commit = _git("rev-parse", "--short", "--verify", "--end-of-options", source + "^{commit}")
    with tempfile.TemporaryDirectory(prefix="dispatcher-bench-") as directory:
        folder = Path(directory) / commit
        _git("worktree", "add", "--detach", str(folder), commit)
        try:
            yield _set_up(commit, folder)
        finally:
            _git("worktree", "remove", "--force", str(folder))


def _set_up(name: str, folder: Path) -> Checkout:
    """Installs the environment with the checkout's own `run`, for the interpreter of this process."""
    base: str = getattr(sys, "_base_executable", None) or sys.executable
    done = subprocess.run(
        [base, str(folder / "run"), "setup"], cwd=folder, timeout=SET_UP_SECONDS_MAX, check=False
    )
    python = folder / ".venv" / "bin" / "python"
    if done.returncode or not python.exists():
        raise SystemExit(f"{folder}: `./run setup` installed no .venv")
    return Checkout(name, folder, str(python))


class Contender:
    """A checkout and its settings, with its own database; its daemon runs only while it is measured."""

    def __init__(
        self, name: str, server: Postgres, directory: Path, using: Checkout = OURS, **settings: str
    ) -> None:
        self.name = name
        self.checkout = using
        self.url = asyncio.run(prepare_database(server, name, using))
        self._directory = directory
        self._settings = settings

    @contextmanager
    def running(
        self, *, cpu: int | None = CLIENT_CPU, command: tuple[str, ...] = ()
    ) -> Iterator[Dispatcher]:
        """Starts its daemon with these options, and stops it at the end."""
        daemon = Dispatcher(
            self.url,
            self._directory,
            cpu=cpu,
            checkout=self.checkout,
            arguments=command,
            **self._settings,
        )
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()

    def seed(self, deliveries: int) -> Seeded:
        """Fills its database with a history of 30 days."""
        output = self.checkout.run("-c", _SEED, self.url, str(deliveries))
        fields = orjson.loads(output)
        fields["rare_label"] = tuple(fields["rare_label"])
        return Seeded(**fields)


@contextmanager
def checkouts(sources: Sequence[str | None]) -> Iterator[list[Checkout]]:
    """Yields this checkout, and that of each source that is given."""
    with ExitStack() as stack:
        given = [source for source in sources if source is not None]
        yield [OURS, *(stack.enter_context(checkout(source)) for source in given)]
