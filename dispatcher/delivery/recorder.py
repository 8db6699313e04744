"""Records results in batches: Postgres first, memory second.

    sender ── add ──▶ pending ── flush: one transaction ──▶ inventory, retry timer, log and metrics

Invariants: at most `unrecorded_max` attempts are sent and not committed, so that a crash repeats at most
as many. Requests to receivers that have not responded for a while are not counted (`Lanes.tick`), so that
they do not use up the bound. Without room (`has_room()` is false) lanes grant no more permits, because
results that cannot be recorded must not be produced. Two flushes run at a time, never with two results of
one delivery, which has one entry that is in flight or being recorded. State in memory changes only after
the transaction has committed. A batch waits at most `flush_seconds`, or less if it is full.

If Postgres is unavailable, a batch is kept and retried with backoff until it is recorded. The statement is
idempotent, so that repeating a commit whose response was lost does no harm. A batch that Postgres refuses
for its contents is halved until the invalid row is found. That row is recorded without the data that the
receiver supplied, and the other rows as they are. If Postgres refuses it again, the delivery stays open in
the database, an error is logged, and this process makes no more attempts of it. A refusal for another cause
(a missing partition or privilege) is retried like an outage. On shutdown the last flush is awaited, up to
a bound.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from dispatcher.core.errors import DataFaultError, StoreUnavailableError
from dispatcher.core.model import DeliveryId, DeliveryState, Outcome, Trigger, made
from dispatcher.delivery.endpoint_health import EndpointHealth
from dispatcher.delivery.inventory import Inventory
from dispatcher.delivery.load_queue import LoadQueue
from dispatcher.delivery.ports import ResultStore
from dispatcher.delivery.reporting import Reporting
from dispatcher.delivery.retry_timer import RetryTimer
from dispatcher.delivery.types import IN_FLIGHT, RECORDING, AttemptResult
from dispatcher.runtime import probe
from dispatcher.runtime.backoff import Outage, retry
from dispatcher.runtime.clock import Clock
from dispatcher.store.attempts import AttemptRow
from dispatcher.store.results import MoveRow, Recorded

_log = structlog.get_logger("dispatcher.delivery.recorder")

BATCHES_AT_ONCE = 2
FLUSHES_AT_ONCE = 2
"""While one commit waits for the disk, the results that arrive meanwhile are committed by another."""
FLUSH_SHARE = 4
"""Batches are no smaller than this part (a quarter) of `unrecorded_max`, unless `flush_seconds` are over."""
COMMIT_MARGIN = 1.5
"""Room is kept for this many times the results that are expected during a commit."""
_WEIGHT: Final = 0.25
"""How much the last commit counts in the moving averages."""
_OPEN: Final = (DeliveryState.PENDING, DeliveryState.RETRYING)


class Recorder:
    """Records results in the database; `add` and `run` are called on one event loop."""

    def __init__(
        self,
        store: ResultStore,
        health: EndpointHealth,
        inventory: Inventory,
        retry_timer: RetryTimer,
        load_queue: LoadQueue,
        reporting: Reporting,
        *,
        clock: Clock,
        batch_rows_max: int,
        unrecorded_max: int,
        flush_seconds: float,
    ) -> None:
        self._store = store
        self.health = health
        self._inventory = inventory
        self._retry_timer = retry_timer
        self._load_queue = load_queue
        self._reporting = reporting
        self._clock = clock
        self._batch_rows_max = batch_rows_max
        self._unrecorded_max = unrecorded_max
        self._flush_rows_min = max(1, min(batch_rows_max, unrecorded_max // FLUSH_SHARE))
        self._flush_seconds = flush_seconds
        self._pending: list[AttemptResult] = []
        self._flushing = 0
        self._commit_seconds = 0.0
        self._results_per_second = 0.0
        self._taken_at = 0.0
        self._due = asyncio.Event()
        """Set when the pending results are to be recorded: they are enough, or the first has waited long enough."""
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = False
        self._committed: Callable[[], None] = lambda: None
        self.outage = Outage(_log, "recorder.stalled", "recorder.resumed")
        self.empty = asyncio.Event()
        """Set while all results are recorded."""
        self.empty.set()

    def __len__(self) -> int:
        return len(self._pending) + self._flushing

    def has_room(self) -> bool:
        """Return whether another attempt may be made, because its result can be recorded.

        Requests to receivers that do not respond are not counted. Otherwise they would use up the bound
        and stop the deliveries to other receivers.
        """
        inventory = self._inventory
        counts = (
            inventory.counts
        )  # `unrecorded` without a call, because this runs before each attempt
        return counts[IN_FLIGHT] + counts[RECORDING] - inventory.stalled < self._unrecorded_max

    def after_commit(self, action: Callable[[], None]) -> None:
        """Register an action to call after each commit, when there is room again."""
        self._committed = action

    def add(self, result: AttemptResult) -> None:
        """Add a result; never wait, because the attempt has been made and its result must be kept."""
        self._inventory.finish(result.entry)
        self._pending.append(result)
        if len(self._pending) == 1:
            self.empty.clear()
            self._await_more()
        if len(self._pending) >= self._flush_rows_min and self._is_full():
            self._due.set()

    def _await_more(self) -> None:
        """Record the pending results after `flush_seconds`, unless they are enough before."""
        # One timer per batch. A wait with a timeout in each of the flushes woke the loop twice more per batch.
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._flush_seconds, self._due.set)

    def _is_full(self) -> bool:
        """Return whether the pending results are worth a transaction now."""
        pending = len(self._pending)
        if pending < self._flush_rows_min:
            return False
        inventory = self._inventory
        in_flight = inventory.unrecorded - inventory.stalled - pending - self._flushing
        rows = rows_worth_a_commit(
            self._unrecorded_max - in_flight, self._results_per_second * self._commit_seconds
        )
        return pending >= min(self._batch_rows_max, rows)

    def stop(self) -> None:
        """Let `run` end once everything is recorded."""
        self._stopping = True
        self._due.set()

    async def run(self) -> None:
        """Flush until stopped and empty, with `FLUSHES_AT_ONCE` flushes at a time."""
        async with asyncio.TaskGroup() as group:
            for _ in range(FLUSHES_AT_ONCE):
                group.create_task(self._flush_on())

    async def _flush_on(self) -> None:
        """Flush batch after batch; while one commits, another may commit as well."""
        loop = asyncio.get_running_loop()
        while True:
            while not self._due.is_set():  # the other flush may have taken this one's results
                await self._due.wait()
            batch = self._take()
            if batch:
                began = loop.time()
                pace = len(batch) / max(began - self._taken_at, 1e-3)
                self._results_per_second += _WEIGHT * (pace - self._results_per_second)
                self._taken_at = began
                await self._flush(batch)
                self._commit_seconds += _WEIGHT * (loop.time() - began - self._commit_seconds)
                if self._is_full():
                    self._due.set()
            if not len(self):
                self.empty.set()
            if self._stopping and not self._pending:
                return

    def _take(self) -> list[AttemptResult]:
        """Take the next batch of the pending results.

        More than a batch may have arrived during other flushes. The larger the batch, the fewer round trips
        a result costs.
        """
        rows_max = BATCHES_AT_ONCE * self._batch_rows_max
        batch, self._pending = self._pending[:rows_max], self._pending[rows_max:]
        self._flushing += len(batch)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._stopping:
            self._due.clear()
            if self._pending:
                self._await_more()
                if self._is_full():
                    self._due.set()
        return batch

    async def _flush(self, batch: list[AttemptResult]) -> None:
        """Record a batch in groups with one token per shard, which is one group except after a takeover."""
        while batch:
            tokens: dict[int, int] = {}
            group = [r for r in batch if tokens.setdefault(r.endpoint.shard, r.token) == r.token]
            batch = [r for r in batch if tokens[r.endpoint.shard] != r.token]
            await self._record(group, tokens)

    async def _record(
        self,
        group: list[AttemptResult],
        tokens: dict[int, int],
        attempt: AttemptRow | None = None,
    ) -> None:
        """Record a group; `attempt` replaces the row that Postgres refused."""
        started = self._clock.monotonic()
        attempts = [attempt] if attempt is not None else [_attempt(result) for result in group]
        try:
            recorded = await retry(
                lambda: self._store.record(
                    [self._move(result) for result in group], attempts, tokens
                ),
                on=StoreUnavailableError,
                failed=lambda error: self.outage.began(error, results=len(group)),
            )
            self.outage.ended()
        except Exception as error:  # noqa: BLE001 -- whatever Postgres refuses, only its row may suffer
            if len(group) == 1 and attempt is None:
                _log.exception("result.rejected", delivery_id=group[0].delivery.id)
                await self._record(group, tokens, _bare(attempts[0], error))
                return
            if len(group) == 1:
                # Postgres refuses even the data of our own. The delivery stays open, and its entry stays
                # in the phase of being recorded, so that this process does not send it a second time.
                _log.error("result.quarantined", delivery_id=group[0].delivery.id, error=str(error))
                self._flushing -= 1
                return
            half = len(group) // 2
            await self._record(group[:half], tokens)
            await self._record(group[half:], tokens)
            return
        try:
            await self._settle_requests(group, recorded.late)
            await self.health.follow_up(group, recorded.fenced)
        except DataFaultError as error:
            # The results are recorded, but not their consequences for requests and endpoints.
            _log.error("recorder.follow_up_failed", results=len(group), error=str(error))
        self._flushing -= len(group)
        self._reporting.flushed(len(group), self._clock.monotonic() - started)
        self._settle(group, recorded)
        self._reporting.recorded(group, recorded.fenced)
        self._committed()
        probe.hit("recorder.flushed", rows=len(group))

    def _move(self, result: AttemptResult) -> MoveRow:
        decision = result.decision
        due = decision.next_delay_seconds
        if due is not None:
            due -= self._clock.monotonic() - result.finished_at_monotonic
        return made(
            MoveRow,
            (
                result.endpoint.shard,
                result.delivery.id,
                result.attempt_number,
                decision.state,
                decision.reason,
                decision.schedule_position,
                due,
            ),
        )

    async def _settle_requests(
        self, group: list[AttemptResult], late: frozenset[DeliveryId]
    ) -> None:
        """Delete the resend requests that these attempts have carried out."""
        manual = [
            (r.delivery.id, r.attempted_at, r.response.outcome is Outcome.OK)
            for r in group
            if r.delivery.trigger is Trigger.MANUAL or r.delivery.id in late
        ]
        if manual:
            await retry(
                lambda: self._store.settle_requests(manual),
                on=StoreUnavailableError,
                unless=DataFaultError,
                failed=lambda error: self.outage.began(error, results=len(manual)),
            )
            self.outage.ended()

    def _settle(self, results: list[AttemptResult], recorded: Recorded) -> None:
        """Apply committed results in memory: schedule the retries, and drop the ended deliveries."""
        inventory, now, fenced = self._inventory, self._clock.monotonic(), recorded.fenced
        for result in results:
            entry, decision = result.entry, result.decision
            manual = result.delivery.trigger is Trigger.MANUAL
            if manual:
                # Another request may have been made meanwhile, or a retry of the endpoint waits for this one.
                self._load_queue.add_requests()
            if decision.state not in _OPEN and entry.id not in fenced:
                inventory.forget(entry, ended=True)
                if entry.id in recorded.late:
                    # If Postgres crashed and lost the delivery's claim, it may be open again by now:
                    # fan-out repeated the claim while the first copy was in memory, and kept that copy.
                    entry.lane.turn_away(0.0)
                continue
            # The shard may have left, and come back, while the delivery was in flight. The present lane
            # does not send an entry of the former one.
            lane = inventory.lanes.get(result.endpoint.id)
            if entry.id in fenced or lane is not entry.lane or not lane.is_open:
                inventory.forget(entry)
                if lane is not None:
                    lane.turn_away(0.0)  # loaded again if the shard is ours again
            elif manual or decision.next_delay_seconds is None:
                # A resend that failed: the delivery keeps its place in the schedule, which is in Postgres.
                inventory.make_due(entry)
                self._load_queue.add_due((entry,))
            else:
                self._retry_timer.schedule(
                    entry, result.finished_at_monotonic + decision.next_delay_seconds - now
                )
        self._retry_timer.arm()


def rows_worth_a_commit(bound: int, during_commit: float) -> float:
    """Return how many results a batch has when it begins to commit.

    A transaction costs as much as fifty of its rows, so batches are as large as the bound allows without a
    pause in sending: the rest of the bound just suffices for the requests that are sent during the commit. The rest is
    half of the bound at most. If that does not suffice, two flushes take turns.

    Args:
        bound: results that may be unrecorded, less the requests in flight.
        during_commit: results that are expected during a commit.
    """
    return max(bound / 2, bound - COMMIT_MARGIN * during_commit)


def _bare(attempt: AttemptRow, error: Exception) -> AttemptRow:
    """Return the attempt without the data that the receiver supplied."""
    text = f"the receiver's response cannot be stored: {type(error).__name__}"
    return attempt._replace(peer=None, response_body=None, response_headers=None, error=text)


def _attempt(result: AttemptResult) -> AttemptRow:
    response, delivery, endpoint = result.response, result.delivery, result.endpoint
    error = response.error
    return made(
        AttemptRow,
        (
            delivery.day,
            delivery.event_id,
            delivery.event_type,
            endpoint.number,
            delivery.id,
            result.attempt_number,
            delivery.trigger,
            response.outcome,
            response.flags or None,
            result.attempted_at,
            result.latency_seconds,
            *response.phases,
            response.reused,
            response.peer,
            endpoint.revision,
            response.status,
            response.body or None,
            error if error is None else error.replace("\0", "\N{REPLACEMENT CHARACTER}"),
            response.headers or None,
        ),
    )
