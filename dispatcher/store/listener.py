"""The LISTEN connection: hears commits, and tells producers whether anybody sleeps.

It is a connection of its own, never in a transaction, opened again with backoff whenever it fails.
Every few seconds a round trip through NOTIFY proves that it hears: a half-open connection is found
out and thrown away. A pooler that takes LISTEN and delivers nothing is told by the server process,
which is not the one that greeted us. Whoever sleeps holds
the "asleep" advisory lock here, exclusively and for the session; producers' trigger asks for it,
shared, and stays silent where it gets it. The lock is a hint like NOTIFY itself: when this
connection dies, the lock goes with it, producers fall silent, and polling finds what they commit.
"""

import asyncio
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import asyncpg
import structlog

from dispatcher.config.database_url import UrlSource
from dispatcher.runtime import probe
from dispatcher.runtime.backoff import Backoff
from dispatcher.store.connector import Connector
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Connection, Record

_log = structlog.get_logger("dispatcher.store.listener")

_SLEEP = statement("asleep_lock")
_WAKE = statement("asleep_unlock")
_PROVE = statement("listener_prove")
_BACKEND = statement("backend_pid")

CHANNEL_EVENTS = "dispatcher_outbox"
CHANNEL_CONTROL = "dispatcher_control"
CHANNEL_ARRIVED = "dispatcher_arrived"

PROVE_SECONDS = 4.0
ANSWER_SECONDS_MAX = 2.0
CONNECT_SECONDS_MAX = 5.0
BACKOFF_SECONDS_MAX = 5.0

_FAULTS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # What asyncpg raises of itself where a connection is ended between two steps of an operation.
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


class Listener:
    """Sets `woken` when events were announced; works on without a connection, where nothing is ever heard."""

    def __init__(
        self,
        url: str | UrlSource,
        *,
        control: Callable[[str], None],
        arrived: Callable[[], None],
        name: str,
    ) -> None:
        """`control` gets what changed; `arrived` hears that another replica made deliveries of ours."""
        self._connector = Connector(url)
        self._control = control
        self._arrived = arrived
        self._name = name
        # Postgres refuses to notify a channel of more than 63 bytes; names and incarnations may be longer.
        self._proof_channel = f"dispatcher_proof_{hashlib.sha256(name.encode()).hexdigest()[:32]}"
        self._connection: Connection[Record] | None = None
        self._proof = asyncio.Event()
        self._stopping = asyncio.Event()
        self._lock = asyncio.Lock()
        self.woken = asyncio.Event()
        self.is_asleep = False
        """The lock is ours: commits announce themselves."""
        self.is_up = False
        """Proven alive by its last round trip."""

    def stop(self) -> None:
        """Ends `run`."""
        self._stopping.set()

    async def run(self) -> None:
        """Listens, and connects again whenever that fails, until stopped."""
        backoff = Backoff(0.1, BACKOFF_SECONDS_MAX)
        while not self._stopping.is_set():
            try:
                await self._listen()
                backoff.reset()
            except _FAULTS as error:
                _log.warning("listener.down", error=str(error) or type(error).__name__)
            finally:
                self._drop()
            await backoff.pause(self._stopping)

    async def _listen(self) -> None:
        """Listens on one connection until it fails a proof."""
        self._connection = connection = await self._connector.connect(
            seconds=CONNECT_SECONDS_MAX,
            purpose="listen",
            command_timeout=ANSWER_SECONDS_MAX,
            statement_cache_size=0,
        )
        if await connection.fetchval(_BACKEND) != connection.get_server_pid():
            # It may even pass the proof below, while the pooler happens to hand out the same server
            # connection, and yet never hear of anybody else's commit.
            raise ConnectionError(
                "a pooler stands before Postgres: LISTEN needs a direct connection, set DISPATCHER_LISTEN_DATABASE_URL"
            )
        await connection.add_listener(CHANNEL_EVENTS, self._heard_event)
        await connection.add_listener(CHANNEL_CONTROL, self._heard_control)
        await connection.add_listener(CHANNEL_ARRIVED, self._heard_arrived)
        await connection.add_listener(self._proof_channel, self._heard_proof)
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        self.woken.set()  # what was committed before LISTEN was heard by nobody
        while not self._stopping.is_set() and not lost.is_set():
            self._proof.clear()
            async with self._lock:
                await connection.execute(_PROVE, self._proof_channel)
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                await self._proof.wait()
            if not self.is_up:
                self.is_up = True
                _log.info("listener.up")
                probe.hit("listener.up")
            stop, end = (
                asyncio.ensure_future(self._stopping.wait()),
                asyncio.ensure_future(lost.wait()),
            )
            try:
                await asyncio.wait(
                    {stop, end}, timeout=PROVE_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                stop.cancel()
                end.cancel()
        if lost.is_set():
            raise ConnectionError("the connection ended")

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self.is_up = self.is_asleep = False
        if connection is not None:
            connection.terminate()

    def _heard_event(self, *_: object) -> None:
        self.woken.set()

    def _heard_control(self, *heard: object) -> None:
        self._control(str(heard[-1]))  # the payload

    def _heard_arrived(self, *heard: object) -> None:
        if heard[-1] != self._name:
            self._arrived()

    def _heard_proof(self, *_: object) -> None:
        self._proof.set()

    async def sleep(self) -> bool:
        """Takes the lock that makes producers announce their commits; tells whether they did not until now."""
        return not self.is_asleep and await self._ask(_SLEEP, asleep=True)

    async def wake(self) -> None:
        """Lets go of the lock, so that producers commit in silence."""
        if self.is_asleep:
            await self._ask(_WAKE, asleep=False)

    async def _ask(self, sql: str, *, asleep: bool) -> bool:
        connection = self._connection
        if connection is None or not self.is_up:
            return False
        try:
            async with self._lock:
                if not await connection.fetchval(sql):
                    return (
                        False  # another replica sleeps, or a producer is asking at this very moment
                    )
        except _FAULTS:
            connection.terminate()
            return False
        self.is_asleep = asleep
        return True
