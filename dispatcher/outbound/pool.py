"""Send requests over kept-alive connections: idle lists, probing, second tries, and all deadlines.

What it is. `Connections.send` starts one attempt and returns at once; `done` is called later, from
a callback of the loop. An idle connection of the target is probed and written to immediately; only
if there is none, a task opens one. One sweep every 50 ms over the attempts in flight enforces all
deadlines, because a timer per attempt costs more than parsing its response.

Invariants.

* `done` is called exactly once for an attempt, never inside `send`, and never after `cancel`: a
  cancelled attempt does not count. It must not raise.
* One deadline, the endpoint's own timeout, covers look-up, connect, TLS, writing, waiting and
  reading, and is met within 0.2 s. Nothing extends it, not even a second try.
* An idle list belongs to one target. A connection is kept only after a flawless exchange, and reused
  only if it is young, has not been idle for long, and the probe finds nothing to read.
* Connections are always aborted, never closed gracefully. `aclose` returns when all are gone.

Failures. If a reused connection dies before the first byte of a response, the attempt gets one
new connection: the receiver closed the old one while it was idle, which no probe can exclude
(R11). If a receiver does so repeatedly, keep-alive is switched off for a while. If a receiver
sends bytes before the request, the attempt gets another connection, once. If descriptors, ports or
buffers run out, `done` gets `NotAttempted`, and no attempt is charged (F7). Near the descriptor
limit, an idle connection is closed for each new one.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from ssl import SSLContext
from typing import Any, Final, NamedTuple

from dispatcher.core.model import HttpResponse, Outcome, Phases
from dispatcher.outbound.access_tokens import AccessTokens
from dispatcher.outbound.connection import Connection
from dispatcher.outbound.dialer import (
    HUNG_UP_EARLY,
    SPOKE_EARLY,
    Address,
    ConnectFailedError,
    Dial,
    Egress,
    LocalResourceError,
    TooEarlyError,
)
from dispatcher.outbound.tls import TlsTrust

# A deadline is met within this time and one iteration of the loop.
_SWEEP_SECONDS: Final = 0.05
_IDLE_SWEEP_SECONDS: Final = 1.0
# Below the shortest idle time that common servers keep (nginx 75 s, Node 5 s).
IDLE_SECONDS_MAX: Final = 4.0
# A changed DNS record is followed within this time, however busy the connection is.
AGE_SECONDS_MAX: Final = 300.0
# After this many stale connections in a row, the target's keep-alive is off for a minute.
_STALE_COUNT_MAX: Final = 3
KEEP_ALIVE_OFF_SECONDS: Final = 60.0


class NotAttempted(NamedTuple):
    """Nothing was sent for a local reason; the attempt does not count."""

    reason: str
    """The missing local resource, human-readable."""


class Target:
    """The address of one endpoint and its idle connections; compared by identity.

    A changed URL or policy needs a new target; pass the old one to `Connections.drop`.
    """

    __slots__ = ("access", "address", "idle", "keep_alive_off_until", "label", "stale_count")

    def __init__(
        self,
        scheme: str,
        host: str,
        port: int,
        *,
        tls: SSLContext | TlsTrust | None = None,
        server_hostname: str | None = None,
        label: str = "",
        access: AccessTokens | None = None,
    ) -> None:
        """Take `host` and `port` of the canonical URL; `tls` is required for `https` only.

        With `access` each request carries an access token, which is fetched within the attempt's deadline.
        """
        if (scheme == "https") != (tls is not None):
            raise ValueError("https needs a TLS context, and nothing else takes one")
        self.address = Address(host=host, port=port, tls=tls, server_hostname=server_hostname)
        self.label = label
        self.access = access
        # Only Connections writes these three.
        self.idle: list[Connection] = []
        self.stale_count = 0
        self.keep_alive_off_until = 0.0

    def __repr__(self) -> str:
        return f"Target({self.label or self.address.host})"


class Exchange:
    """The handle of one running attempt; created by `Connections.send`."""

    __slots__ = (
        "_pool",
        "body",
        "connection",
        "deadline",
        "dial",
        "done",
        "head",
        "is_second_dial",
        "started_at",
        "target",
        "task",
        "token",
    )

    def __init__(
        self,
        pool: "Connections",
        target: Target,
        head: bytes,
        body: bytes,
        started_at: float,
        deadline: float,
        done: Callable[[HttpResponse | NotAttempted], None],
    ) -> None:
        self._pool = pool
        self.target = target
        self.head = head
        self.body = body
        self.started_at = started_at
        self.deadline = deadline
        self.done = done
        self.connection: Connection | None = None
        self.dial: Dial | None = None
        self.task: asyncio.Task[Any] | None = None
        self.is_second_dial = False
        self.token: str | None = None

    def cancel(self) -> None:
        """End the attempt without calling `done`; has no effect once it is over."""
        self._pool.forget(self)

    def answered(self, answer: HttpResponse, *, reusable: bool) -> None:
        """Forward the response from the connection to the pool."""
        self._pool.answered(self, answer, reusable=reusable)

    def unanswered(self, answer: HttpResponse) -> None:
        """Forward the loss of a reused connection to the pool."""
        self._pool.unanswered(self, answer)


class Connections:
    """All outgoing connections of the process, on one event loop.

    Metrics read the counters: `opened_count`, `reused_count`, `stale_count` and
    `blocked_counts` (by the address policy's rule).
    """

    def __init__(
        self,
        egress: Egress,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[Any]],
        monotonic: Callable[[], float] = time.monotonic,
        idle_seconds_max: float = IDLE_SECONDS_MAX,
        age_seconds_max: float = AGE_SECONDS_MAX,
        open_count_max: int | None = None,
        keeps_successes: bool = False,
    ) -> None:
        """Use `spawn` for the tasks that open connections; needs the running loop.

        From `open_count_max` connections on, an idle one is closed for each new one. With
        `keeps_successes`, the responses of successes are kept as those of failures are.
        """
        self._egress = egress
        self._spawn = spawn
        self._monotonic = monotonic
        self._idle_seconds_max = idle_seconds_max
        self._age_seconds_max = age_seconds_max
        self._open_count_max = open_count_max
        self._keeps_successes = keeps_successes
        self._loop = asyncio.get_running_loop()
        self._in_flight: set[Exchange] = set()
        self._open: dict[Connection, Target] = {}
        self._opening: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_timer_fast = False
        self._is_closed = False
        self._all_gone = asyncio.Event()
        self.opened_count = 0
        self.reused_count = 0
        self.stale_count = 0
        self.blocked_counts: Counter[str] = Counter()

    def send(
        self,
        target: Target,
        head: bytes,
        body: bytes,
        timeout_seconds: float,
        done: Callable[[HttpResponse | NotAttempted], None],
    ) -> Exchange:
        """Start one attempt; `done` gets its result within `timeout_seconds` + 0.2.

        `head` is the request line and headers with their blank line, ready to be written.
        """
        now = self._monotonic()
        exchange = Exchange(self, target, head, body, now, now + timeout_seconds, done)
        self._in_flight.add(exchange)
        if self._is_closed:
            self._loop.call_soon(self._conclude, exchange, NotAttempted("shutting down"))
            return exchange
        if target.access is not None and not self._authorize(exchange, target.access):
            task = exchange.task = self._spawn(self._fetch_and_begin(exchange, target.access))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        else:
            self._begin(exchange, now)
        if not self._is_timer_fast:
            self._arm(_SWEEP_SECONDS)
        return exchange

    def _begin(self, exchange: Exchange, now: float) -> None:
        connection = self._take_idle(exchange.target, now)
        if connection is None:
            self._open_for(exchange, now)
        else:
            self.reused_count += 1
            exchange.connection = connection
            connection.begin(exchange, now)

    @staticmethod
    def _authorize(exchange: Exchange, access: AccessTokens) -> bool:
        """Add the access token to a head; return whether there is one."""
        token = access.current()
        if token is None:
            return False
        exchange.token = token
        exchange.head = exchange.head[:-2] + f"Authorization: Bearer {token}\r\n\r\n".encode()
        return True

    async def _fetch_and_begin(self, exchange: Exchange, access: AccessTokens) -> None:
        result = await access.fetch()
        if exchange not in self._in_flight:
            return
        exchange.task = None
        if isinstance(result, str) or not self._authorize(exchange, access):
            reason = result if isinstance(result, str) else "the access token expired at once"
            error = f"no access token, nothing was sent: {reason}"
            self._conclude(exchange, HttpResponse(Outcome.CONNECT_ERROR, error=error))
        else:
            self._begin(exchange, self._monotonic())

    def drop(self, target: Target | None = None) -> None:
        """Close the connections of this target, or of all: idle ones now, busy ones when done."""
        for connection, owner in tuple(self._open.items()):
            if target is None or owner is target:
                connection.is_kept = False
                if not connection.is_busy:
                    connection.abort()
                    if connection in owner.idle:
                        owner.idle.remove(connection)

    async def aclose(self) -> None:
        """Cancel every attempt, abort every connection, and return when they are gone."""
        self._is_closed = True
        for exchange in tuple(self._in_flight):
            self.forget(exchange)
        self.drop()
        if self._timer is not None:
            self._timer.cancel()
        if self._opening:
            await asyncio.wait(self._opening)
        if self._open:
            await self._all_gone.wait()

    # --- Called by exchanges ----------------------------------------------------------------------

    def answered(self, exchange: Exchange, answer: HttpResponse, *, reusable: bool) -> None:
        """Finish an exchange; its connection returns to the idle list unless it was aborted."""
        connection = exchange.connection
        if exchange.token is not None and answer.status == HTTPStatus.UNAUTHORIZED:
            access = exchange.target.access
            if access is not None:
                access.reject(exchange.token)
        if reusable and connection is not None and not self._is_closed:
            target = exchange.target
            if answer.reused:
                target.stale_count = 0
            if target.keep_alive_off_until <= connection.idle_since:
                target.idle.append(connection)
            else:
                connection.abort()
        self._conclude(exchange, answer)

    def unanswered(self, exchange: Exchange, answer: HttpResponse) -> None:
        """Try once more on a new connection within the same deadline, because a reused one died."""
        self.stale_count += 1
        target = exchange.target
        target.stale_count += 1
        now = self._monotonic()
        if target.stale_count >= _STALE_COUNT_MAX:
            target.stale_count = 0
            target.keep_alive_off_until = now + KEEP_ALIVE_OFF_SECONDS
        if now >= exchange.deadline or self._is_closed:
            self._conclude(exchange, answer)
        else:
            # A new connection gets no further try: only a reused one can be stale.
            self._open_for(exchange, now)

    def forget(self, exchange: Exchange) -> None:
        """Cancel an attempt: abort its connection and end its task, without calling `done`."""
        if exchange not in self._in_flight:
            return
        self._in_flight.discard(exchange)
        if exchange.task is not None:
            exchange.task.cancel()
        if exchange.connection is not None:
            exchange.connection.abort()

    # --- Opening ----------------------------------------------------------------------------------

    def _take_idle(self, target: Target, now: float) -> Connection | None:
        idle = target.idle
        while idle:
            connection = idle.pop()
            if (
                now - connection.idle_since < self._idle_seconds_max
                and now - connection.opened_at < self._age_seconds_max
                and connection.is_usable()
            ):
                return connection
            connection.abort()
        return None

    def _open_for(self, exchange: Exchange, now: float) -> None:
        exchange.connection = None
        if (
            self._open_count_max is not None
            and len(self._open) + len(self._opening) >= self._open_count_max
        ):
            self._make_room()
        exchange.dial = Dial(now, is_tls=exchange.target.address.tls is not None)
        task = exchange.task = self._spawn(self._open_and_begin(exchange, exchange.dial))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def _make_room(self) -> None:
        """Close the idle connection that was opened first, of any target."""
        for connection, owner in self._open.items():
            if not connection.is_busy and connection.is_kept:
                # It is lost one iteration of the loop later, and must not count as idle until then.
                connection.is_kept = False
                connection.abort()
                if connection in owner.idle:
                    owner.idle.remove(connection)
                return

    async def _open_and_begin(self, exchange: Exchange, dial: Dial) -> None:
        try:
            opened = await self._egress.open(exchange.target.address, dial)
        except TooEarlyError as fault:
            self._try_another(exchange, fault, dial.address)
            return
        except ConnectFailedError as fault:
            if fault.rule is not None:
                self.blocked_counts[fault.rule] += 1
            phases = self._dial_phases(dial)
            answer = HttpResponse(fault.outcome, error=str(fault), peer=dial.address, phases=phases)
            self._conclude(exchange, answer)
            return
        except LocalResourceError as fault:
            self._conclude(exchange, NotAttempted(str(fault)))
            return
        phases = self._dial_phases(dial)
        connection = Connection(
            opened.transport,
            release=opened.release,
            on_lost=self._lost,
            monotonic=self._monotonic,
            dns_seconds=phases.dns,
            connect_seconds=phases.connect,
            keeps_successes=self._keeps_successes,
        )
        opened.transport.set_protocol(connection)
        self._open[connection] = exchange.target
        self.opened_count += 1
        exchange.task = None
        if exchange not in self._in_flight or self._is_closed:
            connection.abort()
        # Over TLS the receiver's session tickets may already be readable, which proves nothing.
        elif exchange.target.address.tls is None and not connection.is_usable():
            is_hung_up = connection.is_hung_up()
            connection.abort()
            outcome = Outcome.CONNECT_ERROR if is_hung_up else Outcome.PROTOCOL_ERROR
            early = TooEarlyError(outcome, HUNG_UP_EARLY if is_hung_up else SPOKE_EARLY)
            self._try_another(exchange, early, connection.peer)
        else:
            exchange.connection = connection
            connection.begin(exchange, self._monotonic())

    def _try_another(self, exchange: Exchange, fault: TooEarlyError, peer: str | None) -> None:
        """Open another connection, once: bytes before the request cannot be its response."""
        if exchange.is_second_dial or exchange not in self._in_flight:
            self._conclude(exchange, HttpResponse(fault.outcome, error=str(fault), peer=peer))
        else:
            exchange.is_second_dial = True
            self._open_for(exchange, self._monotonic())

    def _dial_phases(self, dial: Dial) -> Phases:
        seconds = self._monotonic() - dial.started_at
        if dial.dns_seconds is None:
            return Phases(connect=seconds)
        return Phases(dns=dial.dns_seconds, connect=seconds - dial.dns_seconds)

    # --- Ending -----------------------------------------------------------------------------------

    def _conclude(self, exchange: Exchange, result: HttpResponse | NotAttempted) -> None:
        """Report the first result of an exchange, and ignore later ones."""
        if exchange in self._in_flight:
            self._in_flight.discard(exchange)
            exchange.connection = exchange.task = None
            exchange.done(result)

    def _expire(self, exchange: Exchange) -> None:
        if exchange.connection is not None:
            exchange.connection.expire(exchange.deadline - exchange.started_at)
            return
        dial, task = exchange.dial, exchange.task
        standing = "no access token came" if dial is None else dial.standing()
        seconds = exchange.deadline - exchange.started_at
        if task is not None:
            task.cancel()
        self._conclude(
            exchange,
            HttpResponse(
                Outcome.TIMEOUT,
                error=f"{standing} within {seconds:.3g} s",
                peer=None if dial is None else dial.address,
                phases=Phases() if dial is None else self._dial_phases(dial),
            ),
        )

    def _lost(self, connection: Connection) -> None:
        """Remove a closed connection."""
        target = self._open.pop(connection, None)
        if target is not None and connection in target.idle:
            target.idle.remove(connection)
        if self._is_closed and not self._open:
            self._all_gone.set()

    # --- The sweep --------------------------------------------------------------------------------

    def _arm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._is_timer_fast = seconds == _SWEEP_SECONDS
        self._timer = self._loop.call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = self._monotonic()
        for exchange in [one for one in self._in_flight if one.deadline <= now]:
            # The `done` of one may have cancelled another.
            if exchange in self._in_flight:
                self._expire(exchange)
        for connection in [one for one in self._open if not one.is_busy]:
            if now - connection.idle_since >= self._idle_seconds_max:
                connection.abort()
        if self._is_closed:
            return
        if self._in_flight:
            self._arm(_SWEEP_SECONDS)
        elif self._open:
            self._arm(_IDLE_SWEEP_SECONDS)
        else:
            self._is_timer_fast = False
