"""A real daemon, scraped: what the rules name is there, and a real Prometheus fires for a stopped receiver."""

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import orjson
import pytest
import yaml

from tests.support.bench import Bench
from tests.support.daemon import STANDARD_SECRET, add_endpoint, free_port, until
from tests.support.tools import need

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

FIRES_SECONDS_MAX = 360.0
LATE = {"dispatcher_history_partitions_kept"}
"""Set by the first round of retention, which begins minutes after the start."""


async def test_every_metric_of_a_rule_is_in_a_real_scrape(bench: Bench, deploy: Path) -> None:
    daemon = await bench.daemon().started()
    groups = yaml.safe_load((deploy / "prometheus" / "rules.yml").read_text("utf-8"))["groups"]
    wanted = set().union(
        *(re.findall(r"\bdispatcher_[a-z_]+", rule["expr"]) for g in groups for rule in g["rules"])
    )

    async def missing_is_late() -> bool:
        _, text = await daemon.get("/metrics")
        return wanted - set(re.findall(r"(?m)^(dispatcher_[a-z_]+)[ {]", text)) <= LATE

    await until(missing_is_late, seconds=30, what=f"all of {sorted(wanted)}")


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(500)
async def test_prometheus_fires_for_a_stopped_receiver_within_6_minutes(
    bench: Bench,
    sql: Any,
    deploy: Path,
    tmp_path: Path,
    long_run: bool,
    say: Callable[[str], None],
) -> None:
    if not long_run:
        pytest.skip("takes 6 minutes: --long runs it; test_alerts.py tests the rules by promtool")
    receiver = bench.receiver
    receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_1", receiver.url("/hook"), event_types=["order.created"])
    daemon = await bench.daemon().started()
    port = free_port()
    config = {
        "global": {"scrape_interval": "5s", "evaluation_interval": "15s"},
        "rule_files": [str(deploy / "prometheus" / "rules.yml")],
        "scrape_configs": [
            {
                "job_name": "dispatcher",
                "static_configs": [
                    {"targets": [f"127.0.0.1:{daemon.port}"], "labels": {"namespace": "wms"}}
                ],
            }
        ],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    with (tmp_path / "prometheus.log").open("wb") as log:
        prometheus = await asyncio.create_subprocess_exec(
            *[
                need("prometheus", package="prometheus"),
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        transcript = await _outage(sql, receiver, port)
    finally:
        prometheus.terminate()
        async with asyncio.timeout(20):
            await prometheus.wait()
    event = await sql.fetchval(
        "SELECT data FROM dispatcher.event_all WHERE accepted_at IS NOT NULL AND type = 'dispatcher.endpoint.failing'"
    )
    transcript["event"] = orjson.loads(event)
    say(orjson.dumps({"id": "M2", **transcript}).decode())
    assert transcript["fired_seconds"] <= FIRES_SECONDS_MAX
    assert transcript["event"]["reason"] == "down"


async def _outage(sql: Any, receiver: Any, port: int) -> dict[str, Any]:
    """Stops the receiver under traffic; returns what was observed, in seconds since then."""
    number = 0

    async def alerts() -> dict[str, str]:
        nonlocal number
        number += 1
        await sql.execute(
            "INSERT INTO dispatcher.outbox (type, data) VALUES ('order.created', '{\"n\": 1}')"
        )

        def ask() -> list[dict[str, Any]]:
            with urlopen(f"http://127.0.0.1:{port}/api/v1/alerts", timeout=5) as response:
                return list(orjson.loads(response.read())["data"]["alerts"])

        try:
            found = await asyncio.to_thread(ask)
        except OSError:
            return {}
        return {one["labels"]["alertname"]: one["state"] for one in found} | {"": ""}

    await until(alerts, seconds=30, what="Prometheus is up", pause=0.25)
    await receiver.received(3, path="/hook")
    receiver.stop()
    began = time.monotonic()
    seen: list[dict[str, Any]] = []

    async def fired() -> bool:
        states = await alerts()
        for name, state in states.items():
            if name and not any(one["alert"] == name and one["state"] == state for one in seen):
                seconds = round(time.monotonic() - began, 1)
                seen.append({"alert": name, "state": state, "seconds": seconds})
        return states.get("DispatcherEndpointDown") == "firing"

    await until(fired, seconds=FIRES_SECONDS_MAX + 60, what="DispatcherEndpointDown", pause=0.5)
    return {"fired_seconds": round(time.monotonic() - began, 1), "events": number, "alerts": seen}
