"""Days of history that are long past, for tests of what becomes of them."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from dispatcher.core import ids

TABLES = ("event", "body", "delivery_done", "attempt")


async def day_ago(sql: Any, days: int) -> date:
    """Returns the database's UTC day so many days ago."""
    today: date = await sql.fetchval("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")
    return today - timedelta(days=days)


async def make_day(sql: Any, days: int) -> date:
    """Makes the partitions of a day so many days ago."""
    day = await day_ago(sql, days)
    for table in TABLES:
        part = f"{table}_{day:%Y%m%d}"
        await sql.execute(f"CREATE TABLE dispatcher.{part} (LIKE dispatcher.{table} INCLUDING ALL)")
        await sql.execute(
            f"ALTER TABLE dispatcher.{table} ATTACH PARTITION dispatcher.{part}"
            f" FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
        )
    return day


async def fill_day(sql: Any, day: date, rows: int, *, endpoint_id: str = "ep_old") -> None:
    """Fills a day with delivered events: two bodies, a delivery and two attempts each, one of which failed."""
    await sql.execute(
        """
        WITH made AS (
            SELECT 'evt_' || to_char($1::date, 'YYYYMMDD') || '_' || g AS event_id,
                   $1::date + interval '1 hour' + g * interval '1 ms' AS at
            FROM generate_series(1, $2::integer) AS g
        ), e AS (
            INSERT INTO dispatcher.event
                (day, id, type, tenant, data, occurred_at, labels, inserted_at, accepted_at, profile, bytes)
            SELECT $1, event_id, 'a.b', 'default', '{"n": 1}', at, '{}', at, at, 'standard', '{}' FROM made
        ), b AS (
            INSERT INTO dispatcher.body (day, event_id, profile, bytes) SELECT $1, event_id, 'wms', '{}' FROM made
        )
        INSERT INTO dispatcher.delivery_done
            (id, day, event_id, endpoint_no, event_type_code, state, attempt_count, schedule_position, finished_at,
             attempted_at, latency_seconds, revision, trigger, outcome, reused, response_code)
        SELECT dispatcher.delivery_uuid(words.id(event_id, extract(epoch FROM at) * 1000)), $1, event_id, p.number,
               p.type_code, 3, 2, 2, at, at, 0.01, 1, 1, 1, true, 200
        FROM made, (SELECT words.endpoint($3) AS number, words.type_code('a.b') AS type_code) AS p
        """,
        day,
        rows,
        endpoint_id,
    )
    await sql.execute(
        """
        INSERT INTO dispatcher.attempt
            (day, event_id, endpoint_no, delivery_id, attempt_number, trigger, outcome, attempted_at, latency_seconds,
             reused, revision, response_code, response_body)
        SELECT day, event_id, endpoint_no, id, 2, 1, 2, finished_at, 0.01, true, 1, 500, 'no'
        FROM dispatcher.delivery_done WHERE day = $1
        """,
        day,
    )


async def leave_waiting(sql: Any, day: date, name: str, endpoint_id: str = "ep_old") -> str:
    """Makes an event of that day whose delivery still waits; returns the delivery's id."""
    event_id = f"evt_of_{name}"
    inserted_at = datetime(day.year, day.month, day.day, 1, tzinfo=UTC)
    delivery_id = ids.delivery_id(ids.delivery_unix_ms(inserted_at, day), event_id, endpoint_id)
    await sql.execute(
        """
        WITH e AS (
            INSERT INTO dispatcher.event
                (day, id, type, tenant, data, occurred_at, labels, inserted_at, accepted_at, profile, bytes)
            VALUES ($1, $3, 'a.b', 'default', '{}', now(), '{}', $5, now(), 'standard', '{}')
        )
        INSERT INTO words.delivery_open (id, day, event_id, endpoint_id, event_type, tenant, profile)
        VALUES ($2, $1, $3, $4, 'a.b', 'default', 'standard')
        """,
        day,
        delivery_id,
        event_id,
        endpoint_id,
        inserted_at,
    )
    return str(delivery_id)


async def tables_of(sql: Any, day: date) -> set[str]:
    """Returns which history tables have that day."""
    rows = await sql.fetch(
        "SELECT c.relname FROM pg_class AS c JOIN pg_inherits AS i ON i.inhrelid = c.oid"
        " WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind = 'r' AND c.relname LIKE $1",
        f"%{day:%Y%m%d}",
    )
    return {row["relname"].rpartition("_")[0] for row in rows}
