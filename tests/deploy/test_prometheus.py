"""A real daemon, scraped: what the rules name is there, and a real Prometheus fires for a stopped receiver."""

import asyncio
import base64
import re
import time
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import orjson
import pytest
import yaml

from tests.support.bench import Bench
from tests.support.daemon import STANDARD_SECRET, Receiver, add_endpoint, free_port, until
from tests.support.mailbox import Inbox, smtp_server
from tests.support.tools import need

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

FIRES_SECONDS_MAX = 330.0
CONSOLE = "https://dispatcher.example.com"
SLACK_PATH = "/services/T0/B0/x"
SLACK, LINE = (f"ep_{number:026}" for number in (1, 2))
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


class People:
    """Those on call: in a fake Slack and a fake LINE, which outlive the receiver, and with a mailbox."""

    def __init__(self, folder: Path, inbox: Inbox) -> None:
        (folder / "chats").mkdir()
        self.inbox = inbox
        self.chats = Receiver(folder / "chats")
        self.chats.behave(**{SLACK_PATH[1:]: {"keep_request": True}}, line={"keep_request": True})

    async def notify(self, sql: Any) -> None:
        """Make a rule for each of the three."""
        url = self.chats.url("/")
        await add_endpoint(sql, SLACK, url, profile="slack", secret=SLACK_PATH, event_types=["x.y"])
        await add_endpoint(
            sql, LINE, url + "line", profile="line", secret=SLACK_PATH, event_types=["x.y"]
        )
        for values in (
            ("ntf_slack", SLACK, None, None),
            ("ntf_line", LINE, None, "U123"),
            ("ntf_mail", None, "on-call@example.com", None),
        ):
            await sql.execute(
                "INSERT INTO dispatcher.notification (id, name, event_types, endpoint_ids, to_endpoint_id, email,"
                " recipient, quiet_seconds, created_by)"
                " VALUES ($1, $1, '{dispatcher.endpoint.failing}', '{}', $2, $3, $4, 1, 'x')",
                *values,
            )

    def messages(self) -> dict[str, list[str]]:
        """Return what each has got so far, as text."""
        bodies = {
            path: [
                orjson.loads(base64.b64decode(entry["body"]))
                for entry in self.chats.entries("request", path)
            ]
            for path in (SLACK_PATH, "/line")
        }
        return {
            "slack": [body["text"] for body in bodies[SLACK_PATH]],
            "line": [body["messages"][0]["text"] for body in bodies["/line"]],
            "mail": [f"{one['Subject']}\n{_text(one)}" for one in self.inbox.mails],
        }

    async def know_the_end(self) -> bool:
        """Return whether each has got two messages."""
        return all(len(messages) >= 2 for messages in self.messages().values())


def _text(mail: Message) -> str:
    payload = mail.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode()


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
    """Event, health, messages and alert of one outage, and the end of all. `--long`: rules and settings as shipped."""
    program = need("prometheus", package="prometheus")
    receiver = bench.receiver
    receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_1", receiver.url("/hook"), event_types=["order.created"])
    people = People(tmp_path, Inbox())
    await people.notify(sql)
    rules = (deploy / "prometheus" / "rules.yml").read_text("utf-8")
    down_after = "5"
    if not long_run:
        down_after = "0.05"
        rules = rules.replace(">= 300", ">= 4").replace("interval: 15s", "interval: 1s")
        rules = rules.replace("[15m]", "[20s]")
    (tmp_path / "rules.yml").write_text(rules)
    mail_port = free_port()
    daemon = await bench.daemon(
        METRICS__PER_ENDPOINT="true",
        HEALTH__DOWN_AFTER_MINUTES=down_after,
        HTTP__PUBLIC_URL=CONSOLE,
        SMTP__HOST="127.0.0.1",
        SMTP__PORT=str(mail_port),
        SMTP__SECURITY="none",
        SMTP__SENDER="dispatcher@example.com",
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
                program,
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        with smtp_server(people.inbox, mail_port):
            seconds_max = FIRES_SECONDS_MAX if long_run else 60.0
            transcript = await _outage(sql, bench, people, port, seconds_max)
    finally:
        people.chats.stop()
        prometheus.terminate()
        async with asyncio.timeout(20):
            await prometheus.wait()
    say(orjson.dumps({"id": "M2", **transcript}).decode())
    summary = transcript["alert"]["summary"]
    assert "wms/dispatcher: endpoint ep_1 (ep_1) of tenant default is down" in summary
    assert transcript["alert"]["console_url"] == "/webhooks/ep_1"
    first, last = transcript["events"]
    assert (first["reason"], last["reason"]) == ("down", "succeeded")
    assert first["waiting_count"] > 0
    assert {len(messages) for messages in people.messages().values()} == {2}, "one at each end"
    for started, ended in people.messages().values():
        assert "Webhook ep_1 is failing" in started
        assert "Webhook ep_1 has recovered" in ended
        assert f"{CONSOLE}/webhooks/ep_1" in started


async def _outage(
    sql: Any, bench: Bench, people: People, port: int, fires_seconds_max: float
) -> dict[str, Any]:
    """Stop the receiver under traffic, and start it again; return what was observed, in seconds since the stop."""

    async def firing() -> dict[str, dict[str, str]] | None:
        """Publish an event; return the annotations of the alerts that fire; None: Prometheus does not respond."""
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
            one["labels"]["alertname"]: one["annotations"]
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

    async def fired() -> dict[str, str] | None:
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

    seconds: dict[str, float] = {}

    async def all_seen() -> dict[str, str] | None:
        """Return the alert's annotations once every signal of the outage was seen; note when each was."""
        alert = await fired()
        seen = {"alert_fired": bool(alert), "event_raised": await announced()}
        seen |= {f"{name}_told": bool(got) for name, got in people.messages().items()}
        for name in (name for name, is_seen in seen.items() if is_seen):
            seconds.setdefault(name, elapsed())
        return alert if all(seen.values()) else None

    alert = await until(all_seen, seconds=fires_seconds_max, what="all signals", pause=0.5)
    assert await health() == "down"
    again = Receiver(bench.folder, port=receiver.port)
    try:
        again.behave(hook={"secret": STANDARD_SECRET})
        await until(ended, seconds=120, what="dispatcher.endpoint.recovered", pause=0.5)
        seconds["recovered"] = elapsed()
        await until(silent, seconds=60, what="the alert ends", pause=0.5)
        seconds["alert_ended"] = elapsed()
        await until(people.know_the_end, seconds=60, what="messages of the end", pause=0.5)
        seconds["people_told_of_the_end"] = elapsed()
    finally:
        again.stop()
    return {"seconds": seconds, "alert": alert, "events": await events()}
