"""Sends requests over kept-alive connections: idle lists, probing, fresh tries, and every deadline.

What it is. `Connections.send` starts one attempt and returns at once; `done` is called later, from
a callback of the loop. An idle connection of the target is probed and written to on the spot; only
when there is none does a task open one. All deadlines are kept by one sweep every 50 ms over the
attempts in flight, because a timer per attempt costs more than its parsing.

What is always true.

* `done` is called exactly once for an attempt, never inside `send`, and never after `cancel`: a
  cancelled attempt is not an attempt. It must not raise.
* One deadline, the endpoint's own timeout, covers look-up, connect, TLS, writing, waiting and
  reading, and is met within 0.2 s. Nothing extends it, a fresh try included.
* An idle list belongs to one target. A connection is kept only after a flawless exchange, and used
  again only when it is young, not idle for long and the probe finds nothing to read on it.
* What ends, for whatever reason, is aborted; `aclose` returns when every connection is gone.

When things go wrong. A reused connection that dies before the first byte of an answer is given one
fresh connection in the same attempt: the receiver closed it while idle, which no probe can exclude
(R11). A receiver that does so again and again has keep-alive switched off for a while. A receiver
that speaks before it is asked loses that connection, once. Running out of descriptors, ports or
buffers is ours to bear: `done` gets `NotAttempted`, and nothing is spent (F7). Near the limit of
descriptors an idle connection makes room for each new one.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from ssl import SSLContext
from typing import Any, Final, NamedTuple

from dispatcher.core.model import Answer, Outcome, Phases
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

# A deadline is met within this and one turn of the loop.
_SWEEP_SECONDS: Final = 0.05
_IDLE_SWEEP_SECONDS: Final = 1.0
# Below the shortest idle time that common servers keep (nginx 75 s, Node 5 s).
IDLE_SECONDS_MAX: Final = 4.0
# A name that moved is followed within this, however busy the connection is.
AGE_SECONDS_MAX: Final = 300.0
# This many stale connections in a row, and the target's keep-alive is off for a minute.
_STALE_COUNT_MAX: Final = 3
KEEP_ALIVE_OFF_SECONDS: Final = 60.0


class NotAttempted(NamedTuple):
    """Nothing was sent, and the receiver has no part in it; the attempt is not counted."""

    reason: str
    """For people: what this machine lacks."""


class Target:
    """One endpoint's way out and its idle connections; compared by identity.

    A changed URL or policy is a new target; the old one is given to `Connections.drop`.
    """

    __slots__ = ("address", "idle", "keep_alive_off_until", "label", "stale_count")

    def __init__(
        self,
        scheme: str,
        host: str,
        port: int,
        *,
        tls: SSLContext | TlsTrust | None = None,
        server_hostname: str | None = None,
        label: str = "",
    ) -> None:
        """`host` and `port` as in the canonical URL; `tls` goes with the scheme `https`."""
        if (scheme == "https") != (tls is not None):
            raise ValueError("https needs a TLS context, and nothing else takes one")
        self.address = Address(host=host, port=port, tls=tls, server_hostname=server_hostname)
        self.label = label
        # Only Connections writes these three.
        self.idle: list[Connection] = []
        self.stale_count = 0
        self.keep_alive_off_until = 0.0

    def __repr__(self) -> str:
        return f"Target({self.label or self.address.host})"


class Exchange:
    """The handle of one attempt under way; made by `Connections.send`."""

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
    )

    def __init__(
        self,
        pool: "Connections",
        target: Target,
        head: bytes,
        body: bytes,
        started_at: float,
        deadline: float,
        done: Callable[[Answer | NotAttempted], None],
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

    def cancel(self) -> None:
        """Ends the attempt without a result: `done` is not called. Harmless when it is over."""
        self._pool.forget(self)

    def answered(self, answer: Answer, *, reusable: bool) -> None:
        """Called by the connection."""
        self._pool.answered(self, answer, reusable=reusable)

    def unanswered(self, answer: Answer) -> None:
        """Called by the connection."""
        self._pool.unanswered(self, answer)


class Connections:
    """Every outgoing connection of the process; one event loop's, one for its life.

    The counters are read by metrics: `opened_count`, `reused_count`, `stale_count` and
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
    ) -> None:
        """`spawn` makes the tasks that open connections; needs the running loop.

        From `open_count_max` connections on, an idle one makes room for each that is opened.
        """
        self._egress = egress
        self._spawn = spawn
        self._monotonic = monotonic
        self._idle_seconds_max = idle_seconds_max
        self._age_seconds_max = age_seconds_max
        self._open_count_max = open_count_max
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

    @property
    def in_flight_count(self) -> int:
        """Attempts that have been started and are neither done nor cancelled."""
        return len(self._in_flight)

    @property
    def open_count(self) -> int:
        """Connections that are open, idle ones included."""
        return len(self._open)

    def send(
        self,
        target: Target,
        head: bytes,
        body: bytes,
        timeout_seconds: float,
        done: Callable[[Answer | NotAttempted], None],
    ) -> Exchange:
        """Starts one attempt; `done` gets what it came to, within `timeout_seconds` + 0.2.

        `head` is the request line and headers with their blank line, ready to be written.
        """
        now = self._monotonic()
        exchange = Exchange(self, target, head, body, now, now + timeout_seconds, done)
        self._in_flight.add(exchange)
        if self._is_closed:
            self._loop.call_soon(self._conclude, exchange, NotAttempted("shutting down"))
            return exchange
        connection = self._take_idle(target, now)
        if connection is None:
            self._open_for(exchange, now)
        else:
            self.reused_count += 1
            exchange.connection = connection
            connection.begin(exchange, now)
        if not self._is_timer_fast:
            self._arm(_SWEEP_SECONDS)
        return exchange

    def drop(self, target: Target | None = None) -> None:
        """Keeps no connection of this target, or of any: idle ones go now, busy ones when done."""
        for connection, owner in tuple(self._open.items()):
            if target is None or owner is target:
                connection.is_kept = False
                if not connection.is_busy:
                    connection.abort()
                    if connection in owner.idle:
                        owner.idle.remove(connection)

    async def aclose(self) -> None:
        """Cancels every attempt, aborts every connection, and returns when they are gone."""
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

    def answered(self, exchange: Exchange, answer: Answer, *, reusable: bool) -> None:
        """An exchange is over; its connection goes back to the idle list or is gone already."""
        connection = exchange.connection
        if reusable and connection is not None and not self._is_closed:
            target = exchange.target
            if answer.reused:
                target.stale_count = 0
            if target.keep_alive_off_until <= connection.idle_since:
                target.idle.append(connection)
            else:
                connection.abort()
        self._conclude(exchange, answer)

    def unanswered(self, exchange: Exchange, answer: Answer) -> None:
        """A reused connection died unheard: one fresh try within the same deadline."""
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
            # On a fresh connection there is no second one: only a reused one can be stale.
            self._open_for(exchange, now)

    def forget(self, exchange: Exchange) -> None:
        """Cancels an attempt: its connection is aborted, its task ended, nobody is told."""
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
        """Ends the idle connection that was opened first, whoever's it is."""
        for connection, owner in self._open.items():
            if not connection.is_busy and connection.is_kept:
                # It is lost a turn of the loop later, and must not be taken for idle until then.
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
            answer = Answer(fault.outcome, error=str(fault), peer=dial.address, phases=phases)
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
        )
        opened.transport.set_protocol(connection)
        self._open[connection] = exchange.target
        self.opened_count += 1
        exchange.task = None
        if exchange not in self._in_flight or self._is_closed:
            connection.abort()
        # Over TLS the receiver's session tickets are readable by now, and prove nothing.
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
        """What came before our first byte is no answer to it: another connection, once."""
        if exchange.is_second_dial or exchange not in self._in_flight:
            self._conclude(exchange, Answer(fault.outcome, error=str(fault), peer=peer))
        else:
            exchange.is_second_dial = True
            self._open_for(exchange, self._monotonic())

    def _dial_phases(self, dial: Dial) -> Phases:
        seconds = self._monotonic() - dial.started_at
        if dial.dns_seconds is None:
            return Phases(connect=seconds)
        return Phases(dns=dial.dns_seconds, connect=seconds - dial.dns_seconds)

    # --- Ending -----------------------------------------------------------------------------------

    def _conclude(self, exchange: Exchange, result: Answer | NotAttempted) -> None:
        """Tells the result, once; whoever comes second is late."""
        if exchange in self._in_flight:
            self._in_flight.discard(exchange)
            exchange.connection = exchange.task = None
            exchange.done(result)

    def _expire(self, exchange: Exchange) -> None:
        if exchange.connection is not None:
            exchange.connection.expire(exchange.deadline - exchange.started_at)
            return
        dial, task = exchange.dial, exchange.task
        standing = "nothing was sent" if dial is None else dial.standing()
        seconds = exchange.deadline - exchange.started_at
        if task is not None:
            task.cancel()
        self._conclude(
            exchange,
            Answer(
                Outcome.TIMEOUT,
                error=f"{standing} within {seconds:.3g} s",
                peer=None if dial is None else dial.address,
                phases=Phases() if dial is None else self._dial_phases(dial),
            ),
        )

    def _lost(self, connection: Connection) -> None:
        """The connection is gone, by whoever's wish."""
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
