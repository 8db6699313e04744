"""What the indexes of pages cost those who deliver: Postgres's CPU and WAL for each row written.

`python -m benchmarks indexes [--rows N] [--rounds N] [--json PATH]`. The rows of a seeded history are
written into empty tables of the same columns, under the indexes of today and under others, in turns.
The CPU is what the kernel counted for the backend. Figures are medians, per row.
"""

import argparse
import statistics
from typing import Any, Final, NamedTuple

import asyncpg
import uvloop

from benchmarks import harness
from tests.support.long_history import seed

_KEY: Final = "(day, event_id, endpoint_no)"
_BY_ID: Final = "(id, endpoint_no, event_type_code, day, state)"
_BY_ENDPOINT: Final = "(endpoint_no, id, event_type_code, day, state)"
_REQUEST_ID: Final = "((substring(sha256(id::bytea) FOR 8)))"
_NEWEST: Final = "(accepted_at, hashtext(type), hashtext(tenant))"
_LABELS: Final = "USING gin (labels) WITH (gin_pending_list_limit = 1024) WHERE labels <> '{}'"


class Variant(NamedTuple):
    """A table's rows, and the indexes that they are written under."""

    name: str
    table: str
    source: str
    indexes: tuple[str, ...]


VARIANTS: Final = (
    Variant("ended delivery, no index", "delivery_done", "done", ()),
    Variant("ended delivery, key alone", "delivery_done", "done", (_KEY,)),
    Variant("ended delivery, key and bare id", "delivery_done", "done", (_KEY, "(id)")),
    Variant("ended delivery, key and id with filters", "delivery_done", "done", (_KEY, _BY_ID)),
    Variant(
        "ended delivery, today",
        "delivery_done",
        "done",
        (_KEY, _BY_ID, _BY_ENDPOINT, _BY_ID + " WHERE state <> 3", _BY_ID + " WHERE test"),
    ),
    Variant(
        "waiting delivery, today",
        "delivery_open",
        "open",
        ("(id)", "(endpoint_no, next_attempt_at, id)"),
    ),
    Variant(
        "waiting delivery, and one by event",
        "delivery_open",
        "open",
        ("(id)", "(endpoint_no, next_attempt_at, id)", "(event_id, endpoint_no, day)"),
    ),
    Variant("event, key alone", "event", "plain", ("(day, id)",)),
    Variant(
        "event, newest by text", "event", "plain", ("(day, id)", "(accepted_at, id, tenant, type)")
    ),
    Variant("event without labels, today", "event", "plain", ("(day, id)", _NEWEST, _LABELS)),
    Variant("event with two labels, today", "event", "labelled", ("(day, id)", _NEWEST, _LABELS)),
    Variant(
        "event with request id, today",
        "event",
        "plain",
        ("(day, id)", _NEWEST, _LABELS, _REQUEST_ID + " WHERE profile <> 'wms'"),
    ),
)

_EVENT: Final = (
    "SELECT inserted_at, accepted_at, occurred_at, erased_at, day, data_offset, data_length, test, id, type, tenant,"
    " profile, {labels} AS labels, ordering_key, traceparent, data, bytes FROM dispatcher.event"
    " ORDER BY accepted_at, id"
)
_SOURCES: Final = {
    "done": "SELECT * FROM dispatcher.delivery_done ORDER BY id",
    "open": "SELECT finished_at AS next_attempt_at, day, endpoint_no, event_type_code, 0 AS attempt_count,"
    " 0 AS schedule_position, id, event_id, NULL::text[] AS warnings FROM dispatcher.delivery_done ORDER BY id",
    "plain": _EVENT.format(labels="'{}'::jsonb"),
    "labelled": _EVENT.format(labels="jsonb_build_object('order', id, 'warehouse', 'BKK')"),
}


async def _run(url: str, given: argparse.Namespace) -> dict[str, dict[str, float]]:
    connection = await asyncpg.connect(url)
    await seed(connection, given.rows * 2, days=4)
    await connection.execute("SET jit = off; SET synchronous_commit = off")
    for name, text in _SOURCES.items():
        await connection.execute(
            f"CREATE UNLOGGED TABLE source_{name} AS {text} LIMIT {given.rows}"
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
