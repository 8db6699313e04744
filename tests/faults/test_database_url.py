"""What a database URL promises: the second of two hosts, and credentials that are rotated under a daemon."""

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from dispatcher.core.errors import StoreUnavailableError
from dispatcher.dev.postgres import Postgres
from dispatcher.store.connector import Connector
from dispatcher.store.pool import CONNECT_SECONDS_MAX, Database
from tests.support.bench import Bench
from tests.support.checker import Subscriber
from tests.support.daemon import STANDARD_SECRET, Daemon, add_endpoint, quiet, until
from tests.support.fault_proxy import FaultProxy, Link
from tests.support.ledger import Plan
from tests.support.pace import in_time
from tests.support.servers import frozen, own_cluster, pair, prepare, socket_of

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

HOOK = [Subscriber("ep_x", "/hook")]


class Silent(FaultProxy):
    """A server that accepts connections and never responds: a machine that lost its network."""

    def lead_on(self, link: Link) -> None:
        link.stall()


async def _endpoint(bench: Bench) -> None:
    bench.receiver.behave(hook={"secret": STANDARD_SECRET})
    connection = await asyncpg.connect(bench.url)
    try:
        await add_endpoint(connection, "ep_x", bench.receiver.url("/hook"))
    finally:
        await connection.close()


async def _is_ready(daemon: Daemon, *, expected: bool, seconds: float = 20) -> None:
    async def look() -> bool:
        return bool(((await daemon.get("/readyz"))[0] == 200) is expected)

    await until(look, seconds=seconds, what=f"ready: {expected}")


async def test_second_host_is_used_while_the_first_is_silent(database: str):
    folder, name = socket_of(database)
    async with Silent() as silent:
        url = f"postgresql://dispatcher@/{name}?host=127.0.0.1,{folder}&port={silent.port},5432"
        pool = Database(url, connections_max=2)
        await pool.open()
        try:
            async with pool.connection():
                began = time.monotonic()
                assert await pool.fetch_value("SELECT 1") == 1  # a second connection
                assert in_time(time.monotonic() - began, 2.0), (
                    "it started with the host that is silent"
                )
        finally:
            await pool.close()
        assert len(silent.links) == 1


async def test_control_one_limit_for_all_hosts_never_reaches_the_second(database: str):
    """What the driver does with the same two hosts."""
    folder, name = socket_of(database)
    async with Silent() as silent:
        with pytest.raises(TimeoutError):
            await asyncpg.connect(
                user="dispatcher", database=name, host=["127.0.0.1", folder],
                port=[silent.port, 5432], timeout=CONNECT_SECONDS_MAX,
            )  # fmt: skip


async def test_read_only_host_is_skipped_and_none_is_reported(database: str):
    folder, _ = socket_of(database)
    with own_cluster(default_transaction_read_only="on") as read_only:
        await asyncio.to_thread(read_only.start)
        other = read_only.socket_directory
        base = "postgresql://dispatcher@/postgres?host="
        pool = Database(f"{base}{other},{folder}")
        await pool.open()
        try:
            assert await pool.fetch_value("SHOW transaction_read_only") == "off"
        finally:
            await pool.close()
        alone = Database(f"{base}{other}&target_session_attrs=read-write")
        await alone.open()
        with pytest.raises(StoreUnavailableError, match="read-write"):
            await alone.fetch_value("SELECT 1")
        await alone.close()


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_daemon_follows_a_failover_from_a_host_that_hangs(make_bench):
    """The primary hangs with its connections open, and the second host of the URL is promoted."""
    with pair() as servers:
        hosts = f"{servers.first.socket_directory},{servers.second.socket_directory}"
        bench = make_bench(f"postgresql://dispatcher@/postgres?host={hosts}")
        await prepare(servers.first.dsn)
        await _endpoint(bench)
        daemon = await bench.daemon().started()
        await bench.produced(Plan(url=bench.url, events_count=20, prefix="before"))
        await bench.receiver.received(20)
        with frozen(servers.first):
            await asyncio.to_thread(servers.promote)
            began = time.monotonic()
            bench.url = servers.second.dsn
            await bench.produced(Plan(url=bench.url, events_count=20, prefix="after"))
            await bench.receiver.received(40, seconds=45)
            taken = time.monotonic() - began
            await _is_ready(daemon, expected=True)
            await quiet(bench.url, seconds=30)
            await bench.report(
                "E1", HOOK, bounds={"dup": 20, "unrecorded": 20}, writable_seconds=round(taken, 2)
            )
        assert daemon.child.poll() is None


@contextmanager
def _with_passwords(server: Postgres) -> Iterator[None]:
    """Makes the server ask every role but its superuser for a password."""
    data = server.moved_to or server.data_directory
    file = data / "pg_hba.conf"
    before = file.read_text()
    file.write_text("local all dispatcher trust\nlocal all all scram-sha-256\n")
    yield
    file.write_text(before)


async def test_rotated_password_needs_no_restart(make_bench, tmp_path: Path):
    with own_cluster() as server:
        admin_url = await prepare(await asyncio.to_thread(server.start))
        admin = await asyncpg.connect(admin_url)
        with _with_passwords(server):
            await admin.execute("CREATE ROLE app LOGIN SUPERUSER PASSWORD 'one'")
            await admin.execute("SELECT pg_reload_conf()")
            bench = make_bench(admin_url)
            await _endpoint(bench)
            file = tmp_path / "database-url"
            url = re.sub("//dispatcher@", "//app:{}@", admin_url)
            file.write_text(url.format("one"))
            daemon = await bench.daemon(
                DATABASE_URL="", DATABASE_URL_FILE=str(file), INTAKE__POLL_SECONDS="0.2"
            ).started()
            await _is_ready(daemon, expected=True)
            await admin.execute("ALTER ROLE app PASSWORD 'two'")
            ended = await admin.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'app'"
            )
            assert ended >= 2
            await _is_ready(daemon, expected=False)
            file.write_text(url.format("two"))
            await _is_ready(daemon, expected=True)
            await bench.produced(Plan(url=bench.url, events_count=20, prefix="after"))
            await bench.receiver.received(20)
            listening = (
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dispatcher listen'"
            )

            async def listens() -> bool:
                return bool(await admin.fetchval(listening))

            await until(listens, seconds=15, what="the LISTEN connection")
            await quiet(bench.url, seconds=15)
            await bench.report("E2", HOOK, bounds={"dup": 0, "unrecorded": 0})
            assert daemon.child.poll() is None
            text = daemon.log_path.read_text()
            assert ":one@" not in text
            assert ":two@" not in text
        await admin.close()


async def test_socket_options_of_the_url_are_set(database: str):
    folder, name = socket_of(database)
    async with FaultProxy(path=f"{folder}/.s.PGSQL.5432") as proxy:
        url = f"postgresql://dispatcher@127.0.0.1:{proxy.port}/{name}?keepalives_idle=31"
        url += (
            "&keepalives_interval=7&keepalives_count=4&tcp_user_timeout=9000&application_name=mine"
        )
        url += "&options=-c%20geqo%3Doff"
        connection = await Connector(url).connect(seconds=5)
        try:
            # The kernel's own view of the socket: the test may not trust what it has set itself.
            # An earlier listener on this port can have left closed sockets, which have another state.
            table = (await asyncio.to_thread(Path("/proc/net/tcp").read_text)).splitlines()[1:]
            established = [f"0100007F:{proxy.port:04X}", "01"]
            [socket] = [row for row in map(str.split, table) if row[2:4] == established]
            timer, _, _ = socket[5].partition(":")
            assert timer == "02", "no keepalive timer runs"
            rows = await connection.fetchrow(
                "SELECT current_setting('application_name'), current_setting('geqo')"
            )
            assert tuple(rows or ()) == ("mine", "off")
        finally:
            await connection.close()
