"""A19: the master key changes under load; every replica reads on, and no delivery fails."""

import asyncio
import base64
import os
import secrets
import subprocess

import orjson
import pytest

from dispatcher.core.sealing import Keyring
from tests.support.checker import Subscriber
from tests.support.daemon import KEY, STANDARD_SECRET, add_endpoint, quiet
from tests.support.forking import run_command
from tests.support.ledger import Plan

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]

OLD = "k1:" + base64.b64encode(KEY).decode()
NEW = "k2:" + base64.b64encode(b"n" * 32).decode()


async def add_quiet_endpoints(sql, count: int) -> None:
    """Makes endpoints that get nothing, each with a secret under the old key."""
    keyring = Keyring({"k1": KEY})
    rows = [
        (
            f"ep_q{number}",
            keyring.seal(STANDARD_SECRET, owner=f"ep_q{number}", nonce=secrets.token_bytes(12)),
        )
        for number in range(count)
    ]
    names = [row[0] for row in rows]
    async with sql.transaction():
        await sql.execute(
            "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)"
            " SELECT id, 'default', id, 'https://x.test/', 'standard', '{never.x}', 1"
            " FROM unnest($1::text[]) AS id",
            names,
        )
        await sql.execute(
            "INSERT INTO dispatcher.endpoint_secret (endpoint_id, role, key_id, sealed)"
            " SELECT id, 'current', 'k1', sealed FROM unnest($1::text[], $2::bytea[]) AS s (id, sealed)",
            names,
            [row[1] for row in rows],
        )


def rekey(url: str) -> "subprocess.CompletedProcess[str]":
    """Runs the command with the new key in front."""
    environ = {
        **os.environ,
        "DISPATCHER_DATABASE_URL": url,
        "DISPATCHER_SECRET_KEYS": f"{NEW},{OLD}",
        "DISPATCHER_HOME": "/nonexistent",
    }
    return run_command(["secrets", "rekey", "--json"], environ)


async def test_a_new_key_under_load_costs_no_delivery(bench, sql, database, long_run):
    """Long: 10,000 secrets."""
    count, events = (10_000, 5_000) if long_run else (1_200, 800)
    bench.receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_quiet_endpoints(sql, count)
    await add_endpoint(sql, "ep_x", bench.receiver.url("/hook"), retry_schedule_seconds=[])
    daemons = [bench.daemon(name=name, SECRET_KEYS=f"{OLD},{NEW}") for name in ("one", "two")]
    for daemon in daemons:
        await daemon.started(60)
    producer = bench.produce(Plan(url=bench.url, events_count=events, events_per_second=100))
    await bench.receiver.received(20)
    finished = await asyncio.to_thread(rekey, database)
    assert finished.returncode == 0, finished.stderr
    answer = orjson.loads(finished.stdout)
    assert answer == {
        "key_id": "k2",
        "secrets": count + 1,
        "resealed": count + 1,
        "unreadable": [],
    }
    assert producer.child.poll() is None, "the load ended before the keys were changed"
    assert await producer.ended(60) == 0
    await quiet(bench.url, seconds=30)
    states = await sql.fetch("SELECT state, count(*) FROM dispatcher.delivery GROUP BY 1")
    assert [tuple(row) for row in states] == [("succeeded", events)]
    assert (
        await sql.fetchval("SELECT count(*) FROM dispatcher.endpoint WHERE state = 'disabled'") == 0
    )
    for daemon in daemons:
        daemon.stop()
    # The old key is gone for good, and everything still signs.
    await bench.daemon(name="three", SECRET_KEYS=NEW).started(60)
    await bench.produced(Plan(url=bench.url, prefix="after", events_count=20))
    await quiet(bench.url, seconds=30)
    await bench.report("A19", [Subscriber("ep_x", "/hook")], secrets=count + 1)
