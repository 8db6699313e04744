"""Replays through the daemon: taken over after a kill, sent to a new endpoint, beside live traffic."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from typing import Any
from zlib import crc32

import asyncpg
import orjson
import pytest

from tests.support.bench import Bench
from tests.support.daemon import (
    CHECKOUT,
    STANDARD_SECRET,
    WMS_SECRET,
    Daemon,
    add_endpoint,
    until,
)
from tests.support.forking import run_command
from tests.support.ledger import Plan

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]

UNRECORDED_MAX = 100
"""As many attempts are at most sent and not committed, those in flight included."""
LIVE_SHARE_MAX = 1.2
"""The p99 of live deliveries next to a replay, over the p99 without one."""
SETTLING_SECONDS = 2.0
_FILL = """
WITH made AS (
    SELECT g, 'j' || g AS event_id, now() - interval '1 minute' + g * interval '0.1 ms' AS at
    FROM generate_series($1::int, $2::int) AS g
), events AS (
    INSERT INTO dispatcher.event (day, id, type, tenant, data, occurred_at, labels, inserted_at, accepted_at)
    SELECT (now() AT TIME ZONE 'UTC')::date, event_id, 'order.created', 'default',
           ('{"marker": "' || event_id || '"}')::json, at, '{}', at, at FROM made
), bodies AS (
    INSERT INTO dispatcher.body (day, event_id, profile, bytes)
    SELECT (now() AT TIME ZONE 'UTC')::date, event_id, 'standard',
           convert_to('{"marker": "' || event_id || '"}', 'UTF8') FROM made
)
INSERT INTO dispatcher.delivery_done
    (id, day, event_id, endpoint_no, event_type_code, state, reason, attempt_count, schedule_position)
SELECT dispatcher.delivery_uuid(words.id(event_id, floor(extract(epoch FROM at) * 1000))),
       (now() AT TIME ZONE 'UTC')::date, event_id, p.number, words.type_code('order.created'), 4, 1, 1, 1
FROM made JOIN dispatcher.endpoint AS p ON p.id = 'ep_old'
"""
_RUNNING = "SELECT state = 'running' FROM dispatcher.job"
_CHANGE = """
UPDATE dispatcher.job SET state = $2 WHERE id = $1 AND finished_at IS NULL
RETURNING clock_timestamp() + make_interval(secs => $3::float8) AS first_at,
          clock_timestamp() + make_interval(secs => $3::float8 + $4::float8) AS last_at
"""
_FINISHED_AT = "SELECT finished_at FROM dispatcher.job WHERE id = $1"
_OVER = "SELECT finished_at IS NOT NULL OR clock_timestamp() > $2 FROM dispatcher.job WHERE id = $1"
_WAITS = """
SELECT count(*) AS events, percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS p50,
       percentile_cont(0.99) WITHIN GROUP (ORDER BY seconds) AS p99
FROM unnest($1::timestamptz[], $2::timestamptz[]) AS s (first_at, last_at)
JOIN LATERAL (
    SELECT extract(epoch FROM d.attempted_at - e.inserted_at)::float8 AS seconds
    FROM dispatcher.event AS e
    JOIN dispatcher.delivery_done AS d ON d.day = e.day AND d.event_id = e.id
    WHERE e.type = 'live.traffic' AND e.inserted_at BETWEEN s.first_at AND s.last_at
) AS live ON true
"""
_REPLAYED_PER_SECOND = """
SELECT max(count)::float8 / 5 FROM (
    SELECT count(*) FROM dispatcher.attempt_all WHERE trigger = 'replay'
    GROUP BY floor(extract(epoch FROM attempted_at) / 5)) AS slices
"""


@pytest.fixture
def old(bench: Bench, sql: asyncpg.Connection) -> Callable[[int], Any]:
    """Makes an endpoint with so many deliveries that failed."""

    async def fill(count: int) -> None:
        receiver = bench.receiver
        receiver.behave(
            old={"secret": STANDARD_SECRET},
            new={"secret": WMS_SECRET},
            live={"secret": STANDARD_SECRET},
        )
        await add_endpoint(
            sql, "ep_old", receiver.url("/old"), event_types=["order.*"], retry_schedule_seconds=[]
        )
        for first in range(1, count + 1, 5_000):
            await sql.execute(_FILL, first, min(first + 4_999, count))
        await sql.execute("ANALYZE dispatcher.delivery_done, dispatcher.event")

    return fill


async def command(daemon: Daemon, *arguments: str) -> Any:
    """Run a command on the daemon's database and return its JSON."""
    environ = {**os.environ, **daemon.environ}
    given = [*arguments, "--json"]
    finished = await asyncio.to_thread(run_command, given, environ, cwd=CHECKOUT)
    assert finished.returncode == 0, finished.stderr
    return orjson.loads(finished.stdout)


async def ended(daemon: Daemon, job_id: str, seconds: float) -> Any:
    """Return the job once it has ended."""

    async def look() -> Any:
        job = await command(daemon, "job", "show", job_id)
        return job if job["finished_at"] else None

    return await until(look, seconds=seconds, what="the end of the job", pause=1.0)


@pytest.mark.alone
@pytest.mark.timeout(900)
async def test_a_killed_replica_leaves_no_gap_in_its_job(bench, sql, old, say, long_run):
    """J1: two replicas; the one that runs the job is killed midway, and the other one takes it over."""
    count, rate = (20_000, 500) if long_run else (600, 150)
    await old(count)
    daemons = {
        name: await bench.daemon(name=name, RECORDER__UNRECORDED_MAX=str(UNRECORDED_MAX)).started()
        for name in ("a", "b")
    }
    filter_ = ("--state", "failed", "--endpoint-id", "ep_old", "--rate", str(rate))
    counted = await command(daemons["b"], "delivery", "replay", *filter_, "--dry-run")
    assert counted == {"count": count, "skipped": {}, "is_complete": True, "counted_until": None}
    job = await command(daemons["b"], "delivery", "replay", *filter_, "--yes")
    await bench.receiver.received(count // 3, kind="request", seconds=60)
    owner = await sql.fetchval("SELECT owner FROM dispatcher.job")
    killed = owner.partition("-")[0]
    daemons.pop(killed).kill()
    (other,) = daemons.values()
    done = await ended(other, job["id"], seconds=60 + count / rate)
    assert (done["state"], done["total_count"], done["started_count"]) == (
        "completed",
        count,
        count,
    )
    assert (done["succeeded_count"], done["skipped"]) == (count, {})
    requests = bench.receiver.entries("request")
    seen = Counter(entry["event_id"] for entry in requests)
    repeats = sum(seen.values()) - count
    assert set(seen) == {f"j{number}" for number in range(1, count + 1)}, "no gap"
    assert repeats <= UNRECORDED_MAX, "only what was in flight"
    assert {entry["signature"] for entry in requests} == {"good"}
    assert len({(entry["event_id"], entry["sha256"]) for entry in requests}) == count, "same bodies"
    owners = await sql.fetchval(
        "SELECT count(*) FROM dispatcher.attempt_all WHERE trigger = 'replay' AND outcome = 'ok'"
    )
    assert owners == count
    figures = {"id": "J1", "deliveries": count, "repeats": repeats, "verdict": "held"}
    say(orjson.dumps(figures).decode())


async def test_a_replay_to_a_new_endpoint_uses_its_profile(bench, sql, old):
    """A failing receiver gets the schedule again; a resend makes one attempt."""
    await old(20)
    receiver = bench.receiver
    await add_endpoint(
        sql, "ep_new", receiver.url("/new"), profile="wms", event_types=["order.*"], shard=9
    )
    flaky = [f"j{number}" for number in range(1, 21) if crc32(f"j{number}".encode()) % 100 < 20]
    receiver.behave(
        old={"secret": STANDARD_SECRET, "statuses": [500, 500, 200], "share": 0.2},
        new={"secret": WMS_SECRET},
    )
    await sql.execute(
        "UPDATE dispatcher.endpoint SET retry_schedule_seconds = '{0.1,0.1}' WHERE id = 'ep_old'"
    )
    daemon = await bench.daemon().started()
    to = ("--event-type", "order.created", "--since", "1h", "--to", "ep_new", "--yes")
    job = await command(daemon, "delivery", "replay", *to)
    done = await ended(daemon, job["id"], seconds=30)
    assert (done["succeeded_count"], done["total_count"]) == (20, 20)
    sent = receiver.entries("request", "/new")
    assert {entry["marker"] for entry in sent} == {f"j{number}" for number in range(1, 21)}
    assert {entry["signature"] for entry in sent} == {"good"}, "signed as the new profile does"
    assert len(sent) == 20
    one = ("--event-id", flaky[0], "--endpoint-id", "ep_old", "--yes")
    job = await command(daemon, "delivery", "resend", *one)
    done = await ended(daemon, job["id"], seconds=30)
    assert (done["failed_count"], receiver.count("request", "/old")) == (1, 1)
    job = await command(daemon, "endpoint", "recover", "ep_old", "--since", "1h", "--yes")
    done = await ended(daemon, job["id"], seconds=60)
    assert (done["started_count"], done["succeeded_count"]) == (20, 20)
    assert receiver.count("request", "/old") == 20 + 2 * len(flaky)
    attempts = await sql.fetch(
        "SELECT trigger FROM dispatcher.attempt_all WHERE event_id = $1 AND endpoint_id = 'ep_old'"
        " ORDER BY attempt_number",
        flaky[0],
    )
    assert [row["trigger"] for row in attempts] == ["manual", "replay", "replay"]


async def phase(sql: asyncpg.Connection, job_id: str, state: str, seconds: float) -> Any:
    """Pause or resume a job, and return when the phase that this began is over, or the job is.

    The phase is from `SETTLING_SECONDS` after the change, when nothing from before it is in flight.
    """
    row = await sql.fetchrow(_CHANGE, job_id, state, SETTLING_SECONDS, seconds)
    if row is None:
        return None

    async def look() -> bool:
        return bool(await sql.fetchval(_OVER, job_id, row["last_at"]))

    await until(look, seconds=seconds + 30, what=f"the end of a phase of {state}", pause=0.25)
    finished_at = await sql.fetchval(_FINISHED_AT, job_id)
    return row["first_at"], min(row["last_at"], finished_at or row["last_at"])


@pytest.mark.alone
@pytest.mark.timeout(1_800)
@pytest.mark.usefixtures("notified")
async def test_live_traffic_is_not_delayed_by_a_replay(bench, sql, old, say, long_run):
    """J2: 100,000 deliveries with `--long`, 1,500 without, which is too few for the share.

    Phases with and without the replay alternate within the run, so that other load meets both.
    """
    count, rate, live_per_second = (100_000, 100, 100) if long_run else (1_500, 200, 50)
    beside_seconds, alone_seconds = (40.0, 8.0) if long_run else (2.0, 2.0)
    await old(count)
    await add_endpoint(sql, "ep_live", bench.receiver.url("/live"), event_types=["live.*"], shard=9)
    daemon = await bench.daemon().started()
    producer = bench.produce(
        Plan(
            url=bench.url,
            events_count=1_000_000,
            events_per_second=live_per_second,
            event_type="live.traffic",
        )
    )
    await bench.receiver.received(5 * live_per_second, path="/live", seconds=30)
    job = await command(
        daemon, "delivery", "replay", "--state", "failed", "--rate", str(rate), "--yes"
    )
    await until(lambda: sql.fetchval(_RUNNING), seconds=60, what="the job to be counted")
    spans: dict[str, list[Any]] = {"running": [], "paused": []}
    state, seconds = "paused", alone_seconds
    while (span := await phase(sql, job["id"], state, seconds)) is not None:
        spans[state].append(span)
        state, seconds = (
            ("running", beside_seconds) if state == "paused" else ("paused", alone_seconds)
        )
    producer.stop()
    done = await ended(daemon, job["id"], seconds=60)
    assert (done["state"], done["succeeded_count"]) == ("completed", count)
    waits = {
        state: await sql.fetchrow(_WAITS, *zip(*of, strict=True)) for state, of in spans.items()
    }
    replayed = await sql.fetchval(_REPLAYED_PER_SECOND)
    alone, beside = waits["paused"], waits["running"]
    share = beside["p99"] / alone["p99"]
    say(
        orjson.dumps(
            {
                "id": "J2",
                "deliveries": count,
                "per_second_at_most": replayed,
                "live_events": [alone["events"], beside["events"]],
                "live_p50_seconds": [round(one["p50"], 4) for one in (alone, beside)],
                "live_p99_seconds": [round(one["p99"], 4) for one in (alone, beside)],
                "share": round(share, 2),
                "load": os.getloadavg(),
            }
        ).decode()
    )
    assert replayed <= 1.1 * rate, "the rate is a cap"
    if long_run:
        assert share <= LIVE_SHARE_MAX
