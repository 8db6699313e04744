"""Recording results under a token: fenced, idempotent, all or nothing; and loading, cancelling and resending."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from dispatcher.core import ids
from dispatcher.core.errors import StoreUnavailableError
from dispatcher.core.model import DeliveryId, EndpointId
from dispatcher.store import results as store
from dispatcher.store.attempts import AttemptRow
from dispatcher.store.deliveries import Deliveries
from dispatcher.store.delivery_ids import uuid_of
from dispatcher.store.delivery_requests import DeliveryRequests
from dispatcher.store.pool import Database
from dispatcher.store.results import MoveRow, Recorded, Results
from tests.support.words import attempt_row, wh

pytestmark = pytest.mark.postgres

SHARD = 5
TOKEN = 7
AT = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
async def sql(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    await connection.execute(
        "UPDATE dispatcher.shard SET owner = 'me', token = $1 WHERE shard = $2", TOKEN, SHARD
    )
    await connection.execute(
        "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)"
        " VALUES ('ep', 'default', 'e', 'https://x.test/', 'wms', '{*}', $1)",
        SHARD,
    )
    yield connection
    await connection.close()


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Database]:
    pool = Database(database, connections_max=4)
    await pool.open()
    yield pool
    await pool.close()


@pytest.fixture
def deliveries(pool: Database) -> Deliveries:
    return Deliveries(pool)


@pytest.fixture
def requests(pool: Database) -> DeliveryRequests:
    return DeliveryRequests(pool)


@pytest.fixture
def results(pool: Database) -> Results:
    return Results(pool)


async def _open(
    sql: Any, number: int, *, attempt_count: int = 0, position: int = 0, due: str = "0 s"
) -> DeliveryId:
    """Makes an event, its body and a waiting delivery; returns the delivery's id."""
    await sql.execute(
        """
        WITH today AS (SELECT (now() AT TIME ZONE 'UTC')::date AS day, 'evt' || $1::text AS event), e AS (
            INSERT INTO dispatcher.event (day, id, type, tenant, data, occurred_at, labels, inserted_at, accepted_at)
            SELECT day, event, 'a.b', 'default', '{}', now(), '{}', now(), now() FROM today
        ), b AS (
            INSERT INTO dispatcher.body (day, event_id, profile, bytes) SELECT day, event, 'wms', 'body' FROM today
        )
        INSERT INTO words.delivery_open
            (id, day, event_id, endpoint_id, event_type, tenant, profile, state, attempt_count, schedule_position,
             next_attempt_at, created_at)
        SELECT $5::text, day, event, 'ep', 'a.b', 'default', 'wms',
               CASE WHEN $3 > 0 THEN 'retrying' ELSE 'pending' END, $2, $3, now() + $4::text::interval, now()
        FROM today
        """,
        str(number),
        attempt_count,
        position,
        due,
        wh(number),
    )
    return wh(number)


async def _result(
    sql: Any,
    number: int,
    *,
    attempt: int = 1,
    state: str = "succeeded",
    reason: str | None = None,
    outcome: str = "ok",
    due: float | None = None,
    position: int = 1,
    trigger: str = "scheduled",
) -> tuple[MoveRow, AttemptRow]:
    code = 200 if outcome == "ok" else 500
    day = await sql.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
    delivery_id = wh(number)
    return (
        MoveRow(SHARD, delivery_id, attempt, state, reason, position, due),
        attempt_row(
            day,
            delivery_id,
            f"evt{number}",
            attempt_number=attempt,
            trigger=trigger,
            outcome=outcome,
            attempted_at=AT,
            response_code=code,
        ),
    )


async def _record(results: Results, *made: tuple[MoveRow, AttemptRow], token: int = TOKEN) -> Any:
    return await results.record([r[0] for r in made], [r[1] for r in made], {SHARD: token})


async def _row(sql: Any, delivery_id: str | None = None) -> Any:
    return await sql.fetchrow(
        "SELECT * FROM dispatcher.delivery WHERE id = $1", delivery_id or wh(1)
    )


@pytest.mark.parametrize("copied", [False, True], ids=["one-statement", "copied"])
async def test_record_in_one_statement_writes_the_rows_of_a_copy(sql, results, monkeypatch, copied):
    """Both ways record, fence and repeat alike, and keep what a delivery's row holds."""
    if copied:
        monkeypatch.setattr(store, "_is_plain", lambda *_: False)
    for number in (1, 2, 3):
        await _open(sql, number)
    await sql.execute("UPDATE dispatcher.delivery_open SET warnings = '{shortened}' WHERE id = $1",
                      uuid_of(wh(2)))  # fmt: skip
    made = [await _result(sql, number) for number in (1, 2, 3)]
    move, attempt = made[2]
    elsewhere = SHARD + 1
    made[2] = move._replace(shard=elsewhere), attempt
    tokens = {SHARD: TOKEN, elsewhere: TOKEN}
    moves, attempts = [one[0] for one in made], [one[1] for one in made]
    for late in (frozenset(), frozenset({wh(1), wh(2)})):
        recorded = await results.record(moves, attempts, tokens)
        assert recorded == Recorded(frozenset({wh(3)}), late, superseded=late)
    rows = [
        dict(row) for row in await sql.fetch("SELECT * FROM dispatcher.delivery_done ORDER BY id")
    ]
    assert [row["id"] for row in rows] == [uuid_of(wh(1)), uuid_of(wh(2))]
    assert [row["warnings"] for row in rows] == [None, ["shortened"]]
    assert {row["attempted_at"] for row in rows} == {AT}
    names = (
        "state",
        "attempt_count",
        "schedule_position",
        "trigger",
        "outcome",
        "response_code",
        "revision",
        "reused",
    )
    assert [tuple(rows[0][name] for name in names)] == [
        (3, 1, 1, 1, 1, 200, attempt.revision, attempt.reused)
    ]
    seconds = ("latency_seconds", "dns_seconds", "connect_seconds", "wait_seconds", "read_seconds")
    assert [rows[0][name] for name in seconds] == pytest.approx(
        [getattr(attempt, name) for name in seconds]
    )
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.attempt") == 0
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.delivery_open") == 1


async def test_record_success_retry_and_failure_leave_one_attempt_each(sql, results):
    for number in (1, 2, 3):
        await _open(sql, number)
    recorded = await _record(
        results,
        await _result(sql, 1),
        await _result(sql, 2, state="retrying", outcome="http_error", due=30.0),
        await _result(sql, 3, state="failed", reason="schedule_spent", outcome="timeout"),
    )
    assert recorded == Recorded(frozenset(), frozenset())
    rows = await sql.fetch(
        "SELECT state, reason, attempt_count, schedule_position, finished_at IS NOT NULL AS ended,"
        " extract(epoch FROM next_attempt_at - now())::float8 AS due FROM dispatcher.delivery ORDER BY id"
    )
    assert [tuple(row)[:5] for row in rows] == [
        ("succeeded", None, 1, 1, True),
        ("retrying", None, 1, 1, False),
        ("failed", "schedule_spent", 1, 1, True),
    ]
    assert 29 < rows[1]["due"] <= 30
    assert await sql.fetchval("SELECT count(*) FROM words.attempt") == 3
    assert await sql.fetchval("SELECT count(*) FROM words.delivery_open") == 1


async def test_a_stale_token_writes_nothing(sql, results):
    await _open(sql, 1)
    await _open(sql, 2)
    before = await _row(sql)
    recorded = await _record(results, await _result(sql, 1), await _result(sql, 2), token=TOKEN - 1)
    assert recorded == Recorded(frozenset({wh(1), wh(2)}), frozenset())
    assert await _row(sql) == before
    assert await sql.fetchval("SELECT count(*) FROM words.attempt") == 0


async def test_an_ended_lease_without_a_takeover_still_records(sql, results):
    await _open(sql, 1)
    await sql.execute(
        "INSERT INTO dispatcher.replica (incarnation, name, version, expires_at)"
        " VALUES ('me', 'me', '1', now() - interval '1 hour')"
    )
    assert (await _record(results, await _result(sql, 1))).fenced == frozenset()
    assert (await _row(sql))["state"] == "succeeded"


@pytest.mark.parametrize(("state", "due"), [("succeeded", None), ("retrying", 60.0)])
async def test_recording_a_batch_twice_changes_nothing(sql, results, state, due):
    await _open(sql, 1)
    outcome = "ok" if state == "succeeded" else "http_error"
    result = await _result(sql, 1, state=state, outcome=outcome, due=due)
    await _record(results, result)
    before = await _row(sql)
    await _record(results, result)
    assert await _row(sql) == before
    assert await sql.fetchval("SELECT count(*) FROM words.attempt") == 1


async def test_a_row_that_postgres_refuses_takes_its_whole_batch_with_it(sql, results):
    await _open(sql, 1)
    await _open(sql, 2)
    good = await _result(sql, 1)
    bad = await _result(sql, 2)
    with pytest.raises(asyncpg.CheckViolationError):
        await _record(results, good, (bad[0], bad[1]._replace(response_code=404)))
    assert await sql.fetchval("SELECT count(*) FROM words.delivery_open") == 2
    assert await sql.fetchval("SELECT count(*) FROM words.attempt") == 0


async def test_what_is_no_rows_fault_is_waited_out(sql, results):
    """A day without its partition: refused row by row, each would be sent again and again."""
    await _open(sql, 1)
    result = await _result(sql, 1)
    day = await sql.fetchval("SELECT to_char(day, 'YYYYMMDD') FROM words.delivery_open")
    await sql.execute(f"DROP TABLE dispatcher.delivery_done_{day}")
    with pytest.raises(StoreUnavailableError, match="no partition"):
        await _record(results, result)
    await sql.execute("SELECT dispatcher.make_partitions(1)")
    await _record(results, result)
    assert (await _row(sql))["state"] == "succeeded"


async def test_a_success_after_a_cancellation_in_flight_makes_it_succeeded(
    sql, deliveries, results
):
    await _open(sql, 1)
    assert await deliveries.cancel_of_endpoints([(EndpointId("ep"), "endpoint_deleted")], 10) == 1
    assert (await _row(sql))["reason"] == "endpoint_deleted"
    recorded = await _record(results, await _result(sql, 1))
    assert recorded.late == {wh(1)}
    row = await _row(sql)
    assert (row["state"], row["reason"], row["attempt_count"]) == ("succeeded", None, 1)


async def test_record_failure_after_cancellation_starts_no_schedule(sql, deliveries, results):
    await _open(sql, 1)
    await deliveries.cancel_of_endpoints([(EndpointId("ep"), "endpoint_deleted")], 10)
    await _record(results, await _result(sql, 1, state="retrying", outcome="http_error", due=1.0))
    row = await _row(sql)
    assert (row["state"], row["reason"], row["attempt_count"]) == (
        "cancelled",
        "endpoint_deleted",
        1,
    )
    assert await sql.fetchval("SELECT outcome FROM words.attempt") == "http_error"


@pytest.mark.shows("G3")
async def test_a_late_result_under_a_stale_token_writes_nothing(sql, deliveries, results):
    await _open(sql, 1)
    await deliveries.cancel_of_endpoints([(EndpointId("ep"), "endpoint_deleted")], 10)
    recorded = await _record(results, await _result(sql, 1), token=TOKEN - 1)
    assert recorded.fenced == {wh(1)}
    assert (await _row(sql))["state"] == "cancelled"
    assert await sql.fetchval("SELECT count(*) FROM words.attempt") == 0


async def test_a_failed_resend_of_a_waiting_delivery_keeps_its_due_time(sql, results):
    await _open(sql, 1, attempt_count=1, position=1, due="60 s")
    before = await _row(sql)
    await _record(
        results,
        await _result(sql, 1, attempt=2, state="retrying", outcome="http_error", trigger="manual"),
    )
    after = await _row(sql)
    assert after["next_attempt_at"] == before["next_attempt_at"]
    assert (after["attempt_count"], after["schedule_position"]) == (2, 1)


async def test_a_window_is_the_nearest_due_of_each_endpoint_within_the_horizon(sql, deliveries):
    for number, due in enumerate(["-5 s", "10 s", "20 s", "2000 s"]):
        await _open(sql, number, attempt_count=1, position=1, due=due)
    rows = await deliveries.window([EndpointId("ep"), EndpointId("nobody")], 2, 600.0)
    assert [row.id for row in rows] == [wh(0), wh(1)]
    assert rows[0].due_in_seconds < -4
    assert 8 < rows[1].due_in_seconds <= 10
    assert [row.id for row in await deliveries.window([EndpointId("ep")], 10, 600.0)] == [
        wh(0),
        wh(1),
        wh(2),
    ]


async def test_arrivals_are_what_became_due_of_late(sql, deliveries):
    for number, due in enumerate(["-100 s", "-5 s", "-1 s", "10 s"]):
        await _open(sql, number, attempt_count=1, position=1, due=due)
    assert [row.id for row in await deliveries.arrivals([EndpointId("ep")], 10, 30.0)] == [
        wh(1),
        wh(2),
    ]
    assert [row.id for row in await deliveries.arrivals([EndpointId("ep")], 1, 30.0)] == [wh(1)]


async def test_load_returns_what_is_still_open_with_its_body(sql, deliveries, results):
    await _open(sql, 1)
    await _open(sql, 2)
    await _record(results, await _result(sql, 2))
    rows = await deliveries.load([wh(1), wh(2), wh(9)])
    assert [(row.id, row.body, row.attempt_count) for row in rows] == [(wh(1), b"body", 0)]


async def _ask(sql: Any, delivery_id: str, kind: str = "resend") -> None:
    await sql.execute(
        "INSERT INTO words.delivery_request (delivery_id, kind, day, endpoint_id, requested_by)"
        " SELECT $1, $2, day, endpoint_id, 'test' FROM dispatcher.delivery WHERE id = $1",
        delivery_id,
        kind,
    )


async def test_requests_are_of_our_shards_and_not_in_flight(sql, requests):
    for number in (1, 2):
        await _open(sql, number)
        await _ask(sql, wh(number))
    rows = await requests.of_deliveries([SHARD], 10, [wh(1)])
    assert [(row.kind, row.id, row.body, row.state) for row in rows] == [
        ("resend", wh(2), b"body", "pending")
    ]
    assert await requests.of_deliveries([SHARD + 1], 10, []) == []


@pytest.mark.parametrize(("outcome", "answered"), [("ok", True), ("http_error", False)])
async def test_resend_request_during_an_attempt_is_settled_by_its_success(
    sql, requests, results, outcome, answered
):
    await _open(sql, 1)
    await _record(results, await _result(sql, 1, outcome=outcome, state="failed", reason="gone"))
    await sql.execute(
        "UPDATE dispatcher.delivery_done SET attempted_at = now() - interval '1 s', latency_seconds = 2"
    )
    await _ask(sql, wh(1))
    [row] = await requests.of_deliveries([SHARD], 10, [])
    assert row.answered is answered
    await sql.execute("UPDATE dispatcher.delivery_done SET attempted_at = now() - interval '9 s'")
    [row] = await requests.of_deliveries([SHARD], 10, [])
    assert not row.answered, "the attempt had ended before"


async def test_resend_request_is_settled_by_a_later_or_successful_attempt(sql, results):
    for number in (1, 2, 3):
        await _open(sql, number)
        await _ask(sql, wh(number))
    await sql.execute("UPDATE dispatcher.delivery_request SET requested_at = $1", AT)
    before, after = AT.replace(hour=11), AT.replace(hour=13)
    await results.settle_requests(
        [
            (wh(1), after, False),
            (wh(2), before, False),
            (wh(3), before, True),
        ]
    )
    assert [
        row[0] for row in await sql.fetch("SELECT delivery_id FROM words.delivery_request")
    ] == [wh(2)]


async def test_what_a_paused_endpoint_held_too_long_is_cancelled(sql, deliveries):
    await _open(sql, 1)
    await _open(sql, 2)
    await sql.execute(
        "UPDATE dispatcher.endpoint SET state = 'paused', paused_at = now() - interval '8 days'"
    )
    old = ids.delivery_id(ids.unix_ms_of(wh(1)) - 8 * 86_400_000, "evt1", "ep")
    await sql.execute(
        "UPDATE dispatcher.delivery_open SET id = dispatcher.delivery_uuid($1)"
        " WHERE id = dispatcher.delivery_uuid($2)",
        old,
        wh(1),
    )
    assert await deliveries.cancel_held(7 * 86400.0, 10) == 1
    row = await _row(sql, old)
    assert (row["state"], row["reason"]) == ("cancelled", "paused_too_long")
    assert (await _row(sql, wh(2)))["state"] == "pending"


async def test_cancelling_skips_rows_that_a_recorder_holds(sql, deliveries, database):
    await _open(sql, 1)
    await _open(sql, 2)
    other = await asyncpg.connect(database)
    await other.execute(
        "BEGIN; SELECT FROM dispatcher.delivery_open WHERE event_id = 'evt1' FOR UPDATE"
    )
    assert await deliveries.cancel_of_endpoints([(EndpointId("ep"), "endpoint_disabled")], 10) == 1
    await other.execute("COMMIT")
    await other.close()
    assert (await _row(sql))["state"] == "pending"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE dispatcher.delivery_open SET next_attempt_at = NULL",
        "UPDATE dispatcher.delivery_open SET schedule_position = 1",
        "UPDATE dispatcher.delivery_open SET attempt_count = -1",
    ],
)
async def test_the_database_refuses_an_open_delivery_in_no_state_of_ours(sql, change):
    await _open(sql, 1)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await sql.execute(change)


@pytest.mark.parametrize(
    "change",
    [
        "state = 4, reason = NULL",
        "state = 1",
        "reason = 1",
        "attempt_count = 0",
        "finished_at = NULL",
        "response_code = 404",
        "outcome = NULL",
    ],
)
async def test_the_database_refuses_an_ended_delivery_in_no_state_of_ours(sql, results, change):
    await _open(sql, 1)
    await _record(results, await _result(sql, 1))
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await sql.execute(f"UPDATE dispatcher.delivery_done SET {change}")
