"""The tables `job` and `job_delivery`: bulk resends and replays, and the deliveries that they started.

`JobWalk` (job_walk.py) reads what a job's filter finds. Operations create jobs and change their
states; the runner (maintenance/jobs.py) leases them and moves them on.
"""

from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import orjson

from dispatcher.store.claims import announce_arrivals
from dispatcher.store.day_walk import PLAN_FOR_VALUES
from dispatcher.store.delivery_requests import notify_dispatchers
from dispatcher.store.pool import Database, columns
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.pool import Reach

_INSERT = statement("job_insert")
_COUNT_UNSETTLED = statement("job_count_unsettled")
_PAGE = statement("job_page")
_CHANGE_STATE = statement("job_change_state")
_CLAIM = statement("job_claim")
_OWNED = statement("job_list_owned")
_RELEASE = statement("job_release")
_LOCK = statement("job_lock")
_ADVANCE = statement("job_advance")
_REPORT = statement("job_report")
_FORGET = statement("job_forget")
_STARTED = statement("job_delivery_list")
_SETTLE = {
    "resend": statement("job_delivery_settle_resends"),
    "replay": statement("job_delivery_settle_replays"),
}
_ENDED = frozenset({"completed", "cancelled", "failed"})
_DAYS_AT_ONCE = 16
"""Days of history that one statement reads; it locks only their partitions (store/day_walk.py)."""


class JobRow(NamedTuple):
    """A job as it is stored; `filter`, `criteria` and `skipped` are JSON texts."""

    id: str
    kind: str
    tenant: str | None
    filter: str
    criteria: str
    target_id: str | None
    rate_per_second: float
    requested_by: str
    state: str
    reason: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    cursor: str | None
    is_walked: bool
    total_count: int | None
    started_count: int
    skipped: str
    succeeded_count: int
    failed_count: int
    cancelled_count: int

    @property
    def waiting_count(self) -> int:
        """The deliveries that it started and that have not ended."""
        ended = self.succeeded_count + self.failed_count + self.cancelled_count
        return max(0, self.started_count - ended)

    def skips(self) -> dict[str, int]:
        """Return how many deliveries could not be sent, by the reason."""
        counts: dict[str, int] = orjson.loads(self.skipped)
        return counts


class StartedRow(NamedTuple):
    """A delivery that a job started."""

    id: UUID
    day: date
    event_id: str
    endpoint_no: int
    attempt_count: int


class Settled(NamedTuple):
    """What became of started deliveries."""

    succeeded_count: int = 0
    failed_count: int = 0
    cancelled_count: int = 0
    due_count: int = 0
    """Those that could be sent now and were not."""

    def plus(self, other: "Settled") -> "Settled":
        """Return the sum."""
        return Settled(*(one + two for one, two in zip(self, other, strict=True)))


class Change(NamedTuple):
    """What a step changes about its job."""

    cursor: str | None
    is_walked: bool
    state: str
    reason: str | None = None
    started_count: int = 0
    skipped: str = "{}"
    total_count: int | None = None
    settled: Settled = Settled()
    is_settled: bool = False


def unchanged(job: JobRow) -> Change:
    """Return the change that changes nothing."""
    return Change(job.cursor, job.is_walked, job.state, job.reason, skipped=job.skipped)


def _job(row: "Record") -> JobRow:
    return JobRow(*(row[name] for name in JobRow._fields))


# For operations


async def insert_job(connection: "Reach", values: Sequence[object]) -> None:
    """Insert a job; values in the order of the statement."""
    await connection.execute(_INSERT, *values)


async def count_unsettled(connection: "Reach", rows_max: int) -> int:
    """Return how many jobs go on, up to a limit."""
    return int(await connection.fetchval(_COUNT_UNSETTLED, rows_max))


async def page_of_jobs(connection: "Reach", filters: Sequence[object]) -> list[JobRow]:
    """Return a page; `filters` in the order of the statement, the id last."""
    return [_job(row) for row in await connection.fetch(_PAGE, *filters)]


async def find_job(connection: "Reach", job_id: str, tenant: str | None) -> JobRow | None:
    """Return a job; None: there is none of that id."""
    rows = await page_of_jobs(connection, [tenant, *(None,) * 4, 1, job_id])
    return rows[0] if rows else None


async def change_state(
    connection: "Reach", job_id: str, tenant: str | None, state: str, expected: Sequence[str]
) -> bool:
    """Change the state of a job; return whether it was in one of the expected states."""
    changed = await connection.fetchval(_CHANGE_STATE, job_id, tenant, state, list(expected))
    if changed is not None and state in _ENDED:
        await connection.execute(_REPORT, job_id)
    return changed is not None


# For the runner


async def lock_job(
    connection: "Reach", job_id: str, incarnation: str
) -> tuple[JobRow, str | None] | None:
    """Lock a job for a step; return it and the state of the one endpoint that it is about.

    None: another replica runs it now.
    """
    row = await connection.fetchrow(_LOCK, job_id, incarnation)
    return None if row is None else (_job(row), row["endpoint_state"])


async def advance_job(connection: "Reach", job: JobRow, change: Change) -> None:
    """Move a locked job on; report its end."""
    succeeded, failed, cancelled, _ = change.settled
    await connection.execute(
        _ADVANCE,
        job.id,
        change.cursor,
        change.is_walked,
        change.started_count,
        change.skipped,
        change.total_count,
        change.state,
        change.reason,
        succeeded,
        failed,
        cancelled,
        change.is_settled,
    )
    if change.state in _ENDED and job.state not in _ENDED:
        await connection.execute(_REPORT, job.id)


async def announce(connection: "Reach", kind: str) -> None:
    """Have every replica read the deliveries that a step started, once it is committed."""
    if kind == "resend":
        await notify_dispatchers(connection)
    else:
        await announce_arrivals(connection, "")


async def started_deliveries(
    connection: "Reach", job_id: str, above: UUID, rows_max: int
) -> list[StartedRow]:
    """Return the deliveries of a job that had not ended when it last looked, in order of their ids."""
    return [StartedRow(*row) for row in await connection.fetch(_STARTED, job_id, above, rows_max)]


async def settle_deliveries(connection: "Reach", kind: str, rows: Sequence[StartedRow]) -> Settled:
    """Take the deliveries that have ended out of their job, and return what became of them."""
    total = Settled()
    await connection.execute(PLAN_FOR_VALUES)
    days = sorted({row.day for row in rows})
    for first in range(0, len(days), _DAYS_AT_ONCE):
        some = set(days[first : first + _DAYS_AT_ONCE])
        values = columns([row for row in rows if row.day in some], 5)
        found = await connection.fetchrow(_SETTLE[kind], *values, sorted(some))
        assert found is not None  # noqa: S101 -- a SELECT of subqueries has one row
        total = total.plus(Settled(*found))
    return total


class Jobs:
    """The statements of the runner that are transactions of their own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(
        self, incarnation: str, lease_seconds: float, jobs_max: int, *, may_own: bool
    ) -> list[JobRow]:
        """Lease free jobs, renew our leases, and return the jobs that are ours; `may_own`: some may be ours already."""
        claimed = await self._database.execute(_CLAIM, incarnation, lease_seconds, jobs_max)
        if claimed == "UPDATE 0" and not may_own:
            return []
        return [_job(row) for row in await self._database.fetch(_OWNED, incarnation)]

    async def release(self, incarnation: str) -> None:
        """Release all our jobs."""
        await self._database.execute(_RELEASE, incarnation)

    async def forget(self, days: int, rows_max: int) -> int:
        """Delete a slice of the jobs that ended long ago; return how many."""
        return int(await self._database.fetch_value(_FORGET, days, rows_max))
