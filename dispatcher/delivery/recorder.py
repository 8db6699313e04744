"""Records results in batches: Postgres first, memory second.

    sender ── add ──▶ pending ── flush: one transaction ──▶ settled(results) ──▶ wheel, lanes, metrics, log

What is always true: one flush at a time, in the order in which results came; nothing in memory
learns of a result before its transaction has committed; a batch waits at most `flush_seconds`, or
less when it is full. Full (`has_room()` is false) means that lanes give no more permits: results
that cannot be recorded are not made.

When Postgres is away a batch is kept and sent again, with backoff, until it is recorded: the
statement is idempotent, so a commit whose answer was lost does no harm. A batch that Postgres
refuses for its contents is halved until the one row at fault is found; that one is recorded without
what the receiver had a hand in, and its neighbours as they are. If that is refused too, the delivery
stays open in the database, the log says so, and this process touches it no more. What Postgres
refuses for another cause (a missing partition or privilege) is waited out like an outage. On shutdown
the last flush is awaited, up to a bound.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from dispatcher.core.errors import StoreUnavailableError
from dispatcher.core.failing import is_to_be_disabled, passed_threshold
from dispatcher.core.matching import is_operational
from dispatcher.core.model import EndpointId, Outcome, Reason, Trigger
from dispatcher.delivery.ports import DeliveryStore, EndpointStore
from dispatcher.delivery.types import AttemptResult, Settled
from dispatcher.runtime import probe
from dispatcher.runtime.backoff import retry
from dispatcher.runtime.clock import Clock
from dispatcher.store.deliveries import AttemptRow, MoveRow, Recorded
from dispatcher.store.routing import Health

_log = structlog.get_logger("dispatcher.delivery.recorder")

Value = TypeVar("Value")

BATCHES_AT_ONCE = 2


class Recorder:
    """Results on their way into the database; `add` and `run` are called on one event loop."""

    def __init__(
        self,
        store: DeliveryStore,
        health: EndpointStore,
        *,
        settled: Settled,
        flushed: Callable[[int, float], None],
        clock: Clock,
        batch_rows_max: int,
        pending_rows_max: int,
        flush_seconds: float,
        failing_seconds_max: float,
        failed_attempts_min: int,
    ) -> None:
        self._store = store
        self._health = health
        self._settled = settled
        self._flushed = flushed
        self._clock = clock
        self._batch_rows_max = batch_rows_max
        self._pending_rows_max = pending_rows_max
        self._flush_seconds = flush_seconds
        self._failing_seconds_max = failing_seconds_max
        self._failed_attempts_min = failed_attempts_min
        self._pending: list[AttemptResult] = []
        self._batch: list[AttemptResult] = []
        self._flushing = 0
        self._failing: set[EndpointId] = set()
        self._first = asyncio.Event()
        self._full = asyncio.Event()
        self._stopping = False
        self.empty = asyncio.Event()
        """Set while every result that came is recorded."""
        self.empty.set()

    def __len__(self) -> int:
        return len(self._pending) + self._flushing

    def has_room(self) -> bool:
        """Tells whether results of new attempts can be taken."""
        return len(self._pending) + self._flushing < self._pending_rows_max

    def add(self, result: AttemptResult) -> None:
        """Takes a result; never waits, since what has happened must be kept."""
        self._pending.append(result)
        if len(self._pending) == 1:
            self.empty.clear()
            self._first.set()
        elif len(self._pending) == self._batch_rows_max:
            self._full.set()

    def holds(self, shard: int) -> bool:
        """Tells whether a result of this shard is not recorded yet."""
        return any(r.endpoint.shard == shard for r in (*self._batch, *self._pending))

    def known_to_fail(self, endpoint_ids: set[EndpointId]) -> None:
        """Learns from the database which endpoints failed before this process looked at them."""
        self._failing |= endpoint_ids

    def stop(self) -> None:
        """Lets `run` end once everything is recorded."""
        self._stopping = True
        self._first.set()
        self._full.set()

    async def run(self) -> None:
        """Flushes until stopped and empty; a cancellation does not tear a flush apart."""
        while True:
            await self._first.wait()
            if not self._stopping and len(self._pending) < self._batch_rows_max:
                try:
                    async with asyncio.timeout(self._flush_seconds):
                        await self._full.wait()
                except TimeoutError:
                    pass
            # More than a batch may have come while the last one was flushed: the larger the batch,
            # the fewer round trips a result costs.
            rows_max = BATCHES_AT_ONCE * self._batch_rows_max
            batch, self._pending = self._pending[:rows_max], self._pending[rows_max:]
            self._batch = batch
            self._flushing = len(batch)
            if not self._stopping and len(self._pending) < self._batch_rows_max:
                self._full.clear()
                if not self._pending:
                    self._first.clear()
            if batch:
                await self._flush(batch)
                self._batch = []
            if not self._pending:
                self.empty.set()
            if self._stopping and not self._pending:
                return

    async def _flush(self, batch: list[AttemptResult]) -> None:
        """Records a batch in groups of one token a shard, which is one group but for a takeover."""
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
        """Records a group; `attempt` takes the place of the row that Postgres refused."""
        started = self._clock.monotonic()
        attempts = [attempt] if attempt is not None else [_attempt(result) for result in group]
        try:
            recorded = await self._until_done(
                lambda: self._store.record(
                    [self._move(result) for result in group], attempts, tokens
                ),
                len(group),
            )
        except Exception as error:  # noqa: BLE001 -- whatever Postgres refuses, only its row may suffer
            if len(group) == 1 and attempt is None:
                _log.exception("recorder.refused", delivery_id=group[0].delivery.id)
                await self._record(group, tokens, _bare(attempts[0], error))
                return
            if len(group) == 1:
                # Not even what we made ourselves is taken. It stays open, and memory goes on taking it
                # for being recorded: this process, at least, sends it no second time.
                _log.error("recorder.set_aside", delivery_id=group[0].delivery.id, error=str(error))
                self._flushing -= 1
                return
            half = len(group) // 2
            await self._record(group[:half], tokens)
            await self._record(group[half:], tokens)
            return
        await self._follow_up(group, recorded)
        self._flushing -= len(group)
        self._flushed(len(group), self._clock.monotonic() - started)
        self._settled(group, recorded.fenced)
        probe.hit("recorder.flushed", rows=len(group))

    async def _until_done(
        self, action: Callable[[], Awaitable[Value]], results_count: int
    ) -> Value:
        """Repeats an idempotent action, with backoff, until Postgres has done it."""
        return await retry(
            action,
            on=StoreUnavailableError,
            failed=lambda error: _log.warning(
                "recorder.waits", results=results_count, error=str(error)
            ),
        )

    def _move(self, result: AttemptResult) -> MoveRow:
        decision = result.decision
        due = decision.next_delay_seconds
        if due is not None:
            due -= self._clock.monotonic() - result.finished_at_monotonic
        return MoveRow(
            result.endpoint.shard,
            result.delivery.id,
            result.attempt_number,
            decision.state,
            decision.reason,
            decision.schedule_position,
            due,
        )

    async def _follow_up(self, group: list[AttemptResult], recorded: Recorded) -> None:
        """Does what results mean beyond their deliveries: requests answered, endpoints failing, mended or gone."""
        manual = [
            (r.delivery.id, r.attempted_at, r.answer.outcome is Outcome.OK)
            for r in group
            if r.delivery.trigger is Trigger.MANUAL or r.delivery.id in recorded.late
        ]
        if manual:
            await self._until_done(lambda: self._store.settle_requests(manual), len(manual))
        for result in group:
            if result.decision.disables_endpoint and result.delivery.id not in recorded.fenced:
                await self._disable(
                    result.endpoint.id,
                    Reason.GONE,
                    raises_event=not is_operational(result.delivery.event_type),
                )
        failed = [
            r
            for r in group
            if r.answer.outcome is not Outcome.OK
            and r.delivery.trigger is not Trigger.TEST
            and r.endpoint.problem is None  # our configuration failed, not the receiver
        ]
        mended = {r.endpoint.id for r in group if r.answer.outcome is Outcome.OK} & self._failing
        if mended:
            await self._until_done(lambda: self._health.clear_failures(sorted(mended)), len(mended))
            self._failing -= mended
        if failed:
            counts = Counter(r.endpoint.id for r in failed)
            first = {r.endpoint.id: r.attempted_at for r in reversed(failed)}
            self._failing |= counts.keys()
            raising = {r.endpoint.id for r in failed if not is_operational(r.delivery.event_type)}
            failures = [
                (endpoint_id, first[endpoint_id], count, endpoint_id in raising)
                for endpoint_id, count in sorted(counts.items())
            ]
            for health in await self._until_done(
                lambda: self._health.count_failures(failures), len(failed)
            ):
                await self._judge(health, raises_event=health.endpoint_id in raising)

    async def _judge(self, health: Health, *, raises_event: bool) -> None:
        """Disables an endpoint that has failed for long enough, or warns that it will be."""
        if is_to_be_disabled(
            failing_seconds=health.failing_seconds,
            disabled_after_seconds=self._failing_seconds_max,
            failed_attempts=health.failed_attempts,
            failed_attempts_min=self._failed_attempts_min,
        ):
            await self._disable(
                health.endpoint_id, Reason.FAILING_TOO_LONG, raises_event=raises_event
            )
            return
        percent = passed_threshold(health.failing_seconds, self._failing_seconds_max)
        if raises_event and percent > health.warned_percent:
            await self._warn(health.endpoint_id, percent)

    async def _warn(self, endpoint_id: EndpointId, percent: int) -> None:
        if await self._until_done(lambda: self._health.warn(endpoint_id, percent), 1):
            _log.warning("endpoint.failing", endpoint_id=endpoint_id, percent=percent)

    async def _disable(
        self, endpoint_id: EndpointId, reason: Reason, *, raises_event: bool
    ) -> None:
        if await self._until_done(
            lambda: self._health.disable(endpoint_id, reason, raises_event=raises_event), 1
        ):
            _log.warning("endpoint.disabled", endpoint_id=endpoint_id, reason=reason)


def _bare(attempt: AttemptRow, error: Exception) -> AttemptRow:
    """Returns the attempt without what the receiver had a hand in."""
    text = f"what the receiver answered cannot be stored: {type(error).__name__}"
    return attempt._replace(peer=None, response_body=None, error=text)


def _attempt(result: AttemptResult) -> AttemptRow:
    answer = result.answer
    dns, connect, wait, read = answer.phases
    error = answer.error
    return AttemptRow(
        result.delivery.day,
        result.delivery.id,
        result.attempt_number,
        result.delivery.trigger,
        answer.outcome,
        answer.flags or None,
        result.attempted_at,
        result.latency_seconds,
        dns,
        connect,
        wait,
        read,
        answer.reused,
        answer.peer,
        result.endpoint.url,
        answer.status,
        answer.body or None,
        error if error is None else error.replace("\0", "\N{REPLACEMENT CHARACTER}"),
    )
