"""Fixtures of the tests that run the daemon as a process: receiver, producer, daemons, and the verdict.

A folder's conftest imports the fixtures that its tests ask for.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import asyncpg
import orjson
import pytest

from tests.support import checker, figures, ledger
from tests.support.checker import Report, Subscriber
from tests.support.daemon import Daemon, Producer, Receiver
from tests.support.ledger import Plan


class Bench:
    """One test's processes and its database; everything started here ends with the test."""

    def __init__(self, url: str, folder: Path, say: Callable[[str], None]) -> None:
        self.url = url
        self.folder = folder
        self._say = say
        self._processes: list[Daemon | Receiver | Producer] = []
        self._receiver: Receiver | None = None
        self._producers: list[Producer] = []
        self._started_at = time.monotonic()

    @property
    def receiver(self) -> Receiver:
        if self._receiver is None:
            self._receiver = Receiver(self.folder)
            self._processes.append(self._receiver)
        return self._receiver

    def tls_receiver(self, certificate: Path) -> Receiver:
        """Starts the receiver with a certificate, before anything else asked for it."""
        assert self._receiver is None
        self._receiver = Receiver(self.folder, certificate)
        self._processes.append(self._receiver)
        return self._receiver

    def receiver_on(self, host: str, prefix: Sequence[str]) -> Receiver:
        """Start the receiver on another host, before anything else asked for it."""
        assert self._receiver is None
        self._receiver = Receiver(self.folder, host=host, prefix=prefix)
        self._processes.append(self._receiver)
        return self._receiver

    def daemon(
        self,
        *,
        name: str = "test",
        url: str | None = None,
        prefix: Sequence[str] = (),
        arguments: Sequence[str] = (),
        process_environ: dict[str, str] | None = None,
        **environ: str,
    ) -> Daemon:
        """Starts a daemon; settings as `DELIVERY__DRAIN_SECONDS="1"`.

        `url` leads to the database by another way; `prefix` is a program that starts ours.
        """
        daemon = Daemon(
            url or self.url,
            self.folder,
            name=name,
            prefix=prefix,
            arguments=arguments,
            environ={f"DISPATCHER_{k}": v for k, v in environ.items()} | (process_environ or {}),
        )
        self._processes.append(daemon)
        return daemon

    def daemon_for_supervisor(self, socket_path: str, *, watchdog_seconds: float) -> Daemon:
        """Starts a daemon as systemd does."""
        environ = {
            "NOTIFY_SOCKET": socket_path,
            "WATCHDOG_USEC": str(int(watchdog_seconds * 1_000_000)),
        }
        daemon = Daemon(self.url, self.folder, environ=environ)
        self._processes.append(daemon)
        return daemon

    def produce(self, plan: Plan, *, prefix: Sequence[str] = ()) -> Producer:
        producer = Producer(self.folder, plan, prefix=prefix)
        self._processes.append(producer)
        self._producers.append(producer)
        return producer

    async def produced(self, plan: Plan, seconds: float = 30.0) -> None:
        """Runs a producer to its end."""
        assert await self.produce(plan).ended(seconds) == 0

    async def report(
        self,
        identity: str,
        subscribers: list[Subscriber],
        *,
        seed: int = 1,
        bounds: dict[str, int] | None = None,
        **facts: object,
    ) -> Report:
        """Joins the three logs, prints the test's line, and fails on any figure that is over its bound."""
        connection = await asyncpg.connect(self.url)
        try:
            intents = [i for producer in self._producers for i in ledger.read(producer.ledger)]
            intents, unknown = await ledger.settle(intents, connection)
            deliveries, attempts = await checker.read_postgres(connection)
        finally:
            await connection.close()
        seen, answered = checker.read_receiver(self.receiver.record)
        report = checker.check(intents, subscribers, seen, answered, deliveries, attempts)
        bounds = bounds or {}
        problems = report.problems(**bounds)
        line = {
            "id": identity,
            "seed": seed,
            "seconds": round(time.monotonic() - self._started_at, 2),
            "pairs": report.pairs,
            "unknown": unknown,
            **{
                name: {"is": count, "bound": bounds.get(name, 0)}
                for name, count in report.figures().items()
            },
            **facts,
            "verdict": "failed" if problems else "held",
        }
        self._say(orjson.dumps(line).decode())
        assert not problems, problems
        return report

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.stop()


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes a line that the run prints at its end, whichever worker the test ran in."""

    def keep(line: str) -> None:
        request.node.user_properties.append((figures.PROPERTY, line))

    return keep


@pytest.fixture
def bench(database: str, tmp_path: Path, say: Callable[[str], None]) -> Iterator[Bench]:
    made = Bench(database, tmp_path, say)
    yield made
    made.stop()


@pytest.fixture
async def sql(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the test's own."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
def make_bench(tmp_path: Path, say: Callable[[str], None]) -> Iterator[Callable[[str], Bench]]:
    """Makes benches on databases of the test's own."""
    made = []

    def make(url: str) -> Bench:
        made.append(Bench(url, tmp_path, say))
        return made[-1]

    yield make
    for one in made:
        one.stop()
