"""A coordinator and two workers, where the server's programs have the extension citus; tests skip elsewhere.

`DISPATCHER_PG_BIN` names such programs. Each node is a cluster of its own. They reach each other by Unix sockets.
"""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import asyncpg
import pytest

from dispatcher.dev.postgres import Postgres
from dispatcher.dev.postgres_binaries import PostgresError, find_binaries, usable_by_child
from tests.support.cluster import run_apart
from tests.support.servers import own_cluster

NODES = 3
SETTINGS = {
    "shared_preload_libraries": "citus",
    "max_prepared_transactions": "200",
    "max_connections": "100",
    "citus.shard_count": "8",
}


def offers_citus() -> bool:
    """Return whether the server's programs have the extension."""
    try:
        program = usable_by_child(find_binaries()) / "pg_config"
        found = subprocess.run([program, "--pkglibdir"], capture_output=True, text=True, check=True)
    except (PostgresError, OSError, subprocess.CalledProcessError):
        return False
    return Path(found.stdout.strip(), "citus.so").exists()


class Citus:
    """The running nodes, the coordinator first."""

    def __init__(self, nodes: list[Postgres]) -> None:
        self.nodes = nodes

    @property
    def worker(self) -> Postgres:
        """A node that has half of the history."""
        return self.nodes[1]

    def create(self, name: str, *, workers_count: int = NODES - 1) -> str:
        """Make a database on each node, which the coordinator's knows; return its URL."""
        run_apart(lambda: self._create(name, workers_count))
        return self.nodes[0].dsn_for(name)

    async def _create(self, name: str, workers_count: int) -> None:
        for node in self.nodes:
            await run_sql(node.dsn, f"CREATE DATABASE {name} TEMPLATE template0")
            await run_sql(node.dsn_for(name), "CREATE EXTENSION citus")
        folders = [node.socket_directory for node in self.nodes]
        url = self.nodes[0].dsn_for(name)
        await run_sql(url, f"SELECT citus_set_coordinator_host('{folders[0]}', 5432)")
        for folder in folders[1 : 1 + workers_count]:
            await run_sql(url, f"SELECT citus_add_node('{folder}', 5432)")


async def run_sql(url: str, sql: str) -> None:
    """Run a statement on a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@contextmanager
def running() -> Iterator[Citus]:
    """Yield a coordinator and its workers, or skip the test."""
    if not offers_citus():
        pytest.skip("the server has no extension citus; DISPATCHER_PG_BIN can name one that has")
    with ExitStack() as stack:
        nodes = [stack.enter_context(own_cluster(data=None, **SETTINGS)) for _ in range(NODES)]
        for node in nodes:
            node.start()
        yield Citus(nodes)
