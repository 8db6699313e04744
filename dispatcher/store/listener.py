"""The LISTEN connection: receives notifications of commits, and publishes whether a dispatcher sleeps.

It is a separate connection that is never in a transaction, and it is opened again with backoff whenever it
fails. Every few seconds a NOTIFY round trip proves that it receives, so that a half-open connection is
detected and closed. A pooler that accepts LISTEN and delivers nothing is detected by the server process,
which differs from the one that opened the session. A dispatcher that sleeps sets the sequence
`asleep_until` some seconds ahead, and again with each proof. The producers' trigger reads it and sends no
NOTIFY after that time. Like NOTIFY, it is a hint: if this connection fails, the time passes, producers
send no NOTIFY, and polling finds their commits. Only the owner of the schema can set the sequence. The
advisory lock that it replaced could be taken by any role that may connect.
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
RESPONSE_SECONDS_MAX = 2.0
ASLEEP_SECONDS = 15.0
"""How far ahead `asleep_until` is set: three missed proofs."""
CONNECT_SECONDS_MAX = 5.0
BACKOFF_SECONDS_MAX = 5.0

_FAULTS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # asyncpg raises this if a connection is closed between two steps of an operation.
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
_REFUSALS = (
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.UndefinedTableError,
)
"""The connection works, but the sequence cannot be set now."""


class NotifyListener:
    """Sets `woken` on a notification of events; without a connection, polling replaces the notifications."""

    def __init__(
        self,
        url: str | UrlSource,
        *,
        control: Callable[[str], None],
        arrived: Callable[[], None],
        name: str,
    ) -> None:
        """`control` is called with the kind of a change; `arrived` when another replica created deliveries of ours."""
        self._connector = Connector(url)
        self._control = control
        self._arrived = arrived
        self._name = name
        # A channel name has at most 63 bytes in Postgres; names and incarnations may be longer.
        self._proof_channel = f"dispatcher_proof_{hashlib.sha256(name.encode()).hexdigest()[:32]}"
        self._connection: Connection[Record] | None = None
        self._proof = asyncio.Event()
        self._stopping = asyncio.Event()
        self._lock = asyncio.Lock()
        self.woken = asyncio.Event()
        self.is_asleep = False
        """Whether `asleep_until` is in the future, so that commits send a NOTIFY."""
        self._is_refused = False
        self.is_up = False
        """Whether the last round trip succeeded."""

    def stop(self) -> None:
        """End `run`."""
        self._stopping.set()

    async def run(self) -> None:
        """Listen, and connect again with backoff after a failure, until stopped."""
        backoff = Backoff(0.1, BACKOFF_SECONDS_MAX)
        while not self._stopping.is_set():
            try:
                await self._listen()
                backoff.reset()
            except _FAULTS as error:
                _log.warning("listener.disconnected", error=str(error) or type(error).__name__)
            finally:
                await self._drop()
            await backoff.pause(self._stopping)

    async def _listen(self) -> None:
        """Listen on one connection until it fails, or until stopped."""
        self._connection = connection = await self._connector.connect(
            seconds=CONNECT_SECONDS_MAX,
            purpose="listen",
            command_timeout=RESPONSE_SECONDS_MAX,
            statement_cache_size=0,
        )
        if not await pin_session(connection):
            # The proof below may succeed while the pooler assigns the same server connection, although
            # no notification of another session ever arrives.
            raise ConnectionError(
                "a pooler stands before Postgres: LISTEN needs a direct connection, set DISPATCHER_LISTEN_DATABASE_URL"
            )
        await connection.add_listener(CHANNEL_EVENTS, self._heard_event)
        await connection.add_listener(CHANNEL_CONTROL, self._heard_control)
        await connection.add_listener(CHANNEL_ARRIVED, self._heard_arrived)
        await connection.add_listener(self._proof_channel, self._heard_proof)
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        self.woken.set()  # commits before LISTEN have sent no notification to this connection
        while not self._stopping.is_set() and not lost.is_set():
            self._proof.clear()
            async with self._lock:
                await connection.execute(_PROVE, self._proof_channel)
                if self.is_asleep:
                    self.is_asleep = await self._announce(connection, _SLEEP, ASLEEP_SECONDS)
            async with asyncio.timeout(RESPONSE_SECONDS_MAX):
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

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self.is_up = self.is_asleep = False
        if connection is None:
            return
        try:
            # `wake` may be between two steps of a statement, where a closed connection is no error that asyncpg knows.
            async with self._lock:
                pass
        finally:
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
        """Make producers' commits send a NOTIFY; return whether earlier commits may have sent none."""
        return not self.is_asleep and await self._set_asleep(_SLEEP, ASLEEP_SECONDS, asleep=True)

    async def wake(self) -> None:
        """Stop the NOTIFY of producers' commits."""
        if self.is_asleep:
            await self._set_asleep(_WAKE, asleep=False)

    async def _set_asleep(self, sql: str, *parameters: float, asleep: bool) -> bool:
        connection = self._connection
        if connection is None or not self.is_up:
            return False
        async with self._lock:
            try:
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
        """Set `asleep_until`; return False if the server refuses it, so that only polling finds events."""
        try:
            await connection.fetchval(sql, *parameters)
        except _REFUSALS as error:
            if not self._is_refused:
                _log.warning("listener.announcement_failed", error=str(error))
            self._is_refused = True
            return False
        self._is_refused = False
        return True
