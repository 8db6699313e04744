"""Signals and the supervisor: drains in time, ends at once when told twice, keeps old settings, says how it fares."""

import contextlib
import signal
import socket
import time

import pytest

from tests.support.checker import Subscriber
from tests.support.daemon import STANDARD_SECRET, add_endpoint, quiet
from tests.support.ledger import Plan
from tests.support.pace import in_time

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]


async def test_sigterm_finishes_in_flight_releases_the_rest_and_exits_0(bench, sql):
    """F3: the held attempts are cancelled without a trace once the grace is over, and are made again."""
    receiver = bench.receiver
    receiver.behave(
        quick={"secret": STANDARD_SECRET, "delay_seconds": [0.5, 0.8]},
        held={"secret": STANDARD_SECRET, "statuses": [0]},
    )
    await add_endpoint(sql, "ep_quick", receiver.url("/quick"))
    await add_endpoint(sql, "ep_held", receiver.url("/held"), timeout_seconds=60.0)
    daemon = await bench.daemon(DELIVERY__DRAIN_SECONDS="2").started()
    await bench.produced(Plan(url=bench.url, events_count=5))
    await receiver.received(10, kind="request")
    daemon.kill(signal.SIGTERM)
    began = time.monotonic()
    assert await daemon.ended(5) == 0
    drained = time.monotonic() - began
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.attempt_all") == 5
    states = await sql.fetch(
        "SELECT endpoint_id, state, attempt_count FROM dispatcher.delivery GROUP BY 1, 2, 3 ORDER BY 1"
    )
    assert [tuple(row) for row in states] == [
        ("ep_held", "pending", 0),
        ("ep_quick", "succeeded", 1),
    ]
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.shard WHERE owner IS NOT NULL") == 0
    receiver.behave(held={"secret": STANDARD_SECRET, "statuses": [200]})
    await bench.daemon().started()
    await quiet(bench.url, seconds=10)
    await bench.report(
        "F3",
        [Subscriber("ep_quick", "/quick"), Subscriber("ep_held", "/held")],
        bounds={"unrecorded": 5, "dup": 5},
        drained_seconds=round(drained, 2),
    )
    assert in_time(drained, 3.0)


async def test_a_second_sigterm_ends_it_within_two_seconds(bench, sql):
    bench.receiver.behave(held={"secret": STANDARD_SECRET, "statuses": [0]})
    await add_endpoint(sql, "ep_held", bench.receiver.url("/held"), timeout_seconds=60.0)
    daemon = await bench.daemon().started()
    await bench.produced(Plan(url=bench.url, events_count=3))
    await bench.receiver.received(3, kind="request")
    daemon.kill(signal.SIGTERM)
    await daemon.said("daemon.drain_started")
    assert (await daemon.get("/readyz"))[0] == 503
    began = time.monotonic()
    daemon.kill(signal.SIGTERM)
    assert await daemon.ended(15) == 1
    assert in_time(time.monotonic() - began, 2.0)
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.attempt_all") == 0


async def test_sighup_with_a_bad_file_keeps_the_old_settings(bench, sql, tmp_path):
    file = tmp_path / "dispatcher.toml"
    file.write_text('[log]\nlevel = "info"\n')
    bench.receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_x", bench.receiver.url("/hook"))
    daemon = await bench.daemon(CONFIG=str(file)).started()
    file.write_text("[delivery]\nno_such_key = 1\n")
    daemon.kill(signal.SIGHUP)
    refused = await daemon.said("settings.rejected")
    assert any("no_such_key" in problem for problem in refused["problems"])
    file.write_text("[delivery]\ndrain_seconds = 1\n")
    daemon.kill(signal.SIGHUP)
    taken = await daemon.said("settings.reloaded")
    assert taken["changed"] == ["delivery.drain_seconds"]
    await bench.produced(Plan(url=bench.url, events_count=3))
    await quiet(bench.url, seconds=10)
    await bench.report("sighup", [Subscriber("ep_x", "/hook")])


async def test_the_supervisor_hears_ready_watchdog_and_stopping(bench, tmp_path):
    path = tmp_path / "notify.sock"
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as channel:
        channel.bind(str(path))
        channel.settimeout(10)
        daemon = bench.daemon_for_supervisor(str(path), watchdog_seconds=1.5)

        def heard() -> str:
            return channel.recv(1024).decode()

        first = heard()
        await daemon.started()
        assert first in {"READY=1", "WATCHDOG=1"}
        messages = [first, *(heard() for _ in range(3))]
        assert "READY=1" in messages
        assert messages.count("WATCHDOG=1") >= 2
        daemon.kill(signal.SIGTERM)
        assert await daemon.ended(10) == 0
        while messages[-1] != "STOPPING=1":
            messages.append(heard())
