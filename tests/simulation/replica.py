"""A replica in the simulation: the real pipeline on a loop of its own, with simulated ways out of it.

The store, the LISTEN connection and the sockets are replaced; stages, routing table and wiring are the
product's. `SimulatedReplica` stands in for what `app.py` does around a pipeline.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from dispatcher.core.addresses import DEFAULT_PORTS
from dispatcher.core.errors import StoreUnavailableError
from dispatcher.core.model import EndpointId, HttpResponse
from dispatcher.core.url import CanonicalUrl
from dispatcher.delivery.pipeline import Pipeline
from dispatcher.delivery.ports import EventSignal
from dispatcher.delivery.shards import Replica
from dispatcher.delivery.types import Delivery
from dispatcher.outbound.pool import NotAttempted, Target
from dispatcher.runtime.tasks import TaskSet
from tests.simulation.database import Transaction
from tests.simulation.loop import VirtualLoop
from tests.simulation.setting import EPOCH, KEYRING, METRICS, PROFILES, SETTINGS

if TYPE_CHECKING:
    from tests.simulation.world import World

Value = TypeVar("Value")

DRAIN_SECONDS = 1.0


class Sent(NamedTuple):
    """A request that left a replica."""

    number: int
    replica: "SimulatedReplica"
    endpoint_id: EndpointId
    delivery: Delivery
    attempt_number: int


class SimulatedReplica:
    """One process: its loop, its pipeline, and its way to the database."""

    def __init__(self, world: "World", name: str, incarnation: str) -> None:
        self.world = world
        self.name = name
        self.incarnation = incarnation
        self.loop = VirtualLoop(lambda: world.now)
        self.frozen_until = 0.0
        self.is_dead = False
        self.is_suspect = False
        """It was frozen, cut off or told to stop: what it had in flight may be lost with reason."""
        self.pipeline: Pipeline | None = None
        self.listener: SimulatedListener | None = None
        self.tables = world.tables
        self.in_flight: dict[int, Exchange] = {}
        self.failure: BaseException | None = None

    # --- the daemon's life, as app.py lives it ---

    def start(self) -> None:
        """Makes the pipeline on its own loop."""
        self.loop.call_soon(self._boot)

    def _boot(self) -> None:
        self.tasks = TaskSet("dispatcher")
        http_client = SimpleNamespace(
            connections=SimulatedConnections(self),
            make_target=self._target,
            drop_target=lambda _: None,
            policy=SimpleNamespace(allow_ports=DEFAULT_PORTS),
            descriptors=SimpleNamespace(sockets_max=10_000),
        )
        self.pipeline = Pipeline(
            SETTINGS,
            cast("Any", self),
            cast("Any", http_client),
            listen_url=cast("Any", self),
            profiles=PROFILES,
            event_types=frozenset(),
            keyring=KEYRING,
            metrics=METRICS,
            clock=self,
            replica=Replica(self.name, self.incarnation, "simulated"),
        )
        self.pipeline.start(self.tasks)
        self.tasks.spawn("failure", self._watch())

    async def _watch(self) -> None:
        try:
            await self.tasks.failure()
        except Exception as error:  # noqa: BLE001 -- the finding: a stage died
            self.failure = error

    def drain(self) -> None:
        """Begins what SIGTERM begins; the process ends when it is done."""
        assert self.pipeline is not None
        self.is_suspect = True
        task = self.tasks.spawn("drain", self.pipeline.drain(DRAIN_SECONDS))
        task.add_done_callback(lambda _: self.world.after(0.0, partial(self.world.expire, self)))

    @staticmethod
    def _target(
        url: CanonicalUrl, ca_pem: str | None, label: str, credentials: object = None
    ) -> Target:
        del ca_pem, credentials
        return Target(url.scheme, url.host, url.port, label=label)

    # --- its clock ---

    def monotonic(self) -> float:
        return self.world.now

    def now(self) -> datetime:
        return datetime.fromtimestamp(EPOCH + self.world.now, UTC)

    # --- its way to the database ---

    async def ask(self, statement: Callable[[], Value]) -> Value:
        future: asyncio.Future[Value] = self.loop.create_future()
        self.world.statement(self, statement, future)
        return await future

    def begin(self) -> Transaction:
        transaction = Transaction(owner=self)
        self.world.transactions.append(transaction)
        return transaction

    def abandon(self, transaction: Transaction) -> None:
        self.world.after(self.world.distance(), lambda: self.world.tables.end(transaction))


class SimulatedListener(EventSignal):
    """The LISTEN connection: hears commits while it is up and somebody asked for them."""

    def __init__(
        self,
        reach: SimulatedReplica,
        control: Callable[[], None],
        arrived: Callable[[], None],
    ) -> None:
        self._replica = reach
        self.control = control
        self.arrived = arrived
        self.woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self.is_asleep = False
        self.is_up = True

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        self.woken.set()
        await self._stopping.wait()

    async def sleep(self) -> bool:
        if self.is_asleep or not self.is_up:
            return False
        return await self._lock(taken=True)

    async def wake(self) -> None:
        if self.is_asleep:
            await self._lock(taken=False)

    async def _lock(self, *, taken: bool) -> bool:
        tables = self._replica.tables

        def statement() -> bool:
            if taken and tables.asleep is None:
                tables.asleep = self
                return True
            if not taken and tables.asleep is self:
                tables.asleep = None
                return True
            return False

        try:
            changed = await self._replica.ask(statement)
        except StoreUnavailableError:
            self.is_asleep = False
            return False
        if changed:
            self.is_asleep = taken
        return changed


class Exchange:
    """One attempt at a receiver."""

    def __init__(self, sent: Sent, done: Callable[[HttpResponse | NotAttempted], None]) -> None:
        self.sent = sent
        self.done: Callable[[HttpResponse | NotAttempted], None] | None = done
        self.timer: asyncio.TimerHandle | None = None

    def finish(self, result: HttpResponse | NotAttempted) -> None:
        """Tells the sender, once."""
        done, self.done = self.done, None
        if self.timer is not None:
            self.timer.cancel()
        self.sent.replica.in_flight.pop(self.sent.number, None)
        if done is not None:
            done(result)

    def cancel(self) -> None:
        self.done = None
        self.finish(NotAttempted("cancelled"))


class SimulatedConnections:
    """Sends through the world instead of a socket."""

    def __init__(self, replica: SimulatedReplica) -> None:
        self._replica = replica

    def send(
        self,
        target: Target,
        head: bytes,
        body: bytes,
        timeout_seconds: float,
        done: Callable[[HttpResponse | NotAttempted], None],
    ) -> Exchange:
        del head
        delivery = cast("partial[None]", done).args[1]
        return self._replica.world.request(
            self._replica, EndpointId(target.label), delivery, body, timeout_seconds, done
        )


def make_listener(
    replica: SimulatedReplica,
    *,
    control: Callable[[], None],
    arrived: Callable[[], None],
    name: str,
) -> SimulatedListener:
    """Takes the place of the class that the pipeline calls."""
    del name
    replica.listener = SimulatedListener(replica, control, arrived)
    return replica.listener
