"""The world around the pipeline: time, the network, Postgres' outages, receivers, and who dies when.

    world's agenda (a heap of moments) ──▶ arrives at the database ──▶ answer to a replica's loop
                                     └──▶ request at a receiver ────▶ answer to a replica's loop
    replicas' loops: turned one callback at a time, in the order of their next moment

Everything that is left to chance is drawn from one generator that the seed makes, in the order in which
things happen, so that a seed is a schedule and can be played again. What is simulated is the real
pipeline, its stages and its routing table included; only the store, the LISTEN connection and the sockets
are replaced.

What a replica cannot know, the world does not tell it: a statement may have run although its answer was
lost, a receiver may have answered although nobody heard it.
"""

import asyncio
import itertools
import random
import zlib
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from typing import Any, NamedTuple

from dispatcher.core.errors import StoreUnavailableError
from dispatcher.core.model import DeliveryId, EndpointId, HttpResponse, Outcome, Trigger
from dispatcher.core.order import SHELVED
from dispatcher.delivery.types import Delivery
from dispatcher.outbound.pool import NotAttempted
from dispatcher.store.attempts import AttemptRow
from tests.simulation.database import MemoryDatabase, Transaction
from tests.simulation.replica import Exchange, Sent, SimulatedListener, SimulatedReplica
from tests.simulation.setting import EPOCH

IDLE_IN_TRANSACTION_SECONDS = 10.0
CLIENT_GIVES_UP_SECONDS = 5.5
TURN_SECONDS = 1e-6
"""What a callback costs: time that stood still would let one that comes a rounding error early spin for ever."""
STEPS_MAX = 200_000
"""A seed takes some thousands."""
SLIP_SECONDS = 0.002
"""The wheel's tick and the clock's own grain."""


class Rules(NamedTuple):
    """How unkind this seed is: shares of statements and requests that go wrong."""

    statement_lost: float
    answer_lost: float
    notify_lost: float
    failing: float
    endpoints: int
    events: int
    replicas: int
    incidents: int
    has_order: bool


class Published(NamedTuple):
    """An event of a producer, with what decides its order."""

    event_id: str
    position: int
    ordering_key: str | None
    inserted_at: float
    committed_at: float
    endpoints: frozenset[EndpointId]


class World:
    """One seed's run."""

    def __init__(self, seed: int, rules: Rules) -> None:
        self.seed = seed
        self.rules = rules
        self.random = random.Random(seed)  # noqa: S311 -- a schedule, no secret
        self.now = 100.0
        self.tables = MemoryDatabase(lambda: EPOCH + self.now)
        self.tables.recorded = self._recorded
        self.tables.announced = self._announce
        self.tables.claimed = self._claimed
        self.tables.refused = lambda delivery_id, number: self.accounted.add((delivery_id, number))
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.replicas: list[SimulatedReplica] = []
        self.graveyard: list[SimulatedReplica] = []
        self.transactions: list[Transaction] = []
        self.is_down = False
        self.is_calm = False
        """Faults are over: what is not mended by now must mend itself."""
        self.violations: list[str] = []
        self.sent: list[Sent] = []
        self.accounted: set[tuple[DeliveryId, int]] = set()
        """Attempts that were recorded, or refused because another replica owns their shard."""
        self.trap: tuple[int, str] | None = None
        """After so many more statements their replica dies: before it arrives, once it ran, or when answered."""
        self.lost: set[DeliveryId] = set()
        """Deliveries whose claim was lost in a crash of Postgres at least once; fan-out makes them again."""
        self.falls_after_claim = False
        self.published: list[Published] = []
        self.ids: dict[tuple[str, EndpointId], DeliveryId] = {}
        """Under which id each event was sent to each endpoint."""
        self.successes: dict[DeliveryId, int] = {}
        self.bodies: dict[DeliveryId, bytes] = {}
        self.trace: list[str] | None = None
        self.digest = 0
        self.steps = 0

    # --- time ---

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Puts something on the agenda."""
        heappush(self._agenda, (self.now + seconds, next(self._order), action))

    def note(self, text: str) -> None:
        """Keeps a line of what happened; its sum tells two runs of a seed apart."""
        line = f"{self.now:.6f} {text}"
        self.digest = zlib.crc32(line.encode(), self.digest)
        if self.trace is not None:
            self.trace.append(line)

    def violate(self, text: str) -> None:
        """Keeps what must not have happened."""
        self.note(f"VIOLATION {text}")
        self.violations.append(f"{self.now:.3f} {text}")

    def run(self, until: float, finished: Callable[[], bool] = lambda: False) -> None:
        """Lets time pass, up to a moment or until `finished`, which is asked now and then."""
        asked_at = self.now
        while not self.violations:
            moment, replica = self._next()
            if moment > until:
                self.now = until
                return
            if moment - asked_at >= 1.0:
                asked_at = moment
                if finished():
                    return
            self.now = max(self.now, moment) + TURN_SECONDS
            self.steps += 1
            if self.steps > STEPS_MAX:
                self.violate("livelock: time no longer passes")
            if replica is None:
                heappop(self._agenda)[2]()
            else:
                replica.loop.turn()
                if replica.failure is not None:
                    self.violate(f"a stage of {replica.name} died: {replica.failure!r}")
                for problem in replica.loop.problems:
                    self.violate(f"{replica.name}: {problem.get('exception') or problem}")

    def _next(self) -> tuple[float, SimulatedReplica | None]:
        best: tuple[float, SimulatedReplica | None] = (
            self._agenda[0][0] if self._agenda else float("inf"),
            None,
        )
        for replica in self.replicas:
            moment = max(replica.loop.next_moment(), replica.frozen_until)
            if moment < best[0]:
                best = (moment, replica)
        return best

    def distance(self) -> float:
        """Returns the time of one way over the network: mostly short, seldom long."""
        chance = self.random.random()
        return 0.0005 + 0.003 * chance if chance < 0.97 else self.random.uniform(0.01, 0.4)

    # --- replicas ---

    def start_replica(self, name: str) -> SimulatedReplica:
        incarnation = f"{name}-{len(self.graveyard) + len(self.replicas)}"
        replica = SimulatedReplica(self, name, incarnation)
        self.note(f"start {incarnation}")
        self.replicas.append(replica)
        replica.start()
        return replica

    def kill(self, replica: SimulatedReplica) -> None:
        """Ends a process in the middle of whatever it does; the kernel closes its connections."""
        if replica.is_dead:
            return
        self.note(f"kill {replica.incarnation}")
        self.expire(replica)

    def expire(self, replica: SimulatedReplica) -> None:
        """Takes a process that has ended off the stage, and its sessions off the database."""
        if replica.is_dead:
            return
        replica.is_dead = True
        self.replicas.remove(replica)
        self.graveyard.append(replica)
        self.after(self.distance(), lambda: self._end_sessions(replica))

    def _end_sessions(self, replica: SimulatedReplica) -> None:
        for transaction in self.transactions:
            if transaction.owner is replica:
                self.tables.end(transaction)
        if self.tables.asleep is replica.listener:
            self.tables.asleep = None

    # --- Postgres ---

    def fall(self) -> None:
        """Restarts Postgres at once: what was not committed or not on disk is gone, every connection is cut."""
        lost = self.tables.lose_unflushed()
        self.lost |= lost
        self.note(f"postgres falls, {len(lost)} deliveries lost")
        self.is_down = True
        for transaction in self.transactions:
            self.tables.end(transaction)
        self.tables.asleep = None
        for replica in self.replicas:
            if replica.listener is not None:
                replica.listener.is_up = replica.listener.is_asleep = False

    def _claimed(self) -> None:
        """Lets Postgres fall soon after a claim, in an incident of that kind."""
        if self.falls_after_claim and not self.is_calm:
            self.falls_after_claim = False
            self.after(self.random.uniform(0.0, 0.3), self.fall)
            self.after(self.random.choice((0.5, 2.0, 6.0)), self.rise)

    def rise(self) -> None:
        self.note("postgres rises")
        self.is_down = False
        for replica in self.replicas:
            if replica.listener is not None:
                replica.listener.is_up = True
                replica.loop.call_soon(replica.listener.woken.set)

    def statement(
        self, replica: SimulatedReplica, statement: Callable[[], Any], future: asyncio.Future[Any]
    ) -> None:
        """Carries a statement to the database and its result back, or not."""
        if replica.is_dead:
            return
        chance = self.random.random()
        rules = self.rules
        dies = self._springs_trap()
        if dies == "before":
            self.kill(replica)
            return
        if not self.is_calm and chance < rules.statement_lost:
            self._fail(replica, future, self.random.choice((0.001, CLIENT_GIVES_UP_SECONDS)))
            return
        is_heard = self.is_calm or chance >= rules.statement_lost + rules.answer_lost

        def arrive() -> None:
            if self.is_down:
                self._fail(replica, future, 0.001)
                return
            try:
                value = statement()
            except StoreUnavailableError as error:
                self._reply(replica, partial(_set_exception, future, error))
                return
            except Exception as error:  # noqa: BLE001 -- a statement that Postgres would refuse
                self.violate(f"a statement was refused: {error!r}")
                return
            self._watch_transactions()
            if dies == "ran":
                self.kill(replica)
            elif dies == "answered":
                self.after(0.0, lambda: self.kill(replica))
                self._tell(replica, partial(_set_result, future, value))
            elif is_heard:
                self._reply(replica, partial(_set_result, future, value))
            else:
                self.note(f"an answer to {replica.incarnation} is lost")
                self._fail(replica, future, self.random.choice((0.001, CLIENT_GIVES_UP_SECONDS)))

        self.after(self.distance(), arrive)

    def _springs_trap(self) -> str:
        if self.trap is None or self.is_calm:
            return ""
        count, where = self.trap
        self.trap = (count - 1, where) if count else None
        return "" if count else where

    def _reply(self, replica: SimulatedReplica, action: Callable[[], None]) -> None:
        self.after(self.distance(), lambda: self._tell(replica, action))

    def _fail(self, replica: SimulatedReplica, future: asyncio.Future[Any], seconds: float) -> None:
        error = StoreUnavailableError("the simulated Postgres is away")
        self.after(seconds, lambda: self._tell(replica, partial(_set_exception, future, error)))

    @staticmethod
    def _tell(replica: SimulatedReplica, action: Callable[[], None]) -> None:
        if not replica.is_dead:
            replica.loop.call_soon(action)

    def _watch_transactions(self) -> None:
        """Ends a transaction whose client says nothing for too long, as the server does."""
        self.transactions = [t for t in self.transactions if not t.is_over]
        for transaction in self.transactions:
            if transaction.positions and not transaction.is_watched:
                transaction.is_watched = True
                self.after(IDLE_IN_TRANSACTION_SECONDS, partial(self.tables.end, transaction))

    def commit_event(self, event_id: str, insert: Callable[[], None]) -> None:
        """Commits a producer's transaction, and lets the trigger announce it to whoever sleeps."""
        if self.is_down:
            self.after(0.3, lambda: self.commit_event(event_id, insert))
            return
        insert()
        self.note(f"commit {event_id}")
        sleeper = self.tables.asleep
        is_lost = not self.is_calm and self.random.random() < self.rules.notify_lost
        if isinstance(sleeper, SimulatedListener) and not is_lost:
            replica = sleeper._replica
            self.after(self.distance(), lambda: self._tell(replica, sleeper.woken.set))

    def _announce(self, incarnation: str) -> None:
        """Tells the other replicas of deliveries that may be theirs, or loses that for each of them."""
        for replica in self.replicas:
            listener = replica.listener
            is_lost = not self.is_calm and self.random.random() < self.rules.notify_lost
            if listener is not None and replica.incarnation != incarnation and not is_lost:
                self.after(self.distance(), partial(self._tell, replica, listener.arrived))

    # --- receivers ---

    def request(
        self,
        replica: SimulatedReplica,
        endpoint_id: EndpointId,
        delivery: Delivery,
        body: bytes,
        timeout_seconds: float,
        done: Callable[[HttpResponse | NotAttempted], None],
    ) -> Exchange:
        """Takes a request to its receiver, and judges whether it may be made."""
        sent = Sent(len(self.sent), replica, endpoint_id, delivery, delivery.attempt_count + 1)
        self._judge(sent, body)
        exchange = Exchange(sent, done)
        if not self.is_calm and self.random.random() < 0.01:
            self._tell(replica, lambda: exchange.finish(NotAttempted("no descriptor is free")))
            return exchange
        self.sent.append(sent)
        replica.in_flight[sent.number] = exchange
        self.note(f"send {replica.incarnation} {delivery.id} {sent.attempt_number}")
        exchange.timer = replica.loop.call_later(
            timeout_seconds,
            lambda: exchange.finish(HttpResponse(Outcome.TIMEOUT, error="no answer")),
        )
        failing = 0.0 if self.is_calm else self.rules.failing
        chance = self.random.random() / (failing or 1e-9)
        delay = self.distance() + self.random.choice((0.001, 0.02, 0.3, timeout_seconds * 0.9))
        if chance < 0.2:
            return exchange  # a black hole: the deadline ends it
        self.after(delay, lambda: self._answer(exchange, chance))
        return exchange

    def _answer(self, exchange: Exchange, chance: float) -> None:
        """Answers: the receiver has done its part whether the answer is heard or not."""
        sent = exchange.sent
        retry_after = None
        if chance < 0.4:
            answer = HttpResponse(Outcome.CONNECT_ERROR, error="reset")
            if chance < 0.3:  # it took the request and succeeded; its answer was lost
                self.successes[sent.delivery.id] = self.successes.get(sent.delivery.id, 0) + 1
        elif chance < 0.9:
            answer = HttpResponse(Outcome.HTTP_ERROR, status=500)
        elif chance < 1.0:
            retry_after = self.random.choice(("0", "3", "soon", "-5"))
            answer = HttpResponse(Outcome.HTTP_ERROR, status=503, retry_after=retry_after)
        else:
            answer = HttpResponse(Outcome.OK, status=200)
            self.successes[sent.delivery.id] = self.successes.get(sent.delivery.id, 0) + 1
        self.note(f"answer {sent.delivery.id} {answer.outcome} {retry_after}")
        self.after(
            self.distance(),
            lambda: self._tell(sent.replica, lambda: exchange.finish(answer)),
        )

    def _judge(self, sent: Sent, body: bytes) -> None:
        """Looks at a request in the moment in which it is made."""
        delivery, replica, tables = sent.delivery, sent.replica, self.tables
        name = f"{delivery.id} attempt {sent.attempt_number} by {replica.incarnation}"
        if self.bodies.setdefault(delivery.id, body) != body:
            self.violate(f"altered: {name}")
        known = self.ids.setdefault((delivery.event_id, sent.endpoint_id), delivery.id)
        if known != delivery.id:
            self.violate(f"renamed: {name} was {known}")
        if not tables.is_alive(replica.incarnation):
            self.violate(f"untrusted: {name} was started without a lease")
        row = tables.open.get(delivery.id)
        if delivery.trigger is Trigger.SCHEDULED:
            ended = tables.done.get(delivery.id)
            if ended is not None and ended.state != "cancelled":
                self.violate(f"again: {name} although it {ended.state}")
            # Only what is due is shelved, also by a replica that does not know yet that the endpoint is another's.
            is_shelved = row is not None and row.due_at >= SHELVED.timestamp()
            if row is not None and not is_shelved and row.due_at > EPOCH + self.now + SLIP_SECONDS:
                self.violate(f"early: {name} by {row.due_at - EPOCH - self.now:.3f} s")
            if row is None and ended is None and delivery.id not in self.lost:
                self.violate(f"uncommitted: {name}")
        self._judge_order(sent, name)
        # A new limit holds from when the replica has heard of it.
        assert replica.pipeline is not None
        limit = max(
            tables.endpoints[sent.endpoint_id].max_concurrency or 10,
            replica.pipeline.inventory.lanes[sent.endpoint_id].limit,
        )
        same = [
            e.sent for e in replica.in_flight.values() if e.sent.endpoint_id == sent.endpoint_id
        ]
        if any(other.delivery.id == delivery.id for other in same):
            self.violate(f"twice at once: {name}")
        if len(same) >= limit:
            self.violate(f"over the limit of {limit}: {name}")

    def _judge_order(self, sent: Sent, name: str) -> None:
        """Finds an earlier delivery of the line that is open: its event was committed before this one was inserted."""
        tables, delivery = self.tables, sent.delivery
        row = tables.open.get(delivery.id)
        if delivery.trigger is not Trigger.SCHEDULED or row is None or row.place is None:
            return
        ordering = tables.endpoints[sent.endpoint_id].ordering
        own = next(one for one in self.published if one.event_id == delivery.event_id)
        for one in self.published:
            if (
                one.committed_at < own.inserted_at
                and sent.endpoint_id in one.endpoints
                and (ordering == "strict" or one.ordering_key == own.ordering_key)
                and not self._is_past(one.event_id, sent.endpoint_id)
            ):
                self.violate(f"out of order: {name} before {one.event_id}")
        for other in sent.replica.in_flight.values():
            twin = tables.open.get(other.sent.delivery.id)
            if (
                other.sent.endpoint_id == sent.endpoint_id
                and twin is not None
                and twin.place is not None
                and twin.place.key == row.place.key
                and other.sent.delivery.trigger is Trigger.SCHEDULED
            ):
                self.violate(f"not one at a time: {name} with {twin.id}")

    def _is_past(self, event_id: str, endpoint_id: EndpointId) -> bool:
        """Tells whether an event waits no more for an endpoint, or a crash of Postgres took its claim back."""
        tables = self.tables
        if event_id not in tables.events:
            known = self.ids.get((event_id, endpoint_id))
            return event_id in tables.set_aside_ids or known in self.lost
        return not any(
            row.event_id == event_id and row.endpoint_id == endpoint_id and row.id not in self.lost
            for row in tables.open.values()
        )

    def _recorded(self, attempt: AttemptRow, shard: int, token: int) -> None:
        self.accounted.add((attempt.delivery_id, attempt.attempt_number))
        self.note(f"record {attempt.delivery_id} {attempt.attempt_number} {attempt.outcome}")
        if self.tables.tokens[shard] != token:
            self.violate(f"stale: attempt of {attempt.delivery_id} under token {token}")


def _set_result(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)


def _set_exception(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
