"""Jobs: bulk resends and replays, created, counted, paused, resumed, cancelled.

A job is a row: the dispatchers carry it out (maintenance/jobs.py). Its filter is read once, when it is
created, and covers only deliveries that were created before, so that every job ends.
"""

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import orjson

from dispatcher.admin.operations.context import ALL_TENANTS, Actor, Deployment, Role, allowed_tenant
from dispatcher.admin.operations.delivery_search import DeliverySearch
from dispatcher.admin.resources.delivery import DeliveriesQuery
from dispatcher.admin.resources.job import (
    EndpointRecovery,
    Job,
    JobCount,
    JobFilter,
    JobKind,
    JobPage,
    JobsQuery,
    JobState,
    NewJob,
)
from dispatcher.admin.resources.serialization import (
    Place,
    cursor_scope,
    page_of,
    read_cursor,
    time_text,
)
from dispatcher.core import ids
from dispatcher.core.errors import ConflictError, NotFoundError
from dispatcher.core.problems import problem
from dispatcher.store import jobs as store
from dispatcher.store.audit import write_audit
from dispatcher.store.delivery_requests import notify_dispatchers
from dispatcher.store.endpoints import TargetRow, find_targets
from dispatcher.store.job_walk import Criteria, JobWalk, Target
from dispatcher.store.jobs import JobRow

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

JOBS_MAX: Final = 32
"""Jobs that go on in a deployment; a replica runs as many."""
COUNT_SECONDS_MAX: Final = 45.0
"""How long a count goes on; a million deliveries take some 15 s."""
_GOING_ON: Final = ("pending", "running", "paused")


class _Plan(NamedTuple):
    """A job before it is created."""

    criteria: Criteria
    target: Target | None


class JobOperations:
    """The jobs of a deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._database = deployment.database
        self._search = DeliverySearch(deployment)

    async def create(self, actor: Actor, new: NewJob) -> Job:
        """Create a job, which a dispatcher carries out, and return it.

        Raises:
            ForbiddenError: no operator. NotFoundError: no such endpoint, or the tenant is not the
            actor's. ConflictError: the endpoint is deleted, or disabled and the job is a replay; or
            too many jobs are going on.
        """
        actor.require(Role.OPERATOR)
        unix_ms = int(self._deployment.clock.now().timestamp() * 1000)
        randomness = secrets.token_bytes(ids.RANDOMNESS_BYTES)
        job_id = ids.new_id(ids.JOB_PREFIX, unix_ms, randomness)
        async with self._database.reading() as connection:
            plan = await self._plan(connection, actor, new)
            given = new.filter.given()
            if plan.criteria.endpoint_id is not None:
                given["endpoint_id"] = plan.criteria.endpoint_id
            if await store.count_unsettled(connection, JOBS_MAX) >= JOBS_MAX:
                raise ConflictError(problem("kind", "too_many_jobs", maximum=JOBS_MAX))
            tenant = plan.criteria.tenant
            target_id = None if plan.target is None else plan.target.id
            await store.insert_job(
                connection,
                [
                    job_id,
                    new.kind,
                    tenant,
                    orjson.dumps(given).decode(),
                    plan.criteria.write(),
                    target_id,
                    float(new.rate_per_second),
                    actor.name,
                ],
            )
            detail = {
                "kind": new.kind,
                "filter": given,
                "to": target_id,
                "rate_per_second": new.rate_per_second,
            }
            whose = tenant or ALL_TENANTS
            await write_audit(connection, actor.name, whose, "job.create", job_id, detail)
            job = _found(await store.find_job(connection, job_id, None), job_id)
        return _job_of(job)

    async def count(self, actor: Actor, new: NewJob) -> JobCount:
        """Return what a job would start now, without creating it.

        Raises:
            As `create`.
        """
        actor.require(Role.OPERATOR)
        async with self._database.reading() as connection:
            plan = await self._plan(connection, actor, new)
        walk = JobWalk(new.kind, plan.criteria, plan.target)
        clock = self._deployment.clock
        end_at = clock.monotonic() + COUNT_SECONDS_MAX
        cursor, count, skips = None, 0, Counter[str]()
        while True:
            batch = await walk.next(self._database, cursor)
            cursor = batch.cursor
            for one in batch.candidates:
                if one.obstacle is None:
                    count += 1
                else:
                    skips[one.obstacle] += 1
            if batch.is_end or clock.monotonic() > end_at:
                reached = None if batch.is_end else walk.reached(cursor)
                return JobCount(
                    count=count,
                    skipped=dict(skips),
                    is_complete=batch.is_end,
                    counted_until=None if reached is None else time_text(reached),
                )

    async def recover(self, actor: Actor, endpoint_id: str, recovery: EndpointRecovery) -> Job:
        """Create the replay of what an endpoint did not get since a time, and return it.

        Raises:
            As `create`.
        """
        return await self.create(actor, recovery_of(endpoint_id, recovery))

    async def count_recovery(
        self, actor: Actor, endpoint_id: str, recovery: EndpointRecovery
    ) -> JobCount:
        """Return what a recovery would start now.

        Raises:
            As `create`.
        """
        return await self.count(actor, recovery_of(endpoint_id, recovery))

    async def page(
        self,
        actor: Actor,
        query: JobsQuery = JobsQuery(),  # noqa: B008 -- frozen
    ) -> JobPage:
        """Return a page of jobs, newest first.

        Raises:
            InvalidRequestError: the cursor is another filter's. NotFoundError: the tenant is not the
            actor's.
        """
        tenant = allowed_tenant(actor, query.tenant)
        scope = cursor_scope("jobs", actor.tenant, query.given())
        place = read_cursor(query.cursor, scope) or (None, None)
        filters = [tenant, query.state, query.kind, *place, query.limit + 1, None]
        async with self._database.reading() as connection:
            rows = await store.page_of_jobs(connection, filters)
        items, next_cursor = page_of(
            rows, query.limit, lambda row: Place(row.created_at, row.id), _job_of, scope=scope
        )
        return JobPage(items=items, next_cursor=next_cursor)

    async def show(self, actor: Actor, job_id: str) -> Job:
        """Return a job.

        Raises:
            NotFoundError: there is none of that id.
        """
        async with self._database.reading() as connection:
            return _job_of(_found(await store.find_job(connection, job_id, actor.tenant), job_id))

    async def pause(self, actor: Actor, job_id: str) -> Job:
        """Start no more deliveries until the job is resumed; those that were started go on.

        Raises:
            ForbiddenError: no operator. NotFoundError: no such job. ConflictError: it is not running.
        """
        return await self._change(
            actor, job_id, "pause", "paused", ("pending", "running"), "job_not_running"
        )

    async def resume(self, actor: Actor, job_id: str) -> Job:
        """Let a paused job go on behind its last delivery.

        Raises:
            ForbiddenError: no operator. NotFoundError: no such job. ConflictError: it is not paused.
        """
        return await self._change(actor, job_id, "resume", "running", ("paused",), "job_not_paused")

    async def cancel(self, actor: Actor, job_id: str) -> Job:
        """End a job; the deliveries that it has started go on.

        Raises:
            ForbiddenError: no operator. NotFoundError: no such job. ConflictError: it has ended.
        """
        return await self._change(actor, job_id, "cancel", "cancelled", _GOING_ON, "job_ended")

    async def _change(
        self,
        actor: Actor,
        job_id: str,
        verb: str,
        state: str,
        expected: tuple[str, ...],
        conflict: str,
    ) -> Job:
        actor.require(Role.OPERATOR)
        async with self._database.transaction() as connection:
            changed = await store.change_state(connection, job_id, actor.tenant, state, expected)
            job = _found(await store.find_job(connection, job_id, actor.tenant), job_id)
            if not changed:
                raise ConflictError(problem("state", conflict, state=job.state))
            whose = job.tenant or ALL_TENANTS
            detail = {"kind": job.kind, "started_count": job.started_count}
            await write_audit(connection, actor.name, whose, f"job.{verb}", job_id, detail)
            await notify_dispatchers(connection)
        return _job_of(job)

    async def _plan(self, connection: "Reach", actor: Actor, new: NewJob) -> _Plan:
        """Read the filter and the endpoints of a job."""
        wanted: DeliveriesQuery = new.filter.query()
        criteria = await self._search.criteria(
            connection, actor, wanted, self._deployment.clock.now()
        )
        criteria = replace(
            criteria,
            recoverable=bool(new.filter.recoverable),
            finished_since=new.filter.finished_since,
        )
        if new.filter.ids is not None:
            criteria = _of_ids(criteria, new.filter.ids)
        target = None
        if new.to is not None:
            found = await self._endpoint(connection, "to", new.to, criteria.tenant)
            _require_replayable(found)
            target = found.target
            criteria = replace(criteria, tenant=target.tenant)
        if criteria.endpoint_id is not None:
            source = await self._endpoint(
                connection, "filter.endpoint_id", criteria.endpoint_id, criteria.tenant
            )
            if target is None and source.state == "deleted":
                raise ConflictError(problem("filter.endpoint_id", "job_endpoint_deleted"))
            if target is None and new.kind == "replay":
                _require_replayable(source)
            criteria = replace(
                criteria,
                endpoint_id=source.target.id,
                endpoint_no=source.target.number,
                tenant=source.target.tenant,
            )
        return _Plan(criteria, target)

    async def _endpoint(
        self, connection: "Reach", field: str, id_or_name: str, tenant: str | None
    ) -> TargetRow:
        rows = await find_targets(connection, id_or_name, tenant, 2)
        if not rows:
            raise NotFoundError(problem(field, "endpoint_not_found", value=id_or_name))
        if len(rows) > 1 and rows[0].target.id != id_or_name:
            raise ConflictError(problem(field, "endpoint_ambiguous", value=id_or_name))
        return rows[0]


def _of_ids(criteria: Criteria, given: Sequence[str]) -> Criteria:
    """Return the criteria for certain deliveries: the walk reads the days of these alone."""
    known = [one for one in given if ids.is_id(one, ids.DELIVERY_PREFIX)]
    moments = [ids.moment_of(one) for one in known] or [criteria.until]
    first, last = min(moments), max(moments) + timedelta(milliseconds=1)
    return replace(
        criteria,
        ids=known,
        since=max(first, criteria.since or first),
        until=min(last, criteria.until),
    )


def recovery_of(endpoint_id: str, recovery: EndpointRecovery) -> NewJob:
    """Return the job that a recovery is."""
    return NewJob.of(
        kind="replay",
        filter=JobFilter.of(
            endpoint_id=endpoint_id, recoverable=True, finished_since=recovery.since
        ),
        rate_per_second=recovery.rate_per_second,
    )


def _require_replayable(endpoint: TargetRow) -> None:
    """Raise a conflict if an endpoint cannot take new deliveries."""
    if endpoint.state == "deleted":
        raise ConflictError(problem("to", "job_endpoint_deleted"))
    if endpoint.state == "disabled":
        raise ConflictError(problem("state", "endpoint_disabled"))


def _found(row: JobRow | None, job_id: str) -> JobRow:
    if row is None:
        raise NotFoundError(problem("id", "job_not_found", value=job_id))
    return row


def _job_of(row: JobRow) -> Job:
    return Job(
        id=row.id,
        kind=cast("JobKind", row.kind),
        state=cast("JobState", row.state),
        reason=row.reason,
        tenant=row.tenant,
        filter=orjson.loads(row.filter),
        to=row.target_id,
        rate_per_second=row.rate_per_second,
        requested_by=row.requested_by,
        created_at=time_text(row.created_at),
        updated_at=time_text(row.updated_at),
        finished_at=time_text(row.finished_at),
        total_count=row.total_count,
        started_count=row.started_count,
        waiting_count=row.waiting_count,
        succeeded_count=row.succeeded_count,
        failed_count=row.failed_count,
        cancelled_count=row.cancelled_count,
        skipped=row.skips(),
    )
