"""Days of history that are long past, for tests of what becomes of them."""

from datetime import date, timedelta
from typing import Any

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
    """Fills a day with delivered events: one body, delivery and attempt each."""
    await sql.execute(
        """
        WITH made AS (
            SELECT 'evt_' || to_char($1::date, 'YYYYMMDD') || '_' || g AS event_id,
                   'wh_' || to_char($1::date, 'YYYYMMDD') || '_' || g AS id, $1::date + interval '1 hour' AS at
            FROM generate_series(1, $2::integer) AS g
        ), e AS (
            INSERT INTO dispatcher.event (day, id, type, tenant, data, occurred_at, labels, inserted_at, accepted_at)
            SELECT $1, event_id, 'a.b', 'default', '{"n": 1}', at, '{}', at, at FROM made
        ), b AS (
            INSERT INTO dispatcher.body (day, event_id, profile, bytes) SELECT $1, event_id, 'standard', '{}' FROM made
        ), d AS (
            INSERT INTO dispatcher.delivery_done
                (id, day, event_id, endpoint_id, event_type, tenant, profile, state, attempt_count,
                 schedule_position, created_at, finished_at)
            SELECT id, $1, event_id, $3, 'a.b', 'default', 'standard', 'succeeded', 1, 1, at, at FROM made
        )
        INSERT INTO dispatcher.attempt
            (day, delivery_id, attempt_number, trigger, outcome, attempted_at, latency_seconds, reused, url,
             response_code)
        SELECT $1, id, 1, 'scheduled', 'ok', at, 0.01, true, 'https://x.test/', 200 FROM made
        """,
        day,
        rows,
        endpoint_id,
    )


async def leave_waiting(sql: Any, day: date, delivery_id: str, endpoint_id: str = "ep_old") -> None:
    """Makes an event of that day whose delivery still waits."""
    await sql.execute(
        """
        WITH e AS (
            INSERT INTO dispatcher.event (day, id, type, tenant, data, occurred_at, labels, inserted_at, accepted_at)
            VALUES ($1, 'evt_of_' || $2, 'a.b', 'default', '{}', now(), '{}', now(), now())
        ), b AS (
            INSERT INTO dispatcher.body (day, event_id, profile, bytes) VALUES ($1, 'evt_of_' || $2, 'standard', '{}')
        )
        INSERT INTO dispatcher.delivery_open (id, day, event_id, endpoint_id, event_type, tenant, profile)
        VALUES ($2, $1, 'evt_of_' || $2, $3, 'a.b', 'default', 'standard')
        """,
        day,
        delivery_id,
        endpoint_id,
    )


async def tables_of(sql: Any, day: date) -> set[str]:
    """Returns which history tables have that day."""
    rows = await sql.fetch(
        "SELECT c.relname FROM pg_class AS c JOIN pg_inherits AS i ON i.inhrelid = c.oid"
        " WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind = 'r' AND c.relname LIKE $1",
        f"%{day:%Y%m%d}",
    )
    return {row["relname"].rpartition("_")[0] for row in rows}
