"""What the pages on publishing show is true: their recipes publish, the table names every rule, errors are those seen.

SQL, asyncpg, psycopg, SQLAlchemy and Django always run, as a role that may only publish. Go's pgx, Node's pg and
Prisma, PHP's pdo_pgsql, Ruby's Active Record and Java's libraries run where they are installed, else they are skipped
with that reason and only parsed or compiled.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import orjson
import psycopg
import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from dispatcher.store.migrate import grant_producers, set_notify
from tests.support.cluster import run_apart
from tests.support.fault_proxy import FaultProxy

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

DOCS = Path(__file__).resolve().parents[2] / "docs"
DOCUMENT = DOCS / "reference" / "sql.md"
RECIPES = [DOCUMENT, *sorted(DOCS.glob("how-to/publish-from-*.md"))]
APPLICATION = "snippet_wms_app"
ORDER = "ORD-2026-1234"
GO_MAIN = """package main

import (
	"context"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"
)

func main() {
	ctx := context.Background()
	connection, err := pgx.Connect(ctx, "")
	if err != nil {
		panic(err)
	}
	defer connection.Close(ctx)
	id, err := Ship(ctx, connection, os.Args[1])
	if err != nil {
		panic(err)
	}
	fmt.Println(id)
}
"""
JAVA_MAIN = """
import jakarta.persistence.Persistence;
import java.sql.DriverManager;
import java.util.Map;
import org.springframework.jdbc.core.simple.JdbcClient;
import org.springframework.jdbc.datasource.DataSourceTransactionManager;
import org.springframework.jdbc.datasource.DriverManagerDataSource;
import org.springframework.transaction.support.TransactionTemplate;

final class Recipes {
    public static void main(String[] arguments) throws Exception {
        String url = arguments[0];
        String order = arguments[1];
        String data = "{\\"order_id\\": \\"" + order + "\\"}";
        String jdbc;
        try (var connection = DriverManager.getConnection(url)) {
            jdbc = Orders.ship(connection, order, data);
        }
        var source = new DriverManagerDataSource(url);
        var orders = new SpringOrders(JdbcClient.create(source));
        var transaction = new TransactionTemplate(new DataSourceTransactionManager(source));
        String spring = transaction.execute(status -> orders.ship(order, data));
        String jpa;
        var settings = Map.of("jakarta.persistence.jdbc.url", url);
        try (var factory = Persistence.createEntityManagerFactory("recipes", settings);
                var manager = factory.createEntityManager()) {
            manager.getTransaction().begin();
            jpa = JpaOrders.publishShipped(manager, data);
            manager.getTransaction().commit();
        }
        System.out.println(jdbc + " " + spring + " " + jpa);
    }
}
"""
PERSISTENCE = """<persistence xmlns="https://jakarta.ee/xml/ns/persistence" version="3.0">
  <persistence-unit name="recipes" transaction-type="RESOURCE_LOCAL"/>
</persistence>
"""
GO = shutil.which("gofmt") or shutil.which("gofmt", path="/usr/local/go/bin")


def blocks(language: str) -> list[str]:
    """Returns the different fenced blocks of a language, in order."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    texts = [page.read_text(encoding="utf-8") for page in RECIPES]
    return list(dict.fromkeys(one for text in texts for one in pattern.findall(text)))


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

    def run(self, *command: str, text: str = "", seconds: float = 60) -> str:
        """Runs a program as the application; returns what it printed."""
        finished = subprocess.run(
            command,
            input=text,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=seconds,
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


@contextmanager
def engine(shop: Shop) -> Iterator[Engine]:
    """Yields an engine of SQLAlchemy that connects as the application."""
    made = create_engine(shop.url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        yield made
    finally:
        made.dispose()


def test_the_block_of_the_top_publishes_with_psql(shop: Shop) -> None:
    assert_shipped(shop, shop.run(*psql(), text=block("sql", "weight_kg")))


def test_events_are_made_from_a_table_with_psql(shop: Shop) -> None:
    shop.run(*psql(), text="UPDATE orders SET state = 'shipped'")
    shop.run(*psql(), text=block("sql", "FROM orders\n"))
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
    names: dict[str, Any] = {}
    exec(block("python", "psycopg"), names)  # noqa: S102 -- the snippet is what is tested
    with psycopg.connect(shop.url) as connection:
        returned = names["ship"](connection, ORDER)
    assert_shipped(shop, str(returned))


def test_sqlalchemy_core_publishes(shop: Shop) -> None:
    names: dict[str, Any] = {}
    exec(block("python", "import Connection"), names)  # noqa: S102 -- the snippet is what is tested
    with engine(shop) as sqlalchemy, sqlalchemy.begin() as connection:
        returned = names["ship"](connection, ORDER)
    assert_shipped(shop, returned)


def test_sqlalchemy_orm_publishes(shop: Shop) -> None:
    names: dict[str, Any] = {"__name__": "orm"}
    exec(block("python", "DeclarativeBase"), names)  # noqa: S102 -- the snippet is what is tested
    with engine(shop) as sqlalchemy, Session(sqlalchemy) as session:
        returned = names["ship"](session, ORDER)
        session.commit()
    assert_shipped(shop, returned)


def test_django_publishes_in_the_transaction_of_its_models(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "recipe.py").write_text(block("python", "django"))
    main = f"""
from django.conf import settings
database = {{"ENGINE": "django.db.backends.postgresql", "NAME": {shop.name!r}, "HOST": {shop.host!r}}}
settings.configure(DATABASES={{"default": database | {{"USER": {APPLICATION!r}}}}})
from django.db import connection, transaction
from recipe import ship
try:
    with transaction.atomic():
        ship({ORDER!r})
        raise KeyError
except KeyError:
    print(ship({ORDER!r}))
connection.close()
"""
    shop.environ["PYTHONPATH"] = str(tmp_path)
    assert_shipped(shop, shop.run(sys.executable, "-c", main))


def test_trigger_publishes_the_new_state_as_its_caller(shop: Shop) -> None:
    trigger = block("sql", "CREATE TRIGGER")
    shop.environ["PGUSER"] = "dispatcher"
    shop.run(*psql(), text=trigger)
    shop.environ["PGUSER"] = APPLICATION
    update = f"UPDATE orders SET state = 'shipped' WHERE id = '{ORDER}'"
    shop.run(*psql(), text=f"{update}; {update}")
    (event,) = run_apart(shop.events)
    assert (event["type"], orjson.loads(event["data"])) == ("order.shipped", {"order_id": ORDER})


def test_function_call_of_the_page_publishes(shop: Shop) -> None:
    returned = shop.run(*psql(), text=block("sql", "publish('order.shipped', '{"))
    assert [event["id"] for event in run_apart(shop.events)] == [returned]


def has_package(shop: Shop, node: str, package: str) -> bool:
    command = [node, "-e", f"require('{package}')"]
    return (
        subprocess.run(command, env=shop.environ, capture_output=True, check=False).returncode == 0
    )


def test_node_publishes(shop: Shop, tmp_path: Path) -> None:
    node = program("node")
    file = tmp_path / "ship.js"
    file.write_text(block("js", "client.query"))
    shop.run(node, "--check", str(file))
    if not has_package(shop, node, "pg"):
        pytest.skip("parsed only: node's package pg is not installed (NODE_PATH finds it)")
    main = (
        f"const {{ ship }} = require('{file}'); const {{ Client }} = require('pg');"
        "(async () => { const client = new Client(); await client.connect();"
        f"console.log(await ship(client, '{ORDER}')); await client.end(); }})();"
    )
    assert_shipped(shop, shop.run(node, "-e", main))


def test_prisma_publishes(shop: Shop, tmp_path: Path) -> None:
    node = program("node")
    file = tmp_path / "ship.js"
    file.write_text(block("js", "prisma"))
    shop.run(node, "--check", str(file))
    if not all(has_package(shop, node, one) for one in ("@prisma/adapter-pg", ".prisma/client")):
        pytest.skip("parsed only: no generated @prisma/client with @prisma/adapter-pg in NODE_PATH")
    main = (
        f"const {{ shipWithPrisma }} = require('{file}'); const {{ PrismaClient }} = require('@prisma/client');"
        "const { PrismaPg } = require('@prisma/adapter-pg');"
        f"const adapter = new PrismaPg({{ host: '{shop.host}', database: '{shop.name}', user: '{APPLICATION}' }});"
        "(async () => { const prisma = new PrismaClient({ adapter });"
        f"console.log(await shipWithPrisma(prisma, '{ORDER}')); await prisma.$disconnect(); }})();"
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


def test_active_record_publishes_in_the_transaction_of_its_models(
    shop: Shop, tmp_path: Path
) -> None:
    ruby = program("ruby")
    file = tmp_path / "ship.rb"
    file.write_text(block("ruby"))
    shop.run(ruby, "-c", str(file))
    libraries = [ruby, "-e", "require 'active_record'; require 'pg'"]
    if subprocess.run(libraries, capture_output=True, check=False).returncode != 0:
        pytest.skip("parsed only: Ruby's libraries activerecord and pg are not installed")
    main = f"""
require "active_record"
ActiveRecord::Base.establish_connection(
  adapter: "postgresql", host: {shop.host!r}, database: {shop.name!r}, username: {APPLICATION!r}
)
require {str(file)!r}
begin
  ActiveRecord::Base.transaction {{ ship({ORDER!r}); raise KeyError }}
rescue KeyError
  puts ship({ORDER!r})
end
"""
    assert_shipped(shop, shop.run(ruby, "-e", main))


@pytest.mark.slow
async def test_java_publishes_with_jdbc_spring_and_jpa(shop: Shop, tmp_path: Path) -> None:
    """RECIPES_CLASSPATH names the jars of pgjdbc, Spring and Hibernate; pgjdbc needs TCP."""
    javac, jars = program("javac"), os.environ.get("RECIPES_CLASSPATH", "")
    recipes = {"Orders": "java.sql", "SpringOrders": "springframework", "JpaOrders": "jakarta"}
    for name, containing in recipes.items():
        (tmp_path / f"{name}.java").write_text(block("java", containing))
    if not jars:
        shop.run(javac, "-Werror", "-d", str(tmp_path), str(tmp_path / "Orders.java"))
        pytest.skip("JDBC compiled only: RECIPES_CLASSPATH names no jars")
    (tmp_path / "Recipes.java").write_text(JAVA_MAIN)
    (tmp_path / "META-INF").mkdir()
    (tmp_path / "META-INF" / "persistence.xml").write_text(PERSISTENCE)
    classpath = f"{tmp_path}{os.pathsep}{jars}"
    sources = [f"{tmp_path / name}.java" for name in (*recipes, "Recipes")]
    shop.run(javac, "-cp", classpath, "-d", str(tmp_path), *sources)
    async with FaultProxy(path=f"{shop.host}/.s.PGSQL.5432") as proxy:
        url = f"jdbc:postgresql://127.0.0.1:{proxy.port}/{shop.name}?user={APPLICATION}"
        command = [program("java"), "-cp", classpath, "Recipes", url, ORDER]
        printed = await asyncio.to_thread(shop.run, *command)
    returned = printed.splitlines()[-1].split()
    assert [event["id"] for event in run_apart(shop.events)] == returned
    assert len(returned) == len(recipes)
    assert run_apart(shop.order_state) == "shipped"


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(GO is None, reason="go is not installed")
def test_go_publishes(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "ship.go"
    file.write_text(block("go"))
    assert shop.run(str(GO), "-l", "-e", str(file)) == ""
    go = str(Path(str(GO)).with_name("go"))
    cache = Path(shop.run(go, "env", "GOMODCACHE")) / "github.com" / "jackc" / "pgx"
    versions = sorted(cache.glob("v5@*"))
    if not versions:
        pytest.skip("formatted only: pgx 5 is not in the module cache")
    release = ".".join(shop.run(go, "env", "GOVERSION").removeprefix("go").split(".")[:2])
    (tmp_path / "go.mod").write_text(
        f"module recipe\n\ngo {release}\n\nrequire github.com/jackc/pgx/v5 {versions[-1].name[3:]}\n"
    )
    (tmp_path / "main.go").write_text(GO_MAIN)
    shop.environ |= {
        "GOFLAGS": "-mod=mod",
        "GOPROXY": "off",
        "GONOSUMDB": "*",
        "GOTOOLCHAIN": "local",
    }
    shop.run(
        go, "-C", str(tmp_path), "build", "-o", "recipe", ".", seconds=200
    )  # once: pgx and net
    assert_shipped(shop, shop.run(str(tmp_path / "recipe"), ORDER))


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
