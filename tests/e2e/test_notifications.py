"""Messages to people through the whole pipeline: a fake Slack, a fake LINE, and a target that is down."""

import base64
from typing import Any

import orjson
import pytest

from tests.support.daemon import add_endpoint, quiet, until

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

PATH, TOKEN = "/services/T0/B0/x", "line-token"
ERP, SLACK, LINE, DEAF = (f"ep_{number:026}" for number in range(1, 5))


async def test_people_get_a_message_when_a_receiver_fails_and_when_it_recovers(bench, sql):
    receiver = bench.receiver
    receiver.behave(
        erp={"statuses": [500] * 3 + [200]},
        **{
            "services/T0/B0/x": {"keep_request": True},
            "push": {"keep_request": True},
            "deaf": {"statuses": [500]},
        },
    )
    await add_endpoint(
        sql,
        ERP,
        receiver.url("/erp"),
        profile="wms",
        event_types=["t.*"],
        retry_schedule_seconds=[],
    )
    await add_endpoint(
        sql,
        SLACK,
        receiver.url("/"),
        profile="slack",
        secret=PATH,
        event_types=["x.y"],
    )
    await add_endpoint(
        sql, LINE, receiver.url("/push"), profile="line", secret=TOKEN, event_types=["x.y"]
    )
    await add_endpoint(
        sql, DEAF, receiver.url("/deaf"), profile="wms", event_types=["x.y"],
        retry_schedule_seconds=[],
    )  # fmt: skip
    for number, (target, recipient) in enumerate(((SLACK, None), (LINE, "U123"), (DEAF, None))):
        await sql.execute(
            "INSERT INTO dispatcher.notification (id, name, event_types, endpoint_ids, to_endpoint_id,"
            " recipient, quiet_seconds, created_by)"
            " VALUES ($1, $1, '{dispatcher.endpoint.failing,dispatcher.delivery.failed}', '{}', $2, $3, 1, 'x')",
            f"ntf_{number}",
            target,
            recipient,
        )
    # The endpoint has been failing for six minutes: the next failure makes it "down".
    await sql.execute(
        "INSERT INTO dispatcher.endpoint_health (endpoint_id, first_failure_at, failed_attempts,"
        " by_producers) VALUES ($1, now() - interval '6 minutes', 5, true)",
        ERP,
    )
    await bench.daemon().started()

    def texts(path: str) -> list[dict[str, Any]]:
        return [
            orjson.loads(base64.b64decode(entry["body"]))
            for entry in receiver.entries("request", path)
        ]

    async def reported() -> bool:
        return bool(texts("/services/T0/B0/x")) and bool(texts("/push"))

    await until(reported, seconds=30, what="the messages of the start")
    assert texts("/services/T0/B0/x")[0] == {
        "text": f"Webhook {ERP} is failing\nWebhook: {ERP}\nTenant: default\nReason: down\n"
        + texts("/services/T0/B0/x")[0]["text"].rpartition("\n")[2]
    }
    line = receiver.entries("request", "/push")[0]
    assert line["headers"]["authorization"] == f"Bearer {TOKEN}"
    assert texts("/push")[0]["to"] == "U123"

    # It recovers: each gets one message of the end.
    receiver.behave(erp={})
    await sql.execute("INSERT INTO dispatcher.outbox (type, data) VALUES ('t.x', '{}')")

    async def ended() -> bool:
        return len(texts("/services/T0/B0/x")) >= 2 and len(texts("/push")) >= 2

    await until(ended, seconds=30, what="the messages of the end")
    assert texts("/services/T0/B0/x")[1]["text"].startswith(f"Webhook {ERP} has recovered")
    await quiet(bench.url, seconds=20)
    assert len(texts("/services/T0/B0/x")) == len(texts("/push")) == 2
    # The target that is down causes nothing: its deliveries have failed, and no event tells of that.
    kinds = await sql.fetch(
        "SELECT type, count(*)::integer FROM dispatcher.event_all GROUP BY type ORDER BY type"
    )
    assert [tuple(row) for row in kinds] == [
        ("dispatcher.endpoint.failing", 1),
        ("dispatcher.endpoint.recovered", 1),
        ("dispatcher.notification", 6),
        ("t.x", 1),
    ]
    failed = await sql.fetchval(
        "SELECT count(*) FROM dispatcher.delivery WHERE endpoint_id = $1 AND state = 'failed'", DEAF
    )
    assert failed == 2
