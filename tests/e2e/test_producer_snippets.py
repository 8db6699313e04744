"""What docs/producers.md shows is true: its snippets publish, its table names every rule, its errors are those seen.

SQL and asyncpg always run. psycopg, node's pg and PHP's pdo_pgsql run where they are installed, else
they are skipped with that reason and only parsed. Java is compiled (its driver knows no Unix socket,
and the tests' Postgres has no other); Go is parsed.
"""

import asyncio
import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import orjson
import pytest

from dispatcher.store.migrate import grant_producers, set_notify
from tests.support.cluster import run_apart

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "producers.md"
APPLICATION = "snippet_wms_app"
ORDER = "ORD-2026-1234"
GO = shutil.which("gofmt") or shutil.which("gofmt", path="/usr/local/go/bin")


def blocks(language: str) -> list[str]:
    """Returns the fenced blocks of a language, in order."""
    return re.findall(
        rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL
    )


def block(language: str, containing: str = "") -> str:
    """Returns the one block that contains this text."""
    found = [text for text in blocks(language) if containing in text]
    assert len(found) == 1, f"{len(found)} {language} blocks with {containing!r}"
    return found[0]


class Shop:
    """A database with the application's own table, and its role, which may publish and no more."""

    def __init__(self, url: str) -> None:
        self.admin_url = url
        parts = urlsplit(url)
        self.host = parse_qs(parts.query)["host"][0]
        self.name = parts.path.removeprefix("/")
        self.url = url.replace("//dispatcher@", f"//{APPLICATION}@")
        self.environ = {
            **os.environ,
            "PGHOST": self.host,
            "PGDATABASE": self.name,
            "PGUSER": APPLICATION,
        }

    async def prepare(self) -> None:
        connection = await asyncpg.connect(self.admin_url)
        try:
            assert await grant_producers(connection) is None
            await set_notify(connection, wanted=True)
            await connection.execute(
                f"""
                DO $$ BEGIN
                    CREATE ROLE {APPLICATION} LOGIN;
                EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
                END $$;
                CREATE TABLE public.orders (id text PRIMARY KEY, state text);
                INSERT INTO public.orders VALUES ('{ORDER}', 'packed');
                GRANT SELECT, UPDATE ON public.orders TO {APPLICATION};
                """
            )
            # Two workers grant to one role: the catalogue's row is updated by one at a time.
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(7263002)")
                await connection.execute(block("sql", "GRANT").replace("wms_app", APPLICATION))
        finally:
            await connection.close()

    async def events(self) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.admin_url)
        try:
            return await connection.fetch(
                "SELECT id, type, data::text AS data FROM dispatcher.outbox ORDER BY position"
            )
        finally:
            await connection.close()

    async def order_state(self) -> str:
        connection = await asyncpg.connect(self.admin_url)
        try:
            return str(await connection.fetchval("SELECT state FROM public.orders"))
        finally:
            await connection.close()

    def run(self, *command: str, text: str = "") -> str:
        """Runs a program as the application; returns what it printed."""
        finished = subprocess.run(
            command,
            input=text,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout.strip()


@pytest.fixture
def shop(make_database: Callable[..., str]) -> Shop:
    made = Shop(make_database())
    run_apart(made.prepare)
    return made


def assert_shipped(shop: Shop, returned: str) -> None:
    """Checks that the order was changed and its event published under the id that was returned."""
    events = run_apart(shop.events)
    assert [event["id"] for event in events] == [returned]
    assert events[0]["type"] == "order.shipped"
    assert orjson.loads(events[0]["data"])["order_id"] == ORDER
    assert run_apart(shop.order_state) == "shipped"


def program(name: str) -> str:
    """Returns where a program is, or skips the test."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def psql() -> list[str]:
    return [program("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]


def test_the_block_of_the_top_publishes_with_psql(shop: Shop) -> None:
    assert_shipped(shop, shop.run(*psql(), text=block("sql", "BEGIN;")))


def test_events_are_made_from_a_table_with_psql(shop: Shop) -> None:
    shop.run(*psql(), text="UPDATE orders SET state = 'shipped'")
    shop.run(*psql(), text=block("sql", "json_build_object"))
    events = run_apart(shop.events)
    assert orjson.loads(events[0]["data"]) == {"order_id": ORDER, "state": "shipped"}


def test_an_id_of_ones_own_is_published_once(shop: Shop) -> None:
    once = block("sql", "ON CONFLICT")
    assert shop.run(*psql(), text=once) == f"{ORDER}-shipped"
    assert shop.run(*psql(), text=once) == ""
    assert len(run_apart(shop.events)) == 1


async def test_asyncpg_publishes(shop: Shop) -> None:
    names: dict[str, Any] = {}
    exec(block("python", "asyncpg"), names)  # noqa: S102 -- the snippet is what is tested
    connection = await asyncpg.connect(shop.url)
    try:
        returned = await names["ship"](connection, ORDER)
    finally:
        await connection.close()
    assert_shipped(shop, returned)


def test_psycopg_publishes(shop: Shop) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed", exc_type=ImportError)
    psycopg = importlib.import_module("psycopg")
    names: dict[str, Any] = {}
    exec(block("python", "psycopg"), names)  # noqa: S102 -- the snippet is what is tested
    with psycopg.connect(shop.url) as connection:
        returned = names["ship"](connection, ORDER)
    assert_shipped(shop, str(returned))


def test_every_python_snippet_is_python() -> None:
    for text in blocks("python"):
        compile(text, "producers.md", "exec")


def test_node_publishes(shop: Shop, tmp_path: Path) -> None:
    node = program("node")
    file = tmp_path / "ship.js"
    file.write_text(block("js"))
    shop.run(node, "--check", str(file))
    has_driver = subprocess.run(
        [node, "-e", "require('pg')"], env=shop.environ, capture_output=True, check=False
    )
    if has_driver.returncode != 0:
        pytest.skip("parsed only: node's package pg is not installed (NODE_PATH finds it)")
    main = (
        f"const {{ ship }} = require('{file}'); const {{ Client }} = require('pg');"
        "(async () => { const client = new Client(); await client.connect();"
        f"console.log(await ship(client, '{ORDER}')); await client.end(); }})();"
    )
    assert_shipped(shop, shop.run(node, "-e", main))


def test_php_publishes(shop: Shop, tmp_path: Path) -> None:
    php = program("php")
    file = tmp_path / "ship.php"
    file.write_text(block("php"))
    shop.run(php, "-l", str(file))
    if "pdo_pgsql" not in shop.run(php, "-m"):
        pytest.skip("parsed only: PHP's extension pdo_pgsql is not installed")
    main = (
        f"require '{file}'; $connection = new PDO('pgsql:host={shop.host};dbname={shop.name};user={APPLICATION}');"
        f"echo ship($connection, '{ORDER}');"
    )
    assert_shipped(shop, shop.run(php, "-r", main))


@pytest.mark.slow
def test_java_compiles(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "Orders.java"
    file.write_text(block("java"))
    shop.run(program("javac"), "-Werror", "-d", str(tmp_path), str(file))


@pytest.mark.skipif(GO is None, reason="go is not installed")
def test_go_is_formatted_go(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "ship.go"
    file.write_text(block("go"))
    assert shop.run(str(GO), "-l", "-e", str(file)) == ""


def test_producer_table_names_every_rule_and_settable_column(shop: Shop) -> None:
    async def read() -> tuple[set[str], set[str]]:
        connection = await asyncpg.connect(shop.admin_url)
        try:
            rules = await connection.fetch(
                "SELECT conname FROM pg_constraint WHERE conrelid = 'dispatcher.outbox'::regclass"
                " AND contype IN ('c', 'p')"
            )
            columns = await connection.fetch(
                "SELECT attname FROM pg_attribute WHERE attrelid = 'dispatcher.outbox'::regclass"
                " AND has_column_privilege('dispatcher_producer', attrelid, attnum, 'INSERT')"
                " AND attnum > 0"
            )
        finally:
            await connection.close()
        return {row[0] for row in rules}, {row[0] for row in columns}

    rules, columns = run_apart(read)
    table = DOCUMENT.read_text().partition("## The columns")[2].partition("\n\n* ")[0]
    named = set(re.findall(r"`([a-z0-9_]+)`", table))
    assert rules | {"id_form_evt_year_number_is_reserved"} <= named
    assert set(re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)) == columns


WRONG = [
    ("INSERT INTO dispatcher.outbox (type, data) VALUES ('order.created', '[]')", "23514"),
    (
        "INSERT INTO dispatcher.outbox (type, data, id) VALUES ('a.b', '{}', 'evt_2026_000001')",
        "23514",
    ),
    ("INSERT INTO dispatcher.outbox (type, data, tenant) VALUES ('a.b', '{}', NULL)", "23502"),
    ("INSERT INTO dispatcher.outbox (type, data) VALUES ('a.b', '{')", "22P02"),
    (
        "INSERT INTO dispatcher.outbox (type, data, inserted_at) VALUES ('a.b', '{}', now())",
        "42501",
    ),
    ("SELECT data FROM dispatcher.outbox", "42501"),
    ("SELECT name FROM dispatcher.endpoint", "42501"),
    ("DELETE FROM dispatcher.outbox", "42501"),
    (
        "INSERT INTO dispatcher.outbox (type, data, id) VALUES ('a.b', '{}', 'x'), ('a.b', '{}', 'x')",
        "23505",
    ),
]


@pytest.mark.parametrize(
    ("statement", "code"), WRONG, ids=[code + " " + s[:70] for s, code in WRONG]
)
async def test_producer_wrong_statement_fails_with_the_documented_code(
    shop: Shop, statement: str, code: str
) -> None:
    connection = await asyncpg.connect(shop.url)
    try:
        with pytest.raises(asyncpg.PostgresError) as caught:
            await connection.execute(statement)
    finally:
        await connection.close()
    assert caught.value.sqlstate == code
    assert f"| `{code}`" in DOCUMENT.read_text()


async def test_a_commit_is_announced_only_while_a_dispatcher_sleeps(shop: Shop) -> None:
    # What two-phase commit meets: PostgreSQL refuses to prepare a transaction that has notified.
    announced: list[object] = []
    heard = asyncio.Event()

    def hear(*arguments: object) -> None:
        announced.append(arguments[-1])
        heard.set()

    producer, sleeper = await asyncpg.connect(shop.url), await asyncpg.connect(shop.admin_url)
    publish = "INSERT INTO dispatcher.outbox (type, data) VALUES ('a.b', '{}')"
    try:
        await sleeper.add_listener("dispatcher_outbox", hear)
        await producer.execute(publish)
        await sleeper.execute("SELECT setval('dispatcher.asleep_until', 4102444800)")
        await producer.execute(publish)
        async with asyncio.timeout(10):
            await heard.wait()
    finally:
        await producer.close()
        await sleeper.close()
    assert len(announced) == 1


async def test_rows_can_be_copied_in(shop: Shop) -> None:
    connection = await asyncpg.connect(shop.url)
    try:
        await connection.copy_records_to_table(
            "outbox",
            schema_name="dispatcher",
            columns=["type", "data"],
            records=[("a.b", "{}")] * 3,
        )
    finally:
        await connection.close()
    assert len(await shop.events()) == 3


async def test_a_value_that_was_jsonb_is_another_one(shop: Shop) -> None:
    connection = await asyncpg.connect(shop.url)
    given = '{"b": 1.50, "a": 1e2}'
    try:
        for cast in ("json", "jsonb"):
            await connection.execute(
                f"INSERT INTO dispatcher.outbox (type, data) VALUES ('a.b', '{given}'::{cast})"
            )
    finally:
        await connection.close()
    kept, changed = [event["data"] for event in await shop.events()]
    assert kept == given
    assert changed == '{"a": 100, "b": 1.50}'
    assert f"`{kept}` arrives as `{changed}`" in DOCUMENT.read_text()
