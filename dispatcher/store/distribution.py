"""Distributes history over the workers of a Citus coordinator, and verifies that it is.

`event`, `body`, `delivery_done` and `attempt` are distributed by event id and colocated, so that the rows of an
event are on one worker. All other tables stay on the coordinator. It happens in one transaction while no replica
is alive, because a replica decides at its start which statements it runs (store/distributed.py).
"""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import asyncpg

from dispatcher.core.errors import SchemaError
from dispatcher.store import migrate
from dispatcher.store.distributed import TABLES, report_views
from dispatcher.store.pool import IS_DISTRIBUTED
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Connection, Record

    from dispatcher.store.pool import Reach

_DISTRIBUTE = statement("history_distribute")
_FUNCTIONS = statement("history_functions")
_EXTENSION = statement("history_extension")
_PREPARED_MAX = statement("history_prepared_max")
_SETTINGS = statement("history_settings")
_STATE = statement("history_state")
_MARK = hashlib.sha256("".join([_FUNCTIONS, *report_views()]).encode()).hexdigest()
"""The comment on the view `event_write`: the version of the functions and views."""
_NO_EXTENSION = (
    "this database has no extension citus. Run on the coordinator and on every worker: CREATE EXTENSION citus;"
    " and then on the coordinator: SELECT citus_set_coordinator_host('host'), citus_add_node('worker', 5432)"
)
_EXPECTED = sorted(f"{table} by {column}" for table, column in TABLES.items())


async def is_distributed(connection: "Reach") -> bool:
    """Return whether `migrate --distribute` has run here."""
    return bool(await connection.fetchval(IS_DISTRIBUTED))


async def distribute(
    connection: "Connection[Record]", *, report: Callable[[str], None] = lambda _: None
) -> bool:
    """Distribute history; return False if it was distributed before, whose functions are then replaced.

    Raises:
        SchemaError: this server or its workers cannot do it, or a replica is alive; nothing was changed.
    """

    async def change() -> bool:
        async with migrate.step(connection):
            problems = await _obstacles(connection)
            if problems:
                raise SchemaError("\n".join(problems))
            is_new = not await is_distributed(connection)
            if is_new:
                await connection.execute(_DISTRIBUTE)
            await _replace_functions(connection)
            return is_new

    try:
        is_new = await migrate.patiently(connection, change, report)
        await connection.execute(await connection.fetchval(_SETTINGS))
    except asyncpg.PostgresError as error:
        raise SchemaError(f"history cannot be distributed: {error}") from error
    return is_new


async def refresh(connection: "Connection[Record]") -> None:
    """Replace the functions of a distributed database, which another version may have made."""
    async with migrate.step(connection):
        if await is_distributed(connection):
            await _replace_functions(connection)


async def _replace_functions(connection: "Connection[Record]") -> None:
    for sql in (_FUNCTIONS, *report_views()):
        await connection.execute(sql)
    await connection.execute(f"COMMENT ON VIEW dispatcher.event_write IS '{_MARK}'")


async def _obstacles(connection: "Reach") -> list[str]:
    if not await connection.fetchval(_EXTENSION):
        return [_NO_EXTENSION]
    state = await connection.fetchrow(_STATE)
    assert state is not None  # noqa: S101 -- a SELECT of subqueries has one row
    problems = []
    if state["replicas_count"]:
        problems.append(f"{state['replicas_count']} replicas are alive. Stop all of them first.")
    if not state["workers_count"]:
        problems.append(
            "the coordinator has no worker. Run on it: SELECT citus_add_node('worker', 5432)"
        )
    problems += [f"worker {name} is not active" for name in state["inactive"]]
    if state["distributed"] and not await is_distributed(connection):
        problems.append(
            f"distributed by other means: {', '.join(state['distributed'])}. Run undistribute_table() on them first."
        )
    problems += [
        f"worker {row['nodename']}:{row['nodeport']} cannot commit in two phases. Set max_prepared_transactions there"
        " to twice max_connections."
        for row in await connection.fetch(_PREPARED_MAX)
        if not row["prepared_max"]
    ]
    return problems


async def distribution_problems(connection: "Reach") -> list[str]:
    """Return human-readable problems of a distributed history; an empty list also if it is not distributed."""
    if not await connection.fetchval(_EXTENSION):
        return []
    state = await connection.fetchrow(_STATE)
    assert state is not None  # noqa: S101 -- a SELECT of subqueries has one row
    if not await is_distributed(connection):
        return [
            f"{one}: history is distributed in part, which no statement supports. Run undistribute_table() on it, or:"
            " dispatcher migrate --distribute"
            for one in state["distributed"]
        ]
    problems = [
        f"history is not distributed as {one}"
        for one in _EXPECTED
        if one not in state["distributed"]
    ]
    problems += [f"partition {one} is not distributed" for one in state["local_partitions"]]
    problems += [f"worker {name} is not active" for name in state["inactive"]]
    if state["functions_mark"] != _MARK:
        problems.append(
            "the functions of distributed history are of another version; run: dispatcher migrate"
        )
    if not state["is_visibility_off"]:
        problems.append(
            "citus.override_table_visibility is on: a connection takes many seconds to open; run:"
            " dispatcher migrate --distribute"
        )
    return problems
