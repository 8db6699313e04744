"""Jobs on the real database: what a filter comes to, how a step starts it, and that nothing is started twice.

The runner's rounds are called by hand, on a clock that the test moves: no test waits for a rate.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, time, timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.operations.jobs import JOBS_MAX, JobOperations
from dispatcher.admin.resources.job import EndpointRecovery, Job, JobFilter, NewJob
from dispatcher.core import ids
from dispatcher.core.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    StoreUnavailableError,
)
from dispatcher.maintenance import jobs as runner_module
from dispatcher.maintenance.jobs import JobRunner
from dispatcher.store import job_walk
from dispatcher.store.deliveries import Deliveries
from dispatcher.store.delivery_ids import uuid_of
from dispatcher.store.jobs import announce as real_announce
from dispatcher.store.listener import CHANNEL_ARRIVED
from dispatcher.store.pool import Database
from tests.support.clock import ManualClock
from tests.support.history import make_day
from tests.support.story import ACME, ALL, Story

pytestmark = pytest.mark.postgres


class Runners:
    """Runners of one database, by the name of their replica, on one clock."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = ManualClock()
        self.started: list[str] = []

    def runner(self, name: str = "a") -> JobRunner:
        return JobRunner(self.database, name, clock=self.clock, started=self.started.append)

    async def counted(self, runner: JobRunner) -> None:
        """Let the runner go round until every job is counted: a step covers a month of partitions."""
        waiting = "SELECT count(*) FROM dispatcher.job WHERE state = 'pending'"
        while await self.database.fetch_value(waiting):
            await self.rounds(runner, seconds=1.1)

    async def rounds(self, runner: JobRunner, count: int = 1, seconds: float = 2.5) -> None:
        """Let the runner go round, each time so many seconds later."""
        for _ in range(count):
            self.clock.advance(seconds)
            await runner._round()


@pytest.fixture
async def runners(database: str) -> AsyncIterator[Runners]:
    pool = Database(database, connections_max=4)
    await pool.open()
    yield Runners(pool)
    await pool.close()


def job(
    kind: str = "replay", *, to: str | None = None, rate: float = 1000.0, **wanted: Any
) -> NewJob:
    return NewJob.of(kind=kind, filter=JobFilter.of(**wanted), to=to, rate_per_second=rate)


async def end_open(sql: Any, state: int = 3) -> int:
    """End every open delivery after one more attempt, as the recorder does; return how many."""
    status = await sql.execute(
        """
        WITH gone AS (DELETE FROM dispatcher.delivery_open RETURNING *), made AS (
            INSERT INTO dispatcher.attempt (day, event_id, endpoint_no, delivery_id, attempt_number, trigger, outcome,
                attempted_at, latency_seconds, reused, revision, response_code)
            SELECT day, event_id, endpoint_no, id, attempt_count + 1, 3, CASE WHEN $1 = 3 THEN 1 ELSE 2 END,
                   clock_timestamp(), 0.1, false, 1, CASE WHEN $1 = 3 THEN 200 ELSE 500 END FROM gone)
        INSERT INTO dispatcher.delivery_done (id, day, event_id, endpoint_no, event_type_code, state, reason,
            attempt_count, schedule_position)
        SELECT id, day, event_id, endpoint_no, event_type_code, $1::smallint, CASE WHEN $1 = 3 THEN NULL ELSE 1 END,
               attempt_count + 1, 1 FROM gone
        """,
        state,
    )
    return int(status.rpartition(" ")[2])


async def shown(deployment: Deployment, made: Job) -> Job:
    return await JobOperations(deployment).show(ALL, made.id)


@pytest.fixture
async def mixed(deployment: Deployment, story: Story, connection: Any) -> list[str]:
    """Failed deliveries of two endpoints, and some of each kind that cannot be sent; return the ids of the former."""
    endpoint, other = await story.endpoint("erp"), await story.endpoint("other")
    gone = await story.endpoint("gone")
    failed = [await story.delivery(endpoint, f"e{n}", "failed") for n in range(5)]
    failed += [await story.delivery(other, f"e{n}", "failed") for n in range(2)]
    await story.delivery(endpoint, "succeeded", "succeeded")
    await story.delivery(gone, "e8", "failed")
    unencodable = await story.delivery(endpoint, "unencodable", "failed")
    await connection.execute(
        "UPDATE dispatcher.delivery_done SET reason = 8 WHERE id = $1",
        uuid_of(unencodable),
    )
    await story.delivery(endpoint, "erased", "failed")
    await connection.execute("UPDATE dispatcher.event SET erased_at = now() WHERE id = 'erased'")
    test = await story.delivery(endpoint, "test", "failed")
    await connection.execute(
        "UPDATE dispatcher.delivery_done SET test = true WHERE id = $1", uuid_of(test)
    )
    await Endpoints(deployment).delete(ALL, gone)
    return failed


@pytest.mark.parametrize("kind", ["resend", "replay"])
async def test_a_job_starts_exactly_what_a_dry_run_counts(
    deployment: Deployment, connection: Any, runners: Runners, mixed: list[str], kind: str
) -> None:
    operations = JobOperations(deployment)
    wanted = job(kind, state="failed")
    counted = await operations.count(ALL, wanted)
    assert (counted.count, counted.is_complete) == (len(mixed), True)
    assert counted.skipped == {"endpoint_deleted": 1, "unencodable_event": 1, "event_erased": 1}
    assert await connection.fetchval("SELECT count(*) FROM dispatcher.job_delivery") == 0
    made = await operations.create(ALL, wanted)
    runner = runners.runner()
    await runners.counted(runner)
    await runners.rounds(runner, 3)
    now = await shown(deployment, made)
    assert (now.total_count, now.started_count, now.waiting_count) == (7, 7, 7)
    assert now.skipped == counted.skipped
    assert now.state == "running", "its deliveries have not ended"
    if kind == "resend":
        table = "SELECT delivery_id FROM words.delivery_request WHERE requested_by = 'cli:tester'"
    else:
        table = (
            "SELECT id FROM words.delivery_open WHERE schedule_position = 0 AND state = 'pending'"
        )
    assert {row[0] for row in await connection.fetch(table)} == set(mixed)
    if kind == "resend":
        await connection.execute(
            "DELETE FROM dispatcher.delivery_request"
        )  # dropped without an attempt
    else:
        await end_open(connection)
    await runners.rounds(runner, 2)
    now = await shown(deployment, made)
    assert (now.state, now.waiting_count, now.finished_at is not None) == ("completed", 0, True)
    assert (now.succeeded_count, now.cancelled_count) == ((0, 7) if kind == "resend" else (7, 0))
    event = await connection.fetchrow("SELECT type, data, tenant FROM dispatcher.outbox")
    assert event["type"] == "dispatcher.job.finished"
    data = orjson.loads(event["data"])
    assert (data["job_id"], data["state"], data["started_count"]) == (made.id, "completed", 7)
    (audit,) = await connection.fetch("SELECT * FROM dispatcher.audit WHERE object = $1", made.id)
    assert (audit["action"], audit["actor"], audit["tenant"]) == ("job.create", "cli:tester", "*")


async def test_a_replay_keeps_id_body_and_attempts(
    deployment: Deployment, story: Story, connection: Any, runners: Runners
) -> None:
    endpoint = await story.endpoint()
    failed = await story.delivery(endpoint, "e1", "failed")
    cancelled = await story.delivery(endpoint, "e2", "cancelled")
    await connection.execute(
        "UPDATE dispatcher.delivery_done SET attempted_at = now(), latency_seconds = 1, trigger = 1, outcome = 2,"
        " reused = false, revision = 1, response_code = 500 WHERE event_id = 'e1'"
    )
    await connection.execute(
        "UPDATE dispatcher.delivery_done SET reason = 7, attempt_count = 0, schedule_position = 0"
        " WHERE event_id = 'e2'"
    )
    await JobOperations(deployment).create(ALL, job(endpoint_id=endpoint))
    runner = runners.runner()
    await runners.counted(runner)
    await runners.rounds(runner, 3)
    rows = {row.id: row for row in await Deliveries(runners.database).load([failed, cancelled])}  # type: ignore[list-item]  # ids
    assert {one: (rows[one].attempt_count, rows[one].is_replay) for one in rows} == {
        failed: (1, True),
        cancelled: (0, True),
    }
    kept = await connection.fetchrow("SELECT * FROM words.attempt WHERE delivery_id = $1", failed)
    assert (kept["attempt_number"], kept["trigger"], kept["response_code"]) == (1, "scheduled", 500)
    assert await end_open(connection, 4) == 2
    assert runners.started == ["replay"]


async def test_a_replay_to_another_endpoint_sends_each_event_once(
    deployment: Deployment, story: Story, connection: Any, runners: Runners
) -> None:
    first, second = await story.endpoint(), await story.endpoint("other")
    for number in range(4):
        await story.delivery(first, f"e{number}", "succeeded")
        await story.delivery(second, f"e{number}", "failed")
    await story.event("no delivery")
    await story.event("shipped", event_type="stock.changed")
    target = await story.endpoint("new", profile="wms", url="https://example.com/new")
    operations = JobOperations(deployment)
    since = story.now - timedelta(hours=1)
    await connection.execute(
        "UPDATE dispatcher.event SET accepted_at = now() - interval '1 minute'"
    )
    by_events = await operations.count(ALL, job(to="new", since=since))
    assert (by_events.count, by_events.skipped) == (5, {"not_subscribed": 1})
    by_deliveries = await operations.count(ALL, job(to=target, state="failed"))
    assert (by_deliveries.count, by_deliveries.skipped) == (4, {})
    both = await operations.count(ALL, job(to=target, finished_since=since))
    assert both.count == 4, "two deliveries of one event are one"
    made = await operations.create(ALL, job(to="new", since=since))
    runner = runners.runner()
    await runners.counted(runner)
    await runners.rounds(runner, 3)
    rows = await connection.fetch(
        "SELECT id, event_id, endpoint_id, profile FROM words.delivery_open ORDER BY event_id"
    )
    assert [row["event_id"] for row in rows] == ["e0", "e1", "e2", "e3", "no delivery"]
    assert {(row["endpoint_id"], row["profile"]) for row in rows} == {(target, "wms")}
    inserted = await connection.fetchval("SELECT inserted_at FROM dispatcher.event WHERE id = 'e0'")
    unix_ms = ids.delivery_unix_ms(inserted, inserted.astimezone(UTC).date())
    assert rows[0]["id"] == ids.delivery_id(unix_ms, "e0", target), "as fan-out would have made it"
    waits = await operations.count(ALL, job(to=target, event_type="order.created"))
    assert (waits.count, waits.skipped) == (0, {"in_another_job": 5})
    await end_open(connection)
    await runners.rounds(runner, 2)
    assert (await shown(deployment, made)).succeeded_count == 5
    again = await operations.count(ALL, job(to=target, since=since))
    assert again.count == 5, "what it got before is sent again, under the same ids"


async def test_a_delivery_is_in_one_job_at_a_time(
    deployment: Deployment, story: Story, connection: Any, runners: Runners
) -> None:
    endpoint = await story.endpoint()
    for number in range(4):
        await story.delivery(endpoint, f"e{number}", "failed")
    operations = JobOperations(deployment)
    first = await operations.create(ALL, job(state="failed"))
    second = await operations.create(ALL, job(endpoint_id=endpoint))
    third = await operations.create(ALL, job("resend", endpoint_id=endpoint))
    runner = runners.runner()
    await runners.counted(runner)
    await runners.rounds(runner, 4)
    found = [await shown(deployment, one) for one in (first, second, third)]
    assert sum(one.started_count for one in found) == 4
    assert await connection.fetchval("SELECT count(*) FROM dispatcher.delivery_open") == 4
    assert await connection.fetchval("SELECT count(*) FROM dispatcher.delivery_request") == 0
    skips = [sum(one.skipped.values()) for one in found]
    assert sorted(skips) in ([0, 4, 4], [0, 0, 4]), "the first one's, counted or no longer found"
    await end_open(connection)
    await runners.rounds(runner, 3)
    assert {(await shown(deployment, one)).state for one in found} == {"completed"}


async def test_a_paused_job_starts_nothing_until_it_is_resumed(
    deployment: Deployment, story: Story, connection: Any, runners: Runners
) -> None:
    endpoint = await story.endpoint()
    for number in range(40):
        await story.delivery(endpoint, f"e{number}", "failed")
    operations = JobOperations(deployment)
    made = await operations.create(ALL, job("resend", rate=10.0, state="failed"))
    runner = runners.runner()
    await runners.counted(runner)
    await runners.rounds(runner, 5, seconds=0.2)
    begun = (await shown(deployment, made)).started_count
    assert 4 <= begun <= 10, "ten per second, and half a second's worth at once"
    await operations.pause(ALL, made.id)
    await runners.rounds(runner, 5)
    assert (await shown(deployment, made)).started_count == begun
    await operations.resume(ALL, made.id)
    await runners.rounds(runner, 30)
    limit = (await shown(deployment, made)).started_count
    assert limit == runner_module.DUE_MIN, "requests that are not carried out hold it up"
    await connection.execute("DELETE FROM dispatcher.delivery_request")
    await runners.rounds(runner, 10)
    assert (await shown(deployment, made)).started_count == 40
    await operations.cancel(ALL, made.id)
    await connection.execute("DELETE FROM dispatcher.delivery_request")
    await runners.rounds(runner, 2)
    ended = await shown(deployment, made)
    assert (ended.state, ended.waiting_count) == ("cancelled", 0)
    assert await connection.fetchval("SELECT is_settled FROM dispatcher.job")


async def test_a_late_step_starts_no_burst(
    deployment: Deployment, story: Story, runners: Runners
) -> None:
    endpoint = await story.endpoint("erp")
    for number in range(60):
        await story.delivery(endpoint, f"e{number}", "failed")
    made = await JobOperations(deployment).create(ALL, job(state="failed", rate=500.0))
    runner = runners.runner()
    await runners.counted(runner)
    await runners.rounds(runner, seconds=2.5)
    assert (await shown(deployment, made)).started_count == 50, "twice a twentieth of a second"
    await runners.rounds(runner, seconds=0.051)
    assert (await shown(deployment, made)).started_count == 60


@pytest.mark.parametrize("has_company", [True, False])
async def test_steps_notify_other_replicas_alone(
    deployment: Deployment, database: str, story: Story, runners: Runners, *, has_company: bool
) -> None:
    await story.delivery(await story.endpoint("erp"), "e1", "failed")
    await JobOperations(deployment).create(ALL, job(state="failed"))
    runner = JobRunner(runners.database, "a", clock=runners.clock, has_company=lambda: has_company)
    heard: list[str] = []
    listener = await asyncpg.connect(database)
    await listener.add_listener(CHANNEL_ARRIVED, lambda *more: heard.append(more[2]))
    await runners.counted(runner)
    await runners.rounds(runner, seconds=2.5)
    await listener.execute("SELECT 1")  # what was sent before is delivered with its response
    await listener.close()
    assert heard == [CHANNEL_ARRIVED] * has_company


async def test_a_job_ends_with_its_endpoint(
    deployment: Deployment, story: Story, connection: Any, runners: Runners
) -> None:
    endpoint = await story.endpoint()
    for number in range(30):
        await story.delivery(endpoint, f"e{number}", "failed")
    operations = JobOperations(deployment)
    made = await operations.create(ALL, job(rate=10.0, endpoint_id="erp", state="failed"))
    runner = runners.runner()
    await runners.counted(runner)
    await runners.rounds(runner, 2)
    begun = (await shown(deployment, made)).started_count
    assert 0 < begun < 30
    await Endpoints(deployment).pause(ALL, endpoint)
    await runners.rounds(runner, 3)
    held = await shown(deployment, made)
    assert (held.state, held.reason, held.started_count) == ("running", "endpoint_paused", begun)
    await connection.execute(
        "UPDATE dispatcher.endpoint SET state = 'disabled', reason = 'gone', paused_at = NULL"
    )
    await runners.rounds(runner, 3)
    held = await shown(deployment, made)
    assert (held.state, held.reason, held.started_count) == ("paused", "endpoint_disabled", begun)
    for wanted in (job(endpoint_id=endpoint), job(to=endpoint, since=story.now)):
        with pytest.raises(ConflictError, match="disabled"):
            await operations.count(ALL, wanted)
    await Endpoints(deployment).delete(ALL, endpoint)
    await operations.resume(ALL, made.id)
    await runners.rounds(runner, 3)
    held = await shown(deployment, made)
    assert (held.state, held.reason, held.started_count) == ("failed", "endpoint_deleted", begun)
    for wanted in (job(endpoint_id=endpoint), job(to=endpoint, since=story.now)):
        with pytest.raises(ConflictError, match="deleted"):
            await operations.create(ALL, wanted)


async def test_a_job_is_taken_over_behind_its_last_delivery(
    deployment: Deployment, story: Story, connection: Any, runners: Runners
) -> None:
    endpoint = await story.endpoint()
    for number in range(25):
        await story.delivery(endpoint, f"e{number}", "failed")
    made = await JobOperations(deployment).create(ALL, job(rate=10.0, state="failed"))
    first, second = runners.runner("first"), runners.runner("second")
    await runners.counted(first)
    await runners.rounds(first, 2)
    begun = (await shown(deployment, made)).started_count
    assert 0 < begun < 25
    await runners.rounds(second, 2)
    assert (await shown(deployment, made)).started_count == begun, "its lease has not ended"
    await connection.execute("UPDATE dispatcher.job SET lease_until = now() - interval '1 second'")
    for _ in range(20):  # the first one wakes up again, as after a freeze
        await runners.rounds(second)
        await runners.rounds(first)
        await end_open(connection)
    now = await shown(deployment, made)
    assert (now.started_count, now.succeeded_count, now.state) == (25, 25, "completed")
    counts = await connection.fetch("SELECT attempt_count FROM dispatcher.delivery_done")
    assert {row[0] for row in counts} == {2}, "each was started once"


async def test_a_step_that_is_cut_off_leaves_no_gap(
    deployment: Deployment,
    story: Story,
    connection: Any,
    runners: Runners,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether it fails before its commit or after it, as when the connection ends with COMMIT."""
    endpoint = await story.endpoint()
    for number in range(20):
        await story.delivery(endpoint, f"e{number}", "failed")
    made = await JobOperations(deployment).create(ALL, job(rate=20.0, state="failed"))
    runner = runners.runner()
    real_step = runner._start
    cuts = ["before", "after", "before", "after"]

    async def announce(*arguments: Any) -> None:
        await real_announce(*arguments)
        if cuts and cuts[0] == "before":
            cuts.pop(0)
            raise asyncpg.DeadlockDetectedError("planted")

    async def start(*arguments: Any, **more: Any) -> None:
        await real_step(*arguments, **more)
        if cuts and cuts[0] == "after":
            cuts.pop(0)
            runner._drop(arguments[0])

    monkeypatch.setattr(runner_module, "announce", announce)
    monkeypatch.setattr(runner, "_start", start)
    await runners.counted(runner)
    for _ in range(20):
        try:
            await runners.rounds(runner, seconds=1.1)
        except StoreUnavailableError:
            continue
        await end_open(connection)
    now = await shown(deployment, made)
    assert (cuts, now.started_count, now.state) == ([], 20, "completed")
    counts = await connection.fetch("SELECT attempt_count FROM dispatcher.delivery_done")
    assert {row[0] for row in counts} == {2}


async def test_deliveries_of_a_step_without_a_response_are_loaded(
    deployment: Deployment, story: Story, runners: Runners, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single replica gets no notification of them, and the next look at the whole window is minutes away."""
    endpoint = await story.endpoint()
    await story.delivery(endpoint, "e1", "failed")
    await JobOperations(deployment).create(ALL, job(state="failed"))
    runner = runners.runner()
    await runners.counted(runner)
    real_step = runner._start

    async def start(run: Any, *given: Any, **more: Any) -> None:
        await real_step(run, *given, **more)
        runners.started.clear()
        runner._drop(run)
        raise StoreUnavailableError("no response")

    with monkeypatch.context() as patched:
        patched.setattr(runner, "_start", start)
        with pytest.raises(StoreUnavailableError):
            await runners.rounds(runner)
    assert runners.started == []
    await runners.rounds(runner)
    assert runners.started == ["replay"]


async def test_a_walk_over_days_finds_each_delivery_once(
    deployment: Deployment, story: Story, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of two rows over 40 days with holes: as many as one statement that reads everything."""
    today = deployment.clock.now().date()
    monkeypatch.setattr(job_walk, "PICKED_MAX", 2)
    monkeypatch.setattr(job_walk, "EXAMINED_MAX", 4)
    endpoint, target = await story.endpoint(), await story.endpoint("new")
    number = await connection.fetchval(
        "SELECT number FROM dispatcher.endpoint WHERE id = $1", endpoint
    )
    for back in (40, 33, 32, 2, 1):
        day = today - timedelta(days=back)
        part = f"dispatcher.event_{day:%Y%m%d}"
        if await connection.fetchval("SELECT to_regclass($1) IS NULL", part):
            await make_day(connection, back)
        for index in range(7):
            at = datetime(day.year, day.month, day.day, 3, 0, index // 3, tzinfo=UTC)
            event_id = f"d{back}-{index}"
            await connection.execute(
                "INSERT INTO dispatcher.event (day, id, type, tenant, data, occurred_at, labels, inserted_at,"
                " accepted_at) VALUES ($1, $2, $3, 'default', '{}', $4, $5, $4, $4)",
                day,
                event_id,
                "order.created" if index % 2 else "order.shipped",
                at,
                orjson.dumps({"branch": f"b{index % 3}"}).decode(),
            )
            delivery_id = ids.delivery_id(ids.delivery_unix_ms(at, day), event_id, endpoint)
            await connection.execute(
                "INSERT INTO dispatcher.delivery_done (id, day, event_id, endpoint_no, event_type_code, state, reason,"
                " attempt_count, schedule_position, finished_at) VALUES ($1, $2, $3, $4, words.type_code($6), 4, 1, 1,"
                " 1, $5)",
                uuid_of(delivery_id),
                day,
                event_id,
                number,
                at,
                "order.created" if index % 2 else "order.shipped",
            )
    operations = JobOperations(deployment)
    midnight = datetime.combine(today, time(), UTC)  # whatever the hour at which the test runs
    wanted: dict[str, tuple[NewJob, int]] = {
        "all": (job(state="failed"), 35),
        "since": (job(since=midnight - timedelta(days=3)), 14),
        "until": (job(until=midnight - timedelta(days=32)), 14),
        "type": (job(event_type="order.created"), 15),
        "label": (job(label=["branch=b1"]), 10),
        "any label's value": (job(q="b2"), 10),
        "event": (job(event_id="d33-2"), 1),
        "unknown": (job(event_id="nothing"), 0),
        "recoverable": (job(recoverable=True), 35),
        "ended since": (job(finished_since=midnight - timedelta(days=1)), 7),
        "to another": (job(to=target, since=midnight - timedelta(days=60)), 35),
        "to another, of a label": (job(to=target, label=["branch=b1"]), 10),
        "to another, of an endpoint": (job(to=target, endpoint_id=endpoint), 35),
        "nothing": (job(state="cancelled"), 0),
    }
    counts = {name: (await operations.count(ALL, one)).count for name, (one, _) in wanted.items()}
    assert counts == {name: count for name, (_, count) in wanted.items()}


async def test_bad_jobs_are_refused_or_find_nothing(
    deployment: Deployment, story: Story, connection: Any, runners: Runners
) -> None:
    operations = JobOperations(deployment)
    endpoint = await story.endpoint()
    await story.delivery(endpoint, "e1", "failed")
    with pytest.raises(InvalidRequestError):
        job()
    with pytest.raises(InvalidRequestError):
        job(label=[])
    for actor, one, error in (
        (ACME, job(tenant="default", state="failed"), NotFoundError),
        (ACME, job(endpoint_id=endpoint), NotFoundError),
        (ACME, job(to=endpoint, state="failed"), NotFoundError),
        (ALL, job(to="unknown", state="failed"), NotFoundError),
    ):
        with pytest.raises(error):
            await operations.create(actor, one)
    theirs = job(state="failed")
    assert (await operations.count(ACME, theirs)).count == 0
    made = await operations.create(ACME, theirs)
    with pytest.raises(NotFoundError):
        await operations.pause(Actor(name="x", tenant="other"), made.id)
    runner = runners.runner()
    await runners.counted(runner)
    await runners.rounds(runner, 3)
    ended = await shown(deployment, made)
    assert (ended.state, ended.total_count, ended.started_count) == ("completed", 0, 0)
    assert await connection.fetchval("SELECT count(*) FROM dispatcher.delivery_open") == 0
    for _ in range(JOBS_MAX):
        await operations.create(ALL, theirs)
    with pytest.raises(ConflictError, match="jobs are going on"):
        await operations.create(ALL, theirs)


async def test_a_recovery_replays_what_failed_or_was_cancelled(
    deployment: Deployment, story: Story, connection: Any
) -> None:
    endpoint, other = await story.endpoint(), await story.endpoint("other")
    for number, state in enumerate(["failed", "cancelled", "cancelled", "succeeded", "failed"]):
        await story.delivery(endpoint, f"e{number}", state)
    await story.delivery(other, "e0", "failed")
    await connection.execute(
        "UPDATE dispatcher.delivery_done SET reason = CASE event_id WHEN 'e1' THEN 5 ELSE 4 END WHERE state = 5"
    )
    await connection.execute(
        "UPDATE dispatcher.delivery_done SET finished_at = now() - interval '3 hours' WHERE event_id = 'e4'"
    )
    since = deployment.clock.now() - timedelta(hours=2)
    operations = JobOperations(deployment)
    counted = await operations.count_recovery(ALL, endpoint, EndpointRecovery.of(since=since))
    assert counted.count == 2, "one that failed, one that the disabled endpoint cancelled"
    made = await operations.recover(ALL, endpoint, EndpointRecovery.of(since=since))
    assert (made.kind, made.filter["recoverable"], made.tenant) == ("replay", True, "default")
