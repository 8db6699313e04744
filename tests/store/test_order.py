"""Order in Postgres: keys are the same in both languages, shelved deliveries return, and a retry takes the first."""

import asyncpg
import pytest

from dispatcher.core.model import DeliveryId, EndpointId
from dispatcher.core.order import order_key
from dispatcher.store.deliveries import Deliveries
from dispatcher.store.delivery_ids import uuid_of
from dispatcher.store.pool import Database
from dispatcher.store.statements import statement
from tests.support.words import wh

pytestmark = pytest.mark.postgres

ENDPOINT = (
    "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard, ordering)"
    " VALUES ('ep', 'default', 'e', 'https://x.test/', 'wms', '{*}', 1, $1) RETURNING number"
)
DELIVERY = (
    "INSERT INTO dispatcher.delivery_open (id, day, event_id, endpoint_no, event_type_code, order_key, position,"
    " next_attempt_at) VALUES ($1, current_date, $2, $3, 0, $4, $5, now() + $6 * interval '1 s')"
)


async def _open(
    sql: asyncpg.Connection, endpoint_no: int, *positions: int, due_seconds: float = -1.0
) -> list[DeliveryId]:
    ids = [DeliveryId(wh(position)) for position in positions]
    for delivery_id, position in zip(ids, positions, strict=True):
        await sql.execute(
            DELIVERY, uuid_of(delivery_id), f"e{position}", endpoint_no, 7, position, due_seconds
        )
    return ids


@pytest.mark.parametrize("key", ["", "a", "order-42", "ลำดับ", "\\x00", "k" * 256])
async def test_order_key_is_the_same_in_sql_and_python(sql, key):
    assert await sql.fetchval("SELECT dispatcher.order_key($1)", key) == order_key(key)


async def test_shelved_deliveries_return_without_an_order(sql: asyncpg.Connection, pool: Database):
    number = await sql.fetchval(ENDPOINT, "key")
    first, second, third = await _open(sql, number, 1, 2, 3)
    deliveries = Deliveries(pool)
    await deliveries.shelve([second, third])
    assert await deliveries.bring_back(number, 10) == 0  # it still has an order
    assert await deliveries.release(number, 10) == 0  # a retry of the endpoint leaves them
    await sql.execute("UPDATE dispatcher.endpoint SET ordering = 'none'")
    assert [await deliveries.bring_back(number, 1) for _ in range(3)] == [1, 1, 0]
    window = await deliveries.window([EndpointId("ep")], 10, 60.0)
    assert {row.id for row in window} == {first, second, third}


async def test_retry_of_an_endpoint_begins_with_a_first_delivery(sql: asyncpg.Connection):
    number = await sql.fetchval(ENDPOINT, "key")
    (first,) = await _open(sql, number, 1, due_seconds=30.0)  # it waits for its own retry
    await _open(sql, number, 2)
    picked = await sql.fetchrow(statement("endpoint_request_retry"), "ep", "test", [])
    assert picked is not None
    assert picked["delivery_id"] == uuid_of(first)
