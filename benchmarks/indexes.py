"""What the indexes of pages cost those who deliver: Postgres's CPU and WAL for each row written.

`python -m benchmarks indexes [--rows N] [--rounds N] [--json PATH]`. The rows of a seeded history are
written into empty tables of the same columns, once with the indexes of the first schema and once with
those of today, in turns; the CPU is what the kernel counted for the backend. Figures are medians,
per row.
"""

import argparse
import statistics
from typing import Any, Final, NamedTuple

import asyncpg
import uvloop

from benchmarks import harness
from tests.support.long_history import seed

_OLD_DONE: Final = (
    "(day, id)",
    "(event_id, endpoint_id, day)",
    "(endpoint_id, created_at, id)",
    "(created_at, id)",
    "(created_at, id) WHERE state <> 'succeeded'",
)  # fmt: skip -- as the first schema has them
_REQUEST_ID: Final = "((substring(sha256(event_id::bytea) FOR 8)))"
_LABELS: Final = "USING gin (labels) WITH (gin_pending_list_limit = 1024) WHERE labels <> '{}'"


class Variant(NamedTuple):
    """A table's rows, and the indexes that they are written under."""

    name: str
    table: str
    source: str
    indexes: tuple[str, ...]


VARIANTS: Final = (
    Variant("ended delivery, no index", "delivery_done", "done", ()),
    Variant("ended delivery, first schema", "delivery_done", "done", _OLD_DONE),
    Variant(
        "ended delivery, today",
        "delivery_done",
        "done",
        (
            *_OLD_DONE[:2],
            "(endpoint_id, created_at, id, event_type, state)",
            "(created_at, id, tenant, event_type, state)",
            "(created_at, id, tenant, event_type, state) WHERE state <> 'succeeded'",
            "(created_at, id) WHERE test",
        ),
    ),
    Variant(
        "ended delivery, first and one by tenant",
        "delivery_done",
        "done",
        (*_OLD_DONE, "(tenant, created_at, id)"),
    ),
    Variant(
        "ended delivery, first and one by type",
        "delivery_done",
        "done",
        (*_OLD_DONE, "(event_type, created_at, id)"),
    ),
    Variant(
        "waiting delivery, first schema",
        "delivery_open",
        "open",
        ("(id)", "(endpoint_id, next_attempt_at, id)", "(event_id, endpoint_id, day)"),
    ),
    Variant(
        "waiting delivery, today",
        "delivery_open",
        "open",
        (
            "(id)",
            "(endpoint_id, next_attempt_at, id)",
            "(event_id, endpoint_id, day)",
            "(created_at, id, tenant, event_type, endpoint_id)",
        ),
    ),
    Variant(
        "event without labels, first schema", "event", "plain", ("(day, id)", "(accepted_at, id)")
    ),
    Variant(
        "event without labels, today",
        "event",
        "plain",
        ("(day, id)", "(accepted_at, id, tenant, type)", _LABELS),
    ),
    Variant(
        "event with two labels, first schema",
        "event",
        "labelled",
        ("(day, id)", "(accepted_at, id)"),
    ),
    Variant(
        "event with two labels, today",
        "event",
        "labelled",
        ("(day, id)", "(accepted_at, id, tenant, type)", _LABELS),
    ),
    Variant(
        "body without request id, today",
        "body",
        "bodies",
        (
            "(day, event_id, profile)",
            _REQUEST_ID + " WHERE profile NOT IN ('standard', 'wms', 'github', 'stripe')",
        ),
    ),
    Variant(
        "body with request id, today",
        "body",
        "bodies",
        (
            "(day, event_id, profile)",
            _REQUEST_ID + " WHERE profile <> 'wms'",
        ),
    ),
)  # fmt: skip -- a table

_SOURCES: Final = {
    "done": "SELECT * FROM dispatcher.delivery_done ORDER BY created_at LIMIT {rows}",
    "open": "SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, 'pending' AS state,"
    " 0 AS a, 0 AS b, created_at AS c, created_at, NULL::text[] AS d"
    " FROM dispatcher.delivery_done ORDER BY created_at LIMIT {rows}",
    "plain": "SELECT day, id, type, tenant, data, occurred_at, ordering_key, '{{}}'::jsonb AS labels, traceparent,"
    " inserted_at, accepted_at, test FROM dispatcher.event ORDER BY accepted_at LIMIT {rows}",
    "labelled": "SELECT day, id, type, tenant, data, occurred_at, ordering_key, jsonb_build_object('order', id,"
    " 'warehouse', 'BKK') AS labels, traceparent, inserted_at, accepted_at, test"
    " FROM dispatcher.event ORDER BY accepted_at LIMIT {rows}",
    "bodies": "SELECT day, event_id, 'standard' AS profile, bytes FROM dispatcher.body WHERE profile = 'standard'"
    " ORDER BY day, event_id LIMIT {rows}",
}


async def _run(url: str, given: argparse.Namespace) -> dict[str, dict[str, float]]:
    connection = await asyncpg.connect(url)
    await seed(connection, given.rows * 2, days=4)
    await connection.execute("SET jit = off; SET synchronous_commit = off")
    for name, text in _SOURCES.items():
        await connection.execute(
            f"CREATE UNLOGGED TABLE source_{name} AS {text.format(rows=given.rows)}"
        )
    figures: dict[str, list[tuple[float, float]]] = {one.name: [] for one in VARIANTS}
    for _ in range(given.rounds):
        for one in VARIANTS:
            figures[one.name].append(await _write(connection, one))
    await connection.close()
    return {
        name: {
            "cpu_microseconds": round(statistics.median(cpu for cpu, _ in found), 2),
            "wal_bytes": round(statistics.median(wal for _, wal in found)),
        }
        for name, found in figures.items()
    }


async def _write(connection: "asyncpg.Connection[Any]", one: Variant) -> tuple[float, float]:
    """Writes a variant's rows; returns CPU in microseconds and WAL in bytes, per row."""
    await connection.execute(
        f"DROP TABLE IF EXISTS target; CREATE TABLE target (LIKE dispatcher.{one.table})"
    )
    for index in one.indexes:
        await connection.execute(f"CREATE INDEX ON target {index}")
    await connection.execute("CHECKPOINT")
    process_id = await connection.fetchval("SELECT pg_backend_pid()")
    start = await connection.fetchval("SELECT pg_current_wal_lsn()::text")
    before = harness.cpu_seconds(process_id)
    tag = await connection.execute(f"INSERT INTO target SELECT * FROM source_{one.source}")  # noqa: S608 -- our own names
    count = int(tag.split()[-1])
    cpu = harness.cpu_seconds(process_id) - before
    wal = await connection.fetchval(
        "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), $1::text::pg_lsn)", start
    )
    return cpu / count * 1e6, float(wal) / count


def main() -> None:
    """Runs it and prints a table."""
    parser = argparse.ArgumentParser(prog="benchmarks indexes")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="where to write the figures")
    given = parser.parse_args()
    with harness.postgres() as (_, url):
        figures = uvloop.run(_run(url, given))
    for name, one in figures.items():
        print(f"{name:<42} {one['cpu_microseconds']:6.2f} us  {one['wal_bytes']:6.0f} bytes of WAL")
    harness.write_results("indexes", {"rows": given.rows, "indexes": figures}, given.json)


if __name__ == "__main__":
    main()
