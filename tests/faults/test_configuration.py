"""Configuration that may be a mistake: deliveries wait for it to be fixed and are never cancelled for it."""

import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest

from dispatcher.core.model import EndpointId, Reason
from dispatcher.store.deliveries import Deliveries
from dispatcher.store.pool import Database
from tests.support.daemon import CHECKOUT, WMS_SECRET, Daemon, add_endpoint, until
from tests.support.forking import run_command
from tests.support.ledger import Plan

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

STATES = "SELECT endpoint_id, state, reason, count(*) FROM dispatcher.delivery GROUP BY 1, 2, 3 ORDER BY 1, 2"


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    """A settings file next to a profile of the user's own, `mine`."""
    profiles = tmp_path / "config" / "profiles"
    profiles.mkdir(parents=True)
    shipped = (CHECKOUT / "config" / "profiles" / "wms.toml").read_text(encoding="utf-8")
    (profiles / "mine.toml").write_text(
        shipped.replace('name = "wms"', 'name = "mine"'), encoding="utf-8"
    )
    settings = tmp_path / "config" / "dispatcher.toml"
    settings.touch()
    return settings


async def _stopped(daemon: Daemon) -> None:
    daemon.kill(signal.SIGTERM)
    assert await daemon.ended(10) == 0


async def _reaches(sql: Any, wanted: list[tuple[Any, ...]]) -> None:
    async def look() -> bool:
        return [tuple(row) for row in await sql.fetch(STATES)] == wanted

    try:
        await until(look, seconds=15, what="the states")
    except TimeoutError:
        assert [tuple(row) for row in await sql.fetch(STATES)] == wanted


def _cli(daemon: Daemon, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with the daemon's own settings."""
    return run_command(arguments, daemon.environ, cwd=CHECKOUT)


@pytest.mark.slow
async def test_what_a_missing_profile_file_holds_goes_out_when_it_is_back(bench, sql, configured):
    """F11: the file of an own profile is not there at one start, and plain http is not allowed."""
    receiver = bench.receiver
    receiver.behave(mine={"statuses": [500]}, wms={"statuses": [500]})
    long_wait: dict[str, Any] = {"retry_schedule_seconds": [600.0]}
    await add_endpoint(
        sql, "ep_mine", receiver.url("/mine"), profile="mine", secret=WMS_SECRET, **long_wait
    )
    await add_endpoint(sql, "ep_wms", receiver.url("/wms"), profile="wms", **long_wait)
    given = {"CONFIG": str(configured)}
    daemon = await bench.daemon(name="before", **given).started()
    await bench.produced(Plan(url=bench.url, prefix="before", events_count=1))
    await _reaches(sql, [("ep_mine", "retrying", None, 1), ("ep_wms", "retrying", None, 1)])
    await _stopped(daemon)

    profile = configured.parent / "profiles" / "mine.toml"
    aside = configured.parent / "mine.toml"
    shutil.move(profile, aside)
    wrong = given | {"EGRESS__ALLOW_HTTP": "false"}
    daemon = await bench.daemon(name="without", **wrong).started()
    await bench.produced(Plan(url=bench.url, prefix="without", events_count=1))
    waiting = [
        ("ep_mine", "pending", None, 1),
        ("ep_mine", "retrying", None, 1),
        ("ep_wms", "pending", None, 1),
        ("ep_wms", "retrying", None, 1),
    ]
    await _reaches(sql, waiting)
    held = await sql.fetchrow(
        "SELECT id, event_id FROM dispatcher.delivery WHERE endpoint_id = 'ep_mine' AND state = 'pending'"
    )
    body = (
        "SELECT bytes FROM dispatcher.event WHERE id = $1 AND profile = 'mine'"
        " UNION ALL SELECT bytes FROM dispatcher.body WHERE event_id = $1 AND profile = 'mine'"
    )
    assert await sql.fetchval(body, held["event_id"]) is None
    _, text = await daemon.get("/metrics")
    assert 'dispatcher_endpoints_unusable{reason="unknown_profile"} 1.0' in text
    assert 'dispatcher_endpoints_unusable{reason="http_not_allowed"} 1.0' in text
    await daemon.said("endpoint.rejected", count=2)
    logged = {line["endpoint_id"]: line["reason"] for line in daemon.lines("endpoint.rejected")}
    assert logged == {"ep_mine": "unknown_profile", "ep_wms": "http_not_allowed"}
    checked = _cli(daemon, "check")
    assert checked.returncode == 1
    assert "ep_mine" in checked.stdout
    assert "ep_wms" in checked.stdout
    explained = orjson.loads(_cli(daemon, "event", "explain", held["event_id"], "--json").stdout)
    codes = {one["endpoint_id"]: one["next_code"] for one in explained["endpoints"]}
    assert codes == {"ep_mine": "endpoint_unusable", "ep_wms": "endpoint_unusable"}
    shown = orjson.loads(_cli(daemon, "endpoint", "show", "ep_mine", "--json").stdout)
    assert shown["problem"]["reason"] == "unknown_profile"
    refused = _cli(daemon, "delivery", "resend", held["id"])
    assert refused.returncode == 1
    assert "The profile mine of this endpoint is no longer configured" in refused.stderr
    has_body = await sql.fetchval(
        "SELECT id FROM dispatcher.delivery WHERE endpoint_id = 'ep_mine' AND state = 'retrying'"
    )
    assert _cli(daemon, "delivery", "resend", has_body).returncode == 0
    attempts = "SELECT outcome, error FROM dispatcher.attempt_all WHERE delivery_id = $1 AND trigger = 'manual'"

    async def attempted() -> Any:
        return await sql.fetchrow(attempts, has_body)

    attempt = await until(attempted, seconds=10, what="the attempt of the resend")
    assert "profile 'mine' is not configured" in attempt["error"]
    await _reaches(sql, waiting)
    await _stopped(daemon)

    shutil.move(aside, profile)
    receiver.behave(mine={}, wms={})
    daemon = await bench.daemon(name="after", **given).started()
    await _reaches(
        sql,
        [
            ("ep_mine", "retrying", None, 1),
            ("ep_mine", "succeeded", None, 1),
            ("ep_wms", "retrying", None, 1),
            ("ep_wms", "succeeded", None, 1),
        ],
    )
    sent = [one for one in receiver.entries("request", "/mine") if held["event_id"] in str(one)]
    assert len(sent) == 1
    assert await sql.fetchval(body, held["event_id"]) is not None
    assert _cli(daemon, "delivery", "resend", has_body).returncode == 0
    await _reaches(
        sql,
        [
            ("ep_mine", "succeeded", None, 2),
            ("ep_wms", "retrying", None, 1),
            ("ep_wms", "succeeded", None, 1),
        ],
    )


@pytest.mark.slow
async def test_an_unusable_row_waits_and_goes_on_without_a_restart_once_fixed(bench, sql):
    """F11: a secret that does not decrypt, a URL and a header that nobody could have saved."""
    receiver = bench.receiver
    receiver.behave(hook={})
    await add_endpoint(sql, "ep_secret", receiver.url("/hook"))
    await add_endpoint(sql, "ep_url", "gopher://nowhere/")
    await add_endpoint(sql, "ep_header", receiver.url("/hook"), headers='{"X-A": "b\\r\\nX-B: c"}')
    await add_endpoint(sql, "ep_ca", receiver.url("/hook"), ca_pem="no certificate")
    await add_endpoint(sql, "ep_delay", receiver.url("/hook"), labels='{"a": 5}')
    sealed = await sql.fetchval(
        "UPDATE dispatcher.endpoint_secret AS s SET sealed = s.sealed || 'x'::bytea"
        " FROM dispatcher.endpoint_secret AS old"
        " WHERE s.endpoint_id = 'ep_secret' AND old.id = s.id RETURNING old.sealed"
    )
    names = ["ep_delay", "ep_header", "ep_secret", "ep_url"]
    daemon = await bench.daemon().started()
    await bench.produced(Plan(url=bench.url, events_count=3))
    await _reaches(
        sql,
        [
            ("ep_ca", "succeeded", None, 3),
            *((name, "pending", None, 3) for name in names),
        ],
    )
    states = "SELECT DISTINCT state FROM dispatcher.endpoint"
    assert await sql.fetchval(states) == "active", "not disabled either"
    await sql.execute(
        "UPDATE dispatcher.endpoint_secret SET sealed = $1 WHERE endpoint_id = 'ep_secret'", sealed
    )
    await sql.execute(
        "UPDATE dispatcher.endpoint SET headers = '{}', labels = '{}', url = $1",
        receiver.url("/hook"),
    )
    await _reaches(sql, [(name, "succeeded", None, 3) for name in sorted([*names, "ep_ca"])])
    await daemon.said("endpoint.accepted", count=len(names))
    assert len(daemon.lines("endpoint.accepted")) == len(names)


async def test_control_cancelling_for_a_problem_leaves_nothing_to_resume(database, sql):
    """F11: what upkeep once did with the endpoints that the routing table could not compile."""
    await add_endpoint(sql, "ep_mine", "http://127.0.0.1:9/", profile="mine", secret=WMS_SECRET)
    await sql.execute(
        "INSERT INTO words.delivery_open (id, day, event_id, endpoint_id, event_type, tenant, profile)"
        " VALUES ('wh_1', current_date, 'evt_1', 'ep_mine', 'a.b', 'default', 'mine')"
    )
    pool = Database(database, connections_max=1)
    await pool.open()
    problem = (EndpointId("ep_mine"), Reason.UNKNOWN_PROFILE)
    assert await Deliveries(pool).cancel_of_endpoints([problem], 10) == 1
    await pool.close()
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.delivery_open") == 0
