"""Writes `dispatcher/store/definitions.json` again: what the migrations of this checkout make of an empty database.

`python -m tests.support.definitions`, after each change of a CHECK, a default, a trigger or a function. A test holds
the two together.
"""

import asyncio
import contextlib
from pathlib import Path

import asyncpg
import orjson

from dispatcher.core.errors import SchemaError
from dispatcher.store import migrate
from tests.support.cluster import OwnedCluster
from tests.support.daemon import CHECKOUT

DEFINITIONS = CHECKOUT / "dispatcher" / "store" / "definitions.json"


async def _current(url: str) -> dict[str, str]:
    connection = await asyncpg.connect(url)
    try:
        with contextlib.suppress(SchemaError):  # it differs from the file, which is why this runs
            await migrate.migrate(connection)
        async with migrate.step(connection):
            return await migrate.definitions(connection)
    finally:
        await connection.close()


def write(path: Path = DEFINITIONS) -> None:
    """Migrates an empty database and writes what it holds its rows to."""
    cluster = OwnedCluster()
    cluster.start()
    try:
        url = f"postgresql://dispatcher@/postgres?host={cluster.socket_directory}"
        found = asyncio.run(_current(url))
    finally:
        cluster.stop()
    path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")


if __name__ == "__main__":
    write()
