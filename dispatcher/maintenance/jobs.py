"""Runs jobs: bulk resends and replays, at a capped rate, next to live traffic.

    claim (a lease on the job) ──▶ count ──▶ step, step, step ... ──▶ settle ──▶ completed
                                              │ one transaction: deliveries started, cursor moved
                                              ▼
                                  delivery_request, delivery_open ──▶ the delivery path, as ever

What is always true: the state of a job is in Postgres. A step locks the job's row, starts some deliveries
and moves the cursor past them in one transaction, so each delivery of the filter is started once,
whatever crashes and however many replicas run. The lease only keeps two replicas from working on the same
job. Deliveries that were started belong to the delivery path: a job makes no request.

Live traffic: a step starts what the rate permits, some `STEP_DELIVERIES` up to 20 times per second, because live
deliveries wait for the processors behind the burst of a step. A job starts no more while two seconds' worth of its
deliveries wait for an endpoint that could be sent to, because live deliveries of that endpoint would queue
behind them. Statements examine bounded rows, and steps and walk rest as long as they worked. Memory holds one
batch per job, which is a cache.

Crash: the lease ends within `LEASE_SECONDS`, and another replica continues behind the cursor. Slow or
absent Postgres: the loop retries with backoff, and nothing is lost. Slow or dead receiver: its deliveries
wait in the job, up to `WAITING_MAX`, and the job waits for them.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from uuid import UUID

import orjson
import structlog

from dispatcher.core.errors import DataFaultError, StoreUnavailableError
from dispatcher.runtime import probe
from dispatcher.runtime.backoff import Backoff, Outage
from dispatcher.runtime.clock import Clock
from dispatcher.store import job_walk
from dispatcher.store.endpoints import find_target
from dispatcher.store.job_walk import Candidate, Criteria, JobWalk
from dispatcher.store.jobs import (
    Change,
    JobRow,
    Jobs,
    Settled,
    advance_job,
    announce,
    lock_job,
    settle_deliveries,
    started_deliveries,
    unchanged,
)
from dispatcher.store.pool import Database, data_faults

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_log = structlog.get_logger("dispatcher.maintenance.jobs")

LEASE_SECONDS: Final = 10.0
CLAIM_SECONDS: Final = 1.0
"""How often jobs are looked for, and changes that people made to ours."""
CLAIM_IDLE_SECONDS: Final = 2.0
"""How often jobs are looked for while this replica runs none."""
JOBS_MAX: Final = 32
"""Jobs that one replica runs at once; also the limit of jobs that go on in a deployment."""
STEP_DELIVERIES: Final = 20
"""How many deliveries a step starts, as far as the bounds below permit. A step costs some 3 ms of CPU time, and
its deliveries are sent in one burst, behind which live deliveries wait for the processors."""
STEP_SECONDS_MIN: Final = 0.05
STEP_SECONDS_MAX: Final = 0.2
CATCH_UP: Final = 2.0
"""How many times as much as is its share a step may start, after steps that were late."""
BURST_SECONDS: Final = 0.5
"""How much of its rate a job may catch up."""
DUE_SECONDS: Final = 2.0
"""How much of its rate may wait for endpoints that could be sent to."""
DUE_MIN: Final = 20
WAITING_MAX: Final = 10_000
SETTLED_AT_ONCE: Final = 2_000
SETTLE_SECONDS: Final = 1.0
SETTLE_IDLE_SECONDS: Final = 2.0
PERSIST_SECONDS: Final = 2.0
"""How often the cursor is written while the filter finds nothing."""
REST_SECONDS_MIN: Final = 0.02
FAULTS_MAX: Final = 3
_LOWEST: Final = UUID(int=0)


@dataclass(slots=True, kw_only=True)
class _Run:
    """A job of ours in memory; all of it can be read again from Postgres."""

    job: JobRow
    walk: JobWalk
    picked: deque[Candidate] = field(default_factory=deque)
    cursor: str | None = None
    """Behind everything that was examined."""
    is_end: bool = False
    count: int = 0
    credit_at: float = 0.0
    walk_at: float = 0.0
    persisted_at: float = 0.0
    settle_at: float = 0.0
    settled_to: UUID = _LOWEST
    pass_due_count: int = 0
    pass_waiting_count: int = 0
    due_count: int = 0
    waiting_count: int = 0
    faults: int = 0


class JobRunner:
    """One loop per replica; `started` is called with a job's kind after each step that started deliveries.

    `has_company` returns whether other replicas may have to load them.
    """

    def __init__(
        self,
        database: Database,
        incarnation: str,
        *,
        clock: Clock,
        started: Callable[[str], None] = lambda _: None,
        has_company: Callable[[], bool] = lambda: True,
    ) -> None:
        self._database = database
        self._jobs = Jobs(database)
        self._incarnation = incarnation
        self._clock = clock
        self._started = started
        self._has_company = has_company
        self._runs: dict[str, _Run] = {}
        self._stop = asyncio.Event()
        self._claim_at = 0.0
        self._may_own_others = True
        """Whether Postgres may have jobs of this replica that are not in `_runs`."""
        self._outage = Outage(_log, "jobs.stalled", "jobs.resumed")

    def stop(self) -> None:
        """End `run` after the statement that it is at; it releases the jobs."""
        self._stop.set()

    async def run(self) -> None:
        """Run jobs until stopped."""
        backoff = Backoff()
        while not self._stop.is_set():
            try:
                await self._round()
                self._outage.ended()
                backoff.reset()
            except StoreUnavailableError as error:
                self._outage.began(error)
                await backoff.pause(self._stop)
                continue
            try:
                async with asyncio.timeout(self._rest_seconds()):
                    await self._stop.wait()
            except TimeoutError:
                continue
        try:
            await self._jobs.release(self._incarnation)
        except StoreUnavailableError as error:
            _log.warning("jobs.release_failed", error=str(error))

    def _rest_seconds(self) -> float:
        now, next_at = self._clock.monotonic(), self._claim_at
        for run in self._runs.values():
            if run.job.state == "pending" or (run.job.state == "running" and not run.job.is_walked):
                next_at = min(next_at, run.walk_at)
            next_at = min(next_at, run.settle_at)
        return max(REST_SECONDS_MIN, next_at - now)

    async def _round(self) -> None:
        if self._clock.monotonic() >= self._claim_at:
            await self._claim()
        for run in list(self._runs.values()):
            if self._stop.is_set():
                return
            try:
                await self._turn(run)
                run.faults = 0
            except DataFaultError as error:
                await self._note_fault(run, error)

    async def _claim(self) -> None:
        may_own = self._may_own_others or bool(self._runs)
        self._may_own_others = True  # until all that is claimed now has begun
        rows = await self._jobs.claim(self._incarnation, LEASE_SECONDS, JOBS_MAX, may_own=may_own)
        self._claim_at = self._clock.monotonic() + (CLAIM_SECONDS if rows else CLAIM_IDLE_SECONDS)
        runs: dict[str, _Run] = {}
        for job in rows:
            run = self._runs.get(job.id)
            if run is not None and run.job.cursor == job.cursor:
                run.job = job
            else:
                run = await self._begin(job)
            runs[job.id] = run
        self._runs = runs
        self._may_own_others = False
        probe.hit("jobs.claimed", jobs=len(runs))

    async def _begin(self, job: JobRow) -> _Run:
        """Return a job as it is taken over: behind its cursor, with nothing in memory."""
        target = None
        if job.target_id is not None:
            async with self._database.transaction() as connection:
                found = await find_target(connection, job.target_id)
            if found is not None:
                target = found.target
        walk = JobWalk(job.kind, Criteria.read(job.criteria), target, job.id)
        now = self._clock.monotonic()
        run = _Run(job=job, walk=walk, cursor=job.cursor, credit_at=now, persisted_at=now)
        run.waiting_count = job.waiting_count
        if job.total_count is not None:
            _log.info("job.taken_over", job_id=job.id, started=job.started_count)
            self._started(job.kind)  # the last step may have been committed without a response
        return run

    async def _turn(self, run: _Run) -> None:
        now = self._clock.monotonic()
        if run.job.state == "pending" and now >= run.walk_at:
            await self._count(run)
        elif run.job.state == "running" and not run.job.is_walked and now >= run.walk_at:
            await self._step(run)
        if self._clock.monotonic() >= run.settle_at:
            await self._settle(run)

    async def _count(self, run: _Run) -> None:
        """Count some more of what the job will start; with the last ones it is running."""
        began = self._clock.monotonic()
        batch = await run.walk.next(self._database, run.cursor)
        run.count += sum(one.obstacle is None for one in batch.candidates)
        run.cursor = batch.cursor
        now = self._clock.monotonic()
        run.walk_at = now + max(REST_SECONDS_MIN, now - began)
        if not batch.is_end:
            return
        async with self._database.transaction() as connection:
            job = await self._locked(connection, run)
            if job is None or job.state != "pending":
                return
            change = unchanged(job)._replace(state="running", total_count=run.count)
            await advance_job(connection, job, change)
        run.job = job._replace(state="running", total_count=run.count)
        run.cursor, run.is_end = job.cursor, False
        run.credit_at = self._clock.monotonic()
        _log.info("job.started", job_id=job.id, kind=job.kind, deliveries=run.count)

    async def _locked(self, connection: "Reach", run: _Run) -> JobRow | None:
        """Lock the job; None: it is not ours any more, or moved on without us."""
        locked = await lock_job(connection, run.job.id, self._incarnation)
        if locked is None or locked[0].cursor != run.job.cursor:
            self._drop(run)
            return None
        return locked[0]

    async def _step(self, run: _Run) -> None:
        """Start what the rate permits now, and move the cursor past it."""
        now = self._clock.monotonic()
        rate = run.job.rate_per_second
        credit = min(rate * (now - run.credit_at), max(1.0, rate * BURST_SECONDS))
        room = min(
            max(DUE_MIN, int(rate * DUE_SECONDS)) - run.due_count, WAITING_MAX - run.waiting_count
        )
        seconds = _step_seconds(rate)
        limit = min(int(credit), room, max(1, int(rate * seconds * CATCH_UP)))
        run.walk_at = now + seconds
        if limit < 1:
            return
        if not run.picked and not run.is_end:
            batch = await run.walk.next(self._database, run.cursor)
            run.picked.extend(batch.candidates)
            run.cursor, run.is_end = batch.cursor, batch.is_end
            if not run.picked and not run.is_end:
                # Nothing fits here: walk on, resting as long as the statement took.
                after = self._clock.monotonic()
                run.walk_at = after + max(REST_SECONDS_MIN, after - now)
                if after - run.persisted_at < PERSIST_SECONDS:
                    return
        taken, skips = _take(run.picked, limit)
        last = len(run.picked) == 0
        cursor = run.cursor if last else taken[-1].cursor
        free = [one for one in taken if one.obstacle is None]
        await self._start(run, free, skips, cursor, is_walked=last and run.is_end)
        # Unused credit is kept up to the burst; what was started is taken off.
        run.credit_at = max(run.credit_at, now - BURST_SECONDS) + len(free) / rate
        # A step that takes long shares the processors or the disk with other work, which comes first.
        after = self._clock.monotonic()
        run.walk_at = max(run.walk_at, after + (after - now))

    async def _start(
        self,
        run: _Run,
        free: list[Candidate],
        skips: "Counter[str]",
        cursor: str | None,
        *,
        is_walked: bool,
    ) -> None:
        started = 0
        try:
            with data_faults():
                async with self._database.transaction() as connection:
                    locked = await lock_job(connection, run.job.id, self._incarnation)
                    job = locked[0] if locked is not None else None
                    if locked is None or job is None or job.cursor != run.job.cursor:
                        self._drop(run)
                        return
                    if job.state != "running":
                        self._reset(run, job)
                        return
                    if self._obstacle(job, locked[1]) is not None:
                        await self._hold(connection, run, job, str(locked[1]))
                        return
                    if free:
                        started = await job_walk.start(
                            connection,
                            job.kind,
                            free,
                            target_id=job.target_id,
                            job_id=job.id,
                            actor=job.requested_by,
                        )
                    if started < len(free):
                        skips["changed_meanwhile"] += len(free) - started
                    skipped = orjson.dumps(dict(Counter(job.skips()) + skips)).decode()
                    change = Change(
                        cursor, is_walked, "running", None, started_count=started, skipped=skipped
                    )
                    await advance_job(connection, job, change)
                    if started and self._has_company():
                        # Alone, a NOTIFY would only make producers' commits wait for this one.
                        await announce(connection, job.kind)
        except StoreUnavailableError:
            self._drop(run)  # the step may be committed: the cursor in Postgres decides
            raise
        run.job = job._replace(
            cursor=cursor,
            is_walked=is_walked,
            started_count=job.started_count + started,
            skipped=skipped,
            reason=None,
        )
        run.persisted_at = self._clock.monotonic()
        run.due_count += started
        run.waiting_count += started
        if started:
            self._started(job.kind)
        if is_walked:
            run.settle_at = min(run.settle_at, self._clock.monotonic())
            _log.info("job.walked", job_id=job.id, started=run.job.started_count)
        probe.hit("jobs.stepped", job_id=job.id, started=started)

    @staticmethod
    def _obstacle(job: JobRow, endpoint_state: str | None) -> str | None:
        """Return why the one endpoint of a job cannot be sent to now."""
        if endpoint_state == "deleted" or (
            job.kind == "replay" and endpoint_state in {"disabled", "paused"}
        ):
            return f"endpoint_{endpoint_state}"
        return None

    async def _hold(self, connection: "Reach", run: _Run, job: JobRow, endpoint_state: str) -> None:
        """End a job whose endpoint is deleted, pause it if that is disabled, and wait if that is paused."""
        reason = f"endpoint_{endpoint_state}"
        states = {"deleted": "failed", "disabled": "paused", "paused": "running"}
        state = states[endpoint_state]
        if (state, reason) != (job.state, job.reason):
            await advance_job(connection, job, unchanged(job)._replace(state=state, reason=reason))
            _log.warning("job.suspended", job_id=job.id, state=state, reason=reason)
        self._reset(run, job._replace(state=state, reason=reason))
        run.walk_at = self._clock.monotonic() + CLAIM_SECONDS

    def _reset(self, run: _Run, job: JobRow) -> None:
        """Forget what was picked: the job does not go on now, and its deliveries may change."""
        run.job, run.cursor, run.is_end = job, job.cursor, False
        run.picked.clear()

    def _drop(self, run: _Run) -> None:
        """Forget a job that moved on without us; the next claim reads it again if it is ours."""
        self._runs.pop(run.job.id, None)
        self._may_own_others = True
        self._claim_at = 0.0

    async def _settle(self, run: _Run) -> None:
        """Count the started deliveries that have ended; end the job with the last of them."""
        settled = Settled()
        with data_faults():
            async with self._database.transaction() as connection:
                locked = await lock_job(connection, run.job.id, self._incarnation)
                if locked is None:
                    self._drop(run)
                    return
                job = locked[0]
                rows = await started_deliveries(connection, job.id, run.settled_to, SETTLED_AT_ONCE)
                if rows:
                    settled = await settle_deliveries(connection, job.kind, rows)
                ended = settled.succeeded_count + settled.failed_count + settled.cancelled_count
                run.pass_due_count += settled.due_count
                run.pass_waiting_count += len(rows) - ended
                is_whole = len(rows) < SETTLED_AT_ONCE
                state, is_settled = job.state, False
                if is_whole and not run.pass_waiting_count:
                    if state == "running" and job.is_walked:
                        state = "completed"
                    is_settled = state in {"completed", "cancelled", "failed"}
                if ended or is_settled:
                    change = unchanged(job)._replace(
                        settled=settled, state=state, is_settled=is_settled
                    )
                    await advance_job(connection, job, change)
        now = self._clock.monotonic()
        run.settled_to = _LOWEST if is_whole else rows[-1].id
        if is_whole:
            run.due_count, run.waiting_count = run.pass_due_count, run.pass_waiting_count
            run.pass_due_count = run.pass_waiting_count = 0
            is_idle = job.is_walked or job.state != "running" or run.waiting_count > SETTLED_AT_ONCE
            run.settle_at = now + (
                SETTLE_IDLE_SECONDS if is_idle and not run.due_count else SETTLE_SECONDS
            )
        else:
            run.settle_at = now + REST_SECONDS_MIN
        if job.cursor == run.job.cursor:
            run.job = job._replace(state=state)
        if is_settled:
            self._runs.pop(job.id, None)
            _log.info(
                "job.settled", job_id=job.id, state=state, started=job.started_count,
                succeeded=job.succeeded_count + settled.succeeded_count,
                failed=job.failed_count + settled.failed_count,
                cancelled=job.cancelled_count + settled.cancelled_count,
            )  # fmt: skip
        probe.hit("jobs.settled", job_id=job.id, state=state, is_settled=is_settled)

    async def _note_fault(self, run: _Run, error: DataFaultError) -> None:
        """Retry a step that Postgres refuses for a row, and fail the job if it refuses again and again."""
        run.faults += 1
        faults = run.faults
        _log.error("job.refused", job_id=run.job.id, error=str(error))
        self._reset(run, run.job)
        run.walk_at = run.settle_at = self._clock.monotonic() + CLAIM_SECONDS
        self._runs.setdefault(run.job.id, run)
        if faults < FAULTS_MAX:
            return
        async with self._database.transaction() as connection:
            locked = await lock_job(connection, run.job.id, self._incarnation)
            if locked is not None and locked[0].finished_at is None:
                change = unchanged(locked[0])._replace(state="failed", reason="data_fault")
                await advance_job(connection, locked[0], change)


def _step_seconds(rate: float) -> float:
    """Return how long after a step the next one may be made."""
    seconds = min(max(STEP_DELIVERIES / rate, STEP_SECONDS_MIN), STEP_SECONDS_MAX)
    return max(seconds, min(1.0, 1 / rate))


def _take(picked: deque[Candidate], limit: int) -> tuple[list[Candidate], "Counter[str]"]:
    """Take candidates with at most `limit` that can be sent; count the obstacles of the others."""
    taken: list[Candidate] = []
    skips: Counter[str] = Counter()
    free = 0
    while picked and (free < limit or picked[0].obstacle is not None):
        one = picked.popleft()
        taken.append(one)
        if one.obstacle is None:
            free += 1
        else:
            skips[one.obstacle] += 1
    return taken, skips
