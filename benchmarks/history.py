"""A history of 30 days that is written quickly, and the means to let the planner assume that it is larger.

Rows come from generate_series, and the indexes of a day are built when its partition is attached. The deliveries are
of the kind of `tests/support/long_history.py`: two for each event, a sixth of all to one endpoint, and one in fifty
failed three times.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import orjson

from dispatcher.core import codes
from dispatcher.store.statements import statement
from tests.support.long_history import (
    BODY,
    COMMON_TYPES,
    DAYS,
    FAN_OUT,
    NUMBERS_FROM,
    USUAL_TYPE,
    endpoint_id,
    make_endpoints,
)

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

PARENTS: Final = ("event", "body", "delivery_done", "attempt")
TYPES: Final = (USUAL_TYPE, *COMMON_TYPES)
_FIRST: Final = codes.TRIGGER_CODES["scheduled"]
_SPEED: Final = (
    "SET synchronous_commit = off; SET timezone = 'UTC'; SET maintenance_work_mem = '512MB'"
)
# $1 the first moment of the day, $2 microseconds between two events, $3 events, $4 types.
_EVENTS: Final = """(
    SELECT n, at, at::date AS day, id, type, md5(id) AS hash, n % 50 = 0 AS has_failed
    FROM (SELECT n, $1::timestamptz + n * $2::float8 * interval '1 microsecond' AS at,
                 'evt_' || to_char($1::timestamptz, 'YYYYMMDD') || '_' || lpad(n::text, 8, '0') AS id,
                 ($4::text[])[1 + n % cardinality($4::text[])] AS type
          FROM generate_series(0, $3::bigint - 1) AS n) AS numbered) AS e"""
_EVENT: Final = f"""INSERT INTO dispatcher.PART (inserted_at, accepted_at, occurred_at, day, data_offset, data_length,
    id, type, tenant, profile, labels, bytes)
SELECT at, at, at, day, 0, octet_length($5::bytea), id, type, 'default', 'standard',
       CASE WHEN n % 3 = 0 THEN jsonb_build_object('order', 'ORD-' || n, 'warehouse', 'W' || n % 7) ELSE '{{}}' END, $5
FROM {_EVENTS}"""  # noqa: S608 -- made of constants
# A delivery's id has its milliseconds, the version 8, and bits of its event, as `dispatcher.core.ids` derives it.
_DELIVERIES: Final = f"""{_EVENTS}
    CROSS JOIN LATERAL (
        VALUES (CASE WHEN n % 3 = 0 THEN 0 ELSE 1 + n * 7919 % 49 END), (50 + n * 7919 % 50)) AS p (place)
    CROSS JOIN LATERAL (
        SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '8' || left(hash, 3) || 'a'
                || substr(hash, 4, 1) || left(md5(hash || place), 14))::uuid AS delivery_id,
               {NUMBERS_FROM} + place AS endpoint_no) AS d"""  # noqa: S608 -- made of constants
_DELIVERY: Final = f"""INSERT INTO dispatcher.PART (id, day, event_id, endpoint_no, event_type_code, finished_at, state,
    reason, attempt_count, schedule_position, attempted_at, revision, latency_seconds, trigger, outcome, response_code,
    reused, peer)
SELECT delivery_id, day, id, endpoint_no, ($5::integer[])[1 + n % cardinality($5::integer[])], at + interval '1 second',
       CASE WHEN has_failed THEN {codes.STATE_CODES["failed"]} ELSE {codes.SUCCEEDED} END,
       CASE WHEN has_failed THEN {codes.reason_code("schedule_spent")} END,
       CASE WHEN has_failed THEN 3 ELSE 1 END, CASE WHEN has_failed THEN 3 ELSE 1 END,
       CASE WHEN NOT has_failed THEN at END, CASE WHEN NOT has_failed THEN 1 END,
       CASE WHEN NOT has_failed THEN 0.05 END, CASE WHEN NOT has_failed THEN {_FIRST} END,
       CASE WHEN NOT has_failed THEN {codes.OK} END, CASE WHEN NOT has_failed THEN 200 END,
       CASE WHEN NOT has_failed THEN true END, CASE WHEN NOT has_failed THEN '192.0.2.1' END
FROM {_DELIVERIES}"""  # noqa: S608 -- made of constants
_ATTEMPT: Final = f"""INSERT INTO dispatcher.PART (day, event_id, endpoint_no, delivery_id, attempt_number, trigger,
    outcome, attempted_at, latency_seconds, reused, peer, revision, response_code, response_body)
SELECT day, id, endpoint_no, delivery_id, a, {_FIRST}, {codes.OUTCOME_CODES["http_error"]},
       at + a * interval '1 second', 0.05, true, '192.0.2.1', 1, 503, 'unavailable'
FROM {_DELIVERIES} CROSS JOIN generate_series(1, 3) AS a WHERE has_failed"""  # noqa: S608 -- made of constants


def days_of(now: datetime) -> list[date]:
    """Return the days of the history, the oldest first; the last one is today."""
    return [now.date() - timedelta(days=DAYS - 1 - place) for place in range(DAYS)]


async def fill(url: str, deliveries: Mapping[date, int]) -> int:
    """Write so many deliveries of each day, with their events and attempts, and return how many there are.

    The database is new: partitions of these days are replaced.
    """
    connection = await asyncpg.connect(url)
    await connection.execute(_SPEED)
    now = await connection.fetchval("SELECT now()")
    await make_endpoints(connection)
    count = 0
    for day, wanted in deliveries.items():
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        span = min(now, start + timedelta(days=1)) - start
        events = wanted // FAN_OUT
        count += events * FAN_OUT
        given = start, span / timedelta(microseconds=1) / max(1, events), events, TYPES
        async with connection.transaction():
            for parent in PARENTS:
                part = f"{parent}_{day:%Y%m%d}"
                await connection.execute(
                    f"DROP TABLE IF EXISTS dispatcher.{part};"
                    f" CREATE TABLE dispatcher.{part} (LIKE dispatcher.{parent} INCLUDING ALL EXCLUDING INDEXES)"
                )
                if parent == "event":
                    await connection.execute(_EVENT.replace("PART", part), *given, BODY)
                elif parent == "delivery_done":
                    type_codes = [codes.event_type_code(one) for one in TYPES]
                    await connection.execute(_DELIVERY.replace("PART", part), *given, type_codes)
                elif parent == "attempt":
                    await connection.execute(_ATTEMPT.replace("PART", part), *given)
                await connection.execute(
                    f"ALTER TABLE dispatcher.{parent} ATTACH PARTITION dispatcher.{part}"
                    f" FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
                )
    await connection.execute("VACUUM ANALYZE")
    await connection.execute("CHECKPOINT")
    await connection.close()
    return count


_ENLARGE: Final = """UPDATE pg_class SET reltuples = reltuples * $2
WHERE relnamespace = 'dispatcher'::regnamespace AND reltuples > 0 AND relkind IN ('r', 'i')
  AND relname ~ ('^(event|delivery_done|attempt)_' || to_char($1::date, 'YYYYMMDD'))"""


async def enlarge(url: str, factors: Mapping[date, float]) -> None:
    """Make the planner assume that the partitions of these days have so many times their rows.

    The number of rows in the catalogue is multiplied. Statistics of columns are shares of it, so they stay as they are.
    The planner reads the number of pages from the files, so it is not changed. The catalogue keeps the numbers
    until something analyses the partition, and nothing does, because its rows do not change.
    """
    connection = await asyncpg.connect(url)
    for day, factor in factors.items():
        await connection.execute(_ENLARGE, day, factor)
    await connection.close()


_HEIGHTS: Final = """SELECT max((bt_metap('dispatcher.' || quote_ident(c.relname))).level) + 1
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS a ON a.oid = c.relam
WHERE a.amname = 'btree' AND i.indrelid = to_regclass('dispatcher.delivery_done_' || to_char($1::date, 'YYYYMMDD'))"""


async def index_levels(url: str, day: date) -> int:
    """Return the levels of the highest index of the deliveries of a day."""
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE EXTENSION IF NOT EXISTS pageinspect")
    levels = await connection.fetchval(_HEIGHTS, day)
    await connection.close()
    return int(levels)


async def blocks_read(url: str) -> int:
    """Return how many blocks the statements on this database have read from outside Postgres's cache."""
    connection = await asyncpg.connect(url)
    count = await connection.fetchval(
        "SELECT sum(shared_blks_read)::bigint FROM pg_stat_statements AS s JOIN pg_database AS d ON d.oid = s.dbid"
        " WHERE d.datname = current_database()"
    )
    await connection.close()
    return int(count)


_SAMPLE: Final = """SELECT id, event_id, day FROM dispatcher.delivery_done WHERE day = $1 ORDER BY id DESC LIMIT 50"""
_GENERIC: Final = "SET LOCAL plan_cache_mode = force_generic_plan"


async def plans(url: str, days: Sequence[date]) -> dict[str, list[str]]:
    """Return the plans of the hot path's statements and of pages, by name: their nodes, relations and indexes.

    Pages read all days; deliveries and events of single days are those of the last of `days`.
    """
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(_SAMPLE, days[-1])
    ids, event_ids = [row["id"] for row in rows], [row["event_id"] for row in rows]
    of_day, count = [days[-1]] * len(rows), len(rows)
    hot: dict[str, tuple[object, ...]] = {
        "outbox_claim": (500, 16_000_000, None, 0),
        "outbox_poll": (0, False),
        "delivery_open_window": ([endpoint_id(1)], 100, 600.0),
        "delivery_open_load": (ids,),
        "event_load": (of_day, event_ids, ["standard"] * count, [days[-1]]),
        "delivery_record": (
            *([5], [0], [5] * count, ids, [1] * count, [True] * count, [1] * count),
            [None] * count,
        ),
    }
    every, of_big = (days[0], date.max), endpoint_id(0)
    pages: dict[str, tuple[str, tuple[object, ...]]] = {
        "first page of deliveries": ("delivery_page", (*_none(12), 51, *_none(3), *every)),
        "failed deliveries": ("delivery_page", (*_none(5), [4], *_none(6), 51, *_none(3), *every)),
        "deliveries of an endpoint": (
            "delivery_page",
            (None, of_big, *_none(10), 51, *_none(3), *every),
        ),
        "rows of a page": ("delivery_list_of_ids", (ids, of_day, days[-1], days[-1])),
        "first page of events": ("event_page", (*_none(8), 51, *_none(2), *every)),
    }
    found = {}
    for name, parameters in hot.items():
        for kind, setting in (("custom", ""), ("generic", _GENERIC)):
            found[f"{name}, {kind}"] = await _plan(connection, name, parameters, setting)
    for label, (name, parameters) in pages.items():
        found[label] = await _plan(connection, name, parameters, statement("connection_plan"))
    await connection.close()
    return found


def _none(count: int) -> tuple[None, ...]:
    return (None,) * count


async def _plan(
    connection: "Connection", name: str, parameters: Sequence[object], setting: str
) -> list[str]:
    await connection.execute(f"{statement('transaction_begin')};\n{setting}")
    try:
        text = await connection.fetchval(
            "EXPLAIN (FORMAT JSON) " + statement(name), *parameters, timeout=60
        )
    finally:
        await connection.execute("ROLLBACK")
    return [
        " ".join(
            str(node[key]) for key in ("Node Type", "Relation Name", "Index Name") if key in node
        )
        for node in _nodes(orjson.loads(text)[0]["Plan"])
    ]


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node.get("Plans", []):
        yield from _nodes(child)
