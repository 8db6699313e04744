"""What happens to a delivery that fails: its schedule, its end, its resend, and what its endpoint may do to it."""

from typing import Any

import pytest

from tests.support.checker import Subscriber
from tests.support.daemon import STANDARD_SECRET, WMS_SECRET, add_endpoint, quiet, until
from tests.support.ledger import Plan

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]


async def _delivery(sql: Any, endpoint_id: str) -> Any:
    return await sql.fetchrow(
        "SELECT * FROM dispatcher.delivery WHERE endpoint_id = $1", endpoint_id
    )


async def _in_state(sql: Any, endpoint_id: str, state: str, seconds: float = 10.0) -> Any:
    async def look() -> Any:
        row = await _delivery(sql, endpoint_id)
        return row if row is not None and row["state"] == state else None

    return await until(look, seconds=seconds, what=f"{endpoint_id} {state}")


async def _attempts(sql: Any, endpoint_id: str) -> Any:
    return await sql.fetch(
        "SELECT a.* FROM dispatcher.attempt_all AS a JOIN dispatcher.delivery AS d ON d.id = a.delivery_id"
        " WHERE d.endpoint_id = $1 ORDER BY a.attempt_number",
        endpoint_id,
    )


async def _resend(sql: Any, delivery: Any) -> None:
    async with sql.transaction():
        await sql.execute(
            "INSERT INTO dispatcher.delivery_request (delivery_id, kind, day, event_id, endpoint_no, requested_by)"
            " SELECT $1, 'resend', $2, $3, number, 'test' FROM dispatcher.endpoint WHERE id = $4",
            delivery["uuid"],
            delivery["day"],
            delivery["event_id"],
            delivery["endpoint_id"],
        )
        await sql.execute("NOTIFY dispatcher_control")


async def test_schedule_exhausted_fails_and_a_resend_succeeds(bench, sql):
    schedule = [0.4, 0.8, 1.2]
    receiver = bench.receiver
    receiver.behave(hook={"secret": WMS_SECRET, "statuses": [500]})
    await add_endpoint(
        sql, "ep_x", receiver.url("/hook"), profile="wms", retry_schedule_seconds=schedule
    )
    await bench.daemon().started()
    await bench.produced(Plan(url=bench.url, events_count=1))
    failed = await _in_state(sql, "ep_x", "failed")
    assert (failed["reason"], failed["attempt_count"], failed["schedule_position"]) == (
        "schedule_spent",
        4,
        4,
    )
    attempts = await _attempts(sql, "ep_x")
    assert [(a["attempt_number"], a["trigger"], a["response_code"]) for a in attempts] == [
        (number, "scheduled", 500) for number in (1, 2, 3, 4)
    ]
    for delay, one, next_one in zip(schedule, attempts, attempts[1:], strict=False):
        apart = (next_one["attempted_at"] - one["attempted_at"]).total_seconds() - one[
            "latency_seconds"
        ]
        assert delay - 0.005 <= apart <= delay + 0.5
    await _resend(sql, failed)
    await until(
        lambda: sql.fetchval("SELECT count(*) = 5 FROM dispatcher.attempt_all"),
        seconds=5,
        what="a fifth attempt",
    )
    still = await _delivery(sql, "ep_x")
    assert (
        still["state"],
        still["reason"],
        still["attempt_count"],
        still["schedule_position"],
    ) == (
        "failed",
        "schedule_spent",
        5,
        4,
    )
    await until(
        lambda: sql.fetchval("SELECT count(*) = 0 FROM dispatcher.delivery_request"),
        seconds=5,
        what="the request gone",
    )
    receiver.behave(hook={"secret": WMS_SECRET, "statuses": [200]})
    await _resend(sql, still)
    done = await _in_state(sql, "ep_x", "succeeded")
    assert (done["reason"], done["attempt_count"], done["schedule_position"]) == (None, 6, 4)
    attempts = await _attempts(sql, "ep_x")
    assert [a["trigger"] for a in attempts] == ["scheduled"] * 4 + ["manual"] * 2
    assert len({e["sha256"] for e in receiver.entries("request")}) == 1
    await bench.report("retries-wms", [Subscriber("ep_x", "/hook", "wms", 4)])


async def test_body_and_ids_stay_while_timestamp_and_signature_are_made_anew(bench, sql):
    receiver = bench.receiver
    receiver.behave(hook={"secret": STANDARD_SECRET, "statuses": [500, 500, 200]})
    await add_endpoint(sql, "ep_x", receiver.url("/hook"), retry_schedule_seconds=[1.5, 1.5])
    await bench.daemon().started()
    await bench.produced(Plan(url=bench.url, events_count=1))
    await quiet(bench.url, seconds=15)
    seen = receiver.entries("request")
    assert len(seen) == 3
    assert len({(e["sha256"], e["event_id"]) for e in seen}) == 1
    assert len({(e["signed_at"], e["signature_text"]) for e in seen}) == 3
    await bench.report("retries-standard", [Subscriber("ep_x", "/hook", "standard", 3)])


async def test_a_resend_of_a_waiting_delivery_keeps_its_place_in_the_schedule(bench, sql):
    receiver = bench.receiver
    receiver.behave(hook={"secret": STANDARD_SECRET, "statuses": [500]})
    await add_endpoint(
        sql, "ep_x", receiver.url("/hook"), retry_schedule_seconds=[3.0, 60.0], profile="standard"
    )
    await bench.daemon().started()
    await bench.produced(Plan(url=bench.url, events_count=1))
    waiting = await _in_state(sql, "ep_x", "retrying")
    await _resend(sql, waiting)
    await until(
        lambda: sql.fetchval("SELECT count(*) = 2 FROM dispatcher.attempt_all"),
        seconds=2,
        what="the resend",
    )
    after = await _delivery(sql, "ep_x")
    assert (after["state"], after["attempt_count"], after["schedule_position"]) == (
        "retrying",
        2,
        1,
    )
    assert after["next_attempt_at"] == waiting["next_attempt_at"]
    await until(
        lambda: sql.fetchval("SELECT count(*) = 3 FROM dispatcher.attempt_all"),
        seconds=8,
        what="the retry",
    )
    attempts = await _attempts(sql, "ep_x")
    assert [a["trigger"] for a in attempts] == ["scheduled", "manual", "scheduled"]
    assert attempts[2]["attempted_at"] >= waiting["next_attempt_at"]


async def test_410_ends_and_disables_under_standard_and_is_retried_under_wms(bench, sql):
    """R20."""
    receiver = bench.receiver
    receiver.behave(
        std={"secret": STANDARD_SECRET, "statuses": [410]},
        wms={"secret": WMS_SECRET, "statuses": [410, 200]},
    )
    await add_endpoint(sql, "ep_std", receiver.url("/std"))
    await add_endpoint(
        sql, "ep_wms", receiver.url("/wms"), profile="wms", retry_schedule_seconds=[0.3]
    )
    await bench.daemon().started()
    await bench.produced(Plan(url=bench.url, events_count=1))
    gone = await _in_state(sql, "ep_std", "failed")
    assert (gone["reason"], gone["attempt_count"]) == ("gone", 1)
    await _in_state(sql, "ep_wms", "succeeded")
    endpoint = await sql.fetchrow(
        "SELECT state, reason FROM dispatcher.endpoint WHERE id = 'ep_std'"
    )
    assert tuple(endpoint) == ("disabled", "gone")
    await bench.produced(Plan(url=bench.url, events_count=1, prefix="after"))
    await until(
        lambda: sql.fetchval("SELECT count(*) = 4 FROM dispatcher.delivery_done"),
        seconds=10,
        what="four ended",
    )
    reasons = await sql.fetch(
        "SELECT reason FROM dispatcher.delivery WHERE endpoint_id = 'ep_std' ORDER BY created_at"
    )
    assert [row["reason"] for row in reasons] == ["gone", "endpoint_disabled"]
    await bench.report(
        "R20", [Subscriber("ep_std", "/std"), Subscriber("ep_wms", "/wms", "wms", 2)]
    )


async def test_retry_after_postpones_and_never_brings_forward(bench, sql):
    """R19."""
    receiver = bench.receiver
    receiver.behave(
        later={"secret": STANDARD_SECRET, "statuses": [503], "headers": {"Retry-After": "120"}},
        sooner={"secret": STANDARD_SECRET, "statuses": [429], "headers": {"Retry-After": "0"}},
    )
    await add_endpoint(sql, "ep_later", receiver.url("/later"), retry_schedule_seconds=[1.0])
    await add_endpoint(sql, "ep_sooner", receiver.url("/sooner"), retry_schedule_seconds=[50.0])
    await bench.daemon().started()
    await bench.produced(Plan(url=bench.url, events_count=1))
    later = await _in_state(sql, "ep_later", "retrying")
    sooner = await _in_state(sql, "ep_sooner", "retrying")
    assert 110 < (later["next_attempt_at"] - later["created_at"]).total_seconds() < 125
    assert 39 < (sooner["next_attempt_at"] - sooner["created_at"]).total_seconds() < 65


async def test_a_paused_endpoint_holds_what_comes_and_resumes_oldest_first(bench, sql):
    receiver = bench.receiver
    receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_x", receiver.url("/hook"), max_concurrency=1)
    await sql.execute("UPDATE dispatcher.endpoint SET state = 'paused', paused_at = now()")
    await bench.daemon().started()
    await bench.produced(Plan(url=bench.url, events_count=30, events_per_second=100))
    await until(
        lambda: sql.fetchval(
            "SELECT count(*) = 30 FROM dispatcher.delivery_open WHERE attempt_count = 0"
        ),
        seconds=10,
        what="thirty held",
    )
    assert receiver.entries("request") == []
    order = [
        row["event_id"]
        for row in await sql.fetch(
            "SELECT event_id FROM dispatcher.delivery_open ORDER BY next_attempt_at, id"
        )
    ]
    await sql.execute("UPDATE dispatcher.endpoint SET state = 'active', paused_at = NULL")
    await quiet(bench.url, seconds=10)
    assert [entry["event_id"] for entry in receiver.entries("request")] == order
    await bench.report("paused", [Subscriber("ep_x", "/hook")])


async def test_deliveries_of_deleted_or_disabled_endpoints_are_cancelled(bench, sql):
    receiver = bench.receiver
    for name in ("deleted", "disabled"):
        receiver.behave(**{name: {"secret": STANDARD_SECRET, "statuses": [500]}})
        await add_endpoint(
            sql, f"ep_{name}", receiver.url(f"/{name}"), retry_schedule_seconds=[600.0]
        )
    await bench.daemon().started()
    await bench.produced(Plan(url=bench.url, events_count=3))
    await until(
        lambda: sql.fetchval(
            "SELECT count(*) = 6 FROM dispatcher.delivery_open WHERE schedule_position > 0"
        ),
        seconds=10,
        what="six retrying",
    )
    await sql.execute("UPDATE dispatcher.endpoint SET deleted_at = now() WHERE id = 'ep_deleted'")
    await sql.execute(
        "UPDATE dispatcher.endpoint SET state = 'disabled', reason = 'test' WHERE id = 'ep_disabled'"
    )
    await quiet(bench.url, seconds=10)
    found = await sql.fetch(
        "SELECT DISTINCT endpoint_id, state, reason FROM dispatcher.delivery ORDER BY 1"
    )
    assert [tuple(row) for row in found] == [
        ("ep_deleted", "cancelled", "endpoint_deleted"),
        ("ep_disabled", "cancelled", "endpoint_disabled"),
    ]


async def test_an_endpoint_that_cannot_be_sent_to_costs_only_its_own_deliveries(bench, sql):
    """F10: rows that no interface of ours would have saved."""
    receiver = bench.receiver
    receiver.behave(good={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_good", receiver.url("/good"))
    await add_endpoint(
        sql, "ep_profile", receiver.url("/bad"), profile="nobody", secret=STANDARD_SECRET
    )
    await add_endpoint(sql, "ep_header", receiver.url("/bad"), headers='{"X-A": "b\\r\\nX-B: c"}')
    await add_endpoint(sql, "ep_url", "gopher://nowhere/")
    await add_endpoint(sql, "ep_secret", receiver.url("/bad"))
    await sql.execute(
        "UPDATE dispatcher.endpoint_secret SET sealed = sealed || 'x'::bytea WHERE endpoint_id = 'ep_secret'"
    )
    await bench.daemon().started()
    await bench.produced(Plan(url=bench.url, events_count=10))
    wanted = [
        ("ep_good", "succeeded", None, 10),
        *((f"ep_{name}", "pending", None, 10) for name in ("header", "profile", "secret", "url")),
    ]
    await until(lambda: _has_states(sql, wanted), seconds=10, what="what the good one got")
    await bench.report("F10", [Subscriber("ep_good", "/good")])


async def _has_states(sql: Any, wanted: list[tuple[Any, ...]]) -> bool:
    found = await sql.fetch(
        "SELECT endpoint_id, state, reason, count(*) FROM dispatcher.delivery GROUP BY 1, 2, 3 ORDER BY 1"
    )
    return [tuple(row) for row in found] == wanted


async def test_a_row_of_the_wrong_types_costs_only_its_own_deliveries(bench, sql):
    """F10: JSON and arrays let in what no interface of ours would; each of these once ended the daemon."""
    receiver = bench.receiver
    receiver.behave(good={"secret": STANDARD_SECRET}, odd={"statuses": [500]})
    await add_endpoint(sql, "ep_good", receiver.url("/good"))
    odd: dict[str, dict[str, Any]] = {
        "header_number": {"headers": '{"X-A": 5}'},
        "header_null": {"headers": '{"X-A": null}'},
        "header_list": {"headers": '{"X-A": ["b"]}'},
        "label_number": {"labels": '{"a": 5}'},
        "label_deep": {"labels": '{"a": [["b"]]}'},
        "types_null": {"event_types": ["order.created", None]},
        "delay_infinite": {"retry_schedule_seconds": [float("inf")]},
        "delay_nan": {"retry_schedule_seconds": [float("nan")]},
        "delay_null": {"retry_schedule_seconds": [None]},
        "delay_huge": {"retry_schedule_seconds": [1e300]},
        "delay_deep": {"retry_schedule_seconds": [[1.0, 2.0], [3.0, 4.0]]},
        "delay_before": {"retry_schedule_seconds": [-1.0]},
    }
    for name, columns in odd.items():
        await add_endpoint(sql, f"ep_{name}", receiver.url("/odd"), **columns)
    daemon = await bench.daemon().started()
    await bench.produced(Plan(url=bench.url, events_count=5))
    wanted = sorted(
        [
            ("ep_good", "succeeded", None, 5),
            *((f"ep_{name}", "pending", None, 5) for name in odd),
        ]
    )
    await until(lambda: _has_states(sql, wanted), seconds=10, what="what the good one got")
    assert daemon.child.poll() is None
    assert receiver.count("request", "/odd") == 0
    await bench.report("F10", [Subscriber("ep_good", "/good")])
