"""The LISTEN connection: receives commits' notifications, and lets producers know whether a dispatcher sleeps.

It is a connection of its own, never in a transaction, opened again with backoff whenever it fails.
Every few seconds a round trip through NOTIFY proves that it hears: a half-open connection is found
out and thrown away. A pooler that takes LISTEN and delivers nothing is told by the server process,
which is not the one that greeted us. A dispatcher that sleeps
sets the sequence `asleep_until` some seconds ahead, and again with each proof; producers' trigger reads
it and stays silent when that time has passed. It is a hint like NOTIFY itself: when this connection
dies, the time runs out, producers fall silent, and polling finds what they commit. Only the owner of
the schema can set it. The advisory lock that served before could be taken by any role that may connect.
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
from dispatcher.store.session import pin_session
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Connection, Record

_log = structlog.get_logger("dispatcher.store.listener")

_SLEEP = statement("producer_asleep_set")
_WAKE = statement("producer_asleep_clear")
_PROVE = statement("listener_prove")

CHANNEL_EVENTS = "dispatcher_outbox"
CHANNEL_CONTROL = "dispatcher_control"
CHANNEL_ARRIVED = "dispatcher_arrived"

PROVE_SECONDS = 4.0
ANSWER_SECONDS_MAX = 2.0
ASLEEP_SECONDS = 15.0
"""How far ahead `asleep_until` is set: three missed proofs."""
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
_REFUSALS = (
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.UndefinedTableError,
)
"""The connection is good, and the sequence out of reach for now."""


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
        """Producers know that we sleep: commits announce themselves."""
        self._is_refused = False
        self.is_up = False
        """Proven alive by its last round trip."""

    def stop(self) -> None:
        """End `run`."""
        self._stopping.set()

    async def run(self) -> None:
        """Listen, and connects again whenever that fails, until stopped."""
        backoff = Backoff(0.1, BACKOFF_SECONDS_MAX)
        while not self._stopping.is_set():
            try:
                await self._listen()
                backoff.reset()
            except _FAULTS as error:
                _log.warning("listener.disconnected", error=str(error) or type(error).__name__)
            finally:
                self._drop()
            await backoff.pause(self._stopping)

    async def _listen(self) -> None:
        """Listen on one connection until it fails a proof."""
        self._connection = connection = await self._connector.connect(
            seconds=CONNECT_SECONDS_MAX,
            purpose="listen",
            command_timeout=ANSWER_SECONDS_MAX,
            statement_cache_size=0,
        )
        if not await pin_session(connection):
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
                if self.is_asleep:
                    self.is_asleep = await self._announce(connection, _SLEEP, ASLEEP_SECONDS)
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                await self._proof.wait()
            if not self.is_up:
                self.is_up = True
                _log.info("listener.connected")
                probe.hit("listener.connected")
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
        """Make producers announce their commits; return whether they may not have done so until now."""
        return not self.is_asleep and await self._set_asleep(_SLEEP, ASLEEP_SECONDS, asleep=True)

    async def wake(self) -> None:
        """Let producers commit in silence."""
        if self.is_asleep:
            await self._set_asleep(_WAKE, asleep=False)

    async def _set_asleep(self, sql: str, *parameters: float, asleep: bool) -> bool:
        connection = self._connection
        if connection is None or not self.is_up:
            return False
        try:
            async with self._lock:
                if not await self._announce(connection, sql, *parameters):
                    return False
        except _FAULTS:
            connection.terminate()
            return False
        self.is_asleep = asleep
        return True

    async def _announce(
        self, connection: "Connection[Record]", sql: str, *parameters: float
    ) -> bool:
        """Set `asleep_until`; return False where the server refuses it: then polling finds every event."""
        try:
            await connection.fetchval(sql, *parameters)
        except _REFUSALS as error:
            if not self._is_refused:
                _log.warning("listener.announcement_failed", error=str(error))
            self._is_refused = True
            return False
        self._is_refused = False
        return True
