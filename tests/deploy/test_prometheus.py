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
from tests.support.daemon import STANDARD_SECRET, Receiver, add_endpoint, free_port, until
from tests.support.tools import need

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

FIRES_SECONDS_MAX = 360.0
LATE = {"dispatcher_history_partitions_kept", "dispatcher_endpoint_down_seconds"}
"""Set by the first round of retention, minutes after the start; and only while an endpoint is down, if settings ask."""


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
@pytest.mark.timeout(600)
async def test_prometheus_fires_while_a_receiver_is_stopped_and_ends(
    bench: Bench,
    sql: Any,
    deploy: Path,
    tmp_path: Path,
    long_run: bool,
    say: Callable[[str], None],
) -> None:
    """Event, health and alert of one outage, and the end of all three. `--long`: the rules and settings as shipped."""
    receiver = bench.receiver
    receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_1", receiver.url("/hook"), event_types=["order.created"])
    rules = (deploy / "prometheus" / "rules.yml").read_text("utf-8")
    down_after = "5"
    if not long_run:
        down_after = "0.05"
        rules = rules.replace(">= 300", ">= 4").replace("interval: 15s", "interval: 1s")
        rules = rules.replace("[15m]", "[20s]")
    (tmp_path / "rules.yml").write_text(rules)
    daemon = await bench.daemon(
        METRICS__PER_ENDPOINT="true", HEALTH__DOWN_AFTER_MINUTES=down_after
    ).started()
    port = free_port()
    config = {
        "global": {"scrape_interval": "5s" if long_run else "1s", "evaluation_interval": "15s"},
        "rule_files": ["rules.yml"],
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
        transcript = await _outage(sql, bench, port, FIRES_SECONDS_MAX if long_run else 60.0)
    finally:
        prometheus.terminate()
        async with asyncio.timeout(20):
            await prometheus.wait()
    say(orjson.dumps({"id": "M2", **transcript}).decode())
    assert "wms/dispatcher: endpoint ep_1 (ep_1) of tenant default is down" in transcript["summary"]
    first, last = transcript["events"]
    assert (first["reason"], last["reason"]) == ("down", "succeeded")
    assert first["waiting_count"] > 0


async def _outage(sql: Any, bench: Bench, port: int, fires_seconds_max: float) -> dict[str, Any]:
    """Stop the receiver under traffic, and start it again; return what was observed, in seconds since the stop."""

    async def firing() -> dict[str, str] | None:
        """Publish an event; return the summaries of the alerts that fire; None: Prometheus does not respond."""
        await sql.execute(
            "INSERT INTO dispatcher.outbox (type, data) VALUES ('order.created', '{\"n\": 1}')"
        )

        def ask() -> list[dict[str, Any]]:
            with urlopen(f"http://127.0.0.1:{port}/api/v1/alerts", timeout=5) as response:
                return list(orjson.loads(response.read())["data"]["alerts"])

        try:
            found = await asyncio.to_thread(ask)
        except OSError:
            return None
        return {
            one["labels"]["alertname"]: one["annotations"]["summary"]
            for one in found
            if one["state"] == "firing"
        }

    async def health() -> Any:
        return await sql.fetchval("SELECT health FROM dispatcher.endpoint_status")

    async def events() -> list[dict[str, Any]]:
        rows = await sql.fetch(
            "SELECT data FROM dispatcher.event_all WHERE accepted_at IS NOT NULL"
            " AND type LIKE 'dispatcher.endpoint.%' ORDER BY accepted_at, id"
        )
        return [orjson.loads(row["data"]) for row in rows]

    async def responds() -> bool:
        return await firing() is not None

    async def fired() -> str | None:
        return (await firing() or {}).get("DispatcherEndpointDown")

    async def silent() -> bool:
        found = await firing()
        return found is not None and "DispatcherEndpointDown" not in found

    async def announced() -> bool:
        return len(await events()) >= 1

    async def ended() -> bool:
        return len(await events()) == 2 and await health() in {None, "recovering"}

    receiver = bench.receiver
    await until(responds, seconds=30, what="Prometheus responds", pause=0.25)
    for _ in range(3):
        await firing()
    await receiver.received(3, path="/hook")
    assert (await health(), await events()) == (None, [])
    receiver.stop()
    began = time.monotonic()

    def elapsed() -> float:
        return round(time.monotonic() - began, 1)

    summary = await until(
        fired, seconds=fires_seconds_max, what="DispatcherEndpointDown", pause=0.5
    )
    seconds: dict[str, float] = {"alert_fired": elapsed()}
    assert await health() == "down"
    await until(announced, seconds=30, what="dispatcher.endpoint.failing", pause=0.5)
    seconds["event_raised"] = elapsed()
    again = Receiver(bench.folder, port=receiver.port)
    try:
        again.behave(hook={"secret": STANDARD_SECRET})
        await until(ended, seconds=120, what="dispatcher.endpoint.recovered", pause=0.5)
        seconds["recovered"] = elapsed()
        await until(silent, seconds=60, what="the alert ends", pause=0.5)
        seconds["alert_ended"] = elapsed()
    finally:
        again.stop()
    return {"seconds": seconds, "summary": summary, "events": await events()}
