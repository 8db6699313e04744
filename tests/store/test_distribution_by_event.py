"""History is ready to be distributed by event id (Citus): keys contain it, and the hot path joins it with nothing hot.

This reads the catalogue and the SQL files. `tests/distributed` runs where the server has the extension.
"""

import re
from pathlib import Path

import asyncpg
import pytest

from dispatcher.store import statements

HISTORY = {"event": "id", "body": "event_id", "delivery_done": "event_id", "attempt": "event_id"}
"""The tables that carry bytes, and the column that holds the event's id."""
HOT = {"outbox", "delivery_open", "shard", "routing", "replica", "producer_asleep"}
PATH = (
    "outbox_poll", "outbox_peek", "outbox_claim", "outbox_claim_positions", "outbox_fan_out",
    "outbox_fan_out_numbered", "outbox_release",
    "delivery_open_load", "delivery_open_window", "delivery_open_schedule", "delivery_open_schedule_of_ids",
    "delivery_open_arrived", "delivery_open_move", "delivery_open_notify", "delivery_open_release", "delivery_record",
    "delivery_record_first", "body_load", "body_keep", "event_load", "event_number_mark", "replica_renew",
    "shard_claim",
)  # fmt: skip
"""The statements between a commit in the outbox and a recorded success."""
KEYS = """
SELECT c.relname AS "table", i.relname AS name,
       ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(x.indkey::int2[]) AS k (number)
             JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.number) AS columns
FROM pg_catalog.pg_index AS x
JOIN pg_catalog.pg_class AS c ON c.oid = x.indrelid
JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relname = ANY ($1) AND x.indisunique
"""
FOREIGN_KEYS = """
SELECT conname FROM pg_catalog.pg_constraint
WHERE contype = 'f' AND (conrelid = ANY ($1::regclass[]) OR confrelid = ANY ($1::regclass[]))
"""
FOLDER = Path(statements.__file__).parent / "sql"


def text_of(name: str) -> str:
    return re.sub(r"--.*", "", (FOLDER / f"{name}.sql").read_text("utf-8"))


def tables_of(text: str) -> set[str]:
    return set(re.findall(r"\bdispatcher\.(\w+)", text))


def mixed(text: str) -> set[str]:
    """Return the hot and history tables of a statement if it reads or writes both kinds."""
    tables = tables_of(text)
    history = tables & HISTORY.keys()
    return history | (tables & HOT) if history and tables & HOT else set()


@pytest.mark.postgres
async def test_unique_keys_of_history_contain_the_event_id(database):
    connection = await asyncpg.connect(database)
    try:
        keys = await connection.fetch(KEYS, list(HISTORY))
        foreign = await connection.fetch(FOREIGN_KEYS, [f"dispatcher.{name}" for name in HISTORY])
    finally:
        await connection.close()
    assert {row["table"] for row in keys} == set(HISTORY)
    wrong = {
        row["name"]: row["columns"] for row in keys if HISTORY[row["table"]] not in row["columns"]
    }
    assert wrong == {}
    assert foreign == []


@pytest.mark.parametrize("name", PATH)
def test_hot_path_statement_uses_no_ctid_and_joins_no_history(name):
    text = text_of(name)
    assert not re.search(r"\bctid\b", text)
    assert name in MIXED or mixed(text) == set()


MIXED = {
    "outbox_fan_out": {"event", "outbox", "delivery_open"},
    "outbox_fan_out_numbered": {"event", "outbox", "delivery_open"},
    "delivery_record_first": {"delivery_done", "delivery_open", "shard"},
}
"""Single statements for a few events (ADR 0080): they write a history table next to hot ones, and join nothing."""


@pytest.mark.parametrize("name", MIXED)
def test_mixed_statement_only_inserts_into_history(name):
    text = text_of(name)
    assert mixed(text) == MIXED[name]
    for table in tables_of(text) & HISTORY.keys():
        assert re.findall(rf"(\w+)\s+dispatcher\.{table}\b", text) == ["INTO"]


def test_control_statement_with_a_join_or_a_ctid_is_found():
    assert mixed("SELECT 1 FROM dispatcher.event AS e JOIN dispatcher.outbox AS o USING (id)")
    assert not mixed("SELECT 1 FROM dispatcher.outbox JOIN dispatcher.shard USING (shard)")
