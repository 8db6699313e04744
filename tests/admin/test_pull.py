"""Deliveries that a receiver fetches: leased once, settled once, and recorded like those of a push."""

import asyncio
import os
import sys
from pathlib import Path

import asyncpg
import orjson
import pytest

from dispatcher.admin.operations.context import Deployment
from dispatcher.admin.operations.pull import POLLS_PER_ENDPOINT_MAX
from dispatcher.admin.resources.token import NewToken
from dispatcher.dev.receiver import Receiver, ReceiverRoute
from dispatcher.runtime import probe
from dispatcher.store.pull_leases import PullLeases
from dispatcher.verify import verify
from tests.admin.conftest import ALL
from tests.admin.serving import Api
from tests.support.daemon import until
from tests.support.pulled import Pulled, done, pulled_endpoint

pytestmark = pytest.mark.postgres

CLIENT = Path(__file__).resolve().parents[2] / "docs" / "snippets" / "pull_client.py"


@pytest.fixture
async def pulled(api: Api, connection: asyncpg.Connection) -> Pulled:
    return await pulled_endpoint(api, connection)


async def test_a_fetched_delivery_is_signed_acknowledged_and_logged(pulled: Pulled) -> None:
    (delivery,) = await pulled.add()
    (item,) = await pulled.poll()
    assert item["delivery_id"] == delivery
    assert item["headers"]["X-Api-Key"] == "k"
    assert "Host" not in item["headers"]
    verify(item["headers"], item["body"].encode(), pulled.secret, profile="standard")
    assert await pulled.poll() == [], "it is leased"
    waiting = await pulled.shown(delivery)
    assert (waiting["state"], waiting["attempt_count"]) == ("pending", 0)
    assert await pulled.settle(done(item)) == ["recorded"]
    shown = await pulled.shown(delivery)
    assert (shown["state"], shown["attempt_count"]) == ("succeeded", 1)
    (attempt,) = shown["attempts"]
    assert (attempt["outcome"], attempt["response_code"]) == ("ok", 200)
    assert await pulled.settle(done(item)) == ["expired"], "a lease is settled once"
    traffic = await pulled.sql.fetchrow(
        "SELECT ok_count, succeeded_count FROM dispatcher.traffic WHERE subject = $1", pulled.id
    )
    assert traffic is not None
    assert tuple(traffic) == (1, 1)


async def test_rejections_and_expired_leases_follow_the_schedule(pulled: Pulled) -> None:
    (delivery,) = await pulled.add()
    (item,) = await pulled.poll()
    assert await pulled.settle(done(item, 500, error="no room")) == ["recorded"]
    shown = await pulled.shown(delivery)
    assert (shown["state"], shown["attempts"][0]["error"]) == ("retrying", "no room")
    assert await pulled.poll() == [], "its retry is due in a minute"
    await pulled.make_due()
    (again,) = await pulled.poll("lease_seconds=5")
    assert again["attempt_number"] == 2
    await pulled.end_leases()
    assert await pulled.settle(done(again)) == ["expired"]
    ended = await pulled.shown(delivery)
    assert (ended["state"], ended["reason"]) == ("failed", "schedule_spent")
    assert [one["outcome"] for one in ended["attempts"]] == ["http_error", "timeout"]
    failed = await pulled.sql.fetchval(
        "SELECT count(*) FROM dispatcher.outbox WHERE type = 'dispatcher.delivery.failed'"
    )
    assert failed == 1
    reply = await pulled.api.ask("POST", f"/deliveries/{delivery}/resend")
    assert reply.status == 202
    (resent,) = await pulled.poll()
    assert (resent["delivery_id"], resent["attempt_number"]) == (delivery, 3)
    assert await pulled.settle(done(resent)) == ["recorded"]
    assert (await pulled.shown(delivery))["state"] == "succeeded"
    assert await pulled.poll() == []


async def test_an_expired_lease_keeps_its_delivery_until_it_is_recorded(
    pulled: Pulled, deployment: Deployment
) -> None:
    """A process that is slow, or has crashed, between the end of a lease and its record."""
    (delivery,) = await pulled.add()
    (item,) = await pulled.poll()
    await pulled.let_leases_expire()
    leases = PullLeases(deployment.database)
    (taken,) = await leases.take_expired(10)
    assert await pulled.poll() == [], "no other poll gets it meanwhile"
    assert await pulled.settle(done(item)) == ["expired"]
    assert await leases.take_expired(10) == [], "nor takes another process it over at once"
    await pulled.end_leases()
    shown = await pulled.shown(delivery)
    assert [one["outcome"] for one in shown["attempts"]] == ["timeout"]
    await leases.end([taken])
    await pulled.make_due()
    (again,) = await pulled.poll()
    assert again["attempt_number"] == 2
    assert await pulled.settle(done(again)) == ["recorded"]
    assert (await pulled.shown(delivery))["state"] == "succeeded"


async def test_a_result_that_another_attempt_supersedes_is_not_called_recorded(
    pulled: Pulled,
) -> None:
    (delivery,) = await pulled.add()
    (item,) = await pulled.poll()
    await pulled.sql.execute("UPDATE dispatcher.delivery_open SET attempt_count = 1")
    assert await pulled.settle(done(item)) == ["expired"]
    assert (await pulled.shown(delivery))["state"] in {"pending", "retrying"}


async def test_a_result_of_a_cancelled_delivery_is_recorded(pulled: Pulled) -> None:
    (delivery,) = await pulled.add()
    (item,) = await pulled.poll()
    assert (await pulled.api.ask("POST", f"/deliveries/{delivery}/cancel")).status == 200
    assert await pulled.settle(done(item)) == ["recorded"]
    assert (await pulled.shown(delivery))["state"] == "succeeded"


async def test_pollers_never_get_the_same_delivery(pulled: Pulled) -> None:
    made = await pulled.add(60)
    async with asyncio.TaskGroup() as tasks:
        polls = [tasks.create_task(pulled.poll("limit=10")) for _ in range(12)]
    pages = [poll.result() for poll in polls]
    got = [item["delivery_id"] for page in pages for item in page]
    assert sorted(got) == sorted(made)
    items = [item for page in pages for item in page]
    # Two settle the same leases and a third lets them expire: one attempt each.
    halves = (items[:30], items[30:]) * 2
    async with asyncio.TaskGroup() as tasks:
        settled = [tasks.create_task(pulled.settle(*map(done, half))) for half in halves]
        tasks.create_task(pulled.end_leases())
    assert sum(one == "recorded" for task in settled for one in task.result()) <= 60
    await pulled.end_leases()
    counts = await pulled.sql.fetch("SELECT attempt_count FROM dispatcher.delivery_row")
    assert [row["attempt_count"] for row in counts] == [1] * 60
    assert await pulled.sql.fetchval("SELECT count(*) FROM dispatcher.pull_lease") == 0


async def test_a_waiting_poll_returns_what_arrives(pulled: Pulled) -> None:
    with probe.listen() as heard:
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(pulled.poll("wait_seconds=30"))
            await heard.wait("pull.claimed")
            made = await pulled.add()
            number = await pulled.sql.fetchval("SELECT number FROM dispatcher.endpoint")
            pulled.api.operations.pull.wake(str(number))
    assert [item["delivery_id"] for item in waiting.result()] == made


async def test_waiting_polls_are_bounded(pulled: Pulled) -> None:
    pull = pulled.api.operations.pull
    number = await pulled.sql.fetchval("SELECT number FROM dispatcher.endpoint")
    pull._waiting[number] = {asyncio.Event() for _ in range(POLLS_PER_ENDPOINT_MAX)}
    reply = await pulled.api.ask("GET", f"{pulled.path}?wait_seconds=1")
    assert (reply.status, reply.json["code"]) == (429, "too_many_polls")
    pull._waiting = {one: {asyncio.Event() for _ in range(20)} for one in range(10, 20)}
    assert (await pulled.api.ask("GET", f"{pulled.path}?wait_seconds=1")).status == 429
    pull._waiting.clear()
    await pulled.add()
    assert len(await pulled.poll("wait_seconds=1")) == 1


async def test_a_paused_endpoint_returns_nothing(pulled: Pulled) -> None:
    await pulled.add()
    await pulled.api.ask("POST", f"/endpoints/{pulled.id}/pause")
    reply = await pulled.api.ask("GET", pulled.path)
    assert (reply.status, reply.json["code"]) == (409, "endpoint_paused")
    reply = await pulled.api.ask("POST", f"/endpoints/{pulled.id}/test")
    assert (reply.status, reply.json["code"]) == (409, "endpoint_is_pulled")
    for query, code in (
        ("limit=0", "out_of_range"),
        ("limit=-1", "out_of_range"),
        ("limit=101", "out_of_range"),
        ("wait_seconds=31", "out_of_range"),
        ("wait_seconds=-0.5", "out_of_range"),
        ("lease_seconds=0", "out_of_range"),
        ("limit=a", "not_an_integer"),
    ):
        reply = await pulled.api.ask("GET", f"{pulled.path}?{query}")
        assert [one["code"] for one in reply.json["errors"]] == [code], query


async def test_the_documented_client_fetches_and_acknowledges(pulled: Pulled) -> None:
    made = await pulled.add(3)
    new = NewToken.of(name="pull", role="operator", endpoint_id=pulled.id)
    token = await pulled.api.operations.tokens.create(ALL, new)
    client = await asyncio.create_subprocess_exec(
        sys.executable, CLIENT, stdout=asyncio.subprocess.PIPE,
        env={
            **os.environ, "DISPATCHER_URL": pulled.api.url, "DISPATCHER_ENDPOINT": pulled.id,
            "DISPATCHER_TOKEN": token.token,
        },
    )  # fmt: skip
    try:
        assert client.stdout is not None
        async with asyncio.timeout(20):
            lines = [(await client.stdout.readline()).decode() for _ in made]

        async def settled() -> bool:
            sql = "SELECT count(*) = 3 FROM dispatcher.delivery WHERE state = 'succeeded'"
            return bool(await pulled.sql.fetchval(sql))

        await until(settled, seconds=10, what="the acknowledgements")
    finally:
        client.kill()
        await client.wait()
    assert sorted(line.split()[0] for line in lines) == sorted(made)


async def test_poll_forwards_to_a_local_receiver(pulled: Pulled) -> None:
    made = await pulled.add(2)
    receiver = Receiver(ReceiverRoute(profile="standard", secrets=[pulled.secret]))
    port = await receiver.start()
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dispatcher", "poll", pulled.id, "--once", "--url", pulled.api.url,
        "--forward", f"http://127.0.0.1:{port}/hook", stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "DISPATCHER_TOKEN": pulled.api.token},
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            out, _ = await command.communicate()
    finally:
        await receiver.stop()
    assert command.returncode == 0
    assert [one.verdict for one in receiver.received] == ["valid", "valid"]
    lines = [orjson.loads(line) for line in out.splitlines()]
    assert {one["delivery_id"]: one["response_code"] for one in lines} == dict.fromkeys(made, 200)
    for delivery in made:
        assert (await pulled.shown(delivery))["state"] == "succeeded"
