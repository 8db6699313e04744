"""Erasing: what events said is gone from every table, that they were stays, and nothing of them is sent again."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.operations.deliveries import DeliveryOperations
from dispatcher.admin.operations.erasure import Erasure
from dispatcher.admin.operations.events import Events
from dispatcher.admin.operations.jobs import JobOperations
from dispatcher.admin.resources.delivery import DeliveriesQuery
from dispatcher.admin.resources.job import JobFilter, NewJob
from dispatcher.cli.session import deployment_of
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.errors import ConflictError, ForbiddenError, InvalidRequestError, NotFoundError
from dispatcher.core.model import DeliveryId
from dispatcher.store.pool import Database
from dispatcher.store.results import MoveRow, Results
from tests.support.words import attempt_row, wh

pytestmark = pytest.mark.postgres

ALL = Actor(name="cli:tester")
PERSON = "somchai@example.com"
SHARD = 5


DONE, OPEN = (wh(0, event_id="evt_2026_000001", endpoint_id=name) for name in ("ep_y", "ep_x"))


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Database]:
    pool = Database(database, connections_max=3)
    await pool.open()
    yield pool
    await pool.close()


@pytest.fixture
def deployment(database: str, pool: Database) -> Deployment:
    return deployment_of(load_settings(None, {"DISPATCHER_DATABASE_URL": database}), pool)


@pytest.fixture
async def sql(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    await connection.execute("UPDATE dispatcher.shard SET owner = 'me', token = 1")
    await connection.execute(
        "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)"
        " VALUES ('ep_x', 'default', 'x', 'https://x.test/', 'wms', '{*}', 5),"
        " ('ep_y', 'default', 'y', 'https://y.test/', 'wms', '{*}', 5)"
    )
    yield connection
    await connection.close()


async def deliver(sql: Any, event_id: str, *, label: str = "E1") -> None:
    """Makes an accepted event with a failed and a waiting delivery, all of which name a person."""
    done, waiting = (wh(0, event_id=event_id, endpoint_id=name) for name in ("ep_y", "ep_x"))
    await sql.execute(
        """
        WITH today AS (SELECT (now() AT TIME ZONE 'UTC')::date AS day), e AS (
            INSERT INTO dispatcher.event
                (day, id, type, tenant, data, occurred_at, ordering_key, labels, inserted_at, accepted_at,
                 profile, bytes)
            SELECT day, $1, 'employee.create', 'default', json_build_object('mail', $2::text), now(), $2,
                   jsonb_build_object('employee', $3::text),
                   dispatcher.delivery_created_at(dispatcher.delivery_uuid($4)), now(), 'wms', convert_to($2, 'UTF8')
            FROM today
        ), b AS (
            INSERT INTO dispatcher.body (day, event_id, profile, bytes)
            SELECT day, $1, 'standard', convert_to($2, 'UTF8') FROM today
        ), o AS (
            INSERT INTO words.delivery_open
                (id, day, event_id, endpoint_id, event_type, tenant, profile, state, attempt_count, schedule_position)
            SELECT $5, day, $1, 'ep_x', 'employee.create', 'default', 'wms', 'retrying', 1, 1 FROM today
        )
        INSERT INTO words.delivery_done
            (id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, attempt_count,
             schedule_position, created_at, finished_at)
        SELECT $4, day, $1, 'ep_y', 'employee.create', 'default', 'wms', 'failed', 'schedule_spent', 1, 1,
               now(), now() FROM today
        """,
        event_id,
        PERSON,
        label,
        done,
        waiting,
    )
    await sql.execute(
        """
        INSERT INTO words.attempt
            (day, delivery_id, attempt_number, trigger, outcome, attempted_at, latency_seconds, reused, url,
             response_code, response_body)
        SELECT day, id, 1, 'scheduled', 'http_error', now(), 0.1, true, 'https://x.test/', 500,
               convert_to('no such person: ' || $2, 'UTF8')
        FROM dispatcher.delivery WHERE event_id = $1
        """,
        event_id,
        PERSON,
    )
    await sql.execute(
        "UPDATE dispatcher.attempt SET response_headers = convert_to('X-Person: ' || $1, 'UTF8')",
        PERSON,
    )


async def mentions(sql: Any) -> list[str]:
    """Returns the tables in which the person is still to be found: every column of every row."""
    found = []
    tables = await sql.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'dispatcher'::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT relispartition"
    )
    for row in tables:
        text = f"position({PERSON!r} IN t::text) > 0 OR position('{PERSON.encode().hex()}' IN t::text) > 0"
        if await sql.fetchval(
            f"SELECT count(*) FROM dispatcher.{row['relname']} AS t WHERE {text}"
        ):
            found.append(row["relname"])
    return sorted(found)


async def test_what_an_event_said_is_gone_from_every_table_and_its_states_stay(deployment, sql):
    await deliver(sql, "evt_2026_000001")
    assert await mentions(sql) == ["attempt", "body", "event"]
    counted = await Erasure(deployment).erase(ALL, event_id="evt_2026_000001", dry_run=True)
    assert await mentions(sql) == ["attempt", "body", "event"]
    answer = await Erasure(deployment).erase(ALL, event_id="evt_2026_000001")
    assert answer == replace(counted, dry_run=False)
    assert {k: getattr(answer, k) for k in ("events", "bodies", "answers", "cancelled")} == {
        "events": 1,
        "bodies": 2,
        "answers": 2,
        "cancelled": 1,
    }
    assert await mentions(sql) == []
    shown = await Events(deployment).show(ALL, "evt_2026_000001")
    states = {one.id: (one.state, one.reason) for one in shown.deliveries}
    assert states == {DONE: ("failed", "schedule_spent"), OPEN: ("cancelled", "event_erased")}
    assert await sql.fetchval("SELECT count(*) FROM words.attempt") == 2
    assert await sql.fetchval("SELECT erased_at IS NOT NULL FROM dispatcher.event")
    told = await sql.fetch("SELECT delivery_id, kind FROM words.delivery_request")
    assert [tuple(row) for row in told] == [(OPEN, "cancel")]
    (line,) = await sql.fetch("SELECT actor, action, object FROM dispatcher.audit")
    assert tuple(line) == ("cli:tester", "event.erase", "evt_2026_000001")


async def test_by_label_every_day_and_the_outbox_and_no_other_event(deployment, sql):
    await deliver(sql, "evt_2026_000001")
    await deliver(sql, "evt_2026_000002", label="E2")
    for event_id, label in (("own-1", "E1"), ("own-2", "E2")):
        await sql.execute(
            "INSERT INTO dispatcher.outbox (id, type, data, labels)"
            " VALUES ($1, 'employee.create', json_build_object('mail', $2::text),"
            " jsonb_build_object('employee', $3::text))",
            event_id,
            PERSON,
            label,
        )
    counted = await Erasure(deployment).erase(ALL, labels={"employee": "E1"}, dry_run=True)
    answer = await Erasure(deployment).erase(ALL, labels={"employee": "E1"})
    assert sorted(answer.ids) == sorted(counted.ids) == ["evt_2026_000001", "own-1"]
    assert answer.events == counted.events == 2
    left = await sql.fetch("SELECT id FROM dispatcher.event WHERE erased_at IS NULL")
    assert [row["id"] for row in left] == ["evt_2026_000002"]
    waiting = await sql.fetch("SELECT id FROM dispatcher.outbox WHERE consumed_at IS NULL")
    assert [row["id"] for row in waiting] == ["own-2"]
    detail = await sql.fetchval("SELECT detail::text FROM dispatcher.audit LIMIT 1")
    assert '"employee"' in detail
    assert "E1" not in detail
    again = await Erasure(deployment).erase(ALL, labels={"employee": "E1"})
    assert again.events == 0


async def test_an_event_that_waits_is_never_sent_and_its_id_stays_known(deployment, sql):
    await sql.execute(
        "INSERT INTO dispatcher.outbox (id, type, data) VALUES ('own-1', 'employee.create', '{\"a\": 1}')"
    )
    await Erasure(deployment).erase(ALL, event_id="own-1")
    shown = await Events(deployment).show(ALL, "own-1")
    assert (shown.data.text, shown.deliveries) == ("{}", [])
    assert not await sql.fetchval(
        "SELECT count(*) FROM dispatcher.outbox WHERE consumed_at IS NULL"
    )
    inserted = await sql.execute(
        "INSERT INTO dispatcher.outbox (id, type, data) VALUES ('own-1', 'a.b', '{}') ON CONFLICT (id) DO NOTHING"
    )
    assert inserted == "INSERT 0 0"


async def test_an_erased_delivery_cannot_be_resent(deployment, sql):
    await deliver(sql, "evt_2026_000001")
    await Erasure(deployment).erase(ALL, event_id="evt_2026_000001")
    for name in (DONE, OPEN):
        with pytest.raises(ConflictError, match="nothing to send"):
            await DeliveryOperations(deployment).resend(ALL, name)


async def test_a_job_counts_nothing_that_was_erased(deployment, sql):
    await deliver(sql, "evt_2026_000001")
    await Erasure(deployment).erase(ALL, event_id="evt_2026_000001")
    wanted = DeliveriesQuery.of(event_id="evt_2026_000001")
    assert len((await DeliveryOperations(deployment).page(ALL, wanted)).items) == 2
    job = NewJob.of(kind="resend", filter=JobFilter.of(event_id="evt_2026_000001"))
    counted = await JobOperations(deployment).count(ALL, job)
    assert (counted.count, counted.skipped) == (0, {"event_erased": 2})


async def test_what_is_answered_to_an_attempt_in_flight_is_not_kept(deployment, sql, pool):
    await deliver(sql, "evt_2026_000001")
    await Erasure(deployment).erase(ALL, event_id="evt_2026_000001")
    now, day = deployment.clock.now(), await sql.fetchval("SELECT day FROM dispatcher.event")
    attempt = attempt_row(
        day,
        OPEN,
        "evt_2026_000001",
        event_type="employee.create",
        attempt_number=2,
        outcome="http_error",
        response_code=500,
        response_body=PERSON.encode(),
        response_headers=PERSON.encode(),
        attempted_at=now,
    )
    move = MoveRow(SHARD, DeliveryId(OPEN), 2, "retrying", None, 2, 5.0)
    await Results(pool).record([move], [attempt], {SHARD: 1})
    assert await sql.fetchval("SELECT count(*) FROM words.attempt") == 3
    assert await mentions(sql) == []


async def test_what_is_asked_wrongly_is_refused(deployment):
    erasure = Erasure(deployment)
    with pytest.raises(NotFoundError):
        await erasure.erase(ALL, event_id="evt_2026_999999")
    for wrong in ({}, {"event_id": "a", "labels": {"b": "c"}}, {"labels": {"B C": "d"}}):
        with pytest.raises(InvalidRequestError):
            await erasure.erase(ALL, **wrong)
    with pytest.raises(ForbiddenError):
        await erasure.erase(Actor(name="o", role=Role.OPERATOR), event_id="a")


async def test_another_tenants_events_do_not_exist(deployment, sql):
    await deliver(sql, "evt_2026_000001")
    with pytest.raises(NotFoundError):
        await Erasure(deployment).erase(Actor(name="a", tenant="acme"), event_id="evt_2026_000001")
    answer = await Erasure(deployment).erase(
        Actor(name="a", tenant="acme"), labels={"employee": "E1"}
    )
    assert answer.events == 0
    assert await mentions(sql) == ["attempt", "body", "event"]
