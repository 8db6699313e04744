"""Replays through the daemon: taken over after a kill, sent to a new endpoint, beside live traffic."""

import asyncio
import math
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
_P99 = """
SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM d.attempted_at - e.inserted_at))
FROM dispatcher.delivery_done AS d JOIN dispatcher.event AS e ON e.day = d.day AND e.id = d.event_id
JOIN dispatcher.endpoint AS p ON p.number = d.endpoint_no
WHERE p.id = 'ep_live' AND d.attempted_at BETWEEN $1 AND $2
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


@pytest.mark.alone
@pytest.mark.timeout(1_800)
async def test_live_traffic_is_not_delayed_by_a_replay(bench, sql, old, say, long_run):
    """J2: 100,000 deliveries with `--long`, 2,000 without, which is too few for the share."""
    count, rate = (100_000, 500) if long_run else (2_000, 200)
    live_per_second, alone_seconds = 50, 60 if long_run else 5
    await old(count)
    await add_endpoint(sql, "ep_live", bench.receiver.url("/live"), event_types=["live.*"], shard=9)
    daemon = await bench.daemon().started()
    seconds = alone_seconds + count / rate + 10
    producer = bench.produce(
        Plan(
            url=bench.url,
            events_count=math.ceil(seconds * live_per_second),
            events_per_second=live_per_second,
            event_type="live.traffic",
        )
    )
    await bench.receiver.received(
        alone_seconds * live_per_second, path="/live", seconds=alone_seconds + 30
    )
    began = await sql.fetchval("SELECT clock_timestamp()")
    job = await command(
        daemon, "delivery", "replay", "--state", "failed", "--rate", str(rate), "--yes"
    )
    done = await ended(daemon, job["id"], seconds=60 + 2 * count / rate)
    over = await sql.fetchval("SELECT clock_timestamp()")
    assert (done["state"], done["succeeded_count"]) == ("completed", count)
    assert await producer.ended(60) == 0
    first = await sql.fetchval(
        "SELECT min(inserted_at) FROM dispatcher.event WHERE type = 'live.traffic'"
    )
    alone = await sql.fetchval(_P99, first, began)
    beside = await sql.fetchval(_P99, began, over)
    duration = (over - began).total_seconds()
    say(
        orjson.dumps(
            {
                "id": "J2",
                "deliveries": count,
                "per_second": round(count / duration),
                "live_p99_alone_seconds": round(alone, 4),
                "live_p99_beside_seconds": round(beside, 4),
                "share": round(beside / alone, 2),
            }
        ).decode()
    )
    assert count / duration <= 1.05 * rate, "the rate is a cap"
    if long_run:
        assert beside <= LIVE_SHARE_MAX * alone
