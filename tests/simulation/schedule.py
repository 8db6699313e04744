"""One seed: what happens to whom and when, and the verdict at the end.

unkind ── events are committed out of order, replicas die, freeze and leave, Postgres falls, answers get
lost, people pause, resend and cancel ── calm at 40 s ── everything must come to rest by itself
"""

import random
from functools import partial
from typing import NamedTuple, TypeVar

from dispatcher.core.model import DeliveryId, EndpointId
from dispatcher.store.routing import EndpointRow
from tests.simulation import stores
from tests.simulation.database import OPEN, as_event
from tests.simulation.replica import SimulatedReplica, make_listener
from tests.simulation.setting import EPOCH, simulated_stores
from tests.simulation.world import Published, Rules, World

Value = TypeVar("Value")

CALM_AT = 40.0
REST_SECONDS = 150.0
RETRY_SCHEDULE = [1.0, 3.0, 10.0, 12.0]
ORDERED_SHARE = 0.5


class Verdict(NamedTuple):
    """What became of a seed."""

    seed: int
    violations: list[str]
    digest: int
    """Sum over everything that happened; equal for equal seeds and code."""
    pairs: int
    requests: int
    deaths: int
    lost_claims: int
    """Deliveries that a crash of Postgres took back."""
    virtual_seconds: float
    trace: list[str]


def rules_for(seed: int) -> Rules:
    """Returns how unkind a seed is; some are quiet, so that the plain path is walked too."""
    chance = random.Random(seed ^ 0x5EED)  # noqa: S311 -- a schedule, no secret
    return Rules(
        statement_lost=chance.choice((0.0, 0.0, 0.01, 0.05)),
        answer_lost=chance.choice((0.0, 0.01, 0.05)),
        notify_lost=chance.choice((0.0, 0.2, 1.0)),
        failing=chance.choice((0.0, 0.2, 0.5)),
        endpoints=chance.randint(1, 4),
        events=chance.randint(4, 24),
        replicas=chance.choice((1, 1, 2, 2, 3)),
        incidents=chance.randint(0, 7),
        has_order=_order_of(seed).random() < ORDERED_SHARE,
    )


def _order_of(seed: int) -> random.Random:
    """Returns the generator of what has to do with order, so that the others draw what they drew without it."""
    return random.Random(seed ^ 0x0DE5)  # noqa: S311 -- a schedule, no secret


def play(seed: int, *, with_trace: bool = False) -> Verdict:
    """Plays one seed to its end."""
    random.seed(seed)  # the stages' own jitter
    schedule = Schedule(seed)
    if with_trace:
        schedule.world.trace = []
    with simulated_stores(
        Deliveries=stores.MemoryDeliveries,
        Leases=stores.MemoryLeases,
        NotifyListener=make_listener,
        Outbox=stores.MemoryOutbox,
        DeliveryRequests=stores.MemoryRequests,
        Results=stores.MemoryResults,
        Endpoints=stores.MemoryRouting,
        Statistics=stores.MemoryStatistics,
    ):
        return schedule.play()


class Schedule:
    """The seed's plan, and what it committed."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed, rules_for(seed))
        self._order = _order_of(seed)
        self._order.random()
        self.committed: list[tuple[str, frozenset[EndpointId]]] = []
        """Each committed event with the endpoints that were saved before its commit."""
        self._began = self.world.now
        self._deaths = 0

    def play(self) -> Verdict:
        world, rules = self.world, self.world.rules
        for number in range(rules.endpoints):
            self._save_endpoint(number)
        for number in range(rules.replicas):
            delay = world.random.choice((0.0, world.random.uniform(0.0, 6.0)))
            world.after(delay, partial(self._start, f"r{number}"))
        for number in range(rules.events):
            self._plan_event(number)
        for _ in range(rules.incidents):
            world.after(world.random.uniform(1.0, CALM_AT - 4.0), self._incident)
        world.run(self._began + CALM_AT)
        self._calm_down()
        world.run(world.now + REST_SECONDS, self._is_at_rest)
        self._judge()
        return Verdict(
            world.seed,
            world.violations,
            world.digest,
            sum(len(endpoints) for _, endpoints in self.committed),
            len(world.sent),
            self._deaths,
            len(world.lost),
            world.now - self._began,
            world.trace or [],
        )

    # --- what happens ---

    def _start(self, name: str) -> None:
        self.world.start_replica(name)

    def _save_endpoint(self, number: int) -> None:
        chance = self.world.random
        name = f"ep{number}"
        self.world.tables.save_endpoint(
            EndpointRow(
                id=EndpointId(name),
                number=number + 1,
                revision=1,
                tenant="default",
                name=name,
                url=f"http://host{chance.randint(0, 1)}.test/{name}",
                profile="wms",
                event_types=["*"],
                labels={},
                headers={},
                ca_pem=None,
                max_concurrency=chance.randint(1, 3),
                rate_limit=chance.choice((None, None, 5.0)),
                timeout_seconds=2.0,
                retry_schedule_seconds=RETRY_SCHEDULE,
                state="active",
                reason=None,
                content_filter=None,
                delivery="push",
                also_sign=[],
                include=[],
                exclude=[],
                oauth_token_url=None,
                oauth_client_id=None,
                oauth_scope=None,
                client_certificate=None,
                body_key="wms",
                shard=chance.randint(0, 63),
                secrets=[],
                ordering=self._draw("none", "key", "key", "strict"),
                skip_after_attempts=self._draw(None, None, 2),
            )
        )

    def _draw(self, without_order: Value, *values: Value) -> Value:
        """Draws what has to do with order; a seed without an order has the first value."""
        if not self.world.rules.has_order:
            return without_order
        return self._order.choice((without_order, *values))

    def _plan_event(self, number: int) -> None:
        """Plans an INSERT, which numbers the event, and its COMMIT some time later."""
        world = self.world
        inserted_in = world.random.choice((0.5, 3.0, world.random.uniform(0.0, CALM_AT - 5.0)))
        open_for = world.random.choice((0.001, 0.05, world.random.uniform(0.0, 4.0)))
        event_id = f"e{number}"

        def insert() -> None:
            position = world.tables.next_position()
            inserted_at = world.now
            key = self._draw(None, "a", "a", "b")
            event = as_event(
                event_id, EPOCH + world.now, data=f'{{"n":{number}}}', ordering_key=key
            )

            def commit() -> None:
                endpoints = frozenset(world.tables.endpoints)
                world.tables.insert(event, position)
                self.committed.append((event_id, endpoints))
                world.published.append(
                    Published(event_id, position, key, inserted_at, world.now, endpoints)
                )

            if world.random.random() < 0.9:
                world.after(open_for, lambda: world.commit_event(event_id, commit))

        world.after(inserted_in, insert)

    def _incident(self) -> None:
        world, chance = self.world, self.world.random
        alive = [replica for replica in world.replicas if replica.pipeline is not None]
        ids = sorted([*world.tables.open, *world.tables.done])
        endpoint_id = chance.choice(sorted(world.tables.endpoints))
        victim = chance.choice(alive) if alive else None
        match chance.randint(0, 14):
            case 0 | 1 if victim is not None:
                self._kill(victim)
            case 2 | 3 | 4:
                world.trap = (chance.randint(0, 80), chance.choice(("before", "ran", "answered")))
            case 5 | 6 if victim is not None:
                victim.is_suspect = True
                victim.frozen_until = world.now + chance.choice((0.5, 3.0, 9.0, 25.0))
                world.note(f"freeze {victim.incarnation} until {victim.frozen_until:.3f}")
            case 7 if victim is not None and victim.frozen_until <= world.now:
                world.note(f"drain {victim.incarnation}")
                victim.loop.call_soon(victim.drain)
            case 8:
                world.fall()
                world.after(chance.choice((0.2, 2.0, 6.0, 14.0)), world.rise)
            case 13 | 14:
                world.falls_after_claim = True
            case 9:
                self._change(endpoint_id, state="paused")
                world.after(5.0, lambda: self._change(endpoint_id, state="active"))
            case 10:
                self._save_endpoint(len(world.tables.endpoints))
                self._tell_control()
            case 11 if ids:
                self._ask(chance.choice(ids), cancels=False)
            case 12 if ids:
                self._ask(chance.choice(ids), cancels=True)
            case _:
                self._change(endpoint_id, max_concurrency=chance.randint(1, 3))
        world.after(chance.uniform(0.1, 6.0), self._replace_the_dead)

    def _kill(self, replica: SimulatedReplica) -> None:
        self.world.kill(replica)

    def _replace_the_dead(self) -> None:
        """Starts a process again under the name of each that is gone, as a supervisor does."""
        world = self.world
        names = {replica.name for replica in world.replicas}
        for replica in list(world.graveyard):
            if replica.name not in names:
                names.add(replica.name)
                world.start_replica(replica.name)

    def _change(self, endpoint_id: EndpointId, **changes: object) -> None:
        tables = self.world.tables
        row = tables.endpoints[endpoint_id]
        if row.state != "disabled":
            self.world.note(f"change {endpoint_id} {changes}")
            tables.save_endpoint(row._replace(**changes))  # type: ignore[arg-type]  # by name
            self._tell_control()

    def _ask(self, delivery_id: DeliveryId, *, cancels: bool) -> None:
        self.world.note(f"{'cancel' if cancels else 'resend'} {delivery_id}")
        if cancels:
            self.world.tables.cancel(delivery_id)
        else:
            self.world.tables.resend(delivery_id)
        self._tell_control()

    def _tell_control(self) -> None:
        world = self.world
        for replica in world.replicas:
            listener = replica.listener
            if listener is not None and listener.is_up and world.random.random() < 0.7:
                world.after(world.distance(), partial(self._hear, replica))

    @staticmethod
    def _hear(replica: SimulatedReplica) -> None:
        if not replica.is_dead and replica.listener is not None:
            replica.loop.call_soon(replica.listener.control)

    def _calm_down(self) -> None:
        """Ends every fault; nothing else is mended by hand."""
        world = self.world
        world.is_calm = True
        world.trap = None
        if world.is_down:
            world.rise()
        for replica in world.replicas:
            replica.frozen_until = 0.0
        for endpoint_id in sorted(world.tables.endpoints):
            self._change(endpoint_id, state="active")
        self._supervise()

    def _supervise(self) -> None:
        """Starts again what ends in the calm as well: a drain that began before it."""
        self._replace_the_dead()
        if not self.world.replicas:
            self.world.start_replica("r0")
        self.world.after(1.0, self._supervise)

    # --- the verdict ---

    def _is_at_rest(self) -> bool:
        tables = self.world.tables
        return (
            not tables.outbox
            and not tables.open
            and not tables.requests
            and not self._left_in_memory()
        )

    def _left_in_memory(self) -> list[str]:
        found = []
        for replica in self.world.replicas:
            pipeline = replica.pipeline
            if pipeline is None:
                continue
            sizes = {
                "in flight": pipeline.permits.in_flight,
                "in memory": len(pipeline.inventory),
                "unrecorded": pipeline.inventory.unrecorded,
                "sent": len(pipeline.inventory.sent),
                "being recorded": len(pipeline.recorder),
                "timers": len(pipeline.inventory.wheel),
                "ready bytes": pipeline.inventory.ready_bytes,
            }
            found += [
                f"{replica.incarnation} {name} {size}" for name, size in sizes.items() if size
            ]
        return found

    def _judge(self) -> None:
        world, tables = self.world, self.world.tables
        self._deaths = sum(not replica.is_suspect for replica in world.graveyard)
        if world.violations:
            return
        for event_id, endpoints in self.committed:
            for endpoint_id in sorted(endpoints):
                if (event_id, endpoint_id) not in tables.pairs:
                    world.violate(f"lost: {event_id} has no delivery for {endpoint_id}")
        known = {event_id for event_id, _ in self.committed}
        for row in (*tables.open.values(), *tables.done.values()):
            self._judge_delivery(row.id, known)
        for sent in world.sent:
            is_excused = (
                sent.replica.is_dead or sent.replica.is_suspect or sent.delivery.id in world.lost
            )
            if not is_excused and (sent.delivery.id, sent.attempt_number) not in world.accounted:
                world.violate(f"unrecorded: {sent.delivery.id} attempt {sent.attempt_number}")
        for left in self._left_in_memory():
            world.violate(f"left in memory: {left}")
        if tables.requests:
            world.violate(f"unanswered: {sorted(tables.requests)}")

    def _judge_delivery(self, delivery_id: DeliveryId, known: set[str]) -> None:
        world, tables = self.world, self.world.tables
        row = tables.open.get(delivery_id) or tables.done[delivery_id]
        attempts = tables.attempts_of(delivery_id)
        ok = sum(attempt.outcome == "ok" for attempt in attempts)
        successes = world.successes.get(delivery_id, 0)
        if row.state in OPEN:
            world.violate(f"lost: {delivery_id} is still {row.state} at the deadline")
        if row.event_id not in known:
            world.violate(f"phantom: {delivery_id}")
        if ok > successes or (row.state == "succeeded" and not ok):
            world.violate(f"ghost: {delivery_id} {row.state}, {ok} recorded, {successes} answered")
        if len(attempts) != row.attempt_count:
            world.violate(f"short: {delivery_id} counts {row.attempt_count}, has {len(attempts)}")
        scheduled = sum(attempt.trigger == "scheduled" for attempt in attempts)
        is_short = scheduled < len(RETRY_SCHEDULE) + 1
        if row.state == "failed" and row.reason != "skipped" and is_short:
            world.violate(f"short: {delivery_id} failed after {scheduled} scheduled attempts")
