"""Refusals of Postgres that pass: every store method turns each of them into "retry later", whatever its SQLSTATE."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime
from typing import Any

import asyncpg
import pytest

from dispatcher.core.errors import DataFaultError, SchemaError, StoreUnavailableError
from dispatcher.core.model import EndpointId
from dispatcher.store.bodies import Bodies, LateBody
from dispatcher.store.deliveries import Deliveries
from dispatcher.store.delivery_requests import DeliveryRequests
from dispatcher.store.leases import Leases
from dispatcher.store.outbox import Outbox
from dispatcher.store.partitions import Partitions
from dispatcher.store.pool import Database
from dispatcher.store.results import Results
from dispatcher.store.routing import Endpoints
from dispatcher.store.schema import Schema
from dispatcher.store.statistics import Statistics
from tests.support.words import wh

pytestmark = pytest.mark.postgres

AT = datetime(2026, 11, 23, tzinfo=UTC)
DAY = date(2026, 11, 23)
ONE: Any = [wh(1, event_id="evt_1")]
EP: Any = "ep"
EVENT: Any = "evt_1"
BODY = LateBody(ONE[0], DAY, EVENT, "wms", b"{}", ())


async def _claim(database: Database) -> None:
    async with Outbox(database).claim(10, 1_000):
        pass


CALLS: dict[str, Callable[[Database], Any]] = {
    "outbox.poll": lambda d: Outbox(d).poll(),
    "outbox.claim": _claim,
    "outbox.oldest": lambda d: Outbox(d).oldest(),
    "outbox.set_aside": lambda d: Outbox(d).quarantine("evt_1"),
    "outbox.forget_tombstones": lambda d: Outbox(d).forget_tombstones(7, 10),
    "deliveries.record": lambda d: Results(d).record([], [], {3: 1}),
    "results.settle": lambda d: Results(d).settle_requests([(ONE[0], AT, True)]),
    "deliveries.window": lambda d: Deliveries(d).window([EP], 10, 60.0),
    "deliveries.arrivals": lambda d: Deliveries(d).arrivals([EP], 10, 60.0),
    "deliveries.load": lambda d: Deliveries(d).load(ONE),
    "requests.of_deliveries": lambda d: DeliveryRequests(d).of_deliveries([1], 10, []),
    "requests.forget": lambda d: DeliveryRequests(d).forget([(ONE[0], "resend")]),
    "deliveries.nothing_to_send": lambda d: Deliveries(d).endpoints_with_nothing_to_send(),
    "deliveries.cancel": lambda d: Deliveries(d).cancel_of_endpoints([(EP, "gone")], 10),
    "deliveries.cancel_held": lambda d: Deliveries(d).cancel_held(60.0, 10),
    "deliveries.gauges": lambda d: Deliveries(d).gauges(),
    "bodies.missing": lambda d: Bodies(d).missing([(ONE[0], DAY)]),
    "bodies.keep": lambda d: Bodies(d).keep([BODY], []),
    "routing.changes": lambda d: Endpoints(d).changes(None),
    "routing.load": lambda d: Endpoints(d).load([EndpointId("ep")]),
    "routing.failing": lambda d: Endpoints(d).failing(),
    "routing.disable": lambda d: Endpoints(d).disable(EP, "gone", raises_event=True),
    "routing.warn": lambda d: Endpoints(d).warn(EP, 50),
    "routing.count_failures": lambda d: Endpoints(d).count_failures([(EP, AT, 1, True)]),
    "routing.clear_failures": lambda d: Endpoints(d).clear_failures([EP]),
    "leases.join": lambda d: Leases(d).join("a", "a", "1", 10.0),
    "leases.namesakes": lambda d: Leases(d).namesakes("a", "b"),
    "leases.expire": lambda d: Leases(d).expire("a", AT),
    "leases.renew": lambda d: Leases(d).renew("a", 10.0),
    "leases.take": lambda d: Leases(d).take("a", 64),
    "leases.release": lambda d: Leases(d).release("a", [1]),
    "leases.leave": lambda d: Leases(d).leave("a"),
    "statistics.forget": lambda d: Statistics(d).forget(30, 10),
    "statistics.breakers": lambda d: Statistics(d).publish_breakers("a", []),
    "statistics.figures": lambda d: Statistics(d).publish_figures("a", {}),
    "history.partitions": lambda d: Partitions(d).partitions(),
    "history.unfinished": lambda d: Partitions(d).unfinished(DAY),
    "history.drop": lambda d: Partitions(d).drop("event", DAY),
    "history.empty_attempts": lambda d: Partitions(d).empty_attempts(DAY),
    "history.forget_audit": lambda d: Partitions(d).forget_audit(365, 10),
    "history.old_audit_lines": lambda d: Partitions(d).old_audit_lines(365),
    "schema.make_partitions": lambda d: Schema(d).make_partitions(7),
    "schema.sweep_replicas": lambda d: Schema(d).sweep_replicas(),
}

PASSING = {
    "read_only_sql_transaction": "25006",
    "undefined_function": "42883",
    "undefined_column": "42703",
    "undefined_table": "42P01",
    "undefined_schema": "3F000",
    "wrong_object_type": "42809",
    "datatype_mismatch": "42804",
    "insufficient_privilege": "42501",
    "invalid_authorization": "28000",
    "serialization_failure": "40001",
    "deadlock_detected": "40P01",
    "too_many_connections": "53300",
    "disk_full": "53100",
    "out_of_memory": "53200",
    "lock_not_available": "55P03",
    "object_in_use": "55006",
    "query_canceled": "57014",
    "admin_shutdown": "57P01",
    "cannot_connect_now": "57P03",
    "io_error": "58030",
    "internal_error": "XX000",
    "data_corrupted": "XX001",
    "raise_exception": "P0001",
    "feature_not_supported": "0A000",
    "in_failed_transaction": "25P02",
}


@pytest.fixture
async def sql(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Database]:
    pool = Database(database, connections_max=2)
    await pool.open()
    yield pool
    await pool.close()


async def test_every_method_waits_out_a_missing_table_and_works_again(pool, sql):
    """P19: a schema that is renamed for a moment, under prepared statements too."""
    for call in CALLS.values():
        await call(pool)
    await sql.execute("ALTER SCHEMA dispatcher RENAME TO elsewhere")
    wrong = {}
    for name, call in CALLS.items():
        try:
            await call(pool)
        except StoreUnavailableError as error:
            if isinstance(error, DataFaultError):
                wrong[name] = repr(error)
        except Exception as error:  # noqa: BLE001 -- collected
            wrong[name] = repr(error)
        else:
            wrong[name] = "no error"
    await sql.execute("ALTER SCHEMA elsewhere RENAME TO dispatcher")  # the next test needs it
    assert wrong == {}
    for call in CALLS.values():
        await call(pool)


async def test_every_method_waits_out_a_revoked_right(database, sql):
    """P19."""
    await sql.execute("DROP ROLE IF EXISTS refused_once")
    await sql.execute("CREATE ROLE refused_once LOGIN")
    pool = Database(database.replace("//dispatcher@", "//refused_once@"), connections_max=1)
    await pool.open()
    wrong = {}
    for name, call in CALLS.items():
        try:
            await call(pool)
        except (StoreUnavailableError, SchemaError):  # SchemaError: upkeep logs it and goes on
            continue
        except Exception as error:  # noqa: BLE001 -- collected
            wrong[name] = repr(error)
    await pool.close()
    await sql.execute("DROP ROLE refused_once")
    assert wrong == {}


@pytest.mark.parametrize("code", PASSING.values(), ids=PASSING)
async def test_a_passing_refusal_of_any_statement_means_retry_later(pool, code):
    """P19: raised by the server itself, alone and inside a transaction."""
    raising = f"DO $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{code}'; END $$"
    with pytest.raises(StoreUnavailableError):
        await pool.execute(raising)
    with pytest.raises(StoreUnavailableError):
        async with pool.transaction() as connection:
            await connection.execute(raising)
    assert await pool.fetch_value("SELECT 1") == 1


async def test_a_row_that_cannot_be_decoded_is_a_data_fault(pool):
    """P19: asyncpg raises OverflowError, which once ended the daemon."""
    with pytest.raises(DataFaultError, match="decoded"):
        await pool.fetch("SELECT '290000-01-01'::timestamptz")


async def test_one_unreadable_row_costs_its_own_delivery_alone(pool, sql):
    """P19: a start that the clamps do not know, in one of three rows."""
    ids: Any = [wh(n, event_id=f"e{n}") for n in (1, 2, 3)]
    await sql.execute(
        "INSERT INTO dispatcher.event (day, id, type, tenant, data, occurred_at, labels, inserted_at, accepted_at)"
        " SELECT current_date, 'e' || n, 'a.b', 'default', '{}', now(), '{}', now(), now() FROM generate_series(1, 3) n"
    )
    await sql.execute(
        "INSERT INTO words.delivery_open"
        " (id, day, event_id, endpoint_id, event_type, tenant, profile, next_attempt_at)"
        " SELECT ($1::text[])[n], current_date, 'e' || n, 'ep', 'a.b', 'default', 'wms',"
        " CASE n WHEN 2 THEN 'infinity'::timestamptz ELSE now() END FROM generate_series(1, 3) n",
        ids,
    )
    rows = await Deliveries(pool).load(ids)
    assert {row.id for row in rows} >= {ids[0], ids[2]}


TRANSIENT_BY_CLASS = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TransactionRollbackError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
)


async def test_control_a_list_of_transient_classes_takes_refusals_for_bugs(sql):
    """P19, counted: refusals that pass and that the SQLSTATE's class does not show to be transient."""
    died = set()
    for name, code in PASSING.items():
        try:
            await sql.execute(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$")
        except TRANSIENT_BY_CLASS:
            continue
        except asyncpg.PostgresError:
            died.add(name)
    assert died >= {"insufficient_privilege", "undefined_table", "undefined_column"}
